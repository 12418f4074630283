//! The answers to hostile or broken clients.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use crate::{
    archives::pass,
    program::{Service, authorization, eventually, registration},
};

const TYPE: &str = "pass.com.example.limits";

#[test]
fn hostile_requests_get_no_5xx_and_no_file() {
    let mut service = Service::new();
    fs::write(service.passes().join("a.pkpass"), pass(TYPE, "A", "one")).unwrap();
    fs::write(service.folder.path().join("secret"), "secret").unwrap();
    service.start();
    let long = "x".repeat(20_000);
    for path in [
        "/v1/passes/../../secret".to_owned(),
        format!("/v1/passes/{TYPE}/..%2F..%2Fsecret"),
        format!("/v1/passes/{TYPE}/%2e%2e/%2e%2e/secret"),
        format!("/v1/passes/{TYPE}/%00"),
        format!("/v1/passes/{TYPE}/%"),
        format!("/v1/passes/{TYPE}/%ff%fe"),
        format!("/v1/passes/{TYPE}/{long}"),
        format!("/v1/passes/{long}/A"),
        format!("/v1/devices/%0d%0a/registrations/{TYPE}"),
        format!("/v1/devices/D/registrations/{TYPE}?passesUpdatedSince=%00%ff{long}"),
        "/".to_owned(),
    ] {
        let headers = [
            ("Authorization", &*authorization(TYPE, "A")),
            ("If-Modified-Since", "\u{ff}garbage"),
        ];
        let answer = service.send("GET", &path, &headers, b"");
        assert!(
            (200..500).contains(&answer.status),
            "{path}: {}",
            answer.head
        );
        assert!(
            !answer.body.windows(6).any(|window| window == b"secret"),
            "{path}"
        );
        assert_ne!(answer.status, 200, "{path}");
    }
}

#[test]
fn bodies_and_heads_are_bounded() {
    let mut service = Service::new();
    fs::write(service.passes().join("a.pkpass"), pass(TYPE, "A", "one")).unwrap();
    service.start();
    let path = registration("D", TYPE, "A");
    let headers = [("Authorization", &*authorization(TYPE, "A"))];
    assert_eq!(
        service
            .send("POST", &path, &headers, &[b' '; 16 * 1024 + 1])
            .status,
        413
    );
    assert_eq!(
        service
            .send("POST", "/v1/log", &[], &[b' '; 256 * 1024 + 1])
            .status,
        413
    );
    assert_eq!(
        service
            .send("GET", "/", &[("X-Large", &"x".repeat(100 * 1024))], b"")
            .status,
        431
    );
    assert_eq!(service.register("D", TYPE, "A"), 201);
}

#[test]
fn connections_over_the_cap_wait_for_a_place() {
    let mut service = Service::with_arguments(&["--max-connections", "2"]);
    fs::write(service.passes().join("a.pkpass"), pass(TYPE, "A", "one")).unwrap();
    service.start();
    let held: Vec<_> = (0..2)
        .map(|_| TcpStream::connect(service.address()).unwrap())
        .collect();
    let address = service.address();
    let waiting =
        std::thread::spawn(move || crate::program::send(&address, "POST", "/v1/log", &[], b"{}"));
    // Both places are taken at this time.
    std::thread::sleep(Duration::from_millis(300));
    assert!(!waiting.is_finished());
    drop(held);
    assert_eq!(waiting.join().unwrap().unwrap().status, 200);
}

#[test]
fn a_request_in_flight_is_answered_before_the_end() {
    let mut service = Service::new();
    fs::write(service.passes().join("a.pkpass"), pass(TYPE, "A", "one")).unwrap();
    service.start();
    let mut stream = TcpStream::connect(service.address()).unwrap();
    let authorization = authorization(TYPE, "A");
    let body = br#"{"pushToken":"c0ffee"}"#;
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: test\r\nAuthorization: {authorization}\r\nContent-Length: {}\r\n\
         Expect: 100-continue\r\n\r\n",
        registration("D", TYPE, "A"),
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    // The service sends this when it has received the head and waits for the body.
    let mut interim = [0; b"HTTP/1.1 100 Continue\r\n\r\n".len()];
    stream.read_exact(&mut interim).unwrap();
    assert!(
        interim.starts_with(b"HTTP/1.1 100 "),
        "{}",
        String::from_utf8_lossy(&interim)
    );
    stream.write_all(&body[..5]).unwrap();
    let id = service.id().to_string();
    assert!(
        std::process::Command::new("kill")
            .args(["-TERM", &id])
            .status()
            .unwrap()
            .success()
    );
    let address = service.address();
    eventually("it takes no more connections", || {
        TcpStream::connect(&address).is_err()
    });
    stream.write_all(&body[5..]).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
    service.kill();
}
