use std::time::Duration;

use http::{
    HeaderValue, Method, Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG, LAST_MODIFIED},
    request::Parts,
};

use crate::{
    PassId, PassSource,
    body::ResponseBody,
    conditional,
    delivery::DeliveryRecorder,
    refusal::{Denied, Refusal},
    response,
    store::{RegistrationStore, clock},
    traced::Fetch,
};

/// `GET` or `HEAD` of `/v1/passes/{type}/{serial}` or `/v1/orders/{type}/{serial}`. The request is
/// already authorized.
///
/// The state is read before the content. If the pass changes in between, new content goes out under
/// the old date, which costs one more request. In the other order, a device would keep old content
/// under the new date forever.
pub(crate) async fn latest<S: RegistrationStore, P: PassSource>(
    store: &S,
    source: &P,
    media_type: HeaderValue,
    pass: &PassId,
    head: &Parts,
    recorder: Option<&DeliveryRecorder>,
) -> Result<Response<ResponseBody>, Refusal> {
    let fetch = Fetch::new(pass);
    let state = store.pass_state(pass).await?;
    let mut answer = if conditional::is_unchanged(state, &head.headers, now()) {
        response::empty(StatusCode::NOT_MODIFIED)
    } else {
        until_date_is_reached(state.last_modified).await;
        let gone = Refusal::Unauthorized(pass.type_id.kind(), Denied::Removed);
        let (length, body) = if head.method == Method::HEAD {
            let length = source.archive_length(pass, &state).await;
            let length = length.map_err(Refusal::Source)?.ok_or(gone)?;
            (length, ResponseBody::empty())
        } else {
            let archive = source.archive(pass, &state).await;
            let archive = archive.map_err(Refusal::Source)?.ok_or(gone)?;
            (archive.length(), archive.into())
        };
        let mut answer = Response::new(body);
        answer.headers_mut().insert(CONTENT_TYPE, media_type);
        answer
            .headers_mut()
            .insert(CONTENT_LENGTH, HeaderValue::from(length));
        answer
    };
    let headers = answer.headers_mut();
    headers.insert(LAST_MODIFIED, conditional::last_modified(state, now()));
    headers.insert(ETAG, conditional::etag(state));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    fetch.answered(state, answer.status());
    if head.method == Method::GET
        && let Some(recorder) = recorder
    {
        let unchanged = answer.status() == StatusCode::NOT_MODIFIED;
        recorder.fetched(pass, state.version, unchanged);
    }
    #[cfg(feature = "metrics")]
    if head.method == Method::GET && answer.status() == StatusCode::OK {
        crate::metrics::fetched(state);
    }
    Ok(answer)
}

/// Returns whole seconds since the Unix epoch.
fn now() -> u64 {
    clock::now_micros() / 1_000_000
}

/// Waits for up to a second, until the date of the pass is reached. A pass that changed twice
/// within a second has a date up to a second ahead, and no answer may carry a date in the future. A
/// pass that changes even faster is sent at once, with another date.
async fn until_date_is_reached(last_modified: u64) {
    let ahead = last_modified
        .saturating_mul(1_000_000)
        .saturating_sub(clock::now_micros());
    if (1..=1_000_000).contains(&ahead) {
        tokio::time::sleep(Duration::from_micros(ahead)).await;
    }
}
