mod queue;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Bound,
    sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::SystemTime,
};

use async_trait::async_trait;

use crate::{
    Changes, DeviceIdentifier, DevicePage, PageCursor, PassId, PassState, PushToken, Registered,
    RegisteredDevice, Registration, RegistrationPage, RegistrationStore, SerialNumber, StoreError,
    StoreMaintenance, StoreStats, TypeIdentifier, TypeStats, UpdateTag,
    clock::{self, next_last_modified, next_version},
};

/// A [`RegistrationStore`] in memory, with all that a store may have beside: the reference implementation, for tests and
/// for reading.
///
/// It keeps the whole contract except that nothing outlives the process.
#[derive(Debug)]
pub struct MemoryStore {
    tables: RwLock<Tables>,
}

#[derive(Debug)]
struct Tables {
    /// When the store was made, in whole seconds since the Unix epoch.
    created: u64,
    types: HashMap<TypeIdentifier, Type>,
    devices: HashMap<DeviceIdentifier, Device>,
    /// The devices, in the order in which pages give them.
    in_order: BTreeSet<DeviceIdentifier>,
    /// The devices of each pass, in that order too.
    devices_of: HashMap<PassId, BTreeSet<DeviceIdentifier>>,
    pushes: queue::Pushes,
}

#[derive(Debug)]
struct Type {
    version: u64,
    /// What the last "every pass changed" left: counts for each pass where its own state is older.
    floor: PassState,
    /// The latest date given to any pass of the type.
    latest_date: u64,
    /// What the last mark of each pass left.
    passes: HashMap<SerialNumber, PassState>,
}

impl Type {
    /// One that was never marked, in a store made at `created`.
    fn new(created: u64) -> Self {
        let floor = PassState { version: 0, last_modified: created };
        Self { version: 0, floor, latest_date: created, passes: HashMap::new() }
    }

    fn pass_state(&self, serial: &SerialNumber) -> PassState {
        self.passes.get(serial).map_or(self.floor, |own| PassState {
            version: own.version.max(self.floor.version),
            last_modified: own.last_modified.max(self.floor.last_modified),
        })
    }
}

#[derive(Debug)]
struct Device {
    push_token: PushToken,
    version: u64,
    /// The device's version at the making of each registration.
    registrations: BTreeMap<PassId, u64>,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self {
            tables: RwLock::new(Tables {
                created: clock::now_micros() / 1_000_000,
                types: HashMap::new(),
                devices: HashMap::new(),
                in_order: BTreeSet::new(),
                devices_of: HashMap::new(),
                pushes: queue::Pushes::default(),
            }),
        }
    }

    /// As if the device had registered last at this time.
    #[cfg(test)]
    pub(crate) fn set_registered_at(&self, device: &DeviceIdentifier, time: SystemTime) {
        if let Some(row) = self.tables_mut().devices.get_mut(device) {
            row.version = clock::micros(time);
        }
    }

    /// No method panics half way through a change, so what a poisoned lock guards is whole.
    fn tables(&self) -> RwLockReadGuard<'_, Tables> {
        self.tables.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn tables_mut(&self) -> RwLockWriteGuard<'_, Tables> {
        self.tables.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tables {
    fn type_mut(&mut self, type_id: &TypeIdentifier) -> &mut Type {
        self.types.entry(type_id.clone()).or_insert_with(|| Type::new(self.created))
    }

    fn pass_state(&self, pass: &PassId) -> PassState {
        let never_marked = PassState { version: 0, last_modified: self.created };
        self.types.get(&pass.type_id).map_or(never_marked, |row| row.pass_state(&pass.serial))
    }

    fn register(&mut self, device: &DeviceIdentifier, pass: &PassId, push_token: &PushToken) -> Registered {
        let row = self.devices.entry(device.clone()).or_insert_with(|| {
            self.in_order.insert(device.clone());
            Device { push_token: push_token.clone(), version: 0, registrations: BTreeMap::new() }
        });
        row.push_token = push_token.clone();
        row.version = next_version(row.version, clock::now_micros());
        // Registrations share the text of their type, so that the processor's cache has it.
        let of_type = self.types.entry(pass.type_id.clone());
        let pass = PassId { type_id: of_type.key().clone(), serial: pass.serial.clone() };
        of_type.or_insert_with(|| Type::new(self.created));
        let before = row.registrations.insert(pass.clone(), row.version);
        self.devices_of.entry(pass).or_default().insert(device.clone());
        if before.is_some() { Registered::Existing } else { Registered::Created }
    }

    /// The version that the passes have now.
    fn mark(&mut self, type_id: &TypeIdentifier, serials: &[SerialNumber]) -> u64 {
        let now = clock::now_micros();
        let row = self.type_mut(type_id);
        row.version = next_version(row.version, now);
        for serial in serials {
            let last_modified = next_last_modified(row.pass_state(serial).last_modified, now);
            row.latest_date = row.latest_date.max(last_modified);
            row.passes.insert(serial.clone(), PassState { version: row.version, last_modified });
        }
        row.version
    }

    fn mark_all(&mut self, type_id: &TypeIdentifier) -> u64 {
        let now = clock::now_micros();
        let row = self.type_mut(type_id);
        row.version = next_version(row.version, now);
        row.latest_date = next_last_modified(row.latest_date, now);
        row.floor = PassState { version: row.version, last_modified: row.latest_date };
        row.version
    }

    fn remove_device(&mut self, device: &DeviceIdentifier) -> Option<Device> {
        self.in_order.remove(device);
        self.devices.remove(device)
    }

    fn remove_from_pass(&mut self, pass: &PassId, device: &DeviceIdentifier) {
        if let Some(devices) = self.devices_of.get_mut(pass) {
            devices.remove(device);
            if devices.is_empty() {
                self.devices_of.remove(pass);
            }
        }
    }
}

#[async_trait]
impl RegistrationStore for MemoryStore {
    async fn register(
        &self,
        device: &DeviceIdentifier,
        pass: &PassId,
        push_token: &PushToken,
    ) -> Result<Registered, StoreError> {
        Ok(self.tables_mut().register(device, pass, push_token))
    }

    async fn unregister(&self, device: &DeviceIdentifier, pass: &PassId) -> Result<bool, StoreError> {
        let mut tables = self.tables_mut();
        let Some(row) = tables.devices.get_mut(device) else { return Ok(false) };
        let existed = row.registrations.remove(pass).is_some();
        if row.registrations.is_empty() {
            tables.remove_device(device);
        }
        tables.remove_from_pass(pass, device);
        Ok(existed)
    }

    async fn updated_since(
        &self,
        device: &DeviceIdentifier,
        type_id: &TypeIdentifier,
        since: Option<UpdateTag>,
    ) -> Result<Changes, StoreError> {
        let tables = self.tables();
        let (clock, row) = (tables.types.get(type_id), tables.devices.get(device));
        let tag = UpdateTag {
            type_version: clock.map_or(0, |clock| clock.version),
            device_version: row.map_or(0, |row| row.version),
        };
        let since = since.and_then(|since| since.unless_ahead_of(tag));
        let (Some(clock), Some(row)) = (clock, row) else { return Ok(Changes { serials: Vec::new(), tag }) };
        if since == Some(tag) {
            return Ok(Changes { serials: Vec::new(), tag });
        }
        let is_changed = |serial: &SerialNumber, registered: u64| {
            since.is_none_or(|since| {
                registered > since.device_version || clock.pass_state(serial).version > since.type_version
            })
        };
        let serials = row
            .registrations
            .iter()
            .filter(|(pass, registered)| pass.type_id == *type_id && is_changed(&pass.serial, **registered))
            .map(|(pass, _)| pass.serial.clone())
            .collect();
        Ok(Changes { serials, tag })
    }

    async fn mark_updated(
        &self,
        type_id: &TypeIdentifier,
        serials: &[SerialNumber],
    ) -> Result<(), StoreError> {
        if !serials.is_empty() {
            self.tables_mut().mark(type_id, serials);
        }
        Ok(())
    }

    async fn mark_all_updated(&self, type_id: &TypeIdentifier) -> Result<(), StoreError> {
        self.tables_mut().mark_all(type_id);
        Ok(())
    }

    async fn pass_state(&self, pass: &PassId) -> Result<PassState, StoreError> {
        Ok(self.tables().pass_state(pass))
    }

    async fn devices_of(
        &self,
        pass: &PassId,
        after: Option<&PageCursor>,
        limit: usize,
    ) -> Result<DevicePage, StoreError> {
        let tables = self.tables();
        let Some(devices) = tables.devices_of.get(pass) else { return Ok(DevicePage::default()) };
        // A position is the last device of a page; one that the store never gave reads from the start.
        let after = after.and_then(|cursor| DeviceIdentifier::new(cursor.as_str()).ok());
        let start = after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let limit = limit.max(1);
        let page: Vec<RegisteredDevice> = devices
            .range((start, Bound::Unbounded))
            .take(limit)
            .filter_map(|device| {
                let push_token = tables.devices.get(device)?.push_token.clone();
                Some(RegisteredDevice { device: device.clone(), push_token })
            })
            .collect();
        let full = page.len() == limit;
        let next = page.last().filter(|_| full).map(|last| PageCursor::new(last.device.as_str()));
        Ok(DevicePage { devices: page, next })
    }

    async fn forget_device(
        &self,
        device: &DeviceIdentifier,
        unregistered_at: SystemTime,
    ) -> Result<bool, StoreError> {
        let mut tables = self.tables_mut();
        if tables.devices.get(device).is_none_or(|row| row.version > clock::micros(unregistered_at)) {
            return Ok(false);
        }
        let Some(row) = tables.remove_device(device) else { return Ok(false) };
        for pass in row.registrations.keys() {
            tables.remove_from_pass(pass, device);
        }
        Ok(true)
    }
}

#[async_trait]
impl StoreMaintenance for MemoryStore {
    async fn register_many(&self, registrations: &[Registration]) -> Result<u64, StoreError> {
        let mut tables = self.tables_mut();
        let created = registrations.iter().filter(|Registration { device, push_token, pass }| {
            tables.register(device, pass, push_token) == Registered::Created
        });
        Ok(created.count() as u64)
    }

    async fn registrations(
        &self,
        after: Option<&PageCursor>,
        limit: usize,
    ) -> Result<RegistrationPage, StoreError> {
        let tables = self.tables();
        // A position is the last device of a page: a page holds all of a device, and so is longer than asked at times.
        let after = after.and_then(|cursor| DeviceIdentifier::new(cursor.as_str()).ok());
        let start = after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut page = RegistrationPage::default();
        for device in tables.in_order.range((start, Bound::Unbounded)) {
            let Some(row) = tables.devices.get(device) else { continue };
            page.registrations.extend(row.registrations.keys().map(|pass| Registration {
                device: device.clone(),
                push_token: row.push_token.clone(),
                pass: pass.clone(),
            }));
            if page.registrations.len() >= limit.max(1) {
                page.next = Some(PageCursor::new(device.as_str()));
                break;
            }
        }
        Ok(page)
    }

    async fn stats(&self) -> Result<StoreStats, StoreError> {
        let tables = self.tables();
        let mut types: BTreeMap<&TypeIdentifier, (u64, u64)> = BTreeMap::new();
        for (pass, devices) in &tables.devices_of {
            let (passes, registrations) = types.entry(&pass.type_id).or_default();
            *passes += 1;
            *registrations += devices.len() as u64;
        }
        let types = types.into_iter().map(|(type_id, (passes, registrations))| TypeStats {
            type_id: type_id.clone(),
            passes,
            registrations,
        });
        Ok(StoreStats { devices: tables.devices.len() as u64, types: types.collect(), storage_bytes: None })
    }
}
