use std::{fmt, time::Duration};

use http::Method;

/// A request and its answer. Words in angle brackets replace all push tokens, authentication tokens
/// and device identifiers.
///
/// `Display` writes several lines. The first line is the method and the URL.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Exchange {
    /// The method.
    pub method: Method,
    /// The scheme, host and port of the service.
    pub origin: String,
    /// The path and query, as sent.
    pub path: String,
    /// Some of the request headers: `authorization`, `content-type`, `if-modified-since`,
    /// `if-none-match`.
    pub request_headers: Vec<(String, String)>,
    /// The request body, if there was one.
    pub request_body: Option<String>,
    /// The status, or why there is no complete answer.
    pub status: Result<u16, String>,
    /// Some of the answer's headers: `allow`, `cache-control`, `content-type`, `date`, `etag`,
    /// `last-modified`, `location`, `retry-after`, `www-authenticate`.
    pub response_headers: Vec<(String, String)>,
    /// The answer's body if it is a short text, otherwise its length. An empty body is an empty
    /// text.
    pub response_body: String,
    /// The time from the start of the request until the answer was read.
    pub elapsed: Duration,
}

impl fmt::Display for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}{}", self.method, self.origin, self.path)?;
        for (name, value) in &self.request_headers {
            write!(f, "\n  > {name}: {value}")?;
        }
        if let Some(body) = &self.request_body {
            write!(f, "\n  > {body}")?;
        }
        match &self.status {
            Ok(status) => write!(f, "\n  < {status} in {:.1?}", self.elapsed)?,
            Err(reason) => write!(f, "\n  < no answer in {:.1?}: {reason}", self.elapsed)?,
        }
        for (name, value) in &self.response_headers {
            write!(f, "\n  < {name}: {value}")?;
        }
        if !self.response_body.is_empty() {
            write!(f, "\n  < {}", self.response_body)?;
        }
        Ok(())
    }
}
