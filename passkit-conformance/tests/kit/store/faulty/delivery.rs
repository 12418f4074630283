//! Delivery records.

use std::{
    collections::{BTreeMap, HashMap},
    time::SystemTime,
};

use async_trait::async_trait;
use passkit_server::{
    delivery::{DeliveryLog, Event, Record, Subject},
    store::{StoreError, clock},
};
use tokio::task::yield_now;

use super::{Fault, Faulty, Memory};

/// A record of a subject is found under the key of the subject and the name of its event.
type Table = BTreeMap<String, BTreeMap<String, Record>>;

#[derive(Default)]
pub(super) struct Log {
    table: Table,
    /// Records that no read shows yet.
    waiting: Vec<Record>,
    /// Earlier answers.
    cached: HashMap<Subject, Vec<Record>>,
    /// The first time of each record, and the greatest version of each forgotten record.
    first_times: HashMap<(String, String), u64>,
    forgotten: HashMap<(String, String), u64>,
}

#[async_trait]
impl DeliveryLog for Faulty {
    async fn record(&self, records: &[Record]) -> Result<(), StoreError> {
        let mut records = records.to_vec();
        match self.fault {
            Fault::RecordsTheFirstThousand => records.truncate(1_000),
            Fault::RecordsTwiceCountOnce => {
                let mut seen = Vec::new();
                records.retain(|record| {
                    let key = (record.subject.clone(), record.event);
                    let is_new = !seen.contains(&key);
                    seen.push(key);
                    is_new
                });
            }
            Fault::RecordsShowLater => {
                records =
                    self.memory(|memory| std::mem::replace(&mut memory.delivery.waiting, records));
            }
            _ => {}
        }
        for record in records {
            let (subject, event) = (self.key_of(&record.subject), self.event_of(record.event));
            let known = |memory: &Memory| {
                let of_subject = memory.delivery.table.get(&subject);
                of_subject.and_then(|events| events.get(&event)).cloned()
            };
            let mut read_first = None;
            if self.is(Fault::RecordsAreReadFirst) {
                read_first = Some(self.memory(|memory| known(memory)));
                yield_now().await;
            }
            let key = (subject.clone(), event.clone());
            self.memory(|memory| {
                let known = read_first.unwrap_or_else(|| known(memory));
                let log = &mut memory.delivery;
                log.first_times.entry(key.clone()).or_insert(record.at);
                let hidden = log
                    .forgotten
                    .get(&key)
                    .is_some_and(|last| *last > record.version);
                if !(hidden && self.fault == Fault::ForgottenVersionsHideOlder) {
                    let merged = self.merged(known, record);
                    log.table
                        .entry(subject.clone())
                        .or_default()
                        .insert(event.clone(), merged);
                }
            });
        }
        Ok(())
    }

    async fn records(&self, subjects: &[Subject]) -> Result<Vec<Vec<Record>>, StoreError> {
        let mut subjects = subjects.to_vec();
        match self.fault {
            Fault::AnswersAreSorted => subjects.sort(),
            Fault::AnswersLackRepeatedSubjects => {
                let mut seen = Vec::new();
                subjects.retain(|one| {
                    !seen.contains(one) && {
                        seen.push(one.clone());
                        true
                    }
                });
            }
            _ => {}
        }
        let mut answers: Vec<_> = subjects.iter().map(|one| self.records_of(one)).collect();
        match self.fault {
            Fault::AnswersLackUnknownSubjects => answers.retain(|records| !records.is_empty()),
            Fault::AnswersOfTheFirstThousand => answers.iter_mut().skip(1_000).for_each(Vec::clear),
            _ => {}
        }
        Ok(answers)
    }

    async fn forget(&self, subjects: &[Subject]) -> Result<(), StoreError> {
        let most = match self.fault {
            Fault::ForgetsTheFirstSubjectOnly => 1,
            Fault::ForgetsTheFirstThousand => 1_000,
            _ => usize::MAX,
        };
        self.memory(|memory| {
            let log = &mut memory.delivery;
            for subject in subjects.iter().take(most) {
                let key = self.key_of(subject);
                if self.is(Fault::ForgetsOtherKinds) {
                    let (_, type_id, name) = subject.parts();
                    let end = format!("/{type_id}/{name}");
                    log.table.retain(|key, _| !key.ends_with(&end));
                }
                if self.is(Fault::ForgetsTheFirstEventOnly) {
                    log.table.get_mut(&key).and_then(BTreeMap::pop_first);
                    continue;
                }
                for (event, record) in log.table.remove(&key).unwrap_or_default() {
                    log.forgotten.insert((key.clone(), event), record.version);
                }
            }
        });
        Ok(())
    }

    async fn discard_before(&self, time: SystemTime, limit: usize) -> Result<bool, StoreError> {
        let time = clock::micros(time);
        let fault = self.fault;
        self.memory(|memory| {
            let Log {
                table, first_times, ..
            } = &mut memory.delivery;
            let mut left = usize::MAX;
            if fault == Fault::DiscardStopsEarly {
                left = limit;
            }
            for (subject, events) in table.iter_mut() {
                let is_old = |event: &String, record: &Record| match fault {
                    Fault::DiscardsTheTimeItself => record.at <= time,
                    Fault::DiscardsWholeMilliseconds => record.at / 1_000 < time / 1_000,
                    Fault::DiscardsByTheFirstTime => {
                        first_times[&(subject.clone(), event.clone())] < time
                    }
                    _ => record.at < time,
                };
                if fault == Fault::DiscardsWholeSubjects
                    && events.iter().any(|(event, record)| is_old(event, record))
                {
                    events.clear();
                }
                events.retain(|event, record| {
                    let goes = left > 0 && is_old(event, record);
                    left -= usize::from(goes);
                    !goes
                });
            }
        });
        Ok(!self.is(Fault::DiscardNeverEnds))
    }
}

impl Faulty {
    fn key_of(&self, subject: &Subject) -> String {
        let (kind, type_id, name) = subject.parts();
        match self.fault {
            Fault::SubjectsWithoutKind => format!("{type_id}/{name}"),
            Fault::SubjectsWithoutType => format!("{kind}/{name}"),
            Fault::SubjectsAreJoined => format!("{kind}/{type_id}{name}"),
            Fault::SubjectsAreFolded => format!("{kind}/{type_id}/{}", name.to_lowercase()),
            Fault::SubjectTypesAreFolded => format!("{kind}/{}/{name}", type_id.to_lowercase()),
            Fault::SubjectsAreTrimmed => format!("{kind}/{type_id}/{}", name.trim_end()),
            _ => format!("{kind}/{type_id}/{name}"),
        }
    }

    fn event_of(&self, event: Event) -> String {
        let name = event.name();
        if self.is(Fault::EventsAreCut) {
            return name.split('-').next().unwrap().to_owned();
        }
        name.to_owned()
    }

    fn records_of(&self, subject: &Subject) -> Vec<Record> {
        let wanted = self.key_of(subject);
        self.memory(|memory| {
            let Log { table, cached, .. } = &mut memory.delivery;
            if let (Fault::AnswersAreCached, Some(known)) = (self.fault, cached.get(subject)) {
                return known.clone();
            }
            let is_found = |key: &str| match self.fault {
                Fault::SubjectsByPrefix => key.starts_with(&wanted),
                _ => key == wanted,
            };
            let found = table.iter().filter(|(key, _)| is_found(key));
            let found = found.flat_map(|(_, events)| events.values().cloned());
            let found: Vec<_> = found
                .map(|record| Record {
                    subject: subject.clone(),
                    ..record
                })
                .collect();
            cached.insert(subject.clone(), found.clone());
            found
        })
    }

    /// Merges a record into a known one, and stores the result as the fault demands.
    fn merged(&self, known: Option<Record>, new: Record) -> Record {
        let mut merged = match known {
            Some(known) => self.merged_with(known, new),
            None => new,
        };
        match self.fault {
            Fault::RecordTimesAreMillis => merged.at = merged.at / 1_000 * 1_000,
            Fault::RecordCountsAre32Bits => merged.count = merged.count.min(u64::from(u32::MAX)),
            Fault::RecordDetailsAreTrimmed => merged.detail = merged.detail.trim().to_owned(),
            Fault::RecordDetailsAreCut => {
                merged.detail = merged.detail.chars().take(64).collect();
            }
            _ => {}
        }
        merged
    }

    fn merged_with(&self, known: Record, new: Record) -> Record {
        let mut merged = known.clone();
        merged.merge(new.clone());
        let is_same = known.version == new.version;
        match self.fault {
            Fault::RecordKeepsTheFirstTime if is_same => Record {
                at: known.at,
                detail: known.detail,
                ..merged
            },
            Fault::RecordTakesTheLastTime if is_same => Record {
                at: new.at,
                detail: new.detail,
                ..merged
            },
            Fault::RecordTakesTheLastDetail if is_same => Record {
                detail: new.detail,
                ..merged
            },
            Fault::RecordCountsAreOverwritten if is_same => Record {
                count: new.count,
                ..merged
            },
            Fault::RecordCountsOverflow if is_same => Record {
                count: known.count + new.count,
                ..merged
            },
            Fault::RecordTakesTheLastVersion if !is_same => new,
            Fault::RecordKeepsTheFirstVersion if !is_same => known,
            Fault::RecordTakesTheLatestVersion if !is_same => {
                let newest = known.at.max(new.at);
                if newest == known.at { known } else { new }
            }
            Fault::RecordComparesVersionsAsTexts if !is_same => {
                let [one, two] = [&known, &new].map(|record| record.version.to_string());
                if one > two { known } else { new }
            }
            Fault::RecordAddsCountsOfVersions if !is_same => Record {
                count: (known.count + new.count).min(Record::MAX_NUMBER),
                ..merged
            },
            Fault::RecordKeepsTheLaterTimeOfVersions if !is_same => Record {
                at: known.at.max(new.at),
                ..merged
            },
            Fault::EqualTimesKeepTheFirstDetail if known.at == new.at => Record {
                detail: known.detail,
                ..merged
            },
            Fault::EqualTimesTakeTheLastDetail if known.at == new.at => Record {
                detail: new.detail,
                ..merged
            },
            Fault::EqualTimesCompareDetailsWithoutCase if known.at == new.at => {
                let [one, two] = [&known, &new].map(|record| record.detail.to_lowercase());
                let detail = if one >= two { known.detail } else { new.detail };
                Record { detail, ..merged }
            }
            Fault::EqualTimesCompareUtf16 if known.at == new.at => {
                let [one, two] =
                    [&known, &new].map(|record| record.detail.encode_utf16().collect::<Vec<_>>());
                let detail = if one >= two { known.detail } else { new.detail };
                Record { detail, ..merged }
            }
            _ => merged,
        }
    }
}
