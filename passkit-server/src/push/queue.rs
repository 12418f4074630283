use std::time::SystemTime;

use async_trait::async_trait;

use crate::{
    Changed,
    identifiers::{DeviceIdentifier, PushToken, SerialNumber, TypeIdentifier},
    store::{Coordination, Page, PageCursor, RegistrationStore, StoreError},
};

/// A store that records pending pushes in the same commit that marks the passes. No push is lost if
/// the process ends before sending it.
///
/// A pending push is one [entry](PendingChange) for a pass, or for a type. It stays one entry for
/// any number of devices. The devices are read page by page while the pushes are sent, and the
/// progress is stored. One worker at a time sends all pushes of a type: the one that has
/// [claimed](Coordination::claim) the type. It can therefore send a device a single push for many
/// changed passes.
///
/// # Contract
/// * **Q1, pending with the mark.** When [`mark_and_push`](Self::mark_and_push) returned `Ok`, the
///   passes are marked and their pushes are pending. A call that fails or is dropped does both for
///   a pass, or neither. With [`Changed::Contents`], only the passes that the call marks get a
///   pending push. C6 applies to everything that Q1 to Q4 describe.
/// * **Q2, nothing is lost.** [`pending`](Self::pending) returns a pending change until
///   [`record_progress`](Self::record_progress) reports the end for its newest version. If the pass
///   changes again before that, the entry stays with a greater version, and its devices are read
///   from the start again.
/// * **Q3, nothing is pending forever.** After `record_progress` reported the end, the change is
///   gone, and [`backlog`](Self::backlog) no longer counts it.
/// * **Q4, deferred pushes.** [`deferred`](Self::deferred) returns what [`defer`](Self::defer) last
///   stored for each device. Only `defer` removes a deferred push, even if the device is no longer
///   registered.
///
/// `record_progress` and `defer` don't check who has claimed the type, because their reports are
/// true for every caller.
///
/// # Cancel safety and errors
/// The rules of [`RegistrationStore`] apply. C12 holds for each entry, and it is always safe to
/// repeat a call.
#[async_trait]
pub trait PushQueue: RegistrationStore + Coordination {
    /// Marks passes like [`mark`](RegistrationStore::mark), and makes a push pending for every
    /// device that is registered for a marked pass.
    async fn mark_and_push(
        &self,
        type_id: &TypeIdentifier,
        changed: Changed<'_>,
    ) -> Result<(), StoreError>;

    /// Returns the types that have pending changes or deferred pushes. The call should be fast,
    /// because workers make it several times a second.
    async fn backlog(&self) -> Result<Vec<Backlog>, StoreError>;

    /// Returns about `limit` pending changes of a type. The oldest come first, as far as the store
    /// knows their age. A limit of 0 counts as 1.
    async fn pending(
        &self,
        type_id: &TypeIdentifier,
        limit: usize,
    ) -> Result<Vec<PendingChange>, StoreError>;

    /// Records the progress of each pending change. [`Progress::version`] is the version that the
    /// change had when its first page of devices was read.
    ///
    /// If `Progress` has a cursor, the next worker continues at it. If `Progress` has no cursor,
    /// all devices were read. The entry is then removed if its version is still
    /// `Progress::version`. An entry with a newer version stays as if it had just become pending,
    /// and its devices are read from the start. A missing entry is ignored. The items are applied
    /// in their order.
    async fn record_progress(
        &self,
        type_id: &TypeIdentifier,
        progress: &[(Scope, Progress)],
    ) -> Result<(), StoreError>;

    /// Sets or removes the deferred push of each device for this type. If a device occurs twice,
    /// the last entry counts.
    async fn defer(
        &self,
        type_id: &TypeIdentifier,
        pushes: &[(DeviceIdentifier, Option<DeferredPush>)],
    ) -> Result<(), StoreError>;

    /// Returns a page of the deferred pushes of a type, with the same rules as
    /// [`devices`](RegistrationStore::devices).
    async fn deferred(
        &self,
        type_id: &TypeIdentifier,
        after: Option<&PageCursor>,
        limit: usize,
    ) -> Result<Page<(DeviceIdentifier, DeferredPush)>, StoreError>;
}

/// The passes that a pending change covers.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// One pass. Each device that is registered for the pass gets a push.
    Pass(SerialNumber),
    /// Every pass of the type. Each device that is registered for at least one of them gets a push.
    Type,
}

/// A change whose pushes are pending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingChange {
    /// What changed.
    pub scope: Scope,
    /// The version that the last [`mark_and_push`](PushQueue::mark_and_push) gave the passes. Each
    /// of these calls gives a greater version. A plain [`mark`](RegistrationStore::mark) does not
    /// change this value.
    pub version: u64,
    /// The progress of a worker, if one has started. Its version may be older than `version`.
    pub progress: Option<Progress>,
}

/// The progress of a pending change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The version of the change when its first page of devices was read.
    pub version: u64,
    /// Where to continue in the pages of [`devices`](RegistrationStore::devices). `None` at the
    /// end.
    pub next: Option<PageCursor>,
}

/// The numbers of pending changes and deferred pushes of a type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backlog {
    /// The type, which is the topic of the pushes.
    pub type_id: TypeIdentifier,
    /// How many changes are pending. A store may stop counting at 10,000.
    pub pending: u64,
    /// When the oldest of these changes was marked, or slightly earlier. `None` if none is pending.
    pub since: Option<SystemTime>,
    /// The earliest time at which a deferred push is due.
    pub next_deferred: Option<SystemTime>,
}

/// A push to one device, to be sent later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeferredPush {
    /// The push token of the device.
    pub push_token: PushToken,
    /// When to try again. `None` if the push waits for the next change.
    pub due: Option<SystemTime>,
    /// How often the push was tried.
    pub attempts: u32,
    /// When the push service first reported the token as bad, if it did.
    pub bad_since: Option<SystemTime>,
}
