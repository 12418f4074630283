//! Cases about the messages that phones post to the log.

use http::{Method, header};
use serde_json::json;

use super::{
    answer::Answer,
    case::catalogue,
    session::{ServiceRequest, Session},
};
use crate::{CaseResult, Rule};

catalogue! {
    "log/messages-are-200" Pass Must [LOG_1 LOG_4] messages_are_200,
        "Messages in the format of phones are posted without credentials.",
        "The phone posts the same messages again and again, and nobody learns what went wrong.";
    "log/sixty-messages-are-200" Pass Must [LOG_1] sixty_messages_are_200,
        "Sixty messages are posted in one request, as by a phone that was offline.",
        "The phone posts the messages again and again, and each time more of them.";
    "log/credentials-do-not-matter" Pass Should [LOG_4] credentials_do_not_matter,
        "Messages are posted with an Authorization header that fits no pass.",
        "A phone with a wrong token can't report that problem.";
    "log/malformed-is-200" Pass Should [LOG_2] malformed_is_200,
        "Some bodies are posted: an empty body, a body that is not JSON, a body that is not text, and a body \
        without messages.",
        "The sender repeats the call again and again. The log of the service fills with failures.";
    "log/other-forms-are-200" Pass Should [LOG_3] other_forms_are_200,
        "A list of messages without an object is posted, and an object with a description. Older clients and other \
        wallets send these bodies.",
        "The sender repeats the messages again and again, and nobody learns what went wrong.";
    "log/any-content-type" Pass Should [HTTP_9] any_content_type,
        "Messages are posted whose Content-Type has a charset, is not JSON, or is absent.",
        "Messages of wallets that send another Content-Type are lost.";
}

/// The path for messages.
const PATH: &str = "/v1/log";

/// Makes `count` messages in the format of phones.
fn messages(count: usize) -> String {
    let message = |i| {
        format!("[2026-11-23 10:00:00 +0000] A test of passkit-conformance: message {i}, \"ü\" <b>")
    };
    json!({ "logs": (1..=count).map(message).collect::<Vec<_>>() }).to_string()
}

/// Expects status 200. A service without a log breaks [`Rule::LOG_1`]. A service that asks for
/// credentials breaks [`Rule::LOG_4`]. Any other status breaks `rule`.
fn taken(answer: &Answer, rule: Rule) -> CaseResult {
    let rule = match answer.status() {
        401 | 403 => Rule::LOG_4,
        200..300 | 404 | 405 => Rule::LOG_1,
        _ => rule,
    };
    answer.is(200, rule)
}

async fn messages_are_200(session: &Session) -> CaseResult {
    taken(
        &session
            .send(ServiceRequest::new(Method::POST, PATH).json(messages(2)))
            .await?,
        Rule::LOG_1,
    )
}

async fn sixty_messages_are_200(session: &Session) -> CaseResult {
    taken(
        &session
            .send(ServiceRequest::new(Method::POST, PATH).json(messages(60)))
            .await?,
        Rule::LOG_1,
    )
}

async fn credentials_do_not_matter(session: &Session) -> CaseResult {
    for value in ["ApplePass a-token-of-no-pass-at-all", "Bearer x", "?"] {
        let call = ServiceRequest::new(Method::POST, PATH)
            .json(messages(1))
            .header(header::AUTHORIZATION, value);
        let answer = session
            .send(call)
            .await?
            .about(format!("messages with Authorization: {value}"));
        taken(&answer, Rule::LOG_4)?;
    }
    Ok(())
}

async fn malformed_is_200(session: &Session) -> CaseResult {
    let bodies: [(&str, &[u8]); 8] = [
        ("an empty body", b""),
        ("the body 'not json'", b"not json"),
        ("a body that is cut off", br#"{"logs":["A test"#),
        ("a body that is not text", b"\xff\xfe\x00\x01"),
        ("the body {}", b"{}"),
        ("the body null", b"null"),
        (r#"the body {"logs":1}"#, br#"{"logs":1}"#),
        (
            r#"the body {"logs":[1,null,{}]}"#,
            br#"{"logs":[1,null,{}]}"#,
        ),
    ];
    for (what, body) in bodies {
        taken(
            &session
                .send(ServiceRequest::new(Method::POST, PATH).json(body))
                .await?
                .about(what),
            Rule::LOG_2,
        )?;
    }
    Ok(())
}

async fn other_forms_are_200(session: &Session) -> CaseResult {
    let text = "A test of passkit-conformance";
    for (what, body) in [
        ("a bare list", json!([text])),
        ("a description", json!({ "description": text })),
    ] {
        let call = ServiceRequest::new(Method::POST, PATH).json(body.to_string());
        taken(&session.send(call).await?.about(what), Rule::LOG_3)?;
    }
    Ok(())
}

async fn any_content_type(session: &Session) -> CaseResult {
    for content_type in [
        Some("application/json; charset=utf-8"),
        Some("text/plain"),
        None,
    ] {
        let call = ServiceRequest::new(Method::POST, PATH).body(messages(1));
        let (call, what) = match content_type {
            Some(one) => (
                call.header(header::CONTENT_TYPE, one),
                format!("the Content-Type {one}"),
            ),
            None => (call, "no Content-Type".into()),
        };
        taken(&session.send(call).await?.about(what), Rule::HTTP_9)?;
    }
    Ok(())
}
