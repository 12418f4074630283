//! Registrations in and out in bulk, and counting them.

use async_trait::async_trait;
use passkit_server::{
    DeviceIdentifier, PageCursor, PassId, Registration, RegistrationPage, StoreError, StoreMaintenance,
    StoreStats, TypeStats,
};

use crate::{
    error::Failure,
    group::{Operation, ROWS},
    keys::{self, DeviceRow, Held},
    settled::View,
    store::SledStore,
};

/// How many registrations become durable together: each changes two rows.
const TOGETHER: usize = ROWS / 2;

/// How many rows are read at a time, so that other readers have their turn.
const AT_ONCE: usize = 4_096;

#[async_trait]
impl StoreMaintenance for SledStore {
    /// Makes them some 500 at a time.
    async fn register_many(&self, registrations: &[Registration]) -> Result<u64, StoreError> {
        let mut created = 0;
        for part in registrations.chunks(TOGETHER) {
            let registrations = part.to_vec();
            created += self.write(|answer| Operation::RegisterMany { registrations, answer }).await?;
        }
        Ok(created)
    }

    /// In the order of the devices; a page has all that its last device is registered for.
    async fn registrations(
        &self,
        after: Option<&PageCursor>,
        limit: usize,
    ) -> Result<RegistrationPage, StoreError> {
        let after = after.and_then(|cursor| DeviceIdentifier::new(cursor.as_str()).ok());
        let after = after.map(|device| keys::device(&device));
        self.read(move |view| page(view, after.as_deref(), limit.max(1))).await
    }

    /// Reads all registrations, and the sizes of the files; it does not count what is in no file yet.
    async fn stats(&self) -> Result<StoreStats, StoreError> {
        let mut stats = StoreStats::default();
        let mut after = None;
        loop {
            let (devices, next) = self.read(move |view| devices(view, after.as_deref())).await?;
            stats.devices += devices;
            after = next;
            if after.is_none() {
                break;
            }
        }
        let mut last = None;
        loop {
            let counted = self.read(move |view| passes(view, after.as_deref())).await?;
            for (pass, registrations) in counted.passes {
                let is_new = last.as_ref() != Some(&pass);
                match stats.types.last_mut() {
                    Some(of_type) if of_type.type_id == pass.type_id => {
                        of_type.passes += u64::from(is_new);
                        of_type.registrations += registrations;
                    }
                    _ => {
                        let type_id = pass.type_id.clone();
                        stats.types.push(TypeStats { type_id, passes: 1, registrations });
                    }
                }
                last = Some(pass);
            }
            after = counted.next;
            if after.is_none() {
                break;
            }
        }
        stats.storage_bytes = Some(self.read(|view| view.bytes_on_disk()).await?);
        Ok(stats)
    }
}

fn page(view: &View<'_>, after: Option<&[u8]>, limit: usize) -> Result<RegistrationPage, Failure> {
    let mut page = RegistrationPage::default();
    let rows = view.scan(keys::DEVICES, after, limit.min(AT_ONCE))?;
    let mut next = rows.more_after;
    let count = rows.rows.len();
    for (n, (key, value)) in rows.rows.into_iter().enumerate() {
        let device = keys::read_device(&key[keys::DEVICES.len()..])?;
        let row = DeviceRow::decode(&value)?;
        let push_token = row.push_token()?;
        let of = |pass| Registration { device: device.clone(), push_token: push_token.clone(), pass };
        match row.held {
            Held::Few(few) => {
                for one in few.iter() {
                    let (type_id, serial, _) = one?;
                    let (type_id, serial) = (keys::read_type(type_id)?, keys::read_serial(serial)?);
                    page.registrations.push(of(PassId { type_id, serial }));
                }
            }
            Held::Many(_) => {
                let prefix = keys::registrations(&device);
                for (key, _) in view.scan(&prefix, None, usize::MAX)?.rows {
                    page.registrations.push(of(keys::read_pass(&key[prefix.len()..])?));
                }
            }
        }
        if page.registrations.len() >= limit && n + 1 < count {
            next = Some(key);
            break;
        }
    }
    let next = next.map(|key| keys::read_device(&key[keys::DEVICES.len()..])).transpose()?;
    page.next = next.map(|device| PageCursor::new(device.as_str()));
    Ok(page)
}

/// The last key that was read, unless it was the last of all.
type Next = Option<Vec<u8>>;

fn devices(view: &View<'_>, after: Option<&[u8]>) -> Result<(u64, Next), Failure> {
    let rows = view.scan(keys::DEVICES, after, AT_ONCE)?;
    Ok((rows.rows.len() as u64, rows.more_after.map(|key| key.to_vec())))
}

/// Passes in the order of their keys, each with how many registrations were read of it.
struct Counted {
    passes: Vec<(PassId, u64)>,
    next: Next,
}

fn passes(view: &View<'_>, after: Option<&[u8]>) -> Result<Counted, Failure> {
    let rows = view.scan(keys::DEVICES_OF, after, AT_ONCE)?;
    let mut counts: Vec<(_, u64)> = Vec::new();
    for (key, _) in &rows.rows {
        let pass = keys::read_device_of(&key[keys::DEVICES_OF.len()..])?;
        match counts.last_mut() {
            Some((last, count)) if *last == pass => *count += 1,
            _ => counts.push((pass, 1)),
        }
    }
    let read = |((type_id, serial), count): ((&[u8], &[u8]), u64)| {
        Ok((PassId { type_id: keys::read_type(type_id)?, serial: keys::read_serial(serial)? }, count))
    };
    let passes = counts.into_iter().map(read).collect::<Result<_, Failure>>()?;
    Ok(Counted { passes, next: rows.more_after.map(|key| key.to_vec()) })
}
