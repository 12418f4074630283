use std::{any::Any, error::Error, fmt, io, path::Path, sync::Arc};

use passkit_server::{StoreError, StoreErrorKind};

/// Why something failed, in a form that can be told to every caller whose change shared one write.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) kind: StoreErrorKind,
    text: String,
    source: Option<Arc<io::Error>>,
    /// Nothing failed: only the disk knows the answer, and this was a question to memory.
    pub(crate) on_disk: bool,
}

impl Failure {
    pub(crate) fn new(kind: StoreErrorKind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into(), source: None, on_disk: false }
    }

    /// A failure of the operating system, in reaching what `what` names.
    pub(crate) fn io(what: impl fmt::Display, error: io::Error) -> Self {
        let kind = match error.kind() {
            io::ErrorKind::NotFound
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::AlreadyExists
            | io::ErrorKind::NotADirectory
            | io::ErrorKind::IsADirectory
            | io::ErrorKind::ReadOnlyFilesystem => StoreErrorKind::Configuration,
            _ => StoreErrorKind::Unavailable,
        };
        Self { kind, text: what.to_string(), source: Some(Arc::new(error)), on_disk: false }
    }

    /// What the engine reports about the store in `path`.
    pub(crate) fn engine(path: &Path, error: sled::Error) -> Self {
        let path = path.display();
        match error {
            sled::Error::Io(error) => Self::io(format!("read or write the store in {path}"), error),
            sled::Error::Corruption { .. } | sled::Error::CollectionNotFound(_) => Self::new(
                StoreErrorKind::Corrupt,
                format!("the store in {path} is damaged; restore the folder from a backup"),
            ),
            sled::Error::Unsupported(text) => Self::new(
                StoreErrorKind::Configuration,
                format!("the folder {path} holds a database that this version cannot open: {text}"),
            ),
            sled::Error::ReportableBug(text) => {
                Self::new(StoreErrorKind::Other, format!("the storage engine in {path} failed: {text}"))
            }
        }
    }

    /// A panic of the engine, which meets damaged files with one here and there.
    pub(crate) fn panic(path: &Path, panic: &(dyn Any + Send)) -> Self {
        let said = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("no reason given");
        Self::new(
            StoreErrorKind::Corrupt,
            format!("the storage engine gave up on the store in {}: {said}", path.display()),
        )
    }

    /// A row that this crate never wrote.
    pub(crate) fn unreadable(what: &'static str) -> Self {
        Self::new(StoreErrorKind::Corrupt, format!("a {what} in the store cannot be read"))
    }

    pub(crate) fn closed() -> Self {
        Self::new(
            StoreErrorKind::Unavailable,
            "the store is closed after a failed write, and opens again by itself",
        )
    }

    pub(crate) fn on_disk() -> Self {
        let text = String::new();
        Self { kind: StoreErrorKind::Other, text, source: None, on_disk: true }
    }

    pub(crate) fn stopped() -> Self {
        Self::new(StoreErrorKind::Other, "the thread that does the work has ended")
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Some(source) => write!(f, "{}: {source}", self.text),
            None => f.write_str(&self.text),
        }
    }
}

impl Error for Failure {}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        Self::new(failure.kind, failure)
    }
}
