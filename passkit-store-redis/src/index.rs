//! Registrations: the devices of a pass, and the passes of a device.
//!
//! A registration stands in two places that no script can change together: with its device, which is the truth, and
//! with its pass, which is a hint of where to look. Every reader of hints asks the truth, so a hint too many costs a
//! look, but one too few would cost a push. So a register sets the hint, then writes the registration; an unregister
//! removes the registration, then the hint, and
//!
//! * every register sets a *new* hint, a number above the one that stood there, and keeps it in the registration;
//! * an unregister removes the hint only if it is still the one of the registration it removed;
//! * and it condemns that hint in the device: a registration whose hint is not above the condemned one is refused, and
//!   its register sets a new hint. Otherwise a register whose hint was overwritten by a second one, made and removed
//!   in between, would end with no hint.
//!
//! So when a hint h is removed, the registration that stands, if any, came after h was condemned, and thus with a hint
//! above h, which was set before and is still there. What is condemned outlasts the device by [`LINGER`]: much longer
//! than a register can be under way.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
};

use futures_util::future::try_join_all;
use passkit_server::{
    DeviceIdentifier, DevicePage, PageCursor, PassId, PushToken, RegisteredDevice, Registration,
    StoreErrorKind, clock,
};
use redis::Value;

use crate::{
    connection::Call,
    error::Failure,
    keys::{self, PARTS, PUSH_TOKEN},
    scripts,
    store::Inner,
};

/// In seconds.
const LINGER: u64 = 3_600;

/// The most entries asked of the server at a time.
const SCAN: usize = 1_000;

/// The most devices of a page.
const PAGE: usize = 5_000;

/// Each refusal needs an unregister in between.
const ATTEMPTS: usize = 100;

impl Inner {
    /// Makes the registrations; says of each whether it is new.
    pub(crate) async fn register(&self, registrations: &[Registration]) -> Result<Vec<bool>, Failure> {
        let mut created = vec![false; registrations.len()];
        let mut open: Vec<usize> = (0..registrations.len()).collect();
        let mut above = 0;
        for _ in 0..ATTEMPTS {
            let hints = self.set_hints(registrations, &open, clock::now_micros().max(above)).await?;
            let mut refused = Vec::new();
            for (at, answer) in self.write_registrations(registrations, &open, &hints).await? {
                match answer {
                    0 | 1 => created[at] = answer == 1,
                    condemned => {
                        above = above.max(condemned + 1);
                        refused.push(at);
                    }
                }
            }
            refused.sort_unstable();
            open = refused;
            if open.is_empty() {
                return Ok(created);
            }
        }
        Err(Failure::new(StoreErrorKind::Conflict, "others kept unregistering what was being registered"))
    }

    /// The new hint of each.
    pub(crate) async fn set_hints(
        &self,
        registrations: &[Registration],
        open: &[usize],
        now: u64,
    ) -> Result<HashMap<usize, u64>, Failure> {
        let mut parts: HashMap<String, Vec<usize>> = HashMap::new();
        for at in open {
            let Registration { device, pass, .. } = &registrations[*at];
            parts.entry(self.keys.part_with(pass, device)).or_default().push(*at);
        }
        let (parts, members): (Vec<String>, Vec<Vec<usize>>) = parts.into_iter().unzip();
        let calls = parts.into_iter().zip(&members).map(|(key, members)| {
            members.iter().fold(Call::script(&scripts::HINT, key).arg(now), |call, at| {
                call.arg(registrations[*at].device.as_str())
            })
        });
        let mut hints = HashMap::with_capacity(open.len());
        for (answer, members) in self.runner.write(calls.collect()).await?.into_iter().zip(members) {
            let set: Vec<u64> = read(answer, "hint")?;
            hints.extend(members.into_iter().zip(set));
        }
        Ok(hints)
    }

    async fn write_registrations(
        &self,
        registrations: &[Registration],
        open: &[usize],
        hints: &HashMap<usize, u64>,
    ) -> Result<Vec<(usize, u64)>, Failure> {
        let mut devices: HashMap<&str, Vec<usize>> = HashMap::new();
        for at in open {
            devices.entry(registrations[*at].device.as_str()).or_default().push(*at);
        }
        let devices: Vec<(&str, Vec<usize>)> = devices.into_iter().collect();
        let calls = devices.iter().map(|(device, members)| {
            // In their order, so the last push token stays.
            let token = members.last().map_or("", |at| registrations[*at].push_token.as_str());
            let call = Call::timed(&scripts::REGISTER, [self.keys.device(device)]).arg(token);
            members.iter().fold(call, |call, at| {
                call.arg(keys::field(&registrations[*at].pass)).arg(hints.get(at).copied().unwrap_or(0))
            })
        });
        let mut results = Vec::with_capacity(open.len());
        for (answer, (_, members)) in self.runner.write(calls.collect()).await?.into_iter().zip(&devices) {
            let answers: Vec<u64> = read(answer, "answer of a script")?;
            results.extend(members.iter().copied().zip(answers));
        }
        Ok(results)
    }

    /// Removes a registration; says whether there was one.
    pub(crate) async fn unregister(&self, device: &DeviceIdentifier, pass: &PassId) -> Result<bool, Failure> {
        let call = Call::script(&scripts::UNREGISTER, self.keys.device(device.as_str()))
            .arg(keys::field(pass))
            .arg(LINGER)
            .arg(name_of_call());
        let hint: Option<u64> = read(one(self.runner.write(vec![call]).await?), "registration")?;
        if let Some(hint) = hint {
            self.remove_hints(&[(pass.clone(), device.clone(), hint)]).await?;
            return Ok(true);
        }
        // An earlier call may have been cut off between the two.
        let call = Call::plain("HGET", self.keys.part_with(pass, device)).arg(device.as_str());
        let hint: Option<u64> = read(one(self.runner.read(vec![call]).await?), "hint")?;
        if let Some(hint) = hint {
            self.remove_idle_hints(&[(pass.clone(), device.clone(), hint)]).await?;
        }
        Ok(false)
    }

    /// Removes a device that last registered at or before this time (microseconds), with all that it has.
    pub(crate) async fn forget(&self, device: &DeviceIdentifier, at: u64) -> Result<bool, Failure> {
        // Numbers of scripts are exact up to here.
        let at = at.min(1 << 53);
        let call = Call::script(&scripts::FORGET, self.keys.device(device.as_str()))
            .arg(at)
            .arg(LINGER)
            .arg(name_of_call());
        let removed: Option<Vec<(String, u64)>> =
            read(one(self.runner.write(vec![call]).await?), "registration")?;
        let Some(removed) = removed else { return Ok(false) };
        let hints: Vec<_> = removed
            .into_iter()
            .filter_map(|(field, hint)| Some((keys::read_field(&field)?, device.clone(), hint)))
            .collect();
        for hints in hints.chunks(SCAN) {
            self.remove_hints(hints).await?;
        }
        Ok(true)
    }

    /// Removes hints behind which no registration stands, unless one comes first; returns how many.
    pub(crate) async fn remove_idle_hints(
        &self,
        hints: &[(PassId, DeviceIdentifier, u64)],
    ) -> Result<u64, Failure> {
        let calls = hints.iter().map(|(pass, device, hint)| {
            Call::script(&scripts::CONDEMN, self.keys.device(device.as_str()))
                .arg(keys::field(pass))
                .arg(*hint)
                .arg(LINGER)
        });
        let mut idle = Vec::new();
        for (answer, hint) in self.runner.write(calls.collect()).await?.into_iter().zip(hints) {
            if read::<u64>(answer, "answer of a script")? == 1 {
                idle.push(hint.clone());
            }
        }
        self.remove_hints(&idle).await?;
        Ok(idle.len() as u64)
    }

    async fn remove_hints(&self, hints: &[(PassId, DeviceIdentifier, u64)]) -> Result<(), Failure> {
        let calls = hints.iter().map(|(pass, device, hint)| {
            Call::script(&scripts::UNHINT, self.keys.part_with(pass, device)).arg(device.as_str()).arg(*hint)
        });
        // A hint too many is no loss, so no replica is waited for.
        self.runner.read(calls.collect()).await.map(drop)
    }

    pub(crate) async fn devices_of(
        &self,
        pass: &PassId,
        after: Option<&PageCursor>,
        limit: usize,
    ) -> Result<DevicePage, Failure> {
        let limit = limit.clamp(1, PAGE);
        let start = after.and_then(|cursor| Place::read(cursor.as_str())).unwrap_or_default();
        let mut next = Some(start);
        let mut found = Vec::new();
        // Most passes are on few devices: one question tells which parts there are.
        let lengths = (0..PARTS).map(|part| Call::plain("HLEN", self.keys.part(pass, part)));
        let lengths: Vec<u64> = self.runner.read(lengths.collect()).await?.into_iter().map(length).collect();
        while found.len() < limit
            && let Some(place) = next.take()
        {
            if lengths[place.part as usize] == 0 {
                next = place.next_part();
                continue;
            }
            let (hints, then) = self.hints(pass, place, limit - found.len()).await?;
            next = then;
            found.extend(self.registered(pass, hints).await?);
        }
        Ok(DevicePage { devices: found, next: next.map(|place| PageCursor::new(place.to_string())) })
    }

    /// Some devices from this place on, about `limit` of them, and the place behind them.
    async fn hints(
        &self,
        pass: &PassId,
        place: Place,
        limit: usize,
    ) -> Result<(Vec<String>, Option<Place>), Failure> {
        let Place { part, cursor, after } = place;
        let key = self.keys.part(pass, part);
        let (hints, next) = self.page::<u64>(key, cursor, after, limit, "hint").await?;
        let devices = hints.into_iter().map(|(device, _)| device).collect();
        let next = match next {
            Some((cursor, after)) => Some(Place { part, cursor, after }),
            None => Place { part, ..Place::default() }.next_part(),
        };
        Ok((devices, next))
    }

    /// About `limit` entries of a hash, from a place on, and the place behind them.
    pub(crate) async fn page<V: redis::FromRedisValue>(
        &self,
        key: String,
        cursor: u64,
        after: String,
        limit: usize,
        what: &'static str,
    ) -> Result<Page<V>, Failure> {
        let (next, mut entries) = self.scan(key, cursor, limit, what).await?;
        if cursor != 0 || next != 0 {
            return Ok((entries, (next != 0).then(|| (next, String::new()))));
        }
        // The server gives a small hash whole, however much was asked for.
        entries.retain(|(field, _)| *field > after);
        entries.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        if entries.len() <= limit {
            return Ok((entries, None));
        }
        entries.truncate(limit);
        let after = entries.last().map_or_else(String::new, |(field, _)| field.clone());
        Ok((entries, Some((0, after))))
    }

    /// A step through a hash.
    pub(crate) async fn scan<V: redis::FromRedisValue>(
        &self,
        key: String,
        cursor: u64,
        count: usize,
        what: &'static str,
    ) -> Result<(u64, Vec<(String, V)>), Failure> {
        let call = Call::plain("HSCAN", key).arg(cursor).arg("COUNT").arg(count.min(SCAN));
        read(one(self.runner.read(vec![call]).await?), what)
    }

    /// Those of the devices that are registered for the pass.
    async fn registered(
        &self,
        pass: &PassId,
        devices: Vec<String>,
    ) -> Result<Vec<RegisteredDevice>, Failure> {
        let field = keys::field(pass);
        let chunks = devices.chunks(250).map(|devices| {
            let calls = devices
                .iter()
                .map(|device| Call::plain("HMGET", self.keys.device(device)).arg(PUSH_TOKEN).arg(&field));
            self.runner.read(calls.collect())
        });
        let answers = try_join_all(chunks).await?;
        let mut registered = Vec::with_capacity(devices.len());
        for (device, answer) in devices.iter().zip(answers.into_iter().flatten()) {
            let (token, held): (Option<String>, Option<Vec<u8>>) = read(answer, "device")?;
            if let (Some(token), Some(_)) = (token, held) {
                registered.push(RegisteredDevice {
                    device: DeviceIdentifier::new(device).map_err(|_| Failure::unreadable("device"))?,
                    push_token: PushToken::new(&token).map_err(|_| Failure::unreadable("push token"))?,
                });
            }
        }
        Ok(registered)
    }
}

/// Some entries of a hash, and where the next begin.
type Page<V> = (Vec<(String, V)>, Option<(u64, String)>);

/// Where a page of devices ends: in a part, at a cursor of the server's, or, in a part that comes whole, at a device.
#[derive(Debug, Default, PartialEq)]
struct Place {
    part: u64,
    cursor: u64,
    after: String,
}

impl Place {
    fn read(text: &str) -> Option<Self> {
        let mut fields = text.splitn(3, '-');
        let part = fields.next()?.parse().ok().filter(|part| *part < PARTS)?;
        let cursor = fields.next()?.parse().ok()?;
        Some(Self { part, cursor, after: fields.next()?.to_owned() })
    }

    fn next_part(self) -> Option<Self> {
        (self.part + 1 < PARTS).then_some(Self { part: self.part + 1, ..Self::default() })
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}-{}", self.part, self.cursor, self.after)
    }
}

/// Tells a call from all others, so that its script knows that it runs again.
fn name_of_call() -> String {
    format!("{:x}", RandomState::new().hash_one(0))
}

/// The only answer.
pub(crate) fn one(answers: Vec<Value>) -> Value {
    answers.into_iter().next().unwrap_or(Value::Nil)
}

pub(crate) fn read<T: redis::FromRedisValue>(value: Value, what: &'static str) -> Result<T, Failure> {
    redis::from_redis_value(value).map_err(|_| Failure::unreadable(what))
}

pub(crate) fn length(value: Value) -> u64 {
    if let Value::Int(length) = value { u64::try_from(length).unwrap_or(0) } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_back() {
        for place in [Place::default(), Place { part: 7, cursor: u64::MAX, after: "a-b~".into() }] {
            assert_eq!(Place::read(&place.to_string()), Some(place));
        }
        for text in ["", "0", "0-0", "8-0-", "x-0-", "-1-0-"] {
            assert_eq!(Place::read(text), None, "{text}");
        }
    }
}
