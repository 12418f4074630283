//! Services that serve wrong content.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http::StatusCode;
use passkit_archive::{ArchiveBuilder, placeholder_icon};
use passkit_conformance::Rule;
use passkit_server::{PassId, identifiers::Kind};

use super::{
    Fault,
    altered::{altered, asked_otherwise, is_fetch, redirect},
    sound::{Answered, Asked, Sound},
};

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        name: "another pass is served",
        rule: Rule::GET_7,
        caught_by: &["get/is-the-pass-asked-for"],
        wrong: |sound| {
            asked_otherwise(sound, |asked| {
                if asked.uri().path() == "/v1/passes/pass.com.example.a/A-2" {
                    redirect(asked, "/v1/passes/pass.com.example.a/A-1");
                    let token = "ApplePass token-of-a-1-0123456789";
                    asked
                        .headers_mut()
                        .insert("authorization", token.parse().unwrap());
                }
            })
        },
    },
    Fault {
        name: "another order is served",
        rule: Rule::GET_7,
        caught_by: &["orders/is-the-order-asked-for"],
        wrong: |sound| {
            asked_otherwise(sound, |asked| {
                if asked.uri().path() == "/v1/orders/order.com.example.c/O-2" {
                    redirect(asked, "/v1/orders/order.com.example.c/O-1");
                    let token = "AppleOrder token-of-c-1-0123456789";
                    asked
                        .headers_mut()
                        .insert("authorization", token.parse().unwrap());
                }
            })
        },
    },
    Fault {
        name: "the pass has another token",
        rule: Rule::AUTH_6,
        caught_by: &["get/holds-its-token"],
        wrong: |sound| {
            let passes = sound.clone();
            altered(sound, move |asked, answer| {
                if let Some(pass) = served(asked, answer) {
                    *answer.body_mut() = passes
                        .passes
                        .build(&pass, "another-token-0123456789")
                        .into();
                }
            })
        },
    },
    Fault {
        name: "the content differs in each answer",
        rule: Rule::GET_6,
        caught_by: &["get/unchanged-pass-is-the-same"],
        wrong: |sound| {
            let count = Arc::new(Mutex::new(0));
            altered(sound, move |asked, answer| {
                if served(asked, answer).is_some() {
                    let mut count = count.lock().unwrap();
                    *count += 1;
                    *answer.body_mut() = unsigned("A-1", &format!("version {count}"));
                }
            })
        },
    },
    Fault {
        name: "all answers have the first content",
        rule: Rule::CON_1,
        caught_by: &["get/changed-pass-has-new-content"],
        wrong: |sound| {
            let kept: Arc<Mutex<HashMap<PassId, Bytes>>> = Arc::default();
            altered(sound, move |asked, answer| {
                if let Some(pass) = served(asked, answer) {
                    let first = answer.body().clone();
                    *answer.body_mut() = kept.lock().unwrap().entry(pass).or_insert(first).clone();
                }
            })
        },
    },
    Fault {
        name: "passes are not signed",
        rule: Rule::ARCHIVE,
        caught_by: &["get/is-a-signed-archive"],
        wrong: |sound| {
            altered(sound, |asked, answer| {
                if served(asked, answer).is_some() {
                    *answer.body_mut() = unsigned("A-1", "a pass");
                }
            })
        },
    },
];

/// The pass or order that an answer serves.
fn served(asked: &Asked, answer: &Answered) -> Option<PassId> {
    let path = asked.uri().path().strip_prefix("/v1/")?;
    let (_, path) = path.split_once('/').filter(|_| is_fetch(asked))?;
    let (type_id, serial) = path.split_once('/')?;
    (answer.status() == StatusCode::OK).then(|| PassId::new(type_id, serial).unwrap())
}

fn unsigned(serial: &str, text: &str) -> Bytes {
    let description = serde_json::json!({
        "formatVersion": 1, "passTypeIdentifier": "pass.com.example.a", "serialNumber": serial,
        "teamIdentifier": "EXAMPLE123", "organizationName": "Example", "description": text, "generic": {},
        "webServiceURL": "https://wallet.example.com", "authenticationToken": "token-of-a-1-0123456789",
    });
    ArchiveBuilder::new(Kind::Pass, description.to_string())
        .file("icon.png", placeholder_icon(29))
        .build_unsigned()
        .unwrap()
        .into()
}

/// A service under test may serve placeholders, so an archive that can't be read is not a fault.
#[tokio::test]
async fn an_unreadable_archive_is_not_reported() {
    use passkit_conformance::{
        Outcome,
        service::{cases, run},
    };
    let sound = Sound::new();
    let target = sound.target_with(altered(sound.clone(), |asked, answer| {
        if served(asked, answer).is_some() {
            *answer.body_mut() = "not a zip".into();
        }
    }));
    let all = cases();
    let about_content = [
        "get/is-the-pass-asked-for",
        "get/holds-its-token",
        "get/unchanged-pass-is-the-same",
    ];
    let chosen: Vec<_> = all
        .iter()
        .filter(|one| about_content.contains(&one.case.id))
        .collect();
    let report = run(chosen, &target).await;
    assert_eq!(report.results.len(), about_content.len());
    for result in &report.results {
        assert!(matches!(result.outcome, Outcome::Skip(_)), "{report}");
    }
}
