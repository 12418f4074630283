use std::{error::Error, fmt};

use clap::error::{ContextKind, ContextValue, ErrorKind};
pub(crate) use passkit_server::text::Chain;
use passkit_server::text::OneLine;

/// Why the program could not do its work: one line with what, where, and how to fix it. Exit code 2.
#[derive(Debug)]
pub(crate) struct Failure(String);

impl Failure {
    pub(crate) fn new(line: impl Into<String>) -> Self {
        Self(line.into().replace('\n', " "))
    }

    /// `what: error: its source: …`
    pub(crate) fn from_error(what: impl fmt::Display, error: &dyn Error) -> Self {
        Self::new(format!("{what}: {}", Chain(error)))
    }
}

/// Prints help and version, and ends the program. An error is shown without the usage.
impl From<clap::Error> for Failure {
    fn from(error: clap::Error) -> Self {
        if !error.use_stderr()
            || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
        {
            error.exit();
        }
        let mut text = error.to_string();
        for kind in [ContextKind::InvalidValue, ContextKind::InvalidArg] {
            if let Some(ContextValue::String(value)) = error.get(kind) {
                text = text.replace(value, &without_secrets(value));
            }
        }
        let usage = text
            .find("\n\nUsage:")
            .or_else(|| text.find("\n\nFor more"))
            .unwrap_or(text.len());
        let message = &text[..usage];
        let words: Vec<&str> = message
            .trim_start_matches("error: ")
            .split_whitespace()
            .collect();
        Self::new(words.join(" "))
    }
}

/// A value from the command line or the environment, which may be the mistyped URL of a store, or a key in place of the
/// name of a file.
fn without_secrets(value: &str) -> String {
    if passkit_identity::pem::is_text(value) {
        "(PEM)".into()
    } else if value.contains("://") || value.contains('@') {
        OneLine::url(value).to_string()
    } else {
        value.into()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
