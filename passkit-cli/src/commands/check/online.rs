//! `check --online`: asks the web service of a pass as a phone would.
//!
//! The device identifier and the token of the requests are random. The token of the pass is never
//! sent, and nothing is registered.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Uri, header};
use http_body_util::Full;
use passkit_archive::{Finding, Rule, rules};
use passkit_conformance::{
    Limits,
    load::{Answer, Connection, ListAnswer, NoAnswer, ServiceUrl},
};
use passkit_server::{PassId, identifiers::DeviceIdentifier, text::OneLine};

/// The time limit for finding the host, and for each answer.
const TIME: Duration = Duration::from_secs(10);

/// The longest answer that is read, in bytes.
const ANSWER_BYTES: usize = 1 << 20;

/// The web service of a pass.
pub(super) struct Service<'a> {
    url: &'a str,
    pass: &'a PassId,
}

type Problem = (&'static Rule, String);

impl<'a> Service<'a> {
    pub(super) fn of(url: &'a str, pass: &'a PassId) -> Self {
        Self { url, pass }
    }

    /// Asks for the list of a device that does not exist, and for the pass with a wrong token.
    pub(super) async fn check(&self) -> Vec<Finding> {
        let mut found = Vec::new();
        if let Err(problem) = self.ask(&mut found).await {
            found.push(problem);
        }
        let findings = found.into_iter();
        findings
            .map(|(rule, message)| Finding::of_service(rule, message))
            .collect()
    }

    async fn ask(&self, found: &mut Vec<Problem>) -> Result<(), Problem> {
        let unreachable = |reason: String| (&rules::ONLINE_UNREACHABLE, reason);
        let url = ServiceUrl::new(self.url).map_err(|reason| {
            unreachable(format!("its web service can't be asked: the URL {reason}"))
        })?;
        let addresses = addresses(&url).await.map_err(unreachable)?;
        let mut limits = Limits::default();
        limits.time = TIME;
        limits.response_bytes = ANSWER_BYTES;
        let mut connection = Connection::new(&url, addresses, limits).map_err(|reason| {
            unreachable(format!("its web service can't be asked: the URL {reason}"))
        })?;
        let random = random().map_err(unreachable)?;
        let device = DeviceIdentifier::new(&random)
            .map_err(|error| unreachable(format!("no device identifier could be made: {error}")))?;

        let type_id = &self.pass.type_id;
        let request = Request::get(url.list(&device, type_id, None));
        let answer = send(&mut connection, request, "the list of changed passes").await?;
        let is_list = || ListAnswer::read(type_id.kind(), &answer.body).is_some();
        let what = match answer.status.as_u16() {
            204 => None,
            200 if is_list() => None,
            200 => Some("200 but without a list".to_owned()),
            status => Some(status.to_string()),
        };
        if let Some(what) = what {
            found.push((
                &rules::ONLINE_LIST,
                format!("its web service answers the list of changed passes with {what}; answer 200 or 204"),
            ));
        }

        let scheme = type_id.kind().auth_scheme();
        let request = Request::get(url.pass(self.pass))
            .header(header::AUTHORIZATION, format!("{scheme} {random}"));
        let answer = send(&mut connection, request, "a wrong token").await?;
        if answer.status.as_u16() != 401 {
            let status = answer.status.as_u16();
            found.push((
                &rules::ONLINE_TOKEN,
                format!("its web service answers a wrong token with {status}; answer 401"),
            ));
        }
        Ok(())
    }
}

/// Returns 32 random digits.
fn random() -> Result<String, String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| format!("no random numbers: {error}"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Finds the addresses of the host.
async fn addresses(url: &ServiceUrl) -> Result<Arc<[SocketAddr]>, String> {
    let uri: Uri = url
        .as_str()
        .parse()
        .map_err(|_| "its web service can't be asked: the URL is not a url")?;
    let host = uri.host().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let is_https = uri.scheme_str() == Some("https");
    let port = uri.port_u16().unwrap_or(if is_https { 443 } else { 80 });
    let found = tokio::time::timeout(TIME, tokio::net::lookup_host((host, port))).await;
    let reason = match found {
        Ok(Ok(addresses)) => {
            let addresses: Arc<[SocketAddr]> = addresses.collect();
            if !addresses.is_empty() {
                return Ok(addresses);
            }
            "it has no address".to_owned()
        }
        Ok(Err(error)) => error.to_string(),
        Err(_) => "no answer in time".to_owned(),
    };
    let host = OneLine::of(host);
    Err(format!(
        "its web service can't be reached: the host {host} is not found: {reason}"
    ))
}

/// Sends a request. A redirect is a problem, because phones would send their token to another
/// address.
async fn send(
    connection: &mut Connection,
    request: http::request::Builder,
    what: &str,
) -> Result<Answer, Problem> {
    let unreachable = |reason: String| {
        let message = format!("its web service does not answer {what}: {reason}");
        (&rules::ONLINE_UNREACHABLE, message)
    };
    let request = request
        .body(Full::<Bytes>::default())
        .map_err(|error| unreachable(error.to_string()))?;
    let answer = connection
        .send(request)
        .await
        .map_err(|error| match error {
            NoAnswer::Untrusted(reason) => (
                &rules::ONLINE_CERTIFICATE,
                format!("its web service has a TLS certificate that is not trusted: {reason}"),
            ),
            other => unreachable(other.to_string()),
        })?;
    if answer.status.is_redirection() && answer.status.as_u16() != 304 {
        let status = answer.status.as_u16();
        let place = answer.headers.get(header::LOCATION);
        let place = place.map_or_else(String::new, |place| {
            format!(
                " to {}",
                OneLine::of(&String::from_utf8_lossy(place.as_bytes()))
            )
        });
        return Err((
            &rules::ONLINE_REDIRECT,
            format!(
                "its web service answers {what} with a redirect ({status}){place}; use the target of the redirect as webServiceURL"
            ),
        ));
    }
    Ok(answer)
}
