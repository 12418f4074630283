use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use async_trait::async_trait;
use passkit_server::{
    Changes, DeviceIdentifier, DevicePage, PageCursor, PassId, PassState, PushToken, Registered,
    RegisteredDevice, RegistrationStore, SerialNumber, StoreError, TypeIdentifier, UpdateTag, clock,
};
use sqlx::{
    Connection as _, PgConnection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use crate::{
    batch::Batcher,
    calls::{ListQuestion, Lists, Marks, Registers, States, column, identifier, only, signed},
    config::Config,
    connections::{Connections, Statement},
    error::Failure,
    migrate, schema,
};

/// A [`RegistrationStore`] in the schema `passkit` of a PostgreSQL database, for any number of instances at once.
///
/// Share it in an [`Arc`], or clone it: clones are one store.
///
/// # Errors
/// [`Unavailable`](passkit_server::StoreErrorKind::Unavailable) while the database is down, full, read-only or too
/// slow, and [`Conflict`](passkit_server::StoreErrorKind::Conflict) where others got in the way, both after trying
/// again within [`Config::timeout`] where that helps; [`Configuration`](passkit_server::StoreErrorKind::Configuration)
/// before [`migrate`](Self::migrate), and where the user has no rights. When a connection breaks after a statement was
/// sent, it is sent again, and its first sending may have happened: `register` may then say `Existing`, `unregister`
/// and `forget_device` `false`, for what this very call did.
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
    marks: Mutex<MarksOf>,
}

/// One for each type that was ever marked, of which there are few, and one where the pushes were owed too.
type MarksOf = HashMap<(TypeIdentifier, bool), Arc<Batcher<Marks>>>;

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
    /// Unless there is a [transaction pooler](Config::transaction_pooler), its connections have
    /// [`Config::statement_timeout`] and `jit = off`.
    ///
    /// # Errors
    /// If the address cannot be read, or the server does not let us in within [`Config::timeout`].
    pub async fn connect(url: &str, config: Config) -> Result<Self, StoreError> {
        let mut options: PgConnectOptions = url.parse().map_err(Failure::from)?;
        if config.transaction_pooler {
            // What such a pooler does not know, it refuses.
            options = options.extra_float_digits(None).statement_cache_capacity(0);
        } else {
            // Every statement is short. Compiling it takes longer than running it.
            options = options.options([("jit", "off")]);
            if !config.statement_timeout.is_zero() {
                let milliseconds = config.statement_timeout.as_millis().max(1).to_string();
                options = options.options([("statement_timeout", milliseconds)]);
            }
        }
        // The pool would keep the reason to itself.
        let first = tokio::time::timeout(config.timeout, PgConnection::connect_with(&options)).await;
        let first = first.map_err(|_| Failure::no_connection(config.timeout))?.map_err(Failure::from)?;
        first.close().await.map_err(Failure::from)?;
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

    /// Makes or updates the schema `passkit`, in one transaction; does nothing if it is up to date. Keeps a list of
    /// what it did in that schema, beside no list of yours.
    ///
    /// # Errors
    /// If the schema was made by a newer version of this crate, or the user may not make it.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        let mut connection = self.pool().acquire().await.map_err(Failure::from)?;
        Ok(migrate::migrate(&mut connection, self.connections().config().migration_lock).await?)
    }

    /// Fails unless the database is reached and its schema is the one that this version expects: for a start that says
    /// at once what is wrong.
    ///
    /// # Errors
    /// As every call does.
    pub async fn check(&self) -> Result<(), StoreError> {
        let mut connection = self.pool().acquire().await.map_err(Failure::from)?;
        Ok(migrate::check(&mut connection).await?)
    }

    pub(crate) fn connections(&self) -> &Arc<Connections> {
        &self.parts.connections
    }

    pub(crate) fn marks_of(&self, type_id: &TypeIdentifier, owe: bool) -> Arc<Batcher<Marks>> {
        let mut marks = self.parts.marks.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || {
            let work = Marks { type_id: type_id.clone(), owe };
            Arc::new(Batcher::new(work, self.parts.connections.clone()))
        };
        marks.entry((type_id.clone(), owe)).or_insert_with(new).clone()
    }
}

/// Marks passes as [`mark_updated`](RegistrationStore::mark_updated) does, in a transaction of yours: content and mark
/// then commit together, or not at all.
///
/// The row of the type is locked until the transaction ends, and all other marks of the type wait for it. So mark last,
/// just before the commit; and where a transaction marks several types, mark them in the order of [`TypeIdentifier`]:
/// two that do so never wait for each other. The store itself holds no other lock while it waits for a type's.
///
/// # Errors
/// As every call does; nothing is tried again, and the transaction is then of no more use.
pub async fn mark_updated_in(
    connection: &mut PgConnection,
    type_id: &TypeIdentifier,
    serials: &[SerialNumber],
) -> Result<(), StoreError> {
    mark_in(connection, schema::MARK, type_id, serials).await
}

/// Marks passes as [`mark_updated_in`] does, and owes the pushes as
/// [`mark_and_owe`](passkit_server::PushQueue::mark_and_owe) does: content, mark and pushes then commit together, or not
/// at all.
///
/// # Errors
/// As [`mark_updated_in`].
pub async fn mark_and_owe_in(
    connection: &mut PgConnection,
    type_id: &TypeIdentifier,
    serials: &[SerialNumber],
) -> Result<(), StoreError> {
    mark_in(connection, schema::MARK_AND_OWE, type_id, serials).await
}

async fn mark_in(
    connection: &mut PgConnection,
    mark: &'static str,
    type_id: &TypeIdentifier,
    serials: &[SerialNumber],
) -> Result<(), StoreError> {
    if serials.is_empty() {
        return Ok(());
    }
    let serials: Vec<_> = serials.iter().map(SerialNumber::as_str).collect();
    let mark = sqlx::query(mark).bind(type_id.as_str()).bind(serials);
    mark.execute(connection).await.map_err(Failure::from)?;
    Ok(())
}

pub(crate) fn limit_of(limit: usize) -> i64 {
    i64::try_from(limit.max(1)).unwrap_or(i64::MAX)
}

#[async_trait]
impl RegistrationStore for PostgresStore {
    async fn register(
        &self,
        device: &DeviceIdentifier,
        pass: &PassId,
        push_token: &PushToken,
    ) -> Result<Registered, StoreError> {
        Ok(self.parts.registers.ask((device.clone(), pass.clone(), push_token.clone())).await?)
    }

    async fn unregister(&self, device: &DeviceIdentifier, pass: &PassId) -> Result<bool, StoreError> {
        let statement = Statement::new(schema::UNREGISTER)
            .bind(device.as_str())
            .bind(pass.type_id.as_str())
            .bind(pass.serial.as_str());
        Ok(only(&self.connections().fetch(statement).await?)?)
    }

    async fn updated_since(
        &self,
        device: &DeviceIdentifier,
        type_id: &TypeIdentifier,
        since: Option<UpdateTag>,
    ) -> Result<Changes, StoreError> {
        let question = ListQuestion { device: device.clone(), type_id: type_id.clone(), since };
        Ok(self.parts.lists.ask(question).await?)
    }

    async fn mark_updated(
        &self,
        type_id: &TypeIdentifier,
        serials: &[SerialNumber],
    ) -> Result<(), StoreError> {
        if serials.is_empty() {
            return Ok(());
        }
        Ok(self.marks_of(type_id, false).ask(serials.to_vec()).await?)
    }

    async fn mark_all_updated(&self, type_id: &TypeIdentifier) -> Result<(), StoreError> {
        let statement = Statement::new(schema::MARK_ALL).bind(type_id.as_str());
        only::<i64>(&self.connections().fetch(statement).await?)?;
        Ok(())
    }

    async fn pass_state(&self, pass: &PassId) -> Result<PassState, StoreError> {
        Ok(self.parts.states.ask(pass.clone()).await?)
    }

    async fn devices_of(
        &self,
        pass: &PassId,
        after: Option<&PageCursor>,
        limit: usize,
    ) -> Result<DevicePage, StoreError> {
        // A position is the last device of a page; one that the store never gave reads from the start.
        let after = after.and_then(|cursor| DeviceIdentifier::new(cursor.as_str()).ok());
        let statement = Statement::new(schema::DEVICES_OF)
            .bind(pass.type_id.as_str())
            .bind(pass.serial.as_str())
            .bind(after.as_ref().map_or("", |device| device.as_str()))
            .bind(limit_of(limit));
        let rows = self.connections().fetch(statement).await?;
        let devices = rows.iter().map(|row| {
            Ok(RegisteredDevice {
                device: identifier(column(row, 0)?, DeviceIdentifier::new)?,
                push_token: identifier(column(row, 1)?, PushToken::new)?,
            })
        });
        let devices = devices.collect::<Result<Vec<_>, Failure>>()?;
        let full = devices.len() as i64 >= limit_of(limit);
        let next = devices.last().filter(|_| full).map(|last| PageCursor::new(last.device.as_str()));
        Ok(DevicePage { devices, next })
    }

    async fn forget_device(
        &self,
        device: &DeviceIdentifier,
        unregistered_at: SystemTime,
    ) -> Result<bool, StoreError> {
        let statement =
            Statement::new(schema::FORGET).bind(device.as_str()).bind(signed(clock::micros(unregistered_at)));
        Ok(only(&self.connections().fetch(statement).await?)?)
    }
}
