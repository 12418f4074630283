//! What pushes are owed and held, and by whom they are sent.
//!
//! **A debt** stands in the slot of its pass's bucket, so that one script marks and owes: in a hash its version and how
//! far a worker came, in a sorted set when it was owed, so that the longest owed are found however many there are.
//!
//! **A whole type** is marked bucket by bucket, and owed in the script that marks the last one, bucket 0: so what it owes
//! goes out after all the marks, and has a version that none of them is above. Before the first mark it is written down
//! that this is under way. Should the call not come to its end, a worker marks and owes anew a minute later.
//!
//! **A note** says that a bucket may have debts, so that workers, who look several times a second, need not look into all
//! of them. It is set before anything is owed, by the server's clock. A process does not set it again for a minute; a
//! worker who finds the bucket empty removes it when it is ten minutes old, much longer than a mark can be under way. So
//! where something is owed there is a note; and should a failover lose one, or a process stand still for ten minutes, all
//! buckets are looked into now and then.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    hash::{BuildHasher as _, RandomState},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use futures_util::future::try_join_all;
use passkit_server::{
    Debt, DeviceIdentifier, HeldPage, HeldPush, Owed, Owing, PageCursor, PushQueue, PushToken, Reached,
    SerialNumber, StoreError, TypeIdentifier, clock,
};
use redis::Value;
use tokio::time::Instant;

use crate::{
    connection::Call,
    error::Failure,
    index::{length, one, read},
    keys::{self, ALL, PENDING},
    query::AT_ONCE,
    scripts,
    store::{Inner, RedisStore},
};

/// For how long a process relies on a note that it set.
const RELIED_ON: Duration = Duration::from_secs(60);

/// The age, in microseconds, from which the note of an empty bucket is removed.
const NOTE_AGE: u64 = 600_000_000;

/// How often a process looks into all buckets.
const SWEEP: Duration = Duration::from_secs(300);

/// After how many microseconds a mark of a whole type counts as cut off.
const CUT_OFF: u64 = 60_000_000;

/// The most debts or held pushes that one command is about.
const STEP: usize = 250;

/// The most held pushes of a page.
const PAGE: usize = 1_000;

/// Numbers of scripts, and of sorted sets, are exact up to here.
const EXACT: u64 = 1 << 53;

/// The notes that this process set, and when it last looked into all buckets.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    /// Of each type its place among the types (`None`) and its buckets, each with the time before it was noted.
    set: Mutex<HashMap<TypeIdentifier, HashMap<Option<u64>, Instant>>>,
    swept: Mutex<Option<Instant>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Notes {
    /// Those that can't be relied on.
    fn lacking(
        &self,
        type_id: &TypeIdentifier,
        mut wanted: Vec<Option<u64>>,
        now: Instant,
    ) -> Vec<Option<u64>> {
        if let Some(set) = lock(&self.set).get(type_id) {
            wanted.retain(|note| set.get(note).is_none_or(|at| now >= *at + RELIED_ON));
        }
        wanted
    }
}

#[async_trait]
impl PushQueue for RedisStore {
    async fn mark_and_owe(
        &self,
        type_id: &TypeIdentifier,
        serials: &[SerialNumber],
    ) -> Result<(), StoreError> {
        if serials.is_empty() {
            return Ok(());
        }
        let (type_id, serials) = (type_id.clone(), serials.to_vec());
        self.whole(|inner| async move { inner.mark(&type_id, &serials, true).await }).await
    }

    /// If it is cut off, some passes are marked; a minute later all are marked and owed.
    async fn mark_all_and_owe(&self, type_id: &TypeIdentifier) -> Result<(), StoreError> {
        let type_id = type_id.clone();
        self.whole(|inner| async move { inner.mark_all_and_owe(&type_id).await }).await
    }

    async fn owing(&self) -> Result<Vec<Owing>, StoreError> {
        Ok(self.inner().owing().await?)
    }

    async fn lease(
        &self,
        type_id: &TypeIdentifier,
        worker: &str,
        time: Duration,
    ) -> Result<bool, StoreError> {
        Ok(self.inner().lease(type_id, worker, time).await?)
    }

    async fn release(&self, type_id: &TypeIdentifier, worker: &str) -> Result<(), StoreError> {
        Ok(self.inner().release(type_id, worker).await?)
    }

    async fn debts(&self, type_id: &TypeIdentifier, limit: usize) -> Result<Vec<Debt>, StoreError> {
        Ok(self.inner().debts_of(type_id, limit).await?)
    }

    async fn advance(&self, type_id: &TypeIdentifier, reached: &[(Owed, Reached)]) -> Result<(), StoreError> {
        let (type_id, reached) = (type_id.clone(), reached.to_vec());
        let advancing = |inner: Arc<Inner>| async move {
            for reached in reached.chunks(AT_ONCE) {
                inner.advance(&type_id, reached).await?;
            }
            Ok(())
        };
        self.whole(advancing).await
    }

    async fn hold(&self, type_id: &TypeIdentifier, pushes: &[HeldPush]) -> Result<(), StoreError> {
        let (type_id, pushes) = (type_id.clone(), pushes.to_vec());
        self.whole(|inner| async move { inner.hold(&type_id, &pushes).await }).await
    }

    async fn unhold(&self, type_id: &TypeIdentifier, devices: &[DeviceIdentifier]) -> Result<(), StoreError> {
        let (type_id, devices) = (type_id.clone(), devices.to_vec());
        self.whole(|inner| async move { inner.unhold(&type_id, &devices).await }).await
    }

    async fn held(
        &self,
        type_id: &TypeIdentifier,
        after: Option<&PageCursor>,
        limit: usize,
    ) -> Result<HeldPage, StoreError> {
        Ok(self.inner().held_pushes(type_id, after, limit).await?)
    }
}

impl Inner {
    /// Notes the type, and that these of its buckets may have debts, unless that was done lately.
    pub(crate) async fn note(
        &self,
        type_id: &TypeIdentifier,
        buckets: impl Iterator<Item = u64>,
    ) -> Result<(), Failure> {
        let now = Instant::now();
        let wanted = [None].into_iter().chain(buckets.map(Some)).collect();
        let lacking = self.notes.lacking(type_id, wanted, now);
        if lacking.is_empty() {
            return Ok(());
        }
        self.set_notes(type_id, &lacking).await?;
        let mut set = lock(&self.notes.set);
        set.entry(type_id.clone()).or_default().extend(lacking.into_iter().map(|note| (note, now)));
        Ok(())
    }

    /// The same in any case; `None` is the type.
    pub(crate) async fn set_notes(
        &self,
        type_id: &TypeIdentifier,
        notes: &[Option<u64>],
    ) -> Result<(), Failure> {
        let mut calls = Vec::new();
        if notes.contains(&None) {
            calls.push(Call::plain("HSET", self.keys.types()).arg(type_id.as_str()).arg(1));
        }
        let buckets: Vec<u64> = notes.iter().copied().flatten().collect();
        for buckets in buckets.chunks(STEP) {
            calls.push(Call::script(&scripts::NOTE, self.keys.notes(type_id)).arg(buckets));
        }
        self.runner.write(calls).await.map(drop)
    }

    async fn mark_all_and_owe(&self, type_id: &TypeIdentifier) -> Result<(), Failure> {
        self.note(type_id, std::iter::once(0)).await?;
        let now = clock::now_micros();
        let pending = format!("{PENDING}{now}-{:x}", RandomState::new().hash_one(0));
        let begin = Call::plain("ZADD", self.keys.debts_by_age(type_id, 0)).arg(now).arg(&pending);
        self.runner.write(vec![begin]).await?;
        self.finish_marking_all(type_id, &pending).await
    }

    async fn finish_marking_all(&self, type_id: &TypeIdentifier, pending: &str) -> Result<(), Failure> {
        let mut version = clock::now_micros();
        let marks = (1..self.keys.buckets).map(|bucket| {
            let key = self.keys.bucket(type_id, bucket);
            Call::timed_at(&scripts::MARK_ALL, [key], version).arg(self.created)
        });
        for answer in self.runner.write(marks.collect()).await? {
            version = version.max(read(answer, "version")?);
        }
        let last = Call::timed_at(&scripts::MARK_ALL, self.keys.bucket_and_debts(type_id, 0), version);
        let last = last.arg(self.created).arg(version).arg(pending);
        self.runner.write(vec![last]).await.map(drop)
    }

    async fn owing(&self) -> Result<Vec<Owing>, Failure> {
        let now = Instant::now();
        let sweeps = lock(&self.notes.swept).is_none_or(|swept| now >= swept + SWEEP);
        let types = one(self.runner.read(vec![Call::plain("HKEYS", self.keys.types())]).await?);
        let types: Vec<String> = read(types, "type")?;
        let types =
            types.iter().map(|text| TypeIdentifier::new(text).map_err(|_| Failure::unreadable("type")));
        let types: Vec<TypeIdentifier> = types.collect::<Result<_, _>>()?;

        let calls = types.iter().flat_map(|type_id| {
            let first = Call::plain("ZRANGE", self.keys.held_times(type_id)).arg(&["0", "0", "WITHSCORES"]);
            let held = Call::plain("HLEN", self.keys.held(type_id));
            [Call::plain("HGETALL", self.keys.notes(type_id)), held, first]
        });
        let mut answers = self.runner.read(calls.collect()).await?.into_iter();
        let mut answer = || answers.next().unwrap_or(Value::Nil);
        let mut looks = Vec::new();
        for type_id in types {
            let notes: BTreeMap<u64, u64> = read(answer(), "note")?;
            // One field is none.
            let has_held = length(answer()) > 1;
            let next_held = first_time(answer())?.map(at);
            looks.push(async move {
                let LookedInto { debts, since } = self.look_into(&type_id, &notes, sweeps).await?;
                let owing = Owing { type_id, debts, since: since.map(at), next_held };
                Ok::<_, Failure>((has_held || debts > 0).then_some(owing))
            });
        }
        let owing = try_join_all(looks).await?.into_iter().flatten().collect();
        if sweeps {
            *lock(&self.notes.swept) = Some(now);
        }
        Ok(owing)
    }

    /// Looks into the buckets that are noted, or into all of them, and puts the notes right.
    async fn look_into(
        &self,
        type_id: &TypeIdentifier,
        notes: &BTreeMap<u64, u64>,
        all: bool,
    ) -> Result<LookedInto, Failure> {
        let buckets: Vec<u64> =
            if all { (0..self.keys.buckets).collect() } else { notes.keys().copied().collect() };
        let mut found = LookedInto::default();
        let (mut old, mut lacking) = (Vec::new(), Vec::new());
        let before = clock::now_micros().saturating_sub(NOTE_AGE);
        for buckets in buckets.chunks(STEP) {
            let calls = buckets.iter().flat_map(|bucket| {
                let key = self.keys.debts_by_age(type_id, *bucket);
                let first = Call::plain("ZRANGE", key.clone()).arg(&["0", "0", "WITHSCORES"]);
                [Call::plain("ZCARD", key), first]
            });
            let mut answers = self.runner.read(calls.collect()).await?.into_iter();
            for bucket in buckets {
                let debts = length(answers.next().unwrap_or(Value::Nil));
                let since = first_time(answers.next().unwrap_or(Value::Nil))?;
                // The two need not be of one moment.
                if debts > 0
                    && let Some(since) = since
                {
                    found.debts += debts;
                    found.since = Some(found.since.map_or(since, |other| other.min(since)));
                }
                match notes.get(bucket) {
                    None if debts > 0 => lacking.push(Some(*bucket)),
                    Some(noted) if debts == 0 && *noted < before => old.push([*bucket, *noted]),
                    _ => {}
                }
            }
        }
        self.set_notes(type_id, &lacking).await?;
        if !old.is_empty() {
            let call = Call::script(&scripts::UNNOTE, self.keys.notes(type_id))
                .arg(NOTE_AGE)
                .arg(old.as_flattened());
            // A note too many is no loss, so no replica is waited for.
            self.runner.read(vec![call]).await?;
        }
        Ok(found)
    }

    async fn lease(&self, type_id: &TypeIdentifier, worker: &str, time: Duration) -> Result<bool, Failure> {
        // Not 0, which the server refuses, nor so much that it can't count it.
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX).clamp(1, 1 << 40);
        let call = Call::script(&scripts::LEASE, self.keys.lease(type_id)).arg(worker).arg(millis);
        Ok(one(self.runner.write(vec![call]).await?) == Value::Int(1))
    }

    async fn release(&self, type_id: &TypeIdentifier, worker: &str) -> Result<(), Failure> {
        let call = Call::script(&scripts::RELEASE, self.keys.lease(type_id)).arg(worker);
        self.runner.write(vec![call]).await.map(drop)
    }

    async fn debts_of(&self, type_id: &TypeIdentifier, limit: usize) -> Result<Vec<Debt>, Failure> {
        let notes = one(self.runner.read(vec![Call::plain("HGETALL", self.keys.notes(type_id))]).await?);
        let notes: BTreeMap<u64, u64> = read(notes, "note")?;
        let counts =
            notes.keys().map(|bucket| Call::plain("ZCARD", self.keys.debts_by_age(type_id, *bucket)));
        let counts = self.runner.read(counts.collect()).await?.into_iter().map(length);
        let counts: Vec<(u64, u64)> = notes.into_keys().zip(counts).filter(|(_, count)| *count > 0).collect();

        let mut debts = self.longest_owed(type_id, &counts, limit).await?;
        let long_ago = clock::now_micros().saturating_sub(CUT_OFF);
        for pending in debts.extract_if(.., |debt| debt.field.starts_with(PENDING)) {
            if pending.since < long_ago {
                self.finish_marking_all(type_id, &pending.field).await?;
            }
        }
        debts.truncate(limit);
        self.read_debts(type_id, debts).await
    }

    /// At least the longest owed of each bucket, and about `limit` in all, the longest owed first.
    async fn longest_owed(
        &self,
        type_id: &TypeIdentifier,
        counts: &[(u64, u64)],
        limit: usize,
    ) -> Result<Vec<Aged>, Failure> {
        let total: u64 = counts.iter().map(|(_, count)| count).sum();
        let limit = u64::try_from(limit).unwrap_or(u64::MAX);
        let (mut calls, mut buckets) = (Vec::new(), Vec::new());
        for (bucket, count) in counts {
            // From each in proportion, and some more, as in one they may be older than in others.
            let share = if total <= limit {
                *count
            } else {
                (count.saturating_mul(limit) / total * 2 + 8).min(*count)
            };
            for from in (0..share).step_by(STEP) {
                let to = (from + STEP as u64).min(share) - 1;
                let key = self.keys.debts_by_age(type_id, *bucket);
                calls.push(Call::plain("ZRANGE", key).arg(from).arg(to).arg("WITHSCORES"));
                buckets.push(*bucket);
            }
        }
        let mut debts = Vec::new();
        let mut seen = HashSet::new();
        for (answer, bucket) in self.runner.read(calls).await?.into_iter().zip(buckets) {
            for (field, since) in read::<Vec<(String, f64)>>(answer, "debt")? {
                // What moved from one command's part to another's would come twice.
                if seen.insert(field.clone()) {
                    debts.push(Aged { since: since as u64, bucket, field });
                }
            }
        }
        debts.sort_by_key(|debt| debt.since);
        Ok(debts)
    }

    /// In their order, but for those that have been settled.
    async fn read_debts(&self, type_id: &TypeIdentifier, debts: Vec<Aged>) -> Result<Vec<Debt>, Failure> {
        let mut buckets: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        for (at, debt) in debts.iter().enumerate() {
            buckets.entry(debt.bucket).or_default().push(at);
        }
        let (mut calls, mut members) = (Vec::new(), Vec::new());
        for (bucket, of_bucket) in &buckets {
            for part in of_bucket.chunks(STEP) {
                let call = Call::plain("HMGET", self.keys.debts(type_id, *bucket));
                calls.push(part.iter().fold(call, |call, at| call.arg(&debts[*at].field)));
                members.push(part);
            }
        }
        let mut values: Vec<Option<String>> = vec![None; debts.len()];
        for (answer, part) in self.runner.read(calls).await?.into_iter().zip(members) {
            for (value, at) in read::<Vec<Option<String>>>(answer, "debt")?.into_iter().zip(part) {
                values[*at] = value;
            }
        }
        let debts = debts.into_iter().zip(values);
        debts.filter_map(|(debt, value)| Some(read_debt(&debt.field, &value?))).collect()
    }

    async fn advance(&self, type_id: &TypeIdentifier, reached: &[(Owed, Reached)]) -> Result<(), Failure> {
        let mut buckets: BTreeMap<u64, Vec<(&str, &Reached)>> = BTreeMap::new();
        for (owed, reached) in reached {
            let (bucket, field) = match owed {
                Owed::Pass(serial) => (self.keys.bucket_of(serial.as_str()), serial.as_str()),
                Owed::Type => (0, ALL),
            };
            buckets.entry(bucket).or_default().push((field, reached));
        }
        let mut calls = Vec::new();
        for (bucket, reached) in buckets {
            for reached in reached.chunks(STEP) {
                let call = Call::script_on(&scripts::ADVANCE, self.keys.bucket_and_debts(type_id, bucket));
                calls.push(reached.iter().fold(call, |call, (field, Reached { version, next })| {
                    let to = next.as_ref().map_or("end".into(), |next| format!("@{}", next.as_str()));
                    call.arg(*field).arg(*version).arg(to)
                }));
            }
        }
        self.runner.write(calls).await.map(drop)
    }

    async fn hold(&self, type_id: &TypeIdentifier, pushes: &[HeldPush]) -> Result<(), Failure> {
        if pushes.is_empty() {
            return Ok(());
        }
        self.note(type_id, std::iter::empty()).await?;
        let rows = pushes.iter().map(|push| {
            let due = push.due.map(|due| clock::micros(due).min(EXACT).to_string());
            (push.device.as_str(), held_value(push), due.unwrap_or_default())
        });
        self.change_held(type_id, rows.collect()).await
    }

    async fn unhold(&self, type_id: &TypeIdentifier, devices: &[DeviceIdentifier]) -> Result<(), Failure> {
        let rows = devices.iter().map(|device| (device.as_str(), String::new(), String::new()));
        self.change_held(type_id, rows.collect()).await
    }

    async fn change_held(
        &self,
        type_id: &TypeIdentifier,
        rows: Vec<(&str, String, String)>,
    ) -> Result<(), Failure> {
        let keys = [self.keys.held(type_id), self.keys.held_times(type_id)];
        for rows in rows.chunks(AT_ONCE) {
            let calls = rows.chunks(STEP).map(|rows| {
                let call = Call::script_on(&scripts::HOLD, keys.clone());
                rows.iter().fold(call, |call, (device, push, due)| call.arg(*device).arg(push).arg(due))
            });
            self.runner.write(calls.collect()).await?;
        }
        Ok(())
    }

    async fn held_pushes(
        &self,
        type_id: &TypeIdentifier,
        after: Option<&PageCursor>,
        limit: usize,
    ) -> Result<HeldPage, Failure> {
        let place = after.and_then(|cursor| cursor.as_str().split_once('-'));
        let place = place.and_then(|(cursor, after)| Some((cursor.parse().ok()?, after.to_owned())));
        let (cursor, after) = place.unwrap_or_default();
        let key = self.keys.held(type_id);
        let (rows, next) = self.page::<String>(key, cursor, after, limit.clamp(1, PAGE), "held push").await?;
        // A field with no value is no push.
        let rows = rows.iter().filter(|(_, value)| !value.is_empty());
        let pushes = rows.map(|(device, value)| read_held(device, value)).collect::<Result<_, _>>()?;
        let next = next.map(|(cursor, after)| PageCursor::new(format!("{cursor}-{after}")));
        Ok(HeldPage { pushes, next })
    }
}

#[derive(Debug, Default)]
struct LookedInto {
    debts: u64,
    since: Option<u64>,
}

/// What stands among the debts by age.
#[derive(Debug)]
struct Aged {
    since: u64,
    bucket: u64,
    field: String,
}

fn at(micros: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(micros)
}

/// The time of the first in a sorted set.
fn first_time(value: Value) -> Result<Option<u64>, Failure> {
    let first: Vec<(Vec<u8>, f64)> = read(value, "time")?;
    Ok(first.first().map(|(_, time)| *time as u64))
}

fn read_debt(field: &str, value: &str) -> Result<Debt, Failure> {
    let unreadable = || Failure::unreadable("debt");
    let mut parts = value.splitn(3, ':');
    let mut number =
        || parts.next().map(|part| keys::read_number(part.as_bytes()).ok_or_else(unreadable)).transpose();
    let (version, begun_with) = (number()?.ok_or_else(unreadable)?, number()?);
    let reached = begun_with.map(|version| {
        let cursor = parts.next().ok_or_else(unreadable)?;
        Ok::<_, Failure>(Reached { version, next: Some(PageCursor::new(cursor)) })
    });
    let owed = match field {
        ALL => Owed::Type,
        serial => Owed::Pass(SerialNumber::new(serial).map_err(|_| unreadable())?),
    };
    Ok(Debt { owed, version, reached: reached.transpose()? })
}

fn held_value(push: &HeldPush) -> String {
    let micros =
        |time: Option<SystemTime>| time.map(|time| clock::micros(time).to_string()).unwrap_or_default();
    let (due, bad_since) = (micros(push.due), micros(push.bad_since));
    format!("{due}:{}:{bad_since}:{}", push.attempts, push.push_token.as_str())
}

fn read_held(device: &str, value: &str) -> Result<HeldPush, Failure> {
    let unreadable = || Failure::unreadable("held push");
    let parts: Vec<&str> = value.splitn(4, ':').collect();
    let [due, attempts, bad_since, token] = parts[..] else { return Err(unreadable()) };
    let time = |text: &str| match text {
        "" => Ok(None),
        digits => keys::read_number(digits.as_bytes()).map(|micros| Some(at(micros))).ok_or_else(unreadable),
    };
    Ok(HeldPush {
        device: DeviceIdentifier::new(device).map_err(|_| unreadable())?,
        push_token: PushToken::new(token).map_err(|_| unreadable())?,
        due: time(due)?,
        attempts: attempts.parse().map_err(|_| unreadable())?,
        bad_since: time(bad_since)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debts_are_read() {
        let debt = |owed, version, reached: Option<(u64, &str)>| {
            let reached =
                reached.map(|(version, next)| Reached { version, next: Some(PageCursor::new(next)) });
            Debt { owed, version, reached }
        };
        let pass = || Owed::Pass(SerialNumber::new("a:b").unwrap());
        assert_eq!(read_debt("a:b", "17").unwrap(), debt(pass(), 17, None));
        assert_eq!(read_debt("a:b", "17:16:").unwrap(), debt(pass(), 17, Some((16, ""))));
        assert_eq!(read_debt(ALL, "17:16:0-:\nx").unwrap(), debt(Owed::Type, 17, Some((16, "0-:\nx"))));
        for value in ["", "x", "17:16", "17:x:y", ":16:y"] {
            assert!(read_debt("a:b", value).is_err(), "{value}");
        }
        assert!(read_debt(PENDING, "17").is_err());
    }

    #[test]
    fn held_pushes_are_read_back() {
        for (due, bad_since) in
            [(None, None), (Some(at(1)), None), (None, Some(at(2))), (Some(at(3)), Some(at(4)))]
        {
            let push = HeldPush {
                device: DeviceIdentifier::new("d").unwrap(),
                push_token: PushToken::new("c0ffee").unwrap(),
                due,
                attempts: u32::MAX,
                bad_since,
            };
            assert_eq!(read_held("d", &held_value(&push)).unwrap(), push);
        }
        for value in ["", ":1:", ":1::x", ":x::c0ffee", "x:1::c0ffee", ":1:x:c0ffee"] {
            assert!(read_held("d", value).is_err(), "{value}");
        }
    }
}
