//! Delivery records.

use std::time::SystemTime;

use async_trait::async_trait;
use passkit_server::{
    delivery::{DeliveryLog, Event, Record, Subject},
    store::{StoreError, clock},
};

use crate::{
    engine::{Group, ROWS, Unanswered, View},
    error::SledError,
    layout::{self, DeliveryRow},
    store::SledStore,
};

/// How many records are written in one step. Each of them changes up to three rows.
const TOGETHER: usize = ROWS / 3;

/// The maximum number of events of a subject. There are fewer.
const EVENTS: usize = 1_000;

#[async_trait]
impl DeliveryLog for SledStore {
    async fn record(&self, records: &[Record]) -> Result<(), StoreError> {
        for part in records.chunks(TOGETHER) {
            let part = part.to_vec();
            self.write(move |group| part.iter().try_for_each(|one| record(group, one)))
                .await?;
        }
        Ok(())
    }

    async fn records(&self, subjects: &[Subject]) -> Result<Vec<Vec<Record>>, StoreError> {
        let mut answers = Vec::with_capacity(subjects.len());
        for part in subjects.chunks(TOGETHER) {
            let part = part.to_vec();
            let read = self.read(move |view| {
                part.iter()
                    .map(|one| records(view, one))
                    .collect::<Result<Vec<_>, _>>()
            });
            answers.extend(read.await?);
        }
        Ok(answers)
    }

    async fn forget(&self, subjects: &[Subject]) -> Result<(), StoreError> {
        // A subject has fewer than 40 records.
        for part in subjects.chunks(TOGETHER / 40) {
            let part = part.to_vec();
            self.write(move |group| part.iter().try_for_each(|one| forget(group, one)))
                .await?;
        }
        Ok(())
    }

    async fn discard_before(&self, time: SystemTime, limit: usize) -> Result<bool, StoreError> {
        let (time, limit) = (clock::micros(time), limit.max(1));
        let oldest = self
            .read(move |view| view.scan(layout::DELIVERIES_BY_AGE, None, limit))
            .await?;
        let mut old = Vec::new();
        for (key, _) in &oldest.rows {
            let (at, record) = layout::read_delivery_at(key)?;
            if at < time {
                old.push(record);
            }
        }
        // The index is sorted by time. If its first rows are not all old, no other row is.
        let is_last = oldest.more_after.is_none() || old.len() < oldest.rows.len();
        for part in old.chunks(TOGETHER) {
            let part = part.to_vec();
            self.write(move |group| part.iter().try_for_each(|key| discard(group, key, time)))
                .await?;
        }
        Ok(is_last)
    }
}

fn record(group: &mut Group<'_>, record: &Record) -> Result<(), SledError> {
    let mut key = layout::deliveries(&record.subject);
    key.extend_from_slice(record.event.name().as_bytes());
    let before = group.get(&key)?;
    let known = before.as_deref().map(DeliveryRow::decode).transpose()?;
    let mut merged = record.clone();
    if let Some(known) = known.clone() {
        merged = with_row(&record.subject, record.event, known);
        merged.merge(record.clone());
    }
    let row = DeliveryRow {
        version: merged.version,
        count: merged.count,
        at: merged.at,
        detail: merged.detail,
    };
    let old_time = known.map(|known| known.at);
    if old_time != Some(row.at) {
        if let Some(old) = old_time {
            group.remove(layout::delivery_at(old, &key))?;
        }
        group.put(layout::delivery_at(row.at, &key), None, Some(Vec::new()));
    }
    group.put(key, before, Some(row.encode()));
    Ok(())
}

fn records(view: &View<'_>, subject: &Subject) -> Result<Vec<Record>, Unanswered> {
    let prefix = layout::deliveries(subject);
    let mut records = Vec::new();
    for (key, value) in view.scan(&prefix, None, EVENTS)?.rows {
        let event = layout::text(&key[prefix.len()..], "event")?;
        // A newer version of this program may have written other events.
        if let Some(event) = Event::of(event) {
            records.push(with_row(subject, event, DeliveryRow::decode(&value)?));
        }
    }
    Ok(records)
}

fn with_row(subject: &Subject, event: Event, row: DeliveryRow) -> Record {
    let DeliveryRow {
        version,
        count,
        at,
        detail,
    } = row;
    Record {
        subject: subject.clone(),
        event,
        version,
        count,
        at,
        detail,
    }
}

fn forget(group: &mut Group<'_>, subject: &Subject) -> Result<(), SledError> {
    for (key, value) in group.scan(&layout::deliveries(subject))? {
        remove(group, key, &DeliveryRow::decode(&value)?)?;
    }
    Ok(())
}

/// Removes the record with this key, unless it has become newer.
fn discard(group: &mut Group<'_>, key: &[u8], time: u64) -> Result<(), SledError> {
    let Some(value) = group.get(key)? else {
        return Ok(());
    };
    let row = DeliveryRow::decode(&value)?;
    if row.at < time {
        remove(group, key.to_vec(), &row)?;
    }
    Ok(())
}

fn remove(group: &mut Group<'_>, key: Vec<u8>, row: &DeliveryRow) -> Result<(), SledError> {
    group.remove(layout::delivery_at(row.at, &key))?;
    group.remove(key)
}
