//! All error responses, in one place.

use http::{
    HeaderValue, Response, StatusCode,
    header::{ALLOW, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
};

use crate::{
    PassId, SourceError, body::ResponseBody, identifiers::Kind, response, route::MalformedEscape,
    store::StoreError, text::Chain,
};

/// Seconds after which a device may try again if the store or the source is unavailable.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("30");

pub(crate) enum Refusal {
    /// The request is malformed. The text gives the reason and repeats nothing of the request.
    Malformed(String),
    /// The request has no valid token of the pass, or there is no such pass.
    Unauthorized(Kind),
    NotFound,
    /// The endpoint does not have the method. The text lists its methods.
    Method(&'static str),
    /// The body did not arrive in time.
    Slow,
    TooLarge,
    /// All bodies in flight together take too much memory.
    TooManyBodies,
    /// The pass has as many devices as are allowed.
    TooManyDevices,
    Store(StoreError),
    Source(SourceError),
    /// The store knows the pass, but the source does not.
    Behind(PassId),
}

impl From<MalformedEscape> for Refusal {
    fn from(_: MalformedEscape) -> Self {
        Self::Malformed("the path has a malformed escape, or is not UTF-8".into())
    }
}

impl From<crate::identifiers::InvalidIdentifier> for Refusal {
    fn from(error: crate::identifiers::InvalidIdentifier) -> Self {
        Self::Malformed(error.to_string())
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Refusal {
    /// Makes the response. Details of our own faults go only to the log.
    pub(crate) fn into_response(self) -> Response<ResponseBody> {
        match self {
            Self::Malformed(reason) => {
                let mut answer = response::with_body(StatusCode::BAD_REQUEST, reason.into());
                answer.headers_mut().insert(
                    CONTENT_TYPE,
                    HeaderValue::from_static("text/plain; charset=utf-8"),
                );
                answer
            }
            Self::Unauthorized(kind) => {
                let mut answer = response::empty(StatusCode::UNAUTHORIZED);
                answer.headers_mut().insert(
                    WWW_AUTHENTICATE,
                    HeaderValue::from_static(kind.auth_scheme()),
                );
                answer
            }
            Self::NotFound => response::empty(StatusCode::NOT_FOUND),
            Self::Method(allowed) => {
                let mut answer = response::empty(StatusCode::METHOD_NOT_ALLOWED);
                answer
                    .headers_mut()
                    .insert(ALLOW, HeaderValue::from_static(allowed));
                answer
            }
            Self::Slow => response::empty(StatusCode::REQUEST_TIMEOUT),
            Self::TooLarge => response::empty(StatusCode::PAYLOAD_TOO_LARGE),
            Self::TooManyBodies | Self::TooManyDevices => unavailable(),
            Self::Store(error) => {
                let transient = error.is_transient();
                tracing::error!(transient, "{}", Chain(&error));
                if transient {
                    unavailable()
                } else {
                    response::empty(StatusCode::INTERNAL_SERVER_ERROR)
                }
            }
            Self::Source(error) => {
                tracing::error!("the pass source failed: {}", Chain(&*error));
                unavailable()
            }
            Self::Behind(pass) => {
                tracing::warn!(
                    "{pass}: another instance has published this pass, and this instance does not have it yet"
                );
                unavailable()
            }
        }
    }
}

fn unavailable() -> Response<ResponseBody> {
    let mut answer = response::empty(StatusCode::SERVICE_UNAVAILABLE);
    answer
        .headers_mut()
        .insert(RETRY_AFTER, RETRY_AFTER_SECONDS);
    answer
}
