use std::{any::Any, error::Error, fmt, io, path::Path, sync::Arc};

use passkit_server::store::{StoreError, StoreErrorKind};

/// The cause of a failure. Its source is the error of the engine or of the operating system, if there is one. Every caller
/// that shared a write gets a clone.
#[derive(Clone, Debug)]
pub(crate) struct SledError {
    pub(crate) kind: StoreErrorKind,
    text: String,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

impl SledError {
    pub(crate) fn new(kind: StoreErrorKind, text: impl Into<String>) -> Self {
        Self {
            kind,
            text: text.into(),
            source: None,
        }
    }

    fn caused_by(self, source: impl Error + Send + Sync + 'static) -> Self {
        Self {
            source: Some(Arc::new(source)),
            ..self
        }
    }

    /// Makes the error for a failure of the operating system. `what` is the action that failed, such as `open a file`.
    pub(crate) fn io(what: impl fmt::Display, error: io::Error) -> Self {
        Self::new(kind_of(&error), format!("failed to {what}")).caused_by(error)
    }

    /// Converts an error that the engine returned for the store in `path`.
    pub(crate) fn engine(path: &Path, error: sled::Error) -> Self {
        let path = path.display();
        let failure = match &error {
            sled::Error::Io(error) => Self::new(
                kind_of(error),
                format!("failed to read or write the store in {path}"),
            ),
            sled::Error::Corruption { .. } | sled::Error::CollectionNotFound(_) => Self::new(
                StoreErrorKind::Corrupt,
                format!("the store in {path} is damaged; restore the folder from a backup"),
            ),
            sled::Error::Unsupported(_) => Self::new(
                StoreErrorKind::Configuration,
                format!(
                    "this version cannot open the database in {path}; use the version that wrote it, or another folder"
                ),
            ),
            sled::Error::ReportableBug(_) => Self::new(
                StoreErrorKind::Other,
                format!("the storage engine reported an internal bug for the store in {path}"),
            ),
        };
        failure.caused_by(error)
    }

    /// Makes the error for a panic of the engine. The engine panics on some damaged files.
    pub(crate) fn panic(path: &Path, panic: &(dyn Any + Send)) -> Self {
        let reason = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("no reason given");
        Self::new(
            StoreErrorKind::Corrupt,
            format!(
                "the storage engine panicked on the store in {}: {reason}",
                path.display()
            ),
        )
    }

    /// Makes the error for a row that this crate never writes.
    pub(crate) fn unreadable(what: &'static str) -> Self {
        Self::new(
            StoreErrorKind::Corrupt,
            format!("a row in the store is not valid: {what}"),
        )
    }

    pub(crate) fn closed() -> Self {
        Self::new(
            StoreErrorKind::Unavailable,
            "the store is closed after a failed write, and will open again by itself",
        )
    }

    /// Makes the error for a thread that ended or panicked before it answered.
    pub(crate) fn no_answer() -> Self {
        Self::new(StoreErrorKind::Other, "the storage engine did not answer")
    }

    /// Returns the error and its source on one line, for the log.
    pub(crate) fn in_full(&self) -> String {
        match &self.source {
            Some(source) => format!("{self}: {source}"),
            None => self.to_string(),
        }
    }
}

fn kind_of(error: &io::Error) -> StoreErrorKind {
    match error.kind() {
        io::ErrorKind::NotFound
        | io::ErrorKind::PermissionDenied
        | io::ErrorKind::AlreadyExists
        | io::ErrorKind::NotADirectory
        | io::ErrorKind::IsADirectory
        | io::ErrorKind::ReadOnlyFilesystem => StoreErrorKind::Configuration,
        _ => StoreErrorKind::Unavailable,
    }
}

impl fmt::Display for SledError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Error for SledError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| &**source as _)
    }
}

impl From<SledError> for StoreError {
    fn from(failure: SledError) -> Self {
        Self::new(failure.kind, failure)
    }
}
