//! Types for what a [`Client`](crate::Client) sends and receives, in addition to the types of
//! `http`.

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

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
