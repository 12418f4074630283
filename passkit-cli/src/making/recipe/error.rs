//! Errors in a recipe.

use std::fmt;

use passkit_server::text::{OneLine, closest};

/// An error in a recipe, with its place.
#[derive(Debug)]
pub(crate) struct RecipeError {
    line: usize,
    column: usize,
    message: String,
}

impl RecipeError {
    /// Returns the message without the place.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for RecipeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            line,
            column,
            message,
        } = self;
        write!(f, "{line}:{column}: {}", OneLine::of(message))
    }
}

/// The place of an error as a byte of the text, and its message.
pub(super) type Problem = (usize, String);

pub(super) fn unknown<'a>(
    name: &str,
    what: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    let hint = match closest(shortened(name), known.iter().copied()).first() {
        Some(near) => format!("did you mean {near}?"),
        None => format!("there is {}", known.join(", ")),
    };
    format!("there is no {what} {name:?}; {hint}")
}

/// Returns the first 60 characters.
pub(super) fn shortened(text: &str) -> &str {
    let end = text
        .char_indices()
        .nth(60)
        .map_or(text.len(), |(end, _)| end);
    text.get(..end).unwrap_or(text)
}

pub(super) fn located(text: &str, (at, message): Problem) -> RecipeError {
    let before = text.get(..at).unwrap_or_default();
    let line_start = before.rfind('\n').map_or(0, |end| end + 1);
    RecipeError {
        line: before.matches('\n').count() + 1,
        column: before.get(line_start..).unwrap_or_default().chars().count() + 1,
        message,
    }
}
