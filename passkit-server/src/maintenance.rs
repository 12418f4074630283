//! Store operations for operators: importing, exporting and counting registrations, and forgetting
//! passes.

use std::{slice, time::Duration};

use async_trait::async_trait;
use futures_util::future::try_join_all;
use tokio::time::{Instant, sleep};

use crate::{
    Changed, PassId,
    delivery::{DeliveryLog, Subject},
    enrolment,
    identifiers::{DeviceIdentifier, PushToken, TypeIdentifier},
    push::{DeferredPush, PushQueue},
    store::{
        Audience, Content, Coordination, Page, PageCursor, RegisteredDevice, RegistrationStore,
        StoreError,
    },
};

/// Store operations for operators: importing, exporting and counting registrations, and forgetting
/// passes.
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
    /// of them complete. It is always safe to repeat the call.
    async fn register_many(&self, registrations: &[Registration]) -> Result<u64, StoreError>;

    /// Returns a page of about `limit` registrations, from the start or after the page that ended
    /// at `after`. The store chooses the order.
    ///
    /// A registration that exists while all pages are read is on at least one page.
    /// It may be on two pages. An empty page may have a [`next`](Page::next). With a cursor that
    /// the store never issued, the list starts at the beginning. A limit of 0 counts as 1.
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

    /// Removes everything that the store keeps about `pass` except its registrations: its mark with
    /// version and date, its digest, its tokens, and its pending push. Returns whether all of this
    /// is gone.
    /// [`purge`] removes the registrations too.
    ///
    /// After that, the pass counts as never marked and never published, like a pass that the store
    /// never knew. The data of other passes and of the type stay.
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

/// What [`purge`] removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Purged {
    /// How many registrations were removed.
    pub registrations: u64,
    /// The passes whose date was still ahead of the clock after a minute. Their registrations are
    /// removed. Purge these passes again after their date.
    pub ahead: Vec<PassId>,
}

/// How many calls are made at the same time.
const AT_ONCE: usize = 32;
/// How long to wait for the date of a pass.
const WAIT: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(200);

/// Removes everything that a store keeps about these passes: their registrations, their marks and
/// dates, the digests of their content, their authentication tokens, their pending pushes, and their
/// delivery records. A device without other registrations is removed too, and so are the delivery
/// records of devices that have no registration of these types left. Afterwards, call
/// [`remove_deferred`] once for each type of the passes.
///
/// The source must no longer offer the passes. Otherwise a phone that registers brings them back.
/// The call first publishes the removal of each pass, so that the service refuses new registrations.
/// A registration that the service accepted before may still arrive afterwards.
///
/// # Errors
/// Fails if the store fails. Some of the passes may then be purged. It is always safe to repeat the
/// call.
pub async fn purge<S>(store: &S, passes: &[PassId]) -> Result<Purged, StoreError>
where
    S: PushQueue + StoreMaintenance + DeliveryLog + ?Sized,
{
    let mut purged = Purged::default();
    for passes in passes.chunks(AT_ONCE) {
        let each = try_join_all(passes.iter().map(|pass| purge_one(store, pass))).await?;
        for (pass, (registrations, is_forgotten)) in passes.iter().zip(each) {
            purged.registrations += registrations;
            if !is_forgotten {
                purged.ahead.push(pass.clone());
            }
        }
    }
    Ok(purged)
}

/// Returns how many registrations were removed, and whether the rest of the pass is gone.
async fn purge_one<S>(store: &S, pass: &PassId) -> Result<(u64, bool), StoreError>
where
    S: Coordination + StoreMaintenance + DeliveryLog + ?Sized,
{
    publish_removal(store, pass).await?;
    let mut removed = unregister_all(store, pass).await?;
    let started = Instant::now();
    let mut is_forgotten = store.forget_pass(pass).await?;
    while !is_forgotten && started.elapsed() < WAIT {
        sleep(PAUSE).await;
        is_forgotten = store.forget_pass(pass).await?;
    }
    // A registration may have been under way when the removal was published.
    removed += unregister_all(store, pass).await?;
    enrolment::forget(store, pass).await?;
    store.forget(&[Subject::Pass(pass.clone())]).await?;
    Ok((removed, is_forgotten))
}

/// Publishes that a pass is no longer offered, if the store offers it.
async fn publish_removal<S>(store: &S, pass: &PassId) -> Result<(), StoreError>
where
    S: RegistrationStore + ?Sized,
{
    let published = store.published(slice::from_ref(pass)).await?;
    if published
        .iter()
        .flatten()
        .all(|published| published.removed)
    {
        return Ok(());
    }
    let removal = Content {
        serial: pass.serial.clone(),
        digest: None,
        tokens: Vec::new(),
    };
    let contents = Changed::Contents(slice::from_ref(&removal));
    store.mark(&pass.type_id, contents).await
}

/// Removes all registrations of a pass, and the delivery records of devices that have no other pass
/// of the type. Returns how many registrations there were.
async fn unregister_all<S>(store: &S, pass: &PassId) -> Result<u64, StoreError>
where
    S: RegistrationStore + DeliveryLog + ?Sized,
{
    let mut removed = 0;
    // The pages may lack a device that registers while they are read. They are therefore read until
    // they are empty.
    loop {
        let (mut found, mut after) = (0, None);
        loop {
            let page = store
                .devices(Audience::Pass(pass), after.as_ref(), AT_ONCE)
                .await?;
            let calls = page.items.iter();
            let existed =
                try_join_all(calls.map(|one| store.unregister(&one.device, pass))).await?;
            found += existed.into_iter().filter(|existed| *existed).count() as u64;
            forget_devices(store, &pass.type_id, &page.items).await?;
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        if found == 0 {
            return Ok(removed);
        }
        removed += found;
    }
}

/// Removes the delivery records of the devices that have no registration of the type.
async fn forget_devices<S>(
    store: &S,
    type_id: &TypeIdentifier,
    devices: &[RegisteredDevice],
) -> Result<(), StoreError>
where
    S: RegistrationStore + DeliveryLog + ?Sized,
{
    let calls = devices.iter();
    let lists = calls.map(|one| store.changes_since(&one.device, type_id, None));
    let lists = try_join_all(lists).await?;
    let gone: Vec<_> = devices
        .iter()
        .zip(lists)
        .filter(|(_, list)| list.serials.is_empty())
        .map(|(one, _)| Subject::Device(type_id.clone(), one.device.clone()))
        .collect();
    store.forget(&gone).await
}

/// Removes the deferred pushes of devices that have no registration of the type left. Returns how
/// many pushes were removed.
///
/// The call reads all deferred pushes of the type. Use it at the end of a [`purge`].
///
/// # Errors
/// Fails if the store fails. It is always right to repeat the call.
pub async fn remove_deferred<S>(store: &S, type_id: &TypeIdentifier) -> Result<u64, StoreError>
where
    S: PushQueue + ?Sized,
{
    let (mut removed, mut after) = (0, None);
    loop {
        let page = store.deferred(type_id, after.as_ref(), AT_ONCE).await?;
        let gone = remove_unregistered(store, type_id, page.items).await?;
        removed += gone.len() as u64;
        removed -= restore_registered(store, type_id, gone).await?;
        after = page.next;
        if after.is_none() {
            return Ok(removed);
        }
    }
}

type Deferred = (DeviceIdentifier, DeferredPush);

/// Removes the pushes of devices without registrations. Returns these pushes.
async fn remove_unregistered<S>(
    store: &S,
    type_id: &TypeIdentifier,
    pushes: Vec<Deferred>,
) -> Result<Vec<Deferred>, StoreError>
where
    S: PushQueue + ?Sized,
{
    let (_, gone) = split(store, type_id, pushes).await?;
    let removed = gone.iter().map(|(device, _)| (device.clone(), None));
    let removed: Vec<_> = removed.collect();
    store.defer(type_id, &removed).await?;
    Ok(gone)
}

/// Stores the pushes of devices that have registered while their pushes were removed. Such a device
/// may get one push too many, but never too few. Returns how many pushes were stored.
async fn restore_registered<S>(
    store: &S,
    type_id: &TypeIdentifier,
    removed: Vec<Deferred>,
) -> Result<u64, StoreError>
where
    S: PushQueue + ?Sized,
{
    let (registered, _) = split(store, type_id, removed).await?;
    let restored = registered.into_iter();
    let restored: Vec<_> = restored
        .map(|(device, push)| (device, Some(push)))
        .collect();
    store.defer(type_id, &restored).await?;
    Ok(restored.len() as u64)
}

/// Separates pushes to devices with a registration of the type from pushes to other devices.
async fn split<S>(
    store: &S,
    type_id: &TypeIdentifier,
    pushes: Vec<Deferred>,
) -> Result<(Vec<Deferred>, Vec<Deferred>), StoreError>
where
    S: RegistrationStore + ?Sized,
{
    let lists = pushes
        .iter()
        .map(|(device, _)| store.changes_since(device, type_id, None));
    let lists = try_join_all(lists).await?;
    let (registered, gone): (Vec<_>, Vec<_>) = pushes
        .into_iter()
        .zip(lists)
        .partition(|(_, list)| !list.serials.is_empty());
    let pushes = |each: Vec<(Deferred, _)>| each.into_iter().map(|(push, _)| push).collect();
    Ok((pushes(registered), pushes(gone)))
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::{
        delivery::{Event, Record},
        push::DeferredPush,
        store::{MemoryStore, PassState},
    };

    fn pass(serial: &str) -> PassId {
        PassId::new("pass.com.example.purged", serial).unwrap()
    }

    fn device(name: &str) -> DeviceIdentifier {
        DeviceIdentifier::new(name).unwrap()
    }

    fn push_token() -> PushToken {
        PushToken::new("c0ffee").unwrap()
    }

    fn deferred_push() -> DeferredPush {
        DeferredPush {
            push_token: push_token(),
            due: Some(SystemTime::now()),
            attempts: 1,
            bad_since: None,
        }
    }

    async fn registrations(store: &MemoryStore) -> Vec<(String, String)> {
        let all = store.registrations(None, usize::MAX).await.unwrap().items;
        let name =
            |one: Registration| (one.device.as_str().to_owned(), one.pass.serial.to_string());
        all.into_iter().map(name).collect()
    }

    #[tokio::test]
    async fn a_purge_leaves_nothing_of_a_pass_and_everything_else() {
        let store = MemoryStore::new();
        let (gone, stays) = (pass("A"), pass("B"));
        let type_id = &stays.type_id;
        let contents = [&gone, &stays].map(|pass| Content {
            serial: pass.serial.clone(),
            digest: Some([1; 32]),
            tokens: Vec::new(),
        });
        let changed = Changed::Contents(&contents);
        store.mark_and_push(type_id, changed).await.unwrap();
        let push_token = push_token();
        let deferred = deferred_push();
        for number in 0..100 {
            let name = format!("D-{number}");
            let device = device(&name);
            store.register(&device, &gone, &push_token).await.unwrap();
            if number < 2 {
                store.register(&device, &stays, &push_token).await.unwrap();
            }
        }
        let pushes = ["D-0", "D-2"].map(|name| (device(name), Some(deferred.clone())));
        store.defer(type_id, &pushes).await.unwrap();
        let subjects = [
            Subject::Pass(gone.clone()),
            Subject::Device(type_id.clone(), device("D-50")),
            Subject::Pass(stays.clone()),
            Subject::Device(type_id.clone(), device("D-1")),
        ];
        let records = subjects.clone().map(|subject| Record {
            subject,
            event: Event::Fetched,
            version: 1,
            count: 1,
            at: 1,
            detail: String::new(),
        });
        store.record(&records).await.unwrap();
        let before = store.pass_state(&stays).await.unwrap();

        let purged = purge(&store, &[gone.clone(), pass("never known")])
            .await
            .unwrap();
        assert_eq!((purged.registrations, purged.ahead), (100, vec![]));
        assert_eq!(remove_deferred(&store, type_id).await.unwrap(), 1);
        let expected = ["D-0", "D-1"].map(|name| (name.to_owned(), "B".to_owned()));
        assert_eq!(registrations(&store).await, expected);
        assert_eq!(store.stats().await.unwrap().devices, 2);
        let unknown = store.pass_state(&pass("never known")).await.unwrap();
        let state: PassState = store.pass_state(&gone).await.unwrap();
        assert_eq!(state, unknown);
        assert_eq!(store.pass_state(&stays).await.unwrap(), before);
        assert_eq!(store.published(&[gone]).await.unwrap(), [None]);
        let pending = store.pending(type_id, 10).await.unwrap();
        assert_eq!(pending.len(), 1);
        let left = store.deferred(type_id, None, 10).await.unwrap().items;
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].0, device("D-0"));

        let left = store.records(&subjects).await.unwrap();
        let left: Vec<_> = left.iter().map(Vec::len).collect();
        assert_eq!(left, [0, 0, 1, 1]);

        let again = purge(&store, &[pass("A")]).await.unwrap();
        assert_eq!(again, Purged::default());
    }

    #[tokio::test]
    async fn a_device_that_registers_meanwhile_keeps_its_deferred_push() {
        let store = MemoryStore::new();
        let (pass, type_id) = (pass("A"), pass("A").type_id);
        let [back, gone] = ["back", "gone"].map(device);
        let pushes = [&back, &gone].map(|device| (device.clone(), Some(deferred_push())));
        store.defer(&type_id, &pushes).await.unwrap();
        let listed = store.deferred(&type_id, None, 10).await.unwrap().items;
        let removed = remove_unregistered(&store, &type_id, listed).await.unwrap();
        assert_eq!(removed.len(), 2);
        store.register(&back, &pass, &push_token()).await.unwrap();
        let restored = restore_registered(&store, &type_id, removed).await.unwrap();
        assert_eq!(restored, 1);
        let left = store.deferred(&type_id, None, 10).await.unwrap().items;
        assert_eq!(left, [(back, pushes[0].1.clone().unwrap())]);
    }
}
