use passkit_server::{
    PassId, async_trait,
    identifiers::DeviceIdentifier,
    maintenance::{Registration, StoreMaintenance, StoreStats, TypeStats},
    store::{Page, PageCursor, Registered, StoreError, clock},
};
use rusqlite::{Connection, params};

use crate::{
    SqliteStore,
    layout::{self, identifier, integer, number, rows},
    registrations,
};

/// How many registrations of an import commit together. Other changes wait for such a commit.
const STEP: usize = 500;

#[async_trait]
impl StoreMaintenance for SqliteStore {
    async fn register_many(&self, registrations: &[Registration]) -> Result<u64, StoreError> {
        let mut created = 0;
        for step in registrations.chunks(STEP) {
            let step = step.to_vec();
            created += self
                .engine
                .write(move |connection| register_many(connection, &step))
                .await?;
        }
        Ok(created)
    }

    async fn registrations(
        &self,
        after: Option<&PageCursor>,
        limit: usize,
    ) -> Result<Page<Registration>, StoreError> {
        let after = after.cloned();
        self.engine
            .scan(move |connection| registrations(connection, after.as_ref(), limit))
            .await
    }

    async fn published_passes(
        &self,
        after: Option<&PageCursor>,
        limit: usize,
    ) -> Result<Page<PassId>, StoreError> {
        let after = after.cloned();
        self.engine
            .scan(move |connection| published_passes(connection, after.as_ref(), limit))
            .await
    }

    async fn forget_pass(&self, pass: &PassId) -> Result<bool, StoreError> {
        let pass = pass.clone();
        self.engine
            .write(move |connection| forget_pass(connection, &pass))
            .await
    }

    async fn stats(&self) -> Result<StoreStats, StoreError> {
        self.engine.scan(stats).await
    }
}

fn forget_pass(connection: &Connection, pass: &PassId) -> rusqlite::Result<bool> {
    let (type_id, serial) = (pass.type_id.as_str(), pass.serial.as_str());
    let seconds = integer(clock::now_micros() / 1_000_000);
    connection
        .prepare_cached(layout::FORGET_PASS)?
        .execute(params![type_id, serial, seconds])?;
    let remains: bool = connection
        .prepare_cached(layout::HAS_PASS)?
        .query_row(params![type_id, serial], |row| row.get(0))?;
    if remains {
        return Ok(false);
    }
    for statement in [
        layout::FORGET_PUBLISHED,
        layout::FORGET_PENDING,
        layout::FORGET_ARCHIVES,
    ] {
        connection
            .prepare_cached(statement)?
            .execute(params![type_id, serial])?;
    }
    Ok(true)
}

fn register_many(connection: &Connection, registrations: &[Registration]) -> rusqlite::Result<u64> {
    let mut created = 0;
    for Registration {
        device,
        push_token,
        pass,
    } in registrations
    {
        let registered = registrations::register(connection, device, pass, push_token)?;
        created += u64::from(registered == Registered::Created);
    }
    Ok(created)
}

fn registrations(
    connection: &Connection,
    after: Option<&PageCursor>,
    limit: usize,
) -> rusqlite::Result<Page<Registration>> {
    let after = after.and_then(position);
    let (device, type_id, serial) = after.as_ref().map_or(("", "", ""), |(device, pass)| {
        (device.as_str(), pass.type_id.as_str(), pass.serial.as_str())
    });
    let registrations = connection
        .prepare_cached(layout::REGISTRATIONS)?
        .query_map(params![device, type_id, serial, rows(limit)], |row| {
            let pass = PassId {
                type_id: identifier(row, 2)?,
                serial: identifier(row, 3)?,
            };
            Ok(Registration {
                device: identifier(row, 0)?,
                push_token: identifier(row, 1)?,
                pass,
            })
        })?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    Ok(Page::up_to(
        limit,
        registrations,
        |Registration { device, pass, .. }| {
            PageCursor::new(format!(
                "{}\n{}\n{}",
                device.as_str(),
                pass.type_id,
                pass.serial
            ))
        },
    ))
}

fn position(cursor: &PageCursor) -> Option<(DeviceIdentifier, PassId)> {
    let (device, pass) = cursor.as_str().split_once('\n')?;
    Some((DeviceIdentifier::new(device).ok()?, pass_position(pass)?))
}

fn published_passes(
    connection: &Connection,
    after: Option<&PageCursor>,
    limit: usize,
) -> rusqlite::Result<Page<PassId>> {
    let after = after.and_then(|cursor| pass_position(cursor.as_str()));
    let (type_id, serial) = after.as_ref().map_or(("", ""), |pass| {
        (pass.type_id.as_str(), pass.serial.as_str())
    });
    let passes = connection
        .prepare_cached(layout::PUBLISHED_PASSES)?
        .query_map(params![type_id, serial, rows(limit)], |row| {
            Ok(PassId {
                type_id: identifier(row, 0)?,
                serial: identifier(row, 1)?,
            })
        })?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    Ok(Page::up_to(limit, passes, |last| {
        PageCursor::new(format!("{}\n{}", last.type_id, last.serial))
    }))
}

fn pass_position(text: &str) -> Option<PassId> {
    let (type_id, serial) = text.split_once('\n')?;
    PassId::new(type_id, serial).ok()
}

fn stats(connection: &Connection) -> rusqlite::Result<StoreStats> {
    // One snapshot for both statements.
    let snapshot = connection.unchecked_transaction()?;
    let mut types: Vec<TypeStats> = Vec::new();
    let mut statement = snapshot.prepare_cached(layout::PASS_STATS)?;
    let mut passes = statement.query([])?;
    while let Some(row) = passes.next()? {
        let registrations = number(row, 1)?;
        match types.last_mut() {
            Some(last) if row.get_ref(0)?.as_str()? == last.type_id.as_str() => {
                last.passes += 1;
                last.registrations += registrations;
            }
            _ => types.push(TypeStats {
                type_id: identifier(row, 0)?,
                passes: 1,
                registrations,
            }),
        }
    }
    snapshot
        .prepare_cached(layout::STORE_STATS)?
        .query_row([], |row| {
            Ok(StoreStats {
                devices: number(row, 0)?,
                types,
                storage_bytes: Some(number(row, 1)?),
            })
        })
}
