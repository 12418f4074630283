use std::{error::Error, fmt};

use clap::error::ErrorKind;
pub(crate) use passkit_server::text::Chain;

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
}

/// Prints help or the version and ends the program. Any other error is shown without the usage.
impl From<clap::Error> for Failure {
    fn from(error: clap::Error) -> Self {
        if !error.use_stderr()
            || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
        {
            error.exit();
        }
        let text = error.to_string();
        let usage = text
            .find("\n\nUsage:")
            .or_else(|| text.find("\n\nFor more"))
            .unwrap_or(text.len());
        let message = &text[..usage];
        let words: Vec<String> = message
            .trim_start_matches("error: ")
            .split_whitespace()
            .map(without_secrets)
            .collect();
        Self::new(words.join(" "))
    }
}

/// Returns a word that may be a mistyped URL of a store, without user, password and query.
fn without_secrets(word: &str) -> String {
    match word.split_once("://") {
        Some((scheme, rest)) if rest.contains(['@', '?']) => {
            let end = word.trim_start_matches(|c| c != '\'').len().min(1);
            let host = rest.rsplit('@').next().unwrap_or_default();
            let host = host
                .split('?')
                .next()
                .unwrap_or_default()
                .trim_end_matches('\'');
            format!("{scheme}://{host}{}", &"'"[..end])
        }
        _ => word.to_owned(),
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
