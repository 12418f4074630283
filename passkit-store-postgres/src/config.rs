use std::time::Duration;

/// How a [`PostgresStore`](crate::PostgresStore) uses its database.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// The most connections that the store uses at once, of those that its pool has.
    pub connections: u32,
    /// After this long a call fails, whether it waits for a connection, for its statement, or to try again. A mark of
    /// very many passes gets more, 1 ms for five of them. Counting what is in the store may take as long as it takes.
    pub timeout: Duration,
    /// PostgreSQL's `statement_timeout`, where the store [makes the connections](crate::PostgresStore::connect): ends
    /// what a caller who is gone left behind. Zero for none. For a pool of your own, set it there.
    pub statement_timeout: Duration,
    /// Whether there is a pooler in between, PgBouncer for one, that hands out connections for one transaction at a
    /// time, and knows no prepared statements: each call is then a transaction, in four round trips in place of one.
    pub transaction_pooler: bool,
    /// Whether [`migrate`](crate::PostgresStore::migrate) keeps others out with an advisory lock. Switch it off for an
    /// engine that has none, and then see to it that only one migrates.
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

    /// With at most this many connections, at least one.
    #[must_use]
    pub fn connections(mut self, connections: u32) -> Self {
        self.connections = connections;
        self
    }

    /// With this long for a call.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// With this long for a statement, in connections that the store makes.
    #[must_use]
    pub fn statement_timeout(mut self, timeout: Duration) -> Self {
        self.statement_timeout = timeout;
        self
    }

    /// With or without a pooler in between that hands out connections for one transaction at a time.
    #[must_use]
    pub fn transaction_pooler(mut self, between: bool) -> Self {
        self.transaction_pooler = between;
        self
    }

    /// With or without a lock while migrating.
    #[must_use]
    pub fn migration_lock(mut self, lock: bool) -> Self {
        self.migration_lock = lock;
        self
    }
}
