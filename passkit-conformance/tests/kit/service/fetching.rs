//! Services that serve passes wrongly.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::{Method, header};
use passkit_conformance::Rule;
use passkit_server::PassId;

use super::{
    Fault,
    altered::{altered, asked_otherwise, become_empty, is_fetch, set},
    right::dated_ahead,
    sound::{Answered, Asked},
};

const MODIFIED: http::HeaderName = header::LAST_MODIFIED;
const SINCE: http::HeaderName = header::IF_MODIFIED_SINCE;

/// The `Last-Modified` of an answer as a time.
fn modified(answer: &Answered) -> SystemTime {
    httpdate::parse_http_date(answer.headers()[MODIFIED].to_str().unwrap()).unwrap()
}

fn since(asked: &Asked) -> Option<&str> {
    asked
        .headers()
        .get(SINCE)
        .map(|value| value.to_str().unwrap())
}

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        name: "a pass that no device registered is not served",
        rule: Rule::GET_9,
        caught_by: &["get/works-unregistered"],
        wrong: |sound| {
            altered(sound, |asked, answer| {
                if is_fetch(asked) {
                    become_empty(answer, 404);
                }
            })
        },
    },
    Fault {
        name: "passes have the media type of plain files",
        rule: Rule::HTTP_7,
        caught_by: &["get/is-a-pkpass"],
        wrong: |sound| {
            altered(sound, |asked, answer| {
                if is_fetch(asked) && answer.status() == 200 {
                    set(answer, header::CONTENT_TYPE, "application/octet-stream");
                }
            })
        },
    },
    Fault {
        name: "there is no Last-Modified",
        rule: Rule::GET_1,
        caught_by: &["get/has-last-modified", "trace/first-pass"],
        wrong: |sound| {
            altered(sound, |_, answer| {
                answer.headers_mut().remove(MODIFIED);
            })
        },
    },
    Fault {
        name: "Last-Modified is an ISO date",
        rule: Rule::GET_1,
        caught_by: &["get/has-last-modified"],
        wrong: |sound| {
            altered(sound, |asked, answer| {
                if is_fetch(asked) {
                    set(answer, MODIFIED, "2026-11-23T08:00:41+00:00");
                }
            })
        },
    },
    Fault {
        name: "Last-Modified is the current time",
        rule: Rule::GET_1,
        caught_by: &["get/last-modified-stays"],
        wrong: |sound| {
            altered(sound, |asked, answer| {
                if is_fetch(asked) {
                    set(
                        answer,
                        MODIFIED,
                        &httpdate::fmt_http_date(SystemTime::now()),
                    );
                }
            })
        },
    },
    Fault {
        name: "Last-Modified is in the future",
        rule: Rule::GET_1,
        caught_by: &["get/last-modified-is-past"],
        wrong: |sound| {
            altered(sound, |asked, answer| {
                if is_fetch(asked) {
                    let ahead = modified(answer) + Duration::from_secs(3_600);
                    set(answer, MODIFIED, &httpdate::fmt_http_date(ahead));
                }
            })
        },
    },
    Fault {
        name: "Last-Modified is in the future after quick changes",
        rule: Rule::GET_1,
        caught_by: &["get/last-modified-is-past"],
        wrong: dated_ahead,
    },
    Fault {
        name: "If-Modified-Since is ignored",
        rule: Rule::GET_2,
        caught_by: &[
            "get/date-given-back-is-304",
            "orders/date-given-back-is-304",
            "get/304-repeats-last-modified",
            "trace/update",
            "trace/order-update",
            "trace/updates-off-and-on",
            "trace/pull-to-refresh",
            "trace/change-between-list-and-fetch",
        ],
        wrong: |sound| {
            asked_otherwise(sound, |asked| {
                asked.headers_mut().remove(SINCE);
            })
        },
    },
    Fault {
        name: "any If-Modified-Since counts as the newest date",
        rule: Rule::GET_2,
        caught_by: &[
            "get/changed-pass-is-200",
            "orders/changed-order-is-200",
            "trace/two-passes-changed",
            "trace/pull-to-refresh",
        ],
        wrong: |sound| {
            altered(sound, |asked, answer| {
                if since(asked).is_some() && answer.status() == 200 {
                    become_empty(answer, 304);
                }
            })
        },
    },
    Fault {
        name: "a new version keeps the old date",
        rule: Rule::GET_2,
        caught_by: &["get/changed-pass-is-200"],
        wrong: |sound| {
            altered(sound, |asked, answer| {
                if let (Some(since), 200) = (since(asked), answer.status().as_u16()) {
                    set(answer, MODIFIED, since);
                }
            })
        },
    },
    Fault {
        name: "two versions within a second have the same date",
        rule: Rule::GET_2,
        caught_by: &["get/two-changes-in-a-second-have-two-dates"],
        wrong: |sound| {
            Arc::new(move |asked| {
                let sound = sound.clone();
                Box::pin(async move {
                    // The time of the mark, rounded down to a second.
                    let parts: Vec<_> = asked.uri().path().splitn(5, '/').collect();
                    let [_, _, "passes", type_id, serial] = parts[..] else {
                        return sound.answer(asked).await;
                    };
                    let pass = PassId::new(type_id, serial).unwrap();
                    let state = sound.store.pass_state(&pass).await.unwrap();
                    let marked =
                        SystemTime::UNIX_EPOCH + Duration::from_secs(state.version / 1_000_000);
                    let marked = httpdate::fmt_http_date(marked);
                    let mut answer = sound.answer(asked.clone()).await;
                    if since(&asked) == Some(&marked) {
                        become_empty(&mut answer, 304);
                    } else if state.version > 0 {
                        set(&mut answer, MODIFIED, &marked);
                    }
                    answer
                })
            })
        },
    },
    Fault {
        name: "a date that can't be read is an error",
        rule: Rule::GET_3,
        caught_by: &["get/unreadable-date-is-no-date"],
        wrong: |sound| {
            altered(sound, |asked, answer| {
                if since(asked).is_some_and(|date| httpdate::parse_http_date(date).is_err()) {
                    become_empty(answer, 500);
                }
            })
        },
    },
    Fault {
        name: "a number counts as a date",
        rule: Rule::GET_3,
        caught_by: &["get/unreadable-date-is-no-date"],
        wrong: |sound| {
            altered(sound, |asked, answer| {
                if since(asked).is_some_and(|date| date.parse::<f64>().is_ok()) {
                    become_empty(answer, 304);
                }
            })
        },
    },
    Fault {
        name: "dates are compared as texts",
        rule: Rule::GET_3,
        caught_by: &["get/all-date-forms-are-read"],
        wrong: |sound| altered(sound, only_the_same_text_is_304),
    },
    Fault {
        name: "only an equal date gets a 304",
        rule: Rule::GET_4,
        caught_by: &["get/newer-date-is-304"],
        wrong: |sound| altered(sound, only_the_same_text_is_304),
    },
    Fault {
        name: "a pass that changed after the date is not sent",
        rule: Rule::GET_4,
        caught_by: &["get/older-date-is-200"],
        wrong: |sound| {
            altered(sound, |asked, answer| {
                if since(asked).is_some() {
                    become_empty(answer, 304);
                }
            })
        },
    },
    Fault {
        name: "a 304 is sent before the token is checked",
        rule: Rule::GET_4,
        caught_by: &["get/wrong-token-with-date-is-401"],
        wrong: |sound| {
            altered(sound, |asked, answer| {
                if since(asked).is_some() && answer.status() == 401 {
                    become_empty(answer, 304);
                }
            })
        },
    },
    Fault {
        name: "304 has no headers",
        rule: Rule::GET_5,
        caught_by: &["get/304-repeats-last-modified"],
        wrong: |sound| {
            altered(sound, |_, answer| {
                if answer.status() == 304 {
                    become_empty(answer, 304);
                }
            })
        },
    },
    Fault {
        name: "HEAD is not allowed",
        rule: Rule::HTTP_10,
        caught_by: &["get/head-is-like-get", "get/head-is-conditional"],
        wrong: |sound| {
            altered(sound, |asked, answer| {
                if asked.method() == Method::HEAD {
                    become_empty(answer, 405);
                }
            })
        },
    },
    Fault {
        name: "HEAD and GET have different headers",
        rule: Rule::HTTP_10,
        caught_by: &["get/head-is-like-get"],
        wrong: |sound| {
            altered(sound, |asked, answer| {
                if asked.method() == Method::HEAD {
                    set(answer, header::CONTENT_TYPE, "text/html");
                }
            })
        },
    },
    Fault {
        name: "HEAD needs no token",
        rule: Rule::HTTP_10,
        caught_by: &["get/head-is-conditional"],
        wrong: |sound| {
            altered(sound, |asked, answer| {
                if asked.method() == Method::HEAD && answer.status() == 401 {
                    become_empty(answer, 200);
                }
            })
        },
    },
    Fault {
        name: "archives are compressed for clients that accept it",
        rule: Rule::GET_11,
        caught_by: &["get/is-not-compressed"],
        wrong: |sound| {
            altered(sound, |asked, answer| {
                if asked.headers().contains_key(header::ACCEPT_ENCODING) {
                    set(answer, header::CONTENT_ENCODING, "gzip");
                }
            })
        },
    },
    Fault {
        name: "every cache may keep passes",
        rule: Rule::GET_11,
        caught_by: &["get/is-not-for-shared-caches"],
        wrong: |sound| {
            altered(sound, |asked, answer| {
                if is_fetch(asked) {
                    set(answer, header::CACHE_CONTROL, "public, max-age=3600");
                }
            })
        },
    },
    Fault {
        name: "an ETag is sent, but not understood in a request",
        rule: Rule::GET_8,
        caught_by: &["get/etag-given-back-is-304"],
        wrong: |sound| {
            asked_otherwise(sound, |asked| {
                asked.headers_mut().remove(header::IF_NONE_MATCH);
            })
        },
    },
];

/// Turns a 304 into a 200, unless the date in the request is exactly the text that the service
/// sent.
fn only_the_same_text_is_304(asked: &Asked, answer: &mut Answered) {
    if answer.status() == 304 && since(asked) != answer.headers()[MODIFIED].to_str().ok() {
        become_empty(answer, 200);
    }
}
