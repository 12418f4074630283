//! Services that register wrongly.

use std::sync::Arc;

use http::{Method, StatusCode};
use passkit_conformance::Rule;

use super::Fault;

pub(super) const FAULTS: &[Fault] = &[Fault {
    name: "register answers 200 at once",
    rule: Rule::REG_1,
    caught_by: &["register/new-pass-is-201"],
    wrong: |sound| {
        Arc::new(move |asked| {
            let sound = sound.clone();
            Box::pin(async move {
                let registers = asked.method() == Method::POST;
                let mut answer = sound.answer(asked).await;
                if registers && answer.status() == StatusCode::CREATED {
                    *answer.status_mut() = StatusCode::OK;
                }
                answer
            })
        })
    },
}];
