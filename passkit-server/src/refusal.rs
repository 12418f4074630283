//! Every answer that is not what the device hoped for, in one place.

use std::error::Error;

use http::{
    HeaderValue, Response, StatusCode,
    header::{ALLOW, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
};

use crate::{
    PassId, SourceError, body::ResponseBody, identifiers::Kind, response, route::MalformedEscape,
    store::StoreError,
};

/// Seconds after which a device may try again when the store or the source is unavailable.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("30");

pub(crate) enum Refusal {
    /// The request is malformed; the text says how, and repeats nothing of it.
    Malformed(String),
    /// No token of the pass was shown, or there is no such pass.
    Unauthorized(Kind),
    NotFound,
    /// The endpoint has other methods: these.
    Method(&'static str),
    /// The body did not arrive in time.
    Slow,
    TooLarge,
    Store(StoreError),
    Source(SourceError),
    /// The store knows the pass and the source does not.
    Behind(PassId),
}

impl From<MalformedEscape> for Refusal {
    fn from(_: MalformedEscape) -> Self {
        Self::Malformed("the path has an escape that is malformed or no UTF-8".into())
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
    /// What the client is told. The details of a fault of ours go to the log and nowhere else.
    pub(crate) fn into_response(self) -> Response<ResponseBody> {
        match self {
            Self::Malformed(reason) => {
                let mut answer = response::with_body(StatusCode::BAD_REQUEST, reason.into());
                answer
                    .headers_mut()
                    .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
                answer
            }
            Self::Unauthorized(kind) => {
                let mut answer = response::empty(StatusCode::UNAUTHORIZED);
                answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static(kind.auth_scheme()));
                answer
            }
            Self::NotFound => response::empty(StatusCode::NOT_FOUND),
            Self::Method(allowed) => {
                let mut answer = response::empty(StatusCode::METHOD_NOT_ALLOWED);
                answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
                answer
            }
            Self::Slow => response::empty(StatusCode::REQUEST_TIMEOUT),
            Self::TooLarge => response::empty(StatusCode::PAYLOAD_TOO_LARGE),
            Self::Store(error) => {
                let transient = error.is_transient();
                tracing::error!(transient, "{}", chain(&error));
                if transient { unavailable() } else { response::empty(StatusCode::INTERNAL_SERVER_ERROR) }
            }
            Self::Source(error) => {
                tracing::error!("the pass source failed: {}", chain(&*error));
                unavailable()
            }
            Self::Behind(pass) => {
                tracing::warn!(
                    "{pass}: another instance has published it, and this one has no such pass yet"
                );
                unavailable()
            }
        }
    }
}

fn unavailable() -> Response<ResponseBody> {
    let mut answer = response::empty(StatusCode::SERVICE_UNAVAILABLE);
    answer.headers_mut().insert(RETRY_AFTER, RETRY_AFTER_SECONDS);
    answer
}

/// An error and its sources on one line. Some errors of drivers have the text of their source, which is shown once.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let text = source.to_string();
        if !line.ends_with(&text) {
            line = format!("{line}: {text}");
        }
        next = source.source();
    }
    line
}
