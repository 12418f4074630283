//! Store operations for operators: import and export of registrations, counting them, and removing
//! what is kept of a pass.

use async_trait::async_trait;

use crate::{
    PassId,
    identifiers::{DeviceIdentifier, PushToken, TypeIdentifier},
    store::{Page, PageCursor, RegistrationStore, StoreError},
};

/// Store operations for operators: import and export of registrations, counting them, and removing
/// what is kept of a pass.
///
/// The service does not need this trait. All calls may run while the service runs.
#[async_trait]
pub trait StoreMaintenance: RegistrationStore {
    /// Registers all `registrations` in this order. The result is the same as with one call of
    /// [`register`](RegistrationStore::register) for each, but this call takes fewer steps. Returns
    /// how many registrations are new.
    ///
    /// A registration may occur twice. If a device occurs with different push tokens, the last
    /// token stays. After an error or a dropped future, some of the registrations may exist, each
    /// of them complete. It is always right to repeat the call.
    async fn register_many(&self, registrations: &[Registration]) -> Result<u64, StoreError>;

    /// Returns a page of about `limit` registrations, from the start or after the page that ended
    /// at `after`. The store chooses the order.
    ///
    /// A registration that exists from the reading of the first page to the reading of the last is
    /// on at least one page. It may be on two pages. An empty page may have a [`next`](Page::next).
    /// With a cursor that the store never gave, the list starts at the beginning. A limit of 0
    /// counts as 1.
    async fn registrations(
        &self,
        after: Option<&PageCursor>,
        limit: usize,
    ) -> Result<Page<Registration>, StoreError>;

    /// Returns a page of the passes that were ever published, with the same rules as
    /// [`registrations`](Self::registrations). [`published`](RegistrationStore::published) returns
    /// what the store keeps about each of them.
    ///
    /// A page may be longer than `limit` if the store reads several passes at once, such as a
    /// bucket of passes.
    async fn published_passes(
        &self,
        after: Option<&PageCursor>,
        limit: usize,
    ) -> Result<Page<PassId>, StoreError>;

    /// Removes what the store keeps of `pass` besides its registrations: its mark with version and
    /// date, its digest, its tokens, and its pending push. Returns whether nothing of it is left.
    /// [`purge`] removes the registrations too.
    ///
    /// After that, the pass counts as never marked and never published, like a pass that the store
    /// never knew. What belongs to other passes or to the whole type stays.
    ///
    /// If the date of the last mark of the pass is not earlier than the current second, the call
    /// changes nothing and returns `false`. Otherwise the next mark could give the pass a date that
    /// phones already have (C14). Call it again when the date is past.
    ///
    /// Unregister the devices of the pass first. A device that stays registered no longer learns
    /// of changes that were made before the call. C6 and C12 apply to the call.
    async fn forget_pass(&self, pass: &PassId) -> Result<bool, StoreError>;

    /// Counts devices, passes and registrations. The call may take as long as reading the whole
    /// store.
    async fn stats(&self) -> Result<StoreStats, StoreError>;
}

/// A device, its push token, and a pass that it is registered for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// The device.
    pub device: DeviceIdentifier,
    /// The push token of the device.
    pub push_token: PushToken,
    /// The pass.
    pub pass: PassId,
}

/// The counts of a store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// How many devices are registered for at least one pass.
    pub devices: u64,
    /// The counts of each type that has registrations, in the order of the types.
    pub types: Vec<TypeStats>,
    /// The size of the store in bytes, including indexes. `None` if the size is unknown.
    pub storage_bytes: Option<u64>,
}

/// The counts of a type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeStats {
    /// The type.
    pub type_id: TypeIdentifier,
    /// How many passes of the type are registered on at least one device.
    pub passes: u64,
    /// How many registrations of the type there are.
    pub registrations: u64,
}
