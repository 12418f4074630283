//! Services that fail during a sequence of calls.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
};

use http::Method;
use passkit_conformance::Rule;

use super::{
    Fault,
    altered::{altered, asked_otherwise, become_empty, is_fetch, is_list, tag},
    wrong::{answering, bare},
};

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        name: "every registration is new",
        rule: Rule::REG_1,
        caught_by: &["trace/registered-again", "trace/new-push-token"],
        wrong: |sound| {
            altered(sound, |asked, answer| {
                if asked.method() == Method::POST && answer.status() == 200 {
                    become_empty(answer, 201);
                }
            })
        },
    },
    Fault {
        name: "a pass belongs to the first device that registers",
        rule: Rule::REG_1,
        caught_by: &["trace/new-device-identifier", "trace/shared-pass"],
        wrong: |sound| {
            let taken: Arc<Mutex<HashSet<String>>> = Arc::default();
            altered(sound, move |asked, answer| {
                if asked.method() == Method::POST {
                    let path = asked.uri().path();
                    let pass = path[path.find("/registrations/").unwrap()..].to_owned();
                    if !taken.lock().unwrap().insert(pass) {
                        become_empty(answer, 409);
                    }
                }
            })
        },
    },
    Fault {
        name: "a pass that was unregistered is not registered again",
        rule: Rule::LIST_1,
        caught_by: &["trace/added-again", "trace/updates-off-and-on"],
        wrong: |sound| {
            let seen: Arc<Mutex<HashSet<String>>> = Arc::default();
            answering(sound, move |sound, asked| {
                let is_again = asked.method() == Method::POST
                    && !seen.lock().unwrap().insert(asked.uri().to_string());
                async move {
                    if is_again {
                        bare(200)
                    } else {
                        sound.answer(asked).await
                    }
                }
            })
        },
    },
    Fault {
        name: "the list of a device without registrations is answered 400",
        rule: Rule::LIST_8,
        caught_by: &["trace/updates-off-and-on", "trace/shared-pass"],
        wrong: |sound| {
            altered(sound, |asked, answer| {
                if is_list(asked) && tag(asked).is_none() && answer.status() == 204 {
                    become_empty(answer, 400);
                }
            })
        },
    },
    Fault {
        name: "unregister says 200 and does nothing",
        rule: Rule::UNR_1,
        caught_by: &[
            "trace/deleted",
            "trace/shared-pass",
            "list/registered-in-parallel-is-listed-once",
        ],
        wrong: |sound| {
            Arc::new(move |asked| {
                let sound = sound.clone();
                Box::pin(async move {
                    if asked.method() == Method::DELETE {
                        return Default::default();
                    }
                    sound.answer(asked).await
                })
            })
        },
    },
    Fault {
        name: "unregister answers 204",
        rule: Rule::UNR_2,
        caught_by: &["trace/deleted-twice", "trace/order-deleted-twice"],
        wrong: |sound| {
            altered(sound, |asked, answer| {
                if asked.method() == Method::DELETE {
                    become_empty(answer, 204);
                }
            })
        },
    },
    Fault {
        name: "unregister ends all updates of the device",
        rule: Rule::UNR_3,
        caught_by: &["trace/one-after-the-other-deleted"],
        wrong: |sound| {
            let gone: Arc<Mutex<HashSet<String>>> = Arc::default();
            altered(sound, move |asked, answer| {
                let device = asked
                    .uri()
                    .path()
                    .split('/')
                    .nth(3)
                    .unwrap_or_default()
                    .to_owned();
                if asked.method() == Method::DELETE {
                    gone.lock().unwrap().insert(device);
                } else if is_list(asked) && gone.lock().unwrap().contains(&device) {
                    become_empty(answer, 204);
                }
            })
        },
    },
    Fault {
        name: "unregister ends the updates of all devices",
        rule: Rule::UNR_3,
        caught_by: &["trace/shared-pass"],
        wrong: |sound| {
            let gone = Arc::new(Mutex::new(false));
            altered(sound, move |asked, answer| {
                let mut gone = gone.lock().unwrap();
                *gone |= asked.method() == Method::DELETE;
                if is_list(asked) && *gone {
                    become_empty(answer, 204);
                }
            })
        },
    },
    Fault {
        name: "one token opens all passes",
        rule: Rule::AUTH_2,
        caught_by: &["trace/wrong-token", "trace/same-serial-in-two-types"],
        wrong: |sound| {
            asked_otherwise(sound, |asked| {
                let path = asked.uri().path().to_owned();
                let token = if path.contains("example.b/A-1") {
                    "ApplePass token-of-b-1-0123456789"
                } else if path.ends_with("example.a/A-1") {
                    "ApplePass token-of-a-1-0123456789"
                } else {
                    return;
                };
                asked
                    .headers_mut()
                    .insert("authorization", token.parse().unwrap());
            })
        },
    },
    Fault {
        name: "an unknown pass is 404",
        rule: Rule::REG_6,
        caught_by: &["trace/unknown-pass"],
        wrong: |sound| {
            altered(sound, |asked, answer| {
                if asked.uri().path().contains("/unknown-") {
                    become_empty(answer, 404);
                }
            })
        },
    },
    Fault {
        name: "a second change of a pass is not listed",
        rule: Rule::CON_1,
        caught_by: &["trace/change-between-list-and-fetch"],
        wrong: |sound| {
            // A service that treats a fetched pass as known, and ignores the tag.
            let state = Arc::new(Mutex::new((0, false)));
            altered(sound, move |asked, answer| {
                let (lists, is_fetched) = &mut *state.lock().unwrap();
                *is_fetched |= is_fetch(asked) && *lists > 1;
                if is_list(asked) {
                    *lists += 1;
                    if tag(asked).is_some() && *is_fetched {
                        become_empty(answer, 204);
                    }
                }
            })
        },
    },
    Fault {
        name: "the log answers 201",
        rule: Rule::LOG_1,
        caught_by: &["trace/nothing-to-report"],
        wrong: |sound| {
            altered(sound, |asked, answer| {
                if asked.uri().path() == "/v1/log" {
                    become_empty(answer, 201);
                }
            })
        },
    },
];
