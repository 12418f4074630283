//! A store in memory that fails on demand, and whose dates a test can choose.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use passkit_server::{
    Changes, DeviceIdentifier, DevicePage, MemoryStore, PageCursor, PassId, PassState, PushToken, Registered,
    RegistrationStore, SerialNumber, StoreError, StoreErrorKind, TypeIdentifier, UpdateTag, async_trait,
};

#[derive(Clone, Copy)]
pub(crate) enum Fault {
    /// The call fails before it did anything.
    Before(StoreErrorKind),
    /// The call does its work, and then the answer is lost.
    After(StoreErrorKind),
}

#[derive(Default)]
pub(crate) struct TestStore {
    inner: MemoryStore,
    fault: Mutex<Option<Fault>>,
    pinned: Mutex<Option<PassState>>,
    /// How many seconds all dates lie earlier than the inner store's.
    backdated: AtomicU64,
}

impl TestStore {
    /// A store whose dates lie `seconds` in the past, so that none is ever ahead of the wall clock.
    pub(crate) fn backdated(seconds: u64) -> Self {
        let store = Self::default();
        store.backdated.store(seconds, Ordering::SeqCst);
        store
    }

    /// Lets every call fail from now on, or none.
    pub(crate) fn set_fault(&self, fault: Option<Fault>) {
        *self.fault.lock().unwrap() = fault;
    }

    /// Gives every pass this state.
    pub(crate) fn pin(&self, version: u64, last_modified: u64) {
        *self.pinned.lock().unwrap() = Some(PassState { version, last_modified });
    }

    async fn run<T>(&self, work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        let fault = *self.fault.lock().unwrap();
        match fault {
            Some(Fault::Before(kind)) => Err(StoreError::new(kind, "secret-detail")),
            Some(Fault::After(kind)) => {
                work.await?;
                Err(StoreError::new(kind, "secret-detail"))
            }
            None => work.await,
        }
    }
}

#[async_trait]
impl RegistrationStore for TestStore {
    async fn register(
        &self,
        device: &DeviceIdentifier,
        pass: &PassId,
        push_token: &PushToken,
    ) -> Result<Registered, StoreError> {
        self.run(self.inner.register(device, pass, push_token)).await
    }

    async fn unregister(&self, device: &DeviceIdentifier, pass: &PassId) -> Result<bool, StoreError> {
        self.run(self.inner.unregister(device, pass)).await
    }

    async fn updated_since(
        &self,
        device: &DeviceIdentifier,
        type_id: &TypeIdentifier,
        since: Option<UpdateTag>,
    ) -> Result<Changes, StoreError> {
        self.run(self.inner.updated_since(device, type_id, since)).await
    }

    async fn mark_updated(
        &self,
        type_id: &TypeIdentifier,
        serials: &[SerialNumber],
    ) -> Result<(), StoreError> {
        self.run(self.inner.mark_updated(type_id, serials)).await
    }

    async fn mark_all_updated(&self, type_id: &TypeIdentifier) -> Result<(), StoreError> {
        self.run(self.inner.mark_all_updated(type_id)).await
    }

    async fn pass_state(&self, pass: &PassId) -> Result<PassState, StoreError> {
        let state = self.run(self.inner.pass_state(pass)).await?;
        let pinned = *self.pinned.lock().unwrap();
        Ok(pinned.unwrap_or(PassState {
            last_modified: state.last_modified - self.backdated.load(Ordering::SeqCst),
            ..state
        }))
    }

    async fn devices_of(
        &self,
        pass: &PassId,
        after: Option<&PageCursor>,
        limit: usize,
    ) -> Result<DevicePage, StoreError> {
        self.run(self.inner.devices_of(pass, after, limit)).await
    }

    async fn forget_device(
        &self,
        device: &DeviceIdentifier,
        unregistered_at: SystemTime,
    ) -> Result<bool, StoreError> {
        self.run(self.inner.forget_device(device, unregistered_at)).await
    }
}
