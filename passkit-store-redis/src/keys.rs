//! The layout of the data: every key, and what stands in it.
//!
//! Each key but two has a hash tag (in braces), and each script touches keys of one tag, so that the store works on a
//! Cluster.
//!
//! | key behind the prefix | type | holds |
//! | --- | --- | --- |
//! | `store` | hash | `format`, `created` (seconds), `buckets` |
//! | `b{T:b}` | hash | of the passes of type T in bucket b: serial number -> `version:date` of the last mark; and `\tc` the bucket's clock, `\tv` and `\td` version and date of the last mark of all, `\tl` the latest date given, `\t#` with a serial number behind it the digest of the content published last |
//! | `d{D}` | hash | of device D: `t` push token, `c` clock, `x` the highest hint that was condemned, `u` the call that removed something last, and `T/S` -> a registration, see `register.lua` |
//! | `p{T:S:k}` | hash | of pass S, part k: device -> hint |
//! | `o{T:b}` | hash | the debts of bucket b: serial number, or `\tall` for the whole type (in bucket 0) -> version, and if a worker has begun `:version:cursor` of what it reached |
//! | `a{T:b}` | sorted set | the same debts -> when they were owed; and in bucket 0 `\tp` with a number behind it, each a mark of all under way |
//! | `types` | hash | the types that ever owed or held a push |
//! | `q{T}` | hash | bucket -> when it was noted that it may have debts |
//! | `l{T}` | string | the worker that has the lease; expires with it |
//! | `h{T}` | hash | held pushes: device -> `due:attempts:bad_since:token`; and `\t`, which says nothing |
//! | `z{T}` | sorted set | those of the held pushes that have a time: device -> time |
//!
//! Times are microseconds. A type holds neither `:` nor `/`, a device no brace, and a serial number no control character, so no two of these
//! are ever the same text. A bucket is chosen by the serial number, a part by the device.

use passkit_server::{DeviceIdentifier, PassId, PassState, SerialNumber, TypeIdentifier};

use crate::error::Failure;

/// Changes with the layout.
pub(crate) const FORMAT: u64 = 1;

/// In how many parts the devices of a pass are kept. Part of the format.
pub(crate) const PARTS: u64 = 8;

/// The fields that stand before those of the serial numbers where a bucket is read.
pub(crate) const BUCKET_HEAD: [&str; 3] = [BUCKET_CLOCK, "\tv", "\td"];

pub(crate) const BUCKET_CLOCK: &str = "\tc";

/// What stands among the debts for the whole type, and the start of what stands there while that is being marked. No
/// serial numbers.
pub(crate) const ALL: &str = "\tall";
pub(crate) const PENDING: &str = "\tp";

const KINDS: [&str; 9] = ["a{", "b{", "d{", "h{", "l{", "o{", "p{", "q{", "z{"];

pub(crate) const PUSH_TOKEN: &str = "t";
pub(crate) const DEVICE_CLOCK: &str = "c";
pub(crate) const CONDEMNED: &str = "x";

#[derive(Debug)]
pub(crate) struct Keys {
    pub(crate) prefix: String,
    pub(crate) buckets: u64,
}

impl Keys {
    pub(crate) fn store(prefix: &str) -> String {
        format!("{prefix}store")
    }

    /// Whether it is a key of this store, and not of one whose prefix only starts alike.
    pub(crate) fn is_own(&self, key: &str) -> bool {
        let kind = key.strip_prefix(&self.prefix);
        kind.is_some_and(|kind| KINDS.iter().any(|start| kind.starts_with(start)))
    }

    pub(crate) fn device(&self, device: &str) -> String {
        format!("{}d{{{device}}}", self.prefix)
    }

    /// The device of a key that [`device`](Self::device) made.
    pub(crate) fn read_device(&self, key: &str) -> Option<DeviceIdentifier> {
        let device = key.strip_prefix(&self.prefix)?.strip_prefix("d{")?.strip_suffix('}')?;
        DeviceIdentifier::new(device).ok()
    }

    pub(crate) fn bucket_of(&self, serial: &str) -> u64 {
        hash(serial) % self.buckets
    }

    pub(crate) fn bucket(&self, type_id: &TypeIdentifier, bucket: u64) -> String {
        format!("{}b{{{type_id}:{bucket}}}", self.prefix)
    }

    pub(crate) fn bucket_with(&self, pass: &PassId) -> String {
        self.bucket(&pass.type_id, self.bucket_of(pass.serial.as_str()))
    }

    /// What a mark changes that owes as well: the bucket, its debts, and these by age.
    pub(crate) fn bucket_and_debts(&self, type_id: &TypeIdentifier, bucket: u64) -> [String; 3] {
        [self.bucket(type_id, bucket), self.debts(type_id, bucket), self.debts_by_age(type_id, bucket)]
    }

    pub(crate) fn debts(&self, type_id: &TypeIdentifier, bucket: u64) -> String {
        format!("{}o{{{type_id}:{bucket}}}", self.prefix)
    }

    pub(crate) fn debts_by_age(&self, type_id: &TypeIdentifier, bucket: u64) -> String {
        format!("{}a{{{type_id}:{bucket}}}", self.prefix)
    }

    /// The type and bucket of a key that [`debts_by_age`](Self::debts_by_age) made.
    pub(crate) fn read_debts_by_age(&self, key: &str) -> Option<(TypeIdentifier, u64)> {
        let tag = key.strip_prefix(&self.prefix)?.strip_prefix("a{")?.strip_suffix('}')?;
        let (type_id, bucket) = tag.split_once(':')?;
        Some((TypeIdentifier::new(type_id).ok()?, bucket.parse().ok()?))
    }

    pub(crate) fn types(&self) -> String {
        format!("{}types", self.prefix)
    }

    pub(crate) fn notes(&self, type_id: &TypeIdentifier) -> String {
        format!("{}q{{{type_id}}}", self.prefix)
    }

    pub(crate) fn lease(&self, type_id: &TypeIdentifier) -> String {
        format!("{}l{{{type_id}}}", self.prefix)
    }

    pub(crate) fn held(&self, type_id: &TypeIdentifier) -> String {
        format!("{}h{{{type_id}}}", self.prefix)
    }

    /// The type of a key that [`held`](Self::held) made.
    pub(crate) fn read_held(&self, key: &str) -> Option<TypeIdentifier> {
        let type_id = key.strip_prefix(&self.prefix)?.strip_prefix("h{")?.strip_suffix('}')?;
        TypeIdentifier::new(type_id).ok()
    }

    pub(crate) fn held_times(&self, type_id: &TypeIdentifier) -> String {
        format!("{}z{{{type_id}}}", self.prefix)
    }

    pub(crate) fn part_with(&self, pass: &PassId, device: &DeviceIdentifier) -> String {
        self.part(pass, hash(device.as_str()) % PARTS)
    }

    pub(crate) fn part(&self, pass: &PassId, part: u64) -> String {
        format!("{}p{{{}:{}:{part}}}", self.prefix, pass.type_id, pass.serial)
    }

    /// The pass of a key that [`part`](Self::part) made.
    pub(crate) fn read_part(&self, key: &str) -> Option<PassId> {
        let tag = key.strip_prefix(&self.prefix)?.strip_prefix("p{")?.strip_suffix('}')?;
        let (type_id, rest) = tag.split_once(':')?;
        PassId::new(type_id, rest.rsplit_once(':')?.0).ok()
    }
}

/// The field of a pass's content in its bucket.
pub(crate) fn content_field(serial: &SerialNumber) -> String {
    format!("\t#{serial}")
}

/// The field of a pass in the hash of a device.
pub(crate) fn field(pass: &PassId) -> String {
    format!("{}/{}", pass.type_id, pass.serial)
}

pub(crate) fn read_field(field: &str) -> Option<PassId> {
    let (type_id, serial) = field.split_once('/')?;
    PassId::new(type_id, serial).ok()
}

/// The serial number of a field, if it is of this type.
pub(crate) fn read_field_of(field: &[u8], type_id: &TypeIdentifier) -> Option<SerialNumber> {
    let serial = field.strip_prefix(type_id.as_str().as_bytes())?.strip_prefix(b"/")?;
    SerialNumber::new(std::str::from_utf8(serial).ok()?).ok()
}

/// The device's clock at the making of a registration: the digits that the value starts with.
///
/// What may stand behind them is for the scripts alone: see `register.lua`.
pub(crate) fn read_registration(value: &[u8]) -> Result<u64, Failure> {
    let digits = value.iter().take_while(|byte| byte.is_ascii_digit()).count();
    read_number(&value[..digits]).ok_or(Failure::unreadable("registration"))
}

pub(crate) fn read_pass(value: &[u8]) -> Result<PassState, Failure> {
    let mut parts = value.split(|byte| *byte == b':').map(read_number);
    match (parts.next(), parts.next(), parts.next()) {
        (Some(Some(version)), Some(Some(last_modified)), None) => Ok(PassState { version, last_modified }),
        _ => Err(Failure::unreadable("pass")),
    }
}

pub(crate) fn read_number(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// FNV-1a: what is stored depends on it, so it is spelled out.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_back() {
        let keys = Keys { prefix: "a:".into(), buckets: 64 };
        for serial in ["1", "A:B", "}{", "{x}", "a}:0", "ü/ /"] {
            let pass = PassId::new("pass.a", serial).unwrap();
            let device = DeviceIdentifier::new("d~1").unwrap();
            assert_eq!(keys.read_part(&keys.part_with(&pass, &device)), Some(pass.clone()));
            assert_eq!(read_field(&field(&pass)), Some(pass.clone()));
            assert_eq!(read_field_of(field(&pass).as_bytes(), &pass.type_id), Some(pass.serial));
            assert_eq!(keys.read_device(&keys.device(device.as_str())), Some(device));
        }
        assert_eq!(keys.read_device("a:b{pass.a:1}"), None);
        let type_id = TypeIdentifier::new("pass.a").unwrap();
        assert_eq!(keys.read_debts_by_age(&keys.debts_by_age(&type_id, 7)), Some((type_id.clone(), 7)));
        assert_eq!(keys.read_held(&keys.held(&type_id)), Some(type_id.clone()));
        for key in keys.bucket_and_debts(&type_id, 7) {
            assert!(keys.is_own(&key) && key.ends_with("{pass.a:7}"));
        }
        for key in
            [keys.notes(&type_id), keys.lease(&type_id), keys.held(&type_id), keys.held_times(&type_id)]
        {
            assert!(keys.is_own(&key) && key.ends_with("{pass.a}"));
        }
        assert!(keys.is_own("a:b{pass.a:1}") && !keys.is_own("a:b:d{1}") && !keys.is_own("b:d{1}"));
    }

    #[test]
    fn values_are_read_back() {
        for (value, version) in [("17", 17), ("17+", 17), ("17:16", 17), ("17+16", 17)] {
            assert_eq!(read_registration(value.as_bytes()).unwrap(), version);
        }
        assert!(read_registration(b"").is_err() && read_registration(b"+1").is_err());
        assert_eq!(read_pass(b"17:5").unwrap(), PassState { version: 17, last_modified: 5 });
        assert!(read_pass(b"17").is_err() && read_pass(b"1:2:3").is_err() && read_pass(b"1:x").is_err());
    }

    /// What is stored depends on it.
    #[test]
    fn the_hash_never_changes() {
        assert_eq!(hash(""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(hash("foobar"), 0x8594_4171_f739_67e8);
    }
}
