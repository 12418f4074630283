//! What an operator needs beside the service.

use std::{
    collections::{BTreeMap, HashSet},
    hash::{BuildHasher as _, RandomState},
};

use async_trait::async_trait;
use passkit_server::{
    DeviceIdentifier, PageCursor, PassId, PushToken, Registration, RegistrationPage, StoreError,
    StoreMaintenance, StoreStats, TypeStats,
};
use redis::Value;

use crate::{
    connection::Call,
    error::Failure,
    index::{one, read},
    keys::{self, PUSH_TOKEN},
    query::pairs,
    store::{Inner, RedisStore},
};

/// How many registrations are made in one step, and keys read.
const STEP: usize = 500;

const SLOTS: u16 = 16_384;

/// What [`RedisStore::repair`] found and did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Repaired {
    /// How many entries of devices under their passes were looked at.
    pub looked_at: u64,
    /// How many of them stood for no registration, and were removed.
    pub removed: u64,
    /// How many registrations had no such entry, and got it back.
    pub restored: u64,
}

impl RedisStore {
    /// Brings the devices of each pass in line with the registrations of each device, which are the truth.
    ///
    /// They differ where a process ended half way through a call, at the cost of a needless look at each push; and
    /// where a failover lost what no replica had, at the cost of pushes. Where debts and held pushes are is noted again as
    /// well. May run while the service does, reads
    /// everything in small steps, and may be given up and run again.
    ///
    /// # Errors
    /// As any call.
    pub async fn repair(&self) -> Result<Repaired, StoreError> {
        let inner = self.inner();
        let mut repaired = Repaired::default();
        let mut next = Some(Position::default());
        while let Some(position) = next {
            let (found, then) = inner.keys_from(position).await?;
            next = then;
            for key in &found {
                if let Some(pass) = inner.keys.read_part(key) {
                    inner.repair_part(key, &pass, &mut repaired).await?;
                } else if let Some((type_id, bucket)) = inner.keys.read_debts_by_age(key) {
                    inner.set_notes(&type_id, &[None, Some(bucket)]).await?;
                } else if let Some(type_id) = inner.keys.read_held(key) {
                    inner.set_notes(&type_id, &[None]).await?;
                }
            }
            for registrations in inner.read_devices(&found).await?.chunks(STEP) {
                repaired.restored += inner.restore_hints(registrations).await?;
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
            let new = self.whole(|inner| async move { inner.register(&step).await }).await?;
            created += new.into_iter().filter(|created| *created).count() as u64;
        }
        Ok(created)
    }

    /// On a Cluster, while slots are being moved from node to node, a registration that moves may be missed.
    async fn registrations(
        &self,
        after: Option<&PageCursor>,
        limit: usize,
    ) -> Result<RegistrationPage, StoreError> {
        let inner = self.inner();
        let start = after.and_then(|cursor| Position::read(cursor.as_str())).unwrap_or_default();
        let mut page = RegistrationPage::default();
        let mut next = Some(start);
        while page.registrations.len() < limit.max(1)
            && let Some(position) = next
        {
            let (found, then) = inner.keys_from(position).await?;
            page.registrations.extend(inner.read_devices(&found).await?);
            next = then;
        }
        page.next = next.map(|position| PageCursor::new(position.to_string()));
        Ok(page)
    }

    /// Reads everything, in small steps. Storage is what the server says of each key, without what it needs beside.
    async fn stats(&self) -> Result<StoreStats, StoreError> {
        let inner = self.inner();
        let hasher = RandomState::new();
        let mut types: BTreeMap<_, (HashSet<u64>, u64)> = BTreeMap::new();
        let mut seen = HashSet::new();
        let mut devices = HashSet::new();
        let mut storage = 0;
        let mut next = Some(Position::default());
        while let Some(position) = next {
            let (mut found, then) = inner.keys_from(position).await?;
            next = then;
            // The server may give a key twice.
            found.retain(|key| seen.insert(hasher.hash_one(key)));
            for found in found.chunks(STEP) {
                storage += inner.storage(found).await?;
            }
            for registration in inner.read_devices(&found).await? {
                devices.insert(hasher.hash_one(registration.device));
                let PassId { type_id, serial } = registration.pass;
                let (passes, registrations) = types.entry(type_id).or_default();
                passes.insert(hasher.hash_one(serial));
                *registrations += 1;
            }
        }
        let types = types.into_iter().map(|(type_id, (passes, registrations))| TypeStats {
            type_id,
            passes: passes.len() as u64,
            registrations,
        });
        Ok(StoreStats { devices: devices.len() as u64, types: types.collect(), storage_bytes: Some(storage) })
    }
}

/// Where reading all keys has come to: a cursor of the only node, or a slot of a Cluster.
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

impl Inner {
    /// Some keys of this prefix, from a position on.
    async fn keys_from(&self, position: Position) -> Result<(Vec<String>, Option<Position>), Failure> {
        if self.runner.connection().is_cluster() {
            return self.keys_of_slots(position).await;
        }
        let mut cmd = redis::cmd("SCAN");
        cmd.arg(position.0).arg("MATCH").arg(format!("{}*", self.keys.prefix)).arg("COUNT").arg(STEP);
        let answer = one(self.runner.read(vec![Call::anywhere(cmd)]).await?);
        let (next, mut found): (u64, Vec<String>) = read(answer, "key")?;
        found.retain(|key| self.keys.is_own(key));
        Ok((found, (next != 0).then_some(Position(next))))
    }

    /// By slots, which stay what they are when another node takes over.
    async fn keys_of_slots(&self, position: Position) -> Result<(Vec<String>, Option<Position>), Failure> {
        let first = u16::try_from(position.0).unwrap_or(SLOTS).min(SLOTS);
        let end = (first + 64).min(SLOTS);
        let count = |slot| {
            let mut cmd = redis::cmd("CLUSTER");
            cmd.arg("COUNTKEYSINSLOT").arg(slot);
            Call::on_slot(slot, cmd)
        };
        let counts = self.runner.read((first..end).map(count).collect()).await?;
        let mut gets = Vec::new();
        for (slot, count) in (first..end).zip(counts) {
            let count: u64 = read(count, "count")?;
            if count > 0 {
                let mut cmd = redis::cmd("CLUSTER");
                // Some more, as keys may have come.
                cmd.arg("GETKEYSINSLOT").arg(slot).arg(count + 100);
                gets.push(Call::on_slot(slot, cmd));
            }
        }
        let mut found = Vec::new();
        for keys in self.runner.read(gets).await? {
            let keys: Vec<Vec<u8>> = read(keys, "key")?;
            found.extend(keys.into_iter().filter_map(|key| String::from_utf8(key).ok()));
        }
        found.retain(|key| self.keys.is_own(key));
        Ok((found, (end < SLOTS).then_some(Position(u64::from(end)))))
    }

    /// The registrations of those of the keys that are devices.
    async fn read_devices(&self, keys: &[String]) -> Result<Vec<Registration>, Failure> {
        let devices: Vec<(&String, DeviceIdentifier)> =
            keys.iter().filter_map(|key| Some((key, self.keys.read_device(key)?))).collect();
        let mut registrations = Vec::new();
        for devices in devices.chunks(STEP) {
            let calls = devices.iter().map(|(key, _)| Call::plain("HGETALL", (*key).clone()));
            for (answer, (_, device)) in self.runner.read(calls.collect()).await?.into_iter().zip(devices) {
                let fields = pairs(answer)?;
                let token = fields.iter().find(|(field, _)| field == PUSH_TOKEN.as_bytes());
                // Without one it is what is left of a device that has gone.
                let Some((_, token)) = token else { continue };
                let token = std::str::from_utf8(token).ok().and_then(|token| PushToken::new(token).ok());
                let push_token = token.ok_or(Failure::unreadable("push token"))?;
                for (field, _) in fields {
                    if let Some(pass) = std::str::from_utf8(&field).ok().and_then(keys::read_field) {
                        let (device, push_token) = (device.clone(), push_token.clone());
                        registrations.push(Registration { device, push_token, pass });
                    }
                }
            }
        }
        Ok(registrations)
    }

    async fn storage(&self, keys: &[String]) -> Result<u64, Failure> {
        let calls = keys.iter().map(|key| Call::keyed("MEMORY", "USAGE", key.clone()));
        let answers = self.runner.read(calls.collect()).await?;
        let bytes = answers.into_iter().map(|answer| if let Value::Int(bytes) = answer { bytes } else { 0 });
        Ok(u64::try_from(bytes.sum::<i64>()).unwrap_or(0))
    }

    async fn repair_part(&self, key: &str, pass: &PassId, repaired: &mut Repaired) -> Result<(), Failure> {
        let field = keys::field(pass);
        let mut cursor = 0;
        loop {
            let (next, hints) = self.scan::<u64>(key.to_owned(), cursor, STEP, "hint").await?;
            repaired.looked_at += hints.len() as u64;
            for hints in hints.chunks(STEP) {
                let calls = hints
                    .iter()
                    .map(|(device, _)| Call::plain("HEXISTS", self.keys.device(device)).arg(&field));
                let mut idle = Vec::new();
                for (answer, (device, hint)) in self.runner.read(calls.collect()).await?.iter().zip(hints) {
                    if *answer == Value::Int(0) {
                        let device =
                            DeviceIdentifier::new(device).map_err(|_| Failure::unreadable("device"))?;
                        idle.push((pass.clone(), device, *hint));
                    }
                }
                repaired.removed += self.remove_idle_hints(&idle).await?;
            }
            if next == 0 {
                return Ok(());
            }
            cursor = next;
        }
    }

    /// Gives back the hints that registrations lack; returns how many.
    async fn restore_hints(&self, registrations: &[Registration]) -> Result<u64, Failure> {
        let calls = registrations.iter().map(|Registration { device, pass, .. }| {
            Call::plain("HEXISTS", self.keys.part_with(pass, device)).arg(device.as_str())
        });
        let answers = self.runner.read(calls.collect()).await?;
        let lacking = registrations.iter().zip(answers).filter(|(_, answer)| *answer == Value::Int(0));
        let lacking: Vec<Registration> = lacking.map(|(registration, _)| registration.clone()).collect();
        if !lacking.is_empty() {
            // At worst the registration has just gone, and the next repair removes the hint.
            let all: Vec<usize> = (0..lacking.len()).collect();
            self.set_hints(&lacking, &all, passkit_server::clock::now_micros()).await?;
        }
        Ok(lacking.len() as u64)
    }
}
