use std::{error::Error, fmt, path::Path};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use passkit_server::store::StoreError;
pub(crate) use passkit_server::text::Chain;
use passkit_server::text::OneLine;

/// The reason why the program could not do its work: one line that says what, where, and how to fix
/// it. The exit code is 2.
#[derive(Debug)]
pub(crate) struct Failure(String);

impl Failure {
    pub(crate) fn new(line: impl Into<String>) -> Self {
        Self(line.into().replace('\n', " "))
    }

    /// Makes the text `what: error: its source: …`.
    pub(crate) fn from_error(what: impl fmt::Display, error: &dyn Error) -> Self {
        Self::new(format!("{what}: {}", Chain(error)))
    }

    /// Makes the text `path: error: its source: …`. An error that names the path stays as it is.
    pub(crate) fn of_file(path: &Path, error: &(dyn Error + 'static)) -> Self {
        let path = OneLine::path(path).to_string();
        let text = Chain(error).to_string();
        if text.contains(&path) {
            Self::new(text)
        } else {
            Self::new(format!("{path}: {text}"))
        }
    }

    /// Makes the failure of a command that stopped in the middle. If the error is transient, the line says to run the
    /// command again.
    pub(crate) fn incomplete(what: &str, error: &StoreError) -> Self {
        let advice = if error.is_transient() {
            "; run this again"
        } else {
            ""
        };
        Self::from_error(format_args!("{what}{advice}"), error)
    }
}

/// If the user asked for help or the version, prints it and ends the program. Any other error becomes one line, without the
/// usage.
impl From<clap::Error> for Failure {
    fn from(mut error: clap::Error) -> Self {
        if !error.use_stderr()
            || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
        {
            error.exit();
        }
        hide_secrets(&mut error);
        let text = error.to_string();
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

/// Hides an argument that may be the URL of a store, or one part of a URL that contains blanks.
fn hide_secrets(error: &mut clap::Error) {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.as_str(),
        _ => "",
    };
    let is_option = |text: &str| {
        let is_plain = |c: char| c.is_ascii_lowercase() || c == '-';
        text.starts_with('-') && text.chars().all(is_plain)
    };
    let is_url = text(ContextKind::InvalidArg).ends_with("<URL>")
        || text(ContextKind::InvalidValue).contains(['@', '/'])
        || passkit_identity::pem::is_text(text(ContextKind::InvalidValue));
    let hidden = match error.kind() {
        ErrorKind::UnknownArgument if !is_option(text(ContextKind::InvalidArg)) => {
            ContextKind::InvalidArg
        }
        ErrorKind::InvalidSubcommand => ContextKind::InvalidSubcommand,
        _ if is_url => ContextKind::InvalidValue,
        _ => return,
    };
    error.insert(hidden, ContextValue::String("…".into()));
    // Suggestions may repeat the text.
    error.remove(ContextKind::Suggested);
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
