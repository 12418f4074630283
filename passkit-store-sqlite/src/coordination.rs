use std::time::Duration;

use passkit_server::{
    async_trait,
    store::{Coordination, StoreError, clock},
};
use rusqlite::{Connection, OptionalExtension as _, params};

use crate::{SqliteStore, layout};

/// The longest claim.
const YEAR: Duration = Duration::from_secs(365 * 86_400);

/// The clock of the machine decides when a claim ends. All processes of the machine share it.
#[async_trait]
impl Coordination for SqliteStore {
    async fn claim(&self, name: &str, owner: &str, time: Duration) -> Result<bool, StoreError> {
        let (name, owner) = (name.to_owned(), owner.to_owned());
        self.engine
            .write(move |connection| claim(connection, &name, &owner, time))
            .await
    }

    async fn release(&self, name: &str, owner: &str) -> Result<(), StoreError> {
        let (name, owner) = (name.to_owned(), owner.to_owned());
        self.engine
            .write(move |connection| {
                connection
                    .prepare_cached(layout::RELEASE)?
                    .execute([&name, &owner])
                    .map(drop)
            })
            .await
    }

    async fn note(&self, name: &str) -> Result<Option<String>, StoreError> {
        let name = name.to_owned();
        self.engine
            .read(move |connection| note(connection, &name))
            .await
    }

    async fn replace_note(
        &self,
        name: &str,
        expected: Option<&str>,
        new: Option<&str>,
    ) -> Result<bool, StoreError> {
        let (name, expected, new) = (
            name.to_owned(),
            expected.map(str::to_owned),
            new.map(str::to_owned),
        );
        self.engine
            .write(move |connection| {
                replace_note(connection, &name, expected.as_deref(), new.as_deref())
            })
            .await
    }
}

fn claim(
    connection: &Connection,
    name: &str,
    owner: &str,
    time: Duration,
) -> rusqlite::Result<bool> {
    let now = clock::now_micros();
    let until = now.saturating_add(u64::try_from(time.min(YEAR).as_micros()).unwrap_or(u64::MAX));
    connection
        .prepare_cached(layout::END_CLAIMS)?
        .execute([layout::integer(now)])?;
    let mut claim = connection.prepare_cached(layout::CLAIM)?;
    Ok(claim.execute(params![name, owner, layout::integer(until)])? > 0)
}

fn note(connection: &Connection, name: &str) -> rusqlite::Result<Option<String>> {
    connection
        .prepare_cached(layout::NOTE)?
        .query_row([name], |row| row.get(0))
        .optional()
}

fn replace_note(
    connection: &Connection,
    name: &str,
    expected: Option<&str>,
    new: Option<&str>,
) -> rusqlite::Result<bool> {
    let changed = match (expected, new) {
        (None, None) => return Ok(note(connection, name)?.is_none()),
        (None, Some(new)) => connection
            .prepare_cached(layout::ADD_NOTE)?
            .execute([name, new])?,
        (Some(expected), Some(new)) => connection
            .prepare_cached(layout::REPLACE_NOTE)?
            .execute([name, expected, new])?,
        (Some(expected), None) => connection
            .prepare_cached(layout::REMOVE_NOTE)?
            .execute([name, expected])?,
    };
    Ok(changed > 0)
}
