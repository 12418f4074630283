//! The thread that writes. It makes many changes durable with one sync.

use std::{
    any::Any,
    collections::VecDeque,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, mpsc as std_mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use tokio::sync::mpsc;

use super::{
    database::Database,
    durable::DurableRows,
    group::{Group, OPERATIONS, Operation, operation},
};
use crate::{config::Config, error::SledError};

/// The maximum number of operations in the queue. Further callers wait for room in it.
const WAITING: usize = 1024;

/// After a failed write, or a failed attempt to open the database, the store waits this long before it opens the database.
const REOPEN_AFTER: Duration = Duration::from_secs(1);

/// How often the watch checks whether a write has failed while a thread still waits for it.
const WATCH: Duration = Duration::from_millis(500);

/// The thread that writes, and the thread that wakes it after a failed write.
#[derive(Debug)]
pub(crate) struct Writer {
    /// `None` only during the drop.
    queue: Option<mpsc::Sender<Box<dyn Operation>>>,
    thread: Option<JoinHandle<()>>,
    watch: Option<(std_mpsc::Sender<()>, JoinHandle<()>)>,
}

impl Writer {
    pub(crate) fn start(rows: &Arc<DurableRows>, config: &Config) -> io::Result<Self> {
        let (end, ended) = std_mpsc::channel::<()>();
        let watched = Arc::clone(rows);
        let watch = thread::Builder::new()
            .name("passkit-sled-watch".into())
            .spawn(move || {
                while ended.recv_timeout(WATCH) == Err(std_mpsc::RecvTimeoutError::Timeout) {
                    if let Some(database) = watched.database() {
                        database.wake_after_failure();
                    }
                }
            })?;
        let (queue, operations) = mpsc::channel(WAITING);
        let mut work = Work {
            rows: Arc::clone(rows),
            config: config.clone(),
            closed: None,
            waiting: VecDeque::new(),
        };
        let thread = thread::Builder::new()
            .name("passkit-sled-write".into())
            .spawn(move || work.run(operations))?;
        Ok(Self {
            queue: Some(queue),
            thread: Some(thread),
            watch: Some((end, watch)),
        })
    }

    /// Makes the writing thread call `change` until it returns `Some`, and waits until the changes are durable. If the future
    /// is dropped before `change` is in the queue, nothing happens. If it is dropped later, the change happens.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        change: impl FnMut(&mut Group<'_>) -> Result<Option<T>, SledError> + Send + 'static,
    ) -> Result<T, SledError> {
        let queue = self.queue.as_ref().ok_or_else(SledError::no_answer)?;
        let (operation, answered) = operation(change);
        queue
            .send(operation)
            .await
            .map_err(|_| SledError::no_answer())?;
        answered
            .await
            .unwrap_or_else(|_| Err(SledError::no_answer()))
    }

    /// Makes the writing thread open the database if it is closed.
    pub(crate) fn reopen(&self) {
        if let Some(queue) = &self.queue {
            // An operation without changes is enough. If the queue is full, its operations have the same effect.
            let (nothing, _) = operation(|_| Ok(Some(())));
            let _full = queue.try_send(nothing);
        }
    }
}

impl Drop for Writer {
    /// Finishes all operations in the queue.
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(thread) = self.thread.take() {
            // The thread catches panics. For any other panic, no caller is left who could get an error.
            let _ended = thread.join();
        }
        if let Some((end, watch)) = self.watch.take() {
            drop(end);
            let _ended = watch.join();
        }
    }
}

struct Work {
    rows: Arc<DurableRows>,
    config: Config,
    /// The last failure, and when it happened.
    closed: Option<(Instant, SledError)>,
    waiting: VecDeque<Box<dyn Operation>>,
}

impl Work {
    fn run(&mut self, mut operations: mpsc::Receiver<Box<dyn Operation>>) {
        let mut taken = Vec::with_capacity(OPERATIONS);
        loop {
            if self.waiting.is_empty() {
                if operations.blocking_recv_many(&mut taken, OPERATIONS) == 0 {
                    return;
                }
                self.waiting.extend(taken.drain(..));
            } else {
                while self.waiting.len() < OPERATIONS
                    && let Ok(operation) = operations.try_recv()
                {
                    self.waiting.push_back(operation);
                }
            }
            // After a panic, the callers get an error, because the senders of their answers are dropped.
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.group())) {
                self.close(SledError::panic(
                    &self.config.path,
                    &*panic as &(dyn Any + Send),
                ));
            }
        }
    }

    /// Does some of the waiting operations and makes their changes durable.
    fn group(&mut self) {
        let database = match self.database() {
            Ok(database) => database,
            Err(failure) => {
                self.waiting
                    .drain(..)
                    .for_each(|operation| operation.answer(Err(failure.clone())));
                return;
            }
        };
        let mut group = Group::new(&self.rows, &database);
        let mut rest = None;
        while rest.is_none()
            && !group.is_full()
            && let Some(operation) = self.waiting.pop_front()
        {
            rest = group.add(operation);
        }
        match group.commit() {
            Ok(()) => {
                if let Some(operation) = rest {
                    self.waiting.push_front(operation);
                }
            }
            Err(failure) => {
                tracing::error!(
                    error = failure.in_full(),
                    "a write failed; the store closes and will open again"
                );
                // The first part of this operation is lost, so the whole operation has failed.
                if let Some(operation) = rest {
                    operation.answer(Err(failure.clone()));
                }
                drop(database);
                self.close(failure);
            }
        }
    }

    fn close(&mut self, failure: SledError) {
        self.rows.closed();
        self.closed = Some((Instant::now(), failure));
    }

    /// Returns the open database. After a failure, opens it again.
    fn database(&mut self) -> Result<Arc<Database>, SledError> {
        if let Some(database) = self.rows.database() {
            if !database.has_failed() {
                return Ok(database);
            }
            drop(database);
            self.close(SledError::closed());
        }
        if let Some((since, failure)) = &self.closed
            && since.elapsed() < REOPEN_AFTER
        {
            return Err(failure.clone());
        }
        match Database::open(&self.config, false) {
            Ok((database, contents)) => {
                tracing::info!(path = %self.config.path.display(), "the store is open again");
                self.closed = None;
                self.rows.reopened(database, contents);
                self.rows.database().ok_or_else(SledError::closed)
            }
            Err(failure) => {
                tracing::error!(
                    error = failure.in_full(),
                    "the store could not be opened again"
                );
                self.closed = Some((Instant::now(), failure.clone()));
                Err(failure)
            }
        }
    }
}
