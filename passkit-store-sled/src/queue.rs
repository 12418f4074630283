//! What pushes are owed and held, and by whom they are sent.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant, UNIX_EPOCH},
};

use async_trait::async_trait;
use passkit_server::{
    Debt, DeviceIdentifier, HeldPage, HeldPush, Owed, Owing, PageCursor, PushQueue, Reached, SerialNumber,
    StoreError, TypeIdentifier,
};

use crate::{
    error::Failure,
    group::{Operation, ROWS},
    keys::{self, DebtRow, QueueRow},
    settled::View,
    store::SledStore,
};

/// How many debts or held pushes are changed together: each changes three rows, and all of them that of their type.
const TOGETHER: usize = ROWS / 4;

/// How many rows are read at a time, so that other readers have their turn.
const AT_ONCE: usize = 1_024;

/// Who works on which type. All workers are in this process, and none outlives it.
/// The longest lease.
const YEAR: Duration = Duration::from_secs(365 * 86_400);

#[derive(Debug, Default)]
pub(crate) struct Leases(Mutex<HashMap<TypeIdentifier, Lease>>);

#[derive(Debug)]
struct Lease {
    worker: String,
    until: Instant,
}

impl Leases {
    fn take(&self, type_id: &TypeIdentifier, worker: &str, time: Duration) -> bool {
        let mut leases = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if leases.get(type_id).is_some_and(|lease| lease.worker != worker && lease.until > now) {
            return false;
        }
        leases.insert(type_id.clone(), Lease { worker: worker.to_owned(), until: now + time.min(YEAR) });
        true
    }

    fn release(&self, type_id: &TypeIdentifier, worker: &str) {
        let mut leases = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if leases.get(type_id).is_some_and(|lease| lease.worker == worker) {
            leases.remove(type_id);
        }
    }
}

#[async_trait]
impl PushQueue for SledStore {
    async fn mark_and_owe(
        &self,
        type_id: &TypeIdentifier,
        serials: &[SerialNumber],
    ) -> Result<(), StoreError> {
        if serials.is_empty() {
            return Ok(());
        }
        let (type_id, serials) = (type_id.clone(), serials.to_vec());
        self.write(|answer| Operation::Mark { type_id, serials, owe: true, answer }).await
    }

    async fn mark_all_and_owe(&self, type_id: &TypeIdentifier) -> Result<(), StoreError> {
        let type_id = type_id.clone();
        self.write(|answer| Operation::MarkAll { type_id, owe: true, answer }).await
    }

    async fn owing(&self) -> Result<Vec<Owing>, StoreError> {
        self.read(owing).await
    }

    async fn lease(
        &self,
        type_id: &TypeIdentifier,
        worker: &str,
        time: Duration,
    ) -> Result<bool, StoreError> {
        Ok(self.leases.take(type_id, worker, time))
    }

    async fn release(&self, type_id: &TypeIdentifier, worker: &str) -> Result<(), StoreError> {
        self.leases.release(type_id, worker);
        Ok(())
    }

    async fn debts(&self, type_id: &TypeIdentifier, limit: usize) -> Result<Vec<Debt>, StoreError> {
        let type_id = type_id.clone();
        self.read(move |view| debts(view, &type_id, limit)).await
    }

    /// Some 250 at a time.
    async fn advance(&self, type_id: &TypeIdentifier, reached: &[(Owed, Reached)]) -> Result<(), StoreError> {
        for part in reached.chunks(TOGETHER) {
            let (type_id, reached) = (type_id.clone(), part.to_vec());
            self.write(|answer| Operation::Advance { type_id, reached, answer }).await?;
        }
        Ok(())
    }

    /// Some 250 at a time.
    async fn hold(&self, type_id: &TypeIdentifier, pushes: &[HeldPush]) -> Result<(), StoreError> {
        for part in pushes.chunks(TOGETHER) {
            let pushes = part.iter().map(|push| (push.device.clone(), Some(push.clone()))).collect();
            let type_id = type_id.clone();
            self.write(|answer| Operation::Hold { type_id, pushes, answer }).await?;
        }
        Ok(())
    }

    /// Some 250 at a time.
    async fn unhold(&self, type_id: &TypeIdentifier, devices: &[DeviceIdentifier]) -> Result<(), StoreError> {
        for part in devices.chunks(TOGETHER) {
            let pushes = part.iter().map(|device| (device.clone(), None)).collect();
            let type_id = type_id.clone();
            self.write(|answer| Operation::Hold { type_id, pushes, answer }).await?;
        }
        Ok(())
    }

    async fn held(
        &self,
        type_id: &TypeIdentifier,
        after: Option<&PageCursor>,
        limit: usize,
    ) -> Result<HeldPage, StoreError> {
        let (type_id, after) = (type_id.clone(), after.cloned());
        self.read(move |view| held(view, &type_id, after.as_ref(), limit)).await
    }
}

/// The first durable row under `prefix`, without the prefix.
fn first(view: &View<'_>, prefix: &[u8]) -> Result<Option<Vec<u8>>, Failure> {
    let mut after = None;
    loop {
        // A few, for some may be on their way in, and so not count yet.
        let found = view.scan(prefix, after.as_deref(), 16)?;
        if let Some((key, _)) = found.rows.first() {
            return Ok(Some(key[prefix.len()..].to_vec()));
        }
        after = found.more_after;
        if after.is_none() {
            return Ok(None);
        }
    }
}

/// Looks at three rows for each type that is owed anything, however many debts it has.
fn owing(view: &View<'_>) -> Result<Vec<Owing>, Failure> {
    let mut all = Vec::new();
    for (key, value) in view.scan(keys::QUEUES, None, usize::MAX)?.rows {
        let type_id = keys::read_type(&key[keys::QUEUES.len()..])?;
        let row = QueueRow::decode(&value)?;
        // The rows need not be of one moment: what has gone since then does not count.
        let since = if row.debts > 0 { first(view, &keys::debts_by_age(&type_id))? } else { None };
        let next_held = if row.held > 0 { first(view, &keys::held_by_time(&type_id))? } else { None };
        let at = |key: Vec<u8>| {
            let micros = keys::read_time(&key)?;
            Ok::<_, Failure>(UNIX_EPOCH + Duration::from_micros(micros))
        };
        let since = since.map(at).transpose()?;
        let debts = if since.is_some() { row.debts } else { 0 };
        if debts > 0 || row.held > 0 {
            all.push(Owing { type_id, debts, since, next_held: next_held.map(at).transpose()? });
        }
    }
    Ok(all)
}

fn debts(view: &View<'_>, type_id: &TypeIdentifier, limit: usize) -> Result<Vec<Debt>, Failure> {
    let prefix = keys::debts_by_age(type_id);
    let mut debts = BTreeMap::new();
    let mut in_turn = Vec::new();
    let mut after = None;
    while in_turn.len() < limit {
        let found = view.scan(&prefix, after.as_deref(), (limit - in_turn.len()).min(AT_ONCE))?;
        for (key, _) in &found.rows {
            let owed = keys::read_owed(&key[prefix.len() + keys::TIME_BYTES..])?;
            // Settled since the scan; or owed again since, and so in a later place too.
            let Some(value) = view.get(&keys::debt(type_id, &owed))? else { continue };
            let row = DebtRow::decode(&value)?;
            let debt = Debt { owed: owed.clone(), version: row.version, reached: row.reached };
            if debts.insert(owed.clone(), debt).is_none() {
                in_turn.push(owed);
            }
        }
        after = found.more_after;
        if after.is_none() {
            break;
        }
    }
    Ok(in_turn.into_iter().filter_map(|owed| debts.remove(&owed)).collect())
}

/// A page ends with a device, and the next begins behind it.
fn held(
    view: &View<'_>,
    type_id: &TypeIdentifier,
    after: Option<&PageCursor>,
    limit: usize,
) -> Result<HeldPage, Failure> {
    let after = after.and_then(|cursor| DeviceIdentifier::new(cursor.as_str()).ok());
    let after = after.map(|device| keys::held(type_id, &device));
    let prefix = keys::held_of(type_id);
    let found = view.scan(&prefix, after.as_deref(), limit.clamp(1, AT_ONCE))?;
    let pushes = found.rows.iter().map(|(key, value)| {
        let device = keys::read_device(&key[prefix.len()..])?;
        keys::decode_held(device, value)
    });
    let pushes = pushes.collect::<Result<_, Failure>>()?;
    let next = found.more_after.map(|key| keys::read_device(&key[prefix.len()..])).transpose()?;
    Ok(HeldPage { pushes, next: next.map(|device| PageCursor::new(device.as_str())) })
}
