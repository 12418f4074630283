//! Services with faults in rewards enrolment.

use std::{
    collections::{HashMap, HashSet},
    process::{Command, Stdio},
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http::{Method, header};
use passkit_archive::Signer;
use passkit_conformance::Rule;
use passkit_server::PassId;
use serde_json::Value;

use super::{
    Fault,
    sound::{Answered, Asked, REWARDS_TOKEN, REWARDS_TYPE, Sound, signature},
    wrong::{
        answered_otherwise, answering, asked_otherwise, bare, failing_side_by_side, refusing, say,
    },
};

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        name: "an enrolment needs no token",
        rule: Rule::PER_5,
        caught_by: &["enrol/no-token-is-401"],
        wrong: |sound| {
            asked_otherwise(sound, |asked| {
                if enrols(asked) {
                    let token = format!("ApplePass {REWARDS_TOKEN}").parse().unwrap();
                    asked.headers_mut().insert(header::AUTHORIZATION, token);
                }
            })
        },
    },
    Fault {
        name: "a manifest is signed in place of a token",
        rule: Rule::PER_5,
        caught_by: &["enrol/only-tokens-are-signed"],
        wrong: |sound| {
            refusing(sound, |asked| {
                let is_manifest = token(asked).is_some_and(|token| token.starts_with('{'));
                (enrols(asked) && is_manifest).then_some(200)
            })
        },
    },
    Fault {
        name: "a token of any length is signed",
        rule: Rule::PER_5,
        caught_by: &["enrol/only-tokens-are-signed"],
        wrong: |sound| {
            refusing(sound, |asked| {
                let is_long = token(asked).is_some_and(|token| token.len() > 256);
                (enrols(asked) && is_long).then_some(200)
            })
        },
    },
    Fault {
        name: "a malformed enrolment fails",
        rule: Rule::PER_6,
        caught_by: &["enrol/malformed-is-400"],
        wrong: |sound| {
            refusing(sound, |asked| {
                (enrols(asked) && token(asked).is_none()).then_some(500)
            })
        },
    },
    Fault {
        name: "every pass can be enrolled",
        rule: Rule::PER_6,
        caught_by: &["enrol/other-pass-is-404"],
        wrong: |sound| {
            refusing(sound, |asked| {
                (enrols(asked) && !asked.uri().path().contains(REWARDS_TYPE)).then_some(200)
            })
        },
    },
    Fault {
        name: "an enrolment is answered 201",
        rule: Rule::PER_1,
        caught_by: &["enrol/token-is-signed"],
        wrong: |sound| {
            answered_otherwise(sound, |asked, answer| {
                if enrols(asked) && answer.status() == 200 {
                    say(answer, 201);
                }
            })
        },
    },
    Fault {
        name: "the signature is called text",
        rule: Rule::PER_1,
        caught_by: &["enrol/token-is-signed"],
        wrong: |sound| {
            answered_otherwise(sound, |asked, answer| {
                if enrols(asked) {
                    let text = "text/plain".parse().unwrap();
                    answer.headers_mut().insert(header::CONTENT_TYPE, text);
                }
            })
        },
    },
    Fault {
        name: "the signature is over the body as JSON",
        rule: Rule::PER_2,
        caught_by: &["enrol/token-is-signed"],
        wrong: |sound| {
            signing(sound, |token| {
                signature(&format!("personalizationToken={token}"))
            })
        },
    },
    Fault {
        name: "the signature lacks the certificate of its issuer",
        rule: Rule::PER_2,
        caught_by: &["enrol/token-is-signed"],
        wrong: |sound| signing(sound, without_issuer),
    },
    Fault {
        name: "the token comes back in place of a signature",
        rule: Rule::PER_2,
        caught_by: &["enrol/token-is-signed"],
        wrong: |sound| signing(sound, |token| token.into()),
    },
    Fault {
        name: "personalization.json is still served after an enrolment",
        rule: Rule::PER_3,
        caught_by: &["enrol/pass-is-personalized"],
        wrong: |sound| {
            let first: Arc<Mutex<HashMap<String, Bytes>>> = Arc::default();
            answering(sound, move |sound, asked| {
                let first = first.clone();
                async move {
                    let path = asked.uri().path().to_owned();
                    let is_fetch = *asked.method() == Method::GET && path.contains("/passes/");
                    let mut answer = sound.answer(asked).await;
                    if is_fetch && answer.status() == 200 && path.contains(REWARDS_TYPE) {
                        let new = answer.body().clone();
                        let old = first.lock().unwrap().entry(path).or_insert(new).clone();
                        answer.headers_mut().remove(header::CONTENT_LENGTH);
                        *answer.body_mut() = old;
                    }
                    answer
                }
            })
        },
    },
    Fault {
        name: "an enrolled pass is not marked",
        rule: Rule::PER_4,
        caught_by: &["enrol/pass-is-personalized"],
        wrong: |sound| {
            answering(sound, |sound, asked| async move {
                sound.answer_without_marks(asked).await
            })
        },
    },
    Fault {
        name: "a repeated enrolment is refused",
        rule: Rule::PER_8,
        caught_by: &["enrol/repeat-changes-nothing"],
        wrong: |sound| repeated(sound, |_, _| async { Some(bare(404)) }),
    },
    Fault {
        name: "a second enrolment replaces the first",
        rule: Rule::PER_8,
        caught_by: &["enrol/repeat-changes-nothing"],
        wrong: |sound| {
            repeated(sound, |sound, asked| async move {
                let body: Value = serde_json::from_slice(asked.body()).unwrap();
                let name = body["requiredPersonalizationInfo"]["fullName"]
                    .as_str()
                    .unwrap()
                    .to_owned();
                let pass = pass(&asked);
                sound
                    .passes
                    .customers
                    .lock()
                    .unwrap()
                    .insert(pass.clone(), name);
                sound.mark(&pass).await.unwrap();
                None
            })
        },
    },
    Fault {
        name: "a repeated enrolment loses the data",
        rule: Rule::PER_8,
        caught_by: &["enrol/repeat-changes-nothing"],
        wrong: |sound| {
            repeated(sound, |sound, asked| async move {
                sound.passes.customers.lock().unwrap().remove(&pass(&asked));
                None
            })
        },
    },
    Fault {
        name: "an enrolment fails beside another one",
        rule: Rule::PER_8,
        caught_by: &["enrol/at-the-same-time-is-once"],
        wrong: |sound| failing_side_by_side(sound, Method::POST),
    },
];

fn enrols(asked: &Asked) -> bool {
    *asked.method() == Method::POST && asked.uri().path().ends_with("/personalize")
}

/// Returns the token in the body of an enrolment.
fn token(asked: &Asked) -> Option<String> {
    let body: Value = serde_json::from_slice(asked.body()).ok()?;
    Some(body.get("personalizationToken")?.as_str()?.to_owned())
}

fn pass(asked: &Asked) -> PassId {
    let serial = asked.uri().path().split('/').nth(4).unwrap();
    PassId::new(REWARDS_TYPE, serial).unwrap()
}

/// Makes a service with other signatures.
fn signing(sound: Sound, sign: fn(&str) -> Vec<u8>) -> super::sound::Wrong {
    answering(sound, move |sound, asked| async move {
        let token = token(&asked).filter(|_| enrols(&asked));
        let mut answer = sound.answer(asked).await;
        if let Some(token) = token
            && answer.status() == 200
        {
            answer.headers_mut().remove(header::CONTENT_LENGTH);
            *answer.body_mut() = sign(&token).into();
        }
        answer
    })
}

/// Makes a service that does something before it answers a repeated enrolment, or answers it
/// otherwise.
fn repeated<F, R>(sound: Sound, act: F) -> super::sound::Wrong
where
    F: Fn(Sound, Asked) -> R + Send + Sync + Copy + 'static,
    R: Future<Output = Option<Answered>> + Send + 'static,
{
    let known: Arc<Mutex<HashSet<String>>> = Arc::default();
    answering(sound, move |sound, asked| {
        let known = known.clone();
        async move {
            let path = asked.uri().path().to_owned();
            let is_known = enrols(&asked) && known.lock().unwrap().contains(&path);
            if is_known && let Some(answer) = act(sound.clone(), asked.clone()).await {
                return answer;
            }
            let is_enrolment = enrols(&asked);
            let answer = sound.answer(asked).await;
            if is_enrolment && answer.status() == 200 {
                known.lock().unwrap().insert(path);
            }
            answer
        }
    })
}

/// Signs a token with OpenSSL, which includes the certificate of the signer only.
fn without_issuer(token: &str) -> Vec<u8> {
    use std::io::Write as _;

    let folder = tempfile::tempdir().unwrap();
    let type_id = REWARDS_TYPE.parse().unwrap();
    let pem = Signer::throwaway_pem(&type_id, "EXAMPLE123", false).unwrap();
    std::fs::write(folder.path().join("signer.pem"), pem).unwrap();
    let mut openssl = Command::new("openssl")
        .args([
            "cms",
            "-sign",
            "-binary",
            "-outform",
            "DER",
            "-signer",
            "signer.pem",
        ])
        .current_dir(folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    openssl
        .stdin
        .take()
        .unwrap()
        .write_all(token.as_bytes())
        .unwrap();
    let output = openssl.wait_with_output().unwrap();
    assert!(output.status.success());
    output.stdout
}
