//! Types for what a [`Client`](crate::Client) sends and receives, in addition to the types of
//! `http`.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode, response::Parts};
use http_body_util::BodyExt as _;

/// A marker in the extensions of a request. With it, the header names of the request are sent
/// `With-Capitals` over the network, not in lower case.
#[derive(Clone, Copy)]
pub(crate) struct WithCapitals;

/// A complete answer.
#[derive(Clone, Debug)]
pub(crate) struct Response {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// Why there is no complete answer. The text gives the reason in one line.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum SendError {
    /// No connection could be made, so nothing was sent.
    #[error("{0}")]
    Unreachable(String),
    /// The service hung up, or its answer was malformed or too long.
    #[error("{0}")]
    NoAnswer(String),
    /// The answer was not complete in time.
    #[error("{0}")]
    TooSlow(String),
}

/// Reads the body of an answer. Fails if it is longer than `limit` bytes.
pub(crate) async fn read<B>(head: Parts, body: B, limit: usize) -> Result<Response, SendError>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut body = std::pin::pin!(body);
    // The body is copied, because small chunks take much more memory than their length.
    let mut read = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            SendError::NoAnswer(format!("the answer broke off: {}", error.into()))
        })?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if data.len() > limit - read.len() {
            let long = format!("the answer is longer than {limit} bytes");
            return Err(SendError::NoAnswer(long));
        }
        read.extend_from_slice(&data);
    }
    Ok(Response {
        status: head.status,
        headers: head.headers,
        body: read.freeze(),
    })
}
