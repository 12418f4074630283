//! Callers that wait at the same time share a statement.
//!
//! If fewer than [`Work::AT_ONCE`] statements are under way and no caller waits, a caller sends its own statement. A task
//! would be slower. Otherwise the caller waits in the queue, and a task sends the next statement for all callers in the
//! queue. If one of these calls is dropped, the task still answers the others.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use passkit_server::store::StoreErrorKind;
use sqlx::postgres::PgRow;
use tokio::{runtime::Handle, sync::oneshot, time::timeout};

use super::connections::{Connections, Statement};
use crate::error::PostgresError;

/// A kind of call (a question), and how to answer many of them with one statement.
pub(crate) trait Work: fmt::Debug + Send + Sync + 'static {
    type Question: fmt::Debug + Send + Sync + 'static;
    type Answer: fmt::Debug + Send + 'static;

    /// The number of statements that may be under way at once.
    const AT_ONCE: usize;
    /// The maximum weight of a statement. A heavier question gets a separate statement.
    const MAX_WEIGHT: usize;

    fn weight(&self, question: &Self::Question) -> usize;

    /// Returns the statement for these questions. The statement may be sent twice.
    fn statement(&self, questions: &[Self::Question]) -> Statement;

    /// Returns one answer for each question, in order, or an error for all of them.
    fn answers(
        &self,
        rows: &[PgRow],
        count: usize,
    ) -> Result<Vec<Result<Self::Answer, PostgresError>>, PostgresError>;
}

#[derive(Debug)]
pub(crate) struct Batcher<W: Work> {
    shared: Arc<Shared<W>>,
}

#[derive(Debug)]
struct Shared<W: Work> {
    work: W,
    connections: Arc<Connections>,
    queue: Mutex<Queue<W>>,
}

type Asker<A> = oneshot::Sender<Result<A, PostgresError>>;

#[derive(Debug)]
struct Queue<W: Work> {
    waiting: VecDeque<(W::Question, Asker<W::Answer>)>,
    under_way: usize,
}

impl<W: Work> Batcher<W> {
    pub(crate) fn new(work: W, connections: Arc<Connections>) -> Self {
        let queue = Mutex::new(Queue {
            waiting: VecDeque::new(),
            under_way: 0,
        });
        Self {
            shared: Arc::new(Shared {
                work,
                connections,
                queue,
            }),
        }
    }

    pub(crate) async fn ask(&self, question: W::Question) -> Result<W::Answer, PostgresError> {
        let (asker, answer) = oneshot::channel();
        let alone = {
            let mut queue = self.shared.queue();
            let is_free = queue.under_way < W::AT_ONCE;
            if is_free {
                queue.under_way += 1;
            }
            if is_free && queue.waiting.is_empty() {
                Some(question)
            } else {
                queue.waiting.push_back((question, asker));
                if is_free {
                    tokio::spawn(UnderWay::new(&self.shared).run());
                }
                None
            }
        };
        if let Some(question) = alone {
            let _place = UnderWay {
                shared: self.shared.clone(),
                started: true,
            };
            let answer = self
                .shared
                .answer(std::slice::from_ref(&question))
                .await
                .pop();
            return answer.unwrap_or_else(|| Err(PostgresError::stopped()));
        }
        // The time in the queue counts too. Otherwise callers at the end of a long queue would wait for several statements that
        // take too long, one after another.
        let limit = self.shared.connections.config().timeout;
        match timeout(limit, answer).await {
            Ok(answer) => answer.unwrap_or_else(|_| Err(PostgresError::stopped())),
            Err(_) => Err(PostgresError::too_slow(limit)),
        }
    }
}

impl<W: Work> Shared<W> {
    fn queue(&self) -> MutexGuard<'_, Queue<W>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn answer(&self, questions: &[W::Question]) -> Vec<Result<W::Answer, PostgresError>> {
        match self.answer_together(questions).await {
            Ok(answers) => answers,
            Err(error) if questions.len() > 1 && may_concern_one(&error) => {
                let mut answers = Vec::with_capacity(questions.len());
                for question in questions {
                    let alone = self.answer_together(std::slice::from_ref(question)).await;
                    let answer = alone.map(|mut answers| answers.pop());
                    answers.push(answer.and_then(|answer| {
                        answer.unwrap_or_else(|| Err(PostgresError::stopped()))
                    }));
                }
                answers
            }
            Err(error) => questions.iter().map(|_| Err(error.clone())).collect(),
        }
    }

    async fn answer_together(
        &self,
        questions: &[W::Question],
    ) -> Result<Vec<Result<W::Answer, PostgresError>>, PostgresError> {
        let rows = self
            .connections
            .fetch(self.work.statement(questions))
            .await?;
        self.work.answers(&rows, questions.len())
    }
}

/// Returns whether a single question may have caused the error.
fn may_concern_one(error: &PostgresError) -> bool {
    matches!(error.kind, StoreErrorKind::Other | StoreErrorKind::Corrupt)
}

impl<W: Work> Queue<W> {
    /// Takes the questions of the next statement.
    fn take(&mut self, work: &W) -> (Vec<W::Question>, Vec<Asker<W::Answer>>) {
        let mut weight = 0;
        let fitting = self.waiting.iter().take_while(|(question, _)| {
            weight += work.weight(question);
            weight <= W::MAX_WEIGHT
        });
        let count = fitting.count().max(1).min(self.waiting.len());
        self.waiting.drain(..count).unzip()
    }
}

/// One of the statements under way. If callers wait when this is dropped, a task takes its place.
struct UnderWay<W: Work> {
    shared: Arc<Shared<W>>,
    /// Whether the task has started. It never starts if the runtime ends first.
    started: bool,
}

impl<W: Work> UnderWay<W> {
    fn new(shared: &Arc<Shared<W>>) -> Self {
        Self {
            shared: shared.clone(),
            started: false,
        }
    }

    async fn run(mut self) {
        self.started = true;
        loop {
            let (questions, askers) = {
                let mut queue = self.shared.queue();
                // No caller waits for the answers of dropped calls.
                queue.waiting.retain(|(_, asker)| !asker.is_closed());
                if queue.waiting.is_empty() {
                    return;
                }
                queue.take(&self.shared.work)
            };
            let answers = self.shared.answer(&questions).await;
            for (asker, answer) in askers.into_iter().zip(answers) {
                // The caller may have dropped its future.
                let _dropped = asker.send(answer);
            }
            // Callers that have their answer can now ask their next question, so that it goes into the next statement.
            tokio::task::yield_now().await;
        }
    }
}

impl<W: Work> Drop for UnderWay<W> {
    fn drop(&mut self) {
        let mut queue = self.shared.queue();
        if self.started
            && !queue.waiting.is_empty()
            && let Ok(runtime) = Handle::try_current()
        {
            drop(queue);
            drop(runtime.spawn(Self::new(&self.shared).run()));
            return;
        }
        // This happens under the same lock as the check of the queue. Otherwise a question could stay in the queue.
        queue.under_way -= 1;
        if queue.under_way == 0 {
            // If callers still wait, the runtime has ended and no task can answer them. They get an error.
            queue.waiting.clear();
        }
    }
}
