//! Services that accept wrong credentials, or refuse the right ones.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderValue, Method, header};
use passkit_conformance::Rule;
use passkit_server::PassId;

use super::{
    Fault,
    sound::SUBJECTS,
    wrong::{
        answered_otherwise, answering, asked_otherwise, bare, credentials, let_in, named, refusing,
    },
};

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        name: "any token opens any pass",
        rule: Rule::AUTH_2,
        caught_by: &[
            "auth/token-of-another-pass-is-401",
            "auth/token-of-another-type-is-401",
            "orders/token-of-another-order-is-401",
        ],
        wrong: |sound| {
            asked_otherwise(sound, |asked| {
                if SUBJECTS
                    .iter()
                    .any(|(.., token)| *token == credentials(asked).1)
                {
                    let_in(asked);
                }
            })
        },
    },
    Fault {
        name: "a token is looked up by the serial number alone",
        rule: Rule::AUTH_2,
        caught_by: &["auth/token-of-another-type-is-401"],
        wrong: |sound| {
            asked_otherwise(sound, |asked| {
                let same = |(_, serial, token): &(&str, &str, &str)| {
                    named(asked).is_some_and(|named| named.1 == *serial)
                        && *token == credentials(asked).1
                };
                if SUBJECTS.iter().any(same) {
                    let_in(asked);
                }
            })
        },
    },
    Fault {
        name: "without Authorization, everything is open",
        rule: Rule::AUTH_3,
        caught_by: &[
            "auth/no-token-is-401",
            "auth/each-request-is-checked-alone",
            "orders/no-token-is-401",
        ],
        wrong: |sound| {
            asked_otherwise(sound, |asked| {
                if !asked.headers().contains_key(header::AUTHORIZATION) {
                    let_in(asked);
                }
            })
        },
    },
    Fault {
        name: "an empty token opens everything",
        rule: Rule::AUTH_3,
        caught_by: &["auth/no-token-is-401"],
        wrong: |sound| {
            asked_otherwise(sound, |asked| {
                if credentials(asked) == ("ApplePass", "") {
                    let_in(asked);
                }
            })
        },
    },
    Fault {
        name: "unregister asks for no token",
        rule: Rule::AUTH_2,
        caught_by: &[
            "auth/token-of-another-pass-is-401",
            "auth/almost-the-token-is-401",
        ],
        wrong: |sound| {
            asked_otherwise(sound, |asked| {
                if *asked.method() == Method::DELETE {
                    let_in(asked);
                }
            })
        },
    },
    Fault {
        name: "a refused request is carried out anyway",
        rule: Rule::AUTH_2,
        caught_by: &["auth/token-of-another-pass-is-401"],
        wrong: |sound| {
            answering(sound, |sound, mut asked| async move {
                let answer = sound.answer(asked.clone()).await;
                if answer.status() == 401 {
                    let_in(&mut asked);
                    sound.answer(asked).await;
                }
                answer
            })
        },
    },
    Fault {
        name: "only the beginning of the token is compared",
        rule: Rule::AUTH_2,
        caught_by: &["auth/almost-the-token-is-401"],
        wrong: |sound| {
            asked_otherwise(sound, |asked| {
                let token = credentials(asked).1;
                if named(asked).is_some_and(|named| !token.is_empty() && named.2.starts_with(token))
                {
                    let_in(asked);
                }
            })
        },
    },
    Fault {
        name: "the case of the token is ignored",
        rule: Rule::AUTH_2,
        caught_by: &["auth/almost-the-token-is-401"],
        wrong: |sound| {
            asked_otherwise(sound, |asked| {
                if named(asked)
                    .is_some_and(|named| named.2.eq_ignore_ascii_case(credentials(asked).1))
                {
                    let_in(asked);
                }
            })
        },
    },
    Fault {
        name: "the scheme is ignored",
        rule: Rule::AUTH_3,
        caught_by: &["auth/wrong-scheme-is-401", "orders/wrong-scheme-is-401"],
        wrong: |sound| {
            asked_otherwise(sound, |asked| {
                let (scheme, token) = credentials(asked);
                if named(asked).is_some_and(|named| named.2 == token || named.2 == scheme) {
                    let_in(asked);
                }
            })
        },
    },
    Fault {
        name: "an unknown pass is answered 404",
        rule: Rule::AUTH_4,
        caught_by: &[
            "auth/unknown-pass-is-not-served",
            "auth/unknown-and-wrong-look-alike",
            "unregister/unknown-pass-is-401",
        ],
        wrong: |sound| {
            refusing(sound, |asked| {
                (named(asked).is_none() && asked.headers().contains_key(header::AUTHORIZATION))
                    .then_some(404)
            })
        },
    },
    Fault {
        name: "a 401 reveals whether the pass exists",
        rule: Rule::AUTH_4,
        caught_by: &["auth/unknown-and-wrong-look-alike"],
        wrong: |sound| {
            answered_otherwise(sound, |asked, answer| {
                if answer.status() == 401 {
                    let known = named(asked).is_some();
                    *answer.body_mut() =
                        Bytes::from(if known { "wrong token" } else { "no such pass" });
                }
            })
        },
    },
    Fault {
        name: "a 401 for an unknown pass has no challenge",
        rule: Rule::AUTH_4,
        caught_by: &["auth/unknown-and-wrong-look-alike"],
        wrong: |sound| {
            answered_otherwise(sound, |asked, answer| {
                if named(asked).is_none() {
                    answer.headers_mut().remove(header::WWW_AUTHENTICATE);
                }
            })
        },
    },
    Fault {
        name: "a 401 asks for a password",
        rule: Rule::HTTP_12,
        caught_by: &["auth/no-token-is-401", "auth/unknown-pass-is-not-served"],
        wrong: |sound| {
            answered_otherwise(sound, |_, answer| {
                if answer.status() == 401 {
                    let basic = HeaderValue::from_static("Basic realm=\"passes\"");
                    answer.headers_mut().insert(header::WWW_AUTHENTICATE, basic);
                }
            })
        },
    },
    Fault {
        name: "a client that was accepted once is always accepted",
        rule: Rule::AUTH_3,
        caught_by: &["auth/each-request-is-checked-alone"],
        wrong: |sound| {
            let inside = Arc::new(Mutex::new(None));
            answering(sound, move |sound, mut asked| {
                let inside = inside.clone();
                async move {
                    let pass = named(&asked);
                    if inside.lock().unwrap().is_some_and(|before| before == pass) {
                        let_in(&mut asked);
                    }
                    let answer = sound.answer(asked).await;
                    *inside.lock().unwrap() = (answer.status() == 200).then_some(pass);
                    answer
                }
            })
        },
    },
    Fault {
        name: "a pass gets a new token when it changes",
        rule: Rule::AUTH_6,
        caught_by: &["auth/token-survives-a-change"],
        wrong: |sound| {
            answering(sound, |sound, asked| async move {
                let pass =
                    named(&asked).map(|(type_id, serial, _)| PassId::new(type_id, serial).unwrap());
                let changed = pass.is_some_and(|pass| sound.passes.version(&pass) > 0);
                if changed {
                    bare(401)
                } else {
                    sound.answer(asked).await
                }
            })
        },
    },
    Fault {
        name: "the case of the scheme must match",
        rule: Rule::AUTH_1,
        caught_by: &["auth/scheme-in-any-case"],
        wrong: |sound| {
            refusing(sound, |asked| {
                let (scheme, token) = credentials(asked);
                (!token.is_empty() && !["ApplePass", "AppleOrder"].contains(&scheme)).then_some(401)
            })
        },
    },
];
