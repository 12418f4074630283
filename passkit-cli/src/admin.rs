//! The endpoints for other programs. They publish changes of passes, make passes, and take archives.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    pin::Pin,
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderValue, Request, Response, StatusCode,
    header::{ALLOW, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
};
use hyper::body::Incoming;
use passkit_archive::{Findings, MAX_ARCHIVE_BYTES};
use passkit_server::{
    Changed, PassId,
    identifiers::{SerialNumber, TypeIdentifier},
    push::Publisher,
    service::ResponseBody,
    store::StoreError,
    text::OneLine,
};
use serde::Deserialize;
use serde_json::json;
use subtle::ConstantTimeEq as _;

use crate::{
    admin_archives::{Archives, NotTaken},
    admin_passes::{Making, NoPass},
    failure::{Chain, Failure},
    log_lines::OnceAMinute,
    making::{Change, MAX_ROW_BYTES, Refused},
    request_body::{self, BodyError},
};

/// The path of the endpoint for publishing.
pub(crate) const PATH: &str = "/admin/v1/publish";
const PASSES: &str = "/admin/v1/passes";
const ARCHIVES: &str = "/admin/v1/archives";
const BODY_LIMIT: usize = 1024 * 1024;
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
const ARCHIVE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a request with a wrong token waits for its answer.
const WRONG_TOKEN_PAUSE: Duration = Duration::from_secs(1);
/// How many passes a request may have.
const PASSES_LIMIT: usize = 10_000;

/// An endpoint of this module.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Endpoint {
    Publish,
    Passes,
    Archives,
}

impl Endpoint {
    const ALL: [(&'static str, Self); 3] = [
        (PATH, Self::Publish),
        (PASSES, Self::Passes),
        (ARCHIVES, Self::Archives),
    ];

    fn of(path: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find_map(|(own, endpoint)| (own == path).then_some(endpoint))
    }

    fn method(self) -> &'static str {
        match self {
            Self::Publish | Self::Passes => "POST",
            Self::Archives => "PUT",
        }
    }
}

/// Returns whether requests for this path are answered here.
pub(crate) fn is_path(path: &str) -> bool {
    Endpoint::of(path).is_some()
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
    /// `None` if this instance runs without --archives-in-store.
    pub(crate) archives: Option<Arc<Archives>>,
    pub(crate) wrong_tokens: Arc<OnceAMinute>,
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
    NotFound,
    /// The endpoint has only this method.
    Method(&'static str),
    Malformed(String),
    /// The body did not arrive in time.
    Slow(Duration),
    TooLarge(String),
    Store(StoreError),
    NoMaker,
    NoPass(NoPass),
    NoArchives,
    NotTaken(NotTaken),
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
            self.wrong_tokens
                .log(|count| tracing::warn!(count, "requests with a wrong admin token"));
            // A pause slows down anyone who tries out tokens.
            tokio::time::sleep(WRONG_TOKEN_PAUSE).await;
            return Err(Refusal::Unauthorized);
        }
        let endpoint = Endpoint::of(request.uri().path()).ok_or(Refusal::NotFound)?;
        if request.method().as_str() != endpoint.method() {
            return Err(Refusal::Method(endpoint.method()));
        }
        match endpoint {
            Endpoint::Publish => {}
            Endpoint::Passes => return self.make(request).await,
            Endpoint::Archives => return self.take(request).await,
        }
        let body = read_body(request, BODY_LIMIT, BODY_TIMEOUT, &too_many()).await?;
        let done = self.publish(&body).await?;
        Ok(answer(StatusCode::ACCEPTED, &done.to_json()))
    }

    /// Makes a pass and returns it.
    async fn make(&self, request: Request<Incoming>) -> Result<Response<ResponseBody>, Refusal> {
        let making = self.making.as_ref().ok_or(Refusal::NoMaker)?;
        let too_large = "a row may have at most 256 KiB";
        let row = read_body(request, MAX_ROW_BYTES, BODY_TIMEOUT, too_large).await?;
        let made = making.make(row).await.map_err(Refusal::NoPass)?;
        let status = if made.change == Some(Change::New) {
            StatusCode::CREATED
        } else {
            StatusCode::OK
        };
        let archive = made.archive.clone();
        Ok(answer_with(status, making.kind().media_type(), archive))
    }

    /// Takes an archive for all instances.
    async fn take(&self, request: Request<Incoming>) -> Result<Response<ResponseBody>, Refusal> {
        let archives = self.archives.as_ref().ok_or(Refusal::NoArchives)?;
        let _turn = archives.turn().await.map_err(Refusal::NotTaken)?;
        let too_large = "an archive may have at most 15 MiB";
        let limit = MAX_ARCHIVE_BYTES;
        let archive = read_body(request, limit, ARCHIVE_TIMEOUT, too_large).await?;
        let taken = archives.take(archive).await.map_err(Refusal::NotTaken)?;
        let status = if taken.is_new {
            StatusCode::CREATED
        } else {
            StatusCode::OK
        };
        let json = json!({
            "type": taken.pass.type_id.as_str(),
            "serial": taken.pass.serial.as_str(),
            "changed": taken.is_changed,
            "findings": findings(&taken.findings),
        });
        Ok(answer(status, &json))
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
            Self::NotFound => (
                StatusCode::NOT_FOUND,
                "there is no such call".to_owned(),
                None,
            ),
            Self::Method(method) => (
                StatusCode::METHOD_NOT_ALLOWED,
                format!("only {method} is allowed"),
                Some((ALLOW, method)),
            ),
            Self::Malformed(text) => (StatusCode::BAD_REQUEST, text, None),
            Self::Slow(limit) => (
                StatusCode::REQUEST_TIMEOUT,
                format!("the body did not arrive in {} s", limit.as_secs()),
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
            Self::NoArchives => (
                StatusCode::NOT_FOUND,
                "this instance takes no archives; start passkit serve with --archives-in-store"
                    .to_owned(),
                None,
            ),
            Self::NotTaken(reason) => return not_taken(reason),
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
        NoPass::Refused(Refused::OnlyTable) => {
            let text = "void-missing is set, so a pass without a row in the table would be voided; add a row to the table";
            answer(StatusCode::CONFLICT, &json!({ "error": text }))
        }
        NoPass::Refused(Refused::Busy) => later(
            "another run writes to the folder, or the passes of the table are being made; send the request again later",
        ),
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

/// Says why an archive was not taken.
fn not_taken(reason: NotTaken) -> Response<ResponseBody> {
    let (status, text, retry_after) = match reason {
        NotTaken::Refused(refused) => {
            let text = "phones would refuse the archive";
            let json = json!({ "error": text, "findings": findings(&refused) });
            return answer(StatusCode::UNPROCESSABLE_ENTITY, &json);
        }
        NotTaken::InFolder(pass) => (
            StatusCode::CONFLICT,
            format!("{pass} is in a folder of this instance; change its file, or remove it first"),
            None,
        ),
        NotTaken::LeavingFolder(pass) => (
            StatusCode::CONFLICT,
            format!(
                "the file of {pass} was removed, but the store does not know that yet; send the request again later"
            ),
            None,
        ),
        NotTaken::Busy => (
            StatusCode::SERVICE_UNAVAILABLE,
            "too many archives are being checked; send the request again later".to_owned(),
            Some("10"),
        ),
        NotTaken::Store(error) => {
            tracing::error!("can't take an archive for {ARCHIVES}: {}", Chain(&error));
            let text = "the store is unavailable; send the request again later".to_owned();
            (StatusCode::SERVICE_UNAVAILABLE, text, Some("30"))
        }
        NotTaken::Failed(failure) => {
            tracing::error!("can't take an archive for {ARCHIVES}: {failure}");
            let text = "the archive can't be taken; the log has the reason".to_owned();
            (StatusCode::SERVICE_UNAVAILABLE, text, Some("30"))
        }
    };
    let mut answer = answer(status, &json!({ "error": text }));
    if let Some(seconds) = retry_after {
        let seconds = HeaderValue::from_static(seconds);
        answer.headers_mut().insert(RETRY_AFTER, seconds);
    }
    answer
}

/// The most findings in an answer.
const FINDINGS: usize = 50;

fn findings(findings: &Findings) -> serde_json::Value {
    let shown = findings.iter().take(FINDINGS).map(|finding| {
        json!({
            "code": finding.rule().code,
            "level": finding.level().as_str(),
            "message": OneLine::of(&finding.to_string()).to_string(),
        })
    });
    shown.collect()
}

fn too_many() -> String {
    format!("a request may have at most {PASSES_LIMIT} passes and 1 MiB")
}

/// Reads the body. Refuses with `too_large` if it has more bytes than the limit.
async fn read_body(
    request: Request<Incoming>,
    limit: usize,
    time: Duration,
    too_large: &str,
) -> Result<Bytes, Refusal> {
    let body = request_body::read(request, limit, time).await;
    body.map_err(|error| match error {
        BodyError::TooLarge => Refusal::TooLarge(too_large.to_owned()),
        BodyError::EndedEarly => Refusal::Malformed("the body ended early".into()),
        BodyError::Slow => Refusal::Slow(time),
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

/// Fails unless `docs/openapi.yaml` has these paths.
#[cfg(test)]
pub(crate) fn assert_documented<const N: usize>(paths: [&str; N]) {
    let document = include_str!("../../docs/openapi.yaml");
    for path in paths {
        assert!(document.contains(&format!("\n  {path}:\n")), "{path}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_endpoint_is_documented() {
        assert_documented(Endpoint::ALL.map(|(path, _)| path));
    }
}
