//! Pending and deferred pushes.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use passkit_server::{
    Changed,
    identifiers::{DeviceIdentifier, PushToken, SerialNumber, TypeIdentifier},
    push::{Backlog, DeferredPush, PendingChange, Progress, PushQueue, Scope},
    store::{Page, PageCursor, StoreError, clock},
};
use sqlx::postgres::PgRow;

use crate::{
    engine::{
        connections::Statement,
        rows::{column, identifier, limit_of, signed, unsigned},
    },
    error::PostgresError,
    layout,
    registrations::device_position,
    store::PostgresStore,
};

/// How many pending changes or deferred pushes go into one statement.
const ENTRIES_AT_ONCE: usize = 1_000;

#[async_trait]
impl PushQueue for PostgresStore {
    async fn mark_and_push(
        &self,
        type_id: &TypeIdentifier,
        changed: Changed<'_>,
    ) -> Result<(), StoreError> {
        Ok(self.mark_changed(type_id, changed, true).await?)
    }

    async fn backlog(&self) -> Result<Vec<Backlog>, StoreError> {
        let rows = self
            .connections()
            .fetch(Statement::new(layout::BACKLOG))
            .await?;
        Ok(rows.iter().map(backlog).collect::<Result<_, _>>()?)
    }

    async fn pending(
        &self,
        type_id: &TypeIdentifier,
        limit: usize,
    ) -> Result<Vec<PendingChange>, StoreError> {
        let statement = Statement::new(layout::PENDING)
            .bind(type_id.as_str())
            .bind(limit_of(limit));
        let rows = self.connections().fetch(statement).await?;
        Ok(rows.iter().map(pending_change).collect::<Result<_, _>>()?)
    }

    async fn record_progress(
        &self,
        type_id: &TypeIdentifier,
        progress: &[(Scope, Progress)],
    ) -> Result<(), StoreError> {
        for part in progress.chunks(ENTRIES_AT_ONCE) {
            let serials = part.iter().map(|(scope, _)| match scope {
                Scope::Pass(serial) => serial.as_str(),
                Scope::Type => "",
            });
            let versions = part.iter().map(|(_, progress)| signed(progress.version));
            let nexts = part
                .iter()
                .map(|(_, progress)| progress.next.as_ref().map(PageCursor::as_str));
            let statement = Statement::new(layout::RECORD_PROGRESS)
                .bind(type_id.as_str())
                .bind(serials.collect::<Vec<_>>())
                .bind(versions.collect::<Vec<_>>())
                .bind(nexts.collect::<Vec<_>>());
            self.execute(statement).await?;
        }
        Ok(())
    }

    async fn defer(
        &self,
        type_id: &TypeIdentifier,
        pushes: &[(DeviceIdentifier, Option<DeferredPush>)],
    ) -> Result<(), StoreError> {
        for part in pushes.chunks(ENTRIES_AT_ONCE) {
            // The statement needs each device once and in order, so that two calls can't deadlock.
            let part: BTreeMap<&str, Option<&DeferredPush>> = part
                .iter()
                .map(|(device, push)| (device.as_str(), push.as_ref()))
                .collect();
            let pushes = || part.values().copied();
            let micros = |time: SystemTime| signed(clock::micros(time));
            let tokens = pushes().map(|push| Some(push?.push_token.as_str()));
            let due = pushes().map(|push| Some(micros(push?.due?)));
            let attempts = pushes().map(|push| Some(i64::from(push?.attempts)));
            let bad_since = pushes().map(|push| Some(micros(push?.bad_since?)));
            let statement = Statement::new(layout::DEFER)
                .bind(type_id.as_str())
                .bind(part.keys().copied().collect::<Vec<_>>())
                .bind(tokens.collect::<Vec<_>>())
                .bind(due.collect::<Vec<_>>())
                .bind(attempts.collect::<Vec<_>>())
                .bind(bad_since.collect::<Vec<_>>());
            self.execute(statement).await?;
        }
        Ok(())
    }

    async fn deferred(
        &self,
        type_id: &TypeIdentifier,
        after: Option<&PageCursor>,
        limit: usize,
    ) -> Result<Page<(DeviceIdentifier, DeferredPush)>, StoreError> {
        let after = after.and_then(device_position);
        let statement = Statement::new(layout::DEFERRED)
            .bind(type_id.as_str())
            .bind(after.as_ref().map_or("", DeviceIdentifier::as_str))
            .bind(limit_of(limit));
        let rows = self.connections().fetch(statement).await?;
        let pushes = rows.iter().map(deferred_push).collect::<Result<_, _>>()?;
        Ok(Page::up_to(
            limit,
            pushes,
            |(last, _): &(DeviceIdentifier, _)| PageCursor::new(last.as_str()),
        ))
    }
}

fn backlog(row: &PgRow) -> Result<Backlog, PostgresError> {
    Ok(Backlog {
        type_id: identifier(column(row, 0)?, TypeIdentifier::new)?,
        pending: unsigned(row, 1)?,
        since: time(row, 2)?,
        next_deferred: time(row, 3)?,
    })
}

fn pending_change(row: &PgRow) -> Result<PendingChange, PostgresError> {
    let serial: &str = column(row, 0)?;
    let scope = if serial.is_empty() {
        Scope::Type
    } else {
        Scope::Pass(identifier(serial, SerialNumber::new)?)
    };
    let progress = match column::<Option<&str>>(row, 3)? {
        Some(next) => Some(Progress {
            version: unsigned(row, 2)?,
            next: Some(PageCursor::new(next)),
        }),
        None => None,
    };
    Ok(PendingChange {
        scope,
        version: unsigned(row, 1)?,
        progress,
    })
}

fn deferred_push(row: &PgRow) -> Result<(DeviceIdentifier, DeferredPush), PostgresError> {
    let push = DeferredPush {
        push_token: identifier(column(row, 1)?, PushToken::new)?,
        due: time(row, 2)?,
        attempts: u32::try_from(column::<i64>(row, 3)?).map_err(PostgresError::unreadable)?,
        bad_since: time(row, 4)?,
    };
    Ok((identifier(column(row, 0)?, DeviceIdentifier::new)?, push))
}

fn time(row: &PgRow, index: usize) -> Result<Option<SystemTime>, PostgresError> {
    let micros: Option<i64> = column(row, index)?;
    let time = micros.map(|micros| {
        let micros = u64::try_from(micros).map_err(PostgresError::unreadable)?;
        Ok::<_, PostgresError>(UNIX_EPOCH + Duration::from_micros(micros))
    });
    time.transpose()
}
