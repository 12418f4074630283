use std::time::{Duration, SystemTime, UNIX_EPOCH};

use passkit_server::{
    Changed, async_trait,
    identifiers::{DeviceIdentifier, TypeIdentifier},
    push::{Backlog, DeferredPush, PendingChange, Progress, PushQueue, Scope},
    store::{Page, PageCursor, StoreError, clock},
};
use rusqlite::{Connection, Transaction, params};

use crate::{
    SqliteStore,
    changes::{self, OwnedChange},
    layout::{self, identifier, integer, number, optional_number, rows},
    registrations::device_position,
};

#[async_trait]
impl PushQueue for SqliteStore {
    async fn mark_and_push(
        &self,
        type_id: &TypeIdentifier,
        changed: Changed<'_>,
    ) -> Result<(), StoreError> {
        let Some(changed) = OwnedChange::new(changed) else {
            return Ok(());
        };
        let type_id = type_id.clone();
        self.engine
            .write(move |connection| mark_and_push(connection, &type_id, changed.borrowed()))
            .await
    }

    async fn backlog(&self) -> Result<Vec<Backlog>, StoreError> {
        self.engine.read(backlog).await
    }

    async fn pending(
        &self,
        type_id: &TypeIdentifier,
        limit: usize,
    ) -> Result<Vec<PendingChange>, StoreError> {
        let type_id = type_id.clone();
        self.engine
            .read(move |connection| pending(connection, &type_id, limit))
            .await
    }

    async fn record_progress(
        &self,
        type_id: &TypeIdentifier,
        progress: &[(Scope, Progress)],
    ) -> Result<(), StoreError> {
        let (type_id, progress) = (type_id.clone(), progress.to_vec());
        self.engine
            .write(move |connection| record_progress(connection, &type_id, &progress))
            .await
    }

    async fn defer(
        &self,
        type_id: &TypeIdentifier,
        pushes: &[(DeviceIdentifier, Option<DeferredPush>)],
    ) -> Result<(), StoreError> {
        let (type_id, pushes) = (type_id.clone(), pushes.to_vec());
        self.engine
            .write(move |connection| defer(connection, &type_id, &pushes))
            .await
    }

    async fn deferred(
        &self,
        type_id: &TypeIdentifier,
        after: Option<&PageCursor>,
        limit: usize,
    ) -> Result<Page<(DeviceIdentifier, DeferredPush)>, StoreError> {
        let (type_id, after) = (type_id.clone(), after.cloned());
        self.engine
            .scan(move |connection| deferred(connection, &type_id, after.as_ref(), limit))
            .await
    }
}

/// Marks passes like [`mark_in`](crate::mark_in), and makes their pushes pending. Call [`Publisher::wake`](passkit_server::push::Publisher::wake)
/// after the commit.
///
/// # Errors
/// Same errors as [`mark_in`](crate::mark_in).
pub fn mark_and_push_in(
    transaction: &Transaction<'_>,
    type_id: &TypeIdentifier,
    changed: Changed<'_>,
) -> Result<(), StoreError> {
    let marked = mark_and_push(transaction, type_id, changed);
    marked.map_err(|error| changes::failed_in(transaction, error))
}

fn mark_and_push(
    connection: &Connection,
    type_id: &TypeIdentifier,
    changed: Changed<'_>,
) -> rusqlite::Result<()> {
    let (version, scopes) = changes::mark(connection, type_id, changed)?;
    let mut add = connection.prepare_cached(layout::ADD_PENDING)?;
    for scope in &scopes {
        add.execute(params![type_id.as_str(), serial_of(scope), version])?;
    }
    Ok(())
}

/// An empty text stands for the whole type, because no serial number is empty.
fn serial_of(scope: &Scope) -> &str {
    match scope {
        Scope::Pass(serial) => serial.as_str(),
        Scope::Type => "",
    }
}

fn backlog(connection: &Connection) -> rusqlite::Result<Vec<Backlog>> {
    let mut statement = connection.prepare_cached(layout::BACKLOG)?;
    let backlog = statement.query_map([], |row| {
        Ok(Backlog {
            type_id: identifier(row, 0)?,
            pending: number(row, 1)?,
            since: optional_number(row, 2)?.map(time),
            next_deferred: optional_number(row, 3)?.map(time),
        })
    })?;
    backlog.collect()
}

fn pending(
    connection: &Connection,
    type_id: &TypeIdentifier,
    limit: usize,
) -> rusqlite::Result<Vec<PendingChange>> {
    let mut statement = connection.prepare_cached(layout::PENDING)?;
    let pending = statement.query_map(params![type_id.as_str(), rows(limit)], |row| {
        let is_type = row.get_ref(0)?.as_str()?.is_empty();
        let progress = optional_number(row, 2)?;
        Ok(PendingChange {
            scope: if is_type {
                Scope::Type
            } else {
                Scope::Pass(identifier(row, 0)?)
            },
            version: number(row, 1)?,
            progress: match progress {
                Some(version) => Some(Progress {
                    version,
                    next: row.get::<_, Option<String>>(3)?.map(PageCursor::new),
                }),
                None => None,
            },
        })
    })?;
    pending.collect()
}

fn record_progress(
    connection: &Connection,
    type_id: &TypeIdentifier,
    progress: &[(Scope, Progress)],
) -> rusqlite::Result<()> {
    for (scope, Progress { version, next }) in progress {
        let (type_id, serial, version) = (type_id.as_str(), serial_of(scope), integer(*version));
        if let Some(next) = next {
            let mut set = connection.prepare_cached(layout::SET_PROGRESS)?;
            set.execute(params![type_id, serial, version, next.as_str()])?;
            continue;
        }
        let mut remove = connection.prepare_cached(layout::REMOVE_PENDING)?;
        if remove.execute(params![type_id, serial, version])? == 0 {
            connection
                .prepare_cached(layout::RESTART_PENDING)?
                .execute(params![type_id, serial])?;
        }
    }
    Ok(())
}

fn defer(
    connection: &Connection,
    type_id: &TypeIdentifier,
    pushes: &[(DeviceIdentifier, Option<DeferredPush>)],
) -> rusqlite::Result<()> {
    let type_id = type_id.as_str();
    let mut set = connection.prepare_cached(layout::DEFER)?;
    let mut remove = connection.prepare_cached(layout::REMOVE_DEFERRED)?;
    for (device, push) in pushes {
        let device = device.as_str();
        match push {
            Some(DeferredPush {
                push_token,
                due,
                attempts,
                bad_since,
            }) => {
                let (due, bad_since) = (due.map(micros), bad_since.map(micros));
                set.execute(params![
                    type_id,
                    device,
                    push_token.as_str(),
                    due,
                    attempts,
                    bad_since
                ])?
            }
            None => remove.execute(params![type_id, device])?,
        };
    }
    Ok(())
}

fn deferred(
    connection: &Connection,
    type_id: &TypeIdentifier,
    after: Option<&PageCursor>,
    limit: usize,
) -> rusqlite::Result<Page<(DeviceIdentifier, DeferredPush)>> {
    let after = after.and_then(device_position);
    let after = after.as_ref().map_or("", DeviceIdentifier::as_str);
    let pushes = connection
        .prepare_cached(layout::DEFERRED)?
        .query_map(params![type_id.as_str(), after, rows(limit)], |row| {
            let push = DeferredPush {
                push_token: identifier(row, 1)?,
                due: optional_number(row, 2)?.map(time),
                attempts: row.get(3)?,
                bad_since: optional_number(row, 4)?.map(time),
            };
            Ok((identifier(row, 0)?, push))
        })?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    Ok(Page::up_to(
        limit,
        pushes,
        |(last, _): &(DeviceIdentifier, _)| PageCursor::new(last.as_str()),
    ))
}

fn micros(time: SystemTime) -> i64 {
    integer(clock::micros(time))
}

fn time(micros: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(micros)
}
