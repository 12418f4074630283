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

/// `GET` or `HEAD` of `/v1/passes/{type}/{serial}` or `/v1/orders/{type}/{serial}`, already
/// authorized.
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
) -> Result<Response<ResponseBody>, Refusal> {
    let fetch = Fetch::new(pass);
    let state = store.pass_state(pass).await?;
    let mut answer = if conditional::is_unchanged(state, &head.headers) {
        response::empty(StatusCode::NOT_MODIFIED)
    } else {
        until_date_is_reached(state.last_modified).await;
        let archive = source
            .archive(pass, &state)
            .await
            .map_err(Refusal::Source)?;
        let archive = archive.ok_or(Refusal::Unauthorized(pass.type_id.kind()))?;
        let length = archive.length();
        let mut answer = Response::new(ResponseBody::from(archive));
        answer.headers_mut().insert(CONTENT_TYPE, media_type);
        answer
            .headers_mut()
            .insert(CONTENT_LENGTH, HeaderValue::from(length));
        answer
    };
    let headers = answer.headers_mut();
    headers.insert(
        LAST_MODIFIED,
        conditional::last_modified(state, clock::now_micros() / 1_000_000),
    );
    headers.insert(ETAG, conditional::etag(state));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    fetch.answered(state, answer.status());
    #[cfg(feature = "metrics")]
    if head.method == http::Method::GET && answer.status() == StatusCode::OK {
        crate::metrics::fetched(state);
    }
    Ok(answer)
}

/// A pass that changed twice within a second has a date up to a second ahead, and no answer may
/// carry a date in the future. If it were sent at once, it would get the date of the version
/// before, and would be fetched again. So this waits for up to a second. A pass that changes even
/// faster is sent at once, and is fetched again.
async fn until_date_is_reached(last_modified: u64) {
    let ahead = last_modified
        .saturating_mul(1_000_000)
        .saturating_sub(clock::now_micros());
    if (1..=1_000_000).contains(&ahead) {
        tokio::time::sleep(Duration::from_micros(ahead)).await;
    }
}
