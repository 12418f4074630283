use std::time::Duration;

/// How a [`PostgresStore`](crate::PostgresStore) uses its database.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// The most connections that the store uses at once, of those that its pool has.
    pub connections: u32,
    /// A call fails after this time, whether it waits for a connection, for its statement, or to try again. A call with
    /// so much that it takes several statements has this time for each. Counting what is in the store has no limit.
    pub timeout: Duration,
    /// PostgreSQL's `statement_timeout`, if the store [makes the connections](crate::PostgresStore::connect): it ends the
    /// statements of callers that are gone. Zero for none. For a pool of your own, set it there.
    pub statement_timeout: Duration,
    /// Whether a pooler such as PgBouncer hands out connections for one transaction at a time, and knows no prepared
    /// statements. Each call is then a transaction, in four round trips instead of one.
    pub transaction_pooler: bool,
    /// Whether [`migrate`](crate::PostgresStore::migrate) keeps others out with an advisory lock. Switch it off for an
    /// engine that has none, and let only one process migrate.
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
    /// The defaults: 8 connections, 5 s for a call, 30 s for a statement, no pooler, a lock while migrating.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the number of connections, at least one.
    #[must_use]
    pub fn connections(mut self, connections: u32) -> Self {
        self.connections = connections;
        self
    }

    /// Sets the time for a call.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets the time for a statement, in connections that the store makes.
    #[must_use]
    pub fn statement_timeout(mut self, timeout: Duration) -> Self {
        self.statement_timeout = timeout;
        self
    }

    /// Sets whether there is a transaction pooler.
    #[must_use]
    pub fn transaction_pooler(mut self, is_there: bool) -> Self {
        self.transaction_pooler = is_there;
        self
    }

    /// Sets whether migrating takes a lock.
    #[must_use]
    pub fn migration_lock(mut self, lock: bool) -> Self {
        self.migration_lock = lock;
        self
    }
}
