//! Delivery records.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::SystemTime,
};

use async_trait::async_trait;
use passkit_server::{
    delivery::{DeliveryLog, Event, Record, Subject},
    store::{StoreError, clock},
};

use crate::{
    engine::{
        connections::Statement,
        rows::{column, limit_of, only, signed, unsigned},
    },
    error::PostgresError,
    layout,
    store::PostgresStore,
};

/// How many records or subjects go into one statement.
const AT_ONCE: usize = 2_000;

#[async_trait]
impl DeliveryLog for PostgresStore {
    async fn record(&self, records: &[Record]) -> Result<(), StoreError> {
        for part in records.chunks(AT_ONCE) {
            // The statement needs each record once and in order.
            let mut merged: BTreeMap<_, Record> = BTreeMap::new();
            for record in part {
                merged
                    .entry((record.subject.parts(), record.event.name()))
                    .and_modify(|known| known.merge(record.clone()))
                    .or_insert_with(|| record.clone());
            }
            // If the statement ran twice, the counts would be added twice.
            let statement = Statement::new(layout::RECORD)
                .bind(
                    merged
                        .keys()
                        .map(|((kind, ..), _)| *kind)
                        .collect::<Vec<_>>(),
                )
                .bind(
                    merged
                        .keys()
                        .map(|((_, type_id, _), _)| *type_id)
                        .collect::<Vec<_>>(),
                )
                .bind(
                    merged
                        .keys()
                        .map(|((.., name), _)| *name)
                        .collect::<Vec<_>>(),
                )
                .bind(merged.keys().map(|(_, event)| *event).collect::<Vec<_>>())
                .bind(
                    merged
                        .values()
                        .map(|one| signed(one.version))
                        .collect::<Vec<_>>(),
                )
                .bind(
                    merged
                        .values()
                        .map(|one| signed(one.count))
                        .collect::<Vec<_>>(),
                )
                .bind(
                    merged
                        .values()
                        .map(|one| signed(one.at))
                        .collect::<Vec<_>>(),
                )
                .bind(merged.values().map(|one| &*one.detail).collect::<Vec<_>>())
                .once();
            self.execute(statement).await?;
        }
        Ok(())
    }

    async fn records(&self, subjects: &[Subject]) -> Result<Vec<Vec<Record>>, StoreError> {
        let mut answers = Vec::with_capacity(subjects.len());
        for part in subjects.chunks(AT_ONCE) {
            let statement = with_subjects(layout::RECORDS, part.iter().map(Subject::parts));
            let rows = self.connections().fetch(statement).await?;
            let first = answers.len();
            answers.resize_with(first + part.len(), Vec::new);
            for row in &rows {
                // A newer version of this program may have written other events.
                let Some(event) = Event::of(column(row, 1)?) else {
                    continue;
                };
                let place = usize::try_from(unsigned(row, 0)?).unwrap_or_default();
                let unreadable = || PostgresError::unreadable("a record of no subject");
                let place = place.checked_sub(1).ok_or_else(unreadable)?;
                let subject = part.get(place).ok_or_else(unreadable)?;
                answers[first + place].push(Record {
                    subject: subject.clone(),
                    event,
                    version: unsigned(row, 2)?,
                    count: unsigned(row, 3)?,
                    at: unsigned(row, 4)?,
                    detail: column(row, 5)?,
                });
            }
        }
        Ok(answers)
    }

    async fn forget(&self, subjects: &[Subject]) -> Result<(), StoreError> {
        for part in subjects.chunks(AT_ONCE) {
            // The statement needs the subjects in order.
            let part: BTreeSet<_> = part.iter().map(Subject::parts).collect();
            self.execute(with_subjects(layout::FORGET_RECORDS, part.iter().copied()))
                .await?;
        }
        Ok(())
    }

    async fn discard_before(&self, time: SystemTime, limit: usize) -> Result<bool, StoreError> {
        let statement = Statement::new(layout::DISCARD_RECORDS)
            .bind(signed(clock::micros(time)))
            .bind(limit_of(limit));
        Ok(only(&self.connections().fetch(statement).await?)?)
    }
}

fn with_subjects<'a>(
    sql: &'static str,
    parts: impl Iterator<Item = (&'static str, &'a str, &'a str)> + Clone,
) -> Statement {
    Statement::new(sql)
        .bind(parts.clone().map(|(kind, ..)| kind).collect::<Vec<_>>())
        .bind(
            parts
                .clone()
                .map(|(_, type_id, _)| type_id)
                .collect::<Vec<_>>(),
        )
        .bind(parts.map(|(.., name)| name).collect::<Vec<_>>())
}
