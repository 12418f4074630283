//! Writing: one thread, which makes many changes durable with one sync.

use std::{
    any::Any,
    collections::VecDeque,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, mpsc as std_mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, oneshot};

use crate::{
    config::Config,
    database::Database,
    error::Failure,
    group::{Answer, Group, OPERATIONS, Operation},
    settled::Shared,
};

/// How many operations may wait; the callers of more wait for room.
const WAITING: usize = 1024;

/// How soon after a failure, or a vain attempt, the database is opened again.
const REOPEN_AFTER: Duration = Duration::from_secs(1);

/// How long a write may have failed before the thread that waits for it is told.
const WATCH: Duration = Duration::from_millis(500);

/// The thread that writes, and what watches over it.
#[derive(Debug)]
pub(crate) struct Writer {
    /// `None` only while it is being dropped.
    queue: Option<mpsc::Sender<Operation>>,
    thread: Option<JoinHandle<()>>,
    watch: Option<(std_mpsc::Sender<()>, JoinHandle<()>)>,
}

impl Writer {
    pub(crate) fn start(shared: &Arc<Shared>, config: &Config) -> io::Result<Self> {
        let (end, ended) = std_mpsc::channel::<()>();
        let watched = Arc::clone(shared);
        let watch = thread::Builder::new().name("passkit-sled-watch".into()).spawn(move || {
            while ended.recv_timeout(WATCH) == Err(std_mpsc::RecvTimeoutError::Timeout) {
                if let Some(database) = watched.database() {
                    database.wake_after_failure();
                }
            }
        })?;
        let (queue, operations) = mpsc::channel(WAITING);
        let mut work = Work {
            shared: Arc::clone(shared),
            config: config.clone(),
            closed: None,
            waiting: VecDeque::new(),
        };
        let thread =
            thread::Builder::new().name("passkit-sled-write".into()).spawn(move || work.run(operations))?;
        Ok(Self { queue: Some(queue), thread: Some(thread), watch: Some((end, watch)) })
    }

    /// Hands an operation over and waits until what it did is durable. Dropped before the operation is handed over,
    /// nothing happens; afterwards, all of it does.
    pub(crate) async fn ask<T>(&self, operation: impl FnOnce(Answer<T>) -> Operation) -> Result<T, Failure> {
        let queue = self.queue.as_ref().ok_or_else(Failure::stopped)?;
        let (answer, answered) = oneshot::channel();
        queue.send(operation(answer)).await.map_err(|_| Failure::stopped())?;
        answered.await.unwrap_or_else(|_| Err(Failure::stopped()))
    }

    /// Has the database opened again if it is closed.
    pub(crate) fn reopen(&self) {
        if let Some(queue) = &self.queue {
            // Where there is no room, others wait and ask for the same.
            let _full = queue.try_send(Operation::Reopen);
        }
    }
}

impl Drop for Writer {
    /// Returns when everything that was handed over is done.
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(thread) = self.thread.take() {
            // It catches panics; were one to escape, there is nobody left to tell.
            let _ended = thread.join();
        }
        if let Some((end, watch)) = self.watch.take() {
            drop(end);
            let _ended = watch.join();
        }
    }
}

struct Work {
    shared: Arc<Shared>,
    config: Config,
    /// Since when the database is closed, or cannot be opened, and why.
    closed: Option<(Instant, Failure)>,
    waiting: VecDeque<Operation>,
}

impl Work {
    fn run(&mut self, mut operations: mpsc::Receiver<Operation>) {
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
            // Who waits for an answer learns of a panic from its never coming.
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.group())) {
                self.close(Failure::panic(&self.config.path, &*panic as &(dyn Any + Send)));
            }
        }
    }

    /// Does some of what waits, and makes it durable.
    fn group(&mut self) {
        let database = match self.database() {
            Ok(database) => database,
            Err(failure) => {
                self.waiting.drain(..).for_each(|operation| operation.refuse(failure.clone()));
                return;
            }
        };
        let mut group = Group::new(&self.shared, &database);
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
                tracing::error!(error = %failure, "a write failed; the store opens again when it can");
                // Its first part is lost, so the whole has failed.
                if let Some(operation) = rest {
                    operation.refuse(failure.clone());
                }
                drop(database);
                self.close(failure);
            }
        }
    }

    fn close(&mut self, failure: Failure) {
        self.shared.closed();
        self.closed = Some((Instant::now(), failure));
    }

    /// The open database; after a failure, opened again.
    fn database(&mut self) -> Result<Arc<Database>, Failure> {
        if let Some(database) = self.shared.database() {
            if !database.has_failed() {
                return Ok(database);
            }
            drop(database);
            self.close(Failure::closed());
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
                self.shared.reopened(database, contents);
                self.shared.database().ok_or_else(Failure::closed)
            }
            Err(failure) => {
                tracing::error!(error = %failure, "the store cannot be opened again yet");
                self.closed = Some((Instant::now(), failure.clone()));
                Err(failure)
            }
        }
    }
}
