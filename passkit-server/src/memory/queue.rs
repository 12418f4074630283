use std::{
    collections::{BTreeMap, HashMap},
    ops::Bound,
    time::{Duration, UNIX_EPOCH},
};

use async_trait::async_trait;
use tokio::time::Instant;

use super::MemoryStore;
use crate::{
    Debt, DeviceIdentifier, HeldPage, HeldPush, Owed, Owing, PageCursor, PushQueue, Reached, SerialNumber,
    StoreError, TypeIdentifier,
};

/// The longest lease.
const YEAR: Duration = Duration::from_secs(365 * 86_400);

#[derive(Debug, Default)]
pub(super) struct Pushes {
    owed: BTreeMap<TypeIdentifier, BTreeMap<Owed, Row>>,
    held: BTreeMap<TypeIdentifier, BTreeMap<DeviceIdentifier, HeldPush>>,
    leases: HashMap<TypeIdentifier, Lease>,
}

#[derive(Debug)]
struct Row {
    /// Of the first mark that is not settled.
    since: u64,
    version: u64,
    reached: Option<Reached>,
}

#[derive(Debug)]
struct Lease {
    worker: String,
    until: Instant,
}

impl Pushes {
    fn owe(&mut self, type_id: &TypeIdentifier, owed: Owed, version: u64) {
        let rows = self.owed.entry(type_id.clone()).or_default();
        rows.entry(owed).or_insert(Row { since: version, version, reached: None }).version = version;
    }

    fn advance(&mut self, type_id: &TypeIdentifier, owed: &Owed, reached: &Reached) {
        let Some(rows) = self.owed.get_mut(type_id) else { return };
        let Some(row) = rows.get_mut(owed) else { return };
        if reached.next.is_some() {
            row.reached = Some(reached.clone());
        } else if row.version == reached.version {
            rows.remove(owed);
        } else {
            (row.since, row.reached) = (row.version, None);
        }
        if rows.is_empty() {
            self.owed.remove(type_id);
        }
    }
}

#[async_trait]
impl PushQueue for MemoryStore {
    async fn mark_and_owe(
        &self,
        type_id: &TypeIdentifier,
        serials: &[SerialNumber],
    ) -> Result<(), StoreError> {
        if serials.is_empty() {
            return Ok(());
        }
        let mut tables = self.tables_mut();
        let version = tables.mark(type_id, serials);
        for serial in serials {
            tables.pushes.owe(type_id, Owed::Pass(serial.clone()), version);
        }
        Ok(())
    }

    async fn mark_all_and_owe(&self, type_id: &TypeIdentifier) -> Result<(), StoreError> {
        let mut tables = self.tables_mut();
        let version = tables.mark_all(type_id);
        tables.pushes.owe(type_id, Owed::Type, version);
        Ok(())
    }

    async fn owing(&self) -> Result<Vec<Owing>, StoreError> {
        let tables = self.tables();
        let pushes = &tables.pushes;
        let mut types: Vec<&TypeIdentifier> = pushes.owed.keys().chain(pushes.held.keys()).collect();
        types.sort_unstable();
        types.dedup();
        let owing = types.into_iter().map(|type_id| {
            let debts = pushes.owed.get(type_id);
            let since = debts.and_then(|debts| debts.values().map(|row| row.since).min());
            let held = pushes.held.get(type_id);
            Owing {
                type_id: type_id.clone(),
                debts: debts.map_or(0, |debts| debts.len() as u64),
                since: since.map(|micros| UNIX_EPOCH + Duration::from_micros(micros)),
                next_held: held.and_then(|held| held.values().filter_map(|push| push.due).min()),
            }
        });
        Ok(owing.collect())
    }

    async fn lease(
        &self,
        type_id: &TypeIdentifier,
        worker: &str,
        time: Duration,
    ) -> Result<bool, StoreError> {
        let leases = &mut self.tables_mut().pushes.leases;
        let now = Instant::now();
        if leases.get(type_id).is_some_and(|lease| lease.worker != worker && lease.until > now) {
            return Ok(false);
        }
        leases.insert(type_id.clone(), Lease { worker: worker.to_owned(), until: now + time.min(YEAR) });
        Ok(true)
    }

    async fn release(&self, type_id: &TypeIdentifier, worker: &str) -> Result<(), StoreError> {
        let leases = &mut self.tables_mut().pushes.leases;
        if leases.get(type_id).is_some_and(|lease| lease.worker == worker) {
            leases.remove(type_id);
        }
        Ok(())
    }

    async fn debts(&self, type_id: &TypeIdentifier, limit: usize) -> Result<Vec<Debt>, StoreError> {
        let tables = self.tables();
        let Some(rows) = tables.pushes.owed.get(type_id) else { return Ok(Vec::new()) };
        let mut rows: Vec<_> = rows.iter().collect();
        rows.sort_by_key(|(_, row)| row.since);
        let debts = rows.into_iter().take(limit).map(|(owed, row)| Debt {
            owed: owed.clone(),
            version: row.version,
            reached: row.reached.clone(),
        });
        Ok(debts.collect())
    }

    async fn advance(&self, type_id: &TypeIdentifier, reached: &[(Owed, Reached)]) -> Result<(), StoreError> {
        let pushes = &mut self.tables_mut().pushes;
        for (owed, reached) in reached {
            pushes.advance(type_id, owed, reached);
        }
        Ok(())
    }

    async fn hold(&self, type_id: &TypeIdentifier, pushes: &[HeldPush]) -> Result<(), StoreError> {
        if pushes.is_empty() {
            return Ok(());
        }
        let mut tables = self.tables_mut();
        let held = tables.pushes.held.entry(type_id.clone()).or_default();
        held.extend(pushes.iter().map(|push| (push.device.clone(), push.clone())));
        Ok(())
    }

    async fn unhold(&self, type_id: &TypeIdentifier, devices: &[DeviceIdentifier]) -> Result<(), StoreError> {
        let pushes = &mut self.tables_mut().pushes;
        let Some(held) = pushes.held.get_mut(type_id) else { return Ok(()) };
        held.retain(|device, _| !devices.contains(device));
        if held.is_empty() {
            pushes.held.remove(type_id);
        }
        Ok(())
    }

    async fn held(
        &self,
        type_id: &TypeIdentifier,
        after: Option<&PageCursor>,
        limit: usize,
    ) -> Result<HeldPage, StoreError> {
        let tables = self.tables();
        let Some(held) = tables.pushes.held.get(type_id) else { return Ok(HeldPage::default()) };
        let after = after.and_then(|cursor| DeviceIdentifier::new(cursor.as_str()).ok());
        let start = after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let limit = limit.max(1);
        let pushes: Vec<HeldPush> =
            held.range((start, Bound::Unbounded)).take(limit).map(|(_, push)| push.clone()).collect();
        let full = pushes.len() == limit;
        let next = pushes.last().filter(|_| full).map(|last| PageCursor::new(last.device.as_str()));
        Ok(HeldPage { pushes, next })
    }
}
