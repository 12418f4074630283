//! Import, export, counts and repair. Forgets passes.

use std::{
    collections::{BTreeMap, HashSet},
    hash::{BuildHasher as _, RandomState},
};

use async_trait::async_trait;
use passkit_server::{
    PassId,
    identifiers::{DeviceIdentifier, PushToken, TypeIdentifier},
    maintenance::{Registration, StoreMaintenance, StoreStats, TypeStats},
    store::{Audience, Page, PageCursor, StoreError, clock},
};
use redis::Value;

use crate::{
    dirty::DirtyBuckets,
    engine::{Command, one, pairs, read, scripts},
    error::Error,
    layout::{self, Indexed, PUSH_TOKEN},
    registrations::IndexEntry,
    store::{RedisStore, Shared},
};

/// The number of registrations to write, or of keys to read, in one step.
const STEP: usize = 500;

const SLOTS: u16 = 16_384;

/// The result of [`RedisStore::repair`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Repaired {
    /// How many index entries were checked.
    pub checked: u64,
    /// How many of the checked entries were removed because they had no registration.
    pub removed: u64,
    /// How many missing index entries were added.
    pub restored: u64,
}

impl RedisStore {
    /// Rebuilds the indexes of passes and types from the registrations of the devices.
    ///
    /// An index has superfluous entries if a process ended in the middle of a call. Each of them costs a little time with
    /// every push. An index lacks entries if a failover lost them. Without an entry, a device gets no push. The call also
    /// restores the lists of buckets and types with pending or deferred pushes.
    ///
    /// The call may run while the service runs. It reads everything in small steps, and can be stopped and run again.
    ///
    /// # Errors
    /// Fails if Redis is unavailable, or contains a value that the store did not write.
    pub async fn repair(&self) -> Result<Repaired, StoreError> {
        let shared = self.shared();
        let mut repaired = Repaired::default();
        let mut next = Some(Position::default());
        while let Some(position) = next {
            let (found, then) = shared.keys_from(position).await?;
            next = then;
            for key in &found {
                if let Some(indexed) = shared.keys.read_part(key) {
                    shared.repair_part(key, &indexed, &mut repaired).await?;
                } else if let Some((type_id, bucket)) = shared.keys.read_pending_by_age(key) {
                    DirtyBuckets::mark_now(&shared.runner, &shared.keys, &type_id, &[bucket])
                        .await?;
                } else if let Some(type_id) = shared.keys.read_deferred(key) {
                    DirtyBuckets::mark_now(&shared.runner, &shared.keys, &type_id, &[]).await?;
                }
            }
            for registrations in shared.read_devices(&found).await?.chunks(STEP) {
                repaired.restored += shared.restore_entries(registrations).await?;
            }
        }
        Ok(repaired)
    }
}

#[async_trait]
impl StoreMaintenance for RedisStore {
    async fn register_many(&self, registrations: &[Registration]) -> Result<u64, StoreError> {
        let mut created = 0;
        for step in registrations.chunks(STEP) {
            let step = step.to_vec();
            created += self
                .run_to_completion(|shared| async move { shared.register(&step).await })
                .await?;
        }
        Ok(created)
    }

    /// On a Cluster, a page may miss a registration if its slot moves from one node to another at the same time.
    async fn registrations(
        &self,
        after: Option<&PageCursor>,
        limit: usize,
    ) -> Result<Page<Registration>, StoreError> {
        let shared = self.shared();
        let start = after
            .and_then(|cursor| Position::read(cursor.as_str()))
            .unwrap_or_default();
        let mut page = Page::default();
        let mut next = Some(start);
        while page.items.len() < limit.max(1)
            && let Some(position) = next
        {
            let (found, then) = shared.keys_from(position).await?;
            page.items.extend(shared.read_devices(&found).await?);
            next = then;
        }
        page.next = next.map(|position| PageCursor::new(position.to_string()));
        Ok(page)
    }

    /// A page contains whole buckets, so it may have more passes than `limit`.
    async fn published_passes(
        &self,
        after: Option<&PageCursor>,
        limit: usize,
    ) -> Result<Page<PassId>, StoreError> {
        let shared = self.shared();
        let start = after
            .and_then(|cursor| Position::read(cursor.as_str()))
            .unwrap_or_default();
        let mut page = Page::default();
        let mut next = Some(start);
        while page.items.len() < limit.max(1)
            && let Some(position) = next
        {
            let (found, then) = shared.keys_from(position).await?;
            for key in found {
                if let Some(type_id) = shared.keys.read_published(&key) {
                    page.items
                        .extend(shared.passes_of_bucket(key, &type_id).await?);
                }
            }
            next = then;
        }
        page.next = next.map(|position| PageCursor::new(position.to_string()));
        Ok(page)
    }

    /// Also removes entries that interrupted calls left in the index of the pass. The result is correct if the clocks of
    /// the hosts agree, because the host of the caller decides whether the date is past.
    async fn forget_pass(&self, pass: &PassId) -> Result<bool, StoreError> {
        let pass = pass.clone();
        self.run_to_completion(|shared| async move { shared.forget_pass(&pass).await })
            .await
    }

    /// Reads everything in small steps. The storage is the sum of `MEMORY USAGE` of all keys.
    async fn stats(&self) -> Result<StoreStats, StoreError> {
        let shared = self.shared();
        let hasher = RandomState::new();
        let mut types: BTreeMap<_, (HashSet<u64>, u64)> = BTreeMap::new();
        let mut seen = HashSet::new();
        let mut devices = HashSet::new();
        let mut storage = 0;
        let mut next = Some(Position::default());
        while let Some(position) = next {
            let (mut found, then) = shared.keys_from(position).await?;
            next = then;
            // The server may return a key twice.
            found.retain(|key| seen.insert(hasher.hash_one(key)));
            for found in found.chunks(STEP) {
                storage += shared.storage(found).await?;
            }
            for registration in shared.read_devices(&found).await? {
                devices.insert(hasher.hash_one(registration.device));
                let PassId { type_id, serial } = registration.pass;
                let (passes, registrations) = types.entry(type_id).or_default();
                passes.insert(hasher.hash_one(serial));
                *registrations += 1;
            }
        }
        let types = types
            .into_iter()
            .map(|(type_id, (passes, registrations))| TypeStats {
                type_id,
                passes: passes.len() as u64,
                registrations,
            });
        Ok(StoreStats {
            devices: devices.len() as u64,
            types: types.collect(),
            storage_bytes: Some(storage),
        })
    }
}

/// A position among all keys: a cursor on a single node, or a slot of a Cluster.
#[derive(Clone, Copy, Debug, Default)]
struct Position(u64);

impl Position {
    fn read(text: &str) -> Option<Self> {
        text.parse().ok().map(Self)
    }
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl Shared {
    /// Reads some keys of this store, starting at a position. Returns the next position, if there is one.
    async fn keys_from(
        &self,
        position: Position,
    ) -> Result<(Vec<String>, Option<Position>), Error> {
        if self.runner.connection().is_cluster() {
            return self.keys_of_slots(position).await;
        }
        let mut cmd = redis::cmd("SCAN");
        cmd.arg(position.0)
            .arg("MATCH")
            .arg(format!("{}*", self.keys.prefix))
            .arg("COUNT")
            .arg(STEP);
        let answer = one(self.runner.read(vec![Command::anywhere(cmd)]).await?);
        let (next, mut found): (u64, Vec<String>) = read(answer, "key")?;
        found.retain(|key| self.keys.is_own(key));
        Ok((found, (next != 0).then_some(Position(next))))
    }

    /// Reads the keys slot by slot, because slots stay the same during a failover.
    async fn keys_of_slots(
        &self,
        position: Position,
    ) -> Result<(Vec<String>, Option<Position>), Error> {
        let first = u16::try_from(position.0).unwrap_or(SLOTS).min(SLOTS);
        let end = (first + 64).min(SLOTS);
        let count = |slot| {
            let mut cmd = redis::cmd("CLUSTER");
            cmd.arg("COUNTKEYSINSLOT").arg(slot);
            Command::on_slot(slot, cmd)
        };
        let counts = self.runner.read((first..end).map(count).collect()).await?;
        let mut gets = Vec::new();
        for (slot, count) in (first..end).zip(counts) {
            let count: u64 = read(count, "count")?;
            if count > 0 {
                let mut cmd = redis::cmd("CLUSTER");
                // Asks for a few more keys than were counted, because keys may have been added.
                cmd.arg("GETKEYSINSLOT").arg(slot).arg(count + 100);
                gets.push(Command::on_slot(slot, cmd));
            }
        }
        let mut found = Vec::new();
        for keys in self.runner.read(gets).await? {
            let keys: Vec<Vec<u8>> = read(keys, "key")?;
            found.extend(
                keys.into_iter()
                    .filter_map(|key| String::from_utf8(key).ok()),
            );
        }
        found.retain(|key| self.keys.is_own(key));
        Ok((found, (end < SLOTS).then_some(Position(u64::from(end)))))
    }

    /// Reads the registrations of the devices among these keys.
    async fn read_devices(&self, keys: &[String]) -> Result<Vec<Registration>, Error> {
        let devices: Vec<(&String, DeviceIdentifier)> = keys
            .iter()
            .filter_map(|key| Some((key, self.keys.read_device(key)?)))
            .collect();
        let mut registrations = Vec::new();
        for devices in devices.chunks(STEP) {
            let calls = devices
                .iter()
                .map(|(key, _)| Command::plain("HGETALL", (*key).clone()));
            for (answer, (_, device)) in self
                .runner
                .read(calls.collect())
                .await?
                .into_iter()
                .zip(devices)
            {
                let fields = pairs(answer, "device")?;
                let token = fields
                    .iter()
                    .find(|(field, _)| field == PUSH_TOKEN.as_bytes());
                // A hash without a push token is the tombstone of a removed device.
                let Some((_, token)) = token else { continue };
                let token = std::str::from_utf8(token)
                    .ok()
                    .and_then(|token| PushToken::new(token).ok());
                let push_token = token.ok_or(Error::unreadable("push token"))?;
                for (field, _) in fields {
                    if let Some(Indexed::Pass(pass)) = std::str::from_utf8(&field)
                        .ok()
                        .and_then(layout::read_field)
                    {
                        let (device, push_token) = (device.clone(), push_token.clone());
                        registrations.push(Registration {
                            device,
                            push_token,
                            pass,
                        });
                    }
                }
            }
        }
        Ok(registrations)
    }

    /// Reads the published passes of the bucket with this key.
    async fn passes_of_bucket(
        &self,
        key: String,
        type_id: &TypeIdentifier,
    ) -> Result<Vec<PassId>, Error> {
        let (mut passes, mut cursor) = (Vec::new(), 0);
        loop {
            let (next, found) = self
                .runner
                .scan::<Vec<u8>>(key.clone(), cursor, STEP, "published content")
                .await?;
            for (serial, _) in found {
                let pass = PassId::new(type_id.as_str(), &serial);
                passes.push(pass.map_err(|_| Error::unreadable("published content"))?);
            }
            cursor = next;
            if cursor == 0 {
                return Ok(passes);
            }
        }
    }

    async fn storage(&self, keys: &[String]) -> Result<u64, Error> {
        let calls = keys
            .iter()
            .map(|key| Command::keyed("MEMORY", "USAGE", key.clone()));
        let answers = self.runner.read(calls.collect()).await?;
        let bytes = answers.into_iter().map(|answer| {
            if let Value::Int(bytes) = answer {
                bytes
            } else {
                0
            }
        });
        Ok(u64::try_from(bytes.sum::<i64>()).unwrap_or(0))
    }

    async fn forget_pass(&self, pass: &PassId) -> Result<bool, Error> {
        let bucket = self.keys.bucket_of(&pass.serial);
        let [marks, pending, by_age] = self.keys.bucket_and_pending(&pass.type_id, bucket);
        let keys = [
            marks,
            self.keys.published(&pass.type_id, bucket),
            pending,
            by_age,
        ];
        let call = Command::timed(&scripts::FORGET_PASS, keys).arg(pass.serial.as_str());
        let forgotten: u64 = read(
            one(self.runner.write(vec![call]).await?),
            "answer of a script",
        )?;
        if forgotten == 0 {
            return Ok(false);
        }
        let indexed = Indexed::Pass(pass.clone());
        for part in 0..layout::parts(indexed.audience()) {
            let key = self.keys.part(indexed.audience(), part);
            self.repair_part(&key, &indexed, &mut Repaired::default())
                .await?;
        }
        Ok(true)
    }

    async fn repair_part(
        &self,
        key: &str,
        indexed: &Indexed,
        repaired: &mut Repaired,
    ) -> Result<(), Error> {
        let field = layout::field(indexed.audience());
        let mut cursor = 0;
        loop {
            let (next, entries) = self
                .runner
                .scan::<u64>(key.to_owned(), cursor, STEP, "index entry")
                .await?;
            repaired.checked += entries.len() as u64;
            let unreadable = |_| Error::unreadable("index entry");
            let entries = entries.into_iter().map(|(device, number)| {
                let device = DeviceIdentifier::new(&device).map_err(unreadable)?;
                Ok(IndexEntry {
                    of: indexed.clone(),
                    device,
                    number,
                })
            });
            for entries in entries.collect::<Result<Vec<_>, Error>>()?.chunks(STEP) {
                let calls = entries.iter().map(|entry| {
                    Command::plain("HEXISTS", self.keys.device(&entry.device)).arg(&field)
                });
                let answers = self.runner.read(calls.collect()).await?;
                let superfluous = entries
                    .iter()
                    .zip(answers)
                    .filter(|(_, answer)| *answer == Value::Int(0));
                let superfluous: Vec<IndexEntry> =
                    superfluous.map(|(entry, _)| entry.clone()).collect();
                repaired.removed += self.remove_superfluous(&superfluous).await?;
            }
            if next == 0 {
                return Ok(());
            }
            cursor = next;
        }
    }

    /// Adds the missing index entries of registrations. Returns how many it added.
    async fn restore_entries(&self, registrations: &[Registration]) -> Result<u64, Error> {
        let of_pass = registrations
            .iter()
            .map(|one| (Audience::Pass(&one.pass), &one.device));
        let of_type: HashSet<_> = registrations
            .iter()
            .map(|one| (&one.pass.type_id, &one.device))
            .collect();
        let of_type = of_type
            .into_iter()
            .map(|(type_id, device)| (Audience::Type(type_id), device));
        let places: Vec<_> = of_pass.chain(of_type).collect();
        let calls = places.iter().map(|(audience, device)| {
            Command::plain("HEXISTS", self.keys.part_with(*audience, device)).arg(device.as_str())
        });
        let answers = self.runner.read(calls.collect()).await?;
        let lacking = places
            .into_iter()
            .zip(answers)
            .filter(|(_, answer)| *answer == Value::Int(0));
        let lacking: Vec<_> = lacking.map(|(place, _)| place).collect();
        // If the registration was removed just now, the next repair removes the entry.
        self.index_add(&lacking, clock::now_micros()).await?;
        Ok(lacking.len() as u64)
    }
}
