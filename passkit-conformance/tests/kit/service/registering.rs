//! Services that handle registrations wrongly.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{Method, header};
use passkit_conformance::Rule;
use passkit_server::identifiers::DeviceIdentifier;
use serde_json::Value;

use super::{
    Fault,
    sound::Asked,
    wrong::{
        answered_otherwise, answering, asked_otherwise, bare, credentials, device,
        failing_side_by_side, named, refusing, registers, say,
    },
};

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        name: "register answers 200 to a new registration",
        rule: Rule::REG_1,
        caught_by: &[
            "register/new-pass-is-201",
            "register/second-device-is-201",
            "register/after-unregistering-is-201",
            "orders/register-new-is-201",
        ],
        wrong: |sound| {
            answered_otherwise(sound, |_, answer| {
                if answer.status() == 201 {
                    say(answer, 200);
                }
            })
        },
    },
    Fault {
        name: "register answers 201 each time",
        rule: Rule::REG_1,
        caught_by: &["register/known-pass-is-200", "orders/register-known-is-200"],
        wrong: |sound| {
            answered_otherwise(sound, |asked, answer| {
                if registers(asked) && answer.status() == 200 {
                    say(answer, 201);
                }
            })
        },
    },
    Fault {
        name: "register answers 304 to a known registration",
        rule: Rule::REG_1,
        caught_by: &["register/known-pass-is-200"],
        wrong: |sound| {
            answered_otherwise(sound, |asked, answer| {
                if registers(asked) && answer.status() == 200 {
                    say(answer, 304);
                }
            })
        },
    },
    Fault {
        name: "register keeps one device for each pass",
        rule: Rule::REG_1,
        caught_by: &["register/second-device-is-201"],
        wrong: |sound| {
            let seen = Arc::new(Mutex::new(HashSet::new()));
            answering(sound, move |sound, asked| {
                let again = registers(&asked) && !seen.lock().unwrap().insert(named(&asked));
                async move {
                    if again {
                        bare(200)
                    } else {
                        sound.answer(asked).await
                    }
                }
            })
        },
    },
    Fault {
        name: "register keeps a list of one pass for each device",
        rule: Rule::LIST_1,
        caught_by: &["register/second-device-is-201"],
        wrong: |sound| {
            let first = Arc::new(Mutex::new(None::<String>));
            answering(sound, move |sound, asked| {
                let mut first = first.lock().unwrap();
                let stranger = *first.get_or_insert(device(&asked).to_owned()) != device(&asked);
                let hides = stranger && *asked.method() == Method::GET;
                async move {
                    if hides {
                        bare(204)
                    } else {
                        sound.answer(asked).await
                    }
                }
            })
        },
    },
    Fault {
        name: "a new push token makes a new registration",
        rule: Rule::REG_1,
        caught_by: &["register/new-push-token-is-200"],
        wrong: |sound| {
            let seen = Arc::new(Mutex::new(HashMap::<String, Bytes>::new()));
            answering(sound, move |sound, asked| {
                let (path, body) = (asked.uri().path().to_owned(), asked.body().clone());
                let before = registers(&asked)
                    .then(|| seen.lock().unwrap().insert(path, body))
                    .flatten();
                let new = before.is_some_and(|before| before != *asked.body());
                async move {
                    let mut answer = sound.answer(asked).await;
                    if new {
                        say(&mut answer, 201);
                    }
                    answer
                }
            })
        },
    },
    Fault {
        name: "a new push token makes a new device, without the other passes of the old device",
        rule: Rule::REG_2,
        caught_by: &["register/new-push-token-is-200"],
        wrong: |sound| {
            let seen = Arc::new(Mutex::new(HashMap::<String, Bytes>::new()));
            answering(sound, move |sound, asked| {
                let (id, body) = (device(&asked).to_owned(), asked.body().clone());
                let before = registers(&asked)
                    .then(|| seen.lock().unwrap().insert(id, body))
                    .flatten();
                let new = before.is_some_and(|before| before != *asked.body());
                async move {
                    if !new {
                        return sound.answer(asked).await;
                    }
                    let id = DeviceIdentifier::new(device(&asked)).unwrap();
                    let later = SystemTime::now() + Duration::from_secs(60);
                    sound.store.forget_device(&id, later).await.unwrap();
                    sound.answer(asked).await;
                    bare(200)
                }
            })
        },
    },
    Fault {
        name: "register reads first and writes later",
        rule: Rule::REG_3,
        caught_by: &["register/in-parallel-creates-once"],
        wrong: |sound| {
            let seen = Arc::new(Mutex::new(HashSet::new()));
            answering(sound, move |sound, asked| {
                let seen = seen.clone();
                async move {
                    let path = asked.uri().path().to_owned();
                    let new = registers(&asked) && !seen.lock().unwrap().contains(&path);
                    tokio::task::yield_now().await;
                    seen.lock().unwrap().insert(path);
                    let mut answer = sound.answer(asked).await;
                    if new {
                        say(&mut answer, 201);
                    }
                    answer
                }
            })
        },
    },
    Fault {
        name: "register fails when the same registration is in progress",
        rule: Rule::REG_3,
        caught_by: &["register/in-parallel-creates-once"],
        wrong: |sound| failing_side_by_side(sound, Method::POST),
    },
    Fault {
        name: "a malformed body fails",
        rule: Rule::REG_4,
        caught_by: &["register/malformed-body-is-400"],
        wrong: |sound| {
            answered_otherwise(sound, |asked, answer| {
                if registers(asked) && answer.status() == 400 {
                    say(answer, 500);
                }
            })
        },
    },
    Fault {
        name: "a malformed body is refused, after the device was registered",
        rule: Rule::REG_4,
        caught_by: &[
            "register/malformed-body-is-400",
            "register/push-token-is-hexadecimal",
        ],
        wrong: |sound| {
            answering(sound, |sound, mut asked| async move {
                let answer = sound.answer(asked.clone()).await;
                if registers(&asked) && answer.status() == 400 {
                    *asked.body_mut() = Bytes::from_static(br#"{"pushToken":"00"}"#);
                    sound.answer(asked).await;
                }
                answer
            })
        },
    },
    Fault {
        name: "any text is a push token",
        rule: Rule::REG_4,
        caught_by: &["register/push-token-is-hexadecimal"],
        wrong: |sound| {
            asked_otherwise(sound, |asked| {
                if text_of(asked)
                    .is_some_and(|token| !token.bytes().all(|byte| byte.is_ascii_hexdigit()))
                {
                    *asked.body_mut() = Bytes::from_static(br#"{"pushToken":"00"}"#);
                }
            })
        },
    },
    Fault {
        name: "a body with more keys is refused",
        rule: Rule::REG_4,
        caught_by: &["register/unknown-keys-are-ignored"],
        wrong: |sound| {
            refusing(sound, |asked| {
                let body = serde_json::from_slice::<Value>(asked.body()).unwrap_or_default();
                (registers(asked) && body.as_object().is_some_and(|body| body.len() > 1))
                    .then_some(422)
            })
        },
    },
    Fault {
        name: "only application/json is read",
        rule: Rule::HTTP_9,
        caught_by: &["register/any-content-type", "log/any-content-type"],
        wrong: |sound| {
            refusing(sound, |asked| {
                let said = asked
                    .headers()
                    .get(header::CONTENT_TYPE)
                    .is_some_and(|said| said == "application/json");
                (*asked.method() == Method::POST && !said).then_some(415)
            })
        },
    },
    Fault {
        name: "a device identifier must be 32 hexadecimal digits",
        rule: Rule::REG_5,
        caught_by: &["register/device-identifier-of-any-form"],
        wrong: |sound| {
            refusing(sound, |asked| {
                let id = device(asked);
                let usual = id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
                (registers(asked) && !usual).then_some(400)
            })
        },
    },
    Fault {
        name: "device identifiers of any length are kept",
        rule: Rule::REG_5,
        caught_by: &["register/impossible-device-identifier-is-refused"],
        wrong: |sound| {
            refusing(sound, |asked| {
                (registers(asked) && device(asked).len() > 128).then_some(201)
            })
        },
    },
    Fault {
        name: "a NUL in a device identifier fails",
        rule: Rule::REG_5,
        caught_by: &["register/impossible-device-identifier-is-refused"],
        wrong: |sound| refusing(sound, |asked| device(asked).contains("%00").then_some(500)),
    },
    Fault {
        name: "an unknown pass is created",
        rule: Rule::REG_6,
        caught_by: &[
            "register/unknown-pass-is-401",
            "register/unknown-type-is-401",
        ],
        wrong: |sound| {
            refusing(sound, |asked| {
                (registers(asked) && named(asked).is_none()).then_some(201)
            })
        },
    },
    Fault {
        name: "register answers 404 to an unknown pass",
        rule: Rule::REG_6,
        caught_by: &[
            "register/unknown-pass-is-401",
            "register/unknown-type-is-401",
        ],
        wrong: |sound| {
            refusing(sound, |asked| {
                (registers(asked) && named(asked).is_none()).then_some(404)
            })
        },
    },
    Fault {
        name: "the body is checked before the token",
        rule: Rule::AUTH_5,
        caught_by: &["register/credentials-come-before-the-body"],
        wrong: |sound| {
            refusing(sound, |asked| {
                let wrong = named(asked).is_some_and(|(.., token)| credentials(asked).1 != token);
                (registers(asked) && wrong && text_of(asked).is_none()).then_some(400)
            })
        },
    },
];

/// The push token in the body, if it is a string.
fn text_of(asked: &Asked) -> Option<String> {
    let body = serde_json::from_slice::<Value>(asked.body()).ok()?;
    registers(asked)
        .then(|| body.get("pushToken")?.as_str().map(str::to_owned))
        .flatten()
}
