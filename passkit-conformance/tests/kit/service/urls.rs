//! Services that read paths and queries wrongly.

use http::{HeaderValue, Method, header};
use passkit_conformance::Rule;
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use super::{
    Fault,
    wrong::{answered_otherwise, answering, bare, logs, redirect, refusing},
};

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        name: "//v1 is unknown",
        rule: Rule::URL_4,
        caught_by: &["url/double-slash-is-one"],
        wrong: |sound| {
            refusing(sound, |asked| {
                asked.uri().path().starts_with("//").then_some(404)
            })
        },
    },
    Fault {
        name: "//v1/log is unknown",
        rule: Rule::URL_4,
        caught_by: &["url/double-slash-is-one"],
        wrong: |sound| {
            refusing(sound, |asked| {
                (asked.uri().path() == "//v1/log").then_some(404)
            })
        },
    },
    Fault {
        name: "a path with a slash at the end is unknown",
        rule: Rule::URL_4,
        caught_by: &["url/slash-at-the-end-changes-nothing"],
        wrong: |sound| {
            refusing(sound, |asked| {
                asked.uri().path().ends_with('/').then_some(404)
            })
        },
    },
    Fault {
        name: "a redirect corrects slashes",
        rule: Rule::HTTP_5,
        caught_by: &[
            "url/double-slash-is-one",
            "url/slash-at-the-end-changes-nothing",
        ],
        wrong: |sound| {
            answered_otherwise(sound, |asked, answer| {
                let path = asked.uri().path();
                if path.starts_with("//") || path.ends_with('/') {
                    *answer = bare(308);
                    let right =
                        HeaderValue::from_str(&format!("/{}", path.trim_matches('/'))).unwrap();
                    answer.headers_mut().insert(header::LOCATION, right);
                }
            })
        },
    },
    Fault {
        name: "paths are not decoded, so encoded paths are unknown",
        rule: Rule::URL_7,
        caught_by: &["url/encoded-characters-are-decoded"],
        wrong: |sound| {
            refusing(sound, |asked| {
                asked.uri().path().contains('%').then_some(401)
            })
        },
    },
    Fault {
        name: "serial numbers are not decoded",
        rule: Rule::URL_10,
        caught_by: &["url/serial-with-reserved-characters"],
        wrong: |sound| {
            refusing(sound, |asked| {
                asked.uri().path().contains('%').then_some(401)
            })
        },
    },
    Fault {
        name: "malformed escapes fail",
        rule: Rule::URL_7,
        caught_by: &["url/undecodable-escapes-are-refused"],
        wrong: |sound| {
            answered_otherwise(sound, |asked, answer| {
                if percent_decode_str(asked.uri().path())
                    .decode_utf8()
                    .is_err()
                {
                    *answer = bare(500);
                }
            })
        },
    },
    Fault {
        name: "the query is read as a form, and the tag contains a plus sign",
        rule: Rule::URL_8,
        caught_by: &["url/tag-is-read-from-the-raw-query"],
        wrong: |sound| {
            answering(sound, |sound, mut asked| async move {
                let path = asked.uri().path().to_owned();
                if let Some(tag) = asked
                    .uri()
                    .query()
                    .and_then(|query| query.strip_prefix("passesUpdatedSince="))
                {
                    let tag = tag.replace('+', " ");
                    let tag = percent_decode_str(&tag).decode_utf8_lossy();
                    let tag = tag.strip_suffix("+00:00").unwrap_or("unknown");
                    redirect(&mut asked, &format!("{path}?passesUpdatedSince={tag}"));
                }
                let mut answer = sound.answer(asked).await;
                if let Ok(mut list) = serde_json::from_slice::<Value>(answer.body())
                    && let Some(tag) = list.get("lastUpdated").and_then(Value::as_str)
                {
                    list["lastUpdated"] = json!(format!("{tag}+00:00"));
                    *answer.body_mut() = list.to_string().into();
                }
                answer
            })
        },
    },
    Fault {
        name: "the query may contain only the tag",
        rule: Rule::URL_9,
        caught_by: &["url/unknown-parameters-are-ignored"],
        wrong: |sound| {
            refusing(sound, |asked| {
                let query = asked.uri().query().unwrap_or_default();
                (query.contains('&') && *asked.method() == Method::GET).then_some(400)
            })
        },
    },
    Fault {
        name: "a pass is not found with a query",
        rule: Rule::URL_9,
        caught_by: &["url/unknown-parameters-are-ignored"],
        wrong: |sound| {
            refusing(sound, |asked| {
                let fetches = asked.uri().path().starts_with("/v1/passes/");
                (fetches && asked.uri().query().is_some()).then_some(404)
            })
        },
    },
    Fault {
        name: "paths have a fixed number of segments",
        rule: Rule::URL_10,
        caught_by: &["url/serial-with-raw-slashes"],
        wrong: |sound| {
            refusing(sound, |asked| {
                let segments = asked.uri().path().trim_matches('/').split('/').count();
                let most = if asked.uri().path().contains("/devices/") {
                    6
                } else {
                    4
                };
                (segments > most && !logs(asked)).then_some(404)
            })
        },
    },
];
