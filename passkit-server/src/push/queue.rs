use std::time::{Duration, SystemTime};

use async_trait::async_trait;

use crate::{
    DeviceIdentifier, PageCursor, PushToken, SerialNumber, StoreError, StoreMaintenance, TypeIdentifier,
};

/// A store that remembers which pushes are owed, in the commit that marks the pass, so that none is forgotten when the
/// process ends before it was sent.
///
/// What is owed is one [debt](Debt) for a pass, or for a whole type, whatever the number of its devices; these are read
/// when the pushes go out, page by page, and how far that came is kept as well. All that is owed for a type is sent by
/// one worker at a time, the holder of the type's lease, which so can push once for what several passes and changes owe
/// to one device.
///
/// # Contract
/// * **Q1, owed with the mark.** When [`mark_and_owe`](Self::mark_and_owe) or
///   [`mark_all_and_owe`](Self::mark_all_and_owe) returned `Ok`, the passes are marked and the pushes owed; however it
///   ends, not one without the other for any pass. [`PublishedContent::publish`](crate::PublishedContent::publish), where
///   the store has it, owes the pushes of what it marks. Everything that Q1 to Q5 say outlives the process as C6 says of
///   marks.
/// * **Q2, nothing is forgotten.** A debt is in the answers of [`debts`](Self::debts) until an [`advance`](Self::advance)
///   to the end named its newest version. Owed again in between it stays, with a greater version, and is read from the
///   start once more.
/// * **Q3, nothing is owed for ever.** After that `advance` it is gone, and [`owing`](Self::owing) does not name the type
///   for it.
/// * **Q4, one worker.** Of any number of parallel [`lease`](Self::lease) calls for one type by different workers, one is
///   told `true`; the others only after it let go, or its time ran out. Time is told by one clock, the store's own.
/// * **Q5, held pushes.** [`held`](Self::held) gives what [`hold`](Self::hold) put there last for each device, until
///   [`unhold`](Self::unhold).
///
/// `advance`, `hold` and `unhold` do not ask for the lease: what they say is true whoever says it.
///
/// # Cancel safety and errors
/// As of [`RegistrationStore`](crate::RegistrationStore): C12 holds for each debt, and repeating a call is always right.
#[async_trait]
pub trait PushQueue: StoreMaintenance {
    /// Marks the passes as [`mark_updated`](crate::RegistrationStore::mark_updated) does, and owes a push to every device
    /// that is registered for one of them.
    async fn mark_and_owe(
        &self,
        type_id: &TypeIdentifier,
        serials: &[SerialNumber],
    ) -> Result<(), StoreError>;

    /// Marks every pass of the type as [`mark_all_updated`](crate::RegistrationStore::mark_all_updated) does, and owes a
    /// push to every device that has one.
    async fn mark_all_and_owe(&self, type_id: &TypeIdentifier) -> Result<(), StoreError>;

    /// The types that have debts or held pushes. Quick: workers ask several times a second.
    async fn owing(&self) -> Result<Vec<Owing>, StoreError>;

    /// Takes all that is owed for a type for this worker, or keeps it, for `time` from now, a year at most. `false` if
    /// another worker has it.
    async fn lease(&self, type_id: &TypeIdentifier, worker: &str, time: Duration)
    -> Result<bool, StoreError>;

    /// Ends a lease before its time, if this worker has it.
    async fn release(&self, type_id: &TypeIdentifier, worker: &str) -> Result<(), StoreError>;

    /// The debts of a type, at most about `limit` of them, the longest owed first as far as the store can tell.
    async fn debts(&self, type_id: &TypeIdentifier, limit: usize) -> Result<Vec<Debt>, StoreError>;

    /// Notes how far each of these debts was worked off. `version` is the one that the debt had when its devices were
    /// read from the start.
    ///
    /// Up to a page, that is where the next worker goes on. To the end (no cursor), the debt is gone if it still has that
    /// version; otherwise it stays, to be read from the start. A debt that is not there is left so. Taken in their order.
    async fn advance(&self, type_id: &TypeIdentifier, reached: &[(Owed, Reached)]) -> Result<(), StoreError>;

    /// Keeps these pushes for later, each in place of what was held for its device and this type.
    async fn hold(&self, type_id: &TypeIdentifier, pushes: &[HeldPush]) -> Result<(), StoreError>;

    /// Drops what is held for these devices and this type.
    async fn unhold(&self, type_id: &TypeIdentifier, devices: &[DeviceIdentifier]) -> Result<(), StoreError>;

    /// A page of what is held for a type, as [`devices_of`](crate::RegistrationStore::devices_of) gives pages.
    async fn held(
        &self,
        type_id: &TypeIdentifier,
        after: Option<&PageCursor>,
        limit: usize,
    ) -> Result<HeldPage, StoreError>;
}

/// What pushes are owed for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Owed {
    /// A pass: to each device that is registered for it.
    Pass(SerialNumber),
    /// Every pass of the type: to each device that has one.
    Type,
}

/// Pushes that are owed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Debt {
    /// What they are owed for.
    pub owed: Owed,
    /// The version that the last mark which owed them gave the passes: greater each time.
    pub version: u64,
    /// How far a worker came, if one has begun; then its version says what that one was about.
    pub reached: Option<Reached>,
}

/// How far the devices of a debt were read and pushed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reached {
    /// The debt's version when its devices were read from the start.
    pub version: u64,
    /// Where to go on: of [`devices_of`](crate::RegistrationStore::devices_of) for a pass, of
    /// [`registrations`](StoreMaintenance::registrations) for a type. `None` at the end.
    pub next: Option<PageCursor>,
}

/// What is owed for a type, as a sum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owing {
    /// The type, which is the topic of the pushes.
    pub type_id: TypeIdentifier,
    /// How many debts there are. A store may stop counting at 10,000.
    pub debts: u64,
    /// When the oldest of them was owed, or somewhat before that; `None` without debts.
    pub since: Option<SystemTime>,
    /// When the first held push that has a time comes due.
    pub next_held: Option<SystemTime>,
}

/// A push to one device that is not to be sent now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldPush {
    /// The device.
    pub device: DeviceIdentifier,
    /// Its push token.
    pub push_token: PushToken,
    /// When it is to be tried again; `None` if not before the next change.
    pub due: Option<SystemTime>,
    /// How often it was tried.
    pub attempts: u32,
    /// When the token was first called bad, if it was.
    pub bad_since: Option<SystemTime>,
}

/// Some of the held pushes of a type.
#[derive(Clone, Debug, Default)]
pub struct HeldPage {
    /// The pushes.
    pub pushes: Vec<HeldPush>,
    /// Where the next page starts; `None` after the last.
    pub next: Option<PageCursor>,
}
