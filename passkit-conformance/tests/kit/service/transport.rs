//! Services that read requests, or answer them, unlike HTTP.

use http::{Method, header};
use passkit_conformance::Rule;

use super::{
    Fault,
    wrong::{answered_otherwise, logs, refusing, registers},
};

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        name: "only passd is answered",
        rule: Rule::HTTP_3,
        caught_by: &["http/any-user-agent"],
        wrong: |sound| {
            refusing(sound, |asked| {
                let agent = asked.headers().get(header::USER_AGENT);
                let phone = agent.is_some_and(|agent| agent.as_bytes().starts_with(b"passd/"));
                (!phone).then_some(403)
            })
        },
    },
    Fault {
        name: "a request without User-Agent fails",
        rule: Rule::HTTP_3,
        caught_by: &["http/any-user-agent"],
        wrong: |sound| {
            refusing(sound, |asked| (!asked.headers().contains_key(header::USER_AGENT)).then_some(500))
        },
    },
    Fault {
        name: "a wrong method is answered 404",
        rule: Rule::HTTP_11,
        caught_by: &["http/wrong-method-is-405"],
        wrong: |sound| {
            refusing(sound, |asked| (*asked.method() == Method::GET && logs(asked)).then_some(404))
        },
    },
    Fault {
        name: "a 405 does not say what is allowed",
        rule: Rule::HTTP_11,
        caught_by: &["http/wrong-method-is-405"],
        wrong: |sound| {
            answered_otherwise(sound, |_, answer| {
                answer.headers_mut().remove(header::ALLOW);
            })
        },
    },
    Fault {
        name: "what is unknown gets a friendly page",
        rule: Rule::HTTP_11,
        caught_by: &["http/unknown-path-is-404"],
        wrong: |sound| {
            answered_otherwise(sound, |_, answer| {
                if answer.status() == 404 {
                    *answer.status_mut() = http::StatusCode::OK;
                }
            })
        },
    },
    Fault {
        name: "bodies of any length are taken",
        rule: Rule::HTTP_13,
        caught_by: &["http/long-registration-is-413", "http/long-log-is-413"],
        wrong: |sound| {
            refusing(sound, |asked| {
                (asked.body().len() > 100_000).then_some(if registers(asked) { 201 } else { 200 })
            })
        },
    },
    Fault {
        name: "a long path fails",
        rule: Rule::HTTP_2,
        caught_by: &["http/long-path-or-header-is-refused"],
        wrong: |sound| refusing(sound, |asked| (asked.uri().path().len() > 10_000).then_some(500)),
    },
    Fault {
        name: "a long header fails",
        rule: Rule::HTTP_2,
        caught_by: &["http/long-path-or-header-is-refused"],
        wrong: |sound| {
            refusing(sound, |asked| {
                let long = asked.headers().values().any(|value| value.len() > 10_000);
                long.then_some(500)
            })
        },
    },
];
