use std::time::Duration;

/// How a [`PostgresStore`](crate::PostgresStore) uses its database.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// The number of connections that the store uses at once. The size of its pool is a further limit.
    pub connections: u32,
    /// The time that a call may take, including the wait for a connection and retries. A large call consists of several
    /// statements, each with this limit. Counting the registrations has no time limit.
    pub timeout: Duration,
    /// PostgreSQL's `statement_timeout` for connections that the store [makes](crate::PostgresStore::connect). It ends the
    /// statements of calls that were dropped. Zero means no limit. If you have a pool of your own, set it there.
    pub statement_timeout: Duration,
    /// Whether a pooler such as PgBouncer assigns a connection for one transaction at a time, and does not support prepared
    /// statements. Each call is then a transaction of four round trips instead of one.
    pub transaction_pooler: bool,
    /// Whether [`migrate`](crate::PostgresStore::migrate) takes an advisory lock. Switch it off for a database without
    /// advisory locks, and let only one process migrate.
    pub migration_lock: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            connections: 8,
            timeout: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(30),
            transaction_pooler: false,
            migration_lock: true,
        }
    }
}

impl Config {
    /// Returns the defaults: 8 connections, a timeout of 5 s, a statement timeout of 30 s, no pooler, a lock for migrations.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets [`connections`](Self::connections). Zero counts as one.
    #[must_use]
    pub fn connections(mut self, connections: u32) -> Self {
        self.connections = connections;
        self
    }

    /// Sets [`timeout`](Self::timeout).
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets [`statement_timeout`](Self::statement_timeout).
    #[must_use]
    pub fn statement_timeout(mut self, timeout: Duration) -> Self {
        self.statement_timeout = timeout;
        self
    }

    /// Sets [`transaction_pooler`](Self::transaction_pooler).
    #[must_use]
    pub fn transaction_pooler(mut self, is_there: bool) -> Self {
        self.transaction_pooler = is_there;
        self
    }

    /// Sets [`migration_lock`](Self::migration_lock).
    #[must_use]
    pub fn migration_lock(mut self, lock: bool) -> Self {
        self.migration_lock = lock;
        self
    }
}
