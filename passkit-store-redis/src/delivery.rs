//! Delivery records.
//!
//! All records of a subject are in one hash, so that one script merges them. An index says which subjects may have old
//! records. Its parts are in other slots than the hashes, so a call changes both in several steps. Two rules ensure that the
//! time in the index is never after the oldest record of the subject:
//!
//! * A call that writes records lowers the time in the index first. If the subject had no records, the call does so once more
//!   afterwards, because another call may have removed the subject from the index in the meantime.
//! * A call that discards records first sets the time in the index to the time before which it discards. At the end, it
//!   removes the subject from the index only if the index still has that time.
//!
//! If a process ends in between, the index has a superfluous entry, which the next call that discards records removes.
//!
//! No call waits for replicas, because a failover may lose records.

use std::{
    collections::{BTreeMap, HashMap},
    time::SystemTime,
};

use async_trait::async_trait;
use passkit_server::{
    delivery::{DeliveryLog, Event, Record, Subject},
    store::{StoreError, clock},
};

use crate::{
    engine::{Command, length, name_of_call, pairs, read, scripts},
    error::Error,
    layout::{self, DELIVERY_PARTS},
    store::{RedisStore, Shared},
};

/// The maximum number of subjects to write or read before waiting for the server.
const STEP: usize = 500;

const WHAT: &str = "delivery record";

#[async_trait]
impl DeliveryLog for RedisStore {
    /// If a connection breaks before the answer, a record may be counted twice.
    async fn record(&self, records: &[Record]) -> Result<(), StoreError> {
        let records = records.to_vec();
        self.run_to_completion(|shared| async move { shared.merge_records(&records).await })
            .await
    }

    async fn records(&self, subjects: &[Subject]) -> Result<Vec<Vec<Record>>, StoreError> {
        Ok(self.shared().read_records(subjects).await?)
    }

    async fn forget(&self, subjects: &[Subject]) -> Result<(), StoreError> {
        let subjects = subjects.to_vec();
        self.run_to_completion(|shared| async move { shared.forget_records(&subjects).await })
            .await
    }

    async fn discard_before(&self, time: SystemTime, limit: usize) -> Result<bool, StoreError> {
        let time = clock::micros(time);
        self.run_to_completion(|shared| async move { shared.discard_records(time, limit).await })
            .await
    }
}

impl Shared {
    async fn merge_records(&self, records: &[Record]) -> Result<(), Error> {
        let mut subjects: BTreeMap<String, Vec<&Record>> = BTreeMap::new();
        for record in records {
            let member = layout::member(&record.subject);
            subjects.entry(member).or_default().push(record);
        }
        let subjects: Vec<_> = subjects.into_iter().collect();
        let call = name_of_call();
        for subjects in subjects.chunks(STEP) {
            let times: Vec<(&str, u64)> = subjects
                .iter()
                .map(|(member, records)| {
                    let oldest = records.iter().map(|record| record.at).min();
                    (member.as_str(), oldest.unwrap_or_default())
                })
                .collect();
            self.lower_times(&times).await?;
            let calls = subjects.iter().map(|(member, records)| {
                let key = self.keys.deliveries(member);
                let script = Command::script(&scripts::DELIVERY_RECORD, key).arg(&call);
                records.iter().fold(script, |script, record| {
                    script
                        .arg(record.event.name())
                        .arg(record.version)
                        .arg(record.count)
                        .arg(record.at)
                        .arg(&record.detail)
                })
            });
            let answers = self.runner.read(calls.collect()).await?;
            let is_new = answers.iter().map(|answer| length(answer) > 0);
            let new: Vec<_> = times.into_iter().zip(is_new).collect();
            let new = new.into_iter().filter(|(_, is_new)| *is_new);
            self.lower_times(&new.map(|(time, _)| time).collect::<Vec<_>>())
                .await?;
        }
        Ok(())
    }

    /// Makes the time of each member of the index at most the given time.
    async fn lower_times(&self, times: &[(&str, u64)]) -> Result<(), Error> {
        let mut parts: HashMap<String, Vec<(u64, &str)>> = HashMap::new();
        for (member, time) in times {
            let part = parts.entry(self.keys.delivery_part_with(member));
            part.or_default().push((*time, member));
        }
        let calls = parts.into_iter().map(|(key, members)| {
            let call = Command::plain("ZADD", key).arg("LT");
            members
                .iter()
                .fold(call, |call, (time, member)| call.arg(*time).arg(*member))
        });
        self.runner.read(calls.collect()).await?;
        Ok(())
    }

    async fn read_records(&self, subjects: &[Subject]) -> Result<Vec<Vec<Record>>, Error> {
        let mut answers = Vec::with_capacity(subjects.len());
        for subjects in subjects.chunks(STEP) {
            let calls = subjects.iter().map(|subject| {
                let key = self.keys.deliveries(&layout::member(subject));
                Command::plain("HGETALL", key)
            });
            let hashes = self.runner.read(calls.collect()).await?;
            for (subject, hash) in subjects.iter().zip(hashes) {
                let mut records = Vec::new();
                for (field, value) in pairs(hash, WHAT)? {
                    // The field that is not an event is left out. A newer version may also have written other events.
                    let event = std::str::from_utf8(&field).ok().and_then(Event::of);
                    if let Some(event) = event {
                        records.push(read_record(subject, event, &value)?);
                    }
                }
                answers.push(records);
            }
        }
        Ok(answers)
    }

    async fn forget_records(&self, subjects: &[Subject]) -> Result<(), Error> {
        let members: Vec<_> = subjects.iter().map(layout::member).collect();
        for members in members.chunks(STEP) {
            // The index comes first. If records are written in between, they are in the index afterwards.
            let calls = members.iter().map(|member| {
                Command::plain("ZREM", self.keys.delivery_part_with(member)).arg(member)
            });
            self.runner.read(calls.collect()).await?;
            let calls = members
                .iter()
                .map(|member| Command::plain("UNLINK", self.keys.deliveries(member)));
            self.runner.read(calls.collect()).await?;
        }
        Ok(())
    }

    async fn discard_records(&self, time: u64, limit: usize) -> Result<bool, Error> {
        let keys: Vec<_> = (0..DELIVERY_PARTS)
            .map(|part| self.keys.delivery_part(part))
            .collect();
        let each = limit.div_ceil(keys.len()).clamp(1, STEP);
        let calls = keys.iter().map(|key| {
            Command::plain("ZRANGE", key.clone())
                .arg(&["-inf", &format!("({time}"), "BYSCORE", "LIMIT", "0"])
                .arg(each)
        });
        let mut is_last = true;
        for (key, members) in keys.iter().zip(self.runner.read(calls.collect()).await?) {
            let members: Vec<String> = read(members, "subject of delivery records")?;
            is_last &= members.len() < each;
            if !members.is_empty() {
                self.discard(key, &members, time).await?;
            }
        }
        Ok(is_last)
    }

    /// Discards the old records of subjects that are in the same part of the index.
    async fn discard(&self, part: &str, members: &[String], time: u64) -> Result<(), Error> {
        let set = |times: &[(String, &String)]| {
            let call = Command::plain("ZADD", part.to_owned()).arg("XX");
            let add =
                |call: Command, (time, member): &(String, &String)| call.arg(time).arg(*member);
            vec![times.iter().fold(call, add)]
        };
        let discarding: Vec<_> = members
            .iter()
            .map(|member| (time.to_string(), member))
            .collect();
        self.runner.read(set(&discarding)).await?;
        let calls = members.iter().map(|member| {
            Command::script(&scripts::DELIVERY_DISCARD, self.keys.deliveries(member)).arg(time)
        });
        let mut left = Vec::new();
        let mut gone = Vec::new();
        for (answer, member) in self
            .runner
            .read(calls.collect())
            .await?
            .into_iter()
            .zip(members)
        {
            match read::<String>(answer, WHAT)? {
                oldest if oldest.is_empty() => gone.push(member),
                oldest => left.push((oldest, member)),
            }
        }
        let mut calls = Vec::new();
        if !left.is_empty() {
            calls.extend(set(&left));
        }
        if !gone.is_empty() {
            let call = Command::script(&scripts::DELIVERY_UNINDEX, part.to_owned()).arg(time);
            calls.push(gone.into_iter().fold(call, |call, member| call.arg(member)));
        }
        self.runner.read(calls).await?;
        Ok(())
    }
}

/// Parses the value of an event. The detail comes last, because it may contain `:`.
fn read_record(subject: &Subject, event: Event, value: &[u8]) -> Result<Record, Error> {
    let unreadable = || Error::unreadable(WHAT);
    let value = std::str::from_utf8(value).map_err(|_| unreadable())?;
    let parts: Vec<&str> = value.splitn(4, ':').collect();
    let [version, count, at, detail] = parts[..] else {
        return Err(unreadable());
    };
    let number = |digits: &str| layout::read_number(digits.as_bytes()).ok_or_else(unreadable);
    Ok(Record {
        subject: subject.clone(),
        event,
        version: number(version)?,
        count: number(count)?,
        at: number(at)?,
        detail: detail.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use passkit_server::identifiers::TypeIdentifier;

    use super::*;

    #[test]
    fn records_are_read() {
        let subject = Subject::Type(TypeIdentifier::new("pass.a").unwrap());
        let read = |value: &str| read_record(&subject, Event::Fetched, value.as_bytes());
        let record = read("7:2:3:a:b").unwrap();
        assert_eq!((record.version, record.count, record.at), (7, 2, 3));
        assert_eq!(record.detail, "a:b");
        for value in ["", "7", "7:2:3", "x:2:3:", "7:-2:3:"] {
            assert!(read(value).is_err(), "{value}");
        }
    }
}
