//! Registrations: the passes of a device, and the devices of a pass or of a type.
//!
//! A registration is a field in the hash of its device. The device also has an entry in two indexes: the index of the pass and
//! the index of the type. Pages of devices are read from an index. No script can change the device and both indexes together,
//! because they are in different slots. So an index entry alone proves nothing, and every reader of an index also reads the
//! device. A superfluous entry costs a little time. A missing entry would be worse: the device would not get a push.
//!
//! # The invariant
//! **While a device is registered for a pass, it is in the index of the pass. While it is registered for a pass of a type, it
//! is in the index of the type.** Both indexes work in the same way. Each index entry belongs to a field of the device, and
//! the field contains the number of its entry. For the index of a pass, the field is the registration. For the index of a
//! type, it is the field `T`, which counts the registrations of the type. The field `T` exists while the device has a
//! registration of the type.
//!
//! * `register` first gives both entries a *new* number, above the old one. Then it writes these numbers into the fields. The
//!   number in a field never falls.
//! * `unregister` and `forget_device` first remove registrations. With the last registration of a type, they also remove the
//!   field of the type. The same script raises the *tombstone* of the device at least to the numbers in the removed fields.
//! * If a field is missing, `register` can make it only with a number above the tombstone. Otherwise the script refuses the
//!   registration, and `register` adds its entries again with numbers above the tombstone. The rule is needed because the
//!   entry may be gone when the field is made: another `register` may have given the entry a new number, and an `unregister`
//!   may then have removed the entry.
//! * `unregister` and `forget_device` remove an entry only after the tombstone was raised, and only if the entry still has the
//!   number of the removed field.
//!
//! Proof: suppose that an entry with the number n is removed while its field exists. When the tombstone was raised to n, the
//! field did not exist. So a `register` made the field later, with a number m above n. Before this `register` made the
//! field, it gave the entry the number m. The entry was not removed between these two steps, because the tombstone is raised
//! before each removal. With the higher tombstone, the script would have refused the registration. The number of an existing
//! entry never falls. So the number of the entry is at least m, and can't be n.
//!
//! A crash between two steps leaves at worst an entry without a field. Before `repair` removes such an entry, it raises the
//! tombstone too. `repair` also adds entries that a failover lost.
//!
//! A device keeps its tombstone for [`LINGER`] after its last registration was removed. A call of `register` takes much less
//! time.

use std::{
    collections::{HashMap, HashSet},
    time::SystemTime,
};

use async_trait::async_trait;
use futures_util::future::try_join_all;
use passkit_server::{
    Changed, PassId, PassState,
    identifiers::{DeviceIdentifier, PushToken, TypeIdentifier},
    maintenance::Registration,
    store::{
        Audience, Changes, Page, PageCursor, Published, Registered, RegisteredDevice,
        RegistrationStore, StoreError, StoreErrorKind, UpdateTag, clock,
    },
};

use crate::{
    changes,
    engine::{Command, Place, length, name_of_call, one, read, scripts},
    error::Error,
    layout::{self, Indexed, PUSH_TOKEN},
    store::{RedisStore, Shared},
};

/// How long a device keeps its tombstone, in seconds.
const LINGER: u64 = 3_600;

/// The maximum number of index entries to remove before waiting for the server.
const REMOVALS: usize = 1_000;

/// The maximum number of devices on a page.
const PAGE: usize = 5_000;

/// The maximum number of devices to read in one pipeline.
const DEVICES: usize = 250;

/// The maximum number of attempts to make a registration. An attempt after the first fails only if another call unregistered
/// something in between.
const TRIES: usize = 100;

/// The scripts represent integers exactly up to this number.
const EXACT: u64 = 1 << 53;

#[async_trait]
impl RegistrationStore for RedisStore {
    async fn register(
        &self,
        device: &DeviceIdentifier,
        pass: &PassId,
        push_token: &PushToken,
    ) -> Result<Registered, StoreError> {
        let one = Registration {
            device: device.clone(),
            push_token: push_token.clone(),
            pass: pass.clone(),
        };
        let created = self
            .run_to_completion(|shared| async move { shared.register(&[one]).await })
            .await?;
        Ok(if created == 1 {
            Registered::Created
        } else {
            Registered::Existing
        })
    }

    async fn unregister(
        &self,
        device: &DeviceIdentifier,
        pass: &PassId,
    ) -> Result<bool, StoreError> {
        let (device, pass) = (device.clone(), pass.clone());
        self.run_to_completion(|shared| async move { shared.unregister(&device, &pass).await })
            .await
    }

    async fn changes_since(
        &self,
        device: &DeviceIdentifier,
        type_id: &TypeIdentifier,
        since: Option<UpdateTag>,
    ) -> Result<Changes, StoreError> {
        Ok(self.shared().changes_since(device, type_id, since).await?)
    }

    async fn pass_state(&self, pass: &PassId) -> Result<PassState, StoreError> {
        Ok(self.shared().pass_state(pass).await?)
    }

    async fn mark(&self, type_id: &TypeIdentifier, changed: Changed<'_>) -> Result<(), StoreError> {
        changes::mark(self, type_id, changed, false).await
    }

    async fn published(&self, passes: &[PassId]) -> Result<Vec<Option<Published>>, StoreError> {
        Ok(self.shared().published(passes).await?)
    }

    async fn devices(
        &self,
        audience: Audience<'_>,
        after: Option<&PageCursor>,
        limit: usize,
    ) -> Result<Page<RegisteredDevice>, StoreError> {
        Ok(self.shared().devices(audience, after, limit).await?)
    }

    /// Counts the index entries of the pass. If a process ended in the middle of a call, the count may be too high until
    /// [`repair`](RedisStore::repair) runs.
    async fn count_devices(&self, pass: &PassId, at_most: u64) -> Result<u64, StoreError> {
        Ok(self
            .shared()
            .lengths(Audience::Pass(pass), 0)
            .await?
            .iter()
            .sum::<u64>()
            .min(at_most))
    }

    async fn forget_device(
        &self,
        device: &DeviceIdentifier,
        unregistered_at: SystemTime,
    ) -> Result<bool, StoreError> {
        let (device, unregistered_at) = (device.clone(), clock::micros(unregistered_at));
        self.run_to_completion(
            |shared| async move { shared.forget(&device, unregistered_at).await },
        )
        .await
    }
}

/// The entry of a device in an index, with its number.
#[derive(Clone, Debug)]
pub(crate) struct IndexEntry {
    pub(crate) of: Indexed,
    pub(crate) device: DeviceIdentifier,
    pub(crate) number: u64,
}

impl Shared {
    /// Makes the registrations. Returns how many are new.
    pub(crate) async fn register(&self, registrations: &[Registration]) -> Result<u64, Error> {
        let tokens: HashMap<&DeviceIdentifier, &PushToken> = registrations
            .iter()
            .map(|one| (&one.device, &one.push_token))
            .collect();
        let mut seen = HashSet::new();
        let mut open: Vec<&Registration> = registrations
            .iter()
            .filter(|one| seen.insert((&one.device, &one.pass)))
            .collect();
        let (mut created, mut above) = (0, 0);
        for _ in 0..TRIES {
            let of_pass = open
                .iter()
                .map(|one| (Audience::Pass(&one.pass), &one.device));
            let of_type = open
                .iter()
                .map(|one| (&one.pass.type_id, &one.device))
                .collect::<HashSet<_>>();
            let of_type = of_type
                .into_iter()
                .map(|(type_id, device)| (Audience::Type(type_id), device));
            let places: Vec<_> = of_pass.chain(of_type).collect();
            let numbers = self
                .index_add(&places, clock::now_micros().max(above))
                .await?;
            let fields = places
                .iter()
                .map(|(audience, device)| (layout::field(*audience), *device));
            let numbers: HashMap<(String, &DeviceIdentifier), u64> = fields.zip(numbers).collect();
            let mut refused = Vec::new();
            for (one, answer) in self.write_registrations(&open, &tokens, &numbers).await? {
                match answer {
                    0 | 1 => created += answer,
                    tombstone => {
                        above = above.max(tombstone + 1);
                        refused.push(one);
                    }
                }
            }
            open = refused;
            if open.is_empty() {
                return Ok(created);
            }
        }
        Err(Error::new(
            StoreErrorKind::Conflict,
            "other calls kept unregistering the same passes",
        ))
    }

    /// Adds index entries, or gives existing ones new numbers. Returns the numbers in the order of `places`.
    pub(crate) async fn index_add(
        &self,
        places: &[(Audience<'_>, &DeviceIdentifier)],
        now: u64,
    ) -> Result<Vec<u64>, Error> {
        let mut parts: HashMap<String, Vec<usize>> = HashMap::new();
        for (at, (audience, device)) in places.iter().enumerate() {
            parts
                .entry(self.keys.part_with(*audience, device))
                .or_default()
                .push(at);
        }
        let (parts, members): (Vec<String>, Vec<Vec<usize>>) = parts.into_iter().unzip();
        let calls = parts.into_iter().zip(&members).map(|(key, members)| {
            members.iter().fold(
                Command::script(&scripts::INDEX_ADD, key).arg(now),
                |call, at| call.arg(places[*at].1.as_str()),
            )
        });
        let mut numbers = vec![0; places.len()];
        for (answer, members) in self
            .runner
            .write(calls.collect())
            .await?
            .into_iter()
            .zip(members)
        {
            let added: Vec<u64> = read(answer, "index entry")?;
            members
                .into_iter()
                .zip(added)
                .for_each(|(at, number)| numbers[at] = number);
        }
        Ok(numbers)
    }

    /// Writes registrations. Returns each of them with the answer of the script.
    async fn write_registrations<'a>(
        &self,
        open: &[&'a Registration],
        tokens: &HashMap<&DeviceIdentifier, &PushToken>,
        numbers: &HashMap<(String, &DeviceIdentifier), u64>,
    ) -> Result<Vec<(&'a Registration, u64)>, Error> {
        let mut devices: HashMap<&DeviceIdentifier, Vec<&'a Registration>> = HashMap::new();
        for one in open {
            devices.entry(&one.device).or_default().push(one);
        }
        let devices: Vec<(&DeviceIdentifier, Vec<&Registration>)> = devices.into_iter().collect();
        let calls = devices.iter().map(|(device, members)| {
            let types: HashSet<&TypeIdentifier> =
                members.iter().map(|one| &one.pass.type_id).collect();
            let token = tokens.get(device).map_or("", |token| token.as_str());
            let call = Command::timed(&scripts::REGISTER, [self.keys.device(device)])
                .arg(token)
                .arg(types.len());
            let of_types = types.into_iter().map(Audience::Type);
            of_types
                .chain(members.iter().map(|one| Audience::Pass(&one.pass)))
                .fold(call, |call, audience| {
                    let place = (layout::field(audience), *device);
                    call.arg(&place.0)
                        .arg(numbers.get(&place).copied().unwrap_or(0))
                })
        });
        let mut results = Vec::with_capacity(open.len());
        for (answer, (_, members)) in self
            .runner
            .write(calls.collect())
            .await?
            .into_iter()
            .zip(&devices)
        {
            let answers: Vec<u64> = read(answer, "answer of a script")?;
            results.extend(members.iter().copied().zip(answers));
        }
        Ok(results)
    }

    /// Removes a registration. Returns whether there was one.
    async fn unregister(&self, device: &DeviceIdentifier, pass: &PassId) -> Result<bool, Error> {
        let of_pass = Indexed::Pass(pass.clone());
        let of_type = Indexed::Type(pass.type_id.clone());
        let entry = |of: &Indexed, number| IndexEntry {
            of: of.clone(),
            device: device.clone(),
            number,
        };
        let call = Command::script(&scripts::UNREGISTER, self.keys.device(device))
            .arg(layout::field(of_pass.audience()))
            .arg(layout::field(of_type.audience()))
            .arg(LINGER)
            .arg(name_of_call());
        let removed: Option<(u64, String)> =
            read(one(self.runner.write(vec![call]).await?), "registration")?;
        if let Some((number, of_last)) = removed {
            let last = (!of_last.is_empty()).then(|| of_last.parse()).transpose();
            let last = last.map_err(|_| Error::unreadable("index entry"))?;
            let mut entries = vec![entry(&of_pass, number)];
            entries.extend(last.map(|number| entry(&of_type, number)));
            self.index_remove(&entries).await?;
            return Ok(true);
        }
        // An earlier call may have been interrupted before it removed the entries.
        let indexes = [of_pass, of_type];
        let calls = indexes.iter().map(|of| {
            Command::plain("HGET", self.keys.part_with(of.audience(), device)).arg(device.as_str())
        });
        let mut left = Vec::new();
        for (answer, of) in self
            .runner
            .read(calls.collect())
            .await?
            .into_iter()
            .zip(&indexes)
        {
            let number: Option<u64> = read(answer, "index entry")?;
            left.extend(number.map(|number| entry(of, number)));
        }
        self.remove_superfluous(&left).await?;
        Ok(false)
    }

    /// Removes a device and its registrations if it last registered at or before this time (microseconds).
    async fn forget(&self, device: &DeviceIdentifier, at: u64) -> Result<bool, Error> {
        let call = Command::script(&scripts::FORGET, self.keys.device(device))
            .arg(at.min(EXACT))
            .arg(LINGER)
            .arg(name_of_call());
        let removed: Option<Vec<(String, u64)>> =
            read(one(self.runner.write(vec![call]).await?), "registration")?;
        let Some(removed) = removed else {
            return Ok(false);
        };
        let entries = removed.into_iter().filter_map(|(field, number)| {
            Some(IndexEntry {
                of: layout::read_field(&field)?,
                device: device.clone(),
                number,
            })
        });
        for entries in entries.collect::<Vec<_>>().chunks(REMOVALS) {
            self.index_remove(entries).await?;
        }
        Ok(true)
    }

    /// Removes the entries whose field does not exist. Returns how many it removed.
    pub(crate) async fn remove_superfluous(&self, entries: &[IndexEntry]) -> Result<u64, Error> {
        let calls = entries.iter().map(|IndexEntry { of, device, number }| {
            Command::script(&scripts::TOMBSTONE, self.keys.device(device))
                .arg(layout::field(of.audience()))
                .arg(*number)
                .arg(LINGER)
        });
        let mut superfluous = Vec::new();
        for (answer, entry) in self
            .runner
            .write(calls.collect())
            .await?
            .into_iter()
            .zip(entries)
        {
            if read::<u64>(answer, "answer of a script")? == 1 {
                superfluous.push(entry.clone());
            }
        }
        self.index_remove(&superfluous).await?;
        Ok(superfluous.len() as u64)
    }

    async fn index_remove(&self, entries: &[IndexEntry]) -> Result<(), Error> {
        let calls = entries.iter().map(|IndexEntry { of, device, number }| {
            let part = self.keys.part_with(of.audience(), device);
            Command::script(&scripts::INDEX_REMOVE, part)
                .arg(device.as_str())
                .arg(*number)
        });
        // A superfluous entry does no harm, so this does not wait for replicas.
        self.runner.read(calls.collect()).await.map(drop)
    }

    /// Returns the number of entries in each part of an index, starting at the part `from`.
    async fn lengths(&self, audience: Audience<'_>, from: u64) -> Result<Vec<u64>, Error> {
        let parts = from..layout::parts(audience);
        let calls = parts.map(|part| Command::plain("HLEN", self.keys.part(audience, part)));
        Ok(self
            .runner
            .read(calls.collect())
            .await?
            .iter()
            .map(length)
            .collect())
    }

    async fn devices(
        &self,
        audience: Audience<'_>,
        after: Option<&PageCursor>,
        limit: usize,
    ) -> Result<Page<RegisteredDevice>, Error> {
        let limit = limit.clamp(1, PAGE);
        let parts = layout::parts(audience);
        let start = after
            .and_then(|cursor| IndexPosition::read(cursor.as_str(), parts))
            .unwrap_or_default();
        let first = start.part;
        // Most passes are on few devices, so most parts are empty. This round trip shows which parts have entries.
        let lengths = self.lengths(audience, first).await?;
        let mut next = Some(start);
        let mut items = Vec::new();
        while items.len() < limit
            && let Some(IndexPosition { part, place }) = next.take()
        {
            let behind = (part + 1 < parts).then(|| IndexPosition {
                part: part + 1,
                place: Place::default(),
            });
            if lengths[(part - first) as usize] == 0 {
                next = behind;
                continue;
            }
            let key = self.keys.part(audience, part);
            let (entries, then) = self
                .runner
                .page::<u64>(key, place, limit - items.len(), "index entry")
                .await?;
            next = then.map(|place| IndexPosition { part, place }).or(behind);
            let devices = entries.into_iter().map(|(device, _)| device).collect();
            items.extend(self.only_registered(audience, devices).await?);
        }
        Ok(Page {
            items,
            next: next.map(|place| PageCursor::new(place.to_string())),
        })
    }

    /// Reads these devices. Returns those that are registered for the audience.
    async fn only_registered(
        &self,
        audience: Audience<'_>,
        devices: Vec<String>,
    ) -> Result<Vec<RegisteredDevice>, Error> {
        let unreadable = |_| Error::unreadable("index entry");
        let devices: Vec<DeviceIdentifier> = devices
            .iter()
            .map(|text| DeviceIdentifier::new(text).map_err(unreadable))
            .collect::<Result<_, _>>()?;
        let field = layout::field(audience);
        let chunks = devices.chunks(DEVICES).map(|devices| {
            let calls = devices.iter().map(|device| {
                Command::plain("HMGET", self.keys.device(device))
                    .arg(PUSH_TOKEN)
                    .arg(&field)
            });
            self.runner.read(calls.collect())
        });
        let answers = try_join_all(chunks).await?;
        let mut registered = Vec::with_capacity(devices.len());
        for (device, answer) in devices.into_iter().zip(answers.into_iter().flatten()) {
            let (token, found): (Option<String>, Option<Vec<u8>>) = read(answer, "device")?;
            if let (Some(token), Some(_)) = (token, found) {
                let push_token =
                    PushToken::new(&token).map_err(|_| Error::unreadable("push token"))?;
                registered.push(RegisteredDevice { device, push_token });
            }
        }
        Ok(registered)
    }
}

/// The position where a page of devices ends: a part of an index, and a place in this part.
#[derive(Debug, Default, PartialEq)]
struct IndexPosition {
    part: u64,
    place: Place,
}

impl IndexPosition {
    fn read(text: &str, parts: u64) -> Option<Self> {
        let (part, place) = text.split_once('-')?;
        let part = part.parse().ok().filter(|part| *part < parts)?;
        Some(Self {
            part,
            place: Place::read(place)?,
        })
    }
}

impl std::fmt::Display for IndexPosition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.part, self.place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_in_an_index_are_read_back() {
        for text in ["0-0-", "7-18446744073709551615-a-b~"] {
            assert_eq!(IndexPosition::read(text, 8).unwrap().to_string(), text);
        }
        assert_eq!(
            IndexPosition::read("8-0-", 9),
            Some(IndexPosition {
                part: 8,
                place: Place::default()
            })
        );
        for text in ["", "0", "0-0", "8-0-", "x-0-", "-1-0-"] {
            assert_eq!(IndexPosition::read(text, 8), None, "{text}");
        }
    }
}
