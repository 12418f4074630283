use std::{
    hash::{BuildHasher as _, RandomState},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use super::{queue::PushQueue, report::PushReport, sender::PushSender};
use crate::delivery::DeliveryRecorder;

/// The state that the workers of all types share.
pub(super) struct Context {
    pub(super) queue: Arc<dyn PushQueue>,
    pub(super) sender: Arc<dyn PushSender>,
    pub(super) config: PushConfig,
    pub(super) recorder: Option<DeliveryRecorder>,
    /// The owner name of this publisher's claims. No other publisher has the same name.
    pub(super) name: String,
    totals: Mutex<PushReport>,
}

impl Context {
    pub(super) fn new(
        queue: Arc<dyn PushQueue>,
        sender: Arc<dyn PushSender>,
        config: PushConfig,
    ) -> Self {
        let random = || RandomState::new().hash_one(0);
        let name = format!("{:016x}{:016x}", random(), random());
        Self {
            queue,
            sender,
            config,
            recorder: None,
            name,
            totals: Mutex::default(),
        }
    }

    pub(super) fn count(&self, report: &PushReport) {
        self.totals
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .add(report);
    }

    pub(super) fn totals(&self) -> PushReport {
        self.totals
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// How a [`Publisher`](crate::push::Publisher) sends pushes.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PushConfig {
    /// The shortest time between two pushes of one type to one push token. Changes within this time
    /// wait, and share the next push. Devices limit how many pushes of a type they accept. See
    /// Apple's *Adding a Web Service to Update Passes*.
    pub spacing: Duration,
    /// How many pushes of a type may be in flight at the same time.
    pub concurrency: usize,
    /// How long a publisher owns a type before it must claim the type again. After a crash, another
    /// publisher takes over after this time.
    pub lease: Duration,
    /// The pause between two reads of the queue. These reads find the changes that other processes
    /// marked.
    pub poll: Duration,
    /// Set this if no other process uses the store. Pushes that the sender does not
    /// [cover](crate::push::PushSender::covers) are then not recorded, because no process could
    /// send them.
    pub exclusive: bool,
}

impl Default for PushConfig {
    fn default() -> Self {
        Self {
            spacing: Duration::from_secs(1),
            concurrency: 500,
            lease: Duration::from_secs(30),
            poll: Duration::from_millis(250),
            exclusive: false,
        }
    }
}

impl PushConfig {
    /// Returns the defaults: a spacing of one second, 500 pushes at a time, a lease of 30 seconds,
    /// a poll every 250 milliseconds, and a store that other processes may use.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets [`spacing`](Self::spacing).
    #[must_use]
    pub fn spacing(mut self, spacing: Duration) -> Self {
        self.spacing = spacing;
        self
    }

    /// Sets [`concurrency`](Self::concurrency).
    #[must_use]
    pub fn concurrency(mut self, concurrency: usize) -> Self {
        self.concurrency = concurrency;
        self
    }

    /// Sets [`lease`](Self::lease).
    #[must_use]
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// Sets [`poll`](Self::poll).
    #[must_use]
    pub fn poll(mut self, poll: Duration) -> Self {
        self.poll = poll;
        self
    }

    /// Sets [`exclusive`](Self::exclusive).
    #[must_use]
    pub fn exclusive(mut self, exclusive: bool) -> Self {
        self.exclusive = exclusive;
        self
    }
}
