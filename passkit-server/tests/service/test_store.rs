//! A store in memory that fails on demand. A test can choose its dates.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use passkit_server::{
    Changed, PassId, PassState, async_trait,
    identifiers::{DeviceIdentifier, PushToken, TypeIdentifier},
    store::{
        Audience, Changes, MemoryStore, Page, PageCursor, Published, Registered, RegisteredDevice,
        RegistrationStore, StoreError, StoreErrorKind, UpdateTag,
    },
};

#[derive(Clone, Copy)]
pub(crate) enum Fault {
    /// The call fails before it changes anything.
    Before(StoreErrorKind),
    /// The call makes its change, but its answer is lost.
    After(StoreErrorKind),
}

#[derive(Default)]
pub(crate) struct TestStore {
    inner: MemoryStore,
    fault: Mutex<Option<Fault>>,
    pinned: Mutex<Option<PassState>>,
    /// All dates are this many seconds earlier than the dates of the inner store.
    backdated: AtomicU64,
    calls: AtomicU64,
    marks: AtomicU64,
}

impl TestStore {
    /// Makes a store whose dates are `seconds` in the past, so that no date is in the future.
    pub(crate) fn backdated(seconds: u64) -> Self {
        let store = Self::default();
        store.backdated.store(seconds, Ordering::SeqCst);
        store
    }

    /// Makes every call fail from now on. `None` ends this.
    pub(crate) fn set_fault(&self, fault: Option<Fault>) {
        *self.fault.lock().unwrap() = fault;
    }

    /// Gives every pass this state.
    pub(crate) fn pin(&self, version: u64, last_modified: u64) {
        *self.pinned.lock().unwrap() = Some(PassState {
            version,
            last_modified,
            published: None,
        });
    }

    /// Returns the number of calls since the last time.
    pub(crate) fn take_calls(&self) -> u64 {
        self.calls.swap(0, Ordering::SeqCst)
    }

    /// Returns the number of calls that mark.
    pub(crate) fn marks(&self) -> u64 {
        self.marks.load(Ordering::SeqCst)
    }

    async fn run<T>(
        &self,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
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
        self.run(self.inner.register(device, pass, push_token))
            .await
    }

    async fn unregister(
        &self,
        device: &DeviceIdentifier,
        pass: &PassId,
    ) -> Result<bool, StoreError> {
        self.run(self.inner.unregister(device, pass)).await
    }

    async fn changes_since(
        &self,
        device: &DeviceIdentifier,
        type_id: &TypeIdentifier,
        since: Option<UpdateTag>,
    ) -> Result<Changes, StoreError> {
        self.run(self.inner.changes_since(device, type_id, since))
            .await
    }

    async fn mark(&self, type_id: &TypeIdentifier, changed: Changed<'_>) -> Result<(), StoreError> {
        self.marks.fetch_add(1, Ordering::SeqCst);
        self.run(self.inner.mark(type_id, changed)).await
    }

    async fn published(&self, passes: &[PassId]) -> Result<Vec<Option<Published>>, StoreError> {
        self.run(self.inner.published(passes)).await
    }

    async fn pass_state(&self, pass: &PassId) -> Result<PassState, StoreError> {
        let state = self.run(self.inner.pass_state(pass)).await?;
        let pinned = *self.pinned.lock().unwrap();
        Ok(pinned.unwrap_or(PassState {
            last_modified: state.last_modified - self.backdated.load(Ordering::SeqCst),
            ..state
        }))
    }

    async fn devices(
        &self,
        audience: Audience<'_>,
        after: Option<&PageCursor>,
        limit: usize,
    ) -> Result<Page<RegisteredDevice>, StoreError> {
        self.run(self.inner.devices(audience, after, limit)).await
    }

    async fn count_devices(&self, pass: &PassId, at_most: u64) -> Result<u64, StoreError> {
        self.run(self.inner.count_devices(pass, at_most)).await
    }

    async fn forget_device(
        &self,
        device: &DeviceIdentifier,
        unregistered_at: SystemTime,
    ) -> Result<bool, StoreError> {
        self.run(self.inner.forget_device(device, unregistered_at))
            .await
    }
}
