//! The threads that read.

use std::{
    collections::VecDeque,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
};

use tokio::sync::oneshot;

use super::durable::{DurableRows, Unanswered, View};
use crate::error::SledError;

type Job = Box<dyn FnOnce(&DurableRows) + Send>;

/// The maximum number of questions that a thread takes at once. If a thread took more, none might be left for the other
/// threads.
const AT_ONCE: usize = 16;

/// The threads that read, and the questions that wait for them.
#[derive(Debug)]
pub(crate) struct Readers {
    rows: Arc<DurableRows>,
    queue: Arc<Queue>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    something_new: Condvar,
}

#[derive(Default)]
struct Waiting {
    jobs: VecDeque<Job>,
    sleeping: usize,
    closed: bool,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue")
            .field("waiting", &self.lock().jobs.len())
            .finish_non_exhaustive()
    }
}

impl Readers {
    pub(crate) fn start(rows: &Arc<DurableRows>, threads: usize) -> io::Result<Self> {
        let mut readers = Self {
            rows: Arc::clone(rows),
            queue: Arc::default(),
            threads: Vec::new(),
        };
        for _ in 0..threads {
            let (queue, rows) = (Arc::clone(&readers.queue), Arc::clone(rows));
            let thread = thread::Builder::new()
                .name("passkit-sled-read".into())
                .spawn(move || queue.work_off(&rows))?;
            readers.threads.push(thread);
        }
        Ok(readers)
    }

    /// Answers the question from memory if possible. Otherwise a thread answers it from the disk, unless the call has been
    /// dropped by then.
    pub(crate) async fn ask<T, F>(&self, question: F) -> Result<T, SledError>
    where
        T: Send + 'static,
        F: Fn(&View<'_>) -> Result<T, Unanswered> + Send + 'static,
    {
        match question(&self.rows.view_in_memory()) {
            Ok(known) => return Ok(known),
            Err(Unanswered::Failed(failure)) => return Err(failure),
            Err(Unanswered::OnDisk) => {}
        }
        let (answer, answered) = oneshot::channel();
        self.queue.push(Box::new(move |rows| {
            if !answer.is_closed() {
                let asked = rows
                    .view()
                    .map_err(Unanswered::from)
                    .and_then(|view| question(&view));
                let _dropped = answer.send(asked);
            }
        }));
        match answered.await {
            Ok(Ok(read)) => Ok(read),
            Ok(Err(Unanswered::Failed(failure))) => Err(failure),
            Ok(Err(Unanswered::OnDisk)) | Err(_) => Err(SledError::no_answer()),
        }
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, job: Job) {
        let mut waiting = self.lock();
        waiting.jobs.push_back(job);
        let wake = waiting.sleeping > 0;
        drop(waiting);
        if wake {
            self.something_new.notify_one();
        }
    }

    /// Answers questions until the queue is closed and empty.
    fn work_off(&self, rows: &DurableRows) {
        let mut taken = Vec::with_capacity(AT_ONCE);
        loop {
            let mut waiting = self.lock();
            while waiting.jobs.is_empty() {
                if waiting.closed {
                    return;
                }
                waiting.sleeping += 1;
                waiting = self
                    .something_new
                    .wait(waiting)
                    .unwrap_or_else(PoisonError::into_inner);
                waiting.sleeping -= 1;
                // Under load, this pause lets more questions arrive. Answering several questions together is cheaper. Without
                // load, this thread continues at once.
                drop(waiting);
                thread::yield_now();
                waiting = self.lock();
            }
            let share = waiting.jobs.len().div_ceil(2).min(AT_ONCE);
            taken.extend(waiting.jobs.drain(..share));
            drop(waiting);
            for job in taken.drain(..) {
                // After a panic, the caller gets an error, because the sender of its answer is dropped.
                if catch_unwind(AssertUnwindSafe(|| job(rows))).is_err() {
                    tracing::error!("the storage engine panicked while reading");
                }
            }
        }
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.queue.lock().closed = true;
        self.queue.something_new.notify_all();
        for thread in self.threads.drain(..) {
            // The thread catches panics. There is no caller to report another panic to.
            let _ended = thread.join();
        }
    }
}
