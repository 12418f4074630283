//! What Prometheus is told.

use std::fs;

use crate::{
    archives::pass,
    program::{Answer, Service, eventually, registration, send},
};

const TYPE: &str = "pass.com.example.metrics";

/// What the service says at /metrics.
pub(crate) fn scrape(service: &Service) -> String {
    eventually("the address is said", || service.said().contains("/metrics"));
    let said = service.said();
    let (_, rest) = said.split_once("metrics at http://").unwrap_or_else(|| panic!("{said}"));
    let address = rest.split('/').next().unwrap();
    let Answer { status, body, .. } = send(address, "GET", "/metrics", &[], b"").unwrap();
    assert_eq!(status, 200);
    String::from_utf8(body).unwrap()
}

/// The value of the one line that starts so.
pub(crate) fn value(text: &str, series: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
}

#[test]
fn calls_are_counted_and_what_devices_send_is_no_label() {
    let mut service = Service::with_arguments(&["--metrics", "127.0.0.1:0"]);
    fs::write(service.passes().join("a.pkpass"), pass(TYPE, "SERIAL-1", "one")).unwrap();
    service.start();
    assert_eq!(service.register("DEVICE-1", TYPE, "SERIAL-1"), 201);
    assert_eq!(service.register("DEVICE-1", TYPE, "SERIAL-1"), 200);
    assert_eq!(service.get(TYPE, "SERIAL-1", None).status, 200);
    service.list("DEVICE-1", TYPE, None).unwrap();
    for hostile in ["/hostile-1", "/v1/passes/hostile-2/hostile-3", "/v1/log/hostile-4"] {
        service.send("GET", hostile, &[], b"");
        service.send("HOSTILE", hostile, &[], b"");
    }
    service.send("POST", &registration("hostile-5", "hostile-6", "hostile-7"), &[], b"");

    let text = scrape(&service);
    for (series, expected) in [
        (r#"passkit_requests_total{call="register",status="201"}"#, 1.0),
        (r#"passkit_requests_total{call="register",status="200"}"#, 1.0),
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
    // Counted when it started; not again within the test.
    eventually("the registrations are counted", || {
        value(&scrape(&service), "passkit_registrations").is_some()
    });
}
