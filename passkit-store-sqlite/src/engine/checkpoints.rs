use std::{
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{self, SyncSender},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use rusqlite::Connection;

use crate::error::SqliteError;

/// The writer checks the log after this number of commits.
const COMMITS_PER_LOOK: u32 = 16;

/// If this number of pages is in the log but not in the database yet, a checkpoint is worthwhile.
const WORTH: i64 = 2_048;

/// The size of the log, in pages, at which it must start over.
const LARGE: i64 = 16_384;

/// How long a checkpoint waits for readers so that the log can start over. No one can write during that time.
const READERS_TIMEOUT: Duration = Duration::from_millis(100);

/// Keeps SQLite's log small by copying its pages into the database, so that the log can start over.
///
/// A thread copies them while the writer goes on, because a checkpoint takes seconds on a slow disk. The log can start over
/// when all pages are copied and no reader uses it. If this does not happen under load, the writer pauses until the log can
/// start over.
#[derive(Debug)]
pub(super) struct Checkpoints {
    path: Arc<Path>,
    connection: Arc<Mutex<Connection>>,
    wake: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
    /// The commits since the last check of the log.
    commits: u32,
    /// The size of the log at which it must start over.
    large: i64,
}

/// The pages in the log.
#[derive(Clone, Copy, Debug)]
struct Log {
    pages: i64,
    /// How many of the pages are already in the database.
    moved: i64,
}

impl Checkpoints {
    pub(super) fn start(path: &Path, connection: Connection) -> Result<Self, SqliteError> {
        connection
            .busy_timeout(READERS_TIMEOUT)
            .map_err(|error| SqliteError::sqlite(path, error))?;
        let (path, connection) = (Arc::from(path), Arc::new(Mutex::new(connection)));
        let (wake, woken) = mpsc::sync_channel(1);
        let thread = thread::Builder::new().name("passkit-sqlite-checkpoint".to_owned());
        let thread = thread.spawn({
            let (path, connection) = (Arc::clone(&path), Arc::clone(&connection));
            move || {
                for () in woken {
                    report(&path, checkpoint(&lock(&connection), "passive"));
                }
            }
        });
        let thread = thread.map_err(|error| SqliteError::io("start a thread for", &path, error))?;
        Ok(Self {
            path,
            connection,
            wake: Some(wake),
            thread: Some(thread),
            commits: 0,
            large: LARGE,
        })
    }

    /// Checks the log now and then. `writing` is the connection of the writer, between two transactions.
    pub(super) fn after_commit(&mut self, writing: &Connection) {
        self.commits += 1;
        if self.commits < COMMITS_PER_LOOK {
            return;
        }
        self.commits = 0;
        let Some(log) = report(&self.path, checkpoint(writing, "noop")) else {
            return;
        };
        if log.pages >= self.large {
            // This waits for the thread, because only one checkpoint can run at a time.
            let restarted = report(&self.path, checkpoint(&lock(&self.connection), "restart"));
            // A backup may read for a long time. The next attempt comes when the log has grown by `LARGE` again.
            self.large = if restarted.is_some() {
                LARGE
            } else {
                log.pages + LARGE
            };
        } else if log.pages - log.moved >= WORTH
            && let Some(wake) = &self.wake
        {
            let _at_work_already = wake.try_send(());
        }
    }
}

impl Drop for Checkpoints {
    fn drop(&mut self) {
        self.wake = None;
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

fn lock(connection: &Mutex<Connection>) -> MutexGuard<'_, Connection> {
    connection.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs a checkpoint. `kind` is one of SQLite's kinds of checkpoints. Returns the state of the log, or `None` if other
/// connections prevented the checkpoint.
fn checkpoint(connection: &Connection, kind: &str) -> rusqlite::Result<Option<Log>> {
    connection
        .prepare_cached(&format!("pragma wal_checkpoint({kind})"))?
        .query_row([], |row| {
            let is_busy: bool = row.get(0)?;
            let log = Log {
                pages: row.get(1)?,
                moved: row.get(2)?,
            };
            Ok((!is_busy).then_some(log))
        })
}

/// Logs a failed checkpoint. Nothing is lost, because the next checkpoint does the work.
fn report(path: &Path, checkpoint: rusqlite::Result<Option<Log>>) -> Option<Log> {
    checkpoint.unwrap_or_else(|error| {
        tracing::warn!(%error, "can't copy the log of {} into the database", path.display());
        None
    })
}
