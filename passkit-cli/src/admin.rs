//! The endpoints for other programs. They publish changes of passes, and make passes.

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

use crate::{
    admin_passes::{Making, NoPass},
    failure::{Chain, Failure},
    making::Refused,
    request_body::{self, BodyError},
};

pub(crate) const PATH: &str = "/admin/v1/publish";
const PASSES: &str = "/admin/v1/passes";
const BODY_LIMIT: usize = 1024 * 1024;
/// The longest row in bytes, as in a table.
const ROW_LIMIT: usize = 256 * 1024;
/// How long a request with a wrong token waits for its answer.
const WRONG_TOKEN_PAUSE: Duration = Duration::from_secs(1);
/// How many passes a request may have.
const PASSES_LIMIT: usize = 10_000;

/// Returns whether requests for this path are answered here.
pub(crate) fn is_path(path: &str) -> bool {
    path == PATH || path == PASSES
}

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

    /// Compares in constant time.
    pub(crate) fn is(&self, shown: &[u8]) -> bool {
        shown.ct_eq(self.0.as_bytes()).into()
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
    /// `None` if this instance makes no passes.
    pub(crate) making: Option<Making>,
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
            tracing::warn!(count, "requests with a wrong admin token");
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
    TooLarge(String),
    Store(StoreError),
    NoMaker,
    NoPass(NoPass),
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
            let answered = self.try_answer(request).await;
            Ok(answered.unwrap_or_else(Refusal::into_response))
        })
    }

    async fn try_answer(
        &self,
        request: Request<Incoming>,
    ) -> Result<Response<ResponseBody>, Refusal> {
        if !self.is_authorized(&request) {
            self.wrong_tokens.record();
            // A pause slows down anyone who tries out tokens.
            tokio::time::sleep(WRONG_TOKEN_PAUSE).await;
            return Err(Refusal::Unauthorized);
        }
        if request.method() != Method::POST {
            return Err(Refusal::Method);
        }
        if request.uri().path() == PASSES {
            return self.make(request).await;
        }
        let body = read_body(request, BODY_LIMIT, &too_many()).await?;
        let done = self.publish(&body).await?;
        Ok(answer(StatusCode::ACCEPTED, &done.to_json()))
    }

    /// Makes a pass and returns it.
    async fn make(&self, request: Request<Incoming>) -> Result<Response<ResponseBody>, Refusal> {
        let making = self.making.as_ref().ok_or(Refusal::NoMaker)?;
        let row = read_body(request, ROW_LIMIT, "a row may have at most 256 KiB").await?;
        let made = making.make(row).await.map_err(Refusal::NoPass)?;
        let status = if made.is_new {
            StatusCode::CREATED
        } else {
            StatusCode::OK
        };
        let archive = Bytes::copy_from_slice(&made.archive);
        Ok(answer_with(status, making.kind().media_type(), archive))
    }

    async fn publish(&self, body: &[u8]) -> Result<Done, Refusal> {
        let body = serde_json::from_slice(body).map_err(|_| {
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
                return Err(Refusal::TooLarge(too_many()));
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
        scheme.eq_ignore_ascii_case(b"Bearer ") && self.token.is(token)
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
            Self::TooLarge(text) => (StatusCode::PAYLOAD_TOO_LARGE, text, None),
            Self::NoMaker => (
                StatusCode::NOT_FOUND,
                "this instance makes no passes; start passkit serve with --make FILE.toml"
                    .to_owned(),
                None,
            ),
            Self::NoPass(reason) => return without_pass(reason),
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

/// Says why no pass was made. If a column is the reason, names it.
fn without_pass(reason: NoPass) -> Response<ResponseBody> {
    let later = |text: &str| {
        let mut answer = answer(StatusCode::SERVICE_UNAVAILABLE, &json!({ "error": text }));
        let seconds = HeaderValue::from_static("10");
        answer.headers_mut().insert(RETRY_AFTER, seconds);
        answer
    };
    match reason {
        NoPass::Refused(Refused::NoRow(problem)) => {
            let text = format!("the body {problem}");
            answer(StatusCode::BAD_REQUEST, &json!({ "error": text }))
        }
        NoPass::Refused(Refused::Row(error)) => {
            let mut json = json!({ "error": format!("the row: {error}") });
            if let Some(column) = error.column() {
                json["column"] = column.into();
            }
            answer(StatusCode::UNPROCESSABLE_ENTITY, &json)
        }
        NoPass::Refused(Refused::Busy) => {
            later("another program makes passes in the folder; send the request again later")
        }
        NoPass::Late => later(
            "the pass is made, but phones can't get it yet; the log has the reason; send the request again later",
        ),
        NoPass::Refused(Refused::Failed(failure)) => {
            tracing::error!("no pass was made for {PASSES}: {failure}");
            let text = "the pass can't be made; the log has the reason";
            answer(StatusCode::INTERNAL_SERVER_ERROR, &json!({ "error": text }))
        }
    }
}

fn too_many() -> String {
    format!("a request may have at most {PASSES_LIMIT} passes and 1 MiB")
}

/// Reads the body. Refuses with `too_large` if it has more bytes than the limit.
async fn read_body(
    request: Request<Incoming>,
    limit: usize,
    too_large: &str,
) -> Result<Bytes, Refusal> {
    let body = request_body::read(request, limit).await;
    body.map_err(|error| match error {
        BodyError::TooLarge => Refusal::TooLarge(too_large.to_owned()),
        BodyError::EndedEarly => Refusal::Malformed("the body ended early".into()),
        BodyError::Slow => Refusal::Slow,
    })
}

fn answer(status: StatusCode, json: &serde_json::Value) -> Response<ResponseBody> {
    answer_with(status, "application/json", format!("{json}\n").into())
}

fn answer_with(
    status: StatusCode,
    media_type: &'static str,
    body: Bytes,
) -> Response<ResponseBody> {
    let length = HeaderValue::from(body.len());
    let mut answer = Response::new(ResponseBody::from(body));
    *answer.status_mut() = status;
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    answer.headers_mut().insert(CONTENT_LENGTH, length);
    answer
}
