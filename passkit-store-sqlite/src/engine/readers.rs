use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
};

use rusqlite::Connection;
use tokio::sync::oneshot;

use crate::error::SqliteError;

type Question = Box<dyn FnOnce(&Connection) + Send>;

/// Threads that read. Each has its own connection.
#[derive(Debug)]
pub(super) struct Readers {
    path: Arc<Path>,
    waiting: Arc<Waiting>,
    threads: Vec<JoinHandle<()>>,
}

/// The reads that no thread has started yet.
#[derive(Debug, Default)]
struct Waiting {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    questions: VecDeque<Question>,
    is_closed: bool,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue")
            .field("questions", &self.questions.len())
            .finish_non_exhaustive()
    }
}

impl Waiting {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for reads and takes this thread's share of them. Returns `false` when no more reads will come.
    fn take(&self, group: &mut Vec<Question>, threads: usize, at_most: usize) -> bool {
        let queue = self.queue();
        let is_idle = |queue: &mut Queue| queue.questions.is_empty() && !queue.is_closed;
        let mut queue = self
            .changed
            .wait_while(queue, is_idle)
            .unwrap_or_else(PoisonError::into_inner);
        let share = queue.questions.len().div_ceil(threads).min(at_most);
        group.extend(queue.questions.drain(..share));
        share > 0
    }
}

impl Readers {
    /// Starts a thread for each connection. A thread runs up to `group` reads over one snapshot.
    pub(super) fn start(
        path: &Path,
        connections: Vec<Connection>,
        group: usize,
    ) -> Result<Self, SqliteError> {
        let count = connections.len();
        let mut readers = Self {
            path: path.into(),
            waiting: Arc::default(),
            threads: Vec::new(),
        };
        for connection in connections {
            let waiting = Arc::clone(&readers.waiting);
            let thread = thread::Builder::new().name("passkit-sqlite-read".to_owned());
            let thread = thread.spawn(move || {
                let mut questions = Vec::new();
                while waiting.take(&mut questions, count, group) {
                    answer(&connection, &mut questions);
                }
            });
            readers
                .threads
                .push(thread.map_err(|error| SqliteError::io("start a thread for", path, error))?);
        }
        Ok(readers)
    }

    pub(super) async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, SqliteError> {
        let (sender, answer) = oneshot::channel();
        let question: Question = Box::new(move |connection| {
            if !sender.is_closed() {
                let _nobody_waits = sender.send(question(connection));
            }
        });
        self.waiting.queue().questions.push_back(question);
        self.waiting.changed.notify_one();
        let answer = answer.await.map_err(|_| SqliteError::stopped())?;
        answer.map_err(|error| SqliteError::sqlite(&self.path, error))
    }
}

impl Drop for Readers {
    /// Finishes the waiting reads.
    fn drop(&mut self) {
        self.waiting.queue().is_closed = true;
        self.waiting.changed.notify_all();
        for thread in self.threads.drain(..) {
            let _panicked = thread.join();
        }
    }
}

/// Runs several reads in one transaction, so that SQLite takes its locks once. The snapshot starts after all of them were
/// requested.
fn answer(connection: &Connection, questions: &mut Vec<Question>) {
    let run = |sql| {
        connection
            .prepare_cached(sql)
            .and_then(|mut statement| statement.execute([]))
    };
    if questions.len() > 1 {
        // If this fails, each statement has its own snapshot, or reports the error.
        let _reported_by_statements = run("begin");
    }
    for question in questions.drain(..) {
        // The caller gets an error, and the thread goes on.
        let _panicked = catch_unwind(AssertUnwindSafe(|| question(connection)));
    }
    if !connection.is_autocommit() {
        let _read_only = run("commit").or_else(|_| run("rollback"));
    }
}
