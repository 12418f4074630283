//! All error responses, in one place.

use http::{
    HeaderValue, Response, StatusCode,
    header::{ALLOW, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
};

use crate::{
    PassId, SourceError,
    body::ResponseBody,
    delivery::Denial,
    identifiers::Kind,
    response,
    route::{MalformedEscape, Route},
    store::StoreError,
    text::Chain,
};

/// Seconds after which a device may try again if the store or the source is unavailable.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("30");

/// The part of a request that is malformed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Part {
    Path,
    Identifier,
    Body,
    PushToken,
}

/// Why a request may not use a pass. All reasons get the same answer, and only the log tells the
/// reasons apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Denied {
    /// There is no `Authorization`.
    NoAuthorization,
    /// `Authorization` has another scheme, or none.
    Scheme,
    /// `Authorization` has the scheme of a wallet that may not use the service.
    OtherWallet,
    /// The type in the path is invalid, or its kind does not match the path.
    Type,
    /// The pass is unknown.
    Unknown,
    Removed,
    WrongToken,
}

pub(crate) enum Refusal {
    /// The request is malformed. The text gives the reason and repeats nothing of the request.
    Malformed(Part, String),
    /// The request has no valid token of the pass, or there is no such pass.
    Unauthorized(Kind, Denied),
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
    /// Too many enrolments wait, or this one has waited too long.
    TooManyEnrolments,
    Store(StoreError),
    Source(SourceError),
    /// The store knows the pass, but the source does not.
    Behind(PassId),
}

impl From<MalformedEscape> for Refusal {
    fn from(_: MalformedEscape) -> Self {
        let problem = "the path has a malformed escape, or is not UTF-8";
        Self::Malformed(Part::Path, problem.into())
    }
}

impl From<crate::identifiers::InvalidIdentifier> for Refusal {
    fn from(error: crate::identifiers::InvalidIdentifier) -> Self {
        Self::Malformed(Part::Identifier, error.to_string())
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Denied {
    /// Returns the reason for the delivery records, if the request may be about a known pass.
    pub(crate) fn as_denial(self) -> Option<Denial> {
        match self {
            Self::NoAuthorization => Some(Denial::NoAuthorization),
            Self::Scheme | Self::OtherWallet => Some(Denial::Scheme),
            Self::Removed => Some(Denial::Removed),
            Self::WrongToken => Some(Denial::WrongToken),
            Self::Type | Self::Unknown => None,
        }
    }

    fn reason(self) -> &'static str {
        match self {
            Self::NoAuthorization => "no Authorization; a proxy may have removed it",
            Self::Scheme => "Authorization has a scheme that phones do not use, or no token",
            Self::OtherWallet => {
                "Authorization belongs to another wallet, and other wallets are off"
            }
            Self::Type => "no such type of passes or orders",
            Self::Unknown => "unknown pass",
            Self::Removed => "the pass was removed, or has no archive yet",
            Self::WrongToken => "wrong token",
        }
    }
}

impl Refusal {
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Malformed(..) => StatusCode::BAD_REQUEST,
            Self::Unauthorized(..) => StatusCode::UNAUTHORIZED,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Method(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::Slow => StatusCode::REQUEST_TIMEOUT,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Store(error) if !error.is_transient() => StatusCode::INTERNAL_SERVER_ERROR,
            Self::TooManyBodies
            | Self::TooManyDevices
            | Self::TooManyEnrolments
            | Self::Store(_)
            | Self::Source(_)
            | Self::Behind(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// Returns the reason for the log, which is one of a few texts. Returns `None` if the service
    /// itself is at fault.
    pub(crate) fn reason(&self, path: &str) -> Option<&'static str> {
        Some(match self {
            Self::Malformed(part, _) => match part {
                Part::Path => "malformed path",
                Part::Identifier => "malformed identifier",
                Part::Body => "malformed body",
                Part::PushToken => "bad push token",
            },
            Self::Unauthorized(_, denied) => denied.reason(),
            Self::NotFound if Route::is_below_a_prefix(path) => {
                "the service is not below this path; set its prefix"
            }
            Self::NotFound => "unknown path",
            Self::Method(_) => "the endpoint does not have this method",
            Self::Slow => "the body came too slowly",
            Self::TooLarge => "the body is too large",
            Self::TooManyBodies => "all bodies in flight take too much memory",
            Self::TooManyDevices => "the pass has as many devices as are allowed",
            Self::TooManyEnrolments => "too many enrolments at once, or one of them is slow",
            Self::Store(_) | Self::Source(_) | Self::Behind(_) => return None,
        })
    }

    /// Returns more about the reason, for the end of the line in the log.
    pub(crate) fn detail(&self) -> String {
        match self {
            Self::Malformed(_, problem) => format!(": {problem}"),
            _ => String::new(),
        }
    }

    /// Makes the response. Details of our own faults go only to the log.
    pub(crate) fn into_response(self) -> Response<ResponseBody> {
        let status = self.status();
        if let Self::Malformed(_, problem) = self {
            let mut answer = response::with_body(status, problem.into());
            answer.headers_mut().insert(
                CONTENT_TYPE,
                HeaderValue::from_static("text/plain; charset=utf-8"),
            );
            return answer;
        }
        let mut answer = response::empty(status);
        let headers = answer.headers_mut();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, RETRY_AFTER_SECONDS);
        }
        match self {
            Self::Unauthorized(kind, _) => {
                let scheme = HeaderValue::from_static(kind.auth_scheme());
                headers.insert(WWW_AUTHENTICATE, scheme);
            }
            Self::Method(allowed) => {
                headers.insert(ALLOW, HeaderValue::from_static(allowed));
            }
            Self::Store(error) => {
                tracing::error!(transient = error.is_transient(), "{}", Chain(&error));
            }
            Self::Source(error) => {
                tracing::error!("the pass source failed: {}", Chain(&*error));
            }
            Self::Behind(pass) => {
                tracing::warn!(
                    "{pass}: another instance has published this pass, and this instance does not have it yet"
                );
            }
            _ => {}
        }
        answer
    }
}
