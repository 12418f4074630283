use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use futures_util::{FutureExt as _, StreamExt as _, stream::FuturesUnordered};
use tokio::{
    sync::Notify,
    time::{Instant, sleep, sleep_until},
};
use tracing::Instrument as _;

use super::{
    context::{Context, PushConfig},
    queue::{Backlog, PushQueue},
    report::PushReport,
    sender::PushSender,
    type_worker::TypeWorker,
};
use crate::{
    Changed,
    delivery::DeliveryRecorder,
    identifiers::TypeIdentifier,
    store::{RegistrationStore, StoreError},
    text::Chain,
    traced,
};

/// Marks passes as changed, and sends a push to every phone that has them.
///
/// One commit of the [`PushQueue`] marks a change and makes its pushes pending. Any number of
/// publishers, in this process or others, may share the queue. One publisher at a time sends the
/// pushes of a type. No push is sent before the change is visible, and none is lost if a process
/// ends in between. At worst, some pushes are sent twice.
///
/// A push token gets one push per type, however many passes, changes or device identifiers share
/// it. The answer decides what happens next:
/// * The token went out of use: the device is removed, unless it registered again since.
/// * The token is bad: the device gets no more pushes for this change. If the token is still bad a
///   day later, and other pushes were accepted meanwhile, the device is removed.
/// * All tokens are bad, and APNs has never accepted a push of the type with these
///   [credentials](PushSender::credentials): the credentials may be wrong. The changes with these
///   tokens wait, and an error is logged. The publisher tries other changes with a few pushes each.
///   The first accepted push ends the wait, and a note in the store records it for all instances.
///   After that, bad tokens never stop a type, because anyone who has a pass can register bad
///   tokens.
/// * The certificate, key or topic is refused: the type waits, and an error is logged.
/// * There were too many pushes, or the push service has a fault: the push is tried again later,
///   for about a day.
/// * There is no answer: the push is tried again soon.
///
/// Source: Apple's *Handling notification responses from APNs* and *Adding a Web Service to Update
/// Passes*.
pub struct Publisher {
    role: Role,
    workers: Mutex<HashMap<TypeIdentifier, Arc<tokio::sync::Mutex<TypeWorker>>>>,
    changed: Notify,
}

/// What a publisher does besides marking.
enum Role {
    Mark(Arc<dyn RegistrationStore>),
    Record(Arc<dyn PushQueue>),
    Send(Box<Context>),
}

/// The pause after an error of the store.
const STORE_PAUSE: Duration = Duration::from_secs(1);

impl Publisher {
    /// Makes a publisher that marks, records pushes and sends them.
    ///
    /// If [other processes](PushConfig::exclusive) may use the store, the publisher records every
    /// push. Other processes then send the pushes of types that this publisher's sender does not
    /// [cover](PushSender::covers).
    #[must_use]
    pub fn new(queue: Arc<dyn PushQueue>, sender: Arc<dyn PushSender>, config: PushConfig) -> Self {
        Self::with_role(Role::Send(Box::new(Context::new(queue, sender, config))))
    }

    /// Makes a publisher that marks and records pushes. Other processes send them.
    ///
    /// Unsent pushes do not pile up, because each pass has at most one pending entry.
    #[must_use]
    pub fn recording(queue: Arc<dyn PushQueue>) -> Self {
        Self::with_role(Role::Record(queue))
    }

    /// Makes a publisher that only marks. No pushes are sent, and phones see a change when they
    /// next ask.
    #[must_use]
    pub fn marking(store: Arc<dyn RegistrationStore>) -> Self {
        Self::with_role(Role::Mark(store))
    }

    /// Records how far pushes came. See [`DeliveryRecorder`]. A publisher that sends no pushes records
    /// nothing.
    #[must_use]
    pub fn delivery_log(mut self, recorder: DeliveryRecorder) -> Self {
        if let Role::Send(context) = &mut self.role {
            context.recorder = Some(recorder);
        }
        self
    }

    fn with_role(role: Role) -> Self {
        Self {
            role,
            workers: Mutex::default(),
            changed: Notify::new(),
        }
    }

    fn context(&self) -> Option<&Context> {
        match &self.role {
            Role::Send(context) => Some(context),
            Role::Mark(_) | Role::Record(_) => None,
        }
    }

    /// Returns the store in which this publisher marks passes.
    #[must_use]
    pub fn store(&self) -> &dyn RegistrationStore {
        match &self.role {
            Role::Mark(store) => &**store,
            Role::Record(queue) => &**queue,
            Role::Send(context) => &*context.queue,
        }
    }

    /// Returns the queue that records pushes of a type, or `None` if no process could send them.
    fn queue_for(&self, type_id: &TypeIdentifier) -> Option<&Arc<dyn PushQueue>> {
        match &self.role {
            Role::Mark(_) => None,
            Role::Record(queue) => Some(queue),
            Role::Send(context) => (!context.config.exclusive || context.sender.covers(type_id))
                .then_some(&context.queue),
        }
    }

    /// Returns whether this publisher sends the pushes of a type.
    #[must_use]
    pub fn sends(&self, type_id: &TypeIdentifier) -> bool {
        self.context()
            .is_some_and(|context| context.sender.covers(type_id))
    }

    /// Returns whether [`publish`](Self::publish) makes pushes of a type pending. Any publisher
    /// that shares the queue may send them.
    #[must_use]
    pub fn records(&self, type_id: &TypeIdentifier) -> bool {
        self.queue_for(type_id).is_some()
    }

    /// Marks passes of a type as changed. Call this method when their new content can be fetched.
    /// It returns when the passes are marked and their pushes are pending. [`run`](Self::run) or
    /// [`push_pending`](Self::push_pending) sends the pushes, in this process or another.
    ///
    /// # Errors
    /// Fails like [`mark`](RegistrationStore::mark).
    pub async fn publish(
        &self,
        type_id: &TypeIdentifier,
        changed: Changed<'_>,
    ) -> Result<(), StoreError> {
        let span = traced::publish(type_id, changed);
        let marked = match (self.queue_for(type_id), &self.role) {
            (Some(queue), _) => queue.mark_and_push(type_id, changed),
            (None, Role::Mark(store)) => store.mark(type_id, changed),
            (None, Role::Record(queue)) => queue.mark(type_id, changed),
            (None, Role::Send(context)) => context.queue.mark(type_id, changed),
        };
        marked.instrument(span).await?;
        self.wake();
        Ok(())
    }

    /// Makes [`run`](Self::run) read the queue now. Call it when another publisher made pushes
    /// pending.
    pub fn wake(&self) {
        self.changed.notify_one();
    }

    /// Sends all pushes that are due and returns a report. Returns early if the rest has to wait.
    /// Deferred pushes that are not due stay for another call.
    ///
    /// # Errors
    /// Fails if the queue fails. Pending pushes stay pending.
    pub async fn push_pending(&self) -> Result<PushReport, StoreError> {
        let mut report = PushReport::default();
        let Some(context) = self.context() else {
            return Ok(report);
        };
        let mut working = FuturesUnordered::new();
        for Backlog { type_id, .. } in context.queue.backlog().await? {
            working.push(self.run_to_completion(context, type_id).boxed());
        }
        while let Some(done) = working.next().await {
            report.add(&done?);
        }
        Ok(report)
    }

    /// Sends pending pushes forever. Drop the future to stop. If the queue or the push service
    /// fails, the publisher logs the error, waits, and tries again. A publisher that does not send
    /// only waits.
    pub async fn run(&self) {
        let Some(context) = self.context() else {
            return std::future::pending().await;
        };
        let mut working = FuturesUnordered::new();
        let mut busy = HashSet::new();
        // Types whose pushes must wait. The next poll checks them again, because other processes
        // may add pushes.
        let mut resting: HashMap<TypeIdentifier, Instant> = HashMap::new();
        loop {
            resting.retain(|_, until| *until > Instant::now());
            match context.queue.backlog().await {
                Ok(backlog) => {
                    let now = SystemTime::now();
                    let is_due = |of: &Backlog| {
                        of.pending > 0 || of.next_deferred.is_some_and(|due| due <= now)
                    };
                    for Backlog { type_id, .. } in backlog.into_iter().filter(is_due) {
                        if !resting.contains_key(&type_id) && busy.insert(type_id.clone()) {
                            working.push(self.run_once(context, type_id).boxed());
                        }
                    }
                }
                Err(error) => log_store_error(&error),
            }
            tokio::select! {
                () = self.changed.notified() => resting.clear(),
                () = sleep(context.config.poll) => {}
                Some((type_id, is_done)) = working.next() => {
                    busy.remove(&type_id);
                    if !is_done {
                        resting.insert(type_id, Instant::now() + context.config.poll);
                    }
                }
            }
        }
    }

    /// Releases the types that this publisher was sending, so that other publishers can continue at
    /// once. Call this method after [`run`](Self::run) was dropped. Without this call, other
    /// publishers wait until the [lease](PushConfig::lease) expires.
    ///
    /// # Errors
    /// Fails if the queue fails.
    pub async fn close(&self) -> Result<(), StoreError> {
        let Some(context) = self.context() else {
            return Ok(());
        };
        let workers = self
            .workers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        for (type_id, worker) in workers {
            worker.lock().await.release(context, &type_id).await?;
        }
        Ok(())
    }

    /// Returns the results of all pushes since this publisher was made.
    #[must_use]
    pub fn totals(&self) -> PushReport {
        self.context().map(Context::totals).unwrap_or_default()
    }

    fn worker(&self, type_id: &TypeIdentifier) -> Arc<tokio::sync::Mutex<TypeWorker>> {
        let mut workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(workers.entry(type_id.clone()).or_default())
    }

    /// Sends the due pushes of a type. Returns when to continue, if that is known.
    async fn send_due(
        &self,
        context: &Context,
        type_id: &TypeIdentifier,
        report: &mut PushReport,
    ) -> Result<Option<Instant>, StoreError> {
        let worker = self.worker(type_id);
        let mut worker = worker.lock().await;
        let next = worker.send_due(context, type_id, report).await;
        if report.sent > 0 || !report.failed.is_empty() {
            tracing::info!(%type_id, "pushes: {report}");
        }
        next
    }

    /// Sends the due pushes of a type. Returns whether no pushes are left.
    async fn run_once(&self, context: &Context, type_id: TypeIdentifier) -> (TypeIdentifier, bool) {
        let is_done = match self
            .send_due(context, &type_id, &mut PushReport::default())
            .await
        {
            Ok(next) => next.is_none(),
            Err(error) => {
                log_store_error(&error);
                sleep(STORE_PAUSE).await;
                false
            }
        };
        (type_id, is_done)
    }

    /// Sends all pushes of a type, including those that wait for the spacing. Deferred pushes are
    /// left out. Returns early if the pushes of the type are stopped.
    async fn run_to_completion(
        &self,
        context: &Context,
        type_id: TypeIdentifier,
    ) -> Result<PushReport, StoreError> {
        let mut report = PushReport::default();
        loop {
            let mut this = PushReport::default();
            let next = self.send_due(context, &type_id, &mut this).await?;
            report.add(&this);
            let soon = Instant::now() + 2 * context.config.spacing;
            match next {
                Some(next) if next <= soon && this.stopped.is_none() => sleep_until(next).await,
                _ => return Ok(report),
            }
        }
    }
}

fn log_store_error(error: &StoreError) {
    tracing::warn!(
        error = %Chain(error),
        "the push queue failed: pending pushes wait"
    );
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let role = match &self.role {
            Role::Mark(_) => "marks",
            Role::Record(_) => "records pushes",
            Role::Send(_) => "sends pushes",
        };
        f.debug_struct("Publisher")
            .field("role", &role)
            .finish_non_exhaustive()
    }
}
