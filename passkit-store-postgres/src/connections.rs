//! How a statement gets to the database and its rows back: with a connection at hand, within a time, and again where
//! that helps.
//!
//! A pool asks the server whether a connection still works whenever it takes one back, and by default whenever it gives
//! one out: two round trips for a call that needs one. So connections in use are kept at hand until they have been idle
//! for [`LINGER`], and a statement that finds its connection dead is sent again over another.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use sqlx::{
    Connection as _, Encode, PgPool, Postgres, Type,
    pool::PoolConnection,
    postgres::{PgArguments, PgRow},
};
use tokio::{
    runtime::Handle,
    sync::Semaphore,
    time::{Instant, sleep, timeout_at},
};

use crate::{config::Config, error::Failure};

/// How long a connection that nobody uses is kept from the others who share the pool.
const LINGER: Duration = Duration::from_millis(250);

/// How often a statement is sent again.
const RETRIES: u32 = 3;

/// What to ask, and how long an answer may take beyond the usual time; `None` for any time.
#[derive(Clone, Debug)]
pub(crate) struct Statement {
    sql: &'static str,
    arguments: PgArguments,
    not_sent: Option<Failure>,
    extra_time: Option<Duration>,
}

impl Statement {
    pub(crate) fn new(sql: &'static str) -> Self {
        Self { sql, arguments: PgArguments::default(), not_sent: None, extra_time: Some(Duration::ZERO) }
    }

    pub(crate) fn bind<'t, T: Encode<'t, Postgres> + Type<Postgres>>(mut self, value: T) -> Self {
        if let Err(error) = sqlx::Arguments::add(&mut self.arguments, value) {
            self.not_sent = Some(Failure::not_sent(error));
        }
        self
    }

    pub(crate) fn extra_time(self, extra_time: Duration) -> Self {
        Self { extra_time: Some(extra_time), ..self }
    }

    pub(crate) fn any_time(self) -> Self {
        Self { extra_time: None, ..self }
    }
}

#[derive(Debug)]
pub(crate) struct Connections {
    pool: PgPool,
    config: Config,
    turns: Semaphore,
    at_hand: Mutex<AtHand>,
}

#[derive(Debug, Default)]
struct AtHand {
    /// The one used last is at the end.
    idle: Vec<(PoolConnection<Postgres>, Instant)>,
    /// A task is there that gives idle connections back to the pool.
    tidying: bool,
    runtime: Option<Handle>,
}

impl Connections {
    pub(crate) fn new(pool: PgPool, config: Config) -> Arc<Self> {
        let most = config.connections.min(pool.options().get_max_connections()).max(1);
        let turns = Semaphore::new(most as usize);
        Arc::new(Self { pool, config, turns, at_hand: Mutex::default() })
    }

    pub(crate) fn pool(&self) -> &PgPool {
        &self.pool
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// The rows that a statement gives which may be sent twice.
    pub(crate) async fn fetch(self: &Arc<Self>, statement: Statement) -> Result<Vec<PgRow>, Failure> {
        if let Some(failure) = statement.not_sent {
            return Err(failure);
        }
        let started = Instant::now();
        let most =
            statement.extra_time.map_or(Duration::from_secs(86_400), |extra| self.config.timeout + extra);
        let deadline = started + most;
        let mut pause = Duration::from_millis(10);
        let mut retries = 0;
        loop {
            let failure = match self.try_fetch(&statement, deadline, most, retries > 0).await {
                Ok(rows) => return Ok(rows),
                Err(failure) => failure,
            };
            if failure.connection_lost {
                // Those at hand may be no better; the pool finds out.
                self.at_hand().idle.clear();
            }
            retries += 1;
            if !failure.retry || retries > RETRIES || Instant::now() + pause >= deadline {
                return Err(failure);
            }
            tracing::debug!(%failure, retries, "sending a statement again");
            sleep(pause).await;
            pause *= 5;
        }
    }

    async fn try_fetch(
        self: &Arc<Self>,
        statement: &Statement,
        deadline: Instant,
        most: Duration,
        distrust: bool,
    ) -> Result<Vec<PgRow>, Failure> {
        let connecting = deadline.min(Instant::now() + self.config.timeout);
        let no_connection = |_| Failure::no_connection(self.config.timeout);
        let turn = timeout_at(connecting, self.turns.acquire()).await.map_err(no_connection)?;
        let mut connection =
            timeout_at(connecting, self.connection(distrust)).await.map_err(no_connection)??;
        let asked = timeout_at(deadline, self.ask(&mut connection, statement)).await;
        let answer = asked.map_err(|_| Failure::too_slow(most)).and_then(|rows| Ok(rows?));
        if answer.as_ref().err().is_none_or(|failure| !failure.connection_lost) {
            self.keep(connection);
        } else {
            connection.close_on_drop();
        }
        // Not before the connection is at hand for the next.
        drop(turn);
        answer
    }

    async fn ask(
        &self,
        connection: &mut sqlx::PgConnection,
        statement: &Statement,
    ) -> Result<Vec<PgRow>, sqlx::Error> {
        let query = sqlx::query_with(statement.sql, statement.arguments.clone());
        if !self.config.transaction_pooler {
            return query.fetch_all(connection).await;
        }
        // A statement is made and used in two steps, which reach the same server only within a transaction.
        let mut transaction = connection.begin().await?;
        let rows = query.persistent(false).fetch_all(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(rows)
    }

    /// A connection that may have died since it was used last, unless the caller distrusts it.
    async fn connection(&self, distrust: bool) -> Result<PoolConnection<Postgres>, Failure> {
        if !distrust && let Some((connection, _)) = self.at_hand().idle.pop() {
            return Ok(connection);
        }
        loop {
            let mut connection = self.pool.acquire().await?;
            if !distrust || connection.ping().await.is_ok() {
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
            let old = at_hand.idle.iter().take_while(|(_, since)| now - *since >= LINGER).count();
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
    /// A connection goes back to its pool by way of a task, and panics where it cannot start one.
    fn drop(&mut self) {
        let mut at_hand = self.at_hand();
        let runtime = at_hand.runtime.take();
        let _inside = runtime.as_ref().map(Handle::enter);
        at_hand.idle.clear();
    }
}
