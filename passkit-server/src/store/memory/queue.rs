use std::{
    collections::BTreeMap,
    ops::Bound,
    time::{Duration, UNIX_EPOCH},
};

use async_trait::async_trait;

use super::{MemoryStore, device_position, start};
use crate::{
    Changed, PassId,
    identifiers::{DeviceIdentifier, TypeIdentifier},
    push::{Backlog, DeferredPush, PendingChange, Progress, PushQueue, Scope},
    store::{Page, PageCursor, StoreError},
};

#[derive(Clone, Debug, Default)]
pub(super) struct Pushes {
    pending: BTreeMap<TypeIdentifier, BTreeMap<Scope, Entry>>,
    deferred: BTreeMap<TypeIdentifier, BTreeMap<DeviceIdentifier, DeferredPush>>,
}

#[derive(Clone, Debug)]
struct Entry {
    /// The version of the first pending mark.
    since: u64,
    version: u64,
    progress: Option<Progress>,
}

impl Pushes {
    fn add(&mut self, type_id: &TypeIdentifier, scope: Scope, version: u64) {
        let entries = self.pending.entry(type_id.clone()).or_default();
        entries
            .entry(scope)
            .or_insert(Entry {
                since: version,
                version,
                progress: None,
            })
            .version = version;
    }

    pub(super) fn forget(&mut self, pass: &PassId) {
        if let Some(entries) = self.pending.get_mut(&pass.type_id) {
            entries.remove(&Scope::Pass(pass.serial.clone()));
            if entries.is_empty() {
                self.pending.remove(&pass.type_id);
            }
        }
    }

    fn record_progress(&mut self, type_id: &TypeIdentifier, scope: &Scope, progress: &Progress) {
        let Some(entries) = self.pending.get_mut(type_id) else {
            return;
        };
        let Some(entry) = entries.get_mut(scope) else {
            return;
        };
        if progress.next.is_some() {
            entry.progress = Some(progress.clone());
        } else if entry.version == progress.version {
            entries.remove(scope);
        } else {
            (entry.since, entry.progress) = (entry.version, None);
        }
        if entries.is_empty() {
            self.pending.remove(type_id);
        }
    }
}

#[async_trait]
impl PushQueue for MemoryStore {
    async fn mark_and_push(
        &self,
        type_id: &TypeIdentifier,
        changed: Changed<'_>,
    ) -> Result<(), StoreError> {
        let mut tables = self.tables_mut();
        let (version, scopes) = tables.mark(type_id, changed);
        for scope in scopes {
            tables.pushes.add(type_id, scope, version);
        }
        Ok(())
    }

    async fn backlog(&self) -> Result<Vec<Backlog>, StoreError> {
        let tables = self.tables();
        let pushes = &tables.pushes;
        let mut types: Vec<&TypeIdentifier> = pushes
            .pending
            .keys()
            .chain(pushes.deferred.keys())
            .collect();
        types.sort_unstable();
        types.dedup();
        let backlog = types.into_iter().map(|type_id| {
            let pending = pushes.pending.get(type_id);
            let since = pending.and_then(|pending| pending.values().map(|entry| entry.since).min());
            let deferred = pushes.deferred.get(type_id);
            Backlog {
                type_id: type_id.clone(),
                pending: pending.map_or(0, |pending| pending.len() as u64),
                since: since.map(|micros| UNIX_EPOCH + Duration::from_micros(micros)),
                next_deferred: deferred
                    .and_then(|pushes| pushes.values().filter_map(|push| push.due).min()),
            }
        });
        Ok(backlog.collect())
    }

    async fn pending(
        &self,
        type_id: &TypeIdentifier,
        limit: usize,
    ) -> Result<Vec<PendingChange>, StoreError> {
        let tables = self.tables();
        let Some(entries) = tables.pushes.pending.get(type_id) else {
            return Ok(Vec::new());
        };
        let mut entries: Vec<_> = entries.iter().collect();
        entries.sort_by_key(|(_, entry)| entry.since);
        let pending = entries
            .into_iter()
            .take(limit.max(1))
            .map(|(scope, entry)| PendingChange {
                scope: scope.clone(),
                version: entry.version,
                progress: entry.progress.clone(),
            });
        Ok(pending.collect())
    }

    async fn record_progress(
        &self,
        type_id: &TypeIdentifier,
        progress: &[(Scope, Progress)],
    ) -> Result<(), StoreError> {
        let pushes = &mut self.tables_mut().pushes;
        for (scope, progress) in progress {
            pushes.record_progress(type_id, scope, progress);
        }
        Ok(())
    }

    async fn defer(
        &self,
        type_id: &TypeIdentifier,
        pushes: &[(DeviceIdentifier, Option<DeferredPush>)],
    ) -> Result<(), StoreError> {
        let all = &mut self.tables_mut().pushes.deferred;
        let deferred = all.entry(type_id.clone()).or_default();
        for (device, push) in pushes {
            match push {
                Some(push) => deferred.insert(device.clone(), push.clone()),
                None => deferred.remove(device),
            };
        }
        if deferred.is_empty() {
            all.remove(type_id);
        }
        Ok(())
    }

    async fn deferred(
        &self,
        type_id: &TypeIdentifier,
        after: Option<&PageCursor>,
        limit: usize,
    ) -> Result<Page<(DeviceIdentifier, DeferredPush)>, StoreError> {
        let tables = self.tables();
        let Some(deferred) = tables.pushes.deferred.get(type_id) else {
            return Ok(Page::default());
        };
        let after = after.and_then(device_position);
        let limit = limit.max(1);
        let rest = deferred.range((start(after.as_ref()), Bound::Unbounded));
        let pushes = rest
            .take(limit)
            .map(|(device, push)| (device.clone(), push.clone()))
            .collect();
        Ok(Page::up_to(
            limit,
            pushes,
            |(last, _): &(DeviceIdentifier, _)| PageCursor::new(last.as_str()),
        ))
    }
}
