//! Pending and deferred pushes.
//!
//! **A pending change** is in the slot of its pass's bucket, so that one script can mark the pass and make its push pending. A
//! hash contains the version and the progress of each change. A sorted set contains the time when each change became pending,
//! so that the oldest changes are found quickly.
//!
//! **A change of a whole type** is marked bucket by bucket, and bucket 0 is the last one. The script that marks bucket 0 also
//! makes the change pending. So no push is sent before all passes are marked, and the version of the change is at least the
//! version of each mark. Before the first mark, an entry in the sorted set of bucket 0 records that the change is under way.
//! If the call does not finish, a worker marks the type again a minute later.
//!
//! [`dirty`](crate::dirty) describes which buckets workers read.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use futures_util::future::try_join_all;
use passkit_server::{
    Changed,
    identifiers::{DeviceIdentifier, PushToken, SerialNumber, TypeIdentifier},
    push::{Backlog, DeferredPush, PendingChange, Progress, PushQueue, Scope},
    store::{Page, PageCursor, StoreError, clock},
};
use redis::Value;
use tokio::time::Instant;

use crate::{
    changes,
    dirty::{CLEARED_AGE, DirtyBuckets},
    engine::{Command, Place, length, one, read, scripts},
    error::Error,
    layout::{self, UNDER_WAY, WHOLE_TYPE},
    store::{RedisStore, Shared},
};

/// A mark of a whole type counts as interrupted after this number of microseconds.
const INTERRUPTED: u64 = 60_000_000;

/// The maximum number of pending changes or deferred pushes in one command.
const STEP: usize = 250;

/// The maximum number of pending changes or deferred pushes to write before waiting for the server.
const AT_ONCE: usize = 10_000;

/// The maximum number of deferred pushes on a page.
const PAGE: usize = 1_000;

/// Scores of sorted sets are exact up to this number.
const EXACT: u64 = 1 << 53;

#[async_trait]
impl PushQueue for RedisStore {
    /// If a mark of a whole type is interrupted, only some passes are marked. A worker marks all passes of the type a minute
    /// later. Then the pushes become pending.
    async fn mark_and_push(
        &self,
        type_id: &TypeIdentifier,
        changed: Changed<'_>,
    ) -> Result<(), StoreError> {
        changes::mark(self, type_id, changed, true).await
    }

    async fn backlog(&self) -> Result<Vec<Backlog>, StoreError> {
        Ok(self.shared().backlog().await?)
    }

    async fn pending(
        &self,
        type_id: &TypeIdentifier,
        limit: usize,
    ) -> Result<Vec<PendingChange>, StoreError> {
        Ok(self.shared().pending(type_id, limit).await?)
    }

    async fn record_progress(
        &self,
        type_id: &TypeIdentifier,
        progress: &[(Scope, Progress)],
    ) -> Result<(), StoreError> {
        let (type_id, progress) = (type_id.clone(), progress.to_vec());
        self.run_to_completion(
            |shared| async move { shared.record_progress(&type_id, &progress).await },
        )
        .await
    }

    async fn defer(
        &self,
        type_id: &TypeIdentifier,
        pushes: &[(DeviceIdentifier, Option<DeferredPush>)],
    ) -> Result<(), StoreError> {
        let (type_id, pushes) = (type_id.clone(), pushes.to_vec());
        self.run_to_completion(|shared| async move { shared.defer(&type_id, &pushes).await })
            .await
    }

    async fn deferred(
        &self,
        type_id: &TypeIdentifier,
        after: Option<&PageCursor>,
        limit: usize,
    ) -> Result<Page<(DeviceIdentifier, DeferredPush)>, StoreError> {
        Ok(self.shared().deferred(type_id, after, limit).await?)
    }
}

impl Shared {
    async fn backlog(&self) -> Result<Vec<Backlog>, Error> {
        let now = Instant::now();
        let sweeps = self.dirty.needs_sweep(now);
        let types = one(self
            .runner
            .read(vec![Command::plain("HKEYS", self.keys.types())])
            .await?);
        let types: Vec<String> = read(types, "type")?;
        let types = types
            .iter()
            .map(|text| TypeIdentifier::new(text).map_err(|_| Error::unreadable("type")));
        let types: Vec<TypeIdentifier> = types.collect::<Result<_, _>>()?;

        let calls = types.iter().flat_map(|type_id| {
            let first = ["0", "0", "WITHSCORES"];
            let first = Command::plain("ZRANGE", self.keys.deferred_times(type_id)).arg(&first);
            let deferred = Command::plain("HLEN", self.keys.deferred(type_id));
            [
                Command::plain("HGETALL", self.keys.dirty(type_id)),
                deferred,
                first,
            ]
        });
        let mut answers = self.runner.read(calls.collect()).await?.into_iter();
        let mut answer = || answers.next().unwrap_or(Value::Nil);
        let mut looks = Vec::new();
        for type_id in types {
            let dirty: BTreeMap<u64, u64> = read(answer(), "dirty bucket")?;
            // The hash has one field that is not a push.
            let has_deferred = length(&answer()) > 1;
            let next_deferred = first_time(answer())?.map(at);
            looks.push(async move {
                let Found { pending, since } = self.count_pending(&type_id, &dirty, sweeps).await?;
                let backlog = Backlog {
                    type_id,
                    pending,
                    since: since.map(at),
                    next_deferred,
                };
                Ok::<_, Error>((has_deferred || pending > 0).then_some(backlog))
            });
        }
        let backlog = try_join_all(looks).await?.into_iter().flatten().collect();
        if sweeps {
            self.dirty.swept(now);
        }
        Ok(backlog)
    }

    /// Counts the pending changes in the dirty buckets, or in all buckets if `all` is true. Marks a bucket dirty if it has
    /// pending changes but is not dirty. Clears a dirty bucket if it has no pending changes and its mark is old.
    async fn count_pending(
        &self,
        type_id: &TypeIdentifier,
        dirty: &BTreeMap<u64, u64>,
        all: bool,
    ) -> Result<Found, Error> {
        let buckets: Vec<u64> = if all {
            (0..self.keys.buckets).collect()
        } else {
            dirty.keys().copied().collect()
        };
        let mut found = Found::default();
        let (mut old, mut lacking) = (Vec::new(), Vec::new());
        let before = clock::now_micros().saturating_sub(CLEARED_AGE);
        for buckets in buckets.chunks(STEP) {
            let calls = buckets.iter().flat_map(|bucket| {
                let key = self.keys.pending_by_age(type_id, *bucket);
                let first = Command::plain("ZRANGE", key.clone()).arg(&["0", "0", "WITHSCORES"]);
                [Command::plain("ZCARD", key), first]
            });
            let mut answers = self.runner.read(calls.collect()).await?.into_iter();
            for bucket in buckets {
                let pending = length(&answers.next().unwrap_or(Value::Nil));
                let since = first_time(answers.next().unwrap_or(Value::Nil))?;
                // Another call may have changed the bucket between the two answers.
                if pending > 0
                    && let Some(since) = since
                {
                    found.pending += pending;
                    found.since = Some(found.since.map_or(since, |other| other.min(since)));
                }
                match dirty.get(bucket) {
                    None if pending > 0 => lacking.push(*bucket),
                    Some(marked) if pending == 0 && *marked < before => {
                        old.push([*bucket, *marked])
                    }
                    _ => {}
                }
            }
        }
        if !lacking.is_empty() {
            DirtyBuckets::mark_now(&self.runner, &self.keys, type_id, &lacking).await?;
        }
        DirtyBuckets::clear(&self.runner, &self.keys, type_id, &old).await?;
        Ok(found)
    }

    async fn pending(
        &self,
        type_id: &TypeIdentifier,
        limit: usize,
    ) -> Result<Vec<PendingChange>, Error> {
        let limit = limit.max(1);
        let dirty = one(self
            .runner
            .read(vec![Command::plain("HKEYS", self.keys.dirty(type_id))])
            .await?);
        let dirty: Vec<u64> = read(dirty, "dirty bucket")?;
        let counts = dirty
            .iter()
            .map(|bucket| Command::plain("ZCARD", self.keys.pending_by_age(type_id, *bucket)));
        let counts = self.runner.read(counts.collect()).await?;
        let counts: Vec<(u64, u64)> = dirty
            .into_iter()
            .zip(counts.iter().map(length))
            .filter(|(_, count)| *count > 0)
            .collect();

        let mut oldest = self.oldest(type_id, &counts, limit).await?;
        let long_ago = clock::now_micros().saturating_sub(INTERRUPTED);
        for under_way in oldest.extract_if(.., |entry| entry.field.starts_with(UNDER_WAY)) {
            if under_way.since < long_ago {
                self.finish_marking_all(type_id, &under_way.field).await?;
            }
        }
        oldest.truncate(limit);
        self.read_pending(type_id, oldest).await
    }

    /// Reads the oldest changes of each bucket. Returns at least `limit` changes, or all if there are fewer. The oldest come
    /// first.
    async fn oldest(
        &self,
        type_id: &TypeIdentifier,
        counts: &[(u64, u64)],
        limit: usize,
    ) -> Result<Vec<Aged>, Error> {
        let total: u64 = counts.iter().map(|(_, count)| count).sum();
        let limit = u64::try_from(limit).unwrap_or(u64::MAX);
        let (mut calls, mut buckets) = (Vec::new(), Vec::new());
        for (bucket, count) in counts {
            // Reads more than the bucket's share, because one bucket may have older changes than others.
            let share = if total <= limit {
                *count
            } else {
                (count.saturating_mul(limit) / total * 2 + 8).min(*count)
            };
            for from in (0..share).step_by(STEP) {
                let to = (from + STEP as u64).min(share) - 1;
                let key = self.keys.pending_by_age(type_id, *bucket);
                calls.push(
                    Command::plain("ZRANGE", key)
                        .arg(from)
                        .arg(to)
                        .arg("WITHSCORES"),
                );
                buckets.push(*bucket);
            }
        }
        let mut oldest = Vec::new();
        let mut seen = HashSet::new();
        for (answer, bucket) in self.runner.read(calls).await?.into_iter().zip(buckets) {
            for (field, since) in read::<Vec<(String, f64)>>(answer, PENDING)? {
                // If a change moved in the index between two commands, both may have read it.
                if seen.insert(field.clone()) {
                    oldest.push(Aged {
                        since: since as u64,
                        bucket,
                        field,
                    });
                }
            }
        }
        oldest.sort_by_key(|entry| entry.since);
        Ok(oldest)
    }

    /// Reads these changes in their order. Skips changes that were removed in the meantime.
    async fn read_pending(
        &self,
        type_id: &TypeIdentifier,
        entries: Vec<Aged>,
    ) -> Result<Vec<PendingChange>, Error> {
        let mut buckets: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        for (at, entry) in entries.iter().enumerate() {
            buckets.entry(entry.bucket).or_default().push(at);
        }
        let (mut calls, mut members) = (Vec::new(), Vec::new());
        for (bucket, of_bucket) in &buckets {
            for part in of_bucket.chunks(STEP) {
                let call = Command::plain("HMGET", self.keys.pending(type_id, *bucket));
                calls.push(
                    part.iter()
                        .fold(call, |call, at| call.arg(&entries[*at].field)),
                );
                members.push(part);
            }
        }
        let mut values: Vec<Option<String>> = vec![None; entries.len()];
        for (answer, part) in self.runner.read(calls).await?.into_iter().zip(members) {
            for (value, at) in read::<Vec<Option<String>>>(answer, PENDING)?
                .into_iter()
                .zip(part)
            {
                values[*at] = value;
            }
        }
        let entries = entries.into_iter().zip(values);
        entries
            .filter_map(|(entry, value)| Some(read_change(&entry.field, &value?)))
            .collect()
    }

    async fn record_progress(
        &self,
        type_id: &TypeIdentifier,
        progress: &[(Scope, Progress)],
    ) -> Result<(), Error> {
        for progress in progress.chunks(AT_ONCE) {
            let mut buckets: BTreeMap<u64, Vec<(&str, &Progress)>> = BTreeMap::new();
            for (scope, progress) in progress {
                let (bucket, field) = match scope {
                    Scope::Pass(serial) => (self.keys.bucket_of(serial), serial.as_str()),
                    Scope::Type => (0, WHOLE_TYPE),
                };
                buckets.entry(bucket).or_default().push((field, progress));
            }
            // The order of the items matters. If a bucket has more items than one script accepts, the rest follows in the
            // next round.
            let mut from = 0;
            while buckets.values().any(|of_bucket| of_bucket.len() > from) {
                let calls = buckets
                    .iter()
                    .filter(|(_, of_bucket)| of_bucket.len() > from)
                    .map(|(bucket, of_bucket)| {
                        let keys = self.keys.bucket_and_pending(type_id, *bucket);
                        let call = Command::script_on(&scripts::RECORD_PROGRESS, keys);
                        of_bucket.iter().skip(from).take(STEP).fold(
                            call,
                            |call, (field, Progress { version, next })| {
                                let to = next
                                    .as_ref()
                                    .map_or("end".into(), |next| format!("@{}", next.as_str()));
                                call.arg(*field).arg(*version).arg(to)
                            },
                        )
                    });
                self.runner.write(calls.collect()).await?;
                from += STEP;
            }
        }
        Ok(())
    }

    async fn defer(
        &self,
        type_id: &TypeIdentifier,
        pushes: &[(DeviceIdentifier, Option<DeferredPush>)],
    ) -> Result<(), Error> {
        // If a device has several entries, the last one counts.
        let pushes: HashMap<&DeviceIdentifier, &Option<DeferredPush>> =
            pushes.iter().map(|(device, push)| (device, push)).collect();
        if pushes.values().any(|push| push.is_some()) {
            self.dirty
                .mark(&self.runner, &self.keys, type_id, std::iter::empty())
                .await?;
        }
        let keys = [
            self.keys.deferred(type_id),
            self.keys.deferred_times(type_id),
        ];
        let rows: Vec<[String; 3]> = pushes
            .into_iter()
            .map(|(device, push)| {
                let due = push.as_ref().and_then(|push| push.due);
                let due = due
                    .map(|due| clock::micros(due).min(EXACT).to_string())
                    .unwrap_or_default();
                let value = push.as_ref().map(deferred_value).unwrap_or_default();
                [device.as_str().to_owned(), value, due]
            })
            .collect();
        for rows in rows.chunks(AT_ONCE) {
            let calls = rows.chunks(STEP).map(|rows| {
                Command::script_on(&scripts::DEFER, keys.clone()).arg(rows.as_flattened())
            });
            self.runner.write(calls.collect()).await?;
        }
        Ok(())
    }

    async fn deferred(
        &self,
        type_id: &TypeIdentifier,
        after: Option<&PageCursor>,
        limit: usize,
    ) -> Result<Page<(DeviceIdentifier, DeferredPush)>, Error> {
        let place = after
            .and_then(|cursor| Place::read(cursor.as_str()))
            .unwrap_or_default();
        let key = self.keys.deferred(type_id);
        let (rows, next) = self
            .runner
            .page::<String>(key, place, limit.clamp(1, PAGE), DEFERRED)
            .await?;
        // The field with an empty value is not a push.
        let rows = rows.iter().filter(|(_, value)| !value.is_empty());
        let items = rows
            .map(|(device, value)| read_deferred(device, value))
            .collect::<Result<_, _>>()?;
        Ok(Page {
            items,
            next: next.map(|place| PageCursor::new(place.to_string())),
        })
    }
}

const PENDING: &str = "pending change";
const DEFERRED: &str = "deferred push";

#[derive(Debug, Default)]
struct Found {
    pending: u64,
    since: Option<u64>,
}

/// An entry of the index of pending changes by age.
#[derive(Debug)]
struct Aged {
    since: u64,
    bucket: u64,
    field: String,
}

fn at(micros: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(micros)
}

/// Parses the first member of a sorted set and returns its time.
fn first_time(value: Value) -> Result<Option<u64>, Error> {
    let first: Vec<(Vec<u8>, f64)> = read(value, "time")?;
    Ok(first.first().map(|(_, time)| *time as u64))
}

fn read_change(field: &str, value: &str) -> Result<PendingChange, Error> {
    let unreadable = || Error::unreadable(PENDING);
    let mut parts = value.splitn(3, ':');
    let mut number = || {
        parts
            .next()
            .map(|part| layout::read_number(part.as_bytes()).ok_or_else(unreadable))
            .transpose()
    };
    let (version, begun_with) = (number()?.ok_or_else(unreadable)?, number()?);
    let progress = begun_with.map(|version| {
        let cursor = parts.next().ok_or_else(unreadable)?;
        Ok::<_, Error>(Progress {
            version,
            next: Some(PageCursor::new(cursor)),
        })
    });
    let scope = match field {
        WHOLE_TYPE => Scope::Type,
        serial => Scope::Pass(SerialNumber::new(serial).map_err(|_| unreadable())?),
    };
    Ok(PendingChange {
        scope,
        version,
        progress: progress.transpose()?,
    })
}

/// The push token comes last, because it may contain `:`.
fn deferred_value(push: &DeferredPush) -> String {
    let micros = |time: Option<SystemTime>| {
        time.map(|time| clock::micros(time).to_string())
            .unwrap_or_default()
    };
    let (due, bad_since) = (micros(push.due), micros(push.bad_since));
    format!(
        "{due}:{}:{bad_since}:{}",
        push.attempts,
        push.push_token.as_str()
    )
}

fn read_deferred(device: &str, value: &str) -> Result<(DeviceIdentifier, DeferredPush), Error> {
    let unreadable = || Error::unreadable(DEFERRED);
    let parts: Vec<&str> = value.splitn(4, ':').collect();
    let [due, attempts, bad_since, token] = parts[..] else {
        return Err(unreadable());
    };
    let time = |text: &str| match text {
        "" => Ok(None),
        digits => layout::read_number(digits.as_bytes())
            .map(|micros| Some(at(micros)))
            .ok_or_else(unreadable),
    };
    let push = DeferredPush {
        push_token: PushToken::new(token).map_err(|_| unreadable())?,
        due: time(due)?,
        attempts: attempts.parse().map_err(|_| unreadable())?,
        bad_since: time(bad_since)?,
    };
    Ok((
        DeviceIdentifier::new(device).map_err(|_| unreadable())?,
        push,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pending_changes_are_read() {
        let change = |scope, version, progress: Option<(u64, &str)>| {
            let progress = progress.map(|(version, next)| Progress {
                version,
                next: Some(PageCursor::new(next)),
            });
            PendingChange {
                scope,
                version,
                progress,
            }
        };
        let pass = || Scope::Pass(SerialNumber::new("a:b").unwrap());
        assert_eq!(read_change("a:b", "17").unwrap(), change(pass(), 17, None));
        assert_eq!(
            read_change("a:b", "17:16:").unwrap(),
            change(pass(), 17, Some((16, "")))
        );
        let of_type = change(Scope::Type, 17, Some((16, "0-:\nx")));
        assert_eq!(read_change(WHOLE_TYPE, "17:16:0-:\nx").unwrap(), of_type);
        for value in ["", "x", "17:16", "17:x:y", ":16:y"] {
            assert!(read_change("a:b", value).is_err(), "{value}");
        }
        assert!(read_change(UNDER_WAY, "17").is_err());
    }

    #[test]
    fn deferred_pushes_are_read_back() {
        let device = DeviceIdentifier::new("d").unwrap();
        for token in ["c0ffee", ":", "cMv:APA91b:", "{}:{7}"] {
            for (due, bad_since) in [
                (None, None),
                (Some(at(1)), None),
                (None, Some(at(2))),
                (Some(at(3)), Some(at(4))),
            ] {
                let push_token = PushToken::new(token).unwrap();
                let push = DeferredPush {
                    push_token,
                    due,
                    attempts: u32::MAX,
                    bad_since,
                };
                assert_eq!(
                    read_deferred("d", &deferred_value(&push)).unwrap(),
                    (device.clone(), push)
                );
            }
        }
        for value in [
            "",
            ":1:",
            ":1::",
            ":x::c0ffee",
            "x:1::c0ffee",
            ":1:x:c0ffee",
        ] {
            assert!(read_deferred("d", value).is_err(), "{value}");
        }
    }
}
