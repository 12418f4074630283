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
    queue::{Owing, PushQueue},
    report::PushReport,
    sender::PushSender,
    topic::Topic,
    worker::{PushConfig, Worker},
};
use crate::{PassId, SerialNumber, StoreError, TypeIdentifier, traced};

/// From "this pass changed" to a push for every phone that has it.
///
/// A change is marked and its pushes owed in one commit of the [`PushQueue`]; what is owed is then sent by one of the
/// publishers that share the queue, in this process or another. So no push goes out before the change can be seen, and
/// none is forgotten when a process ends in between: at worst some are sent twice.
///
/// One push is sent for each push token and type, however many passes, changes or device identifiers share it. What
/// comes back decides:
/// * a token that went out of use: the device is forgotten, unless it registered since;
/// * a token that is called bad: no more for this change. If that is still so a day later, and not for more than a fifth
///   of all, the device is forgotten; if it is so for all of them, the type waits, and an error is logged;
/// * a certificate, key or topic that is refused: the type waits, and an error is logged;
/// * too many, or a fault of the push service: the push is held, and tried again later, for about a day;
/// * no answer: tried again soon.
///
/// Source: Apple's *Handling notification responses from APNs* and *Adding a Web Service to Update Passes*.
pub struct Publisher {
    worker: Worker,
    topics: Mutex<HashMap<TypeIdentifier, Arc<tokio::sync::Mutex<Topic>>>>,
    owed: Notify,
}

/// The pause after the store failed.
const STORE_PAUSE: Duration = Duration::from_secs(1);

impl Publisher {
    /// Over a queue and a sender.
    #[must_use]
    pub fn new(queue: Arc<dyn PushQueue>, sender: Arc<dyn PushSender>, config: PushConfig) -> Self {
        Self { worker: Worker::new(queue, sender, config), topics: Mutex::default(), owed: Notify::new() }
    }

    /// Whether its sender [covers](PushSender::covers) this type.
    #[must_use]
    pub fn covers(&self, type_id: &TypeIdentifier) -> bool {
        self.worker.sender.covers(type_id)
    }

    /// Says that these passes have changed, whose new content can be fetched by now. Returns when that is marked and the
    /// pushes are owed; [`run`](Self::run) or [`push_owed`](Self::push_owed) sends them, here or elsewhere.
    ///
    /// # Errors
    /// As of [`mark_updated`](crate::RegistrationStore::mark_updated). Passes of several types are marked type by type:
    /// after an error some may be.
    pub async fn publish(&self, passes: &[PassId]) -> Result<(), StoreError> {
        let mut types: HashMap<&TypeIdentifier, Vec<SerialNumber>> = HashMap::new();
        for pass in passes {
            types.entry(&pass.type_id).or_default().push(pass.serial.clone());
        }
        for (type_id, serials) in types {
            let span = traced::publish(type_id, Some(serials.len()));
            self.worker.queue.mark_and_owe(type_id, &serials).instrument(span).await?;
            self.wake();
        }
        Ok(())
    }

    /// Says the same of every pass of a type.
    ///
    /// # Errors
    /// As of [`mark_all_updated`](crate::RegistrationStore::mark_all_updated).
    pub async fn publish_all(&self, type_id: &TypeIdentifier) -> Result<(), StoreError> {
        let span = traced::publish(type_id, None);
        self.worker.queue.mark_all_and_owe(type_id).instrument(span).await?;
        self.wake();
        Ok(())
    }

    /// Lets [`run`](Self::run) look at the queue now: pushes were owed without this publisher.
    pub fn wake(&self) {
        self.owed.notify_one();
    }

    /// Sends what is owed and due, and returns when nothing of that is left, or what is left must wait; says what became
    /// of it. What is held back for later stays for another call.
    ///
    /// # Errors
    /// If the queue fails. What is owed stays owed.
    pub async fn push_owed(&self) -> Result<PushReport, StoreError> {
        let mut report = PushReport::default();
        let mut working = FuturesUnordered::new();
        for owing in self.worker.queue.owing().await? {
            working.push(self.until_done(owing.type_id).boxed());
        }
        while let Some(done) = working.next().await {
            report.add(&done?);
        }
        Ok(report)
    }

    /// Sends what is owed, and goes on for ever; drop it to end it. Faults of the queue or the push service are logged,
    /// and waited out.
    pub async fn run(&self) {
        let mut working = FuturesUnordered::new();
        let mut busy = HashSet::new();
        // Where something is left that has to wait. Looked at again with the next poll: others may have put more there.
        let mut resting: HashMap<TypeIdentifier, Instant> = HashMap::new();
        loop {
            resting.retain(|_, until| *until > Instant::now());
            match self.worker.queue.owing().await {
                Ok(owing) => {
                    let now = SystemTime::now();
                    let is_due =
                        |owing: &Owing| owing.debts > 0 || owing.next_held.is_some_and(|due| due <= now);
                    for Owing { type_id, .. } in owing.into_iter().filter(is_due) {
                        if !resting.contains_key(&type_id) && busy.insert(type_id.clone()) {
                            working.push(self.once(type_id).boxed());
                        }
                    }
                }
                Err(error) => log_store_error(&error),
            }
            tokio::select! {
                () = self.owed.notified() => resting.clear(),
                () = sleep(self.worker.config.poll) => {}
                Some((type_id, is_done)) = working.next() => {
                    busy.remove(&type_id);
                    if !is_done {
                        resting.insert(type_id, Instant::now() + self.worker.config.poll);
                    }
                }
            }
        }
    }

    /// Lets other publishers have at once what this one was sending, after [`run`](Self::run) was dropped. Without it they
    /// wait until its [lease](PushConfig::lease) is over.
    ///
    /// # Errors
    /// If the queue fails.
    pub async fn close(&self) -> Result<(), StoreError> {
        let topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for (type_id, topic) in topics {
            topic.lock().await.let_go(&self.worker, &type_id).await?;
        }
        Ok(())
    }

    /// What became of all pushes since this publisher was made.
    #[must_use]
    pub fn totals(&self) -> PushReport {
        self.worker.totals()
    }

    fn topic(&self, type_id: &TypeIdentifier) -> Arc<tokio::sync::Mutex<Topic>> {
        let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(topics.entry(type_id.clone()).or_default())
    }

    /// Works a type off as far as that goes now. Returns when to come again, if that is known.
    async fn work_off(
        &self,
        type_id: &TypeIdentifier,
        report: &mut PushReport,
    ) -> Result<Option<Instant>, StoreError> {
        let topic = self.topic(type_id);
        let mut topic = topic.lock().await;
        let next = topic.work_off(&self.worker, type_id, report).await;
        if report.sent > 0 || !report.failed.is_empty() {
            tracing::info!(%type_id, "pushes: {report}");
        }
        next
    }

    /// Whether nothing is left.
    async fn once(&self, type_id: TypeIdentifier) -> (TypeIdentifier, bool) {
        let is_done = match self.work_off(&type_id, &mut PushReport::default()).await {
            Ok(next) => next.is_none(),
            Err(error) => {
                log_store_error(&error);
                sleep(STORE_PAUSE).await;
                false
            }
        };
        (type_id, is_done)
    }

    /// Also what has to keep its distance, but not what is held or stopped.
    async fn until_done(&self, type_id: TypeIdentifier) -> Result<PushReport, StoreError> {
        let mut report = PushReport::default();
        loop {
            let mut this = PushReport::default();
            let next = self.work_off(&type_id, &mut this).await?;
            report.add(&this);
            let soon = Instant::now() + 2 * self.worker.config.spacing;
            match next {
                Some(next) if next <= soon && this.stopped.is_none() => sleep_until(next).await,
                _ => return Ok(report),
            }
        }
    }
}

fn log_store_error(error: &StoreError) {
    let source = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    tracing::warn!(error = %error, source, "the queue of pushes failed; they wait");
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher").field("config", &self.worker.config).finish_non_exhaustive()
    }
}
