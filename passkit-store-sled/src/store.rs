use std::{path::PathBuf, sync::Arc, time::SystemTime};

use async_trait::async_trait;
use passkit_server::{
    Changes, DeviceIdentifier, DevicePage, PageCursor, PassId, PassState, PushToken, Registered,
    RegistrationStore, SerialNumber, StoreError, StoreErrorKind, TypeIdentifier, UpdateTag, clock,
};

use crate::{
    config::Config,
    database::{Database, FolderLock},
    error::Failure,
    group::Operation,
    queue::Leases,
    reader::{self, Readers},
    settled::{Shared, View},
    writer::Writer,
};

/// How many threads read. One that waits for the disk leaves the other for what is in memory.
const READERS: usize = 2;

/// A [`RegistrationStore`] in a folder of this machine.
///
/// Share it in an [`Arc`]. Dropping it finishes what was asked of it, which takes as long as the disk takes, ends its
/// threads and gives the folder free.
///
/// # Errors
/// While the disk is full, or fails, every call ends with an error of the kind
/// [`Unavailable`](StoreErrorKind::Unavailable). The store opens itself again, at most once a second, when it is
/// asked something; nothing that it had acknowledged is lost. A mark of more than a thousand passes is made in steps
/// of about a thousand: after an error, some of them may have been made.
#[derive(Debug)]
pub struct SledStore {
    // In this order they end: no reader and no writer outlives the database, and the folder is given free last.
    readers: Readers,
    writer: Writer,
    pub(crate) leases: Leases,
    _shared: Arc<Shared>,
    _lock: FolderLock,
}

impl SledStore {
    /// Opens the store in this folder, or makes one. Blocks, for longer after a crash.
    ///
    /// # Errors
    /// [`Configuration`](StoreErrorKind::Configuration) if another process has the folder open, if it cannot be
    /// made, read or written, or holds something else; [`Corrupt`](StoreErrorKind::Corrupt) if it is damaged.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, StoreError> {
        Self::open_with(&Config::new(path))
    }

    /// As [`open`](Self::open), with more to choose.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with(config: &Config) -> Result<Self, StoreError> {
        let mut lock = FolderLock::take(&config.path)?;
        let create = !lock.has_store()?;
        let (database, contents) = Database::open(config, create)?;
        if create {
            lock.note_store()?;
        }
        let shared = Arc::new(Shared::new(database, contents, config.rows_bytes()));
        let no_thread = |e| Failure::io("start a thread", e);
        let writer = Writer::start(&shared, config).map_err(no_thread)?;
        let readers = Readers::start(&shared, READERS).map_err(no_thread)?;
        Ok(Self { readers, writer, leases: Leases::default(), _shared: shared, _lock: lock })
    }

    pub(crate) async fn read<T, F>(&self, question: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Fn(&View<'_>) -> Result<T, Failure> + Send + 'static,
    {
        let answer = self.readers.ask(question).await;
        if let Err(failure) = &answer
            && failure.kind == StoreErrorKind::Unavailable
        {
            self.writer.reopen();
        }
        Ok(answer?)
    }

    pub(crate) async fn write<T>(
        &self,
        operation: impl FnOnce(tokio::sync::oneshot::Sender<Result<T, Failure>>) -> Operation,
    ) -> Result<T, StoreError> {
        Ok(self.writer.ask(operation).await?)
    }
}

#[async_trait]
impl RegistrationStore for SledStore {
    async fn register(
        &self,
        device: &DeviceIdentifier,
        pass: &PassId,
        push_token: &PushToken,
    ) -> Result<Registered, StoreError> {
        let (device, pass, push_token) = (device.clone(), pass.clone(), push_token.clone());
        self.write(|answer| Operation::Register { device, pass, push_token, answer }).await
    }

    async fn unregister(&self, device: &DeviceIdentifier, pass: &PassId) -> Result<bool, StoreError> {
        let (device, pass) = (device.clone(), pass.clone());
        self.write(|answer| Operation::Unregister { device, pass, answer }).await
    }

    async fn updated_since(
        &self,
        device: &DeviceIdentifier,
        type_id: &TypeIdentifier,
        since: Option<UpdateTag>,
    ) -> Result<Changes, StoreError> {
        let (device, type_id) = (device.clone(), type_id.clone());
        self.read(move |view| reader::updated_since(view, &device, &type_id, since)).await
    }

    async fn mark_updated(
        &self,
        type_id: &TypeIdentifier,
        serials: &[SerialNumber],
    ) -> Result<(), StoreError> {
        if serials.is_empty() {
            return Ok(());
        }
        let (type_id, serials) = (type_id.clone(), serials.to_vec());
        self.write(|answer| Operation::Mark { type_id, serials, owe: false, answer }).await
    }

    async fn mark_all_updated(&self, type_id: &TypeIdentifier) -> Result<(), StoreError> {
        let type_id = type_id.clone();
        self.write(|answer| Operation::MarkAll { type_id, owe: false, answer }).await
    }

    async fn pass_state(&self, pass: &PassId) -> Result<PassState, StoreError> {
        let pass = pass.clone();
        self.read(move |view| reader::pass_state(view, &pass)).await
    }

    async fn devices_of(
        &self,
        pass: &PassId,
        after: Option<&PageCursor>,
        limit: usize,
    ) -> Result<DevicePage, StoreError> {
        let (pass, after) = (pass.clone(), after.cloned());
        self.read(move |view| reader::devices_of(view, &pass, after.as_ref(), limit)).await
    }

    async fn forget_device(
        &self,
        device: &DeviceIdentifier,
        unregistered_at: SystemTime,
    ) -> Result<bool, StoreError> {
        let (device, unregistered_at) = (device.clone(), clock::micros(unregistered_at));
        self.write(|answer| Operation::Forget { device, unregistered_at, answer }).await
    }
}
