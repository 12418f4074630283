//! Stores that are correct, but slow, with unusual pages, or with unusual clocks. Each of them
//! passes all cases.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use bytes::Bytes;
use passkit_conformance::store::{BoxError, Stores, TestStore, cases};
use passkit_server::{
    Changed, PassId, PassState,
    delivery::{DeliveryLog, Record, Subject},
    identifiers::{DeviceIdentifier, PushToken, TypeIdentifier},
    maintenance::{Registration, StoreMaintenance, StoreStats},
    push::{Backlog, DeferredPush, PendingChange, Progress, PushQueue, Scope},
    store::{
        ArchiveStore, Audience, Changes, ContentDigest, Coordination, MemoryStore, Page,
        PageCursor, Published, Registered, RegisteredDevice, RegistrationStore, StoreError,
        UpdateTag, clock,
    },
};
use tokio::{
    sync::{Mutex, MutexGuard, Semaphore},
    task::JoinSet,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    /// Each call takes 20 ms longer: 10 ms before the change, and 10 ms after it.
    Slow,
    /// Every second page is empty.
    EmptyPages,
    /// Pages have twice as many items as requested.
    LongPages,
    /// If one pass changed, all passes of the device are listed (C7).
    OverReporting,
    /// Clocks count milliseconds. Clocks of different types and devices may have the same reading.
    Milliseconds,
    /// Three instances share the data. Each call goes to the next instance.
    Instances,
}

struct Right {
    inner: Arc<MemoryStore>,
    how: How,
    clocks: Mutex<Clocks>,
}

/// Maps the readings of the inner store's clocks to the readings that the kit sees. The step that
/// makes a reading also makes its entry.
#[derive(Default)]
struct Clocks {
    types: BTreeMap<TypeIdentifier, Readings>,
    devices: BTreeMap<DeviceIdentifier, Readings>,
}

#[derive(Default)]
struct Readings(BTreeMap<u64, u64>);

impl Readings {
    /// Returns the reading that the kit sees.
    fn shown(&mut self, inner: u64) -> u64 {
        if inner == 0 {
            return 0;
        }
        let last = self.0.last_key_value().map_or(0, |(_, shown)| *shown);
        let millisecond = inner / 1_000 * 1_000;
        *self.0.entry(inner).or_insert(millisecond.max(last + 1))
    }

    /// Converts a reading that the kit saw to the reading of the inner store.
    fn inner(&self, shown: u64) -> u64 {
        match self.0.iter().rev().find(|(_, one)| **one <= shown) {
            Some((inner, one)) if *one == shown => *inner,
            // The reading is ahead of the newest reading.
            Some((inner, _)) if self.0.last_key_value().is_some_and(|last| last.0 == inner) => {
                u64::MAX
            }
            Some((inner, _)) => *inner,
            None if self.0.is_empty() => shown,
            None => 0,
        }
    }
}

impl Clocks {
    fn type_of(&mut self, type_id: &TypeIdentifier) -> &mut Readings {
        self.types.entry(type_id.clone()).or_default()
    }

    fn device(&mut self, device: &DeviceIdentifier) -> &mut Readings {
        self.devices.entry(device.clone()).or_default()
    }
}

impl Right {
    fn over(how: How, inner: Arc<MemoryStore>) -> Self {
        Self {
            inner,
            how,
            clocks: Mutex::default(),
        }
    }

    async fn slowly<T>(&self, call: impl Future<Output = T>) -> T {
        let half = Duration::from_millis(10);
        if self.how == How::Slow {
            tokio::time::sleep(half).await;
        }
        let answer = call.await;
        if self.how == How::Slow {
            tokio::time::sleep(half).await;
        }
        answer
    }

    /// Returns the clocks, if they differ from the clocks of the inner store. The calls of the
    /// inner store never wait. Everything until the lock is released is therefore one step.
    async fn clocks(&self) -> Option<MutexGuard<'_, Clocks>> {
        match self.how {
            How::Milliseconds => Some(self.clocks.lock().await),
            _ => None,
        }
    }

    async fn paged<T, R>(
        &self,
        after: Option<&PageCursor>,
        limit: usize,
        read: impl FnOnce(Option<PageCursor>, usize) -> R,
    ) -> Result<Page<T>, StoreError>
    where
        R: Future<Output = Result<Page<T>, StoreError>>,
    {
        self.slowly(async {
            match self.how {
                How::LongPages => read(after.cloned(), limit.max(1).saturating_mul(2)).await,
                How::EmptyPages => {
                    let text = after.map_or("", PageCursor::as_str);
                    let Some(position) = text.strip_prefix("then ") else {
                        return Ok(Page {
                            items: Vec::new(),
                            next: Some(PageCursor::new(format!("then {text}"))),
                        });
                    };
                    let after = Some(position).filter(|text| !text.is_empty());
                    read(after.map(PageCursor::new), limit).await
                }
                _ => read(after.cloned(), limit).await,
            }
        })
        .await
    }

    async fn newest(&self, device: &DeviceIdentifier, type_id: &TypeIdentifier) -> UpdateTag {
        let all = self.inner.changes_since(device, type_id, None).await;
        all.unwrap().tag
    }

    /// Adds an entry for the new reading of a type's clock.
    async fn stepped(&self, clocks: Option<MutexGuard<'_, Clocks>>, type_id: &TypeIdentifier) {
        if let Some(mut clocks) = clocks {
            let nobody = DeviceIdentifier::new("nobody").unwrap();
            let tag = self.newest(&nobody, type_id).await;
            clocks.type_of(type_id).shown(tag.type_version);
        }
    }
}

#[async_trait]
impl RegistrationStore for Right {
    async fn register(
        &self,
        device: &DeviceIdentifier,
        pass: &PassId,
        push_token: &PushToken,
    ) -> Result<Registered, StoreError> {
        self.slowly(async {
            let clocks = self.clocks().await;
            let registered = self.inner.register(device, pass, push_token).await?;
            if let Some(mut clocks) = clocks {
                let tag = self.newest(device, &pass.type_id).await;
                clocks.device(device).shown(tag.device_version);
            }
            Ok(registered)
        })
        .await
    }

    async fn unregister(
        &self,
        device: &DeviceIdentifier,
        pass: &PassId,
    ) -> Result<bool, StoreError> {
        self.slowly(async {
            let _clocks = self.clocks().await;
            self.inner.unregister(device, pass).await
        })
        .await
    }

    async fn changes_since(
        &self,
        device: &DeviceIdentifier,
        type_id: &TypeIdentifier,
        since: Option<UpdateTag>,
    ) -> Result<Changes, StoreError> {
        self.slowly(async {
            let mut clocks = self.clocks().await;
            let since = match (&mut clocks, since) {
                (Some(clocks), Some(since)) => Some(UpdateTag {
                    type_version: clocks.type_of(type_id).inner(since.type_version),
                    device_version: clocks.device(device).inner(since.device_version),
                }),
                (_, since) => since,
            };
            let mut changes = self.inner.changes_since(device, type_id, since).await?;
            if self.how == How::OverReporting && !changes.serials.is_empty() {
                changes = self.inner.changes_since(device, type_id, None).await?;
            }
            if let Some(clocks) = &mut clocks {
                let tag = &mut changes.tag;
                tag.type_version = clocks.type_of(type_id).shown(tag.type_version);
                tag.device_version = clocks.device(device).shown(tag.device_version);
            }
            Ok(changes)
        })
        .await
    }

    async fn pass_state(&self, pass: &PassId) -> Result<PassState, StoreError> {
        self.slowly(async {
            let clocks = self.clocks().await;
            let mut state = self.inner.pass_state(pass).await?;
            if let Some(mut clocks) = clocks {
                state.version = clocks.type_of(&pass.type_id).shown(state.version);
            }
            Ok(state)
        })
        .await
    }

    async fn mark(&self, type_id: &TypeIdentifier, changed: Changed<'_>) -> Result<(), StoreError> {
        self.slowly(async {
            let clocks = self.clocks().await;
            self.inner.mark(type_id, changed).await?;
            self.stepped(clocks, type_id).await;
            Ok(())
        })
        .await
    }

    async fn published(&self, passes: &[PassId]) -> Result<Vec<Option<Published>>, StoreError> {
        self.slowly(self.inner.published(passes)).await
    }

    async fn devices(
        &self,
        audience: Audience<'_>,
        after: Option<&PageCursor>,
        limit: usize,
    ) -> Result<Page<RegisteredDevice>, StoreError> {
        let read = async |after: Option<PageCursor>, limit| {
            self.inner.devices(audience, after.as_ref(), limit).await
        };
        self.paged(after, limit, read).await
    }

    async fn count_devices(&self, pass: &PassId, at_most: u64) -> Result<u64, StoreError> {
        self.slowly(self.inner.count_devices(pass, at_most)).await
    }

    async fn forget_device(
        &self,
        device: &DeviceIdentifier,
        unregistered_at: SystemTime,
    ) -> Result<bool, StoreError> {
        self.slowly(async {
            let Some(clocks) = self.clocks().await else {
                return self.inner.forget_device(device, unregistered_at).await;
            };
            let last = clocks.devices.get(device).map(|one| &one.0);
            let last = last.and_then(|readings| readings.last_key_value());
            match last {
                Some((inner, shown)) if *shown <= clock::micros(unregistered_at) => {
                    let at = SystemTime::UNIX_EPOCH + Duration::from_micros(*inner);
                    self.inner.forget_device(device, at).await
                }
                _ => Ok(false),
            }
        })
        .await
    }
}

#[async_trait]
impl Coordination for Right {
    async fn claim(&self, name: &str, owner: &str, time: Duration) -> Result<bool, StoreError> {
        self.slowly(self.inner.claim(name, owner, time)).await
    }

    async fn release(&self, name: &str, owner: &str) -> Result<(), StoreError> {
        self.slowly(self.inner.release(name, owner)).await
    }

    async fn note(&self, name: &str) -> Result<Option<String>, StoreError> {
        self.slowly(self.inner.note(name)).await
    }

    async fn replace_note(
        &self,
        name: &str,
        expected: Option<&str>,
        new: Option<&str>,
    ) -> Result<bool, StoreError> {
        self.slowly(self.inner.replace_note(name, expected, new))
            .await
    }
}

#[async_trait]
impl PushQueue for Right {
    async fn mark_and_push(
        &self,
        type_id: &TypeIdentifier,
        changed: Changed<'_>,
    ) -> Result<(), StoreError> {
        self.slowly(async {
            let clocks = self.clocks().await;
            self.inner.mark_and_push(type_id, changed).await?;
            self.stepped(clocks, type_id).await;
            Ok(())
        })
        .await
    }

    async fn backlog(&self) -> Result<Vec<Backlog>, StoreError> {
        self.slowly(self.inner.backlog()).await
    }

    async fn pending(
        &self,
        type_id: &TypeIdentifier,
        limit: usize,
    ) -> Result<Vec<PendingChange>, StoreError> {
        self.slowly(async {
            let limit = match self.how {
                How::LongPages => limit.max(1).saturating_mul(2),
                _ => limit,
            };
            let clocks = self.clocks().await;
            let mut pending = self.inner.pending(type_id, limit).await?;
            if let Some(mut clocks) = clocks {
                let readings = clocks.type_of(type_id);
                for change in &mut pending {
                    change.version = readings.shown(change.version);
                    if let Some(progress) = &mut change.progress {
                        progress.version = readings.shown(progress.version);
                    }
                }
            }
            Ok(pending)
        })
        .await
    }

    async fn record_progress(
        &self,
        type_id: &TypeIdentifier,
        progress: &[(Scope, Progress)],
    ) -> Result<(), StoreError> {
        self.slowly(async {
            let mut progress = progress.to_vec();
            if let Some(mut clocks) = self.clocks().await {
                let readings = clocks.type_of(type_id);
                for (_, one) in &mut progress {
                    one.version = readings.inner(one.version);
                }
            }
            self.inner.record_progress(type_id, &progress).await
        })
        .await
    }

    async fn defer(
        &self,
        type_id: &TypeIdentifier,
        pushes: &[(DeviceIdentifier, Option<DeferredPush>)],
    ) -> Result<(), StoreError> {
        self.slowly(self.inner.defer(type_id, pushes)).await
    }

    async fn deferred(
        &self,
        type_id: &TypeIdentifier,
        after: Option<&PageCursor>,
        limit: usize,
    ) -> Result<Page<(DeviceIdentifier, DeferredPush)>, StoreError> {
        let read = async |after: Option<PageCursor>, limit| {
            self.inner.deferred(type_id, after.as_ref(), limit).await
        };
        self.paged(after, limit, read).await
    }
}

#[async_trait]
impl StoreMaintenance for Right {
    async fn register_many(&self, registrations: &[Registration]) -> Result<u64, StoreError> {
        self.slowly(async {
            let clocks = self.clocks().await;
            let created = self.inner.register_many(registrations).await?;
            if let Some(mut clocks) = clocks {
                for Registration { device, pass, .. } in registrations {
                    let tag = self.newest(device, &pass.type_id).await;
                    clocks.device(device).shown(tag.device_version);
                }
            }
            Ok(created)
        })
        .await
    }

    async fn registrations(
        &self,
        after: Option<&PageCursor>,
        limit: usize,
    ) -> Result<Page<Registration>, StoreError> {
        let read = async |after: Option<PageCursor>, limit| {
            self.inner.registrations(after.as_ref(), limit).await
        };
        self.paged(after, limit, read).await
    }

    async fn published_passes(
        &self,
        after: Option<&PageCursor>,
        limit: usize,
    ) -> Result<Page<PassId>, StoreError> {
        let read = async |after: Option<PageCursor>, limit| {
            self.inner.published_passes(after.as_ref(), limit).await
        };
        self.paged(after, limit, read).await
    }

    async fn forget_pass(&self, pass: &PassId) -> Result<bool, StoreError> {
        self.slowly(self.inner.forget_pass(pass)).await
    }

    async fn stats(&self) -> Result<StoreStats, StoreError> {
        self.slowly(self.inner.stats()).await
    }
}

#[async_trait]
impl DeliveryLog for Right {
    async fn record(&self, records: &[Record]) -> Result<(), StoreError> {
        self.slowly(self.inner.record(records)).await
    }

    async fn records(&self, subjects: &[Subject]) -> Result<Vec<Vec<Record>>, StoreError> {
        self.slowly(self.inner.records(subjects)).await
    }

    async fn forget(&self, subjects: &[Subject]) -> Result<(), StoreError> {
        self.slowly(self.inner.forget(subjects)).await
    }

    async fn discard_before(&self, time: SystemTime, limit: usize) -> Result<bool, StoreError> {
        self.slowly(self.inner.discard_before(time, limit)).await
    }
}

#[async_trait]
impl ArchiveStore for Right {
    async fn put_archive(
        &self,
        pass: &PassId,
        content: &ContentDigest,
        archive: Bytes,
    ) -> Result<(), StoreError> {
        self.slowly(self.inner.put_archive(pass, content, archive))
            .await
    }

    async fn archive(
        &self,
        pass: &PassId,
        content: &ContentDigest,
    ) -> Result<Option<Bytes>, StoreError> {
        self.slowly(self.inner.archive(pass, content)).await
    }
}

struct RightStores(How);

#[async_trait]
impl Stores for RightStores {
    type Place = TestStore;

    async fn open(&self) -> Result<(TestStore, TestStore), BoxError> {
        let data = Arc::new(MemoryStore::new());
        let instance = || {
            let store = Arc::new(Right::over(self.0, data.clone()));
            TestStore::with_all(store.clone()).with_archives(store)
        };
        let store = match self.0 {
            How::Instances => TestStore::spread(instance(), vec![instance(), instance()]),
            _ => instance(),
        };
        Ok((store.clone(), store))
    }

    async fn reopen(&self, store: &TestStore) -> Option<Result<TestStore, BoxError>> {
        Some(Ok(store.clone()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn right_stores_pass_all() {
    // Many cases run at a time, because a slow store mostly waits.
    let at_once = Arc::new(Semaphore::new(24));
    let mut all = JoinSet::new();
    for how in [
        How::Slow,
        How::EmptyPages,
        How::LongPages,
        How::OverReporting,
        How::Milliseconds,
        How::Instances,
    ] {
        let stores = Arc::new(RightStores(how));
        for case in cases() {
            let (stores, at_once) = (stores.clone(), at_once.clone());
            all.spawn(async move {
                let _turn = at_once.acquire().await.unwrap();
                (how, case.run(&stores).await)
            });
        }
    }
    let mut accused = Vec::new();
    while let Some(result) = all.join_next().await {
        let (how, report) = result.unwrap();
        println!("{how:?} {report}");
        if !matches!(report.outcome, passkit_conformance::Outcome::Pass) {
            accused.push(format!("{how:?}: {report}"));
        }
    }
    assert!(accused.is_empty(), "{}", accused.join("\n"));
}
