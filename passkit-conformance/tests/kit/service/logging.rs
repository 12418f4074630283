//! Services with faults in the log endpoint.

use http::{Method, header};
use passkit_conformance::Rule;
use serde_json::Value;

use super::{
    Fault,
    sound::Asked,
    wrong::{answered_otherwise, logs, refusing, say},
};

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        name: "a log message is answered 204",
        rule: Rule::LOG_1,
        caught_by: &["log/messages-are-200", "log/sixty-messages-are-200"],
        wrong: |sound| {
            answered_otherwise(sound, |asked, answer| {
                if logs(asked) {
                    say(answer, 204);
                }
            })
        },
    },
    Fault {
        name: "there is no log",
        rule: Rule::LOG_1,
        caught_by: &["log/messages-are-200", "log/sixty-messages-are-200"],
        wrong: |sound| refusing(sound, |asked| logs(asked).then_some(404)),
    },
    Fault {
        name: "the log asks for a token",
        rule: Rule::LOG_4,
        caught_by: &["log/messages-are-200", "log/credentials-do-not-matter"],
        wrong: |sound| refusing(sound, |asked| logs(asked).then_some(401)),
    },
    Fault {
        name: "the log checks credentials if a request has some",
        rule: Rule::LOG_4,
        caught_by: &["log/credentials-do-not-matter"],
        wrong: |sound| {
            refusing(sound, |asked| {
                (logs(asked) && asked.headers().contains_key(header::AUTHORIZATION)).then_some(401)
            })
        },
    },
    Fault {
        name: "the log accepts only a few kilobytes",
        rule: Rule::LOG_1,
        caught_by: &["log/sixty-messages-are-200"],
        wrong: |sound| {
            refusing(sound, |asked| {
                (logs(asked) && asked.body().len() > 2_048).then_some(413)
            })
        },
    },
    Fault {
        name: "a malformed log is answered 400",
        rule: Rule::LOG_2,
        caught_by: &["log/malformed-is-200"],
        wrong: |sound| {
            refusing(sound, |asked| {
                (logs(asked) && form(asked).is_none()).then_some(400)
            })
        },
    },
    Fault {
        name: "a log message that is not a text fails",
        rule: Rule::LOG_2,
        caught_by: &["log/malformed-is-200"],
        wrong: |sound| {
            refusing(sound, |asked| {
                let odd = |logs: &Value| {
                    !logs
                        .as_array()
                        .is_some_and(|all| all.iter().all(Value::is_string))
                };
                let fails = form(asked).is_some_and(|form| form.get("logs").is_some_and(odd));
                (logs(asked) && fails).then_some(500)
            })
        },
    },
    Fault {
        name: "a bare list fails",
        rule: Rule::LOG_3,
        caught_by: &["log/other-forms-are-200"],
        wrong: |sound| {
            refusing(sound, |asked| {
                let list = form(asked).is_some_and(|form| form.is_array());
                (logs(asked) && *asked.method() == Method::POST && list).then_some(500)
            })
        },
    },
];

fn form(asked: &Asked) -> Option<Value> {
    serde_json::from_slice(asked.body()).ok()
}
