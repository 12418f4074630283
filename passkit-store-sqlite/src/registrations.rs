use passkit_server::{
    PassId,
    identifiers::{DeviceIdentifier, PushToken, SerialNumber, TypeIdentifier},
    store::{Page, PageCursor, Registered, RegisteredDevice, clock},
};
use rusqlite::{Connection, params};

use crate::layout::{self, identifier, integer, number, rows};

pub(crate) fn register(
    connection: &Connection,
    device: &DeviceIdentifier,
    pass: &PassId,
    push_token: &PushToken,
) -> rusqlite::Result<Registered> {
    let (device, type_id, serial) = (device.as_str(), pass.type_id.as_str(), pass.serial.as_str());
    let version: i64 = connection
        .prepare_cached(layout::REGISTER_DEVICE)?
        .query_row(
            params![device, push_token.as_str(), integer(clock::now_micros())],
            |row| row.get(0),
        )?;
    let registration = params![device, type_id, serial, version];
    if connection
        .prepare_cached(layout::REGISTER)?
        .execute(registration)?
        > 0
    {
        return Ok(Registered::Created);
    }
    connection
        .prepare_cached(layout::REGISTER_AGAIN)?
        .execute(registration)?;
    Ok(Registered::Existing)
}

pub(crate) fn unregister(
    connection: &Connection,
    device: &DeviceIdentifier,
    pass: &PassId,
) -> rusqlite::Result<bool> {
    let registration = params![device.as_str(), pass.type_id.as_str(), pass.serial.as_str()];
    if connection
        .prepare_cached(layout::UNREGISTER)?
        .execute(registration)?
        == 0
    {
        return Ok(false);
    }
    connection
        .prepare_cached(layout::REMOVE_DEVICE_WITHOUT_PASSES)?
        .execute([device.as_str()])?;
    Ok(true)
}

pub(crate) fn forget_device(
    connection: &Connection,
    device: &DeviceIdentifier,
    unregistered_at: u64,
) -> rusqlite::Result<bool> {
    let mut forget = connection.prepare_cached(layout::FORGET_DEVICE)?;
    if forget.execute(params![device.as_str(), integer(unregistered_at)])? == 0 {
        return Ok(false);
    }
    connection
        .prepare_cached(layout::FORGET_REGISTRATIONS)?
        .execute([device.as_str()])?;
    Ok(true)
}

pub(crate) fn devices_of_pass(
    connection: &Connection,
    pass: &PassId,
    after: Option<&PageCursor>,
    limit: usize,
) -> rusqlite::Result<Page<RegisteredDevice>> {
    let after = after.and_then(device_position);
    let after = after.as_ref().map_or("", DeviceIdentifier::as_str);
    let devices = connection
        .prepare_cached(layout::DEVICES_OF_PASS)?
        .query_map(
            params![
                pass.type_id.as_str(),
                pass.serial.as_str(),
                after,
                rows(limit)
            ],
            |row| {
                Ok(RegisteredDevice {
                    device: identifier(row, 0)?,
                    push_token: identifier(row, 1)?,
                })
            },
        )?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    Ok(Page::up_to(limit, devices, |last| {
        PageCursor::new(last.device.as_str())
    }))
}

/// The cursor contains the serial number of the last row. The items of the page don't have it.
pub(crate) fn devices_of_type(
    connection: &Connection,
    type_id: &TypeIdentifier,
    after: Option<&PageCursor>,
    limit: usize,
) -> rusqlite::Result<Page<RegisteredDevice>> {
    let after = after.and_then(registration_position);
    let (serial, device) = after.as_ref().map_or(("", ""), |(serial, device)| {
        (serial.as_str(), device.as_str())
    });
    let registrations = connection
        .prepare_cached(layout::DEVICES_OF_TYPE)?
        .query_map(
            params![type_id.as_str(), serial, device, rows(limit)],
            |row| {
                let device = RegisteredDevice {
                    device: identifier(row, 0)?,
                    push_token: identifier(row, 1)?,
                };
                Ok((device, identifier::<SerialNumber>(row, 2)?))
            },
        )?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    let page = Page::up_to(limit, registrations, |(last, serial)| {
        PageCursor::new(format!("{serial}\n{}", last.device.as_str()))
    });
    Ok(Page {
        items: page.items.into_iter().map(|(device, _)| device).collect(),
        next: page.next,
    })
}

pub(crate) fn count_devices(
    connection: &Connection,
    pass: &PassId,
    at_most: u64,
) -> rusqlite::Result<u64> {
    connection.prepare_cached(layout::COUNT_DEVICES)?.query_row(
        params![
            pass.type_id.as_str(),
            pass.serial.as_str(),
            integer(at_most)
        ],
        |row| number(row, 0),
    )
}

/// Parses the cursor of a page, which is its last device. An unknown cursor means the start.
pub(crate) fn device_position(cursor: &PageCursor) -> Option<DeviceIdentifier> {
    DeviceIdentifier::new(cursor.as_str()).ok()
}

/// Parses the cursor of a page of a type's devices. The cursor is the last registration on the
/// page.
fn registration_position(cursor: &PageCursor) -> Option<(SerialNumber, DeviceIdentifier)> {
    let (serial, device) = cursor.as_str().split_once('\n')?;
    Some((
        SerialNumber::new(serial).ok()?,
        DeviceIdentifier::new(device).ok()?,
    ))
}
