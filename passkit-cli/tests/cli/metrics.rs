//! The metrics for Prometheus.

use std::{
    fs,
    time::{Duration, SystemTime},
};

use passkit_apns::local::Answer as ApnsAnswer;

use crate::{
    archives::{pass, replace},
    program::{Answer, Service, eventually, registration, send},
    push::{self, Local},
};

const TYPE: &str = "pass.com.example.metrics";

/// Returns the address of its metrics.
pub(crate) fn address(service: &Service) -> String {
    eventually("the address is logged", || {
        service.said().contains("/metrics")
    });
    let said = service.said();
    let (_, rest) = said
        .split_once("metrics at http://")
        .unwrap_or_else(|| panic!("{said}"));
    rest.split('/').next().unwrap().to_owned()
}

/// Returns the answer of the service at /metrics.
pub(crate) fn scrape(service: &Service) -> String {
    let address = address(service);
    let Answer { status, body, .. } = send(&address, "GET", "/metrics", &[], b"").unwrap();
    assert_eq!(status, 200);
    String::from_utf8(body).unwrap()
}

/// Returns the value of the only line that starts with `series`.
pub(crate) fn value(text: &str, series: &str) -> Option<f64> {
    text.lines()
        .find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
}

#[test]
fn calls_are_counted_and_what_devices_send_is_no_label() {
    let mut service = Service::with_arguments(&["--metrics", "127.0.0.1:0"]);
    fs::write(
        service.passes().join("a.pkpass"),
        pass(TYPE, "SERIAL-1", "one"),
    )
    .unwrap();
    service.start();
    assert_eq!(service.register("DEVICE-1", TYPE, "SERIAL-1"), 201);
    assert_eq!(service.register("DEVICE-1", TYPE, "SERIAL-1"), 200);
    assert_eq!(service.get(TYPE, "SERIAL-1", None).status, 200);
    service.list("DEVICE-1", TYPE, None).unwrap();
    for hostile in [
        "/hostile-1",
        "/v1/passes/hostile-2/hostile-3",
        "/v1/log/hostile-4",
    ] {
        service.send("GET", hostile, &[], b"");
        service.send("HOSTILE", hostile, &[], b"");
    }
    service.send(
        "POST",
        &registration("hostile-5", "hostile-6", "hostile-7"),
        &[],
        b"",
    );

    let text = scrape(&service);
    for (series, expected) in [
        (
            r#"passkit_requests_total{call="register",status="201"}"#,
            1.0,
        ),
        (
            r#"passkit_requests_total{call="register",status="200"}"#,
            1.0,
        ),
        (r#"passkit_requests_total{call="get",status="200"}"#, 1.0),
        (r#"passkit_requests_total{call="list",status="200"}"#, 1.0),
        (r#"passkit_request_seconds_count{call="register"}"#, 3.0),
        (r#"passkit_store_seconds_count{method="register"}"#, 2.0),
    ] {
        assert_eq!(value(&text, series), Some(expected), "{series} in {text}");
    }
    for secret in ["hostile", "HOSTILE", TYPE, "SERIAL-1", "DEVICE-1", "c0ffee"] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
    // They are counted at the start, and not again during the test.
    eventually("the registrations are counted", || {
        value(&scrape(&service), "passkit_registrations").is_some()
    });
}

#[test]
fn every_call_of_the_store_is_counted() {
    let local = Local::start();
    let mut service = Service::alone()
        .given(&push::METRICS)
        .given(&local.arguments());
    let file = service.passes().join("a.pkpass");
    fs::write(&file, pass(push::TYPE, "A-1", "one")).unwrap();
    fs::write(service.passes().join("b.pkpass"), pass(TYPE, "B-1", "one")).unwrap();
    service.start();
    push::quiet(&service);
    push::register(&service, "D-1", &push::token(1), "A-1");
    // APNs reports that the token went out of use after the registration.
    let later = SystemTime::now() + Duration::from_secs(5);
    local
        .apns
        .answer_token(&push::token(1), ApnsAnswer::gone("Unregistered", later));
    replace(&file, &pass(push::TYPE, "A-1", "two"));
    eventually("the device is forgotten", || {
        service.list("D-1", push::TYPE, None).is_none()
    });
    push::quiet(&service);
    let unknown = service.send(
        "GET",
        "/v1/passes/pass.a/A",
        &[("Authorization", "ApplePass of-nobody")],
        b"",
    );
    assert_eq!(unknown.status, 401);

    let text = scrape(&service);
    for method in [
        "register",
        "changes_since",
        "published",
        // This method is for the type without a certificate.
        "mark",
        "mark_and_push",
        "backlog",
        "pending",
        "devices",
        "claim",
        "forget_device",
        "record_progress",
        "stats",
    ] {
        let series = format!(r#"passkit_store_seconds_count{{method="{method}"}}"#);
        assert!(
            value(&text, &series).is_some_and(|count| count >= 1.0),
            "{series} in {text}"
        );
    }
    assert_eq!(
        value(
            &text,
            r#"passkit_store_seconds_count{method="forget_device"}"#
        ),
        Some(1.0),
        "{text}"
    );
}
