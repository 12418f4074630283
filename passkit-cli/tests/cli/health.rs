//! `/healthz`, `/readyz` and `passkit healthcheck`.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    process::Command,
    time::{Duration, SystemTime},
};

use passkit_test_servers::redis::Node;
use serde_json::{Value, json};

use crate::{
    archives::{pass, replace},
    metrics::{self, scrape, value},
    program::{Answer, Service, authorization, eventually, passkit, run, send},
    push::{Local, METRICS, TYPE, quiet, register, token},
};

const DAY: Duration = Duration::from_secs(24 * 3600);

fn asked(address: &str, path: &str) -> Answer {
    send(address, "GET", path, &[], b"").unwrap()
}

pub(crate) fn ready(address: &str) -> (u16, Value) {
    let answer = asked(address, "/readyz");
    (answer.status, answer.json())
}

/// Runs `passkit healthcheck` against this address.
fn healthcheck(address: &str) -> (Option<i32>, String, String) {
    run(passkit().args(["healthcheck", "--metrics", address]))
}

#[test]
fn a_service_that_works_is_ready() {
    let mut service = Service::new().given(&METRICS);
    service.start();
    let address = metrics::address(&service);
    assert_eq!(asked(&address, "/healthz").status, 200);
    let report = json!({ "ready": true, "problems": [], "warnings": [] });
    assert_eq!(ready(&address), (200, report));
    assert_eq!(
        healthcheck(&address),
        (Some(0), "ready\n".into(), String::new())
    );
    // The address may come from the same variable as for the service.
    let (code, out, _) = run(passkit()
        .args(["healthcheck", "--alive"])
        .env("PASSKIT_METRICS", &address));
    assert_eq!((code, &*out), (Some(0), "alive\n"));
    // The address for phones has none of these paths.
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(service.send("GET", path, &[], b"").status, 404);
    }
}

/// Few clients may be connected. A client that keeps its connection would block the checks of
/// others.
#[test]
fn an_answer_ends_its_connection() {
    let mut service = Service::new().given(&METRICS);
    service.start();
    let mut client = TcpStream::connect(metrics::address(&service)).unwrap();
    client
        .write_all(b"GET /healthz HTTP/1.1\r\nHost: test\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.contains("connection: close\r\n"), "{answer}");
}

#[test]
fn a_failed_check_is_one_line() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    // Nothing listens on port 1, and no other test gets this port by chance.
    let closed = "127.0.0.1:1".to_owned();
    let mut service = Service::new();
    service.start();
    for (address, mention) in [
        (closed, "does not answer"),
        (silent.local_addr().unwrap().to_string(), "does not answer"),
        // This is the address for phones.
        (service.address(), "a server other than passkit"),
    ] {
        let (code, out, said) = healthcheck(&address);
        assert_eq!(
            (code, &*out, said.lines().count()),
            (Some(1), "", 1),
            "{said}"
        );
        assert!(
            said.starts_with("passkit: ") && said.contains(mention),
            "{said}"
        );
    }
    let (code, _, said) = healthcheck("127.0.0.1:0");
    assert_eq!((code, said.lines().count()), (Some(2), 1), "{said}");
    assert!(
        said.contains("--metrics") && said.contains("PASSKIT_METRICS"),
        "{said}"
    );
}

#[test]
fn a_store_that_fails_or_hangs_makes_the_instance_unready_until_it_answers() {
    let node = Node::start(&[]).unwrap();
    let mut service = Service::over(&node.url()).given(&METRICS);
    service.start();
    let address = metrics::address(&service);
    assert_eq!(ready(&address).0, 200);

    node.pause().unwrap();
    let unready = |problem: &str| {
        eventually(problem, || {
            let (status, report) = ready(&address);
            status == 503 && report["problems"] == json!([problem])
        });
    };
    unready("the store does not answer");
    let (code, _, said) = healthcheck(&address);
    assert_eq!(
        (code, &*said),
        (Some(1), "passkit: not ready: the store does not answer\n")
    );
    assert_eq!(asked(&address, "/healthz").status, 200);
    node.resume().unwrap();
    eventually("ready again", || ready(&address).0 == 200);

    node.kill().unwrap();
    eventually("unready without the store", || ready(&address).0 == 503);
    node.restart().unwrap();
    eventually("ready again", || ready(&address).0 == 200);
    let said = service.stop_and_hear();
    assert!(
        said.contains("not ready: ") && said.contains("ready again"),
        "{said}"
    );
}

#[test]
fn a_starting_instance_is_alive_and_not_ready() {
    let node = Node::start(&[]).unwrap();
    node.pause().unwrap();
    let mut service = Service::over(&node.url()).given(&METRICS);
    service.launch();
    let address = metrics::address(&service);
    assert_eq!(asked(&address, "/healthz").status, 200);
    let (status, report) = ready(&address);
    assert_eq!(
        (status, &report["problems"]),
        (503, &json!(["the service is starting"]))
    );
    node.resume().unwrap();
    eventually("it is ready", || ready(&address).0 == 200);
}

#[test]
fn a_stopping_instance_is_not_ready_while_it_answers_the_last_request() {
    let mut service = Service::new().given(&METRICS);
    let file = service.passes().join("a.pkpass");
    fs::write(file, pass(TYPE, "A-1", "one")).unwrap();
    service.start();
    let address = metrics::address(&service);
    let mut phone = TcpStream::connect(service.address()).unwrap();
    let authorization = authorization(TYPE, "A-1");
    write!(
        phone,
        "POST /v1/devices/D-1/registrations/{TYPE}/A-1 HTTP/1.1\r\nHost: test\r\nAuthorization: {authorization}\r\n\
         Expect: 100-continue\r\nConnection: close\r\nContent-Length: 20\r\n\r\n"
    )
    .unwrap();
    // The service asks for the body, so the request is in flight.
    phone.read_exact(&mut [0; 25]).unwrap();
    let killed = Command::new("kill").arg(service.id().to_string()).status();
    assert!(killed.unwrap().success());
    eventually("it is not ready", || {
        let (status, report) = ready(&address);
        status == 503 && report["problems"] == json!(["the service is stopping"])
    });
    write!(phone, r#"{{"pushToken":"c0ff"}}"#).unwrap();
    let mut answer = String::new();
    phone.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
}

#[test]
fn an_absent_folder_is_a_warning() {
    let mut service = Service::new().given(&METRICS);
    fs::write(service.passes().join("a.pkpass"), pass(TYPE, "A-1", "one")).unwrap();
    service.start();
    let address = metrics::address(&service);
    eventually("it is measured", || {
        value(&scrape(&service), "passkit_folders_absent") == Some(0.0)
    });
    let away = service.folder.path().join("away");
    fs::rename(service.passes(), &away).unwrap();
    eventually("it is a warning", || {
        let (status, report) = ready(&address);
        assert_eq!(status, 200);
        report["warnings"][0]
            .as_str()
            .is_some_and(|warning| warning.contains("passes is absent"))
    });
    eventually("it is measured", || {
        value(&scrape(&service), "passkit_folders_absent") == Some(1.0)
    });
    assert_eq!(service.get(TYPE, "A-1", None).status, 200);
    fs::rename(&away, service.passes()).unwrap();
    eventually("the warning ends", || {
        ready(&address).1["warnings"] == json!([])
    });
}

#[test]
fn an_expired_push_certificate_does_not_keep_the_service_from_starting() {
    let local = Local::start();
    let now = SystemTime::now();
    let old = local
        .apns
        .issue_for(TYPE, now - 9 * DAY, now - DAY)
        .unwrap();
    let file = local.file("ticket.pem", &(old.certificate + &old.key));
    let mut service = Service::new()
        .given(&local.arguments_with(&file, local.apns.port()))
        .given(&METRICS);
    let archive = service.passes().join("a.pkpass");
    fs::write(&archive, pass(TYPE, "A-1", "one")).unwrap();
    service.start();
    let address = metrics::address(&service);
    register(&service, "D-1", &token(1), "A-1");
    let (status, report) = ready(&address);
    let warning =
        format!("the push certificate for {TYPE} has expired, so its phones get no pushes");
    assert_eq!((status, &report["warnings"]), (200, &json!([warning])));
    let (code, out, _) = healthcheck(&address);
    assert_eq!(
        (code, out),
        (Some(0), format!("ready (warnings: {warning})\n"))
    );
    assert!(service.said().contains("expired on"), "{}", service.said());
    let seconds = |time: SystemTime| {
        time.duration_since(SystemTime::UNIX_EPOCH)
            .unwrap()
            .as_secs_f64()
    };
    let series = format!(r#"passkit_push_certificate_not_after_seconds{{type="{TYPE}"}}"#);
    let expires = || value(&scrape(&service), &series);
    eventually("it is measured", || {
        expires().is_some_and(|at| (at - seconds(now - DAY)).abs() < 2.0)
    });

    // The pushes wait for a renewed certificate.
    let two = pass(TYPE, "A-1", "two");
    replace(&archive, &two);
    eventually("the pass is fetched", || {
        service.get(TYPE, "A-1", None).body == two
    });
    assert!(local.pushed(now).is_empty());
    let new = local.apns.issue(TYPE).unwrap();
    replace(&file, (new.certificate + &new.key).as_bytes());
    eventually("it is noticed", || {
        ready(&address).1["warnings"] == json!([])
    });
    assert!(expires().unwrap() > seconds(now));
    // The restart only saves time. Without it, the next attempt would be a minute or more later.
    assert!(service.stop("TERM").success());
    service.start();
    eventually("the phone gets a push", || {
        local.pushed(now).contains_key(&token(1))
    });
    quiet(&service);
    local.no_violation();
}
