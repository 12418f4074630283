use std::{any::Any, error::Error, fmt, io, path::Path, sync::Arc};

use passkit_server::store::{StoreError, StoreErrorKind};

/// Why something failed, in a form that every caller whose change shared one write can have.
///
/// Its source is the error of the engine or of the operating system, where there is one.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) kind: StoreErrorKind,
    text: String,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

impl Failure {
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

    /// The operating system refused `what`.
    pub(crate) fn io(what: impl fmt::Display, error: io::Error) -> Self {
        Self::new(kind_of(&error), format!("failed to {what}")).caused_by(error)
    }

    /// An error of the engine over the store in `path`.
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
                format!("the folder {path} holds a database that this version cannot open"),
            ),
            sled::Error::ReportableBug(_) => Self::new(
                StoreErrorKind::Other,
                format!("the storage engine failed on the store in {path}"),
            ),
        };
        failure.caused_by(error)
    }

    /// A panic of the engine. It panics on some damaged files.
    pub(crate) fn panic(path: &Path, panic: &(dyn Any + Send)) -> Self {
        let reason = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("no reason given");
        Self::new(
            StoreErrorKind::Corrupt,
            format!(
                "the storage engine gave up on the store in {}: {reason}",
                path.display()
            ),
        )
    }

    /// A row that this crate never wrote.
    pub(crate) fn unreadable(what: &'static str) -> Self {
        Self::new(
            StoreErrorKind::Corrupt,
            format!("a {what} in the store cannot be read"),
        )
    }

    pub(crate) fn closed() -> Self {
        Self::new(
            StoreErrorKind::Unavailable,
            "the store is closed after a failed write, and opens again by itself",
        )
    }

    /// The thread that should have answered has ended, or panicked.
    pub(crate) fn no_answer() -> Self {
        Self::new(StoreErrorKind::Other, "the storage engine gave no answer")
    }

    /// The failure and its source on one line, for the log.
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

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| &**source as _)
    }
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        Self::new(failure.kind, failure)
    }
}
