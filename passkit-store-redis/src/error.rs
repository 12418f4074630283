use std::{borrow::Cow, error, fmt};

use passkit_server::store::{StoreError, StoreErrorKind};
use redis::{ErrorKind, RedisError, ServerErrorKind};

/// The [`source`](error::Error::source) of every [`StoreError`] of this store.
///
/// The source of this error is the [`RedisError`] of the driver, if the driver reported the failure.
#[derive(Debug)]
pub struct Error {
    kind: StoreErrorKind,
    text: Cow<'static, str>,
    source: Option<RedisError>,
}

impl Error {
    pub(crate) fn new(kind: StoreErrorKind, text: impl Into<Cow<'static, str>>) -> Self {
        Self {
            kind,
            text: text.into(),
            source: None,
        }
    }

    pub(crate) fn configuration(text: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StoreErrorKind::Configuration, text)
    }

    /// Makes the error for a value that this store can't have written.
    pub(crate) fn unreadable(what: &'static str) -> Self {
        Self::new(
            StoreErrorKind::Corrupt,
            format!("can't read a {what} in the store"),
        )
    }

    /// Adds the error of the driver.
    pub(crate) fn caused_by(self, source: RedisError) -> Self {
        Self {
            source: Some(source),
            ..self
        }
    }

    pub(crate) fn unconfirmed(confirmed: i64, needed: u16) -> Self {
        let text = format!("{confirmed} of {needed} replicas confirmed the change in time");
        Self::new(StoreErrorKind::Unavailable, text)
    }

    pub(crate) fn timeout() -> Self {
        Self::new(StoreErrorKind::Unavailable, "Redis did not answer in time")
    }

    pub(crate) fn runtime_ended() -> Self {
        Self::new(
            StoreErrorKind::Other,
            "the runtime ended before the call did",
        )
    }

    /// Prepends the place where the error occurred.
    pub(crate) fn within(self, what: impl fmt::Display) -> Self {
        Self {
            text: format!("{what}: {}", self.text).into(),
            ..self
        }
    }

    /// Appends how to fix the problem.
    pub(crate) fn advising(self, fix: &str) -> Self {
        Self {
            text: format!("{}; {fix}", self.text).into(),
            ..self
        }
    }

    /// Returns the kind of the error.
    #[must_use]
    pub fn kind(&self) -> StoreErrorKind {
        self.kind
    }

    /// Returns the error of the driver.
    pub(crate) fn driver(&self) -> Option<&RedisError> {
        self.source.as_ref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        Some(self.source.as_ref()?)
    }
}

impl From<Error> for StoreError {
    fn from(error: Error) -> Self {
        Self::new(error.kind, error)
    }
}

impl From<RedisError> for Error {
    fn from(error: RedisError) -> Self {
        let kind = kind(&error);
        let text = match kind {
            StoreErrorKind::Unavailable => "Redis is unavailable",
            StoreErrorKind::Configuration => "Redis is not set up for the store",
            StoreErrorKind::Corrupt => "Redis has a value that the store did not write",
            _ => "Redis refused a command",
        };
        Self {
            kind,
            text: text.into(),
            source: Some(error),
        }
    }
}

/// Parts of error messages that show a wrong set-up. The server reports all of them with the code `ERR`.
const ANSWERS: [&str; 5] = [
    "DB index",
    "SELECT is not allowed",
    "cluster support disabled",
    "unknown command",
    "without any password",
];

/// Parts of error messages that show a wrong set-up of a Cluster. If the first connection fails, the driver keeps only the
/// text of the error.
const CONNECTING: [&str; 7] = [
    "AuthenticationFailed",
    "CertificateRequired",
    "NOAUTH",
    "NoPerm",
    "WRONGPASS",
    "invalid peer certificate",
    "switch database",
];

fn kind(error: &RedisError) -> StoreErrorKind {
    use StoreErrorKind::{Configuration, Corrupt, Other, Unavailable};
    let says = |parts: &[&str]| {
        error
            .detail()
            .is_some_and(|detail| parts.iter().any(|part| detail.contains(part)))
    };
    match error.kind() {
        ErrorKind::AuthenticationFailed
        | ErrorKind::InvalidClientConfig
        | ErrorKind::EmptySentinelList
        | ErrorKind::RESP3NotSupported
        | ErrorKind::Server(ServerErrorKind::NoPerm) => Configuration,
        ErrorKind::Server(ServerErrorKind::ResponseError) if says(&ANSWERS) => Configuration,
        ErrorKind::Io if says(&ANSWERS) || says(&CONNECTING) || is_tls_failure(error) => {
            Configuration
        }
        _ if is_transient(error) => Unavailable,
        ErrorKind::Parse | ErrorKind::UnexpectedReturnType => Corrupt,
        _ => match error.code() {
            Some("NOAUTH" | "WRONGPASS" | "DENIED" | "NOPROTO") => Configuration,
            Some("WRONGTYPE") => Corrupt,
            Some("OOM" | "MISCONF" | "NOREPLICAS") => Unavailable,
            _ => Other,
        },
    }
}

/// Returns whether the command may succeed if it is soon repeated. The server may be down, failing over or moving a slot.
pub(crate) fn is_transient(error: &RedisError) -> bool {
    match error.kind() {
        ErrorKind::Io
        | ErrorKind::ClusterConnectionNotFound
        | ErrorKind::MasterNameNotFoundBySentinel
        | ErrorKind::NoValidReplicasFoundBySentinel => true,
        ErrorKind::Server(kind) => match kind {
            ServerErrorKind::BusyLoading
            | ServerErrorKind::NoScript
            | ServerErrorKind::Moved
            | ServerErrorKind::Ask
            | ServerErrorKind::TryAgain
            | ServerErrorKind::ClusterDown
            | ServerErrorKind::MasterDown
            | ServerErrorKind::ReadOnly => true,
            // The server reports this failure only with the general code `ERR`.
            ServerErrorKind::ResponseError => error
                .detail()
                .is_some_and(|detail| detail.contains("WAIT cannot be used with replica")),
            _ => false,
        },
        _ => matches!(error.code(), Some("BUSY" | "UNBLOCKED")),
    }
}

/// Returns the I/O error that caused an error of the driver. The driver puts some I/O errors into an `Arc`, where a plain
/// downcast does not find them.
pub(crate) fn io_error(error: &RedisError) -> Option<&std::io::Error> {
    let source = error::Error::source(error)?;
    let shared = source.downcast_ref::<std::sync::Arc<dyn error::Error + Send + Sync>>();
    shared.map_or_else(|| source.downcast_ref(), |shared| shared.downcast_ref())
}

/// Returns the TLS error that caused an error of the driver.
#[cfg(feature = "tls")]
pub(crate) fn tls_error(error: &RedisError) -> Option<&rustls::Error> {
    io_error(error)?.get_ref()?.downcast_ref()
}

/// Returns whether the error means that a certificate is invalid or missing.
#[cfg(feature = "tls")]
fn is_tls_failure(error: &RedisError) -> bool {
    use rustls::{AlertDescription::CertificateRequired, Error};
    matches!(
        tls_error(error),
        Some(Error::InvalidCertificate(_) | Error::AlertReceived(CertificateRequired))
    )
}

#[cfg(not(feature = "tls"))]
fn is_tls_failure(_: &RedisError) -> bool {
    false
}
