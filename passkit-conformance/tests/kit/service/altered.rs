//! Makes faulty services: the sound service with altered answers or requests.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, Method, StatusCode, header};
use serde_json::Value;

use super::sound::{Answered, Asked, Sound, Wrong};

/// Makes a service that alters the answers of the sound service.
pub(super) fn altered(
    sound: Sound,
    alter: impl Fn(&Asked, &mut Answered) + Send + Sync + 'static,
) -> Wrong {
    let alter = Arc::new(alter);
    Arc::new(move |asked| {
        let (sound, alter) = (sound.clone(), alter.clone());
        Box::pin(async move {
            let mut answer = sound.answer(asked.clone()).await;
            alter(&asked, &mut answer);
            answer
        })
    })
}

/// Makes a service that alters the requests to the sound service.
pub(super) fn asked_otherwise(
    sound: Sound,
    alter: impl Fn(&mut Asked) + Send + Sync + 'static,
) -> Wrong {
    let alter = Arc::new(alter);
    Arc::new(move |mut asked| {
        let (sound, alter) = (sound.clone(), alter.clone());
        Box::pin(async move {
            alter(&mut asked);
            sound.answer(asked).await
        })
    })
}

pub(super) fn is_list(asked: &Asked) -> bool {
    asked.method() == Method::GET && asked.uri().path().contains("/registrations/")
}

pub(super) fn is_fetch(asked: &Asked) -> bool {
    let path = asked.uri().path();
    path.starts_with("/v1/passes/") || path.starts_with("/v1/orders/")
}

pub(super) fn is_order(asked: &Asked) -> bool {
    asked.uri().path().contains("/order.")
}

/// Returns the text after the `=` of the query.
pub(super) fn tag(asked: &Asked) -> Option<&str> {
    asked.uri().query()?.split_once('=').map(|(_, tag)| tag)
}

/// Replaces the path and query.
pub(super) fn redirect(asked: &mut Asked, path: &str) {
    *asked.uri_mut() = format!("http://in-process{path}").parse().unwrap();
}

pub(super) fn without_query(asked: &mut Asked) {
    let path = asked.uri().path().to_owned();
    redirect(asked, &path);
}

pub(super) fn set(answer: &mut Answered, name: HeaderName, value: &str) {
    answer.headers_mut().insert(name, value.parse().unwrap());
}

/// Replaces the answer with a status without headers and body.
pub(super) fn become_empty(answer: &mut Answered, status: u16) {
    *answer = Answered::default();
    *answer.status_mut() = StatusCode::from_u16(status).unwrap();
}

/// Alters the list in an answer, if there is one.
pub(super) fn edit_list(answer: &mut Answered, edit: impl FnOnce(&mut Vec<Value>)) {
    edit_json(answer, |body| {
        let key = ["serialNumbers", "orderIdentifiers"]
            .into_iter()
            .find(|key| body.get(key).is_some());
        if let Some(Value::Array(listed)) = key.and_then(|key| body.get_mut(key)) {
            edit(listed);
        }
    });
}

/// Alters the tag in an answer, if there is one.
pub(super) fn edit_tag(answer: &mut Answered, edit: impl FnOnce(&str) -> Value) {
    edit_json(answer, |body| {
        let key = ["lastUpdated", "lastModified"]
            .into_iter()
            .find(|key| body.get(key).is_some());
        if let Some(value) = key.and_then(|key| body.get_mut(key)) {
            *value = edit(value.as_str().unwrap());
        }
    });
}

pub(super) fn edit_json(answer: &mut Answered, edit: impl FnOnce(&mut Value)) {
    let is_json = answer
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|value| value == "application/json");
    if is_json {
        let mut body = serde_json::from_slice(answer.body()).unwrap();
        edit(&mut body);
        *answer.body_mut() = Bytes::from(body.to_string());
    }
}
