use std::{borrow::Cow, error, fmt};

use passkit_server::store::{StoreError, StoreErrorKind};
use redis::{ErrorKind, RedisError, ServerErrorKind};

/// Why the store could not do what it was asked: the source of its [`StoreError`]s.
///
/// Its own source is the [`RedisError`] of the driver, if that reported the failure.
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

    /// A value that this crate never wrote.
    pub(crate) fn unreadable(what: &'static str) -> Self {
        Self::new(
            StoreErrorKind::Corrupt,
            format!("a {what} in the store cannot be read"),
        )
    }

    /// With what the driver reported.
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

    /// With what was being done.
    pub(crate) fn within(self, what: impl fmt::Display) -> Self {
        Self {
            text: format!("{what}: {}", self.text).into(),
            ..self
        }
    }

    /// With how to fix it.
    pub(crate) fn advising(self, fix: &str) -> Self {
        Self {
            text: format!("{}; {fix}", self.text).into(),
            ..self
        }
    }

    /// What sort of failure it is.
    #[must_use]
    pub fn kind(&self) -> StoreErrorKind {
        self.kind
    }

    /// What the driver reported.
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
            StoreErrorKind::Corrupt => "Redis holds something other than the store wrote",
            _ => "Redis refused a command",
        };
        Self {
            kind,
            text: text.into(),
            source: Some(error),
        }
    }
}

/// What the details of an answer say where the set-up is wrong and the server has no code but `ERR` for it.
const ANSWERS: [&str; 5] = [
    "DB index",
    "SELECT is not allowed",
    "cluster support disabled",
    "unknown command",
    "without any password",
];

/// The same where the first connection to a Cluster fails: the driver keeps only the text of that error.
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
        _ if is_passing(error) => Unavailable,
        ErrorKind::Parse | ErrorKind::UnexpectedReturnType => Corrupt,
        _ => match error.code() {
            Some("NOAUTH" | "WRONGPASS" | "DENIED" | "NOPROTO") => Configuration,
            Some("WRONGTYPE") => Corrupt,
            Some("OOM" | "MISCONF" | "NOREPLICAS") => Unavailable,
            _ => Other,
        },
    }
}

/// Whether the same command may succeed in a moment: a server is away, another takes over, a slot moves.
pub(crate) fn is_passing(error: &RedisError) -> bool {
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
            // The server has no code for it.
            ServerErrorKind::ResponseError => error
                .detail()
                .is_some_and(|detail| detail.contains("WAIT cannot be used with replica")),
            _ => false,
        },
        _ => matches!(error.code(), Some("BUSY" | "UNBLOCKED")),
    }
}

/// The I/O error that the driver met. It wraps it in a shared pointer, which stands in the way of a plain downcast.
pub(crate) fn io_error(error: &RedisError) -> Option<&std::io::Error> {
    let source = error::Error::source(error)?;
    let shared = source.downcast_ref::<std::sync::Arc<dyn error::Error + Send + Sync>>();
    shared.map_or_else(|| source.downcast_ref(), |shared| shared.downcast_ref())
}

/// What TLS objected to.
#[cfg(feature = "tls")]
pub(crate) fn tls_error(error: &RedisError) -> Option<&rustls::Error> {
    io_error(error)?.get_ref()?.downcast_ref()
}

/// Whether a certificate is wrong, or lacking.
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
