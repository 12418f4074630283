//! Writes, reads and counts registrations in bulk, and forgets passes.

use async_trait::async_trait;
use passkit_server::{
    PassId,
    identifiers::{DeviceIdentifier, PushToken, TypeIdentifier},
    maintenance::{Registration, StoreMaintenance, StoreStats, TypeStats},
    store::{Page, PageCursor, StoreError},
};
use sqlx::postgres::PgRow;

use crate::{
    batches::Registers,
    engine::{
        connections::Statement,
        rows::{column, identifier, limit_of, only, unsigned},
    },
    error::PostgresError,
    layout,
    registrations::SEPARATOR,
    store::PostgresStore,
};

/// How many registrations go into one statement.
const REGISTRATIONS_AT_ONCE: usize = 2_000;

#[async_trait]
impl StoreMaintenance for PostgresStore {
    async fn register_many(&self, registrations: &[Registration]) -> Result<u64, StoreError> {
        // Two statements run at a time. All registrations of a device go into the same half, which keeps their order.
        let (one, other): (Vec<_>, Vec<_>) = registrations.iter().partition(|registration| {
            registration
                .device
                .as_str()
                .bytes()
                .fold(0, u8::wrapping_add)
                % 2
                == 0
        });
        let (one, other) =
            tokio::try_join!(self.register_in_turn(&one), self.register_in_turn(&other))?;
        Ok(one + other)
    }

    async fn registrations(
        &self,
        after: Option<&PageCursor>,
        limit: usize,
    ) -> Result<Page<Registration>, StoreError> {
        let (device, type_id, serial) = after.and_then(position).unwrap_or_default();
        let statement = Statement::new(layout::REGISTRATIONS)
            .bind(device)
            .bind(type_id)
            .bind(serial)
            .bind(limit_of(limit));
        let rows = self.connections().fetch(statement).await?;
        let registrations = rows.iter().map(registration).collect::<Result<_, _>>()?;
        Ok(Page::up_to(limit, registrations, |last: &Registration| {
            let PassId { type_id, serial } = &last.pass;
            PageCursor::new(format!(
                "{}{SEPARATOR}{type_id}{SEPARATOR}{serial}",
                last.device.as_str()
            ))
        }))
    }

    async fn published_passes(
        &self,
        after: Option<&PageCursor>,
        limit: usize,
    ) -> Result<Page<PassId>, StoreError> {
        let (type_id, serial) = after.and_then(pass_position).unwrap_or_default();
        let statement = Statement::new(layout::PUBLISHED_PASSES)
            .bind(type_id)
            .bind(serial)
            .bind(limit_of(limit));
        let rows = self.connections().fetch(statement).await?;
        let passes = rows.iter().map(pass).collect::<Result<_, _>>()?;
        Ok(Page::up_to(limit, passes, |last: &PassId| {
            PageCursor::new(format!("{}{SEPARATOR}{}", last.type_id, last.serial))
        }))
    }

    async fn forget_pass(&self, pass: &PassId) -> Result<bool, StoreError> {
        let statement = Statement::new(layout::FORGET_PASS)
            .bind(pass.type_id.as_str())
            .bind(pass.serial.as_str());
        Ok(only(&self.connections().fetch(statement).await?)?)
    }

    async fn stats(&self) -> Result<StoreStats, StoreError> {
        let sizes = self
            .connections()
            .fetch(Statement::new(layout::SIZES).without_time_limit())
            .await?;
        let sizes = sizes
            .first()
            .ok_or_else(|| PostgresError::unreadable("no count"))?;
        let count = Statement::new(layout::COUNT_REGISTRATIONS).without_time_limit();
        let types = self.connections().fetch(count).await?;
        Ok(StoreStats {
            devices: unsigned(sizes, 0)?,
            types: types.iter().map(type_stats).collect::<Result<_, _>>()?,
            storage_bytes: Some(unsigned(sizes, 1)?),
        })
    }
}

impl PostgresStore {
    async fn register_in_turn(
        &self,
        registrations: &[&Registration],
    ) -> Result<u64, PostgresError> {
        let mut created = 0;
        for part in registrations.chunks(REGISTRATIONS_AT_ONCE) {
            let each = part
                .iter()
                .map(|one| (&one.device, &one.pass, &one.push_token));
            let rows = self
                .connections()
                .fetch(Registers::statement_of(each))
                .await?;
            let new = Registers::created(&rows, part.len())?;
            created += new.into_iter().filter(|new| *new).count() as u64;
        }
        Ok(created)
    }
}

fn registration(row: &PgRow) -> Result<Registration, PostgresError> {
    let serial = column(row, 3)?;
    Ok(Registration {
        device: identifier(column(row, 0)?, DeviceIdentifier::new)?,
        push_token: identifier(column(row, 1)?, PushToken::new)?,
        pass: identifier(column(row, 2)?, |type_id| PassId::new(type_id, serial))?,
    })
}

fn pass(row: &PgRow) -> Result<PassId, PostgresError> {
    let serial = column(row, 1)?;
    identifier(column(row, 0)?, |type_id| PassId::new(type_id, serial))
}

fn pass_position(cursor: &PageCursor) -> Option<(&str, &str)> {
    // NUL is the only character that PostgreSQL does not accept in a text.
    let position = cursor.as_str().split_once(SEPARATOR)?;
    (!cursor.as_str().contains('\0')).then_some(position)
}

fn type_stats(row: &PgRow) -> Result<TypeStats, PostgresError> {
    Ok(TypeStats {
        type_id: identifier(column(row, 0)?, TypeIdentifier::new)?,
        passes: unsigned(row, 1)?,
        registrations: unsigned(row, 2)?,
    })
}

fn position(cursor: &PageCursor) -> Option<(&str, &str, &str)> {
    let mut parts = cursor.as_str().split(SEPARATOR);
    let position = (parts.next()?, parts.next()?, parts.next()?);
    // PostgreSQL does not accept NUL in a text.
    (parts.next().is_none() && !cursor.as_str().contains('\0')).then_some(position)
}
