use std::path::Path;

use passkit_identity::IdentityError;

/// What is wrong with a certificate, a key or a setting, in one line that names the topic and the file.
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

    /// Of `what`, which may lie in a file.
    pub(crate) fn of(what: &str, file: Option<&Path>, problem: impl std::fmt::Display) -> Self {
        Self(match file {
            Some(file) => format!("{what}: {}: {problem}", file.display()),
            None => format!("{what}: {problem}"),
        })
    }
}
