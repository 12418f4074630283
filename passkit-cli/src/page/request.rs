//! What a request says.

use std::{fmt, net::IpAddr, time::Duration};

use http::{
    HeaderMap, HeaderName, Request,
    header::{COOKIE, HOST, ORIGIN},
};
use hyper::body::Incoming;
use passkit_server::{PassId, text::OneLine};

use super::session;
use crate::{request_body, server};

/// A form has a token, or nothing.
const FORM_LIMIT: usize = 8 * 1024;
const FORM_TIME: Duration = Duration::from_secs(10);
/// No form and no address of this page has more fields.
const FIELDS: usize = 16;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Why a request has no page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    SignedOut,
    Method,
    NotFound,
    /// The request names no pass, or an impossible one.
    NoPass,
    Origin,
    TooManyTokens,
    Malformed,
    /// The store does not answer.
    Store,
    /// The pass has no archive here.
    NoArchive,
    Busy,
    Failed,
}

/// Who sends a request, and how.
pub(super) struct Caller {
    client: Option<IpAddr>,
    /// What a proxy says about the client. Anyone may send this header, so it is only for the log.
    forwarded: Option<String>,
    /// The network, for counting wrong tokens. All addresses of an IPv6 network count as one.
    pub(super) network: Option<IpAddr>,
    pub(super) session: Option<session::Id>,
    /// Whether the browser uses HTTPS.
    pub(super) is_secure: bool,
    is_same_origin: bool,
}

impl Caller {
    pub(super) fn of(request: &Request<Incoming>, client: Option<IpAddr>, has_tls: bool) -> Self {
        let headers = request.headers();
        let forwarded = text(headers, &X_FORWARDED_FOR);
        // A wrong claim can only make the cookie stricter.
        let is_secure = has_tls || text(headers, &X_FORWARDED_PROTO) == Some("https");
        let host =
            text(headers, &HOST).or_else(|| request.uri().authority().map(|host| host.as_str()));
        Self {
            client,
            forwarded: forwarded.map(|text| OneLine::of(text).to_string()),
            network: client.map(|client| server::network(client.to_canonical())),
            session: session_of(headers, is_secure),
            is_secure,
            is_same_origin: is_same_origin(headers, host),
        }
    }

    /// Refuses a request that another site makes a browser send.
    pub(super) fn check_origin(&self) -> Result<(), Refusal> {
        if self.is_same_origin {
            Ok(())
        } else {
            Err(Refusal::Origin)
        }
    }
}

/// Shows the address, for the log.
impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.client {
            Some(client) => client.to_canonical().fmt(f)?,
            None => f.write_str("unknown")?,
        }
        match &self.forwarded {
            Some(forwarded) => write!(f, " (for {forwarded})"),
            None => Ok(()),
        }
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn session_of(headers: &HeaderMap, is_secure: bool) -> Option<session::Id> {
    let name = session::cookie_name(is_secure);
    let cookies = headers
        .get_all(COOKIE)
        .into_iter()
        .filter_map(|value| value.to_str().ok());
    let mut pairs = cookies
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='));
    pairs
        .find(|(key, _)| *key == name)
        .and_then(|(_, value)| session::Id::of_cookie(value))
}

/// Returns whether `Origin` names this host. A proxy may give its own host in `Host`. A site can't
/// make a browser send another `X-Forwarded-Host`.
fn is_same_origin(headers: &HeaderMap, host: Option<&str>) -> bool {
    let Some(origin) = text(headers, &ORIGIN).and_then(|origin| Some(origin.split_once("://")?.1))
    else {
        return false;
    };
    let hosts = [host, text(headers, &X_FORWARDED_HOST)];
    let is_known = hosts
        .into_iter()
        .flatten()
        .any(|host| host.eq_ignore_ascii_case(origin));
    let site = text(headers, &SEC_FETCH_SITE);
    is_known && site.is_none_or(|site| site == "same-origin")
}

/// The fields of a form, or of the query in an address.
pub(super) struct Form(Vec<(String, String)>);

impl Form {
    pub(super) fn of_query(query: &str) -> Self {
        Self(
            form_urlencoded::parse(query.as_bytes())
                .take(FIELDS)
                .map(|(key, value)| (key.into_owned(), value.into_owned()))
                .collect(),
        )
    }

    pub(super) async fn of_body(request: Request<Incoming>) -> Result<Self, Refusal> {
        let body = request_body::read(request, FORM_LIMIT, FORM_TIME).await;
        let body = body.map_err(|_| Refusal::Malformed)?;
        Ok(Self::of_query(&String::from_utf8_lossy(&body)))
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let mut fields = self.0.iter();
        fields
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// Returns the pass that the address names.
    pub(super) fn pass(&self) -> Result<PassId, Refusal> {
        let field = |name| self.get(name).ok_or(Refusal::NoPass);
        PassId::new(field("type")?, field("serial")?).map_err(|_| Refusal::NoPass)
    }
}

/// Returns the part of an address that names a pass. [`Form::pass`] reads it.
pub(super) fn query_of(pass: &PassId) -> String {
    form_urlencoded::Serializer::new(String::new())
        .append_pair("type", pass.type_id.as_str())
        .append_pair("serial", pass.serial.as_str())
        .finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pairs = pairs.iter();
        pairs
            .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn only_the_page_itself_is_the_same_origin() {
        let host = Some("127.0.0.1:9000");
        let same = |pairs: &[(&'static str, &str)]| is_same_origin(&headers(pairs), host);
        assert!(same(&[("origin", "http://127.0.0.1:9000")]));
        assert!(same(&[
            ("origin", "http://127.0.0.1:9000"),
            ("sec-fetch-site", "same-origin")
        ]));
        assert!(same(&[
            ("origin", "https://Ops.example.org"),
            ("x-forwarded-host", "ops.example.org")
        ]));
        for refused in [
            &[][..],
            &[("origin", "null")],
            &[("origin", "http://127.0.0.1:9001")],
            &[("origin", "http://evil.example")],
            &[
                ("origin", "http://127.0.0.1:9000"),
                ("sec-fetch-site", "cross-site"),
            ],
            &[
                ("origin", "http://127.0.0.1:9000"),
                ("sec-fetch-site", "same-site"),
            ],
        ] {
            assert!(!same(refused), "{refused:?}");
        }
    }

    #[test]
    fn a_pass_survives_the_way_through_an_address() {
        let pass = PassId::new("pass.com.example.ticket", "a/../b &<ü>+%20").unwrap();
        assert_eq!(Form::of_query(&query_of(&pass)).pass(), Ok(pass));
        assert_eq!(Form::of_query("type=pass.a").pass(), Err(Refusal::NoPass));
        let long = format!("type=pass.a&serial={}", "x".repeat(600));
        assert_eq!(Form::of_query(&long).pass(), Err(Refusal::NoPass));
    }
}
