use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use passkit_server::{identifiers::TypeIdentifier, store::StoreError};
use sqlx::{
    Connection as _, PgConnection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use crate::{
    batches::{Lists, Marks, Registers, States},
    config::Config,
    engine::{
        batch::Batcher,
        connections::{Connections, Statement},
        migrate,
    },
    error::PostgresError,
};

/// A store in the schema `passkit` of a PostgreSQL database, for any number of instances at once. It implements all store
/// traits.
///
/// Clones share their connections.
///
/// # Errors
/// * [`Unavailable`](passkit_server::store::StoreErrorKind::Unavailable) while the database is down, full, read-only or too
///   slow.
/// * [`Conflict`](passkit_server::store::StoreErrorKind::Conflict) if another transaction wrote the same rows at the same
///   time.
/// * [`Configuration`](passkit_server::store::StoreErrorKind::Configuration) before [`migrate`](Self::migrate), and if the
///   user lacks rights.
///
/// If a retry may help, the store retries within [`Config::timeout`] before the call fails.
///
/// If a connection breaks after a statement was sent, the statement may have run. The store sends it again. If the first
/// statement ran, `register` may return `Existing`, and `unregister` and `forget_device` may return `false`, although this
/// call made the change. `replace_note` is not sent again: it fails.
///
/// The source of a [`StoreError`] has the [`sqlx::Error`] as its source.
#[derive(Clone, Debug)]
pub struct PostgresStore {
    parts: Arc<Parts>,
}

#[derive(Debug)]
struct Parts {
    connections: Arc<Connections>,
    lists: Batcher<Lists>,
    states: Batcher<States>,
    registers: Batcher<Registers>,
    marks: Mutex<MarksByType>,
}

/// Each type that was ever marked has one batcher for marks without pushes, and one for marks with pushes. There are few
/// types.
type MarksByType = HashMap<(TypeIdentifier, bool), Arc<Batcher<Marks>>>;

impl PostgresStore {
    /// Makes a store over your own pool, with the default configuration. The call does not use the database yet.
    #[must_use]
    pub fn new(pool: PgPool) -> Self {
        Self::with_config(pool, Config::default())
    }

    /// Makes a store over your own pool. The call does not use the database yet.
    #[must_use]
    pub fn with_config(pool: PgPool, config: Config) -> Self {
        let connections = Connections::new(pool, config);
        Self {
            parts: Arc::new(Parts {
                lists: Batcher::new(Lists, connections.clone()),
                states: Batcher::new(States, connections.clone()),
                registers: Batcher::new(Registers, connections.clone()),
                marks: Mutex::default(),
                connections,
            }),
        }
    }

    /// Connects to `postgres://user:password@host:port/database`. Makes a pool that only the store uses.
    ///
    /// # Errors
    /// Fails if the address is not valid, or the server does not accept a connection within [`Config::timeout`].
    pub async fn connect(url: &str, config: Config) -> Result<Self, StoreError> {
        let mut options: PgConnectOptions = url
            .parse()
            .map_err(|error| PostgresError::bad_address(&error))?;
        if config.transaction_pooler {
            // A transaction pooler refuses settings that it does not know.
            options = options.extra_float_digits(None).statement_cache_capacity(0);
        } else {
            // Statements are short, so compiling one takes longer than it saves.
            options = options.options([("jit", "off")]);
            if !config.statement_timeout.is_zero() {
                let milliseconds = config.statement_timeout.as_millis().max(1).to_string();
                options = options.options([("statement_timeout", milliseconds)]);
            }
        }
        // The first connection is made without the pool, which would hide the cause of an error.
        let first =
            tokio::time::timeout(config.timeout, PgConnection::connect_with(&options)).await;
        let first = first
            .map_err(|_| PostgresError::no_connection(config.timeout))?
            .map_err(PostgresError::from)?;
        first.close().await.map_err(PostgresError::from)?;
        let pool = PgPoolOptions::new()
            .max_connections(config.connections.max(1))
            .acquire_timeout(config.timeout)
            .test_before_acquire(false)
            .connect_lazy_with(options);
        Ok(Self::with_config(pool, config))
    }

    /// Returns the pool that the store uses.
    #[must_use]
    pub fn pool(&self) -> &PgPool {
        self.connections().pool()
    }

    /// Makes or updates the schema `passkit` in one transaction. Does nothing if the schema is up to date. The list of the
    /// migrations that were run is in that schema too, separate from the migrations of your own tables.
    ///
    /// # Errors
    /// Fails if a newer version of this crate has made the schema and this version can't use it, or the user lacks the rights to
    /// make it.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        let mut connection = self.pool().acquire().await.map_err(PostgresError::from)?;
        Ok(migrate::migrate(&mut connection, self.connections().config().migration_lock).await?)
    }

    /// Checks that the database can be reached, and has the schema that this version expects. Call it when the program
    /// starts, so that a wrong setup is reported at once.
    ///
    /// # Errors
    /// Same errors as [`PostgresStore`].
    pub async fn check(&self) -> Result<(), StoreError> {
        let mut connection = self.pool().acquire().await.map_err(PostgresError::from)?;
        Ok(migrate::check(&mut connection).await?)
    }

    pub(crate) fn connections(&self) -> &Arc<Connections> {
        &self.parts.connections
    }

    pub(crate) fn lists(&self) -> &Batcher<Lists> {
        &self.parts.lists
    }

    pub(crate) fn states(&self) -> &Batcher<States> {
        &self.parts.states
    }

    pub(crate) fn registers(&self) -> &Batcher<Registers> {
        &self.parts.registers
    }

    pub(crate) fn marks(&self, type_id: &TypeIdentifier, push: bool) -> Arc<Batcher<Marks>> {
        let mut marks = self
            .parts
            .marks
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let new = || {
            let work = Marks {
                type_id: type_id.clone(),
                push,
            };
            Arc::new(Batcher::new(work, self.parts.connections.clone()))
        };
        marks
            .entry((type_id.clone(), push))
            .or_insert_with(new)
            .clone()
    }

    /// Runs a statement and ignores its rows.
    pub(crate) async fn execute(&self, statement: Statement) -> Result<(), PostgresError> {
        self.connections().fetch(statement).await?;
        Ok(())
    }
}
