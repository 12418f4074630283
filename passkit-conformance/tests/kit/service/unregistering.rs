//! Services that handle unregistering wrongly.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use http::Method;
use passkit_conformance::Rule;
use passkit_server::identifiers::DeviceIdentifier;

use super::{
    Fault,
    sound::{Sound, Wrong},
    wrong::{
        answered_otherwise, answering, bare, device, failing_side_by_side, named, refusing,
        registers, say,
    },
};

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        name: "unregister answers 204",
        rule: Rule::UNR_1,
        caught_by: &["unregister/known-pass-is-200", "orders/unregister-is-200"],
        wrong: |sound| {
            answered_otherwise(sound, |asked, answer| {
                if *asked.method() == Method::DELETE && answer.status() == 200 {
                    say(answer, 204);
                }
            })
        },
    },
    Fault {
        name: "unregister answers 200 and does nothing",
        rule: Rule::UNR_1,
        caught_by: &[
            "unregister/known-pass-is-200",
            "orders/unregister-is-200",
            "unregister/in-parallel-is-200",
        ],
        wrong: |sound| {
            refusing(sound, |asked| {
                (*asked.method() == Method::DELETE).then_some(200)
            })
        },
    },
    Fault {
        name: "a pass can be fetched only while it is registered",
        rule: Rule::GET_9,
        caught_by: &["unregister/known-pass-is-200"],
        wrong: |sound| {
            let left = Arc::new(Mutex::new(HashSet::new()));
            answering(sound, move |sound, asked| {
                if *asked.method() == Method::DELETE {
                    left.lock().unwrap().insert(named(&asked));
                }
                let fetches = asked.uri().path().starts_with("/v1/passes/");
                let refused = fetches && left.lock().unwrap().contains(&named(&asked));
                async move {
                    if refused {
                        bare(404)
                    } else {
                        sound.answer(asked).await
                    }
                }
            })
        },
    },
    Fault {
        name: "unregistering an unregistered pass is answered 404",
        rule: Rule::UNR_2,
        caught_by: &[
            "unregister/again-is-200",
            "unregister/never-registered-is-200",
            "unregister/in-parallel-is-200",
            "orders/unregister-again-is-200",
        ],
        wrong: |sound| nothing_to_unregister(sound, 404),
    },
    Fault {
        name: "unregistering an unregistered pass fails",
        rule: Rule::UNR_2,
        caught_by: &[
            "unregister/again-is-200",
            "unregister/never-registered-is-200",
        ],
        wrong: |sound| nothing_to_unregister(sound, 500),
    },
    Fault {
        name: "unregister removes the device",
        rule: Rule::UNR_3,
        caught_by: &["unregister/leaves-other-passes"],
        wrong: |sound| {
            answering(sound, |sound, asked| async move {
                let answer = sound.answer(asked.clone()).await;
                if *asked.method() == Method::DELETE {
                    let device = DeviceIdentifier::new(device(&asked)).unwrap();
                    let later = SystemTime::now() + Duration::from_secs(60);
                    sound.store.forget_device(&device, later).await.unwrap();
                }
                answer
            })
        },
    },
    Fault {
        name: "unregister removes the pass from all devices",
        rule: Rule::UNR_3,
        caught_by: &["unregister/leaves-other-devices"],
        wrong: |sound| {
            let paths = Arc::new(Mutex::new(Vec::new()));
            answering(sound, move |sound, asked| {
                if registers(&asked) {
                    paths.lock().unwrap().push(asked.uri().clone());
                }
                let paths = paths.lock().unwrap().clone();
                async move {
                    if *asked.method() == Method::DELETE {
                        for path in paths {
                            let mut other = asked.clone();
                            *other.uri_mut() = path;
                            sound.answer(other).await;
                        }
                    }
                    sound.answer(asked).await
                }
            })
        },
    },
    Fault {
        name: "unregister fails when the same request is in progress",
        rule: Rule::UNR_2,
        caught_by: &["unregister/in-parallel-is-200"],
        wrong: |sound| failing_side_by_side(sound, Method::DELETE),
    },
    Fault {
        name: "unregister answers 200 for an unknown pass",
        rule: Rule::AUTH_4,
        caught_by: &[
            "unregister/unknown-pass-is-401",
            "auth/unknown-and-wrong-look-alike",
        ],
        wrong: |sound| {
            refusing(sound, |asked| {
                (*asked.method() == Method::DELETE && named(asked).is_none()).then_some(200)
            })
        },
    },
];

/// Makes a service that answers this status if there is nothing to unregister.
fn nothing_to_unregister(sound: Sound, status: u16) -> Wrong {
    let held = Arc::new(Mutex::new(HashSet::new()));
    answering(sound, move |sound, asked| {
        let path = asked.uri().path().to_owned();
        if registers(&asked) {
            held.lock().unwrap().insert(path.clone());
        }
        let nothing = *asked.method() == Method::DELETE && !held.lock().unwrap().remove(&path);
        async move {
            if nothing {
                bare(status)
            } else {
                sound.answer(asked).await
            }
        }
    })
}
