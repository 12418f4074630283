use std::{fmt, time::Duration};

use http::{HeaderMap, Method};

/// A request of the phone and what came back. Holds no push token, authentication token or device identifier: where
/// one stood, there is a word in angle brackets.
///
/// `Display` gives some lines for a transcript, the first being the request line.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Exchange {
    /// The method.
    pub method: Method,
    /// Scheme, host and port of the service.
    pub origin: String,
    /// Path and query, as sent.
    pub path: String,
    /// The request headers that matter: `authorization`, `content-type`, `if-modified-since`.
    pub request_headers: Vec<(String, String)>,
    /// The request body, if there was one.
    pub request_body: Option<String>,
    /// The status; or, where no whole answer came, why.
    pub status: Result<u16, String>,
    /// The answer's headers that matter: `content-type`, `last-modified`, `location`, `retry-after`,
    /// `www-authenticate`.
    pub response_headers: Vec<(String, String)>,
    /// The answer's body, if it is a short text; else its length. Empty if it is.
    pub response_body: String,
    /// From sending the request until the answer was read.
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

/// Texts that must not be shown, each with the word that is shown instead.
#[derive(Clone, Default)]
pub(super) struct Secrets(Vec<(String, &'static str)>);

impl Secrets {
    pub(super) fn add(&mut self, secret: &str, shown: &'static str) {
        self.0.push((secret.to_owned(), shown));
        // As it stands in a JSON body.
        let quoted = serde_json::Value::from(secret).to_string();
        let inside = quoted.trim_matches('"');
        if inside != secret {
            self.0.push((inside.to_owned(), shown));
        }
    }

    pub(super) fn hide(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, (secret, shown)| text.replace(secret, shown))
    }

    /// The headers among `names`, in that order.
    pub(super) fn headers(&self, headers: &HeaderMap, names: &[&str]) -> Vec<(String, String)> {
        let value = |name: &&str| {
            let value = headers.get(*name)?;
            Some(((*name).to_owned(), self.hide(&String::from_utf8_lossy(value.as_bytes()))))
        };
        names.iter().filter_map(value).collect()
    }

    /// A body for reading: all of a short text, the length of anything else.
    pub(super) fn body(&self, body: &[u8]) -> String {
        const SHORT: usize = 2_000;
        match std::str::from_utf8(body) {
            Ok(text)
                if text.len() <= SHORT && !text.chars().any(|c| c.is_control() && !c.is_whitespace()) =>
            {
                self.hide(text.trim())
            }
            _ => format!("{} bytes", body.len()),
        }
    }
}
