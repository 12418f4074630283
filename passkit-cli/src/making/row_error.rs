//! An error in a row of a table.

use std::fmt;

use passkit_server::text::OneLine;

use crate::failure::Failure;

/// Why the pass of a row was not made.
#[derive(Debug)]
pub(crate) enum MakeError {
    /// The row is the reason.
    Row(RowError),
    /// The other rows can't be made either.
    Failed(Failure),
}

impl From<RowError> for MakeError {
    fn from(error: RowError) -> Self {
        Self::Row(error)
    }
}

impl From<Failure> for MakeError {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// An error in a row.
#[derive(Debug)]
pub(crate) struct RowError {
    /// The line where the row begins.
    pub(crate) line: u64,
    column: Option<String>,
    message: String,
    /// Whether the row could be filled in but phones would refuse the pass.
    pub(crate) is_refused: bool,
}

impl RowError {
    pub(crate) fn new(line: u64, message: impl Into<String>) -> Self {
        Self {
            line,
            column: None,
            message: message.into(),
            is_refused: false,
        }
    }

    /// The row could be filled in, but phones would refuse the pass.
    pub(super) fn refused(line: u64, message: String) -> Self {
        Self {
            is_refused: true,
            ..Self::new(line, message)
        }
    }

    /// Returns the column that has the error, if the error is in a column.
    pub(crate) fn column(&self) -> Option<&str> {
        self.column.as_deref()
    }

    pub(super) fn in_column(line: u64, column: &str, message: impl Into<String>) -> Self {
        Self {
            column: Some(column.into()),
            ..Self::new(line, message)
        }
    }
}

/// Writes one line: the column with the error, if there is one, and the message.
impl fmt::Display for RowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(column) = &self.column {
            write!(f, "column {:?}: ", OneLine::of(column).to_string())?;
        }
        write!(f, "{}", OneLine::of(&self.message))
    }
}
