use async_trait::async_trait;
use passkit_server::{
    DeviceIdentifier, PageCursor, PassId, PushToken, Registration, RegistrationPage, StoreError,
    StoreMaintenance, StoreStats, TypeIdentifier, TypeStats,
};

use crate::{
    calls::{Registers, column, identifier, unsigned},
    connections::Statement,
    error::Failure,
    schema,
    store::{PostgresStore, limit_of},
};

/// How many registrations go into one statement.
const TOGETHER: usize = 2_000;

/// Stands between the parts of a position, for it stands in none of them.
const BETWEEN: char = '\n';

#[async_trait]
impl StoreMaintenance for PostgresStore {
    async fn register_many(&self, registrations: &[Registration]) -> Result<u64, StoreError> {
        // By device, for what is asked of one device stays in its order.
        let (one, other): (Vec<_>, Vec<_>) = registrations.iter().partition(|registration| {
            registration.device.as_str().bytes().fold(0, u8::wrapping_add) % 2 == 0
        });
        let (one, other) = tokio::try_join!(self.register_in_turn(&one), self.register_in_turn(&other))?;
        Ok(one + other)
    }

    async fn registrations(
        &self,
        after: Option<&PageCursor>,
        limit: usize,
    ) -> Result<RegistrationPage, StoreError> {
        let (device, type_id, serial) = after.and_then(position).unwrap_or_default();
        let statement = Statement::new(schema::REGISTRATIONS)
            .bind(device)
            .bind(type_id)
            .bind(serial)
            .bind(limit_of(limit));
        let rows = self.connections().fetch(statement).await?;
        let registrations = rows
            .iter()
            .map(|row| {
                let serial = column(row, 3)?;
                Ok(Registration {
                    device: identifier(column(row, 0)?, DeviceIdentifier::new)?,
                    push_token: identifier(column(row, 1)?, PushToken::new)?,
                    pass: identifier(column(row, 2)?, |type_id| PassId::new(type_id, serial))?,
                })
            })
            .collect::<Result<Vec<_>, Failure>>()?;
        let full = rows.len() as i64 >= limit_of(limit);
        let next = registrations.last().filter(|_| full).map(|last| {
            let PassId { type_id, serial } = &last.pass;
            PageCursor::new(format!("{}{BETWEEN}{type_id}{BETWEEN}{serial}", last.device.as_str()))
        });
        Ok(RegistrationPage { registrations, next })
    }

    async fn stats(&self) -> Result<StoreStats, StoreError> {
        let devices = self.connections().fetch(Statement::new(schema::COUNT_DEVICES).any_time()).await?;
        let devices = devices.first().ok_or_else(|| Failure::unreadable("no count"))?;
        let types = self.connections().fetch(Statement::new(schema::COUNT_REGISTRATIONS).any_time()).await?;
        let types = types.iter().map(|row| {
            Ok(TypeStats {
                type_id: identifier(column(row, 0)?, TypeIdentifier::new)?,
                passes: unsigned(row, 1)?,
                registrations: unsigned(row, 2)?,
            })
        });
        Ok(StoreStats {
            devices: unsigned(devices, 0)?,
            types: types.collect::<Result<_, Failure>>()?,
            storage_bytes: Some(unsigned(devices, 1)?),
        })
    }
}

impl PostgresStore {
    async fn register_in_turn(&self, registrations: &[&Registration]) -> Result<u64, StoreError> {
        let mut created = 0;
        for part in registrations.chunks(TOGETHER) {
            let each = part.iter().map(|one| (&one.device, &one.pass, &one.push_token));
            let rows = self.connections().fetch(Registers::statement_of(each)).await?;
            let new = Registers::created(&rows, part.len())?;
            created += new.into_iter().filter(|new| *new).count() as u64;
        }
        Ok(created)
    }
}

fn position(cursor: &PageCursor) -> Option<(&str, &str, &str)> {
    let mut parts = cursor.as_str().split(BETWEEN);
    let position = (parts.next()?, parts.next()?, parts.next()?);
    // A NUL is the one character that PostgreSQL does not take.
    (parts.next().is_none() && !cursor.as_str().contains('\0')).then_some(position)
}
