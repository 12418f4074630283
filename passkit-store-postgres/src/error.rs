use std::{error::Error, fmt, sync::Arc, time::Duration};

use passkit_server::store::{StoreError, StoreErrorKind};

/// Why something failed. Its source is the error of the driver, if there is one. A clone can go to every caller whose
/// question shared the statement.
#[derive(Clone, Debug)]
pub(crate) struct PostgresError {
    pub(crate) kind: StoreErrorKind,
    text: &'static str,
    source: Option<Arc<dyn Error + Send + Sync>>,
    /// The connection is of no more use, and others may be like it.
    pub(crate) connection_lost: bool,
    /// The same statement may succeed in a moment.
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

    /// May succeed over another connection.
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
        Self::new(StoreErrorKind::Other, "the statement could not be made").caused_by(error)
    }

    /// For what this crate never wrote.
    pub(crate) fn unreadable(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(
            StoreErrorKind::Corrupt,
            "a row of the database cannot be read",
        )
        .caused_by(error)
    }

    pub(crate) fn stopped() -> Self {
        Self::new(
            StoreErrorKind::Unavailable,
            "the task that asks the database has ended",
        )
    }

    pub(crate) fn no_schema() -> Self {
        Self::new(StoreErrorKind::Configuration, RUN_MIGRATE)
    }

    fn needs_pooler_setting() -> Self {
        Self::new(
            StoreErrorKind::Configuration,
            "there is a transaction pooler before PostgreSQL; say so in the store's configuration",
        )
    }

    pub(crate) fn newer_schema(version: i32, known: i32) -> Self {
        Self::new(
            StoreErrorKind::Configuration,
            "the database was migrated by a newer passkit; use that one",
        )
        .caused_by(format!(
            "its schema has version {version}, this passkit knows {known}"
        ))
    }
}

impl From<sqlx::Error> for PostgresError {
    fn from(error: sqlx::Error) -> Self {
        use StoreErrorKind::{Configuration, Unavailable};
        match &error {
            sqlx::Error::Database(refusal) => {
                let code = refusal.code().unwrap_or_default();
                // PgBouncer has one code for all that it refuses, a server that is down included. Only the text tells a
                // setting that it does not pass on.
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
            _ => Self::new(StoreErrorKind::Other, "PostgreSQL could not be asked").caused_by(error),
        }
    }
}

impl PostgresError {
    /// What a [SQLSTATE](https://www.postgresql.org/docs/current/errcodes-appendix.html) means for a caller.
    fn of_state(code: &str) -> Self {
        use StoreErrorKind::{Configuration, Conflict, Corrupt, Other, Unavailable};
        match code {
            "40001" | "40P01" => {
                let conflict = Self::new(Conflict, "others wrote at the same time");
                Self {
                    retry: true,
                    ..conflict
                }
            }
            "57014" => Self::new(Unavailable, "PostgreSQL cancelled the statement"),
            "55P03" => Self::new(Unavailable, "others have locked what the statement needs"),
            // A primary that has become a replica: another connection may find the new one.
            "25006" => Self::new(Unavailable, "the database is read-only").retried(),
            "53100" => Self::new(Unavailable, "the disk of PostgreSQL is full"),
            _ if code.starts_with("53") => {
                Self::new(Unavailable, "PostgreSQL has run out of a resource").retried()
            }
            _ if code.starts_with("08") || code.starts_with("57P") || code == "25P03" => {
                Self::new(Unavailable, "the connection to PostgreSQL failed").retried()
            }
            _ if code.starts_with("58") => {
                Self::new(Unavailable, "the system under PostgreSQL failed")
            }
            // "cached plan must not change result type": the schema changed under a prepared statement.
            "0A000" => Self::new(Other, "PostgreSQL cannot do this").retried(),
            "42P01" | "3F000" | "42883" | "42703" => Self::no_schema(),
            "42501" => Self::new(
                Configuration,
                "the database user lacks a right on the schema passkit",
            ),
            "26000" | "42P05" => Self::needs_pooler_setting(),
            "3D000" => Self::new(Configuration, "there is no such database"),
            _ if code.starts_with("28") => {
                Self::new(Configuration, "PostgreSQL does not let this user in")
            }
            _ if code.starts_with("XX") => Self::new(Corrupt, "PostgreSQL found its files damaged"),
            _ => Self::new(Other, "PostgreSQL refused the statement"),
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
