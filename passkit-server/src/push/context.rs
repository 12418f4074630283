use std::{
    hash::{BuildHasher as _, RandomState},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use super::{queue::PushQueue, report::PushReport, sender::PushSender};

/// What the work on each type needs.
pub(super) struct Worker {
    pub(super) queue: Arc<dyn PushQueue>,
    pub(super) sender: Arc<dyn PushSender>,
    pub(super) config: PushConfig,
    /// Tells this one from all others.
    pub(super) name: String,
    totals: Mutex<PushReport>,
}

impl Worker {
    pub(super) fn new(queue: Arc<dyn PushQueue>, sender: Arc<dyn PushSender>, config: PushConfig) -> Self {
        let random = || RandomState::new().hash_one(0);
        let name = format!("{:016x}{:016x}", random(), random());
        Self { queue, sender, config, name, totals: Mutex::default() }
    }

    pub(super) fn count(&self, report: &PushReport) {
        self.totals.lock().unwrap_or_else(PoisonError::into_inner).add(report);
    }

    pub(super) fn totals(&self) -> PushReport {
        self.totals.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// How a [`Publisher`](crate::Publisher) goes about it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PushConfig {
    /// The least time between two pushes of one type to one push token. A change within it waits, and shares the next
    /// push with all others. Devices limit what a type may push: see Apple's *Adding a Web Service to Update Passes*.
    pub spacing: Duration,
    /// How many pushes of a type may be under way at a time.
    pub concurrency: usize,
    /// For how long a worker has a type to itself before it must say that it is still there; after a crash another one
    /// takes over that much later.
    pub lease: Duration,
    /// How often the queue is asked for what other processes owe.
    pub poll: Duration,
}

impl Default for PushConfig {
    fn default() -> Self {
        Self {
            spacing: Duration::from_secs(1),
            concurrency: 500,
            lease: Duration::from_secs(30),
            poll: Duration::from_millis(250),
        }
    }
}

impl PushConfig {
    /// The defaults: a second between two pushes of a type to a device, 500 pushes at a time.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With this least time between two pushes to one device.
    #[must_use]
    pub fn spacing(mut self, spacing: Duration) -> Self {
        self.spacing = spacing;
        self
    }

    /// With this many pushes at a time.
    #[must_use]
    pub fn concurrency(mut self, concurrency: usize) -> Self {
        self.concurrency = concurrency;
        self
    }

    /// With leases of this length.
    #[must_use]
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// Asking this often.
    #[must_use]
    pub fn poll(mut self, poll: Duration) -> Self {
        self.poll = poll;
        self
    }
}
