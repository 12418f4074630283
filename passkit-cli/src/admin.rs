//! The endpoint through which another program publishes changes of passes.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    pin::Pin,
    str::FromStr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{
    HeaderValue, Method, Request, Response, StatusCode,
    header::{ALLOW, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Incoming;
use passkit_server::{
    Changed, PassId,
    identifiers::{SerialNumber, TypeIdentifier},
    push::Publisher,
    service::ResponseBody,
    store::StoreError,
};
use serde::Deserialize;
use serde_json::json;
use subtle::ConstantTimeEq as _;

use crate::failure::{Chain, Failure};

pub(crate) const PATH: &str = "/admin/v1/publish";
const BODY_LIMIT: usize = 1024 * 1024;
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a request with a wrong token waits for its answer.
const WRONG_TOKEN_PAUSE: Duration = Duration::from_secs(1);
/// How many passes a request may have.
const PASSES_LIMIT: usize = 10_000;

/// The admin token, which `Authorization: Bearer` must have. `Debug` does not show it.
#[derive(Clone)]
pub(crate) struct AdminToken(Arc<str>);

/// Parsing never fails, because the error would show the token.
impl FromStr for AdminToken {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.into()))
    }
}

impl AdminToken {
    pub(crate) fn check(&self) -> Result<(), Failure> {
        if self.0.len() >= 16 && self.0.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Ok(());
        }
        Err(Failure::new(
            "--admin-token must be at least 16 printable ASCII characters without spaces",
        ))
    }
}

impl std::fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AdminToken(redacted)")
    }
}

pub(crate) type Answering =
    Pin<Box<dyn Future<Output = Result<Response<ResponseBody>, Infallible>> + Send>>;

#[derive(Clone)]
pub(crate) struct Admin {
    pub(crate) token: AdminToken,
    pub(crate) publisher: Arc<Publisher>,
    pub(crate) wrong_tokens: Arc<WrongTokens>,
}

/// Counts requests with a wrong admin token. Logs the count at most once a minute.
#[derive(Debug, Default)]
pub(crate) struct WrongTokens(Mutex<(u64, Option<Instant>)>);

impl WrongTokens {
    fn record(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (count, logged) = &mut *state;
        *count += 1;
        if logged.is_none_or(|logged| logged.elapsed() >= Duration::from_secs(60)) {
            tracing::warn!(count, "requests with a wrong token for {PATH}");
            (*count, *logged) = (0, Some(Instant::now()));
        }
    }
}

/// The result of a request.
#[derive(Default)]
struct Done {
    /// How many changes have pending pushes now.
    pending: usize,
    /// Whether the pushes wait for an instance with a certificate.
    waits: bool,
    /// Whether no instance will send the pushes of some passes.
    unpushed: bool,
}

/// The body of a request. It says which passes changed.
#[derive(Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum Body {
    Passes { passes: Vec<One> },
    All { r#type: String, all: bool },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct One {
    r#type: String,
    serial: String,
}

enum Refusal {
    Unauthorized,
    Method,
    Malformed(String),
    Slow,
    TooLarge,
    Store(StoreError),
}

impl From<passkit_server::identifiers::InvalidIdentifier> for Refusal {
    fn from(error: passkit_server::identifiers::InvalidIdentifier) -> Self {
        Self::Malformed(error.to_string())
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Admin {
    pub(crate) fn answer(self, request: Request<Incoming>) -> Answering {
        Box::pin(async move {
            Ok(match self.publish(request).await {
                Ok(done) => answer(StatusCode::ACCEPTED, &done.to_json()),
                Err(refusal) => refusal.into_response(),
            })
        })
    }

    async fn publish(&self, request: Request<Incoming>) -> Result<Done, Refusal> {
        if !self.is_authorized(&request) {
            self.wrong_tokens.record();
            // A pause slows down anyone who tries out tokens.
            tokio::time::sleep(WRONG_TOKEN_PAUSE).await;
            return Err(Refusal::Unauthorized);
        }
        if request.method() != Method::POST {
            return Err(Refusal::Method);
        }
        let body = Limited::new(request.into_body(), BODY_LIMIT).collect();
        let body = match tokio::time::timeout(BODY_TIMEOUT, body).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(error)) if error.is::<LengthLimitError>() => return Err(Refusal::TooLarge),
            Ok(Err(_)) => return Err(Refusal::Malformed("the body ended early".into())),
            Err(_) => return Err(Refusal::Slow),
        };
        let body = serde_json::from_slice(&body).map_err(|_| {
            Refusal::Malformed(
                r#"write {"passes":[{"type":"pass.…","serial":"…"}]} or {"type":"pass.…","all":true}"#.into(),
            )
        })?;
        let mut done = Done::default();
        match body {
            Body::All { all: false, .. } => {
                return Err(Refusal::Malformed(
                    r#""all" must be true; otherwise name the passes"#.into(),
                ));
            }
            Body::All { r#type, .. } => {
                let type_id = TypeIdentifier::new(&r#type)?;
                self.publish_type(&type_id, Changed::All, &mut done).await?;
            }
            Body::Passes { passes } if passes.len() > PASSES_LIMIT => {
                return Err(Refusal::TooLarge);
            }
            Body::Passes { passes } => {
                let mut types: BTreeMap<TypeIdentifier, BTreeSet<SerialNumber>> = BTreeMap::new();
                for One { r#type, serial } in &passes {
                    let PassId { type_id, serial } = PassId::new(r#type, serial)?;
                    types.entry(type_id).or_default().insert(serial);
                }
                for (type_id, serials) in types {
                    let serials: Vec<_> = serials.into_iter().collect();
                    self.publish_type(&type_id, Changed::Passes(&serials), &mut done)
                        .await?;
                }
            }
        }
        Ok(done)
    }

    async fn publish_type(
        &self,
        type_id: &TypeIdentifier,
        changed: Changed<'_>,
        done: &mut Done,
    ) -> Result<(), StoreError> {
        self.publisher.publish(type_id, changed).await?;
        if !self.publisher.records(type_id) {
            done.unpushed = true;
            return Ok(());
        }
        done.waits |= !self.publisher.sends(type_id);
        done.pending += if let Changed::Passes(serials) = changed {
            serials.len()
        } else {
            1
        };
        Ok(())
    }

    fn is_authorized(&self, request: &Request<Incoming>) -> bool {
        let shown = request
            .headers()
            .get(AUTHORIZATION)
            .map_or(&b""[..], HeaderValue::as_bytes);
        let Some((scheme, token)) = shown.split_at_checked(7) else {
            return false;
        };
        scheme.eq_ignore_ascii_case(b"Bearer ") && bool::from(token.ct_eq(self.token.0.as_bytes()))
    }
}

impl Done {
    fn to_json(&self) -> serde_json::Value {
        let pending = self.pending;
        let note = match self {
            Self { unpushed: true, .. } => {
                "this instance has no certificate for some of the passes: they are marked, and no push is sent"
            }
            Self { waits: true, .. } => {
                "this instance has no certificate for some of the passes: pushes wait for an instance that has one"
            }
            _ => return json!({ "pending": pending }),
        };
        json!({ "pending": pending, "note": note })
    }
}

impl Refusal {
    fn into_response(self) -> Response<ResponseBody> {
        let (status, text, header) = match self {
            Self::Unauthorized => (
                StatusCode::UNAUTHORIZED,
                "send the token: Authorization: Bearer …".to_owned(),
                Some((WWW_AUTHENTICATE, "Bearer")),
            ),
            Self::Method => (
                StatusCode::METHOD_NOT_ALLOWED,
                "only POST is allowed".to_owned(),
                Some((ALLOW, "POST")),
            ),
            Self::Malformed(text) => (StatusCode::BAD_REQUEST, text, None),
            Self::Slow => (
                StatusCode::REQUEST_TIMEOUT,
                "the body did not arrive in 10 s".to_owned(),
                None,
            ),
            Self::TooLarge => (
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("a request may have at most {PASSES_LIMIT} passes and 1 MiB"),
                None,
            ),
            Self::Store(error) => {
                tracing::error!("can't mark passes for /admin/v1/publish: {}", Chain(&error));
                let text =
                    "the store is unavailable; some passes may be marked; send the request again later"
                        .to_owned();
                (
                    StatusCode::SERVICE_UNAVAILABLE,
                    text,
                    Some((RETRY_AFTER, "30")),
                )
            }
        };
        let mut answer = answer(status, &json!({ "error": text }));
        if let Some((name, value)) = header {
            answer
                .headers_mut()
                .insert(name, HeaderValue::from_static(value));
        }
        answer
    }
}

fn answer(status: StatusCode, json: &serde_json::Value) -> Response<ResponseBody> {
    let text = format!("{json}\n");
    let length = HeaderValue::from(text.len());
    let mut answer = Response::new(ResponseBody::from(Bytes::from(text)));
    *answer.status_mut() = status;
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer.headers_mut().insert(CONTENT_LENGTH, length);
    answer
}
