//! Pending and deferred pushes.

use std::{
    collections::BTreeMap,
    time::{Duration, UNIX_EPOCH},
};

use async_trait::async_trait;
use passkit_server::{
    Changed, PassId,
    identifiers::{DeviceIdentifier, TypeIdentifier},
    push::{Backlog, DeferredPush, PendingChange, Progress, PushQueue, Scope},
    store::{Page, PageCursor, StoreError, clock},
};
use sled::IVec;

use crate::{
    changes::{self, Marking},
    engine::{Group, ROWS, Unanswered, View},
    error::SledError,
    layout::{self, PendingRow, QueueRow},
    store::SledStore,
};

/// How many rows a pending push changes in addition to the rows of its mark: the pending change, and its index entry by age.
const PENDING_ROWS: usize = 2;

/// How many pending changes or deferred pushes are written in one step. Each changes at most three rows. All of them change
/// the row of their type.
const TOGETHER: usize = ROWS / 4;

/// How many rows are read at a time. Between two such reads, other readers have their turn.
const AT_ONCE: usize = 1_024;

#[async_trait]
impl PushQueue for SledStore {
    async fn mark_and_push(
        &self,
        type_id: &TypeIdentifier,
        changed: Changed<'_>,
    ) -> Result<(), StoreError> {
        let Some(mut marking) = Marking::new(changed) else {
            return Ok(());
        };
        let type_id = type_id.clone();
        self.write_in_steps(move |group| {
            let marked = changes::mark(group, &type_id, &mut marking, PENDING_ROWS)?;
            add(group, &type_id, &marked.scopes, marked.version)?;
            Ok(marked.more)
        })
        .await
    }

    async fn backlog(&self) -> Result<Vec<Backlog>, StoreError> {
        self.read(backlog).await
    }

    async fn pending(
        &self,
        type_id: &TypeIdentifier,
        limit: usize,
    ) -> Result<Vec<PendingChange>, StoreError> {
        let type_id = type_id.clone();
        self.read(move |view| pending(view, &type_id, limit)).await
    }

    /// Records the progress of about 250 changes in one step.
    async fn record_progress(
        &self,
        type_id: &TypeIdentifier,
        progress: &[(Scope, Progress)],
    ) -> Result<(), StoreError> {
        for part in progress.chunks(TOGETHER) {
            let (type_id, part) = (type_id.clone(), part.to_vec());
            self.write(move |group| {
                part.iter().try_for_each(|(scope, progress)| {
                    record_progress(group, &type_id, scope, progress)
                })
            })
            .await?;
        }
        Ok(())
    }

    /// Writes about 250 deferred pushes in one step.
    async fn defer(
        &self,
        type_id: &TypeIdentifier,
        pushes: &[(DeviceIdentifier, Option<DeferredPush>)],
    ) -> Result<(), StoreError> {
        for part in pushes.chunks(TOGETHER) {
            let (type_id, part) = (type_id.clone(), part.to_vec());
            self.write(move |group| {
                part.iter()
                    .try_for_each(|(device, push)| defer(group, &type_id, device, push.as_ref()))
            })
            .await?;
        }
        Ok(())
    }

    async fn deferred(
        &self,
        type_id: &TypeIdentifier,
        after: Option<&PageCursor>,
        limit: usize,
    ) -> Result<Page<(DeviceIdentifier, DeferredPush)>, StoreError> {
        let (type_id, after) = (type_id.clone(), after.cloned());
        self.read(move |view| deferred(view, &type_id, after.as_ref(), limit))
            .await
    }
}

fn pending_row(
    group: &Group<'_>,
    type_id: &TypeIdentifier,
    scope: &Scope,
) -> Result<Option<PendingRow>, SledError> {
    group
        .get(&layout::pending(type_id, scope))?
        .as_deref()
        .map(PendingRow::decode)
        .transpose()
}

fn put_pending_row(
    group: &mut Group<'_>,
    type_id: &TypeIdentifier,
    scope: &Scope,
    before: Option<&PendingRow>,
    after: Option<&PendingRow>,
) {
    group.put(
        layout::pending(type_id, scope),
        before.map(|row| IVec::from(row.encode())),
        after.map(PendingRow::encode),
    );
    let place = |since| layout::pending_since(type_id, since, scope);
    let since = |row: Option<&PendingRow>| row.map(|row| row.since);
    move_place(group, place, since(before), since(after));
}

/// Moves an entry in an index that is sorted by time, from `before` to `after`. `None` means no entry.
fn move_place(
    group: &mut Group<'_>,
    place: impl Fn(u64) -> Vec<u8>,
    before: Option<u64>,
    after: Option<u64>,
) {
    if before != after {
        if let Some(time) = before {
            group.put(place(time), Some(IVec::default()), None);
        }
        if let Some(time) = after {
            group.put(place(time), None, Some(Vec::new()));
        }
    }
}

fn queue_row(group: &Group<'_>, type_id: &TypeIdentifier) -> Result<QueueRow, SledError> {
    let row = group.get(&layout::queue(type_id))?;
    Ok(row
        .as_deref()
        .map(QueueRow::decode)
        .transpose()?
        .unwrap_or_default())
}

fn put_queue_row(
    group: &mut Group<'_>,
    type_id: &TypeIdentifier,
    before: QueueRow,
    after: QueueRow,
) {
    let row = |row: QueueRow| (row != QueueRow::default()).then(|| row.encode());
    group.put(
        layout::queue(type_id),
        row(before).map(IVec::from),
        row(after),
    );
}

/// Makes these changes pending. `version` is the version of their mark.
fn add(
    group: &mut Group<'_>,
    type_id: &TypeIdentifier,
    scopes: &[Scope],
    version: u64,
) -> Result<(), SledError> {
    let before = queue_row(group, type_id)?;
    let mut queue = before;
    for scope in scopes {
        let row = pending_row(group, type_id, scope)?;
        let after = match row.clone() {
            Some(row) => PendingRow { version, ..row },
            None => {
                queue.pending += 1;
                PendingRow {
                    since: version,
                    version,
                    progress: None,
                }
            }
        };
        put_pending_row(group, type_id, scope, row.as_ref(), Some(&after));
    }
    put_queue_row(group, type_id, before, queue);
    Ok(())
}

fn record_progress(
    group: &mut Group<'_>,
    type_id: &TypeIdentifier,
    scope: &Scope,
    progress: &Progress,
) -> Result<(), SledError> {
    let Some(before) = pending_row(group, type_id, scope)? else {
        return Ok(());
    };
    if progress.next.is_some() {
        let after = PendingRow {
            progress: Some(progress.clone()),
            ..before.clone()
        };
        put_pending_row(group, type_id, scope, Some(&before), Some(&after));
    } else if before.version == progress.version {
        remove_pending_row(group, type_id, scope, &before)?;
    } else {
        let after = PendingRow {
            since: before.version,
            version: before.version,
            progress: None,
        };
        put_pending_row(group, type_id, scope, Some(&before), Some(&after));
    }
    Ok(())
}

/// Removes the pending change of a pass.
pub(crate) fn forget_pass(group: &mut Group<'_>, pass: &PassId) -> Result<(), SledError> {
    let scope = Scope::Pass(pass.serial.clone());
    let Some(before) = pending_row(group, &pass.type_id, &scope)? else {
        return Ok(());
    };
    remove_pending_row(group, &pass.type_id, &scope, &before)
}

fn remove_pending_row(
    group: &mut Group<'_>,
    type_id: &TypeIdentifier,
    scope: &Scope,
    before: &PendingRow,
) -> Result<(), SledError> {
    let queue = queue_row(group, type_id)?;
    let pending = queue.pending.saturating_sub(1);
    put_pending_row(group, type_id, scope, Some(before), None);
    put_queue_row(group, type_id, queue, QueueRow { pending, ..queue });
    Ok(())
}

fn defer(
    group: &mut Group<'_>,
    type_id: &TypeIdentifier,
    device: &DeviceIdentifier,
    push: Option<&DeferredPush>,
) -> Result<(), SledError> {
    let key = layout::deferred(type_id, device);
    let before = group.get(&key)?;
    let old = before.as_deref().map(layout::decode_deferred).transpose()?;
    let queue = queue_row(group, type_id)?;

    let deferred = queue.deferred + u64::from(push.is_some());
    let deferred = deferred.saturating_sub(u64::from(old.is_some()));
    put_queue_row(group, type_id, queue, QueueRow { deferred, ..queue });
    group.put(key, before, push.map(layout::encode_deferred));
    let due = |push: &DeferredPush| push.due.map(clock::micros);
    let place = |due| layout::deferred_until(type_id, due, device);
    move_place(group, place, old.as_ref().and_then(due), push.and_then(due));
    Ok(())
}

/// Returns the key of the first durable row under `prefix`, without the prefix.
fn first(view: &View<'_>, prefix: &[u8]) -> Result<Option<Vec<u8>>, Unanswered> {
    let mut after = None;
    loop {
        // Reads more than one row, because rows that are not durable yet do not count.
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

/// Reads about three rows for each type, however many pushes are pending.
fn backlog(view: &View<'_>) -> Result<Vec<Backlog>, Unanswered> {
    let mut all = Vec::new();
    for (key, value) in view.scan(layout::QUEUES, None, usize::MAX)?.rows {
        let type_id = layout::read_type(&key[layout::QUEUES.len()..])?;
        let row = QueueRow::decode(&value)?;
        // The rows may be from different moments. If the change has been removed by now, it does not count.
        let since = if row.pending > 0 {
            first(view, &layout::pending_by_age(&type_id))?
        } else {
            None
        };
        let next_deferred = if row.deferred > 0 {
            first(view, &layout::deferred_by_time(&type_id))?
        } else {
            None
        };
        let at = |key: Vec<u8>| {
            let micros = layout::read_time(&key)?;
            Ok::<_, SledError>(UNIX_EPOCH + Duration::from_micros(micros))
        };
        let since = since.map(at).transpose()?;
        let pending = if since.is_some() { row.pending } else { 0 };
        if pending > 0 || row.deferred > 0 {
            all.push(Backlog {
                type_id,
                pending,
                since,
                next_deferred: next_deferred.map(at).transpose()?,
            });
        }
    }
    Ok(all)
}

fn pending(
    view: &View<'_>,
    type_id: &TypeIdentifier,
    limit: usize,
) -> Result<Vec<PendingChange>, Unanswered> {
    let prefix = layout::pending_by_age(type_id);
    let mut changes = BTreeMap::new();
    let mut in_turn = Vec::new();
    let mut after = None;
    let limit = limit.max(1);
    while in_turn.len() < limit {
        let found = view.scan(
            &prefix,
            after.as_deref(),
            (limit - in_turn.len()).min(AT_ONCE),
        )?;
        for (key, _) in &found.rows {
            let scope = layout::read_scope(&key[prefix.len() + layout::TIME_BYTES..])?;
            // Since the scan, the change may have been removed. The change may also have moved to a later place, where the
            // scan may find it again.
            let Some(value) = view.get(&layout::pending(type_id, &scope))? else {
                continue;
            };
            let row = PendingRow::decode(&value)?;
            let change = PendingChange {
                scope: scope.clone(),
                version: row.version,
                progress: row.progress,
            };
            if changes.insert(scope.clone(), change).is_none() {
                in_turn.push(scope);
            }
        }
        after = found.more_after;
        if after.is_none() {
            break;
        }
    }
    Ok(in_turn
        .into_iter()
        .filter_map(|scope| changes.remove(&scope))
        .collect())
}

/// Each page starts after the last device of the previous page.
fn deferred(
    view: &View<'_>,
    type_id: &TypeIdentifier,
    after: Option<&PageCursor>,
    limit: usize,
) -> Result<Page<(DeviceIdentifier, DeferredPush)>, Unanswered> {
    let after = after.and_then(|cursor| DeviceIdentifier::new(cursor.as_str()).ok());
    let after = after.map(|device| layout::deferred(type_id, &device));
    let prefix = layout::deferred_of(type_id);
    let found = view.scan(&prefix, after.as_deref(), limit.clamp(1, AT_ONCE))?;
    let items = found.rows.iter().map(|(key, value)| {
        let device = layout::read_device(&key[prefix.len()..])?;
        Ok((device, layout::decode_deferred(value)?))
    });
    let items = items.collect::<Result<_, SledError>>()?;
    let next = found
        .more_after
        .map(|key| layout::read_device(&key[prefix.len()..]))
        .transpose()?;
    Ok(Page {
        items,
        next: next.map(|device| PageCursor::new(device.as_str())),
    })
}
