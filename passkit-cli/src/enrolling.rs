//! Rewards enrolment: another program, the receiver, stores the data of a customer, and answers with
//! the new row of the pass.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
    sync::Arc,
    time::SystemTime,
};

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::Full;
use passkit_conformance::{
    Limits,
    load::{Connection, ServiceUrl},
};
use passkit_server::{
    PassId, SourceError, async_trait,
    enrolment::{Enroller, Person, PersonalizationToken, TokenSigner},
    identifiers::TypeIdentifier,
};
use ring::hmac;
use serde_json::{Map, Value, json};

use crate::{
    admin_passes::{Making, NoPass},
    failure::Failure,
    making::Refused,
};

/// The header with the digest of the body.
const SIGNATURE: &str = "x-passkit-signature";
/// How long the receiver may take. The phone waits longer.
const TIME: std::time::Duration = std::time::Duration::from_secs(10);
/// The longest answer of the receiver, in bytes.
const ANSWER_BYTES: usize = 64 * 1024;

/// The secret that the service shares with the receiver. `Debug` does not show it.
#[derive(Clone)]
pub(crate) struct EnrollSecret(Arc<str>);

/// Parsing never fails, because the error would show the secret.
impl FromStr for EnrollSecret {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.into()))
    }
}

impl fmt::Debug for EnrollSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EnrollSecret(redacted)")
    }
}

/// Enrols customers through the receiver, and makes their passes.
pub(crate) struct Enrolling {
    url: ServiceUrl,
    key: hmac::Key,
    making: Making,
}

impl Enrolling {
    pub(crate) fn new(url: &str, secret: &EnrollSecret, making: Making) -> Result<Self, Failure> {
        let url = ServiceUrl::new(url)
            .map_err(|problem| Failure::new(format!("the URL of --enroll-url {problem}")))?;
        if secret.0.len() < 16 {
            return Err(Failure::new(
                "the secret in PASSKIT_ENROLL_SECRET must have at least 16 characters",
            ));
        }
        if !making.maker.can_enrol() {
            return Err(Failure::new(
                "--enroll-url needs a template with personalization.json, and a line such as enrolled = \"{customer}\" in \
                 its passkit.toml",
            ));
        }
        if sends_unencrypted(&url) {
            tracing::warn!(
                "--enroll-url sends personal data without encryption: use https, unless the network to the receiver is private"
            );
        }
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.0.as_bytes());
        Ok(Self { url, key, making })
    }

    /// Sends the data to the receiver. Returns the row in its answer. No error contains the data.
    async fn row(&self, pass: &PassId, person: &Person) -> Result<Bytes, SourceError> {
        let values = person.values();
        let person: Map<String, Value> = values
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        let time = SystemTime::UNIX_EPOCH.elapsed()?.as_secs();
        let (type_id, serial) = (pass.type_id.as_str(), pass.serial.as_str());
        let body = json!({ "type": type_id, "serial": serial, "time": time, "person": person });
        let body = Bytes::from(body.to_string());
        let tag = hmac::sign(&self.key, &body);
        let digits: String = tag
            .as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let request = Request::post(self.url.as_str())
            .header(header::CONTENT_TYPE, "application/json")
            .header(SIGNATURE, format!("sha256={digits}"))
            .body(Full::new(body))?;

        let mut limits = Limits::default();
        limits.time = TIME;
        limits.response_bytes = ANSWER_BYTES;
        let mut connection = Connection::new(&self.url, self.addresses().await?, limits)?;
        let answer = connection
            .send(request)
            .await
            .map_err(|error| format!("the receiver of --enroll-url does not answer: {error}"))?;
        if answer.status != StatusCode::OK {
            let status = answer.status.as_u16();
            return Err(format!(
                "the receiver of --enroll-url answered {status}; it must answer 200"
            )
            .into());
        }
        Ok(answer.body)
    }

    async fn addresses(&self) -> Result<Arc<[SocketAddr]>, SourceError> {
        let url: http::Uri = self.url.as_str().parse()?;
        let host = url.host().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let is_https = url.scheme_str() == Some("https");
        let port = url.port_u16().unwrap_or(if is_https { 443 } else { 80 });
        let found = tokio::net::lookup_host((host, port)).await;
        let found =
            found.map_err(|error| format!("the host of --enroll-url is not found: {error}"))?;
        Ok(found.collect())
    }
}

/// Returns whether the URL has http, and names another machine.
fn sends_unencrypted(url: &ServiceUrl) -> bool {
    let Ok(url) = url.as_str().parse::<http::Uri>() else {
        return true;
    };
    let host = url.host().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let is_loopback = host.eq_ignore_ascii_case("localhost")
        || host
            .parse::<IpAddr>()
            .is_ok_and(|address| address.to_canonical().is_loopback());
    url.scheme_str() != Some("https") && !is_loopback
}

#[async_trait]
impl Enroller for Enrolling {
    async fn offers(&self, pass: &PassId) -> Result<bool, SourceError> {
        let (maker, pass) = (self.making.maker.clone(), pass.clone());
        Ok(tokio::task::spawn_blocking(move || maker.offers_enrolment(&pass)).await?)
    }

    async fn enrol(&self, pass: &PassId, person: &Person) -> Result<(), SourceError> {
        let row = self.row(pass, person).await?;
        self.making
            .maker
            .check_enrolled(&row, pass)
            .map_err(refused)?;
        match self.making.make(row).await {
            Ok(_) => Ok(()),
            Err(NoPass::Refused(error)) => Err(refused(error)),
            Err(NoPass::Late) => Err("the enrolled pass is made, but is not served yet".into()),
        }
    }
}

/// Returns an error that contains no value of the row, because a value may be personal data.
fn refused(error: Refused) -> SourceError {
    match error {
        Refused::NoRow(_) => "the receiver of --enroll-url answered no row".into(),
        Refused::Row(error) => match error.column() {
            Some(column) => format!(
                "the row from the receiver of --enroll-url makes no pass: the value of {column:?} can't be used"
            )
            .into(),
            None => "the row from the receiver of --enroll-url makes no enrolled version of the pass".into(),
        },
        Refused::OnlyTable => "void-missing allows no enrolment; remove it from the file of --make".into(),
        Refused::Busy => "the passes of the table are being made, and this takes too long".into(),
        Refused::Failed(failure) => failure.to_string().into(),
    }
}

#[async_trait]
impl TokenSigner for Enrolling {
    async fn sign(
        &self,
        type_id: &TypeIdentifier,
        token: &PersonalizationToken,
    ) -> Result<Option<Vec<u8>>, SourceError> {
        let signer = self.making.maker.signer();
        TokenSigner::sign(&*signer, type_id, token).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_to_another_machine_sends_unencrypted() {
        for (url, expected) in [
            ("http://receiver:9000/enroll", true),
            ("http://10.0.0.5", true),
            ("http://[2001:db8::1]:9000", true),
            ("http://localhost.example.org", true),
            ("https://receiver.example.org", false),
            ("http://127.0.0.1:9000/enroll", false),
            ("http://127.1.2.3", false),
            ("http://[::1]:9000", false),
            ("http://LocalHost:9000", false),
        ] {
            let url = ServiceUrl::new(url).unwrap();
            assert_eq!(sends_unencrypted(&url), expected, "{url:?}");
        }
    }
}
