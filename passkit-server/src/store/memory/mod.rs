mod archives;
mod coordination;
mod delivery;
mod queue;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Bound,
    sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::SystemTime,
};

use async_trait::async_trait;

use crate::{
    Changed, PassId, PassState,
    identifiers::{DeviceIdentifier, PushToken, SerialNumber, TypeIdentifier},
    maintenance::{Registration, StoreMaintenance, StoreStats, TypeStats},
    push::Scope,
    store::{
        Audience, Changes, Content, Page, PageCursor, Published, Registered, RegisteredDevice,
        RegistrationStore, StoreError, UpdateTag,
        clock::{self, next_last_modified, next_version},
    },
};

/// A store in memory that implements all store traits. It is the reference implementation, for
/// tests and for reading.
///
/// It fulfils the contract, but keeps nothing after the process ends.
#[derive(Debug)]
pub struct MemoryStore {
    tables: RwLock<Tables>,
}

#[derive(Clone, Debug)]
struct Tables {
    /// The time of the store's creation, in whole seconds since the Unix epoch.
    created: u64,
    types: HashMap<TypeIdentifier, Type>,
    devices: HashMap<DeviceIdentifier, Device>,
    /// The devices, in the order in which pages list them.
    in_order: BTreeSet<DeviceIdentifier>,
    pushes: queue::Pushes,
    coordination: coordination::Agreements,
    delivery: delivery::Records,
    archives: archives::Archives,
}

#[derive(Clone, Debug)]
struct Type {
    version: u64,
    /// The last mark that covered all passes. It applies to each pass whose own mark is older.
    floor: Mark,
    /// The latest date of any pass of the type.
    latest_date: u64,
    passes: HashMap<SerialNumber, Pass>,
    /// The devices of each pass, in the order in which pages list them.
    devices: BTreeMap<SerialNumber, BTreeSet<DeviceIdentifier>>,
}

#[derive(Clone, Debug, Default)]
struct Pass {
    /// The last mark of the pass itself.
    mark: Mark,
    published: Option<Box<Published>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Mark {
    version: u64,
    last_modified: u64,
}

impl Mark {
    fn max(self, other: Self) -> Self {
        Self {
            version: self.version.max(other.version),
            last_modified: self.last_modified.max(other.last_modified),
        }
    }
}

impl Type {
    /// Makes a type whose passes were never marked. Their date is `created`, the time of the
    /// store's creation.
    fn new(created: u64) -> Self {
        Self {
            version: 0,
            floor: Mark {
                version: 0,
                last_modified: created,
            },
            latest_date: created,
            passes: HashMap::new(),
            devices: BTreeMap::new(),
        }
    }

    fn last_mark(&self, serial: &SerialNumber) -> Mark {
        self.passes
            .get(serial)
            .map_or(self.floor, |pass| pass.mark.max(self.floor))
    }

    fn pass_state(&self, serial: &SerialNumber) -> PassState {
        let pass = self.passes.get(serial);
        let Mark {
            version,
            last_modified,
        } = pass.map_or(self.floor, |pass| pass.mark.max(self.floor));
        let published = pass.and_then(|pass| pass.published.as_ref()?.digest);
        PassState {
            version,
            last_modified,
            published,
        }
    }

    /// Stores the content. Returns whether the pass must be marked.
    fn publish(&mut self, content: &Content) -> bool {
        self.passes
            .entry(content.serial.clone())
            .or_default()
            .published
            .get_or_insert_default()
            .update(content)
    }

    fn mark(&mut self, scopes: &[Scope]) {
        let now = clock::now_micros();
        self.version = next_version(self.version, now);
        for scope in scopes {
            match scope {
                Scope::Pass(serial) => {
                    let last_modified =
                        next_last_modified(self.last_mark(serial).last_modified, now);
                    self.latest_date = self.latest_date.max(last_modified);
                    self.passes.entry(serial.clone()).or_default().mark = Mark {
                        version: self.version,
                        last_modified,
                    };
                }
                Scope::Type => {
                    self.latest_date = next_last_modified(self.latest_date, now);
                    self.floor = Mark {
                        version: self.version,
                        last_modified: self.latest_date,
                    };
                }
            }
        }
    }

    fn remove_device(&mut self, serial: &SerialNumber, device: &DeviceIdentifier) {
        if let Some(devices) = self.devices.get_mut(serial) {
            devices.remove(device);
            if devices.is_empty() {
                self.devices.remove(serial);
            }
        }
    }

    /// Returns the registrations after this serial number and device, ordered by both.
    fn devices_after<'a>(
        &'a self,
        after: Option<&'a (SerialNumber, DeviceIdentifier)>,
    ) -> impl Iterator<Item = (&'a SerialNumber, &'a DeviceIdentifier)> {
        let first = after.map_or(Bound::Unbounded, |(serial, _)| Bound::Included(serial));
        self.devices
            .range::<SerialNumber, _>((first, Bound::Unbounded))
            .flat_map(move |(serial, devices)| {
                let after = after
                    .filter(|(first, _)| first == serial)
                    .map(|(_, device)| device);
                devices
                    .range((start(after), Bound::Unbounded))
                    .map(move |device| (serial, device))
            })
    }
}

/// Returns the bound for a range that starts after an item.
fn start<T>(after: Option<&T>) -> Bound<&T> {
    after.map_or(Bound::Unbounded, Bound::Excluded)
}

#[derive(Clone, Debug)]
struct Device {
    push_token: PushToken,
    version: u64,
    /// Each registration, with the reading of the device's clock when the device last registered
    /// for the pass.
    registrations: BTreeMap<PassId, u64>,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryStore {
    /// Makes an empty store.
    #[must_use]
    pub fn new() -> Self {
        Self {
            tables: RwLock::new(Tables {
                created: clock::now_micros() / 1_000_000,
                types: HashMap::new(),
                devices: HashMap::new(),
                in_order: BTreeSet::new(),
                pushes: queue::Pushes::default(),
                coordination: coordination::Agreements::default(),
                delivery: delivery::Records::default(),
                archives: archives::Archives::default(),
            }),
        }
    }

    /// Returns a separate store with a copy of the data as they are now. Tests use it to open the
    /// data again.
    #[must_use]
    pub fn snapshot(&self) -> Self {
        Self {
            tables: RwLock::new(self.tables().clone()),
        }
    }

    /// Sets the time at which the device last registered.
    #[cfg(test)]
    pub(crate) fn set_registered_at(&self, device: &DeviceIdentifier, time: SystemTime) {
        if let Some(row) = self.tables_mut().devices.get_mut(device) {
            row.version = clock::micros(time);
        }
    }

    /// A poisoned lock is safe to use, because no method panics in the middle of a change.
    fn tables(&self) -> RwLockReadGuard<'_, Tables> {
        self.tables.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn tables_mut(&self) -> RwLockWriteGuard<'_, Tables> {
        self.tables.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tables {
    fn type_mut(&mut self, type_id: &TypeIdentifier) -> &mut Type {
        self.types
            .entry(type_id.clone())
            .or_insert_with(|| Type::new(self.created))
    }

    fn pass_state(&self, pass: &PassId) -> PassState {
        let never_marked = PassState {
            version: 0,
            last_modified: self.created,
            published: None,
        };
        self.types
            .get(&pass.type_id)
            .map_or(never_marked, |row| row.pass_state(&pass.serial))
    }

    fn register(
        &mut self,
        device: &DeviceIdentifier,
        pass: &PassId,
        push_token: &PushToken,
    ) -> Registered {
        let row = self.devices.entry(device.clone()).or_insert_with(|| {
            self.in_order.insert(device.clone());
            Device {
                push_token: push_token.clone(),
                version: 0,
                registrations: BTreeMap::new(),
            }
        });
        row.push_token = push_token.clone();
        row.version = next_version(row.version, clock::now_micros());
        // All registrations share the text of their type, so that it stays in the processor's
        // cache.
        let of_type = self.types.entry(pass.type_id.clone());
        let pass = PassId {
            type_id: of_type.key().clone(),
            serial: pass.serial.clone(),
        };
        let of_type = of_type.or_insert_with(|| Type::new(self.created));
        if row
            .registrations
            .insert(pass.clone(), row.version)
            .is_some()
        {
            return Registered::Existing;
        }
        of_type
            .devices
            .entry(pass.serial)
            .or_default()
            .insert(device.clone());
        Registered::Created
    }

    /// Marks what changed. Returns the new version and the marked scopes.
    fn mark(&mut self, type_id: &TypeIdentifier, changed: Changed<'_>) -> (u64, Vec<Scope>) {
        let row = self.type_mut(type_id);
        let scopes: Vec<Scope> = match changed {
            Changed::Passes(serials) => serials.iter().cloned().map(Scope::Pass).collect(),
            Changed::Contents(contents) => {
                let marked = contents.iter().filter(|content| row.publish(content));
                marked
                    .map(|content| Scope::Pass(content.serial.clone()))
                    .collect()
            }
            Changed::All => vec![Scope::Type],
        };
        if !scopes.is_empty() {
            row.mark(&scopes);
        }
        (row.version, scopes)
    }

    fn remove_device(&mut self, device: &DeviceIdentifier) -> Option<Device> {
        self.in_order.remove(device);
        self.devices.remove(device)
    }

    fn remove_from_pass(&mut self, pass: &PassId, device: &DeviceIdentifier) {
        if let Some(row) = self.types.get_mut(&pass.type_id) {
            row.remove_device(&pass.serial, device);
        }
    }

    /// Returns the device with its push token.
    fn registered(&self, device: &DeviceIdentifier) -> Option<RegisteredDevice> {
        let push_token = self.devices.get(device)?.push_token.clone();
        Some(RegisteredDevice {
            device: device.clone(),
            push_token,
        })
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

    async fn unregister(
        &self,
        device: &DeviceIdentifier,
        pass: &PassId,
    ) -> Result<bool, StoreError> {
        let mut tables = self.tables_mut();
        let Some(row) = tables.devices.get_mut(device) else {
            return Ok(false);
        };
        let existed = row.registrations.remove(pass).is_some();
        if row.registrations.is_empty() {
            tables.remove_device(device);
        }
        tables.remove_from_pass(pass, device);
        Ok(existed)
    }

    async fn changes_since(
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
        let (Some(clock), Some(row)) = (clock, row) else {
            return Ok(Changes {
                serials: Vec::new(),
                tag,
            });
        };
        if since == Some(tag) {
            return Ok(Changes {
                serials: Vec::new(),
                tag,
            });
        }
        let is_changed = |serial: &SerialNumber, registered: u64| {
            since.is_none_or(|since| {
                registered > since.device_version
                    || clock.last_mark(serial).version > since.type_version
            })
        };
        let serials = row
            .registrations
            .iter()
            .filter(|(pass, registered)| {
                pass.type_id == *type_id && is_changed(&pass.serial, **registered)
            })
            .map(|(pass, _)| pass.serial.clone())
            .collect();
        Ok(Changes { serials, tag })
    }

    async fn pass_state(&self, pass: &PassId) -> Result<PassState, StoreError> {
        Ok(self.tables().pass_state(pass))
    }

    async fn mark(&self, type_id: &TypeIdentifier, changed: Changed<'_>) -> Result<(), StoreError> {
        self.tables_mut().mark(type_id, changed);
        Ok(())
    }

    async fn published(&self, passes: &[PassId]) -> Result<Vec<Option<Published>>, StoreError> {
        let tables = self.tables();
        let published = |pass: &PassId| {
            tables
                .types
                .get(&pass.type_id)?
                .passes
                .get(&pass.serial)?
                .published
                .as_deref()
                .cloned()
        };
        Ok(passes.iter().map(published).collect())
    }

    async fn devices(
        &self,
        audience: Audience<'_>,
        after: Option<&PageCursor>,
        limit: usize,
    ) -> Result<Page<RegisteredDevice>, StoreError> {
        let tables = self.tables();
        let limit = limit.max(1);
        match audience {
            Audience::Pass(pass) => {
                let devices = tables
                    .types
                    .get(&pass.type_id)
                    .and_then(|row| row.devices.get(&pass.serial));
                let Some(devices) = devices else {
                    return Ok(Page::default());
                };
                let after = after.and_then(device_position);
                let devices = devices
                    .range((start(after.as_ref()), Bound::Unbounded))
                    .take(limit);
                let devices = devices
                    .filter_map(|device| tables.registered(device))
                    .collect();
                Ok(Page::up_to(limit, devices, |last: &RegisteredDevice| {
                    PageCursor::new(last.device.as_str())
                }))
            }
            Audience::Type(type_id) => {
                let Some(row) = tables.types.get(type_id) else {
                    return Ok(Page::default());
                };
                let after = after.and_then(registration_position);
                let rows: Vec<_> = row.devices_after(after.as_ref()).take(limit).collect();
                let page = Page::up_to(limit, rows, |(serial, device)| {
                    PageCursor::new(format!("{serial}\n{}", device.as_str()))
                });
                let devices = page
                    .items
                    .into_iter()
                    .filter_map(|(_, device)| tables.registered(device));
                Ok(Page {
                    items: devices.collect(),
                    next: page.next,
                })
            }
        }
    }

    async fn count_devices(&self, pass: &PassId, at_most: u64) -> Result<u64, StoreError> {
        let tables = self.tables();
        let devices = tables
            .types
            .get(&pass.type_id)
            .and_then(|row| row.devices.get(&pass.serial));
        Ok(devices
            .map_or(0, |devices| devices.len() as u64)
            .min(at_most))
    }

    async fn forget_device(
        &self,
        device: &DeviceIdentifier,
        unregistered_at: SystemTime,
    ) -> Result<bool, StoreError> {
        let mut tables = self.tables_mut();
        if tables
            .devices
            .get(device)
            .is_none_or(|row| row.version > clock::micros(unregistered_at))
        {
            return Ok(false);
        }
        let Some(row) = tables.remove_device(device) else {
            return Ok(false);
        };
        for pass in row.registrations.keys() {
            tables.remove_from_pass(pass, device);
        }
        Ok(true)
    }
}

/// Parses a cursor of `devices`. If the position is unknown, the list starts from the beginning.
fn device_position(cursor: &PageCursor) -> Option<DeviceIdentifier> {
    DeviceIdentifier::new(cursor.as_str()).ok()
}

/// Parses a cursor of `published_passes`.
fn pass_position(cursor: &PageCursor) -> Option<PassId> {
    let (type_id, serial) = cursor.as_str().split_once('\n')?;
    PassId::new(type_id, serial).ok()
}

/// Parses a cursor of `registrations`.
fn registration_position(cursor: &PageCursor) -> Option<(SerialNumber, DeviceIdentifier)> {
    let (serial, device) = cursor.as_str().split_once('\n')?;
    Some((
        SerialNumber::new(serial).ok()?,
        DeviceIdentifier::new(device).ok()?,
    ))
}

#[async_trait]
impl StoreMaintenance for MemoryStore {
    async fn register_many(&self, registrations: &[Registration]) -> Result<u64, StoreError> {
        let mut tables = self.tables_mut();
        let created = registrations.iter().filter(
            |Registration {
                 device,
                 push_token,
                 pass,
             }| { tables.register(device, pass, push_token) == Registered::Created },
        );
        Ok(created.count() as u64)
    }

    async fn registrations(
        &self,
        after: Option<&PageCursor>,
        limit: usize,
    ) -> Result<Page<Registration>, StoreError> {
        let tables = self.tables();
        // A page has all registrations of its last device, so it may be longer than the limit.
        let after = after.and_then(device_position);
        let mut page = Page::default();
        for device in tables
            .in_order
            .range((start(after.as_ref()), Bound::Unbounded))
        {
            let Some(row) = tables.devices.get(device) else {
                continue;
            };
            page.items
                .extend(row.registrations.keys().map(|pass| Registration {
                    device: device.clone(),
                    push_token: row.push_token.clone(),
                    pass: pass.clone(),
                }));
            if page.items.len() >= limit.max(1) {
                page.next = Some(PageCursor::new(device.as_str()));
                break;
            }
        }
        Ok(page)
    }

    async fn published_passes(
        &self,
        after: Option<&PageCursor>,
        limit: usize,
    ) -> Result<Page<PassId>, StoreError> {
        let after = after.and_then(pass_position);
        let tables = self.tables();
        let mut passes: Vec<PassId> = Vec::new();
        for (type_id, row) in &tables.types {
            let published = row
                .passes
                .iter()
                .filter(|(_, pass)| pass.published.is_some());
            passes.extend(published.map(|(serial, _)| PassId {
                type_id: type_id.clone(),
                serial: serial.clone(),
            }));
        }
        passes.retain(|pass| after.as_ref().is_none_or(|after| pass > after));
        passes.sort_unstable();
        passes.truncate(limit.max(1));
        Ok(Page::up_to(limit, passes, |last| {
            PageCursor::new(format!("{}\n{}", last.type_id, last.serial))
        }))
    }

    async fn forget_pass(&self, pass: &PassId) -> Result<bool, StoreError> {
        let mut tables = self.tables_mut();
        let tables = &mut *tables;
        if let Some(of_type) = tables.types.get_mut(&pass.type_id) {
            let now = clock::now_micros() / 1_000_000;
            let marked = of_type.passes.get(&pass.serial).map(|pass| pass.mark);
            if marked.is_some_and(|mark| mark.last_modified >= now) {
                return Ok(false);
            }
            of_type.passes.remove(&pass.serial);
        }
        tables.pushes.forget(pass);
        tables.archives.remove(pass);
        Ok(true)
    }

    async fn stats(&self) -> Result<StoreStats, StoreError> {
        let tables = self.tables();
        let mut types: Vec<TypeStats> = tables
            .types
            .iter()
            .filter(|(_, row)| !row.devices.is_empty())
            .map(|(type_id, row)| TypeStats {
                type_id: type_id.clone(),
                passes: row.devices.len() as u64,
                registrations: row
                    .devices
                    .values()
                    .map(|devices| devices.len() as u64)
                    .sum(),
            })
            .collect();
        types.sort_unstable_by(|one, other| one.type_id.cmp(&other.type_id));
        Ok(StoreStats {
            devices: tables.devices.len() as u64,
            types,
            storage_bytes: None,
        })
    }
}
