//! Marks, lists of changes, and published content.
//!
//! # Marks and lists
//! Each bucket of a type has its own clock. A mark advances the clock of the bucket that contains the pass. The new value of
//! the clock is the version of the pass. A list advances the clocks of all buckets that it reads to one common value T, and
//! puts T into the tag. For each bucket, one script advances the clock and then reads the passes. If all clocks are at T
//! already, plain reads are enough.
//!
//! A tag (t, d) contains the value t of the buckets' clocks and the value d of the device's clock. Each tag that a device got
//! has this property: if a pass of the type was registered when the device's clock was at most d, then the clock of the pass's
//! bucket was at least t when the bucket was read. The rules follow from this property:
//!
//! * **C1**: A mark is in the answer if it was made before its bucket was read, unless the tag of the request already covers
//!   the mark. A later mark has a version above t, so it is in the next answer.
//! * **C2**: Nothing in the answer is newer than T, because T is the highest of the clocks. The only exception is a mark that
//!   is made while the list is read. The next answer contains this mark again.
//! * **C3**: A pass that was registered after d is in the answer, whatever its version. The clock of its bucket may be below
//!   t. The store advances that clock before the device gets a tag that covers the registration.
//! * **C4**: Tags never go back, because clocks never go back. If a list reads a bucket that an earlier list has read, T is at
//!   least the t of the earlier tag. If the device has unregistered from all passes of the earlier buckets, the list reads
//!   none of these buckets. In this case, the current registrations are newer than the earlier tag, and the store raises T to
//!   the time of the newest registration. If the answer has serial numbers, the version of each pass is above the t of the
//!   request, or its registration is above the d of the request. T is at least as high as the version, and the device's clock
//!   is at least as high as the registration.
//! * **C5**: If t is above T, or d is above the device's clock, the tag counts as no tag. The tag may come from a host whose
//!   clock is slightly ahead. In that case, the store advances the clocks above t, so that C4 holds.
//!
//! If a device has no passes of the type, no bucket is read, and the answer has no serial numbers.
//!
//! # Published content
//! The hash of a bucket contains the last mark of each pass and the digest of its content, so that one command reads the state
//! of a pass. A second hash in the same slot contains the tokens, and records whether the pass is removed. One script compares
//! the new digest with the old one, changes both hashes, and makes the change pending if the call sends pushes.
//!
//! # Failover
//! A failover loses what the new master has not received. With `min_replicas`, no acknowledged mark or registration is lost.
//! The value of a clock in a tag must not be lost either. Otherwise the new master would give later changes lower versions,
//! and no list of the device would contain these changes. The same is true for dates. So the replicas must confirm everything
//! that an answer shows before a device gets the answer. Replicas confirm only writes. So the script that reads a device or a
//! bucket also writes its clock, even if the clock does not change. Without `min_replicas`, a failover may set a clock back.
//! So each attempt to mark or to register sends the current wall-clock time, and the clock advances at least to that time. If
//! the wall clocks of the hosts agree, the new values are higher than the lost ones.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use passkit_server::{
    Changed, PassId, PassState,
    identifiers::{DeviceIdentifier, SerialNumber, TokenDigest, TypeIdentifier},
    store::{
        Changes, Content, ContentDigest, Published, StoreError, UpdateTag, clock, unite_tokens,
    },
};
use redis::Value;

use crate::{
    engine::{Command, name_of_call, pairs, read, scripts, values},
    error::Error,
    layout::{self, BUCKET_CLOCK, BUCKET_HEAD, DEVICE_CLOCK, TOMBSTONE, UNDER_WAY},
    store::{RedisStore, Shared},
};

/// A tag can't come from this store if the tag is ahead of this host's clock by more than this number of microseconds.
const SKEW: u64 = 10_000_000;

/// The maximum number of passes to mark before waiting for the server.
const AT_ONCE: usize = 10_000;

/// The maximum number of passes that one script marks.
const MARKS: usize = 1_000;

/// The maximum number of passes that one script marks with pushes or content, which takes longer.
const SLOW_MARKS: usize = 250;

/// The maximum number of passes whose published content one script reads.
const PUBLISHED: usize = 1_000;

/// Marks what changed. With `pushes`, also makes the pushes pending.
pub(crate) async fn mark(
    store: &RedisStore,
    type_id: &TypeIdentifier,
    changed: Changed<'_>,
    pushes: bool,
) -> Result<(), StoreError> {
    let type_id = type_id.clone();
    match changed {
        Changed::Passes([]) | Changed::Contents([]) => Ok(()),
        Changed::Passes(serials) => {
            let marks = serials
                .iter()
                .collect::<HashSet<_>>()
                .into_iter()
                .cloned()
                .map(Mark::Pass)
                .collect();
            store
                .run_to_completion(|shared| mark_passes(shared, type_id, marks, pushes))
                .await
        }
        Changed::Contents(contents) => {
            let marks = contents.iter().cloned().map(Mark::Content).collect();
            store
                .run_to_completion(|shared| mark_passes(shared, type_id, marks, pushes))
                .await
        }
        Changed::All => {
            store
                .run_to_completion(|shared| async move {
                    if pushes {
                        shared.mark_all_and_push(&type_id).await
                    } else {
                        shared.mark_all(&type_id).await
                    }
                })
                .await
        }
    }
}

/// A pass to mark, or content to compare with the content published last. The pass is marked if they differ.
#[derive(Debug)]
enum Mark {
    Pass(SerialNumber),
    Content(Content),
}

impl Mark {
    fn serial(&self) -> &SerialNumber {
        match self {
            Self::Pass(serial) => serial,
            Self::Content(content) => &content.serial,
        }
    }

    /// Appends the arguments that `mark.lua` expects.
    fn append_to(&self, call: Command) -> Command {
        let call = call.arg(self.serial().as_str());
        let Self::Content(Content { digest, tokens, .. }) = self else {
            return call;
        };
        let tokens = unite_tokens(&[], tokens)
            .iter()
            .flat_map(|token| *token.as_bytes())
            .collect::<Vec<u8>>();
        call.arg(digest.as_ref().map_or(&[][..], |digest| &digest[..]))
            .arg(tokens)
    }
}

async fn mark_passes(
    shared: Arc<Shared>,
    type_id: TypeIdentifier,
    marks: Vec<Mark>,
    pushes: bool,
) -> Result<(), Error> {
    for marks in marks.chunks(AT_ONCE) {
        shared.mark_at_once(&type_id, marks, pushes).await?;
    }
    Ok(())
}

impl Shared {
    async fn mark_at_once(
        &self,
        type_id: &TypeIdentifier,
        marks: &[Mark],
        pushes: bool,
    ) -> Result<(), Error> {
        let mut buckets: BTreeMap<u64, Vec<&Mark>> = BTreeMap::new();
        for mark in marks {
            buckets
                .entry(self.keys.bucket_of(mark.serial()))
                .or_default()
                .push(mark);
        }
        if pushes {
            self.dirty
                .mark(&self.runner, &self.keys, type_id, buckets.keys().copied())
                .await?;
        }
        let of_contents = matches!(marks, [Mark::Content(_), ..]);
        let kept_tokens = if of_contents {
            Published::MAX_TOKENS
        } else {
            0
        };
        let step = if of_contents || pushes {
            SLOW_MARKS
        } else {
            MARKS
        };
        let mut calls = Vec::new();
        for (bucket, marks) in buckets {
            for marks in marks.chunks(step) {
                let mut keys = vec![
                    self.keys.bucket(type_id, bucket),
                    self.keys.published(type_id, bucket),
                ];
                if pushes {
                    keys.extend([
                        self.keys.pending(type_id, bucket),
                        self.keys.pending_by_age(type_id, bucket),
                    ]);
                }
                let call = Command::timed(&scripts::MARK, keys)
                    .arg(self.created)
                    .arg(kept_tokens);
                calls.push(marks.iter().fold(call, |call, mark| mark.append_to(call)));
            }
        }
        self.runner.write(calls).await.map(drop)
    }

    /// Marks all passes of the type. The call takes one step for each bucket, for any number of passes. If it is interrupted,
    /// only some passes are marked.
    async fn mark_all(&self, type_id: &TypeIdentifier) -> Result<(), Error> {
        let calls = (0..self.keys.buckets).map(|bucket| {
            Command::timed(&scripts::MARK_ALL, [self.keys.bucket(type_id, bucket)])
                .arg(self.created)
        });
        self.runner.write(calls.collect()).await.map(drop)
    }

    /// Marks all passes of the type and makes a push of the whole type pending. [`queue`](crate::queue) describes the steps.
    async fn mark_all_and_push(&self, type_id: &TypeIdentifier) -> Result<(), Error> {
        self.dirty
            .mark(&self.runner, &self.keys, type_id, std::iter::once(0))
            .await?;
        let now = clock::now_micros();
        let under_way = format!("{UNDER_WAY}{now}-{}", name_of_call());
        let begin = Command::plain("ZADD", self.keys.pending_by_age(type_id, 0))
            .arg(now)
            .arg(&under_way);
        self.runner.write(vec![begin]).await?;
        self.finish_marking_all(type_id, &under_way).await
    }

    pub(crate) async fn finish_marking_all(
        &self,
        type_id: &TypeIdentifier,
        under_way: &str,
    ) -> Result<(), Error> {
        let mut version = clock::now_micros();
        let marks = (1..self.keys.buckets).map(|bucket| {
            let key = self.keys.bucket(type_id, bucket);
            Command::timed_at(&scripts::MARK_ALL, [key], version).arg(self.created)
        });
        for answer in self.runner.write(marks.collect()).await? {
            version = version.max(read(answer, "version")?);
        }
        let last = Command::timed_at(
            &scripts::MARK_ALL,
            self.keys.bucket_and_pending(type_id, 0),
            version,
        );
        let last = last.arg(self.created).arg(version).arg(under_way);
        self.runner.write(vec![last]).await.map(drop)
    }

    pub(crate) async fn pass_state(&self, pass: &PassId) -> Result<PassState, Error> {
        let content = layout::content_field(&pass.serial);
        let fields = [&BUCKET_HEAD[..], &[pass.serial.as_str(), &content]].concat();
        let key = self.keys.bucket_with(pass);
        let mut fields = values(
            self.runner
                .read_confirmed(key, BUCKET_CLOCK, &fields)
                .await?,
            BUCKET,
        )?;
        let published = fields.pop().flatten().map(digest).transpose()?;
        let bucket = BucketState::read(fields, 1)?;
        let last = bucket.marks.first().copied().unwrap_or_default();
        Ok(PassState {
            version: last.version,
            last_modified: last.last_modified.max(self.created),
            published,
        })
    }

    /// Reads all buckets at the same time, each once.
    pub(crate) async fn published(
        &self,
        passes: &[PassId],
    ) -> Result<Vec<Option<Published>>, Error> {
        let mut buckets: BTreeMap<(&TypeIdentifier, u64), Vec<usize>> = BTreeMap::new();
        for (at, pass) in passes.iter().enumerate() {
            buckets
                .entry((&pass.type_id, self.keys.bucket_of(&pass.serial)))
                .or_default()
                .push(at);
        }
        let (mut calls, mut members) = (Vec::new(), Vec::new());
        for ((type_id, bucket), of_bucket) in &buckets {
            for part in of_bucket.chunks(PUBLISHED) {
                let keys = [
                    self.keys.bucket(type_id, *bucket),
                    self.keys.published(type_id, *bucket),
                ];
                let call = Command::script_on(&scripts::PUBLISHED, keys)
                    .arg(u8::from(self.runner.waits()));
                calls.push(
                    part.iter()
                        .fold(call, |call, at| call.arg(passes[*at].serial.as_str())),
                );
                members.push(part);
            }
        }
        let answers = if self.runner.waits() {
            self.runner.write(calls).await?
        } else {
            self.runner.read(calls).await?
        };
        let mut published = vec![None; passes.len()];
        for (answer, part) in answers.into_iter().zip(members) {
            let [digests, others]: [Value; 2] = read(answer, PUBLISHED_CONTENT)?;
            let (digests, others) = (
                values(digests, PUBLISHED_CONTENT)?,
                values(others, PUBLISHED_CONTENT)?,
            );
            for ((at, digest), other) in part.iter().zip(digests).zip(others) {
                published[*at] = read_published(digest, other)?;
            }
        }
        Ok(published)
    }

    pub(crate) async fn changes_since(
        &self,
        device: &DeviceIdentifier,
        type_id: &TypeIdentifier,
        since: Option<UpdateTag>,
    ) -> Result<Changes, Error> {
        let registered = self.registered(device, type_id).await?;
        let mut buckets: BTreeMap<u64, Bucket> = BTreeMap::new();
        for (serial, version) in registered.passes {
            buckets
                .entry(self.keys.bucket_of(&serial))
                .or_default()
                .passes
                .push((serial, version));
        }
        let mut buckets: Vec<(u64, Bucket)> = buckets.into_iter().collect();
        if buckets.is_empty() {
            let tag = UpdateTag {
                type_version: 0,
                device_version: registered.clock,
            };
            return Ok(Changes {
                serials: Vec::new(),
                tag,
            });
        }

        self.read_buckets(type_id, buckets.iter_mut().collect(), None)
            .await?;
        let mut reading = latest(&buckets);
        let mut covered = since;
        if let Some(since) = since {
            if since.type_version > reading {
                covered = None;
                if since.type_version <= clock::now_micros() + SKEW {
                    reading = since.type_version + 1;
                }
            } else if since.device_version > registered.clock {
                covered = None;
            }
        }
        if registered.lost_some {
            let passes = buckets.iter().flat_map(|(_, bucket)| &bucket.passes);
            reading = passes.map(|(_, version)| *version).fold(reading, u64::max);
        }
        if self.runner.waits() {
            self.read_buckets(type_id, buckets.iter_mut().collect(), Some(reading))
                .await?;
            // Other calls may have marked passes in between. A pass in the list must not be newer than the tag.
            reading = latest(&buckets);
        }
        let behind = buckets
            .iter_mut()
            .filter(|(_, bucket)| bucket.state.clock < reading);
        self.read_buckets(type_id, behind.collect(), Some(reading))
            .await?;

        let mut serials = Vec::new();
        for (_, bucket) in buckets {
            for ((serial, registered), mark) in bucket.passes.into_iter().zip(bucket.state.marks) {
                let is_new = covered.is_none_or(|since| {
                    mark.version > since.type_version || registered > since.device_version
                });
                if is_new {
                    serials.push(serial);
                }
            }
        }
        Ok(Changes {
            serials,
            tag: UpdateTag {
                type_version: reading,
                device_version: registered.clock,
            },
        })
    }

    async fn registered(
        &self,
        device: &DeviceIdentifier,
        type_id: &TypeIdentifier,
    ) -> Result<OfDevice, Error> {
        let mut of_device = OfDevice::default();
        let all = self
            .runner
            .read_confirmed(self.keys.device(device), DEVICE_CLOCK, &[])
            .await?;
        for (field, value) in pairs(all, DEVICE)? {
            if let Some(serial) = layout::read_field_of(&field, type_id) {
                of_device
                    .passes
                    .push((serial, layout::read_registration(&value)?));
            } else if field == DEVICE_CLOCK.as_bytes() {
                of_device.clock = layout::read_number(&value).ok_or(Error::unreadable(DEVICE))?;
            } else if field == TOMBSTONE.as_bytes() {
                of_device.lost_some = true;
            }
        }
        Ok(of_device)
    }

    /// Reads buckets. If `reading` is not `None`, first advances the clocks of the buckets to this value. That is a write,
    /// so the replicas confirm what is read.
    async fn read_buckets(
        &self,
        type_id: &TypeIdentifier,
        mut buckets: Vec<&mut (u64, Bucket)>,
        reading: Option<u64>,
    ) -> Result<(), Error> {
        let calls: Vec<Command> = buckets
            .iter()
            .map(|(number, bucket)| {
                let key = self.keys.bucket(type_id, *number);
                let call = match reading {
                    None => Command::plain("HMGET", key),
                    Some(reading) => Command::script(&scripts::ADVANCE_CLOCK, key).arg(reading),
                };
                let fields = bucket.passes.iter().map(|(serial, _)| serial.as_str());
                fields.fold(call.arg(&BUCKET_HEAD), Command::arg)
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
            bucket.state = BucketState::read(values(answer, BUCKET)?, bucket.passes.len())?;
        }
        Ok(())
    }
}

const BUCKET: &str = "bucket";
const DEVICE: &str = "device";
const PUBLISHED_CONTENT: &str = "published content";

/// Returns the highest clock of the buckets.
fn latest(buckets: &[(u64, Bucket)]) -> u64 {
    buckets
        .iter()
        .map(|(_, bucket)| bucket.state.clock)
        .max()
        .unwrap_or(0)
}

/// The registrations of a device for a type.
#[derive(Debug, Default)]
struct OfDevice {
    clock: u64,
    /// The passes, each with the value of the device's clock at its registration.
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
    /// The last marks of the requested passes, in the order of the passes.
    marks: Vec<LastMark>,
}

/// The version and date of a pass. Both are 0 if the pass was never marked.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct LastMark {
    version: u64,
    last_modified: u64,
}

impl LastMark {
    fn read(value: &[u8]) -> Option<Self> {
        let at = value.iter().position(|byte| *byte == b':')?;
        let (version, last_modified) = (
            layout::read_number(&value[..at])?,
            layout::read_number(&value[at + 1..])?,
        );
        Some(Self {
            version,
            last_modified,
        })
    }
}

impl BucketState {
    /// Parses the values of the fields [`BUCKET_HEAD`] and of `passes` passes.
    fn read(values: Vec<Option<Vec<u8>>>, passes: usize) -> Result<Self, Error> {
        let unreadable = || Error::unreadable(BUCKET);
        if values.len() != BUCKET_HEAD.len() + passes {
            return Err(unreadable());
        }
        let mut values = values.into_iter();
        let mut number = || match values.next().flatten() {
            Some(digits) => layout::read_number(&digits).ok_or_else(unreadable),
            None => Ok(0),
        };
        let (clock, version, last_modified) = (number()?, number()?, number()?);
        let marks = values.map(|value| {
            let own = value
                .map(|value| LastMark::read(&value).ok_or_else(unreadable))
                .transpose()?;
            let own = own.unwrap_or_default();
            Ok(LastMark {
                version: own.version.max(version),
                last_modified: own.last_modified.max(last_modified),
            })
        });
        Ok(Self {
            clock,
            marks: marks.collect::<Result<_, Error>>()?,
        })
    }
}

fn digest(bytes: Vec<u8>) -> Result<ContentDigest, Error> {
    ContentDigest::try_from(bytes).map_err(|_| Error::unreadable(PUBLISHED_CONTENT))
}

/// Parses the two values of a published pass. The first value is the digest. The second value is a sign (`-` if the pass is
/// removed, otherwise `+`), and then the tokens.
fn read_published(
    content: Option<Vec<u8>>,
    other: Option<Vec<u8>>,
) -> Result<Option<Published>, Error> {
    if content.is_none() && other.is_none() {
        return Ok(None);
    }
    let digest = content.map(digest).transpose()?;
    let unreadable = || Error::unreadable(PUBLISHED_CONTENT);
    let other = other.unwrap_or_else(|| b"+".to_vec());
    let (removed, bytes) = match other.split_first().ok_or_else(unreadable)? {
        (b'-', bytes) => (true, bytes),
        (b'+', bytes) => (false, bytes),
        _ => return Err(unreadable()),
    };
    let (tokens, rest) = bytes.as_chunks::<32>();
    if !rest.is_empty() {
        return Err(unreadable());
    }
    Ok(Some(Published {
        digest,
        tokens: tokens
            .iter()
            .copied()
            .map(TokenDigest::from_bytes)
            .collect(),
        removed,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_read() {
        assert_eq!(
            LastMark::read(b"17:5"),
            Some(LastMark {
                version: 17,
                last_modified: 5
            })
        );
        for value in ["17", "1:2:3", "1:x", ":", ""] {
            assert_eq!(LastMark::read(value.as_bytes()), None, "{value}");
        }
    }

    #[test]
    fn published_contents_are_read() {
        let read = |digest: Option<&[u8]>, other: Option<&[u8]>| {
            read_published(digest.map(<[u8]>::to_vec), other.map(<[u8]>::to_vec))
        };
        assert_eq!(read(None, None).unwrap(), None);
        let tokens = [b"+".as_slice(), &[1; 32], &[2; 32]].concat();
        let expected = Published {
            digest: Some([7; 32]),
            tokens: [1, 2]
                .map(|byte| TokenDigest::from_bytes([byte; 32]))
                .to_vec(),
            removed: false,
        };
        assert_eq!(read(Some(&[7; 32]), Some(&tokens)).unwrap(), Some(expected));
        let removed = Published {
            removed: true,
            ..Published::default()
        };
        assert_eq!(read(None, Some(b"-")).unwrap(), Some(removed));
        for (digest, other) in [
            (Some(&b"short"[..]), Some(&b"+"[..])),
            (None, Some(b"")),
            (None, Some(b"x")),
            (None, Some(&tokens[..40])),
        ] {
            assert!(read(digest, other).is_err(), "{digest:?} {other:?}");
        }
    }
}
