use std::{error::Error, fmt, io, path::Path, sync::Arc};

use passkit_server::store::{StoreError, StoreErrorKind};
use rusqlite::ErrorCode;

/// An error of the store. Its source is the error of SQLite or of the operating system, if there is one. If a transaction
/// fails, every caller with a change in it gets a clone.
#[derive(Clone, Debug)]
pub(crate) struct SqliteError {
    kind: StoreErrorKind,
    text: String,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

impl SqliteError {
    pub(crate) fn new(kind: StoreErrorKind, text: impl Into<String>) -> Self {
        Self {
            kind,
            text: text.into(),
            source: None,
        }
    }

    pub(crate) fn configuration(text: impl Into<String>) -> Self {
        Self::new(StoreErrorKind::Configuration, text)
    }

    pub(crate) fn caused_by(self, source: impl Error + Send + Sync + 'static) -> Self {
        Self {
            source: Some(Arc::new(source)),
            ..self
        }
    }

    /// The operating system failed to do something with `path`.
    pub(crate) fn io(what: &str, path: &Path, error: io::Error) -> Self {
        let kind = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                StoreErrorKind::Unavailable
            }
            _ => StoreErrorKind::Configuration,
        };
        Self::new(kind, format!("can't {what} {}: {error}", path.display())).caused_by(error)
    }

    /// SQLite returned an error for the database in `path`.
    pub(crate) fn sqlite(path: &Path, error: rusqlite::Error) -> Self {
        use StoreErrorKind::{Configuration, Conflict, Corrupt, Other, Unavailable};
        let (kind, text) = match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy) => (Unavailable, "another program has locked it"),
            Some(ErrorCode::DatabaseLocked) => {
                (Conflict, "another connection uses it at the same time")
            }
            Some(ErrorCode::DiskFull) => (Unavailable, "the disk is full"),
            Some(ErrorCode::ReadOnly) => (Unavailable, "it can't be written to"),
            Some(ErrorCode::SystemIoFailure) => (Unavailable, "the disk failed"),
            Some(ErrorCode::OutOfMemory) => (Unavailable, "there is not enough memory"),
            Some(ErrorCode::DatabaseCorrupt) => {
                (Corrupt, "it is damaged; restore it from a backup")
            }
            Some(ErrorCode::NotADatabase) => {
                (Corrupt, "it is not an SQLite database; use another file")
            }
            Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => (
                Configuration,
                "it can't be opened; check the permissions of the file and its folder",
            ),
            Some(_) => (Other, "SQLite refused a statement"),
            None => match error {
                rusqlite::Error::FromSqlConversionFailure(..)
                | rusqlite::Error::IntegralValueOutOfRange(..)
                | rusqlite::Error::InvalidColumnType(..)
                | rusqlite::Error::QueryReturnedNoRows
                | rusqlite::Error::Utf8Error(..) => {
                    (Corrupt, "it has a row that passkit did not write")
                }
                _ => (Other, "a call to SQLite failed"),
            },
        };
        Self::new(kind, format!("{}: {text}", path.display())).caused_by(error)
    }

    pub(crate) fn stopped() -> Self {
        Self::new(StoreErrorKind::Other, "a thread of the store has ended")
    }

    /// Returns whether the same call may succeed a little later.
    pub(crate) fn is_transient(&self) -> bool {
        matches!(
            self.kind,
            StoreErrorKind::Unavailable | StoreErrorKind::Conflict
        )
    }
}

/// Returns whether the error means that another connection has locked the database.
pub(crate) fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
    )
}

impl fmt::Display for SqliteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Error for SqliteError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        let source: &(dyn Error + 'static) = &**self.source.as_ref()?;
        Some(source)
    }
}

impl From<SqliteError> for StoreError {
    fn from(error: SqliteError) -> Self {
        Self::new(error.kind, error)
    }
}
