//! Reads the bodies of requests that are not from phones.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Incoming;

/// Why a body can't be read.
pub(crate) enum BodyError {
    TooLarge,
    EndedEarly,
    Slow,
}

/// Reads a body of at most `limit` bytes. Waits for it no longer than `time`.
pub(crate) async fn read(
    request: Request<Incoming>,
    limit: usize,
    time: Duration,
) -> Result<Bytes, BodyError> {
    let body = Limited::new(request.into_body(), limit).collect();
    match tokio::time::timeout(time, body).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(BodyError::TooLarge),
        Ok(Err(_)) => Err(BodyError::EndedEarly),
        Err(_) => Err(BodyError::Slow),
    }
}
