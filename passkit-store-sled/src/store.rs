use std::{path::PathBuf, sync::Arc, time::SystemTime};

use async_trait::async_trait;
use passkit_server::{
    Changed, PassId, PassState,
    identifiers::{DeviceIdentifier, PushToken, TypeIdentifier},
    store::{
        Audience, Changes, Claims, Page, PageCursor, Published, Registered, RegisteredDevice,
        RegistrationStore, StoreError, StoreErrorKind, UpdateTag, clock,
    },
};

use crate::{
    changes::{self, Marking},
    config::Config,
    engine::{Database, DurableRows, FolderLock, Group, Readers, Unanswered, View, Writer},
    error::SledError,
    layout,
    registrations::{self, Range},
};

/// How many threads read.
const READERS: usize = 2;

/// How many rows are read at a time. Between two such reads, other readers have their turn.
const AT_ONCE: usize = 4_096;

/// A store in a folder on this machine. It implements all store traits except `ArchiveStore`.
///
/// Share the store in an [`Arc`]. When the store is dropped, it finishes the calls that it has accepted, ends its threads
/// and unlocks the folder.
///
/// # Errors
/// While the disk is full or fails, calls that need the disk return [`Unavailable`](StoreErrorKind::Unavailable). The next
/// call opens the store again, but at most once a second. Nothing acknowledged is lost. A mark of more than a thousand passes
/// has several steps. After an error, some passes may be marked, with their digest and their pending push, and the others are
/// unchanged.
///
/// If the engine or the operating system failed, the [source](std::error::Error::source) of an error has a `sled::Error` or
/// [`io::Error`](std::io::Error) as its own source.
#[derive(Debug)]
pub struct SledStore {
    // Fields are dropped in this order: readers and writer before the database, and the lock of the folder last.
    readers: Readers,
    writer: Writer,
    pub(crate) claims: Claims,
    _rows: Arc<DurableRows>,
    _lock: FolderLock,
}

impl SledStore {
    /// Opens the store in this folder, or creates it. The call blocks its thread, and takes longer after a crash.
    ///
    /// # Errors
    /// * [`Configuration`](StoreErrorKind::Configuration) if another process uses the folder, if the folder can't be created,
    ///   read or written, or if it contains another database.
    /// * [`Corrupt`](StoreErrorKind::Corrupt) if the store is damaged.
    /// * [`Unavailable`](StoreErrorKind::Unavailable) if the disk is full or fails.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, StoreError> {
        Self::open_with(&Config::new(path))
    }

    /// Opens a store with this configuration. The call blocks like [`open`](Self::open).
    ///
    /// # Errors
    /// The same errors as [`open`](Self::open), and [`Configuration`](StoreErrorKind::Configuration) if there is no store and
    /// [`Config::create`] is false.
    pub fn open_with(config: &Config) -> Result<Self, StoreError> {
        if !config.create {
            FolderLock::require(&config.path)?;
        }
        let mut lock = FolderLock::take(&config.path)?;
        let create = !lock.has_store()?;
        let (database, contents) = Database::open(config, create)?;
        if create {
            lock.record_store()?;
        }
        let rows = Arc::new(DurableRows::new(database, contents, config.rows_bytes()));
        let no_thread = |e| SledError::io("start a thread", e);
        let writer = Writer::start(&rows, config).map_err(no_thread)?;
        let readers = Readers::start(&rows, READERS).map_err(no_thread)?;
        Ok(Self {
            readers,
            writer,
            claims: Claims::default(),
            _rows: rows,
            _lock: lock,
        })
    }

    pub(crate) async fn read<T, F>(&self, question: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Fn(&View<'_>) -> Result<T, Unanswered> + Send + 'static,
    {
        let answer = self.readers.ask(question).await;
        if let Err(failure) = &answer
            && failure.kind == StoreErrorKind::Unavailable
        {
            self.writer.reopen();
        }
        Ok(answer?)
    }

    /// Changes rows in one step.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        mut change: impl FnMut(&mut Group<'_>) -> Result<T, SledError> + Send + 'static,
    ) -> Result<T, StoreError> {
        Ok(self
            .writer
            .write(move |group| change(group).map(Some))
            .await?)
    }

    /// Changes rows in several steps. `step` is called again while it returns true.
    pub(crate) async fn write_in_steps(
        &self,
        mut step: impl FnMut(&mut Group<'_>) -> Result<bool, SledError> + Send + 'static,
    ) -> Result<(), StoreError> {
        Ok(self
            .writer
            .write(move |group| Ok((!step(group)?).then_some(())))
            .await?)
    }

    /// Counts the rows whose keys start with `prefix`, up to `at_most`.
    pub(crate) async fn count(&self, prefix: Vec<u8>, at_most: u64) -> Result<u64, StoreError> {
        let (mut count, mut after) = (0, None);
        while count < at_most {
            let limit = usize::try_from(at_most - count).map_or(AT_ONCE, |rest| rest.min(AT_ONCE));
            let prefix = prefix.clone();
            let rows = self
                .read(move |view| view.scan(&prefix, after.as_deref(), limit))
                .await?;
            count += rows.rows.len() as u64;
            after = rows.more_after;
            if after.is_none() {
                break;
            }
        }
        Ok(count.min(at_most))
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
        self.write(move |group| registrations::register(group, &device, &pass, &push_token))
            .await
    }

    async fn unregister(
        &self,
        device: &DeviceIdentifier,
        pass: &PassId,
    ) -> Result<bool, StoreError> {
        let (device, pass) = (device.clone(), pass.clone());
        self.write(move |group| registrations::unregister(group, &device, &pass))
            .await
    }

    async fn changes_since(
        &self,
        device: &DeviceIdentifier,
        type_id: &TypeIdentifier,
        since: Option<UpdateTag>,
    ) -> Result<Changes, StoreError> {
        let (device, type_id) = (device.clone(), type_id.clone());
        self.read(move |view| changes::changes_since(view, &device, &type_id, since))
            .await
    }

    async fn pass_state(&self, pass: &PassId) -> Result<PassState, StoreError> {
        let pass = pass.clone();
        self.read(move |view| changes::pass_state(view, &pass))
            .await
    }

    async fn mark(&self, type_id: &TypeIdentifier, changed: Changed<'_>) -> Result<(), StoreError> {
        let Some(mut marking) = Marking::new(changed) else {
            return Ok(());
        };
        let type_id = type_id.clone();
        self.write_in_steps(move |group| Ok(changes::mark(group, &type_id, &mut marking, 0)?.more))
            .await
    }

    async fn published(&self, passes: &[PassId]) -> Result<Vec<Option<Published>>, StoreError> {
        let passes = passes.to_vec();
        self.read(move |view| changes::published(view, &passes))
            .await
    }

    async fn devices(
        &self,
        audience: Audience<'_>,
        after: Option<&PageCursor>,
        limit: usize,
    ) -> Result<Page<RegisteredDevice>, StoreError> {
        let range = Range::new(audience, after);
        self.read(move |view| registrations::devices(view, &range, limit))
            .await
    }

    async fn count_devices(&self, pass: &PassId, at_most: u64) -> Result<u64, StoreError> {
        self.count(layout::devices_of(pass), at_most).await
    }

    async fn forget_device(
        &self,
        device: &DeviceIdentifier,
        unregistered_at: SystemTime,
    ) -> Result<bool, StoreError> {
        let (device, unregistered_at) = (device.clone(), clock::micros(unregistered_at));
        self.write(move |group| registrations::forget(group, &device, unregistered_at))
            .await
    }
}
