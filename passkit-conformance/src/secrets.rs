//! Makes an [`Exchange`] from a request and its answer, without their secrets.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::Full;

use crate::{
    Exchange,
    message::{Response, SendError, WithCapitals},
};

/// The headers of a request that are shown.
const REQUEST_HEADERS: [&str; 4] = [
    "authorization",
    "content-type",
    "if-modified-since",
    "if-none-match",
];

/// The headers of an answer that are shown.
const RESPONSE_HEADERS: [&str; 9] = [
    "allow",
    "cache-control",
    "content-type",
    "date",
    "etag",
    "last-modified",
    "location",
    "retry-after",
    "www-authenticate",
];

/// Capitalises a header name: `if-none-match` becomes `If-None-Match`.
fn with_capitals(name: &str) -> String {
    let mut start = true;
    let capital = |c: char| {
        let written = if start { c.to_ascii_uppercase() } else { c };
        start = c == '-';
        written
    };
    name.chars().map(capital).collect()
}

/// Texts that must not be shown, each with its replacement.
#[derive(Clone, Debug, Default)]
pub(crate) struct Secrets(Vec<(String, String)>);

impl Secrets {
    pub(crate) fn add(&mut self, secret: &str, shown: impl Into<String>) {
        let shown = shown.into();
        // In a JSON body, the secret may be escaped.
        let quoted = serde_json::Value::from(secret).to_string();
        let inside = quoted.trim_matches('"');
        if inside != secret {
            self.0.push((inside.to_owned(), shown.clone()));
        }
        self.0.push((secret.to_owned(), shown));
        // Longer secrets are replaced first, because one secret may contain another.
        self.0
            .sort_by_key(|(secret, _)| std::cmp::Reverse(secret.len()));
    }

    pub(crate) fn hide(&self, text: &str) -> String {
        self.0
            .iter()
            .fold(text.to_owned(), |text, (secret, shown)| {
                text.replace(secret, shown)
            })
    }

    fn headers(&self, headers: &HeaderMap, names: &[&str]) -> Vec<(String, String)> {
        let value = |name: &&str| {
            let value = headers.get(*name)?;
            Some((
                (*name).to_owned(),
                self.hide(&String::from_utf8_lossy(value.as_bytes())),
            ))
        };
        names.iter().filter_map(value).collect()
    }

    /// A body for reading: a short text in full, else the length.
    fn body(&self, body: &[u8]) -> String {
        const SHORT: usize = 2_000;
        match std::str::from_utf8(body) {
            Ok(text)
                if text.len() <= SHORT
                    && !text.chars().any(|c| c.is_control() && !c.is_whitespace()) =>
            {
                self.hide(text.trim())
            }
            _ => format!("{} bytes", body.len()),
        }
    }

    /// Makes the exchange of a request that is about to be sent, without an answer.
    pub(crate) fn asked(&self, request: &Request<Full<Bytes>>, body: &Bytes) -> Exchange {
        let uri = request.uri();
        let mut request_headers = self.headers(request.headers(), &REQUEST_HEADERS);
        if request.extensions().get::<WithCapitals>().is_some() {
            request_headers
                .iter_mut()
                .for_each(|(name, _)| *name = with_capitals(name));
        }
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        Exchange {
            method: request.method().clone(),
            origin: format!("{}://{authority}", uri.scheme_str().unwrap_or("http")),
            path: self.hide(uri.path_and_query().map_or("/", |path| path.as_str())),
            request_headers,
            request_body: (!body.is_empty()).then(|| self.body(body)),
            status: Err("not sent".into()),
            response_headers: Vec::new(),
            response_body: String::new(),
            elapsed: Duration::ZERO,
        }
    }

    /// Adds the answer to the exchange.
    pub(crate) fn answered(
        &self,
        exchange: &mut Exchange,
        answer: &Result<Response, SendError>,
        elapsed: Duration,
    ) {
        exchange.elapsed = elapsed;
        match answer {
            Ok(answer) => {
                exchange.status = Ok(answer.status.as_u16());
                exchange.response_headers = self.headers(&answer.headers, &RESPONSE_HEADERS);
                exchange.response_body = self.body(&answer.body);
            }
            Err(error) => exchange.status = Err(self.hide(&error.to_string())),
        }
    }
}
