//! Services that fail if several requests arrive at the same time.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex},
};

use http::{Method, StatusCode};
use passkit_archive::{Archive, Rules};
use passkit_conformance::Rule;

use super::{
    Fault,
    altered::{altered, become_empty, is_fetch},
};

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        name: "new content is available only some time after it is listed",
        rule: Rule::CON_1,
        caught_by: &["list/no-lost-update-under-writers"],
        wrong: |sound| {
            // The first request for a version gets the previous version.
            let seen: Arc<Mutex<HashSet<[u8; 32]>>> = Arc::default();
            let before = Arc::new(Mutex::new(HashMap::new()));
            altered(sound, move |asked, answer| {
                if is_fetch(asked) && answer.status() == StatusCode::OK {
                    let digest = Archive::check(answer.body(), Rules::strict())
                        .unwrap()
                        .content_digest;
                    let is_new = seen.lock().unwrap().insert(digest);
                    let last = before
                        .lock()
                        .unwrap()
                        .insert(asked.uri().path().to_owned(), answer.body().clone());
                    if let (true, Some(last)) = (is_new, last) {
                        *answer.body_mut() = last;
                    }
                }
            })
        },
    },
    Fault {
        name: "two equal registrations at once fail",
        rule: Rule::REG_3,
        caught_by: &["list/registered-in-parallel-is-listed-once"],
        wrong: |sound| {
            altered(sound, |asked, answer| {
                if asked.method() == Method::POST && answer.status() == StatusCode::OK {
                    become_empty(answer, 409);
                }
            })
        },
    },
];
