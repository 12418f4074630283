use std::path::Path;

use passkit_identity::{IdentityError, pem};

/// A problem with a certificate, a key or a setting. The text is one line. It names the type and
/// the file, if there are any.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ApnsError(String);

impl From<IdentityError> for ApnsError {
    fn from(error: IdentityError) -> Self {
        Self::new(error.to_string())
    }
}

impl ApnsError {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Makes an error that names what has the problem, and the file if there is one.
    pub(crate) fn about(what: &str, file: Option<&Path>, problem: impl std::fmt::Display) -> Self {
        Self(match file {
            Some(file) => format!("{what}: {}: {problem}", pem::shown(file)),
            None => format!("{what}: {problem}"),
        })
    }
}
