use std::{io, path::PathBuf};

use passkit_archive::Findings;
use passkit_server::{PassId, text::OneLine};

use crate::service_url::ServiceUrl;

/// Why the phone could not start an operation, or could not keep its state. A fault of the web
/// service is a [`Complaint`](super::Complaint) instead.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The archive is not one that phones accept.
    #[error("the archive is not valid: {}", one_line(.0))]
    Archive(#[source] Findings),
    /// The pass has no web service or no token, so there is nothing to ask for.
    #[error("the pass has no web service, so phones never update it")]
    NoWebService,
    /// The web service URL cannot be used.
    #[error("the web service url \"{}\" {problem}", OneLine::url(url))]
    ServiceUrl {
        /// The URL.
        url: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The pass is not on the phone.
    #[error("the phone does not hold {0}")]
    NotHeld(PassId),
    /// The system has no random numbers.
    #[error("no random numbers from the system")]
    Random(#[source] getrandom::Error),
    /// The state file cannot be read or written.
    #[error("cannot {action} the phone's state in {}: {source}", .path.display())]
    StateFile {
        /// `read` or `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The state file was not written by this phone.
    // The error of the parser may repeat a token.
    #[error("the phone's state in {} is not readable: line {line} is not what a phone writes", .path.display())]
    StateFormat {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
    },
}

pub(super) fn service_url(url: &str) -> Result<ServiceUrl, Error> {
    ServiceUrl::new(url).map_err(|problem| Error::ServiceUrl {
        url: url.to_owned(),
        problem,
    })
}

/// The first line of a text, or all lines joined.
pub(crate) fn one_line(text: &impl ToString) -> String {
    text.to_string()
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join("; ")
}
