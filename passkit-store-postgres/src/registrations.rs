//! The trait `RegistrationStore`. The module `changes` implements the marks.

use std::time::SystemTime;

use async_trait::async_trait;
use passkit_server::{
    Changed, PassId, PassState,
    identifiers::{DeviceIdentifier, PushToken, SerialNumber, TypeIdentifier},
    store::{
        Audience, Changes, Page, PageCursor, Published, Registered, RegisteredDevice,
        RegistrationStore, StoreError, UpdateTag, clock,
    },
};
use sqlx::postgres::PgRow;

use crate::{
    batches::ListQuestion,
    engine::{
        connections::Statement,
        rows::{column, identifier, limit_of, only, signed, unsigned},
    },
    error::PostgresError,
    layout,
    store::PostgresStore,
};

/// Separates the parts of a cursor. No identifier contains it.
pub(crate) const SEPARATOR: char = '\n';

#[async_trait]
impl RegistrationStore for PostgresStore {
    async fn register(
        &self,
        device: &DeviceIdentifier,
        pass: &PassId,
        push_token: &PushToken,
    ) -> Result<Registered, StoreError> {
        Ok(self
            .registers()
            .ask((device.clone(), pass.clone(), push_token.clone()))
            .await?)
    }

    async fn unregister(
        &self,
        device: &DeviceIdentifier,
        pass: &PassId,
    ) -> Result<bool, StoreError> {
        let statement = Statement::new(layout::UNREGISTER)
            .bind(device.as_str())
            .bind(pass.type_id.as_str())
            .bind(pass.serial.as_str());
        Ok(only(&self.connections().fetch(statement).await?)?)
    }

    async fn changes_since(
        &self,
        device: &DeviceIdentifier,
        type_id: &TypeIdentifier,
        since: Option<UpdateTag>,
    ) -> Result<Changes, StoreError> {
        let question = ListQuestion {
            device: device.clone(),
            type_id: type_id.clone(),
            since,
        };
        Ok(self.lists().ask(question).await?)
    }

    async fn pass_state(&self, pass: &PassId) -> Result<PassState, StoreError> {
        Ok(self.states().ask(pass.clone()).await?)
    }

    async fn mark(&self, type_id: &TypeIdentifier, changed: Changed<'_>) -> Result<(), StoreError> {
        Ok(self.mark_changed(type_id, changed, false).await?)
    }

    async fn published(&self, passes: &[PassId]) -> Result<Vec<Option<Published>>, StoreError> {
        Ok(self.published_of(passes).await?)
    }

    async fn devices(
        &self,
        audience: Audience<'_>,
        after: Option<&PageCursor>,
        limit: usize,
    ) -> Result<Page<RegisteredDevice>, StoreError> {
        Ok(match audience {
            Audience::Pass(pass) => self.devices_of_pass(pass, after, limit).await?,
            Audience::Type(type_id) => self.devices_of_type(type_id, after, limit).await?,
        })
    }

    async fn count_devices(&self, pass: &PassId, at_most: u64) -> Result<u64, StoreError> {
        let statement = Statement::new(layout::COUNT_DEVICES)
            .bind(pass.type_id.as_str())
            .bind(pass.serial.as_str())
            .bind(signed(at_most));
        let rows = self.connections().fetch(statement).await?;
        let row = rows
            .first()
            .ok_or_else(|| PostgresError::unreadable("no count"))?;
        Ok(unsigned(row, 0)?)
    }

    async fn forget_device(
        &self,
        device: &DeviceIdentifier,
        unregistered_at: SystemTime,
    ) -> Result<bool, StoreError> {
        let statement = Statement::new(layout::FORGET)
            .bind(device.as_str())
            .bind(signed(clock::micros(unregistered_at)));
        Ok(only(&self.connections().fetch(statement).await?)?)
    }
}

impl PostgresStore {
    async fn devices_of_pass(
        &self,
        pass: &PassId,
        after: Option<&PageCursor>,
        limit: usize,
    ) -> Result<Page<RegisteredDevice>, PostgresError> {
        let after = after.and_then(device_position);
        let statement = Statement::new(layout::DEVICES_OF_PASS)
            .bind(pass.type_id.as_str())
            .bind(pass.serial.as_str())
            .bind(after.as_ref().map_or("", DeviceIdentifier::as_str))
            .bind(limit_of(limit));
        let rows = self.connections().fetch(statement).await?;
        let devices = rows
            .iter()
            .map(registered_device)
            .collect::<Result<_, _>>()?;
        Ok(Page::up_to(limit, devices, |last: &RegisteredDevice| {
            PageCursor::new(last.device.as_str())
        }))
    }

    async fn devices_of_type(
        &self,
        type_id: &TypeIdentifier,
        after: Option<&PageCursor>,
        limit: usize,
    ) -> Result<Page<RegisteredDevice>, PostgresError> {
        let after = after.and_then(registration_position);
        let (serial, device) = after.as_ref().map_or(("", ""), |(serial, device)| {
            (serial.as_str(), device.as_str())
        });
        let statement = Statement::new(layout::DEVICES_OF_TYPE)
            .bind(type_id.as_str())
            .bind(serial)
            .bind(device)
            .bind(limit_of(limit));
        let rows = self.connections().fetch(statement).await?;
        let devices = rows
            .iter()
            .map(registered_device)
            .collect::<Result<Vec<_>, _>>()?;
        let last = rows
            .last()
            .map(|row| column::<&str>(row, 2))
            .transpose()?
            .unwrap_or_default();
        Ok(Page::up_to(limit, devices, |device| {
            PageCursor::new(format!("{last}{SEPARATOR}{}", device.device.as_str()))
        }))
    }
}

fn registered_device(row: &PgRow) -> Result<RegisteredDevice, PostgresError> {
    Ok(RegisteredDevice {
        device: identifier(column(row, 0)?, DeviceIdentifier::new)?,
        push_token: identifier(column(row, 1)?, PushToken::new)?,
    })
}

/// Parses the cursor of a page, which is its last device. A cursor that this store did not make means the start.
pub(crate) fn device_position(cursor: &PageCursor) -> Option<DeviceIdentifier> {
    DeviceIdentifier::new(cursor.as_str()).ok()
}

/// Parses the cursor of a page of a type, which is its last registration.
fn registration_position(cursor: &PageCursor) -> Option<(SerialNumber, DeviceIdentifier)> {
    let (serial, device) = cursor.as_str().split_once(SEPARATOR)?;
    Some((
        SerialNumber::new(serial).ok()?,
        DeviceIdentifier::new(device).ok()?,
    ))
}
