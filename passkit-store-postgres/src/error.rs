use std::{error::Error, fmt, sync::Arc, time::Duration};

use passkit_server::store::{StoreError, StoreErrorKind};

/// The cause of a failure. Its source is the error of the driver, if there is one. Every caller that shared a statement gets
/// a clone.
#[derive(Clone, Debug)]
pub(crate) struct PostgresError {
    pub(crate) kind: StoreErrorKind,
    text: &'static str,
    source: Option<Arc<dyn Error + Send + Sync>>,
    /// Whether the connection is unusable. If it is, other idle connections may be unusable too.
    pub(crate) connection_lost: bool,
    /// Whether the same statement may succeed in a moment.
    pub(crate) retry: bool,
}

const RUN_MIGRATE: &str =
    "the database has no passkit schema, or an older one; run \"passkit migrate\"";

impl PostgresError {
    pub(crate) fn new(kind: StoreErrorKind, text: &'static str) -> Self {
        Self {
            kind,
            text,
            source: None,
            connection_lost: false,
            retry: false,
        }
    }

    fn caused_by(self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            source: Some(source.into().into()),
            ..self
        }
    }

    /// Allows sending the statement again, over another connection.
    fn retried(self) -> Self {
        Self {
            retry: true,
            connection_lost: true,
            ..self
        }
    }

    pub(crate) fn no_connection(after: Duration) -> Self {
        Self::new(
            StoreErrorKind::Unavailable,
            "got no connection to PostgreSQL",
        )
        .caused_by(format!(
            "within {after:?}: it is down, or all connections are in use"
        ))
    }

    pub(crate) fn too_slow(after: Duration) -> Self {
        let slow = Self::new(
            StoreErrorKind::Unavailable,
            "PostgreSQL did not answer in time",
        );
        Self {
            connection_lost: true,
            ..slow.caused_by(format!("within {after:?}"))
        }
    }

    pub(crate) fn not_sent(error: Box<dyn Error + Send + Sync>) -> Self {
        Self::new(StoreErrorKind::Other, "the statement could not be encoded").caused_by(error)
    }

    /// The error for a value that this crate never writes.
    pub(crate) fn unreadable(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(
            StoreErrorKind::Corrupt,
            "a row in the database is not valid",
        )
        .caused_by(error)
    }

    pub(crate) fn stopped() -> Self {
        Self::new(
            StoreErrorKind::Unavailable,
            "the async runtime ended before PostgreSQL answered",
        )
    }

    pub(crate) fn no_schema() -> Self {
        Self::new(StoreErrorKind::Configuration, RUN_MIGRATE)
    }

    /// Makes the error for a URL that the driver can't parse. The driver may quote a part of the URL, such as
    /// the value of `sslmode`. This hides the quoted text, because it may be a part of a password that was not
    /// percent-encoded.
    pub(crate) fn bad_address(error: &sqlx::Error) -> Self {
        let text = error.to_string();
        let text = match (text.find('"'), text.rfind('"')) {
            (Some(open), Some(close)) if open < close => {
                format!("{}…{}", &text[..=open], &text[close..])
            }
            _ => text,
        };
        Self::new(
            StoreErrorKind::Configuration,
            "the URL of PostgreSQL can't be read",
        )
        .caused_by(text)
    }

    fn needs_pooler_setting() -> Self {
        Self::new(
            StoreErrorKind::Configuration,
            "there is a transaction pooler in front of PostgreSQL; set transaction_pooler in the store's configuration",
        )
    }

    pub(crate) fn newer_schema(version: i32, needs: i32, own: i32) -> Self {
        Self::new(
            StoreErrorKind::Configuration,
            "the database was migrated by a newer passkit; use that version",
        )
        .caused_by(format!(
            "the schema has version {version} and needs a program of version {needs}; this program has version {own}"
        ))
    }
}

impl From<sqlx::Error> for PostgresError {
    fn from(error: sqlx::Error) -> Self {
        use StoreErrorKind::{Configuration, Unavailable};
        match &error {
            sqlx::Error::Database(refusal) => {
                let code = refusal.code().unwrap_or_default();
                // PgBouncer uses this code for all errors, even if the server is down. Only the message shows that PgBouncer
                // refuses a setting.
                if code == "08P01" && refusal.message().contains("startup parameter") {
                    return Self::needs_pooler_setting().caused_by(error);
                }
                Self::of_state(&code).caused_by(error)
            }
            sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => {
                Self::new(Unavailable, "the connection to PostgreSQL failed")
                    .caused_by(error)
                    .retried()
            }
            sqlx::Error::PoolTimedOut => Self::new(
                Unavailable,
                "got no connection to PostgreSQL: it is down, or all connections are in use",
            )
            .caused_by(error),
            sqlx::Error::PoolClosed => {
                Self::new(Unavailable, "the pool is closed").caused_by(error)
            }
            sqlx::Error::Configuration(_) | sqlx::Error::Tls(_) => {
                Self::new(Configuration, "could not connect to PostgreSQL").caused_by(error)
            }
            sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } => Self::unreadable(error),
            _ => Self::new(
                StoreErrorKind::Other,
                "the statement failed before PostgreSQL answered",
            )
            .caused_by(error),
        }
    }
}

impl PostgresError {
    /// Returns the error for a [SQLSTATE](https://www.postgresql.org/docs/current/errcodes-appendix.html).
    fn of_state(code: &str) -> Self {
        use StoreErrorKind::{Configuration, Conflict, Corrupt, Other, Unavailable};
        match code {
            "40001" | "40P01" => {
                let conflict = Self::new(
                    Conflict,
                    "another transaction wrote the same rows at the same time",
                );
                Self {
                    retry: true,
                    ..conflict
                }
            }
            "57014" => Self::new(Unavailable, "PostgreSQL cancelled the statement"),
            "55P03" => Self::new(
                Unavailable,
                "another transaction has locked a row that the statement needs",
            ),
            // The primary has become a replica. Another connection may reach the new primary.
            "25006" => Self::new(Unavailable, "the database is read-only").retried(),
            "53100" => Self::new(Unavailable, "the disk of PostgreSQL is full"),
            _ if code.starts_with("53") => Self::new(
                Unavailable,
                "PostgreSQL has too few resources, such as connections or memory",
            )
            .retried(),
            _ if code.starts_with("08") || code.starts_with("57P") || code == "25P03" => {
                Self::new(Unavailable, "the connection to PostgreSQL failed").retried()
            }
            _ if code.starts_with("58") => Self::new(
                Unavailable,
                "the operating system of PostgreSQL reported an error",
            ),
            // "cached plan must not change result type": the schema changed under a prepared statement.
            "0A000" => Self::new(Other, "PostgreSQL does not support the statement").retried(),
            "42P01" | "3F000" | "42883" | "42703" => Self::no_schema(),
            "42501" => Self::new(
                Configuration,
                "the database user lacks a right on the schema \"passkit\"; grant it",
            ),
            "26000" | "42P05" => Self::needs_pooler_setting(),
            "3D000" => Self::new(
                Configuration,
                "the database does not exist; create it, or correct the address",
            ),
            _ if code.starts_with("28") => {
                Self::new(Configuration, "PostgreSQL rejected the user or password")
            }
            _ if code.starts_with("XX") => Self::new(Corrupt, "PostgreSQL found damaged files"),
            _ => Self::new(Other, "PostgreSQL rejected the statement"),
        }
    }
}

impl fmt::Display for PostgresError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text)
    }
}

impl Error for PostgresError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source
            .as_deref()
            .map(|source| source as &(dyn Error + 'static))
    }
}

impl From<PostgresError> for StoreError {
    fn from(error: PostgresError) -> Self {
        Self::new(error.kind, error)
    }
}
