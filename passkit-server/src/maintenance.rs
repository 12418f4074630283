//! What an operator needs of a store: moving registrations in and out, and counting them.

use async_trait::async_trait;

use crate::{
    PassId,
    identifiers::{DeviceIdentifier, PushToken, TypeIdentifier},
    store::{Page, PageCursor, RegistrationStore, StoreError},
};

/// What an operator needs of a store besides the service: moving registrations in and out, and counting them.
///
/// The service never calls it, and works with a store without it. All calls may run while the service does.
#[async_trait]
pub trait StoreMaintenance: RegistrationStore {
    /// Registers as many [`register`](RegistrationStore::register) calls would, in this order, in fewer steps. Returns how
    /// many registrations are new.
    ///
    /// A registration may occur twice. If a device has different push tokens, the last one stays. After an error, or when
    /// dropped half way, some of the registrations may have been made, each of them whole. Repeating the call is always
    /// right.
    async fn register_many(&self, registrations: &[Registration]) -> Result<u64, StoreError>;

    /// A page of all registrations, about `limit` of them, from the start or `after` a page, in an order of the store's
    /// own.
    ///
    /// One that is there while all pages are read is in one of them. A registration may occur in two pages. A page may be
    /// empty and yet have a [`next`](Page::next). A cursor that can't be one of the store's reads from the start.
    async fn registrations(
        &self,
        after: Option<&PageCursor>,
        limit: usize,
    ) -> Result<Page<Registration>, StoreError>;

    /// Counts what is there. May take as long as reading everything does.
    async fn stats(&self) -> Result<StoreStats, StoreError>;
}

/// A device, where its pushes go, and a pass that it is registered for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// The device.
    pub device: DeviceIdentifier,
    /// The push token of the device.
    pub push_token: PushToken,
    /// The pass.
    pub pass: PassId,
}

/// What is in a store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// How many devices are registered for anything.
    pub devices: u64,
    /// What each type has that is registered, in the order of the types.
    pub types: Vec<TypeStats>,
    /// How much room the store takes, in bytes, indexes included; `None` where it can't be told.
    pub storage_bytes: Option<u64>,
}

/// What a store has of a type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeStats {
    /// The type.
    pub type_id: TypeIdentifier,
    /// How many of its passes are registered on a device.
    pub passes: u64,
    /// How many registrations there are.
    pub registrations: u64,
}
