use std::{error::Error, fmt};

use passkit_server::{StoreError, StoreErrorKind};
use redis::{ErrorKind, RedisError, ServerErrorKind};

/// Why something failed.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) kind: StoreErrorKind,
    text: String,
}

impl Failure {
    pub(crate) fn new(kind: StoreErrorKind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into() }
    }

    pub(crate) fn configuration(text: impl Into<String>) -> Self {
        Self::new(StoreErrorKind::Configuration, text)
    }

    /// A value that this crate never wrote.
    pub(crate) fn unreadable(what: &'static str) -> Self {
        Self::new(StoreErrorKind::Corrupt, format!("a {what} in the store cannot be read"))
    }

    pub(crate) fn unconfirmed(confirmed: i64, wanted: u16) -> Self {
        Self::new(
            StoreErrorKind::Unavailable,
            format!("{confirmed} of {wanted} replicas confirmed the change in time"),
        )
    }

    pub(crate) fn timeout() -> Self {
        Self::new(StoreErrorKind::Unavailable, "Redis did not answer in time")
    }

    pub(crate) fn stopped() -> Self {
        Self::new(StoreErrorKind::Other, "the runtime ended before the call did")
    }

    /// With what may be the mend.
    pub(crate) fn advising(self, mend: &str) -> Self {
        Self { text: format!("{}; {mend}", self.text), ..self }
    }

    /// With what was being done.
    pub(crate) fn within(self, what: impl fmt::Display) -> Self {
        Self { text: format!("{what}: {}", self.text), ..self }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Error for Failure {}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        Self::new(failure.kind, failure)
    }
}

impl From<RedisError> for Failure {
    fn from(error: RedisError) -> Self {
        // One line, whatever the server wrote.
        let text = error.to_string().replace(['\r', '\n'], " ");
        Self::new(kind(&error), text)
    }
}

/// What the server, or the driver for it, says where the set-up is wrong. The Cluster's driver wraps such errors in text.
const SET_UP: [&str; 9] = [
    "AuthenticationFailed",
    "CertificateRequired",
    "DB index",
    "SELECT is not allowed",
    "cluster support disabled",
    "invalid peer certificate",
    "switch database",
    "unknown command",
    "without any password",
];

fn kind(error: &RedisError) -> StoreErrorKind {
    use StoreErrorKind::{Configuration, Corrupt, Other, Unavailable};
    let text = error.to_string();
    match error.kind() {
        _ if SET_UP.iter().any(|part| text.contains(part)) => Configuration,
        ErrorKind::AuthenticationFailed
        | ErrorKind::InvalidClientConfig
        | ErrorKind::EmptySentinelList
        | ErrorKind::RESP3NotSupported
        | ErrorKind::Server(ServerErrorKind::NoPerm) => Configuration,
        _ if is_passing(error) => Unavailable,
        ErrorKind::UnexpectedReturnType => Corrupt,
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
            ServerErrorKind::ResponseError => {
                error.detail().is_some_and(|detail| detail.contains("WAIT cannot be used with replica"))
            }
            _ => false,
        },
        _ => matches!(error.code(), Some("BUSY" | "UNBLOCKED")),
    }
}
