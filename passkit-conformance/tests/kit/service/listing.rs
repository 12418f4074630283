//! Services whose lists are wrong.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, atomic::Ordering::SeqCst},
};

use http::{Method, header};
use passkit_conformance::Rule;
use serde_json::{Value, json};

use super::{
    Fault,
    altered::{
        altered, asked_otherwise, become_empty, edit_json, edit_list, edit_tag, is_list, redirect,
        set, tag, without_query,
    },
};

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        name: "every save counts as a change",
        rule: Rule::TAG_4,
        caught_by: &["list/saved-unchanged-is-not-listed"],
        wrong: |sound| {
            sound.passes.marks_saves.store(true, SeqCst);
            altered(sound, |_, _| {})
        },
    },
    Fault {
        name: "a save gives the pass a new date",
        rule: Rule::TAG_4,
        caught_by: &["list/saved-unchanged-is-not-listed"],
        wrong: |sound| {
            let passes = sound.passes.clone();
            asked_otherwise(sound, move |asked| {
                if passes.saves.load(SeqCst) > 0 {
                    asked.headers_mut().remove(header::IF_MODIFIED_SINCE);
                }
            })
        },
    },
    Fault {
        name: "only one pass is listed at a time",
        rule: Rule::LIST_1,
        caught_by: &["list/no-tag-lists-all", "orders/no-tag-lists-all"],
        wrong: |sound| {
            altered(sound, |_, answer| {
                edit_list(answer, |listed| listed.truncate(1))
            })
        },
    },
    Fault {
        name: "an empty tag counts as the newest tag",
        rule: Rule::LIST_1,
        caught_by: &["list/empty-tag-lists-all"],
        wrong: |sound| {
            altered(sound, |asked, answer| {
                if is_list(asked) && tag(asked) == Some("") {
                    become_empty(answer, 204);
                }
            })
        },
    },
    Fault {
        name: "lists are plain text",
        rule: Rule::HTTP_7,
        caught_by: &["list/is-json"],
        wrong: |sound| {
            altered(sound, |asked, answer| {
                if is_list(asked) && answer.status() == 200 {
                    set(answer, header::CONTENT_TYPE, "application/octet-stream");
                }
            })
        },
    },
    Fault {
        name: "tags are numbers",
        rule: Rule::LIST_4,
        caught_by: &["list/values-are-strings", "trace/first-pass"],
        wrong: |sound| altered(sound, |_, answer| edit_tag(answer, |_| json!(17_000))),
    },
    Fault {
        name: "serial numbers are numbers",
        rule: Rule::LIST_4,
        caught_by: &["list/values-are-strings"],
        wrong: |sound| {
            altered(sound, |_, answer| {
                edit_list(answer, |listed| listed[0] = json!(1))
            })
        },
    },
    Fault {
        name: "lists have no tag",
        rule: Rule::LIST_4,
        caught_by: &["list/values-are-strings"],
        wrong: |sound| {
            altered(sound, |_, answer| {
                edit_json(answer, |body| {
                    body.as_object_mut().unwrap().remove("lastUpdated");
                });
            })
        },
    },
    Fault {
        name: "lists name a pass that no device registered",
        rule: Rule::LIST_3,
        caught_by: &["list/only-what-was-registered", "list/keeps-devices-apart"],
        wrong: |sound| {
            altered(sound, |asked, answer| {
                let all = ["A-1", "A-2", "A-3"];
                if asked.uri().path().contains("pass.com.example.a") {
                    edit_list(answer, |listed| {
                        *listed = all.iter().map(|one| json!(one)).collect()
                    });
                }
            })
        },
    },
    Fault {
        name: "the list of one type names the passes of all types",
        rule: Rule::LIST_3,
        caught_by: &["list/keeps-types-apart", "trace/same-serial-in-two-types"],
        wrong: |sound| {
            asked_otherwise(sound, |asked| {
                if is_list(asked) {
                    let path = asked.uri().to_string().replace("example.b", "example.a");
                    *asked.uri_mut() = path.parse().unwrap();
                }
            })
        },
    },
    Fault {
        name: "the tag is ignored",
        rule: Rule::LIST_2,
        caught_by: &[
            "list/tag-lists-only-newer",
            "orders/tag-lists-only-newer",
            "list/nothing-new-is-204",
            "orders/nothing-new-is-204",
            "list/tag-survives-the-url",
            "trace/second-pass",
            "trace/update",
            "trace/order-update",
            "trace/nothing-to-report",
            "trace/two-changes-before-the-phone-acts",
        ],
        wrong: |sound| asked_otherwise(sound, without_query),
    },
    Fault {
        name: "if nothing is new, the answer is an empty list",
        rule: Rule::LIST_7,
        caught_by: &[
            "list/nothing-new-is-204",
            "orders/nothing-new-is-204",
            "trace/update",
        ],
        wrong: |sound| {
            altered(sound, |asked, answer| {
                if is_list(asked) && answer.status() == 204 {
                    become_empty(answer, 200);
                    set(answer, header::CONTENT_TYPE, "application/json");
                    *answer.body_mut() = r#"{"serialNumbers":[],"lastUpdated":"1"}"#.into();
                }
            })
        },
    },
    Fault {
        name: "if nothing is new, the answer is an error",
        rule: Rule::LIST_7,
        caught_by: &["list/nothing-new-is-204", "trace/nothing-to-report"],
        wrong: |sound| {
            altered(sound, |asked, answer| {
                if is_list(asked) && answer.status() == 204 {
                    become_empty(answer, 404);
                }
            })
        },
    },
    Fault {
        name: "204 has a body",
        rule: Rule::HTTP_8,
        caught_by: &["list/nothing-new-is-204"],
        wrong: |sound| {
            altered(sound, |_, answer| {
                if answer.status() == 204 {
                    *answer.body_mut() = "{}".into();
                }
            })
        },
    },
    Fault {
        name: "the second tag of a device is not understood",
        rule: Rule::LIST_2,
        caught_by: &["list/each-change-is-listed"],
        wrong: |sound| {
            let asked_before: Arc<Mutex<HashSet<String>>> = Arc::default();
            altered(sound, move |asked, answer| {
                if is_list(asked) && tag(asked).is_some() {
                    let is_first = asked_before
                        .lock()
                        .unwrap()
                        .insert(asked.uri().path().to_owned());
                    if !is_first {
                        become_empty(answer, 204);
                    }
                }
            })
        },
    },
    Fault {
        name: "the new tag is the tag of the request",
        rule: Rule::LIST_6,
        caught_by: &["list/tag-moves-with-each-list"],
        wrong: |sound| {
            altered(sound, |asked, answer| {
                if let Some(tag) = tag(asked) {
                    edit_tag(answer, |_| json!(tag));
                }
            })
        },
    },
    Fault {
        name: "unknown devices and types are answered 404",
        rule: Rule::LIST_8,
        caught_by: &["list/unknown-device-is-204", "list/unknown-type-is-204"],
        wrong: |sound| {
            altered(sound, |asked, answer| {
                if is_list(asked) && answer.status() == 204 {
                    become_empty(answer, 404);
                }
            })
        },
    },
    Fault {
        name: "a tag that can't be read is an error",
        rule: Rule::LIST_9,
        caught_by: &[
            "list/unreadable-tag-is-no-error",
            "orders/unreadable-tag-is-no-error",
            "list/unreadable-tag-lists-all",
            "list/tag-ahead-lists-all",
        ],
        wrong: |sound| {
            altered(sound, |asked, answer| {
                if tag(asked).is_some_and(|tag| !tag.contains('-') || tag.contains(':')) {
                    become_empty(answer, 500);
                }
            })
        },
    },
    Fault {
        name: "a tag that can't be read counts as the newest tag",
        rule: Rule::LIST_9,
        caught_by: &["list/unreadable-tag-lists-all", "list/tag-ahead-lists-all"],
        wrong: |sound| {
            altered(sound, |asked, answer| {
                if tag(asked).is_some_and(|tag| !tag.contains('-')) {
                    become_empty(answer, 204);
                }
            })
        },
    },
    Fault {
        name: "only the type that issued a tag accepts it",
        rule: Rule::LIST_9,
        caught_by: &["list/tag-of-another-type-is-no-error"],
        wrong: |sound| {
            let issued: Arc<Mutex<HashMap<String, String>>> = Arc::default();
            altered(sound, move |asked, answer| {
                let path = asked.uri().path().to_owned();
                let mut issued = issued.lock().unwrap();
                if tag(asked)
                    .and_then(|tag| issued.get(tag))
                    .is_some_and(|other| *other != path)
                {
                    become_empty(answer, 400);
                }
                edit_tag(answer, |tag| {
                    issued.insert(tag.to_owned(), path);
                    json!(tag)
                });
            })
        },
    },
    Fault {
        name: "a pass that was listed once is not listed again",
        rule: Rule::LIST_10,
        caught_by: &["list/asking-again-gives-the-same", "trace/answer-lost"],
        wrong: |sound| {
            let seen: Arc<Mutex<HashSet<String>>> = Arc::default();
            altered(sound, move |asked, answer| {
                let is_new = seen.lock().unwrap().insert(asked.uri().to_string());
                if is_list(asked) && !is_new {
                    become_empty(answer, 204);
                }
            })
        },
    },
    Fault {
        name: "a pass that is registered twice is listed twice",
        rule: Rule::LIST_11,
        caught_by: &[
            "list/no-serial-twice",
            "trace/registered-again",
            "list/registered-in-parallel-is-listed-once",
        ],
        wrong: |sound| {
            let registered: Arc<Mutex<Vec<String>>> = Arc::default();
            altered(sound, move |asked, answer| {
                let path = asked.uri().path().to_owned();
                let mut registered = registered.lock().unwrap();
                if asked.method() == Method::POST {
                    registered.push(path);
                } else {
                    edit_list(answer, |listed| {
                        let first = format!("{path}/{}", listed[0].as_str().unwrap());
                        let times = registered.iter().filter(|path| **path == first).count();
                        listed.extend(vec![listed[0].clone(); times - 1]);
                    });
                }
            })
        },
    },
    Fault {
        name: "lists ask for credentials",
        rule: Rule::LIST_12,
        caught_by: &["list/needs-no-authorization"],
        wrong: |sound| {
            altered(sound, |asked, answer| {
                if is_list(asked) && !asked.headers().contains_key(header::AUTHORIZATION) {
                    become_empty(answer, 401);
                }
            })
        },
    },
    Fault {
        name: "lists check credentials if a request has some",
        rule: Rule::LIST_12,
        caught_by: &["list/ignores-authorization"],
        wrong: |sound| {
            altered(sound, |asked, answer| {
                if is_list(asked) && asked.headers().contains_key(header::AUTHORIZATION) {
                    become_empty(answer, 401);
                }
            })
        },
    },
    Fault {
        name: "a plus sign in the tag is read as a space",
        rule: Rule::URL_8,
        caught_by: &["list/tag-survives-the-url"],
        wrong: |sound| {
            let listing = asked_otherwise(sound, |asked| {
                if let Some(tag) = tag(asked) {
                    let tag = tag.replace('+', " ").replace("%2B", "+");
                    let path = asked.uri().path().to_owned();
                    match tag.strip_suffix("+01") {
                        Some(tag) => redirect(asked, &format!("{path}?passesUpdatedSince={tag}")),
                        None => redirect(asked, &path),
                    }
                }
            });
            with_plus_in_tags(listing)
        },
    },
    Fault {
        name: "tags are not percent-decoded",
        rule: Rule::URL_8,
        caught_by: &["list/tag-survives-the-url"],
        wrong: |sound| {
            let listing = asked_otherwise(sound, |asked| {
                let path = asked.uri().path().to_owned();
                match tag(asked).and_then(|tag| tag.strip_suffix("+01")) {
                    Some(tag) => redirect(asked, &format!("{path}?passesUpdatedSince={tag}")),
                    None => redirect(asked, &path),
                }
            });
            with_plus_in_tags(listing)
        },
    },
];

/// Appends `+01` to each tag, like the zone of a time. Each tag then has a plus sign.
fn with_plus_in_tags(listing: super::sound::Wrong) -> super::sound::Wrong {
    Arc::new(move |asked| {
        let answering = listing(asked);
        Box::pin(async move {
            let mut answer = answering.await;
            edit_tag(&mut answer, |tag| Value::from(format!("{tag}+01")));
            answer
        })
    })
}
