//! What changed: marks and lists.
//!
//! Each bucket of a type has its own clock, and a mark gives its pass the next reading of its bucket's. A list brings
//! the clocks of all buckets that it touches to one reading T, each in a script that also reads the bucket's passes
//! after that, and puts T into the tag. Where the clocks are at T already, nothing is written: plain reads suffice.
//!
//! What holds for each tag (t, d) that was given to a device: every pass of the type that was registered up to d lies
//! in a bucket whose clock was t or more when its passes were read. From this follow
//!
//! * **C1**: a mark is in the answer if it came before its bucket was read, as no list leaves out what is newer than
//!   the tag it was asked with; if it came later its version is above t, and the next list has it.
//! * **C2**: T is the highest of the clocks, so nothing that was listed is newer than T, but for marks that came while
//!   the list was made; these are listed once again.
//! * **C3**: a pass registered after d is listed whatever its version is. Its bucket may be behind t; it is brought up
//!   before a tag that covers the registration is given.
//! * **C4**: clocks never go back, so T is no lower than in an earlier tag as long as one bucket is left that was
//!   touched then. Where all were exchanged, by unregistering, whatever tag the device asks with may be older than its
//!   last; so there T is no lower than the time of the registrations, which came after that tag. Where something is
//!   listed, its version or its registration is above the tag asked with, and T or the device's clock no lower than
//!   that.
//! * **C5**: a tag above T, or above the device's clock, is none. The clocks are brought above it if it may have come
//!   from a host whose clock is a little ahead, so that C4 holds as well.
//!
//! A list that touches no bucket has no serial numbers, and a tag of which all this holds for want of passes.
//!
//! A failover may lose what the replica that takes over had not. With `min_replicas` no mark and no registration that
//! was acknowledged is lost; but no clock may be either that went into a tag: what comes after it on the new master would
//! be numbered from below, and count as known to the device for ever. The same goes for a date that was given with a
//! pass. So there the answers to devices rest on what the replicas confirmed, as changes do: the clocks of the device and
//! of each bucket are written, if only as they are, in the script that reads what goes into the answer. Without
//! `min_replicas` what comes after a failover is numbered by the time, which is taken anew for each attempt, and so lies
//! above what was lost if the clocks of the hosts agree.

use std::collections::{BTreeMap, HashSet};

use passkit_server::{
    Changes, DeviceIdentifier, PassId, PassState, SerialNumber, TypeIdentifier, UpdateTag, clock,
};
use redis::Value;

use crate::{
    connection::Call,
    error::Failure,
    keys::{self, BUCKET_CLOCK, BUCKET_HEAD, CONDEMNED, DEVICE_CLOCK},
    scripts,
    store::Inner,
};

/// How far ahead of this host's clock a tag of the store's may be, in microseconds.
const SKEW: u64 = 10_000_000;

/// The most passes, or debts, or held pushes that are changed before the server must have answered.
pub(crate) const AT_ONCE: usize = 10_000;

/// The most passes that one script marks.
const MARKS: usize = 1_000;

/// The same where the pushes are owed as well, which takes longer.
pub(crate) const MARKS_AND_DEBTS: usize = 250;

impl Inner {
    pub(crate) async fn mark(
        &self,
        type_id: &TypeIdentifier,
        serials: &[SerialNumber],
        owe: bool,
    ) -> Result<(), Failure> {
        for serials in serials.chunks(AT_ONCE) {
            self.mark_at_once(type_id, serials, owe).await?;
        }
        Ok(())
    }

    async fn mark_at_once(
        &self,
        type_id: &TypeIdentifier,
        serials: &[SerialNumber],
        owe: bool,
    ) -> Result<(), Failure> {
        let mut buckets: BTreeMap<u64, HashSet<&str>> = BTreeMap::new();
        for serial in serials {
            buckets.entry(self.keys.bucket_of(serial.as_str())).or_default().insert(serial.as_str());
        }
        if owe {
            self.note(type_id, buckets.keys().copied()).await?;
        }
        let mut calls = Vec::new();
        for (bucket, serials) in buckets {
            let serials: Vec<&str> = serials.into_iter().collect();
            for serials in serials.chunks(if owe { MARKS_AND_DEBTS } else { MARKS }) {
                let keys = self.keys.bucket_and_debts(type_id, bucket);
                let keys = if owe { &keys[..] } else { &keys[..1] };
                calls.push(Call::timed(&scripts::MARK, keys).arg(self.created).arg(serials));
            }
        }
        self.runner.write(calls).await.map(drop)
    }

    /// One step for each bucket, however many passes there are. If it is cut off, some passes are marked.
    pub(crate) async fn mark_all(&self, type_id: &TypeIdentifier) -> Result<(), Failure> {
        let calls = (0..self.keys.buckets).map(|bucket| {
            Call::timed(&scripts::MARK_ALL, [self.keys.bucket(type_id, bucket)]).arg(self.created)
        });
        self.runner.write(calls.collect()).await.map(drop)
    }

    pub(crate) async fn pass_state(&self, pass: &PassId) -> Result<PassState, Failure> {
        let fields = [&BUCKET_HEAD[..], &[pass.serial.as_str()]].concat();
        let values =
            values(self.runner.read_confirmed(self.keys.bucket_with(pass), BUCKET_CLOCK, &fields).await?)?;
        let unmarked = PassState { version: 0, last_modified: self.created };
        let bucket = BucketState::read(values, &[()])?;
        Ok(bucket.states.first().map_or(unmarked, |state| PassState {
            version: state.version,
            last_modified: state.last_modified.max(self.created),
        }))
    }

    pub(crate) async fn updated_since(
        &self,
        device: &DeviceIdentifier,
        type_id: &TypeIdentifier,
        since: Option<UpdateTag>,
    ) -> Result<Changes, Failure> {
        let held = self.held(device, type_id).await?;
        let mut buckets: BTreeMap<u64, Bucket> = BTreeMap::new();
        for (serial, version) in held.passes {
            buckets.entry(self.keys.bucket_of(serial.as_str())).or_default().passes.push((serial, version));
        }
        let mut buckets: Vec<(u64, Bucket)> = buckets.into_iter().collect();
        if buckets.is_empty() {
            let tag = UpdateTag { type_version: 0, device_version: held.clock };
            return Ok(Changes { serials: Vec::new(), tag });
        }

        self.read_buckets(type_id, buckets.iter_mut().collect(), None).await?;
        let mut reading = latest(&buckets);
        let mut covered = since;
        if let Some(since) = since {
            if since.type_version > reading {
                covered = None;
                if since.type_version <= clock::now_micros() + SKEW {
                    reading = since.type_version + 1;
                }
            } else if since.device_version > held.clock {
                covered = None;
            }
        }
        if held.lost_some {
            let registered = buckets.iter().flat_map(|(_, bucket)| &bucket.passes);
            reading = registered.map(|(_, version)| *version).fold(reading, u64::max);
        }
        if self.runner.waits() {
            self.read_buckets(type_id, buckets.iter_mut().collect(), Some(reading)).await?;
            // Marks may have come in between, and what is listed must not be newer than the tag if that is the old one.
            reading = latest(&buckets);
        }
        let behind = buckets.iter_mut().filter(|(_, bucket)| bucket.state.clock < reading);
        self.read_buckets(type_id, behind.collect(), Some(reading)).await?;

        let mut serials = Vec::new();
        for (_, bucket) in buckets {
            for ((serial, registered), state) in bucket.passes.into_iter().zip(bucket.state.states) {
                let is_new = covered.is_none_or(|since| {
                    state.version > since.type_version || registered > since.device_version
                });
                if is_new {
                    serials.push(serial);
                }
            }
        }
        Ok(Changes { serials, tag: UpdateTag { type_version: reading, device_version: held.clock } })
    }

    async fn held(&self, device: &DeviceIdentifier, type_id: &TypeIdentifier) -> Result<Held, Failure> {
        let mut held = Held::default();
        let key = self.keys.device(device.as_str());
        for (field, value) in pairs(self.runner.read_confirmed(key, DEVICE_CLOCK, &[]).await?)? {
            if let Some(serial) = keys::read_field_of(&field, type_id) {
                held.passes.push((serial, keys::read_registration(&value)?));
            } else if field == DEVICE_CLOCK.as_bytes() {
                held.clock = keys::read_number(&value).ok_or(Failure::unreadable("device"))?;
            } else if field == CONDEMNED.as_bytes() {
                held.lost_some = true;
            }
        }
        Ok(held)
    }

    /// Reads buckets, after bringing their clocks up to the reading if there is one, which confirms what is read.
    async fn read_buckets(
        &self,
        type_id: &TypeIdentifier,
        mut buckets: Vec<&mut (u64, Bucket)>,
        reading: Option<u64>,
    ) -> Result<(), Failure> {
        let calls: Vec<Call> = buckets
            .iter()
            .map(|(number, bucket)| {
                let key = self.keys.bucket(type_id, *number);
                let call = match reading {
                    None => Call::plain("HMGET", key),
                    Some(reading) => Call::script(&scripts::RAISE, key).arg(reading),
                };
                let fields = bucket.passes.iter().map(|(serial, _)| serial.as_str());
                fields.fold(call.arg(&BUCKET_HEAD), Call::arg)
            })
            .collect();
        if calls.is_empty() {
            return Ok(());
        }
        let answers = match reading {
            None => self.runner.read(calls).await?,
            Some(_) => self.runner.write(calls).await?,
        };
        for ((_, bucket), answer) in buckets.iter_mut().zip(answers) {
            bucket.state = BucketState::read(values(answer)?, &bucket.passes)?;
        }
        Ok(())
    }
}

/// The highest of the buckets' clocks.
fn latest(buckets: &[(u64, Bucket)]) -> u64 {
    buckets.iter().map(|(_, bucket)| bucket.state.clock).max().unwrap_or(0)
}

/// What a device has of a type.
#[derive(Debug, Default)]
struct Held {
    clock: u64,
    /// Each with the device's clock at its making.
    passes: Vec<(SerialNumber, u64)>,
    /// Whether the device was ever unregistered from something.
    lost_some: bool,
}

#[derive(Debug, Default)]
struct Bucket {
    passes: Vec<(SerialNumber, u64)>,
    state: BucketState,
}

#[derive(Debug, Default)]
struct BucketState {
    clock: u64,
    /// One for each pass that was asked for; of one never marked, all zero.
    states: Vec<PassState>,
}

impl BucketState {
    /// From the values of [`BUCKET_HEAD`] and one for each of `passes`.
    fn read<T>(values: Vec<Option<Vec<u8>>>, passes: &[T]) -> Result<Self, Failure> {
        let unreadable = || Failure::unreadable("bucket");
        if values.len() != BUCKET_HEAD.len() + passes.len() {
            return Err(unreadable());
        }
        let mut values = values.into_iter();
        let mut number = || match values.next().flatten() {
            Some(digits) => keys::read_number(&digits).ok_or_else(unreadable),
            None => Ok(0),
        };
        let (clock, version, last_modified) = (number()?, number()?, number()?);
        let states = values.map(|value| {
            let own = value.as_deref().map(keys::read_pass).transpose()?;
            let own = own.unwrap_or(PassState { version: 0, last_modified: 0 });
            Ok(PassState {
                version: own.version.max(version),
                last_modified: own.last_modified.max(last_modified),
            })
        });
        Ok(Self { clock, states: states.collect::<Result<_, Failure>>()? })
    }
}

/// The elements of an array.
fn values(value: Value) -> Result<Vec<Option<Vec<u8>>>, Failure> {
    let Value::Array(values) = value else { return Err(Failure::unreadable("bucket")) };
    let bytes = values.into_iter().map(|value| match value {
        Value::BulkString(bytes) => Ok(Some(bytes)),
        Value::Nil => Ok(None),
        _ => Err(Failure::unreadable("bucket")),
    });
    bytes.collect()
}

/// A field and its value.
pub(crate) type Pair = (Vec<u8>, Vec<u8>);

/// The fields and values of a hash.
pub(crate) fn pairs(value: Value) -> Result<Vec<Pair>, Failure> {
    let unreadable = || Failure::unreadable("device");
    let bytes = |value| if let Value::BulkString(bytes) = value { Ok(bytes) } else { Err(unreadable()) };
    match value {
        Value::Map(pairs) => {
            pairs.into_iter().map(|(field, value)| Ok((bytes(field)?, bytes(value)?))).collect()
        }
        Value::Array(values) => {
            let mut values = values.into_iter();
            let mut pairs = Vec::with_capacity(values.len() / 2);
            while let Some(field) = values.next() {
                pairs.push((bytes(field)?, bytes(values.next().ok_or_else(unreadable)?)?));
            }
            Ok(pairs)
        }
        _ => Err(unreadable()),
    }
}
