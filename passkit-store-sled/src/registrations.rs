//! Registers, unregisters and forgets devices, and reads the devices of a pass or of a type.

use passkit_server::{
    PassId,
    identifiers::{DeviceIdentifier, PushToken, SerialNumber},
    store::{
        Audience, Page, PageCursor, Registered, RegisteredDevice,
        clock::{self, next_version},
    },
};
use sled::IVec;

use crate::{
    engine::{Group, Unanswered, View},
    error::SledError,
    layout::{self, DeviceRow, FEW_BYTES, Few, Registrations},
};

pub(crate) fn register(
    group: &mut Group<'_>,
    device: &DeviceIdentifier,
    pass: &PassId,
    push_token: &PushToken,
) -> Result<Registered, SledError> {
    let device_key = layout::device(device);
    let device_before = group.get(&device_key)?;
    let row = device_before
        .as_deref()
        .map(DeviceRow::decode)
        .transpose()?;
    let version = next_version(row.map_or(0, |row| row.version), clock::now_micros());

    let mut few = Vec::new();
    let before = row.map_or(Registrations::Few(Few::default()), |row| row.registrations);
    let (registrations, existed) = match before {
        Registrations::Few(now) => {
            let (others, existed) = now.without(pass)?;
            few = others;
            Few::add(&mut few, pass, version);
            if few.len() <= FEW_BYTES {
                (Registrations::Few(Few::new(&few)), existed)
            } else {
                (
                    Registrations::Many(spread(group, device, Few::new(&few))?),
                    existed,
                )
            }
        }
        Registrations::Many(count) => {
            let key = layout::registration(device, pass);
            let before = group.get(&key)?;
            let existed = before.is_some();
            group.put(key, before, Some(layout::encode_registration(version)));
            (
                Registrations::Many(count.saturating_add(u32::from(!existed))),
                existed,
            )
        }
    };
    let after = DeviceRow {
        version,
        push_token: push_token.as_str().as_bytes(),
        registrations,
    }
    .encode();
    drop(few);
    group.put(device_key, device_before, Some(after));
    if existed {
        return Ok(Registered::Existing);
    }
    group.put(layout::device_of(pass, device), None, Some(Vec::new()));
    Ok(Registered::Created)
}

/// Gives each registration of the device its own row. Returns the number of registrations.
fn spread(
    group: &mut Group<'_>,
    device: &DeviceIdentifier,
    few: Few<'_>,
) -> Result<u32, SledError> {
    let prefix = layout::registrations(device);
    let mut count = 0;
    for one in few.iter() {
        let (type_id, serial, version) = one?;
        let key = [&prefix[..], type_id, &[0], serial].concat();
        group.put(key, None, Some(layout::encode_registration(version)));
        count += 1;
    }
    Ok(count)
}

pub(crate) fn unregister(
    group: &mut Group<'_>,
    device: &DeviceIdentifier,
    pass: &PassId,
) -> Result<bool, SledError> {
    let device_key = layout::device(device);
    let Some(device_before) = group.get(&device_key)? else {
        return Ok(false);
    };
    let row = DeviceRow::decode(&device_before)?;
    let few;
    let (registrations, is_last) = match row.registrations {
        Registrations::Few(now) => {
            let (others, existed) = now.without(pass)?;
            if !existed {
                return Ok(false);
            }
            few = others;
            (Registrations::Few(Few::new(&few)), few.is_empty())
        }
        Registrations::Many(count) => {
            let key = layout::registration(device, pass);
            let Some(before) = group.get(&key)? else {
                return Ok(false);
            };
            group.put(key, Some(before), None);
            (Registrations::Many(count.saturating_sub(1)), count <= 1)
        }
    };
    let after = (!is_last).then(|| {
        DeviceRow {
            registrations,
            ..row
        }
        .encode()
    });
    group.put(device_key, Some(device_before.clone()), after);
    group.put(layout::device_of(pass, device), Some(IVec::default()), None);
    Ok(true)
}

/// `unregistered_at` is in microseconds since the Unix epoch.
pub(crate) fn forget(
    group: &mut Group<'_>,
    device: &DeviceIdentifier,
    unregistered_at: u64,
) -> Result<bool, SledError> {
    let device_key = layout::device(device);
    let Some(device_before) = group.get(&device_key)? else {
        return Ok(false);
    };
    let row = DeviceRow::decode(&device_before)?;
    if row.version > unregistered_at {
        return Ok(false);
    }
    let mut passes = Vec::new();
    match row.registrations {
        Registrations::Few(few) => {
            for one in few.iter() {
                let (type_id, serial, _) = one?;
                passes.push(PassId {
                    type_id: layout::read_type(type_id)?,
                    serial: layout::read_serial(serial)?,
                });
            }
        }
        Registrations::Many(_) => {
            let prefix = layout::registrations(device);
            for (key, before) in group.scan(&prefix)? {
                passes.push(layout::read_pass(&key[prefix.len()..])?);
                group.put(key, Some(before.into()), None);
            }
        }
    }
    group.put(device_key, Some(device_before.clone()), None);
    for pass in passes {
        group.put(
            layout::device_of(&pass, device),
            Some(IVec::default()),
            None,
        );
    }
    Ok(true)
}

/// Where a page starts in the index of registrations: the prefix of its keys, and the key after which the page starts. The
/// first page starts after no key.
#[derive(Debug)]
pub(crate) struct Range {
    prefix: Vec<u8>,
    after: Option<Vec<u8>>,
}

impl Range {
    /// A cursor is the part of a registration's key after the prefix, with line feeds in place of NULs. No identifier
    /// contains a line feed or a NUL.
    pub(crate) fn new(audience: Audience<'_>, after: Option<&PageCursor>) -> Self {
        let after = after.map(PageCursor::as_str);
        let device = |text| DeviceIdentifier::new(text).ok();
        match audience {
            Audience::Pass(pass) => Self {
                prefix: layout::devices_of(pass),
                after: after
                    .and_then(device)
                    .map(|device| layout::device_of(pass, &device)),
            },
            Audience::Type(type_id) => {
                let after = after.and_then(|text| {
                    let (serial, text) = text.split_once('\n')?;
                    let pass = PassId {
                        type_id: type_id.clone(),
                        serial: SerialNumber::new(serial).ok()?,
                    };
                    Some(layout::device_of(&pass, &device(text)?))
                });
                Self {
                    prefix: layout::devices_of_type(type_id),
                    after,
                }
            }
        }
    }

    fn cursor(&self, key: &[u8]) -> Result<PageCursor, SledError> {
        let rest = layout::text(&key[self.prefix.len()..], "registration")?;
        Ok(PageCursor::new(rest.replace('\0', "\n")))
    }
}

/// Each page starts after the last registration of the previous page. The order of registrations never changes, so the pages
/// miss no registration that exists the whole time.
pub(crate) fn devices(
    view: &View<'_>,
    range: &Range,
    limit: usize,
) -> Result<Page<RegisteredDevice>, Unanswered> {
    let found = view.scan(&range.prefix, range.after.as_deref(), limit.max(1))?;
    let mut items = Vec::with_capacity(found.rows.len());
    for (key, _) in &found.rows {
        let device = layout::read_last_device(key)?;
        // The device may have been removed since the scan.
        if let Some(row) = view.get(&layout::device(&device))? {
            items.push(RegisteredDevice {
                push_token: DeviceRow::decode(&row)?.push_token()?,
                device,
            });
        }
    }
    Ok(Page {
        items,
        next: found.more_after.map(|key| range.cursor(&key)).transpose()?,
    })
}
