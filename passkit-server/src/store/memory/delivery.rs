use std::{
    collections::{BTreeMap, HashMap},
    time::SystemTime,
};

use async_trait::async_trait;

use super::MemoryStore;
use crate::{
    delivery::{DeliveryLog, Event, Record, Subject},
    store::{StoreError, clock},
};

/// The delivery records of each subject.
#[derive(Clone, Debug, Default)]
pub(super) struct Records(HashMap<Subject, BTreeMap<Event, Record>>);

#[async_trait]
impl DeliveryLog for MemoryStore {
    async fn record(&self, records: &[Record]) -> Result<(), StoreError> {
        let mut tables = self.tables_mut();
        for record in records {
            let of_subject = tables.delivery.0.entry(record.subject.clone()).or_default();
            match of_subject.get_mut(&record.event) {
                Some(known) => known.merge(record.clone()),
                None => _ = of_subject.insert(record.event, record.clone()),
            }
        }
        Ok(())
    }

    async fn records(&self, subjects: &[Subject]) -> Result<Vec<Vec<Record>>, StoreError> {
        let tables = self.tables();
        let of = |subject| {
            let records = tables.delivery.0.get(subject);
            records.map_or(Vec::new(), |records| records.values().cloned().collect())
        };
        Ok(subjects.iter().map(of).collect())
    }

    async fn forget(&self, subjects: &[Subject]) -> Result<(), StoreError> {
        let mut tables = self.tables_mut();
        for subject in subjects {
            tables.delivery.0.remove(subject);
        }
        Ok(())
    }

    async fn discard_before(&self, time: SystemTime, _limit: usize) -> Result<bool, StoreError> {
        let time = clock::micros(time);
        self.tables_mut().delivery.0.retain(|_, records| {
            records.retain(|_, record| record.at >= time);
            !records.is_empty()
        });
        Ok(true)
    }
}
