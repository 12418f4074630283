use std::time::SystemTime;

use async_trait::async_trait;

use crate::{
    Changed,
    identifiers::{DeviceIdentifier, PushToken, SerialNumber, TypeIdentifier},
    store::{Coordination, Page, PageCursor, RegistrationStore, StoreError},
};

/// A store that remembers which pushes are pending, in the commit that marks the pass. None is forgotten when the process
/// ends before it was sent.
///
/// A pending push is one [entry](PendingChange) for a pass, or for a whole type, whatever the number of devices. The
/// devices are read when the pushes go out, page by page, and the progress is kept as well. One worker at a time sends all
/// pushes of a type: the one that has [claimed](Coordination::claim) it. It can therefore send a device a single push for
/// many changed passes.
///
/// # Contract
/// * **Q1, pending with the mark.** When [`mark_and_push`](Self::mark_and_push) returned `Ok`, the passes are marked and
///   their pushes are pending. However the call ends, no pass has one without the other. Of
///   [`Changed::Contents`] only the passes that it marks get a pending push. What Q1 to Q4 say outlives the process as C6
///   says of marks.
/// * **Q2, nothing is forgotten.** A pending change is in the answers of [`pending`](Self::pending) until a
///   [`record_progress`](Self::record_progress) to the end named its newest version. If the pass changed again in between,
///   the entry stays, with a greater version, and its devices are read from the start once more.
/// * **Q3, nothing is pending forever.** After that `record_progress` it is gone, and [`backlog`](Self::backlog) does not
///   name the type for it.
/// * **Q4, deferred pushes.** [`deferred`](Self::deferred) gives what [`defer`](Self::defer) put there last for each
///   device, also for one that is not registered any more: only `defer` removes it.
///
/// `record_progress` and `defer` don't check who has claimed the type: what they say is true whoever says it.
///
/// # Cancel safety and errors
/// As those of [`RegistrationStore`]. C12 holds for each entry, and repeating a call is always right.
#[async_trait]
pub trait PushQueue: RegistrationStore + Coordination {
    /// Marks as [`mark`](RegistrationStore::mark) does, and makes a push pending for every device that is registered for
    /// one of the marked passes.
    async fn mark_and_push(&self, type_id: &TypeIdentifier, changed: Changed<'_>) -> Result<(), StoreError>;

    /// The types that have pending changes or deferred pushes. Quick: workers ask several times a second.
    async fn backlog(&self) -> Result<Vec<Backlog>, StoreError>;

    /// The pending changes of a type, at most about `limit` of them, the longest pending first as far as the store can
    /// tell.
    async fn pending(&self, type_id: &TypeIdentifier, limit: usize)
    -> Result<Vec<PendingChange>, StoreError>;

    /// Records how far the devices of each pending change were pushed. [`Progress::version`] is the version that the
    /// change had when its devices were read from the start.
    ///
    /// With a cursor, the next worker continues there. Without one, all devices were pushed: the entry is removed if it
    /// still has that version, and otherwise stays, to be read from the start, as if it had become pending with its newest
    /// version. An entry that is not there stays so. The items are applied in their order.
    async fn record_progress(
        &self,
        type_id: &TypeIdentifier,
        progress: &[(Scope, Progress)],
    ) -> Result<(), StoreError>;

    /// Sets the deferred push of each device for this type, or removes it. If a device occurs twice, the last one counts.
    async fn defer(
        &self,
        type_id: &TypeIdentifier,
        pushes: &[(DeviceIdentifier, Option<DeferredPush>)],
    ) -> Result<(), StoreError>;

    /// A page of the deferred pushes of a type, as [`devices`](RegistrationStore::devices) gives pages.
    async fn deferred(
        &self,
        type_id: &TypeIdentifier,
        after: Option<&PageCursor>,
        limit: usize,
    ) -> Result<Page<(DeviceIdentifier, DeferredPush)>, StoreError>;
}

/// What a pending change is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// One pass: its pushes go to each device that is registered for it.
    Pass(SerialNumber),
    /// Every pass of the type: its pushes go to each device that has one.
    Type,
}

/// A change whose pushes are pending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingChange {
    /// What changed.
    pub scope: Scope,
    /// The version that the last [`mark_and_push`](PushQueue::mark_and_push) gave the passes: greater each time. A plain
    /// mark leaves it alone.
    pub version: u64,
    /// How far a worker came, if one has started. Its version may be an older one.
    pub progress: Option<Progress>,
}

/// How far the devices of a pending change were read and pushed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The version of the change when its devices were read from the start.
    pub version: u64,
    /// Where to continue in the pages of [`devices`](RegistrationStore::devices); `None` at the end.
    pub next: Option<PageCursor>,
}

/// What is pending of a type, in numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backlog {
    /// The type, which is the topic of the pushes.
    pub type_id: TypeIdentifier,
    /// How many changes are pending. A store may stop counting at 10,000.
    pub pending: u64,
    /// When the oldest of them was marked, or somewhat before that; `None` if none is pending.
    pub since: Option<SystemTime>,
    /// When the first deferred push that has a time is due.
    pub next_deferred: Option<SystemTime>,
}

/// A push to one device that is not to be sent now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeferredPush {
    /// The push token of the device.
    pub push_token: PushToken,
    /// When to try again; `None` if not before the next change.
    pub due: Option<SystemTime>,
    /// How often it was tried.
    pub attempts: u32,
    /// When the push service first called the token bad, if it did.
    pub bad_since: Option<SystemTime>,
}
