use std::time::Duration;

use http::{
    HeaderValue, Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG, LAST_MODIFIED},
    request::Parts,
};

use crate::{
    PassId, PassSource,
    body::ResponseBody,
    conditional,
    refusal::Refusal,
    response,
    store::{RegistrationStore, clock},
    traced::Fetch,
};

/// `GET` or `HEAD` of `/v1/passes/{type}/{serial}` or `/v1/orders/{type}/{serial}`, already authorized.
///
/// The state is read before the content. A change in between then sends new content under the old date, which costs one
/// more request. Old content under the new date would be kept forever.
pub(crate) async fn latest<S: RegistrationStore, P: PassSource>(
    store: &S,
    source: &P,
    media_type: HeaderValue,
    pass: &PassId,
    head: &Parts,
) -> Result<Response<ResponseBody>, Refusal> {
    let fetch = Fetch::new(pass);
    let state = store.pass_state(pass).await?;
    let mut answer = if conditional::is_unchanged(state, &head.headers) {
        response::empty(StatusCode::NOT_MODIFIED)
    } else {
        until_date_is_reached(state.last_modified).await;
        let archive = source.archive(pass, &state).await.map_err(Refusal::Source)?;
        let archive = archive.ok_or(Refusal::Unauthorized(pass.type_id.kind()))?;
        let length = archive.length();
        let mut answer = Response::new(ResponseBody::from(archive));
        answer.headers_mut().insert(CONTENT_TYPE, media_type);
        answer.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
        answer
    };
    let headers = answer.headers_mut();
    headers.insert(LAST_MODIFIED, conditional::last_modified(state, clock::now_micros() / 1_000_000));
    headers.insert(ETAG, conditional::etag(state));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    fetch.answered(state, answer.status());
    #[cfg(feature = "metrics")]
    if head.method == http::Method::GET && answer.status() == StatusCode::OK {
        crate::metrics::fetched(state);
    }
    Ok(answer)
}

/// A pass that changed twice within a second is dated a second ahead, and an answer may not carry a date ahead of its own.
/// Sent at once it would get the date of the version before, and be fetched again. So this waits for that second. A pass
/// that changes faster still is sent at once, and is fetched again.
async fn until_date_is_reached(last_modified: u64) {
    let ahead = last_modified.saturating_mul(1_000_000).saturating_sub(clock::now_micros());
    if (1..=1_000_000).contains(&ahead) {
        tokio::time::sleep(Duration::from_micros(ahead)).await;
    }
}
