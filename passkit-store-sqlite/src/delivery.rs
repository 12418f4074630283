use std::time::SystemTime;

use passkit_server::{
    async_trait,
    delivery::{DeliveryLog, Event, Record, Subject},
    store::{StoreError, clock},
};
use rusqlite::{Connection, params};

use crate::{
    SqliteStore,
    layout::{self, integer, number, rows},
};

/// How many records commit together. Other changes wait for such a commit.
const STEP: usize = 500;

#[async_trait]
impl DeliveryLog for SqliteStore {
    async fn record(&self, records: &[Record]) -> Result<(), StoreError> {
        for step in records.chunks(STEP) {
            let step = step.to_vec();
            self.engine
                .write(move |connection| record(connection, &step))
                .await?;
        }
        Ok(())
    }

    async fn records(&self, subjects: &[Subject]) -> Result<Vec<Vec<Record>>, StoreError> {
        let subjects = subjects.to_vec();
        self.engine
            .read(move |connection| {
                let of = |subject| records(connection, subject);
                subjects.iter().map(of).collect()
            })
            .await
    }

    async fn forget(&self, subjects: &[Subject]) -> Result<(), StoreError> {
        let subjects = subjects.to_vec();
        self.engine
            .write(move |connection| {
                let mut forget = connection.prepare_cached(layout::FORGET_RECORDS)?;
                for subject in &subjects {
                    forget.execute(subject.parts())?;
                }
                Ok(())
            })
            .await
    }

    async fn discard_before(&self, time: SystemTime, limit: usize) -> Result<bool, StoreError> {
        let (time, limit) = (integer(clock::micros(time)), rows(limit));
        let discarded = self
            .engine
            .write(move |connection| {
                connection
                    .prepare_cached(layout::DISCARD_RECORDS)?
                    .execute([time, limit])
            })
            .await?;
        Ok(i64::try_from(discarded).is_ok_and(|discarded| discarded < limit))
    }
}

fn record(connection: &Connection, records: &[Record]) -> rusqlite::Result<()> {
    let mut merge = connection.prepare_cached(layout::RECORD)?;
    for record in records {
        let (kind, type_id, name) = record.subject.parts();
        merge.execute(params![
            kind,
            type_id,
            name,
            record.event.name(),
            integer(record.version),
            integer(record.count),
            integer(record.at),
            record.detail,
        ])?;
    }
    Ok(())
}

fn records(connection: &Connection, subject: &Subject) -> rusqlite::Result<Vec<Record>> {
    let mut statement = connection.prepare_cached(layout::RECORDS)?;
    let mut rows = statement.query(subject.parts())?;
    let mut records = Vec::new();
    while let Some(row) = rows.next()? {
        // A newer version of this program may have written other events.
        let Some(event) = Event::of(row.get_ref(0)?.as_str()?) else {
            continue;
        };
        records.push(Record {
            subject: subject.clone(),
            event,
            version: number(row, 1)?,
            count: number(row, 2)?,
            at: number(row, 3)?,
            detail: row.get(4)?,
        });
    }
    Ok(records)
}
