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
    changes::{Lists, Marks, States},
    config::Config,
    engine::{
        batch::Batcher,
        connections::{Connections, Statement},
        migrate,
    },
    error::PostgresError,
    registrations::Registers,
};

/// All traits of a store in the schema `passkit` of a PostgreSQL database, for any number of instances at once.
///
/// Share it in an [`Arc`], or clone it: clones are one store.
///
/// # Errors
/// * [`Unavailable`](passkit_server::store::StoreErrorKind::Unavailable) while the database is down, full, read-only or too slow,
///   and [`Conflict`](passkit_server::store::StoreErrorKind::Conflict) if others wrote at the same time. Both come only after
///   trying again within [`Config::timeout`], if that may help.
/// * [`Configuration`](passkit_server::store::StoreErrorKind::Configuration) before [`migrate`](Self::migrate), and if the user
///   has no rights.
///
/// If a connection breaks after a statement was sent, the statement is sent again, and the first one may have happened:
/// `register` may then return `Existing`, and `unregister` and `forget_device` `false`, for what this very call did.
/// `replace_note` fails instead.
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

/// One for each type that was ever marked, which are few, and another one for marks with pushes.
type MarksByType = HashMap<(TypeIdentifier, bool), Arc<Batcher<Marks>>>;

impl PostgresStore {
    /// A store over your own pool, with the default configuration. Asks nothing of the database yet.
    #[must_use]
    pub fn new(pool: PgPool) -> Self {
        Self::with_config(pool, Config::default())
    }

    /// A store over your own pool.
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

    /// Connects to `postgres://user:password@host:port/database` and makes a pool for the store alone.
    ///
    /// # Errors
    /// If the address can't be read, or the server doesn't let us in within [`Config::timeout`].
    pub async fn connect(url: &str, config: Config) -> Result<Self, StoreError> {
        let mut options: PgConnectOptions = url.parse().map_err(PostgresError::from)?;
        if config.transaction_pooler {
            // Such a pooler refuses settings that it does not know.
            options = options.extra_float_digits(None).statement_cache_capacity(0);
        } else {
            // Every statement is short: compiling one takes longer than it could save.
            options = options.options([("jit", "off")]);
            if !config.statement_timeout.is_zero() {
                let milliseconds = config.statement_timeout.as_millis().max(1).to_string();
                options = options.options([("statement_timeout", milliseconds)]);
            }
        }
        // The pool would hide the reason.
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

    /// The pool.
    #[must_use]
    pub fn pool(&self) -> &PgPool {
        self.connections().pool()
    }

    /// Makes or updates the schema `passkit` in one transaction. Does nothing if it is up to date. The list of what was
    /// done is in that schema too, apart from any list of yours.
    ///
    /// # Errors
    /// If the schema was made by a newer version of this crate, or the user may not make it.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        let mut connection = self.pool().acquire().await.map_err(PostgresError::from)?;
        Ok(migrate::migrate(&mut connection, self.connections().config().migration_lock).await?)
    }

    /// Fails unless the database can be reached and its schema is the one that this version expects. A program that calls
    /// it first reports at once what is wrong.
    ///
    /// # Errors
    /// The same errors as every call.
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

    /// Sends a statement whose rows say nothing.
    pub(crate) async fn execute(&self, statement: Statement) -> Result<(), PostgresError> {
        self.connections().fetch(statement).await?;
        Ok(())
    }
}
