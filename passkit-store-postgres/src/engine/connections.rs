//! Sends statements with a time limit, and retries them if that may help.
//!
//! A pool checks a connection when the connection comes back, and by default also before it hands out the connection. These
//! checks are two round trips, and a call needs only one. So the store keeps its connections at hand until they have been
//! idle for [`LINGER`]. If a connection turns out to be broken, the statement is sent again over another one.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use sqlx::{
    Connection as _, Encode, PgConnection, PgPool, Postgres, Type,
    pool::PoolConnection,
    postgres::{PgArguments, PgRow},
};
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep, timeout_at},
};

use crate::{config::Config, error::PostgresError};

/// How long the store keeps an idle connection before it returns it to the pool.
const LINGER: Duration = Duration::from_millis(250);

/// The maximum number of times that a statement is sent again.
const RETRIES: u32 = 3;

/// The time limit of a statement that has no limit.
const DAY: Duration = Duration::from_secs(86_400);

/// A statement with its parameters.
#[derive(Clone, Debug)]
pub(crate) struct Statement {
    sql: &'static str,
    arguments: PgArguments,
    not_sent: Option<PostgresError>,
    has_time_limit: bool,
    may_repeat: bool,
}

impl Statement {
    /// A statement that may be sent twice, with the usual time limit.
    pub(crate) fn new(sql: &'static str) -> Self {
        let arguments = PgArguments::default();
        Self {
            sql,
            arguments,
            not_sent: None,
            has_time_limit: true,
            may_repeat: true,
        }
    }

    pub(crate) fn bind<'t, T: Encode<'t, Postgres> + Type<Postgres>>(mut self, value: T) -> Self {
        if let Err(error) = sqlx::Arguments::add(&mut self.arguments, value) {
            self.not_sent = Some(PostgresError::not_sent(error));
        }
        self
    }

    /// Removes the time limit.
    pub(crate) fn without_time_limit(self) -> Self {
        Self {
            has_time_limit: false,
            ..self
        }
    }

    /// Forbids sending the statement again if it may have run.
    pub(crate) fn once(self) -> Self {
        Self {
            may_repeat: false,
            ..self
        }
    }

    /// Runs the statement over this connection, and ignores its rows.
    pub(crate) async fn execute(self, connection: &mut PgConnection) -> Result<(), PostgresError> {
        if let Some(error) = self.not_sent {
            return Err(error);
        }
        sqlx::query_with(self.sql, self.arguments)
            .execute(connection)
            .await?;
        Ok(())
    }
}

#[derive(Debug)]
pub(crate) struct Connections {
    pool: PgPool,
    config: Config,
    turns: Arc<Semaphore>,
    at_hand: Mutex<AtHand>,
}

#[derive(Debug, Default)]
struct AtHand {
    /// The connection that was used last is at the end.
    idle: Vec<(PoolConnection<Postgres>, Instant)>,
    /// Whether a task is running that returns idle connections to the pool.
    tidying: bool,
    runtime: Option<Handle>,
}

impl Connections {
    pub(crate) fn new(pool: PgPool, config: Config) -> Arc<Self> {
        let most = config
            .connections
            .min(pool.options().get_max_connections())
            .max(1);
        let turns = Arc::new(Semaphore::new(most as usize));
        Arc::new(Self {
            pool,
            config,
            turns,
            at_hand: Mutex::default(),
        })
    }

    pub(crate) fn pool(&self) -> &PgPool {
        &self.pool
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// Runs a statement and returns its rows.
    pub(crate) async fn fetch(
        self: &Arc<Self>,
        statement: Statement,
    ) -> Result<Vec<PgRow>, PostgresError> {
        if let Some(error) = statement.not_sent {
            return Err(error);
        }
        let time = if statement.has_time_limit {
            self.config.timeout
        } else {
            DAY
        };
        let deadline = Instant::now() + time;
        let mut pause = Duration::from_millis(10);
        let mut retries = 0;
        loop {
            // An idle connection may be broken. A statement that can't be sent again must not fail because of that, so
            // the store checks the connection first.
            let try_connection = retries > 0 || !statement.may_repeat;
            let error = match self
                .try_fetch(&statement, deadline, time, try_connection)
                .await
            {
                Ok(rows) => return Ok(rows),
                Err(error) => error,
            };
            if error.connection_lost {
                // The other connections at hand may be broken too. The pool will check them.
                self.at_hand().idle.clear();
            }
            retries += 1;
            let may_retry = error.retry && (statement.may_repeat || !error.connection_lost);
            if !may_retry || retries > RETRIES || Instant::now() + pause >= deadline {
                return Err(error);
            }
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                retries,
                "sending a statement again"
            );
            sleep(pause).await;
            pause *= 5;
        }
    }

    async fn try_fetch(
        self: &Arc<Self>,
        statement: &Statement,
        deadline: Instant,
        time: Duration,
        try_connection: bool,
    ) -> Result<Vec<PgRow>, PostgresError> {
        let connecting = deadline.min(Instant::now() + self.config.timeout);
        let no_connection = |_| PostgresError::no_connection(self.config.timeout);
        let turn = timeout_at(connecting, self.turns.clone().acquire_owned())
            .await
            .map_err(no_connection)?;
        let turn = turn.map_err(|_| PostgresError::stopped())?;
        let connection = timeout_at(connecting, self.connection(try_connection))
            .await
            .map_err(no_connection)??;
        let asking = self
            .clone()
            .ask_until(deadline, time, connection, statement.clone(), turn);
        if self.config.transaction_pooler {
            // The task goes on if the call is dropped. If a `begin` were dropped half way, sqlx would leave the transaction
            // open, and the pooler would have one connection fewer.
            tokio::spawn(asking)
                .await
                .unwrap_or_else(|_| Err(PostgresError::stopped()))
        } else {
            asking.await
        }
    }

    async fn ask_until(
        self: Arc<Self>,
        deadline: Instant,
        time: Duration,
        mut connection: PoolConnection<Postgres>,
        statement: Statement,
        turn: OwnedSemaphorePermit,
    ) -> Result<Vec<PgRow>, PostgresError> {
        let asked = timeout_at(deadline, self.ask(&mut connection, statement)).await;
        let answer = asked
            .map_err(|_| PostgresError::too_slow(time))
            .and_then(|rows| Ok(rows?));
        if answer
            .as_ref()
            .err()
            .is_none_or(|error| !error.connection_lost)
        {
            self.keep(connection);
        } else {
            connection.close_on_drop();
        }
        // The turn ends only now, so that the next caller finds the connection at hand.
        drop(turn);
        answer
    }

    async fn ask(
        &self,
        connection: &mut PgConnection,
        statement: Statement,
    ) -> Result<Vec<PgRow>, sqlx::Error> {
        let query = sqlx::query_with(statement.sql, statement.arguments);
        if !self.config.transaction_pooler {
            return query.fetch_all(connection).await;
        }
        // The pooler may use different connections to prepare and to run a statement, unless both are in one transaction.
        let mut transaction = connection.begin().await?;
        let rows = query.persistent(false).fetch_all(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(rows)
    }

    /// Returns a connection. With `try_first`, checks that it works.
    async fn connection(&self, try_first: bool) -> Result<PoolConnection<Postgres>, PostgresError> {
        loop {
            let at_hand = self.at_hand().idle.pop();
            let mut connection = match at_hand {
                Some((connection, _)) => connection,
                None => self.pool.acquire().await?,
            };
            if !try_first || connection.ping().await.is_ok() {
                return Ok(connection);
            }
            connection.close_on_drop();
        }
    }

    fn at_hand(&self) -> MutexGuard<'_, AtHand> {
        self.at_hand.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(self: &Arc<Self>, connection: PoolConnection<Postgres>) {
        let mut at_hand = self.at_hand();
        at_hand.runtime = Some(Handle::current());
        at_hand.idle.push((connection, Instant::now()));
        if !at_hand.tidying {
            at_hand.tidying = true;
            tokio::spawn(self.clone().tidy());
        }
    }

    async fn tidy(self: Arc<Self>) {
        loop {
            sleep(LINGER).await;
            let now = Instant::now();
            let mut at_hand = self.at_hand();
            let old = at_hand
                .idle
                .iter()
                .take_while(|(_, since)| now - *since >= LINGER)
                .count();
            let old: Vec<_> = at_hand.idle.drain(..old).collect();
            at_hand.tidying = !at_hand.idle.is_empty();
            let done = !at_hand.tidying;
            drop(at_hand);
            drop(old);
            if done {
                return;
            }
        }
    }
}

impl Drop for Connections {
    /// sqlx returns a dropped connection to its pool in a new task, and a task can't be started outside a runtime. The
    /// store may be dropped outside one, so this enters the runtime that was used last.
    fn drop(&mut self) {
        let mut at_hand = self.at_hand();
        let runtime = at_hand.runtime.take();
        let _inside = runtime.as_ref().map(Handle::enter);
        at_hand.idle.clear();
    }
}
