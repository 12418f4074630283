//! Connections to the database and the threads that use them, so that no async thread ever waits for a disk or a lock.

mod checkpoints;
mod readers;
mod writer;

use std::{path::Path, time::Duration};

use passkit_server::store::StoreError;
use rusqlite::{Connection, OpenFlags};

use self::{checkpoints::Checkpoints, readers::Readers, writer::Writer};
use crate::{config::Config, error::SqliteError};

/// The number of threads for long reads: pages of devices, counts, backups. Quick reads don't wait for them.
const SCANNERS: usize = 2;

/// How many quick reads may share a snapshot. Other threads take the rest.
const READ_GROUP: usize = 16;

/// The pause before trying again to get a lock that another program has.
pub(crate) const POLL: Duration = Duration::from_millis(5);

#[derive(Debug)]
pub(crate) struct Engine {
    // The fields are dropped in this order. The connection that closes last removes the log, so it must be the writer's.
    readers: Readers,
    scanners: Readers,
    writer: Writer,
}

impl Engine {
    /// Starts the threads for the store in `path`. `writing` is the connection of the writer.
    pub(crate) fn start(
        path: &Path,
        config: &Config,
        writing: Connection,
    ) -> Result<Self, SqliteError> {
        let readers = config.readers.max(1);
        let kib = config.cache_bytes / 1024 / (readers + SCANNERS + 1) as u64;
        let set_cache = |connection: &Connection| {
            connection
                .pragma_update(None, "cache_size", -i64::try_from(kib).unwrap_or(i64::MAX))
                .map_err(|error| SqliteError::sqlite(path, error))
        };
        let pool = |threads: usize, group: usize| {
            let connections = (0..threads).map(|_| {
                let connection = connect(path, config.lock_timeout)?;
                set_cache(&connection)?;
                let read_only = connection.pragma_update(None, "query_only", true);
                read_only.map_err(|error| SqliteError::sqlite(path, error))?;
                Ok(connection)
            });
            Readers::start(
                path,
                connections.collect::<Result<_, SqliteError>>()?,
                group,
            )
        };
        set_cache(&writing)?;
        let checkpoints = Checkpoints::start(path, connect(path, config.lock_timeout)?)?;
        Ok(Self {
            readers: pool(readers, READ_GROUP)?,
            scanners: pool(SCANNERS, 1)?,
            writer: Writer::start(path, config.lock_timeout, writing, checkpoints)?,
        })
    }

    /// Runs a read that takes microseconds.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        Ok(self.readers.ask(question).await?)
    }

    /// Runs a read that takes longer.
    pub(crate) async fn scan<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        Ok(self.scanners.ask(question).await?)
    }

    /// Makes a change. Returns when it is durable. The change may run more than once. Every run but the last is rolled back.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        change: impl FnMut(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        Ok(self.writer.ask(change).await?)
    }
}

/// Connects to the existing database in `path`. An empty file becomes a database. SQLite creates the log with
/// the same permissions as the file.
pub(crate) fn connect(path: &Path, lock_timeout: Duration) -> Result<Connection, SqliteError> {
    let failed = |error| SqliteError::sqlite(path, error);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    // If this user may not write the file, SQLite opens it for reading without an error.
    if connection.is_readonly("main").map_err(failed)? {
        let text = "can't be written to; give this user the right to write it and its folder";
        return Err(SqliteError::configuration(format!(
            "{} {text}",
            path.display()
        )));
    }
    set_up(&connection, lock_timeout).map_err(failed)?;
    Ok(connection)
}

fn set_up(connection: &Connection, lock_timeout: Duration) -> rusqlite::Result<()> {
    connection.busy_timeout(lock_timeout)?;
    connection.set_prepared_statement_cache_capacity(64);
    // With these settings, a commit is durable when it returns, even on macOS.
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "fullfsync", true)?;
    connection.pragma_update(None, "checkpoint_fullfsync", true)?;
    // A log that grew during a backup shrinks to this size when it starts over.
    connection.pragma_update(None, "journal_size_limit", 64 << 20)?;
    // These settings stop a manipulated file from running functions, and find damage early.
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "cell_size_check", true)
}
