use std::{io, path::PathBuf};

use passkit_archive::Findings;
use passkit_server::{PassId, text::OneLine};

use crate::service_url::ServiceUrl;

/// Why the phone could not start an operation, or could not read or save its state. A fault of the
/// web service is a [`Complaint`](super::Complaint) instead.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Phones would not accept the archive.
    #[error("the archive is not valid: {}", one_line(.0))]
    Archive(#[source] Findings),
    /// The pass has no web service or no authentication token, so it can't be updated.
    #[error("the pass has no web service, so phones never update it")]
    NoWebService,
    /// The web service URL cannot be used.
    #[error("the web service url \"{}\" {problem}", OneLine::url(url))]
    ServiceUrl {
        /// The URL.
        url: String,
        /// What is wrong with the URL.
        problem: &'static str,
    },
    /// The pass is not on the phone.
    #[error("{0} is not on the phone")]
    NotHeld(PassId),
    /// The pass has no `personalization.json`, so a phone shows no form.
    #[error(
        "{0} offers no rewards enrolment: the version on the phone has no personalization.json"
    )]
    NoEnrolment(PassId),
    /// The system can't provide random numbers.
    #[error("no random numbers from the system")]
    Random(#[source] getrandom::Error),
    /// The state file cannot be read or written.
    #[error("cannot {action} the phone's state in {}: {source}", .path.display())]
    StateFile {
        /// `read` or `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The state file was not written by this phone.
    // The error of the parser may repeat a token.
    #[error("the phone's state in {} is not readable: line {line} is not in the format that a phone writes", .path.display())]
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

/// Joins the lines of a text.
pub(crate) fn one_line(text: &impl ToString) -> String {
    text.to_string()
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join("; ")
}
