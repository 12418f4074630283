//! The log call.

use passkit_server::device_log::DeviceTask;

use crate::app::{App, DEVICE, Logged, TICKET, get, post};

async fn logged(app: &App, body: impl Into<bytes::Bytes>) -> Vec<String> {
    let answer = app.send(post("/v1/log").body(body)).await;
    assert_eq!(answer.status, 200);
    assert!(answer.body.is_empty() || answer.body == "{}");
    app.log.texts()
}

#[tokio::test]
async fn every_known_form_is_understood() {
    let app = App::new();
    for (body, expected) in [
        (r#"{"logs":["a","b"]}"#, &["a", "b"][..]),
        (r#"{"logs":["a"],"other":1}"#, &["a"]),
        (r#"{"logs":[]}"#, &[]),
        (r#"{"description":"a b"}"#, &["a b"]),
        (r#"["a","b"]"#, &["a", "b"]),
        ("[]", &[]),
        ("{}", &[]),
        (r#"{"logs":["a",1,null,{"x":1},["y"],"b"]}"#, &["a", "b"]),
        (
            r#"{"logs":["\u0000\u001b[2J\n\ud83d\ude00"]}"#,
            &["\0\u{1b}[2J\n\u{1f600}"],
        ),
        (" \n{\"logs\" : [ \"a\" ] }\n", &["a"]),
    ] {
        assert_eq!(logged(&app, body).await, expected, "{body}");
    }
}

#[tokio::test]
async fn every_other_body_is_200_too() {
    let app = App::new();
    let deep = "[".repeat(100_000);
    let deep_logs = format!("{{\"logs\":{}", "[".repeat(100_000));
    for body in [
        &b""[..],
        b" ",
        b"null",
        b"true",
        b"-1e999",
        b"\"text\"",
        b"garbage",
        b"{",
        b"{\"logs\":",
        b"{\"logs\":null}",
        b"{\"logs\":7}",
        b"{\"logs\":{\"a\":\"b\"}}",
        b"{\"logs\":\"a\"}",
        b"{\"description\":[]}",
        b"{\"description\":null,\"logs\":null}",
        b"{\"logs\":[\"\\ud800\"]}",
        b"{\"logs\":[\"\xff\"]}",
        b"\xff\xfe\xfd",
        b"\0\0\0",
        b"logs=a&logs=b",
        deep.as_bytes(),
        deep_logs.as_bytes(),
    ] {
        let answer = app.send(post("/v1/log").body(body.to_vec())).await;
        assert_eq!(
            answer.status,
            200,
            "{}",
            String::from_utf8_lossy(&body[..body.len().min(80)])
        );
    }
}

#[tokio::test]
async fn an_empty_body_logs_nothing() {
    let app = App::new();
    for body in ["", " ", "{}", "[]", "null"] {
        assert_eq!(logged(&app, body).await, [""; 0], "{body:?}");
    }
}

#[tokio::test]
async fn text_that_is_not_json_is_logged_unchanged_or_dropped() {
    let app = App::new();
    let texts = logged(&app, "plain text, no json").await;
    assert!(texts.is_empty() || texts == ["plain text, no json"]);
}

#[tokio::test]
async fn it_needs_no_credentials_and_no_content_type() {
    let app = App::new();
    for authorization in [
        None,
        Some("ApplePass nonsense-0123456789"),
        Some("Bearer x"),
    ] {
        for content_type in [
            None,
            Some("application/json"),
            Some("text/plain"),
            Some("x"),
        ] {
            let call = post("/v1/log").body(r#"{"logs":["a"]}"#);
            let call = authorization
                .iter()
                .fold(call, |call, value| call.authorization(value));
            let call = content_type
                .iter()
                .fold(call, |call, value| call.header("content-type", value));
            assert_eq!(app.status(call).await, 200);
            assert_eq!(app.log.texts(), ["a"]);
        }
    }
}

#[tokio::test]
async fn a_large_batch_is_split_into_messages() {
    let app = App::new();
    let messages: Vec<String> = (0..200)
        .map(|number| format!("message {number} {}", "x".repeat(1000)))
        .collect();
    let body = serde_json::json!({ "logs": messages }).to_string();
    assert!(body.len() < 256 * 1024);
    assert_eq!(logged(&app, body).await, messages);
}

/// The fields of each known message of a phone.
#[tokio::test]
async fn the_hook_gets_the_meaning_of_a_message() {
    let app = App::new();
    let said = format!("Web service error for {TICKET} (https://a.example/wallet/): ");
    let register = format!(
        "Register task (for device {DEVICE}, pass type {TICKET}, serial number A-1; with web service url \
            https://a.example/)"
    );
    let unregister = register.replace("Register", "Unregister");
    let list = format!(
        "Get serial #s task (for device {DEVICE}, pass type {TICKET}, last updated (null); with web \
            service url https://a.example/)"
    );
    let fetch = format!(
        "Get pass task (pass type {TICKET}, serial number A-1, if-modified-since (null); with web service \
            url https://a.example/)"
    );
    let failed = " encountered error: ";
    use DeviceTask::{Get, List, Register, Unregister};
    for (message, task, serial, report) in [
        (
            format!("{register}{failed}Authentication failure"),
            Some(Register),
            Some("A-1"),
            "AuthenticationFailure",
        ),
        (
            format!("{unregister}{failed}Unexpected response code 204"),
            Some(Unregister),
            Some("A-1"),
            "UnexpectedStatus(204)",
        ),
        (
            format!("{list}{failed}Unexpected response code 401"),
            Some(List),
            None,
            "UnexpectedStatus(401)",
        ),
        (
            format!("{list}{failed}Server response was malformed (bad)"),
            Some(List),
            None,
            "MalformedResponse",
        ),
        (
            format!("{fetch}{failed}Received invalid pass data (The pass cannot be read)"),
            Some(Get),
            Some("A-1"),
            "InvalidPass",
        ),
        (
            format!("{fetch}{failed}Requested serial number A-1, received serial number A-2"),
            Some(Get),
            Some("A-1"),
            "WrongPass",
        ),
        (
            format!("{fetch}{failed}Requested pass of type a, received b"),
            Some(Get),
            Some("A-1"),
            "WrongPass",
        ),
        (
            format!(
                "{said}Response to 'What changed?' request included 2 serial numbers but the lastUpdated \
                    tag (T) remained the same."
            ),
            None,
            None,
            "TagUnchanged",
        ),
        (
            format!(
                "{said}Response to 'What changed?' request included 2 serial numbers but omitted a \
                    lastUpdated tag."
            ),
            None,
            None,
            "TagMissing",
        ),
        (
            format!(
                "{said}Device received spurious push. Request for passesUpdatedSince 'T' returned no \
                    serial numbers. (Device = {DEVICE})"
            ),
            None,
            None,
            "SpuriousPush",
        ),
        (
            format!(
                "{said}Server requested update to serial number 'A-1', but the pass was unchanged."
            ),
            None,
            Some("A-1"),
            "PassUnchanged",
        ),
        (
            format!(
                "{said}Server ignored the 'if-modified-since' header (X) and returned the full unchanged \
                    pass data for serial number 'A-1'."
            ),
            None,
            Some("A-1"),
            "ConditionIgnored",
        ),
        (
            format!(
                "{said}Server returned the pass data for serial number 'A-1' but did not provide a \
                    'last-modified' header."
            ),
            None,
            Some("A-1"),
            "LastModifiedMissing",
        ),
        (
            format!("{said}Update requested for unregistered serial number A-1"),
            None,
            Some("A-1"),
            "NotRegistered",
        ),
        (
            format!(
                "{said}Personalization request was issued for serial number 'A-1', but the pass was \
                    unchanged."
            ),
            None,
            Some("A-1"),
            "PersonalizationUnchanged",
        ),
    ] {
        let text = format!("[2026-11-22 10:00:00 +0100] {message}");
        let body = serde_json::json!({ "logs": [text] }).to_string();
        assert_eq!(app.status(post("/v1/log").body(body)).await, 200);
        let expected = Logged {
            text,
            time: Some("2026-11-22 10:00:00 +0100".to_owned()),
            task,
            type_id: Some(TICKET.to_owned()),
            serial: serial.map(str::to_owned),
            report: report.to_owned(),
        };
        assert_eq!(app.log.take(), [expected]);
    }
}

#[tokio::test]
async fn an_unknown_message_is_passed_on_unchanged() {
    let app = App::new();
    let text = "[2030-01-01 00:00:00 +0000] Something that no phone says today";
    let body = serde_json::json!({ "logs": [text] }).to_string();
    app.send(post("/v1/log").body(body)).await;
    let logged = app.log.take();
    assert_eq!((logged[0].text.as_str(), logged[0].task), (text, None));
    assert!(logged[0].report.starts_with("Other("));
}

#[tokio::test]
async fn nothing_that_is_posted_can_be_read_back() {
    let app = App::new();
    app.send(post("/v1/log").body(r#"{"logs":["secret"]}"#))
        .await;
    assert_eq!(app.status(get("/v1/log")).await, 405);
}
