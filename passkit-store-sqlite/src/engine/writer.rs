use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        mpsc::{self, Receiver, Sender},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::checkpoints::Checkpoints;
use crate::error::{SqliteError, is_busy};

/// The maximum number of changes in one commit.
const GROUP: usize = 512;

/// The pause before trying again to get a lock that another program has. It is short, because a busy program leaves the lock
/// free only for moments.
const POLL: Duration = Duration::from_millis(1);

/// The thread that writes. All waiting changes share one transaction, and therefore one sync.
#[derive(Debug)]
pub(super) struct Writer {
    changes: Option<Sender<Box<dyn Change>>>,
    thread: Option<JoinHandle<()>>,
}

/// A waiting change.
trait Change: Send {
    /// Returns when the call began.
    fn asked(&self) -> Instant;
    /// Returns whether the caller has dropped its future.
    fn is_dropped(&self) -> bool;
    fn run(&mut self, connection: &Connection) -> rusqlite::Result<()>;
    /// Sends the result of the last run, or the error, to the caller.
    fn answer(self: Box<Self>, committed: Result<(), SqliteError>);
}

struct Call<T, F> {
    asked: Instant,
    change: F,
    result: Option<T>,
    answer: oneshot::Sender<Result<T, SqliteError>>,
}

impl<T: Send, F: FnMut(&Connection) -> rusqlite::Result<T> + Send> Change for Call<T, F> {
    fn asked(&self) -> Instant {
        self.asked
    }

    fn is_dropped(&self) -> bool {
        self.answer.is_closed()
    }

    fn run(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        self.result = Some((self.change)(connection)?);
        Ok(())
    }

    fn answer(self: Box<Self>, committed: Result<(), SqliteError>) {
        let Self { result, answer, .. } = *self;
        let _nobody_waits =
            answer.send(committed.and_then(|()| result.ok_or_else(SqliteError::stopped)));
    }
}

impl Writer {
    pub(super) fn start(
        path: &Path,
        lock_timeout: Duration,
        connection: Connection,
        checkpoints: Checkpoints,
    ) -> Result<Self, SqliteError> {
        // Commits must not run checkpoints by themselves.
        let set = connection.pragma_update(None, "wal_autocheckpoint", 0);
        set.map_err(|error| SqliteError::sqlite(path, error))?;
        let (sender, receiver) = mpsc::channel();
        let at_work = AtWork {
            path: path.into(),
            file: file_id(path),
            lock_timeout,
            checkpoints,
            connection,
        };
        let thread = thread::Builder::new().name("passkit-sqlite-write".to_owned());
        let thread = thread.spawn(move || at_work.run(&receiver));
        let thread = thread.map_err(|error| SqliteError::io("start a thread for", path, error))?;
        Ok(Self {
            changes: Some(sender),
            thread: Some(thread),
        })
    }

    pub(super) async fn ask<T: Send + 'static>(
        &self,
        change: impl FnMut(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, SqliteError> {
        let (sender, answer) = oneshot::channel();
        let call = Call {
            asked: Instant::now(),
            change,
            result: None,
            answer: sender,
        };
        let asked = self
            .changes
            .as_ref()
            .is_some_and(|changes| changes.send(Box::new(call)).is_ok());
        let answer = if asked { answer.await.ok() } else { None };
        answer.ok_or_else(SqliteError::stopped)?
    }
}

impl Drop for Writer {
    /// Finishes the waiting changes.
    fn drop(&mut self) {
        self.changes = None;
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

struct AtWork {
    path: Arc<Path>,
    /// The identity of the file.
    file: Option<(u64, u64)>,
    lock_timeout: Duration,
    // Dropped before the connection of the writer, which must close last.
    checkpoints: Checkpoints,
    connection: Connection,
}

impl AtWork {
    fn run(mut self, changes: &Receiver<Box<dyn Change>>) {
        let mut group: Vec<Box<dyn Change>> = Vec::new();
        loop {
            if group.is_empty() {
                let Ok(first) = changes.recv() else { return };
                group.push(first);
            }
            let room = GROUP.saturating_sub(group.len());
            group.extend(changes.try_iter().take(room));
            group.retain(|change| !change.is_dropped());
            group = self.work_on(group);
            self.checkpoints.after_commit(&self.connection);
        }
    }

    /// Commits a group and answers its callers. Returns the changes that may still wait for a lock.
    fn work_on(&mut self, mut group: Vec<Box<dyn Change>>) -> Vec<Box<dyn Change>> {
        let Some(oldest) = group.iter().map(|change| change.asked()).min() else {
            return group;
        };
        if file_id(&self.path) != self.file {
            let text = "was replaced or removed while the store was open; restart this program";
            answer(
                group,
                Err(SqliteError::configuration(format!(
                    "{} {text}",
                    self.path.display()
                ))),
            );
            return Vec::new();
        }
        if let Err(error) = self.begin(oldest + self.lock_timeout) {
            let (expired, rest) = if is_busy(&error) {
                let now = Instant::now();
                group
                    .into_iter()
                    .partition(|change| change.asked() + self.lock_timeout <= now)
            } else {
                (group, Vec::new())
            };
            answer(expired, Err(self.failed(error)));
            return rest;
        }
        let mut committed = self.commit(&mut group);
        // One faulty change must not stop the others, so each runs alone. A disk error affects all of them.
        if let Err(error) = &committed
            && group.len() > 1
            && !error.is_transient()
        {
            for change in group {
                let mut alone = vec![change];
                let begun = self
                    .begin(Instant::now() + self.lock_timeout)
                    .map_err(|error| self.failed(error));
                committed = begun.and_then(|()| self.commit(&mut alone));
                answer(alone, committed);
            }
        } else {
            answer(group, committed);
        }
        Vec::new()
    }

    /// Takes the only write lock of the database. After that, no statement of the transaction waits.
    fn begin(&self, deadline: Instant) -> rusqlite::Result<()> {
        loop {
            match execute(&self.connection, "begin immediate") {
                Err(error) if is_busy(&error) && Instant::now() < deadline => thread::sleep(POLL),
                begun => return begun,
            }
        }
    }

    /// Commits the whole group or nothing.
    fn commit(&mut self, group: &mut [Box<dyn Change>]) -> Result<(), SqliteError> {
        let run = group
            .iter_mut()
            .try_for_each(|change| change.run(&self.connection));
        let committed = run.and_then(|()| execute(&self.connection, "commit"));
        // After some errors, the transaction has already ended.
        if committed.is_err() && !self.connection.is_autocommit() {
            execute(&self.connection, "rollback").map_err(|error| self.failed(error))?;
        }
        committed.map_err(|error| self.failed(error))
    }

    fn failed(&self, error: rusqlite::Error) -> SqliteError {
        SqliteError::sqlite(&self.path, error)
    }
}

/// Returns the identity of a file. If it has changed, the file was replaced, and SQLite would go on writing to the old file,
/// which is not visible any more.
fn file_id(path: &Path) -> Option<(u64, u64)> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        let found = fs::metadata(path).ok()?;
        Some((found.dev(), found.ino()))
    }
    #[cfg(not(unix))]
    {
        let _open_files_stay = path;
        None
    }
}

fn execute(connection: &Connection, sql: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(sql)?.execute([]).map(drop)
}

fn answer(group: Vec<Box<dyn Change>>, committed: Result<(), SqliteError>) {
    for change in group {
        change.answer(committed.clone());
    }
}
