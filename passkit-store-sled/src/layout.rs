//! All keys and values in the tree of the database.
//!
//! | key | value |
//! |---|---|
//! | `m` | the format's version (1 byte), the time of creation (8) |
//! | `t` type | the type's clock (8), the version (8) and date (8) of the last mark of the whole type, the latest date of any pass (8) |
//! | `d` device | the device's clock (8), its push token with its length (2), and its [`Registrations`] |
//! | `r` device NUL type NUL serial | the device's clock at the registration (8); exists only if the device has many registrations |
//! | `p` type NUL serial NUL device | empty; the index of all registrations by pass |
//! | `s` type NUL serial | the version (8) and date (8) of the pass's last mark, and the digest (32) published last if there is one |
//! | `c` type NUL serial | the published content of the pass, see [`encode_published`] |
//! | `o` type NUL serial | a pending change: the version of the first mark that is pending (8), the version of the last mark (8), and the version (8) and cursor of its progress, if any. The serial number is empty for the whole type |
//! | `a` type NUL since (8) serial | empty; the index of all pending changes by age |
//! | `h` type NUL device | a deferred push, see [`encode_deferred`] |
//! | `e` type NUL due (8) device | empty; the index of all deferred pushes that have a due time, by that time |
//! | `q` type | the number of pending changes (8) and deferred pushes (8) of the type; exists only if there are any |
//! | `l` kind NUL type NUL name NUL event | a delivery record: its version (8), count (8), last time (8) and detail. The kind of the subject is `pass`, `device` or `type`. Its name is a serial number, a device or empty |
//! | `g` time (8) kind NUL type NUL name NUL event | empty; the index of all delivery records by their last time |
//! | `n` name | a note |
//!
//! The numbers in brackets are sizes in bytes. Numbers are big-endian. Versions are microseconds since the Unix epoch, and
//! dates are seconds. No identifier contains a NUL, so all keys differ. A pass that was never marked has no row `s`. The digest
//! is in `s` as well as in `c`, so that the state of a pass is one small row. One batch writes both.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use passkit_server::{
    PassId, PassState,
    delivery::Subject,
    identifiers::{DeviceIdentifier, PushToken, SerialNumber, TokenDigest, TypeIdentifier},
    push::{DeferredPush, Progress, Scope},
    store::{ContentDigest, PageCursor, Published, clock},
};

use crate::error::SledError;

/// The format that this version writes, and the only one it reads.
pub(crate) const FORMAT: u8 = 1;

/// The key of the row that describes the store itself.
pub(crate) const STORE: &[u8] = b"m";

/// The prefix of all types.
pub(crate) const TYPES: &[u8] = b"t";

/// The prefix of all devices. A device follows.
pub(crate) const DEVICES: &[u8] = b"d";

/// The prefix of all registrations by pass. [`read_registration`] reads what follows.
pub(crate) const DEVICES_OF: &[u8] = b"p";

/// The prefix of all published passes. [`read_pass`] reads what follows.
pub(crate) const PUBLISHED: &[u8] = b"c";

/// The prefix of all counts of pending changes and deferred pushes. A type follows.
pub(crate) const QUEUES: &[u8] = b"q";

/// The prefix of all delivery records by their time. A time follows.
pub(crate) const DELIVERIES_BY_AGE: &[u8] = b"g";

/// The size of a time in a key, in bytes.
pub(crate) const TIME_BYTES: usize = 8;

/// Returns whether this is the key of a device or of the state of a pass. Calls of phones read these rows by key.
pub(crate) fn is_asked_alone(key: &[u8]) -> bool {
    matches!(key.first(), Some(b'd' | b's'))
}

fn key(table: u8, parts: &[&str]) -> Vec<u8> {
    let length = parts.iter().map(|part| part.len() + 1).sum::<usize>();
    let mut key = Vec::with_capacity(1 + length);
    key.push(table);
    for (i, part) in parts.iter().enumerate() {
        if i > 0 {
            key.push(0);
        }
        key.extend_from_slice(part.as_bytes());
    }
    key
}

pub(crate) fn type_row(type_id: &TypeIdentifier) -> Vec<u8> {
    key(b't', &[type_id.as_str()])
}

pub(crate) fn device(device: &DeviceIdentifier) -> Vec<u8> {
    key(b'd', &[device.as_str()])
}

pub(crate) fn registration(device: &DeviceIdentifier, pass: &PassId) -> Vec<u8> {
    key(
        b'r',
        &[device.as_str(), pass.type_id.as_str(), pass.serial.as_str()],
    )
}

/// The prefix of a device's registrations of one type. A serial number follows.
pub(crate) fn registrations_of_type(
    device: &DeviceIdentifier,
    type_id: &TypeIdentifier,
) -> Vec<u8> {
    key(b'r', &[device.as_str(), type_id.as_str(), ""])
}

/// The prefix of all registrations of a device. A type, NUL and a serial number follow.
pub(crate) fn registrations(device: &DeviceIdentifier) -> Vec<u8> {
    key(b'r', &[device.as_str(), ""])
}

pub(crate) fn device_of(pass: &PassId, device: &DeviceIdentifier) -> Vec<u8> {
    key(
        b'p',
        &[pass.type_id.as_str(), pass.serial.as_str(), device.as_str()],
    )
}

/// The prefix of the registrations of a type. A serial number, NUL and a device follow.
pub(crate) fn devices_of_type(type_id: &TypeIdentifier) -> Vec<u8> {
    key(b'p', &[type_id.as_str(), ""])
}

/// The prefix of the registrations of a pass. A device follows.
pub(crate) fn devices_of(pass: &PassId) -> Vec<u8> {
    key(b'p', &[pass.type_id.as_str(), pass.serial.as_str(), ""])
}

pub(crate) fn pass(type_id: &TypeIdentifier, serial: &SerialNumber) -> Vec<u8> {
    key(b's', &[type_id.as_str(), serial.as_str()])
}

pub(crate) fn published(type_id: &TypeIdentifier, serial: &SerialNumber) -> Vec<u8> {
    key(b'c', &[type_id.as_str(), serial.as_str()])
}

pub(crate) fn pending(type_id: &TypeIdentifier, scope: &Scope) -> Vec<u8> {
    key(b'o', &[type_id.as_str(), scope_text(scope)])
}

/// Returns the serial number, or an empty text for a type. No serial number is empty.
fn scope_text(scope: &Scope) -> &str {
    match scope {
        Scope::Pass(serial) => serial.as_str(),
        Scope::Type => "",
    }
}

/// The prefix of a type's pending changes by age. A time and a serial number follow.
pub(crate) fn pending_by_age(type_id: &TypeIdentifier) -> Vec<u8> {
    key(b'a', &[type_id.as_str(), ""])
}

pub(crate) fn pending_since(type_id: &TypeIdentifier, since: u64, scope: &Scope) -> Vec<u8> {
    [
        &pending_by_age(type_id)[..],
        &since.to_be_bytes(),
        scope_text(scope).as_bytes(),
    ]
    .concat()
}

/// The prefix of a type's deferred pushes. A device follows.
pub(crate) fn deferred_of(type_id: &TypeIdentifier) -> Vec<u8> {
    key(b'h', &[type_id.as_str(), ""])
}

pub(crate) fn deferred(type_id: &TypeIdentifier, device: &DeviceIdentifier) -> Vec<u8> {
    key(b'h', &[type_id.as_str(), device.as_str()])
}

/// The prefix of a type's deferred pushes by time. A time and a device follow.
pub(crate) fn deferred_by_time(type_id: &TypeIdentifier) -> Vec<u8> {
    key(b'e', &[type_id.as_str(), ""])
}

pub(crate) fn deferred_until(
    type_id: &TypeIdentifier,
    due: u64,
    device: &DeviceIdentifier,
) -> Vec<u8> {
    [
        &deferred_by_time(type_id)[..],
        &due.to_be_bytes(),
        device.as_str().as_bytes(),
    ]
    .concat()
}

pub(crate) fn queue(type_id: &TypeIdentifier) -> Vec<u8> {
    key(b'q', &[type_id.as_str()])
}

/// The prefix of the delivery records of a subject. The name of an event follows.
pub(crate) fn deliveries(subject: &Subject) -> Vec<u8> {
    let (kind, type_id, name) = subject.parts();
    key(b'l', &[kind, type_id, name, ""])
}

/// Returns the key in the index of the delivery record with the key `record`.
pub(crate) fn delivery_at(at: u64, record: &[u8]) -> Vec<u8> {
    let rest = record.get(1..).unwrap_or_default();
    [DELIVERIES_BY_AGE, &at.to_be_bytes(), rest].concat()
}

/// Returns the time and the key of the record that a key in the index is about.
pub(crate) fn read_delivery_at(key: &[u8]) -> Result<(u64, Vec<u8>), SledError> {
    let mut rest = key.get(DELIVERIES_BY_AGE.len()..).unwrap_or_default();
    let at = number(&mut rest, "time")?;
    Ok((at, [b"l", rest].concat()))
}

pub(crate) fn note(name: &str) -> Vec<u8> {
    key(b'n', &[name])
}

/// Reads the time that follows the prefix of a key.
pub(crate) fn read_time(mut rest: &[u8]) -> Result<u64, SledError> {
    number(&mut rest, "time")
}

pub(crate) fn read_scope(rest: &[u8]) -> Result<Scope, SledError> {
    Ok(if rest.is_empty() {
        Scope::Type
    } else {
        Scope::Pass(read_serial(rest)?)
    })
}

/// Reads a text in a key or a value.
pub(crate) fn text<'k>(rest: &'k [u8], what: &'static str) -> Result<&'k str, SledError> {
    std::str::from_utf8(rest).map_err(|_| SledError::unreadable(what))
}

pub(crate) fn read_type(rest: &[u8]) -> Result<TypeIdentifier, SledError> {
    const WHAT: &str = "type identifier";
    TypeIdentifier::new(text(rest, WHAT)?).map_err(|_| SledError::unreadable(WHAT))
}

pub(crate) fn read_serial(rest: &[u8]) -> Result<SerialNumber, SledError> {
    const WHAT: &str = "serial number";
    SerialNumber::new(text(rest, WHAT)?).map_err(|_| SledError::unreadable(WHAT))
}

pub(crate) fn read_device(rest: &[u8]) -> Result<DeviceIdentifier, SledError> {
    const WHAT: &str = "device identifier";
    DeviceIdentifier::new(text(rest, WHAT)?).map_err(|_| SledError::unreadable(WHAT))
}

/// Reads the type, NUL and serial number after the prefix [`registrations`].
pub(crate) fn read_pass(rest: &[u8]) -> Result<PassId, SledError> {
    let nul = rest
        .iter()
        .position(|b| *b == 0)
        .ok_or_else(|| SledError::unreadable("registration"))?;
    Ok(PassId {
        type_id: read_type(&rest[..nul])?,
        serial: read_serial(&rest[nul + 1..])?,
    })
}

/// Reads the type and the serial number after [`DEVICES_OF`], as bytes.
pub(crate) fn read_registration(rest: &[u8]) -> Result<(&[u8], &[u8]), SledError> {
    let mut parts = rest.split(|b| *b == 0);
    match (parts.next(), parts.next(), parts.next()) {
        (Some(type_id), Some(serial), Some(_)) => Ok((type_id, serial)),
        _ => Err(SledError::unreadable("registration")),
    }
}

/// Reads the device at the end of a key.
pub(crate) fn read_last_device(key: &[u8]) -> Result<DeviceIdentifier, SledError> {
    read_device(key.rsplit(|b| *b == 0).next().unwrap_or_default())
}

/// Removes a number from the start of a value and returns it.
fn number(value: &mut &[u8], what: &'static str) -> Result<u64, SledError> {
    let (number, rest) = value
        .split_first_chunk()
        .ok_or_else(|| SledError::unreadable(what))?;
    *value = rest;
    Ok(u64::from_be_bytes(*number))
}

fn end(value: &[u8], what: &'static str) -> Result<(), SledError> {
    if value.is_empty() {
        Ok(())
    } else {
        Err(SledError::unreadable(what))
    }
}

/// The row that describes the store itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StoreRow {
    pub(crate) format: u8,
    /// When the store was created. It is the date of every pass that was never marked.
    pub(crate) created: u64,
}

impl StoreRow {
    pub(crate) fn encode(self) -> Vec<u8> {
        [&[self.format][..], &self.created.to_be_bytes()].concat()
    }

    /// Reads the row. If the format is not [`FORMAT`], reads only the format.
    pub(crate) fn decode(value: &[u8]) -> Result<Self, SledError> {
        const WHAT: &str = "row about the store";
        let (&format, mut rest) = value
            .split_first()
            .ok_or_else(|| SledError::unreadable(WHAT))?;
        if format != FORMAT {
            return Ok(Self { format, created: 0 });
        }
        let row = Self {
            format,
            created: number(&mut rest, WHAT)?,
        };
        end(rest, WHAT)?;
        Ok(row)
    }
}

/// The version and date that a mark gives to a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) version: u64,
    pub(crate) last_modified: u64,
}

/// The clock of a type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TypeRow {
    pub(crate) version: u64,
    /// The last mark of the whole type. It applies to each pass whose own mark is older.
    pub(crate) floor: Mark,
    /// The latest date that any pass of the type has.
    pub(crate) latest_date: u64,
}

impl TypeRow {
    /// Returns the clock of a type that was never marked, in a store created at `created`.
    pub(crate) fn unmarked(created: u64) -> Self {
        Self {
            version: 0,
            floor: Mark {
                version: 0,
                last_modified: created,
            },
            latest_date: created,
        }
    }

    pub(crate) fn encode(self) -> Vec<u8> {
        [
            self.version,
            self.floor.version,
            self.floor.last_modified,
            self.latest_date,
        ]
        .map(u64::to_be_bytes)
        .concat()
    }

    pub(crate) fn decode(mut value: &[u8]) -> Result<Self, SledError> {
        const WHAT: &str = "clock of a type";
        let value = &mut value;
        let version = number(value, WHAT)?;
        let floor = Mark {
            version: number(value, WHAT)?,
            last_modified: number(value, WHAT)?,
        };
        let latest_date = number(value, WHAT)?;
        end(value, WHAT)?;
        Ok(Self {
            version,
            floor,
            latest_date,
        })
    }
}

/// A device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DeviceRow<'v> {
    pub(crate) version: u64,
    /// The text of the push token. It is validated only when it is used.
    pub(crate) push_token: &'v [u8],
    pub(crate) registrations: Registrations<'v>,
}

/// A device's registrations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Registrations<'v> {
    /// The registrations are in the row itself. Nearly every device has only a few registrations, so one row is enough to
    /// read the device.
    Few(Few<'v>),
    /// The number of registrations, if each has a separate row. The device is removed when this number becomes 0, so no scan
    /// for other registrations is needed.
    Many(u32),
}

/// The registrations in the row of a device. Each has the device's clock (8), the length of the type (1), the type, the
/// length of the serial number (2), and the serial number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Few<'v>(&'v [u8]);

/// The maximum size of the registrations in the row of a device, in bytes. About eighteen registrations fit.
pub(crate) const FEW_BYTES: usize = 1024;

impl<'v> DeviceRow<'v> {
    const WHAT: &'static str = "device";

    pub(crate) fn encode(&self) -> Vec<u8> {
        let token = self.push_token;
        let mut row = Vec::with_capacity(8 + 2 + token.len() + 1 + FEW_BYTES);
        row.extend_from_slice(&self.version.to_be_bytes());
        // A push token has at most 400 bytes of printable ASCII, see `PushToken`.
        row.extend_from_slice(&(token.len() as u16).to_be_bytes());
        row.extend_from_slice(token);
        match self.registrations {
            Registrations::Few(few) => {
                row.push(0);
                row.extend_from_slice(few.0);
            }
            Registrations::Many(count) => {
                row.push(1);
                row.extend_from_slice(&count.to_be_bytes());
            }
        }
        row
    }

    pub(crate) fn decode(mut value: &'v [u8]) -> Result<Self, SledError> {
        let unreadable = || SledError::unreadable(Self::WHAT);
        let version = number(&mut value, Self::WHAT)?;
        let (length, rest) = value.split_first_chunk().ok_or_else(unreadable)?;
        let (token, rest) = rest
            .split_at_checked(u16::from_be_bytes(*length).into())
            .ok_or_else(unreadable)?;
        let registrations = match rest {
            [0, few @ ..] => Registrations::Few(Few(few)),
            [1, count @ ..] => Registrations::Many(u32::from_be_bytes(
                count.try_into().map_err(|_| unreadable())?,
            )),
            _ => return Err(unreadable()),
        };
        Ok(Self {
            version,
            push_token: token,
            registrations,
        })
    }

    pub(crate) fn push_token(&self) -> Result<PushToken, SledError> {
        PushToken::new(text(self.push_token, Self::WHAT)?)
            .map_err(|_| SledError::unreadable(Self::WHAT))
    }
}

impl<'v> Few<'v> {
    /// Returns the type, serial number and version of each registration.
    pub(crate) fn iter(self) -> impl Iterator<Item = Result<(&'v [u8], &'v [u8], u64), SledError>> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let one = take_one(&mut rest).ok_or_else(|| SledError::unreadable(DeviceRow::WHAT));
            if one.is_err() {
                rest = &[];
            }
            Some(one)
        })
    }

    /// Returns the registrations without the one for `pass`, and whether there was one.
    pub(crate) fn without(self, pass: &PassId) -> Result<(Vec<u8>, bool), SledError> {
        let mut others = Vec::with_capacity(FEW_BYTES);
        let mut found = false;
        for one in self.iter() {
            let (type_id, serial, version) = one?;
            if type_id == pass.type_id.as_str().as_bytes()
                && serial == pass.serial.as_str().as_bytes()
            {
                found = true;
            } else {
                append(&mut others, type_id, serial, version);
            }
        }
        Ok((others, found))
    }

    /// The bytes must come from [`add`](Self::add) or [`without`](Self::without).
    pub(crate) fn new(few: &'v [u8]) -> Self {
        Self(few)
    }

    pub(crate) fn add(few: &mut Vec<u8>, pass: &PassId, version: u64) {
        append(
            few,
            pass.type_id.as_str().as_bytes(),
            pass.serial.as_str().as_bytes(),
            version,
        );
    }
}

fn append(few: &mut Vec<u8>, type_id: &[u8], serial: &[u8], version: u64) {
    few.extend_from_slice(&version.to_be_bytes());
    // A type has at most 128 bytes, and a serial number at most 512 bytes: see `TypeIdentifier` and `SerialNumber`.
    few.push(type_id.len() as u8);
    few.extend_from_slice(type_id);
    few.extend_from_slice(&(serial.len() as u16).to_be_bytes());
    few.extend_from_slice(serial);
}

/// Removes a registration from the start and returns it.
fn take_one<'v>(rest: &mut &'v [u8]) -> Option<(&'v [u8], &'v [u8], u64)> {
    let (version, tail) = rest.split_first_chunk()?;
    let (&length, tail) = tail.split_first()?;
    let (type_id, tail) = tail.split_at_checked(length.into())?;
    let (length, tail) = tail.split_first_chunk()?;
    let (serial, tail) = tail.split_at_checked(u16::from_be_bytes(*length).into())?;
    *rest = tail;
    Some((type_id, serial, u64::from_be_bytes(*version)))
}

pub(crate) fn encode_registration(version: u64) -> Vec<u8> {
    version.to_be_bytes().to_vec()
}

pub(crate) fn decode_registration(mut value: &[u8]) -> Result<u64, SledError> {
    const WHAT: &str = "registration";
    let version = number(&mut value, WHAT)?;
    end(value, WHAT)?;
    Ok(version)
}

pub(crate) fn encode_pass(state: &PassState) -> Vec<u8> {
    let mut row = [state.version, state.last_modified]
        .map(u64::to_be_bytes)
        .concat();
    row.extend(state.published.iter().flatten());
    row
}

pub(crate) fn decode_pass(mut value: &[u8]) -> Result<PassState, SledError> {
    const WHAT: &str = "state of a pass";
    let value = &mut value;
    let (version, last_modified) = (number(value, WHAT)?, number(value, WHAT)?);
    let published = if value.is_empty() {
        None
    } else {
        Some(digest(value, WHAT)?)
    };
    end(value, WHAT)?;
    Ok(PassState {
        version,
        last_modified,
        published,
    })
}

/// Removes a digest from the start of a value and returns it.
fn digest(value: &mut &[u8], what: &'static str) -> Result<[u8; 32], SledError> {
    let (digest, rest) = value
        .split_first_chunk()
        .ok_or_else(|| SledError::unreadable(what))?;
    *value = rest;
    Ok(*digest)
}

/// Encodes whether the pass is removed (1), whether a digest follows (1), the digest (32), and the digests of the tokens (32
/// each).
pub(crate) fn encode_published(published: &Published) -> Vec<u8> {
    let Published {
        digest,
        tokens,
        removed,
    } = published;
    let mut row = Vec::with_capacity(2 + size_of::<ContentDigest>() + 32 * tokens.len());
    row.push(u8::from(*removed));
    row.push(u8::from(digest.is_some()));
    row.extend(digest.iter().flatten());
    row.extend(tokens.iter().flat_map(TokenDigest::as_bytes));
    row
}

pub(crate) fn decode_published(value: &[u8]) -> Result<Published, SledError> {
    const WHAT: &str = "published content";
    let (&[removed, has_digest], mut rest) = value
        .split_first_chunk()
        .ok_or_else(|| SledError::unreadable(WHAT))?;
    let rest = &mut rest;
    let own = if has_digest == 1 {
        Some(digest(rest, WHAT)?)
    } else {
        None
    };
    let mut tokens = Vec::new();
    while !rest.is_empty() {
        tokens.push(TokenDigest::from_bytes(digest(rest, WHAT)?));
    }
    Ok(Published {
        digest: own,
        tokens,
        removed: removed == 1,
    })
}

/// A pending change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PendingRow {
    /// The version of the first mark whose pushes are pending.
    pub(crate) since: u64,
    pub(crate) version: u64,
    /// The cursor of the progress is never `None`, because a change that is done has no row.
    pub(crate) progress: Option<Progress>,
}

impl PendingRow {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut row = [self.since, self.version].map(u64::to_be_bytes).concat();
        if let Some(Progress {
            version,
            next: Some(next),
        }) = &self.progress
        {
            row.extend_from_slice(&version.to_be_bytes());
            row.extend_from_slice(next.as_str().as_bytes());
        }
        row
    }

    pub(crate) fn decode(mut value: &[u8]) -> Result<Self, SledError> {
        const WHAT: &str = "pending change";
        let value = &mut value;
        let (since, version) = (number(value, WHAT)?, number(value, WHAT)?);
        let progress = if value.is_empty() {
            None
        } else {
            let version = number(value, WHAT)?;
            Some(Progress {
                version,
                next: Some(PageCursor::new(text(value, WHAT)?)),
            })
        };
        Ok(Self {
            since,
            version,
            progress,
        })
    }
}

/// The number of pending changes and deferred pushes of a type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct QueueRow {
    pub(crate) pending: u64,
    pub(crate) deferred: u64,
}

impl QueueRow {
    pub(crate) fn encode(self) -> Vec<u8> {
        [self.pending, self.deferred].map(u64::to_be_bytes).concat()
    }

    pub(crate) fn decode(mut value: &[u8]) -> Result<Self, SledError> {
        const WHAT: &str = "count of pending pushes";
        let value = &mut value;
        let row = Self {
            pending: number(value, WHAT)?,
            deferred: number(value, WHAT)?,
        };
        end(value, WHAT)?;
        Ok(row)
    }
}

/// Encodes the number of attempts (4), the due time, the time since which the push token is bad, and the push token. A time
/// is the byte 1 and the microseconds (8), or the byte 0 if there is none.
pub(crate) fn encode_deferred(push: &DeferredPush) -> Vec<u8> {
    let mut row = push.attempts.to_be_bytes().to_vec();
    for time in [push.due, push.bad_since] {
        row.push(u8::from(time.is_some()));
        row.extend(
            time.into_iter()
                .flat_map(|time| clock::micros(time).to_be_bytes()),
        );
    }
    row.extend_from_slice(push.push_token.as_str().as_bytes());
    row
}

pub(crate) fn decode_deferred(value: &[u8]) -> Result<DeferredPush, SledError> {
    const WHAT: &str = "deferred push";
    let unreadable = || SledError::unreadable(WHAT);
    let (attempts, mut rest) = value.split_first_chunk().ok_or_else(unreadable)?;
    let mut time = || -> Result<Option<SystemTime>, SledError> {
        let (&is_there, tail) = rest.split_first().ok_or_else(unreadable)?;
        rest = tail;
        if is_there == 0 {
            return Ok(None);
        }
        Ok(Some(
            UNIX_EPOCH + Duration::from_micros(number(&mut rest, WHAT)?),
        ))
    };
    let (due, bad_since) = (time()?, time()?);
    let push_token = PushToken::new(text(rest, WHAT)?).map_err(|_| unreadable())?;
    Ok(DeferredPush {
        push_token,
        due,
        attempts: u32::from_be_bytes(*attempts),
        bad_since,
    })
}

/// The part of a delivery record that is in the value of a row. The key has the rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DeliveryRow {
    pub(crate) version: u64,
    pub(crate) count: u64,
    pub(crate) at: u64,
    pub(crate) detail: String,
}

impl DeliveryRow {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let numbers = [self.version, self.count, self.at].map(u64::to_be_bytes);
        [numbers.as_flattened(), self.detail.as_bytes()].concat()
    }

    pub(crate) fn decode(mut value: &[u8]) -> Result<Self, SledError> {
        const WHAT: &str = "delivery record";
        let value = &mut value;
        Ok(Self {
            version: number(value, WHAT)?,
            count: number(value, WHAT)?,
            at: number(value, WHAT)?,
            detail: text(value, WHAT)?.to_owned(),
        })
    }
}

pub(crate) fn decode_note(value: &[u8]) -> Result<String, SledError> {
    Ok(text(value, "note")?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_read_back() {
        let store = StoreRow {
            format: FORMAT,
            created: 7,
        };
        assert_eq!(StoreRow::decode(&store.encode()).unwrap(), store);
        assert_eq!(StoreRow::decode(&[9, 1, 2]).unwrap().format, 9);
        let clock = TypeRow {
            version: 4,
            floor: Mark {
                version: 3,
                last_modified: 2,
            },
            latest_date: u64::MAX,
        };
        assert_eq!(TypeRow::decode(&clock.encode()).unwrap(), clock);
        assert_eq!(decode_registration(&encode_registration(6)).unwrap(), 6);
        for published in [None, Some([3; 32])] {
            let state = PassState {
                version: 8,
                last_modified: 9,
                published,
            };
            assert_eq!(decode_pass(&encode_pass(&state)).unwrap(), state);
        }
        let begun = Progress {
            version: 3,
            next: Some(PageCursor::new("ä\n")),
        };
        for progress in [None, Some(begun)] {
            let pending = PendingRow {
                since: 2,
                version: 4,
                progress,
            };
            assert_eq!(PendingRow::decode(&pending.encode()).unwrap(), pending);
        }
        let queue = QueueRow {
            pending: 1,
            deferred: 2,
        };
        assert_eq!(QueueRow::decode(&queue.encode()).unwrap(), queue);
    }

    #[test]
    fn devices_read_back_with_any_push_token() {
        let longest: String = ('!'..='~').cycle().take(400).collect();
        for token in [
            "C0ffee",
            "6F9619FF-8B86-D011-B42D-00CF4FC964FF",
            "cMv:APA91bHPRgkF3_x-y",
            &longest,
        ] {
            let push_token = PushToken::new(token).unwrap();
            for registrations in [Registrations::Few(Few::default()), Registrations::Many(3)] {
                let device = DeviceRow {
                    version: 5,
                    push_token: token.as_bytes(),
                    registrations,
                };
                let row = device.encode();
                let read = DeviceRow::decode(&row).unwrap();
                assert_eq!(read, device);
                assert_eq!(read.push_token().unwrap().as_str(), token);
            }
            let time = |micros| Some(UNIX_EPOCH + Duration::from_micros(micros));
            for (due, bad_since) in [(None, None), (time(5), None), (None, time(0))] {
                let push = DeferredPush {
                    push_token: push_token.clone(),
                    due,
                    attempts: 6,
                    bad_since,
                };
                let read = decode_deferred(&encode_deferred(&push)).unwrap();
                assert_eq!(read.push_token.as_str(), token);
                assert_eq!(read, push);
            }
        }
    }

    #[test]
    fn registrations_of_a_device_read_back() {
        let mut few = Vec::new();
        let [a, b] = ["ä/ 1", "2"].map(|serial| PassId::new("pass.a", serial).unwrap());
        Few::add(&mut few, &a, 6);
        Few::add(&mut few, &b, 7);
        let device = DeviceRow {
            version: 7,
            push_token: b"c0",
            registrations: Registrations::Few(Few::new(&few)),
        };
        let row = device.encode();
        let Registrations::Few(read) = DeviceRow::decode(&row).unwrap().registrations else {
            panic!("many")
        };
        let all = read.iter().map(Result::unwrap).collect::<Vec<_>>();
        assert_eq!(
            all,
            [(&b"pass.a"[..], "ä/ 1".as_bytes(), 6), (b"pass.a", b"2", 7)]
        );
        let (rest, found) = read.without(&a).unwrap();
        assert!(found && Few::new(&rest).iter().count() == 1);
        assert!(!Few::new(&rest).without(&a).unwrap().1);
        assert!(
            Few::new(&row[row.len() - 5..])
                .iter()
                .any(|one| one.is_err())
        );
    }

    #[test]
    fn published_contents_read_back() {
        for digest in [None, Some([7; 32])] {
            for count in [0, 1, Published::MAX_TOKENS] {
                for removed in [false, true] {
                    let tokens = (0..count)
                        .map(|n| TokenDigest::from_bytes([n as u8; 32]))
                        .collect();
                    let published = Published {
                        digest,
                        tokens,
                        removed,
                    };
                    assert_eq!(
                        decode_published(&encode_published(&published)).unwrap(),
                        published
                    );
                }
            }
        }
    }

    #[test]
    fn damaged_rows_are_errors() {
        for damaged in [
            &b""[..],
            b"1234567",
            b"123456789",
            b"12345678\0\x01a\x02",
            b"12345678\0\x09a\0",
        ] {
            assert!(StoreRow::decode(damaged).is_err() || damaged.first() != Some(&FORMAT));
            assert!(TypeRow::decode(damaged).is_err());
            assert!(DeviceRow::decode(damaged).is_err());
            assert!(PendingRow::decode(damaged).is_err() && QueueRow::decode(damaged).is_err());
            assert!(decode_deferred(damaged).is_err());
            assert!(decode_registration(damaged).is_err());
            assert!(decode_pass(damaged).is_err());
            assert!(decode_published(damaged).is_err());
        }
        assert!(decode_pass(&[0; 47]).is_err() && decode_pass(&[0; 49]).is_err());
        assert!(decode_published(&[0; 33]).is_err() && decode_published(&[1; 33]).is_err());
        assert!(read_pass(b"pass.a").is_err());
        assert!(read_serial(b"\xff").is_err());
        assert!(read_device(b"").is_err());
    }

    #[test]
    fn a_prefix_covers_only_its_own_rows() {
        let device = |text| DeviceIdentifier::new(text).unwrap();
        let pass = |type_id, serial| PassId::new(type_id, serial).unwrap();
        let key = registration(&device("ab"), &pass("pass.a", "1"));
        assert!(key.starts_with(&registrations(&device("ab"))));
        assert!(!key.starts_with(&registrations(&device("a"))));
        let prefix = registrations_of_type(&device("ab"), &pass("pass.a", "1").type_id);
        assert_eq!(key.strip_prefix(&prefix[..]), Some(&b"1"[..]));
        assert!(!registration(&device("ab"), &pass("pass.ab", "1")).starts_with(&prefix));
        let key = device_of(&pass("pass.a", "1"), &device("x"));
        assert_eq!(read_last_device(&key).unwrap(), device("x"));
        assert!(key.starts_with(&devices_of(&pass("pass.a", "1"))));
        assert!(
            !device_of(&pass("pass.a", "11"), &device("x"))
                .starts_with(&devices_of(&pass("pass.a", "1")))
        );
        let of_type = devices_of_type(&pass("pass.a", "1").type_id);
        assert_eq!(key.strip_prefix(&of_type[..]), Some(&b"1\0x"[..]));
        assert!(!device_of(&pass("pass.ab", "1"), &device("x")).starts_with(&of_type));
        let rest = registration(&device("ab"), &pass("pass.a", "ä/ 1"));
        let rest = rest
            .strip_prefix(&registrations(&device("ab"))[..])
            .unwrap();
        assert_eq!(read_pass(rest).unwrap(), pass("pass.a", "ä/ 1"));
    }
}
