//! The log as JSON, its level, and the identifiers of requests.

use std::fs;

use serde_json::Value;

use crate::{
    archives::pass,
    program::{Answer, Service, eventually, passkit, run},
    push::TYPE,
};

fn logging(variables: &[&str]) -> Service {
    let service = Service::new().given(variables);
    fs::write(service.passes().join("a.pkpass"), pass(TYPE, "A", "one")).unwrap();
    service
}

/// Posts a message to the endpoint for logs, as a device does, with `id` as the identifier of the
/// request.
fn complain(service: &Service, message: &str, id: &str) -> Answer {
    let body = serde_json::json!({ "logs": [message] }).to_string();
    service.send("POST", "/v1/log", &[("X-Request-Id", id)], body.as_bytes())
}

#[test]
fn each_event_is_one_object_with_the_same_fields() {
    let mut service = logging(&["--log", "debug", "--log-format", "json"]);
    service.start();
    let hostile = "a\u{202e}b\u{1b}[J}\n{level:ERROR} ,";
    assert_eq!(complain(&service, hostile, "from-the-proxy-1").status, 200);
    assert_eq!(service.register("D-1", TYPE, "A"), 201);
    assert_eq!(service.get(TYPE, "A", None).status, 200);
    let said = service.stop_and_hear();
    let events: Vec<Value> = said
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    assert!(events.len() > 3, "{said}");
    // No field occurs twice in an event.
    for line in said.lines() {
        for field in ["timestamp", "level", "message", "target", "request"] {
            let name = format!("\"{field}\":");
            assert!(line.matches(&name).count() <= 1, "{line}");
        }
    }
    for event in &events {
        for field in ["timestamp", "level", "message", "target"] {
            assert!(event[field].is_string(), "{field} in {event}");
        }
        let level = event["level"].as_str().unwrap();
        assert!(
            ["ERROR", "WARN", "INFO", "DEBUG"].contains(&level),
            "{event}"
        );
    }
    let complaint = events.iter().find(|event| event.to_string().contains("[J"));
    assert_eq!(complaint.unwrap()["request"], "from-the-proxy-1", "{said}");
    // The end of a span is a separate event.
    let fetched = |event: &&Value| {
        let spans = event["spans"].as_array();
        event["span"]["name"] == "fetch"
            || spans.is_some_and(|spans| spans.iter().any(|span| span["name"] == "fetch"))
    };
    let fetch = events
        .iter()
        .find(fetched)
        .unwrap_or_else(|| panic!("{said}"));
    assert!(fetch["request"].is_string(), "{fetch}");
    assert!(
        !said.contains('\u{202e}') && !said.contains('\u{1b}'),
        "{said}"
    );
}

#[test]
fn a_bad_identifier_of_a_request_is_replaced() {
    let mut service = logging(&[]);
    service.start();
    let long = "a".repeat(129);
    for bad in [&*long, "a b", "a\tb", "", "ä", "a\"b", "a,b"] {
        assert_eq!(complain(&service, "bad one", bad).status, 200);
    }
    eventually("all are logged", || {
        service.said().matches("bad one").count() == 7
    });
    let said = service.said();
    let ids: std::collections::BTreeSet<&str> = said
        .lines()
        .filter(|line| line.contains("bad one"))
        .map(|line| line.rsplit_once(" request=").unwrap().1)
        .collect();
    assert_eq!(ids.len(), 7, "{said}");
    for id in ids {
        let is_own = id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        assert!(is_own, "{id}");
    }
    assert_eq!(complain(&service, "good one", &"a".repeat(128)).status, 200);
    eventually("it is logged", || {
        service
            .said()
            .contains(&format!("request={}", "a".repeat(128)))
    });
}

#[test]
fn a_failure_names_its_request_and_a_success_does_not() {
    let mut service = logging(&["--log", "debug"]);
    service.start();
    assert_eq!(service.get(TYPE, "A", None).header("x-request-id"), None);
    let refused = service.send("GET", "/v1/nothing", &[("X-Request-Id", "abc-1")], b"");
    assert_eq!(refused.header("x-request-id"), Some("abc-1"));
    let refused = service.send("GET", "/v1/nothing", &[], b"");
    let id = refused.header("x-request-id").unwrap().to_owned();
    eventually("both are logged", || {
        let said = service.said();
        said.contains("request=abc-1") && said.contains(&format!("request={id}"))
    });
}

#[test]
fn a_mistyped_level_or_format_is_one_line() {
    for (variable, value, mentions) in [
        ("PASSKIT_LOG", "inof", ["inof", "--log", "info"]),
        (
            "PASSKIT_LOG_FORMAT",
            "jsno",
            ["jsno", "--log-format", "json"],
        ),
    ] {
        for command in [
            &["serve", "--passes", "."][..],
            &["demo"],
            &["push", TYPE, "A"],
        ] {
            let (code, out, said) = run(passkit().args(command).env(variable, value));
            assert_eq!(
                (code, &*out, said.lines().count()),
                (Some(2), "", 1),
                "{said}"
            );
            assert!(
                mentions.iter().all(|mention| said.contains(mention)),
                "{said}"
            );
        }
    }
}

#[cfg(not(feature = "otlp"))]
#[test]
fn a_program_without_opentelemetry_says_so() {
    let mut service = Service::new();
    service.set_variable("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1");
    service.start();
    let said = service.stop_and_hear();
    assert!(
        said.contains("OTEL_EXPORTER_OTLP_ENDPOINT has no effect"),
        "{said}"
    );
}
