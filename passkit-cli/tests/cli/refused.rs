//! What the log says about refused requests.

use std::fs;

use crate::{
    archives::{pass, token_of},
    program::{Service, eventually, registration},
};

const TYPE: &str = "pass.com.example.ticket";
const DEVICE: &str = "5ec2e7000000000000000000000000d1";

#[test]
fn refused_requests_have_a_line_and_a_summary_without_secrets() {
    let mut service = Service::new().logging("debug");
    fs::write(service.passes().join("a.pkpass"), pass(TYPE, "A", "one")).unwrap();
    service.start();
    let (path, token) = (registration(DEVICE, TYPE, "A"), token_of(TYPE, "A"));
    let right = format!("ApplePass {token}");
    let bearer = format!("Bearer {token}");
    let wrong = "ApplePass 5ec2e7-wrong-token-01";
    let unknown = registration(DEVICE, TYPE, "nobody");
    let body = br#"{"pushToken":"c0ffee"}"#;
    for (path, authorization, body, status, reason) in [
        (&*path, None, &body[..], 401, "no Authorization"),
        (
            &path,
            Some(&*bearer),
            body,
            401,
            "a scheme that phones do not use",
        ),
        (&path, Some(wrong), body, 401, "wrong token"),
        (&path, Some(wrong), body, 401, "wrong token"),
        (&unknown, Some(&*right), body, 401, "unknown pass"),
        ("/v2/nothing", None, body, 404, "unknown path"),
        ("/shop/v1/log", None, body, 404, "set its prefix"),
        (
            &path,
            Some(&*right),
            br#"{"pushToken":"5ec2e7 no hex"}"#,
            400,
            "bad push token",
        ),
    ] {
        let before = service.said().len();
        let headers: Vec<_> = authorization
            .map(|it| ("Authorization", it))
            .into_iter()
            .collect();
        assert_eq!(
            service.send("POST", path, &headers, body).status,
            status,
            "{reason}"
        );
        eventually("the line is there", || {
            service.said()[before..].contains(reason)
        });
        let said = service.said()[before..].to_owned();
        assert!(
            said.contains(&format!("refused with {status}: POST /")),
            "{said}"
        );
    }
    let log = service.stop_and_hear();
    assert!(
        log.contains("INFO 2 requests refused with 401 within a minute: wrong token"),
        "{log}"
    );
    assert!(
        log.contains("INFO 1 request refused with 404 within a minute: unknown path"),
        "{log}"
    );
    for secret in [&token, "5ec2e7", "c0ffee"] {
        assert!(!log.contains(secret), "{secret} in {log}");
    }
}
