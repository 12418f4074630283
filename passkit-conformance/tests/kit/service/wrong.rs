//! Helpers that make faulty services from the sound service.

use std::{collections::HashSet, sync::Arc, sync::Mutex};

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, header::AUTHORIZATION};
use percent_encoding::percent_decode_str;

use super::sound::{Answered, Asked, SUBJECTS, Sound, Wrong};

/// Makes a service that gets its answers from `answer`.
pub(crate) fn answering<F, R>(sound: Sound, answer: F) -> Wrong
where
    F: Fn(Sound, Asked) -> R + Send + Sync + 'static,
    R: Future<Output = Answered> + Send + 'static,
{
    Arc::new(move |asked| Box::pin(answer(sound.clone(), asked)))
}

/// Makes a service that changes the requests to the sound service.
pub(crate) fn asked_otherwise(sound: Sound, change: fn(&mut Asked)) -> Wrong {
    answering(sound, move |sound, mut asked| async move {
        change(&mut asked);
        sound.answer(asked).await
    })
}

/// Makes a service that changes the answers of the sound service.
pub(crate) fn answered_otherwise(sound: Sound, change: fn(&Asked, &mut Answered)) -> Wrong {
    answering(sound, move |sound, asked| async move {
        let mut answer = sound.answer(asked.clone()).await;
        change(&asked, &mut answer);
        answer
    })
}

/// Makes a service that answers some requests with only a status. All other requests get the
/// answers of the sound service.
pub(crate) fn refusing(sound: Sound, status: fn(&Asked) -> Option<u16>) -> Wrong {
    answering(sound, move |sound, asked| async move {
        match status(&asked) {
            Some(status) => bare(status),
            None => sound.answer(asked).await,
        }
    })
}

/// Makes a service in which a request fails while an equal request is in progress. A service
/// behaves like this if it does not handle conflicts of a unique key in the database.
pub(crate) fn failing_side_by_side(sound: Sound, method: Method) -> Wrong {
    let busy = Arc::new(Mutex::new(HashSet::new()));
    answering(sound, move |sound, asked| {
        let (busy, counts) = (busy.clone(), *asked.method() == method);
        async move {
            let path = asked.uri().path().to_owned();
            if counts && !busy.lock().unwrap().insert(path.clone()) {
                return bare(500);
            }
            tokio::task::yield_now().await;
            let answer = sound.answer(asked).await;
            busy.lock().unwrap().remove(&path);
            answer
        }
    })
}

pub(crate) fn bare(status: u16) -> Answered {
    let mut answer = Answered::new(Bytes::new());
    *answer.status_mut() = StatusCode::from_u16(status).unwrap();
    answer
}

pub(crate) fn say(answer: &mut Answered, status: u16) {
    *answer.status_mut() = StatusCode::from_u16(status).unwrap();
}

pub(crate) fn registers(asked: &Asked) -> bool {
    *asked.method() == Method::POST && asked.uri().path().contains("/registrations/")
}

pub(crate) fn logs(asked: &Asked) -> bool {
    asked.uri().path().contains("v1/log")
}

/// Returns the device identifier in a path, still encoded.
pub(crate) fn device(asked: &Asked) -> &str {
    asked
        .uri()
        .path()
        .split('/')
        .skip_while(|part| *part != "devices")
        .nth(1)
        .unwrap_or_default()
}

/// Returns the type, serial number and token of the pass in a path.
pub(crate) fn named(asked: &Asked) -> Option<(&'static str, &'static str, &'static str)> {
    let path = percent_decode_str(asked.uri().path()).decode_utf8_lossy();
    SUBJECTS
        .iter()
        .copied()
        .find(|(type_id, serial, _)| path.ends_with(&format!("/{type_id}/{serial}")))
}

/// Returns the scheme and the token in the Authorization header.
pub(crate) fn credentials(asked: &Asked) -> (&str, &str) {
    let value = asked
        .headers()
        .get(AUTHORIZATION)
        .map_or("", |value| value.to_str().unwrap());
    value.split_once(' ').unwrap_or((value, ""))
}

/// Inserts the right credentials for the pass in the path.
pub(crate) fn let_in(asked: &mut Asked) {
    if let Some((type_id, _, token)) = named(asked) {
        let scheme = if type_id.starts_with("pass.") {
            "ApplePass"
        } else {
            "AppleOrder"
        };
        let value = HeaderValue::from_str(&format!("{scheme} {token}")).unwrap();
        asked.headers_mut().insert(AUTHORIZATION, value);
    }
}

/// Replaces the path and query.
pub(crate) fn redirect(asked: &mut Asked, path_and_query: &str) {
    *asked.uri_mut() = path_and_query.parse().unwrap();
}
