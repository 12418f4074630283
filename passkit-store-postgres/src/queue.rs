use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use passkit_server::{
    Debt, DeviceIdentifier, HeldPage, HeldPush, Owed, Owing, PageCursor, PushQueue, PushToken, Reached,
    SerialNumber, StoreError, TypeIdentifier, clock,
};
use sqlx::postgres::PgRow;

use crate::{
    calls::{column, identifier, only, signed, unsigned},
    connections::Statement,
    error::Failure,
    schema,
    store::{PostgresStore, limit_of},
};

/// How many debts or held pushes go into one statement.
const TOGETHER: usize = 1_000;

#[async_trait]
impl PushQueue for PostgresStore {
    async fn mark_and_owe(
        &self,
        type_id: &TypeIdentifier,
        serials: &[SerialNumber],
    ) -> Result<(), StoreError> {
        if serials.is_empty() {
            return Ok(());
        }
        Ok(self.marks_of(type_id, true).ask(serials.to_vec()).await?)
    }

    async fn mark_all_and_owe(&self, type_id: &TypeIdentifier) -> Result<(), StoreError> {
        let statement = Statement::new(schema::MARK_ALL_AND_OWE).bind(type_id.as_str());
        only::<i64>(&self.connections().fetch(statement).await?)?;
        Ok(())
    }

    async fn owing(&self) -> Result<Vec<Owing>, StoreError> {
        let rows = self.connections().fetch(Statement::new(schema::OWING)).await?;
        let owing = rows.iter().map(|row| {
            Ok(Owing {
                type_id: identifier(column(row, 0)?, TypeIdentifier::new)?,
                debts: unsigned(row, 1)?,
                since: time(row, 2)?,
                next_held: time(row, 3)?,
            })
        });
        Ok(owing.collect::<Result<_, Failure>>()?)
    }

    /// By the clock of the database.
    async fn lease(
        &self,
        type_id: &TypeIdentifier,
        worker: &str,
        time: Duration,
    ) -> Result<bool, StoreError> {
        // A year is as good as for ever, and no sum of it runs over.
        let micros = time.min(Duration::from_secs(365 * 86_400)).as_micros();
        let statement = Statement::new(schema::LEASE)
            .bind(type_id.as_str())
            .bind(worker)
            .bind(i64::try_from(micros).unwrap_or(i64::MAX));
        Ok(!self.connections().fetch(statement).await?.is_empty())
    }

    async fn release(&self, type_id: &TypeIdentifier, worker: &str) -> Result<(), StoreError> {
        let statement = Statement::new(schema::RELEASE).bind(type_id.as_str()).bind(worker);
        self.connections().fetch(statement).await?;
        Ok(())
    }

    async fn debts(&self, type_id: &TypeIdentifier, limit: usize) -> Result<Vec<Debt>, StoreError> {
        let statement = Statement::new(schema::DEBTS).bind(type_id.as_str()).bind(limit_of(limit));
        let rows = self.connections().fetch(statement).await?;
        let debts = rows.iter().map(|row| {
            let serial: &str = column(row, 0)?;
            let owed = if serial.is_empty() {
                Owed::Type
            } else {
                Owed::Pass(identifier(serial, SerialNumber::new)?)
            };
            let next: Option<&str> = column(row, 3)?;
            let reached = next.map(|next| {
                Ok::<_, Failure>(Reached { version: unsigned(row, 2)?, next: Some(PageCursor::new(next)) })
            });
            Ok(Debt { owed, version: unsigned(row, 1)?, reached: reached.transpose()? })
        });
        Ok(debts.collect::<Result<_, Failure>>()?)
    }

    async fn advance(&self, type_id: &TypeIdentifier, reached: &[(Owed, Reached)]) -> Result<(), StoreError> {
        for part in reached.chunks(TOGETHER) {
            let serials = part.iter().map(|(owed, _)| match owed {
                Owed::Pass(serial) => serial.as_str(),
                Owed::Type => "",
            });
            let versions = part.iter().map(|(_, reached)| signed(reached.version));
            let nexts = part.iter().map(|(_, reached)| reached.next.as_ref().map(PageCursor::as_str));
            let statement = Statement::new(schema::ADVANCE)
                .bind(type_id.as_str())
                .bind(serials.collect::<Vec<_>>())
                .bind(versions.collect::<Vec<_>>())
                .bind(nexts.collect::<Vec<_>>());
            self.connections().fetch(statement).await?;
        }
        Ok(())
    }

    async fn hold(&self, type_id: &TypeIdentifier, pushes: &[HeldPush]) -> Result<(), StoreError> {
        for part in pushes.chunks(TOGETHER) {
            // Each device once, in their order, so that two calls never wait for each other.
            let part: BTreeMap<_, _> = part.iter().map(|push| (push.device.as_str(), push)).collect();
            let micros = |time: Option<SystemTime>| time.map(|time| signed(clock::micros(time)));
            let tokens = part.values().map(|push| push.push_token.as_str());
            let statement = Statement::new(schema::HOLD)
                .bind(type_id.as_str())
                .bind(part.keys().copied().collect::<Vec<_>>())
                .bind(tokens.collect::<Vec<_>>())
                .bind(part.values().map(|push| micros(push.due)).collect::<Vec<_>>())
                .bind(part.values().map(|push| i64::from(push.attempts)).collect::<Vec<_>>())
                .bind(part.values().map(|push| micros(push.bad_since)).collect::<Vec<_>>());
            self.connections().fetch(statement).await?;
        }
        Ok(())
    }

    async fn unhold(&self, type_id: &TypeIdentifier, devices: &[DeviceIdentifier]) -> Result<(), StoreError> {
        for part in devices.chunks(TOGETHER) {
            let devices: Vec<_> = part.iter().map(DeviceIdentifier::as_str).collect();
            let statement = Statement::new(schema::UNHOLD).bind(type_id.as_str()).bind(devices);
            self.connections().fetch(statement).await?;
        }
        Ok(())
    }

    async fn held(
        &self,
        type_id: &TypeIdentifier,
        after: Option<&PageCursor>,
        limit: usize,
    ) -> Result<HeldPage, StoreError> {
        let after = after.and_then(|cursor| DeviceIdentifier::new(cursor.as_str()).ok());
        let statement = Statement::new(schema::HELD)
            .bind(type_id.as_str())
            .bind(after.as_ref().map_or("", |device| device.as_str()))
            .bind(limit_of(limit));
        let rows = self.connections().fetch(statement).await?;
        let pushes = rows.iter().map(|row| {
            Ok(HeldPush {
                device: identifier(column(row, 0)?, DeviceIdentifier::new)?,
                push_token: identifier(column(row, 1)?, PushToken::new)?,
                due: time(row, 2)?,
                attempts: u32::try_from(column::<i64>(row, 3)?).map_err(Failure::unreadable)?,
                bad_since: time(row, 4)?,
            })
        });
        let pushes = pushes.collect::<Result<Vec<_>, Failure>>()?;
        let full = rows.len() as i64 >= limit_of(limit);
        let next = pushes.last().filter(|_| full).map(|last| PageCursor::new(last.device.as_str()));
        Ok(HeldPage { pushes, next })
    }
}

fn time(row: &PgRow, index: usize) -> Result<Option<SystemTime>, Failure> {
    let micros: Option<i64> = column(row, index)?;
    let time = micros.map(|micros| {
        let micros = u64::try_from(micros).map_err(Failure::unreadable)?;
        Ok::<_, Failure>(UNIX_EPOCH + Duration::from_micros(micros))
    });
    time.transpose()
}
