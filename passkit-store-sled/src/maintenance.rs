//! Writes, reads and counts registrations in bulk, and forgets passes.

use async_trait::async_trait;
use passkit_server::{
    PassId,
    identifiers::DeviceIdentifier,
    maintenance::{Registration, StoreMaintenance, StoreStats, TypeStats},
    store::{Page, PageCursor, Registered, StoreError},
};

use crate::{
    changes,
    engine::{ROWS, Unanswered, View},
    layout::{self, DeviceRow, Registrations},
    queue, registrations,
    store::SledStore,
};

/// How many registrations are made in one step. Each of them changes two rows.
const TOGETHER: usize = ROWS / 2;

/// How many rows are read at a time. Between two such reads, other readers have their turn.
const AT_ONCE: usize = 4_096;

#[async_trait]
impl StoreMaintenance for SledStore {
    /// Makes about 500 registrations in one step.
    async fn register_many(&self, registrations: &[Registration]) -> Result<u64, StoreError> {
        let mut created = 0;
        for part in registrations.chunks(TOGETHER) {
            let part = part.to_vec();
            created += self
                .write(move |group| {
                    let mut created = 0;
                    for Registration {
                        device,
                        push_token,
                        pass,
                    } in &part
                    {
                        let registered = registrations::register(group, device, pass, push_token)?;
                        created += u64::from(registered == Registered::Created);
                    }
                    Ok(created)
                })
                .await?;
        }
        Ok(created)
    }

    /// The pages are ordered by device. A page has all registrations of its last device.
    async fn registrations(
        &self,
        after: Option<&PageCursor>,
        limit: usize,
    ) -> Result<Page<Registration>, StoreError> {
        let after = after.and_then(|cursor| DeviceIdentifier::new(cursor.as_str()).ok());
        let after = after.map(|device| layout::device(&device));
        self.read(move |view| page(view, after.as_deref(), limit.max(1)))
            .await
    }

    async fn published_passes(
        &self,
        after: Option<&PageCursor>,
        limit: usize,
    ) -> Result<Page<PassId>, StoreError> {
        let after = after.and_then(|cursor| {
            let (type_id, serial) = cursor.as_str().split_once('\n')?;
            let pass = PassId::new(type_id, serial).ok()?;
            Some(layout::published(&pass.type_id, &pass.serial))
        });
        self.read(move |view| published_passes(view, after.as_deref(), limit.max(1)))
            .await
    }

    async fn forget_pass(&self, pass: &PassId) -> Result<bool, StoreError> {
        let pass = pass.clone();
        self.write(move |group| {
            let forgotten = changes::forget_pass(group, &pass)?;
            if forgotten {
                queue::forget_pass(group, &pass)?;
            }
            Ok(forgotten)
        })
        .await
    }

    /// Reads all registrations, and the sizes of the files.
    async fn stats(&self) -> Result<StoreStats, StoreError> {
        let devices = self.count(layout::DEVICES.to_vec(), u64::MAX).await?;
        let mut stats = StoreStats {
            devices,
            ..StoreStats::default()
        };
        let (mut last, mut after) = (None, None);
        loop {
            let counted = self
                .read(move |view| passes(view, after.as_deref()))
                .await?;
            for (pass, registrations) in counted.passes {
                let is_new = last.as_ref() != Some(&pass);
                match stats.types.last_mut() {
                    Some(of_type) if of_type.type_id == pass.type_id => {
                        of_type.passes += u64::from(is_new);
                        of_type.registrations += registrations;
                    }
                    _ => {
                        let type_id = pass.type_id.clone();
                        stats.types.push(TypeStats {
                            type_id,
                            passes: 1,
                            registrations,
                        });
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

fn page(
    view: &View<'_>,
    after: Option<&[u8]>,
    limit: usize,
) -> Result<Page<Registration>, Unanswered> {
    let mut items = Vec::new();
    let rows = view.scan(layout::DEVICES, after, limit.min(AT_ONCE))?;
    let mut next = rows.more_after;
    let count = rows.rows.len();
    for (n, (key, value)) in rows.rows.into_iter().enumerate() {
        let device = layout::read_device(&key[layout::DEVICES.len()..])?;
        let row = DeviceRow::decode(&value)?;
        let push_token = row.push_token()?;
        let of = |pass| Registration {
            device: device.clone(),
            push_token: push_token.clone(),
            pass,
        };
        match row.registrations {
            Registrations::Few(few) => {
                for one in few.iter() {
                    let (type_id, serial, _) = one?;
                    let (type_id, serial) =
                        (layout::read_type(type_id)?, layout::read_serial(serial)?);
                    items.push(of(PassId { type_id, serial }));
                }
            }
            Registrations::Many(_) => {
                let prefix = layout::registrations(&device);
                for (key, _) in view.scan(&prefix, None, usize::MAX)?.rows {
                    items.push(of(layout::read_pass(&key[prefix.len()..])?));
                }
            }
        }
        if items.len() >= limit && n + 1 < count {
            next = Some(key);
            break;
        }
    }
    let next = next
        .map(|key| layout::read_device(&key[layout::DEVICES.len()..]))
        .transpose()?;
    Ok(Page {
        items,
        next: next.map(|device| PageCursor::new(device.as_str())),
    })
}

fn published_passes(
    view: &View<'_>,
    after: Option<&[u8]>,
    limit: usize,
) -> Result<Page<PassId>, Unanswered> {
    let rows = view.scan(layout::PUBLISHED, after, limit.min(AT_ONCE))?;
    let passes = rows
        .rows
        .iter()
        .map(|(key, _)| Ok(layout::read_pass(&key[layout::PUBLISHED.len()..])?));
    let items = passes.collect::<Result<Vec<_>, Unanswered>>()?;
    let last = rows.more_after.and(items.last());
    let next = last.map(|last| PageCursor::new(format!("{}\n{}", last.type_id, last.serial)));
    Ok(Page { items, next })
}

/// Some passes, ordered by key. Each has the number of its registrations among the rows that were read.
struct Counted {
    passes: Vec<(PassId, u64)>,
    /// The last key that was read. `None` if there are no more keys.
    next: Option<Vec<u8>>,
}

fn passes(view: &View<'_>, after: Option<&[u8]>) -> Result<Counted, Unanswered> {
    let rows = view.scan(layout::DEVICES_OF, after, AT_ONCE)?;
    let mut counts: Vec<(_, u64)> = Vec::new();
    for (key, _) in &rows.rows {
        let pass = layout::read_registration(&key[layout::DEVICES_OF.len()..])?;
        match counts.last_mut() {
            Some((last, count)) if *last == pass => *count += 1,
            _ => counts.push((pass, 1)),
        }
    }
    let read = |((type_id, serial), count): ((&[u8], &[u8]), u64)| {
        Ok((
            PassId {
                type_id: layout::read_type(type_id)?,
                serial: layout::read_serial(serial)?,
            },
            count,
        ))
    };
    let passes = counts
        .into_iter()
        .map(read)
        .collect::<Result<_, Unanswered>>()?;
    Ok(Counted {
        passes,
        next: rows.more_after.map(|key| key.to_vec()),
    })
}
