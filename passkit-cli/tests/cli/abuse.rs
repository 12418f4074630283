//! What one stranger can do to all others. The stranger has one pass, or none. Pushes and bytes are
//! counted, and memory is read from the process.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant, SystemTime},
};

use passkit_apns::local::Answer;

use crate::{
    archives::{pass, replace, signed},
    program::{Service, authorization, eventually, registration},
    push::{Local, METRICS, TYPE, quiet, register, token},
};

/// In an earlier version, fewer bad tokens than this stopped the pushes of a whole type.
const STRANGERS: usize = 300;
const HONEST: usize = 20;

/// Makes a service with the pass of a stranger and the passes of others. Bad tokens are registered
/// for the pass of the stranger.
fn with_stranger(local: &Local) -> Service {
    let mut service = Service::new().given(&local.arguments()).given(&METRICS);
    for serial in 0..=HONEST {
        change(&service, serial, "one");
        local.apns.know(&token(serial));
    }
    change(&service, 1_000, "one");
    service.start();
    quiet(&service);
    for serial in 1..=HONEST {
        let device = format!("honest-{serial}");
        register(&service, &device, &token(serial), &serial.to_string());
    }
    for number in 0..STRANGERS {
        let device = format!("stranger-{number}");
        register(&service, &device, &token(10_000 + number), "1000");
    }
    service
}

fn change(service: &Service, serial: usize, version: &str) {
    let serial = serial.to_string();
    let file = service.passes().join(format!("{serial}.pkpass"));
    replace(&file, &pass(TYPE, &serial, version));
}

fn all_are_pushed(local: &Local, since: SystemTime) {
    eventually("all others get a push", || {
        let pushed = local.pushed(since);
        (1..=HONEST).all(|serial| pushed.contains_key(&token(serial)))
    });
}

#[test]
fn bad_tokens_of_a_stranger_do_not_stop_the_pushes_of_others() {
    let local = Local::start();
    let mut service = with_stranger(&local);
    // One push is accepted, so the certificate is right.
    register(&service, "first", &token(0), "0");
    change(&service, 0, "two");
    eventually("the first phone gets a push", || {
        local.apns.pushes().len() == 1
    });
    for version in ["two", "three"] {
        // Right after a start, the service knows only what the store has.
        service.stop("TERM");
        service.start();
        let start = SystemTime::now();
        change(&service, 1_000, version);
        for serial in 1..=HONEST {
            change(&service, serial, version);
        }
        all_are_pushed(&local, start);
        quiet(&service);
    }
    let said = service.said();
    assert!(!said.contains("every push token is refused"), "{said}");
    local.no_violation();
}

#[test]
fn a_stranger_who_is_first_of_all_does_not_stop_the_pushes_of_others() {
    let local = Local::start();
    let service = with_stranger(&local);
    change(&service, 1_000, "two");
    eventually("the certificate is suspected", || {
        service.said().contains("every push token is refused")
    });
    let start = SystemTime::now();
    for serial in 1..=HONEST {
        change(&service, serial, "two");
    }
    all_are_pushed(&local, start);
    quiet(&service);
    local.no_violation();
}

#[test]
fn a_pass_takes_no_more_devices_than_allowed() {
    let mut service = Service::with_arguments(&["--max-devices-per-pass", "50"]);
    fs::write(service.passes().join("a.pkpass"), pass(TYPE, "A", "one")).unwrap();
    service.start();
    let statuses: Vec<u16> = (0..60)
        .map(|number| service.register(&format!("device-{number}"), TYPE, "A"))
        .collect();
    assert_eq!(statuses[..50], [201; 50]);
    assert_eq!(statuses[50..], [503; 10]);
    eventually("it is logged", || {
        service.said().contains("which is the maximum")
    });
    let said = service.said();
    assert_eq!(said.matches("which is the maximum").count(), 1, "{said}");
}

/// Returns the resident memory of the process, in bytes.
fn resident(service: &Service) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", service.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kilobytes = line.unwrap().split_whitespace().nth(1).unwrap();
    kilobytes.parse::<u64>().unwrap() * 1024
}

/// Returns bytes that no compression makes smaller.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_be_bytes()
    };
    std::iter::repeat_with(&mut next)
        .flatten()
        .take(length)
        .collect()
}

const MEGABYTE: u64 = 1024 * 1024;

#[test]
#[cfg(target_os = "linux")]
fn slow_clients_hold_little_memory_and_it_is_given_back() {
    let mut service = Service::new();
    let large = signed(TYPE, "A", "one", &[("noise.bin", noise(15_000_000))]);
    fs::write(service.passes().join("a.pkpass"), large).unwrap();
    service.start();
    assert_eq!(
        service.get(TYPE, "A", None).status,
        200,
        "{}",
        service.said()
    );
    let before = resident(&service);

    let head = format!(
        "GET /v1/passes/{TYPE}/A HTTP/1.1\r\nHost: test\r\nAuthorization: {}\r\n\r\n",
        authorization(TYPE, "A")
    );
    let readers: Vec<TcpStream> = (0..200)
        .map(|_| {
            let mut reader = TcpStream::connect(service.address()).unwrap();
            reader.write_all(head.as_bytes()).unwrap();
            reader
        })
        .collect();
    for mut reader in &readers {
        let mut start = [0; 12];
        reader.read_exact(&mut start).unwrap();
        assert_eq!(&start, b"HTTP/1.1 200");
    }
    let with_readers = resident(&service);
    assert!(
        with_readers < before + 100 * MEGABYTE,
        "200 readers of 15 MiB hold {} MB",
        (with_readers - before) / MEGABYTE
    );

    let body = [b' '; 250_000];
    let logs: Vec<TcpStream> = (0..600)
        .map(|_| {
            let mut log = TcpStream::connect(service.address()).unwrap();
            log.write_all(b"POST /v1/log HTTP/1.1\r\nHost: test\r\nContent-Length: 262144\r\n\r\n")
                .unwrap();
            // When the service has refused the log, it need not read the rest of the body.
            let _ = log.write_all(&body);
            log
        })
        .collect();
    let with_logs = resident(&service);
    assert!(
        with_logs < before + 100 * MEGABYTE,
        "600 unfinished logs and 200 readers hold {} MB",
        (with_logs - before) / MEGABYTE
    );
    let path = registration("D", TYPE, "A");
    let headers = [("Authorization", &*authorization(TYPE, "A"))];
    let body = br#"{"pushToken":"c0ffee"}"#;
    assert_eq!(service.send("POST", &path, &headers, body).status, 201);

    drop((readers, logs));
    eventually("the memory is given back", || {
        resident(&service) < before + 50 * MEGABYTE
    });
    eprintln!(
        "memory in MB: {} before, {} with readers, {} with logs, {} after",
        before / MEGABYTE,
        with_readers / MEGABYTE,
        with_logs / MEGABYTE,
        resident(&service) / MEGABYTE
    );
}

#[test]
fn a_client_address_gets_its_share_of_connections_and_no_more() {
    let mut service = Service::with_arguments(&["--max-connections-per-address", "2"]);
    fs::write(service.passes().join("a.pkpass"), pass(TYPE, "A", "one")).unwrap();
    service.start();
    let mut held: Vec<_> = (0..2)
        .map(|_| {
            // The request is answered, so the connection is counted.
            let mut stream = TcpStream::connect(service.address()).unwrap();
            stream
                .write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
                .unwrap();
            stream.read_exact(&mut [0; 12]).unwrap();
            stream
        })
        .collect();
    let mut refused = TcpStream::connect(service.address()).unwrap();
    refused
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    assert!(
        matches!(refused.read(&mut [0]), Ok(0)),
        "it is closed at once"
    );
    held.pop();
    eventually("there is a place again", || {
        crate::program::send(&service.address(), "GET", "/", &[], b"").is_ok()
    });
    eventually("it is logged", || {
        service.said().contains("--max-connections-per-address")
    });
}

/// If the connection were closed while the client writes, the client would lose the answer.
#[test]
fn a_client_that_sends_too_much_gets_its_answer() {
    let mut service = Service::new();
    fs::write(service.passes().join("a.pkpass"), pass(TYPE, "A", "one")).unwrap();
    service.start();
    let body = vec![b' '; 4 * 1024 * 1024];
    for _ in 0..20 {
        assert_eq!(service.send("POST", "/v1/log", &[], &body).status, 413);
        let path = registration("D", TYPE, "A");
        assert_eq!(service.send("POST", &path, &[], &body).status, 401);
        assert_eq!(service.send("POST", "/elsewhere", &[], &body).status, 404);
    }
}

#[test]
fn wrong_admin_tokens_leave_one_line_and_are_slow() {
    let mut service = Service::with_arguments(&["--admin-token", "the-right-token-1234"]);
    fs::write(service.passes().join("a.pkpass"), pass(TYPE, "A", "one")).unwrap();
    service.start();
    for token in ["wrong", "the-right-token-1235"] {
        let headers = [("Authorization", &*format!("Bearer {token}"))];
        let start = Instant::now();
        let answer = service.send("POST", "/admin/v1/publish", &headers, b"{}");
        assert_eq!(answer.status, 401);
        assert!(
            start.elapsed() >= Duration::from_secs(1),
            "it is slowed down"
        );
    }
    eventually("it is logged", || {
        service.said().contains("wrong admin token")
    });
    let said = service.said();
    assert_eq!(said.matches("wrong admin token").count(), 1, "{said}");
    assert!(!said.contains("the-right-token"), "{said}");
}

#[test]
fn rejected_pushes_are_counted_in_a_few_lines() {
    const DEVICES: usize = 2_000;
    let local = Local::start();
    let mut service = Service::new().given(&local.arguments()).given(&METRICS);
    change(&service, 0, "one");
    service.start();
    quiet(&service);
    for number in 0..DEVICES {
        register(&service, &format!("device-{number}"), &token(number), "0");
    }
    local
        .apns
        .answer_next(DEVICES, Answer::refuse(400, "PayloadEmpty"));
    change(&service, 0, "two");
    let counts = || -> Vec<usize> {
        let said = service.said();
        let lines = said.lines().filter(|line| line.contains("rejects pushes"));
        lines
            .map(|line| {
                let (_, count) = line.split_once("count=").unwrap();
                count.split_whitespace().next().unwrap().parse().unwrap()
            })
            .collect()
    };
    eventually("all are counted", || {
        counts().iter().sum::<usize>() == DEVICES
    });
    assert!(counts().len() < 10, "{:?}", counts());
}
