//! The layout of the data: every key, and what it contains.
//!
//! All keys but two have a hash tag (in braces). All keys of a script have the same tag, so that the store works on a
//! Cluster.
//!
//! | key after the prefix | type | contents |
//! | --- | --- | --- |
//! | `store` | hash | `format`, `created` (seconds), `buckets` |
//! | `types` | hash | the types that ever had pending or deferred pushes |
//! | `b{T:b}` | hash | bucket b of the passes of type T: serial number -> `version:date` of the last mark; `\tc` the bucket's clock; `\tv` and `\td` the version and the date of the last mark of the whole type; `\tl` the latest date of any pass; `\t#` followed by a serial number -> the digest of the content published last |
//! | `t{T:b}` | hash | the published passes of the bucket: serial number -> `+`, or `-` if the pass is removed, followed by the digests of its tokens, 32 bytes each, the newest last |
//! | `o{T:b}` | hash | the pending changes of the bucket: serial number, or `\tall` for the whole type (in bucket 0) -> version, followed by `:version:cursor` of the progress, if any |
//! | `a{T:b}` | sorted set | the index of these changes by age: serial number or `\tall` -> when it became pending; in bucket 0 also `\tp` and a name for each mark of the whole type that is under way |
//! | `q{T}` | hash | the dirty buckets, which may have pending changes: bucket -> when it was marked dirty |
//! | `h{T}` | hash | deferred pushes: device -> `due:attempts:bad_since:token`; and `\t`, which has no meaning |
//! | `z{T}` | sorted set | the deferred pushes that have a due time: device -> time |
//! | `d{D}` | hash | device D: `t` push token; `c` clock; `x` tombstone; `u` the call that last removed something; `T/S` -> a registration; `T` -> the number of the device's entry in the index of the type, and the count of the device's registrations of the type. See `register.lua` |
//! | `p{T:S:k}` | hash | part k of the index of a pass: device -> number of the entry |
//! | `y{T:k}` | hash | part k of the index of a type: device -> number of the entry |
//! | `e{K:T:N}` | hash | the delivery records of a subject of the kind K (`pass`, `device` or `type`), the type T and the name N: event -> `version:count:time:detail`; and `\tu`, the call that last wrote records |
//! | `f{k}` | sorted set | part k of the index of these subjects: `K:T:N` -> a time that is not after its oldest record |
//! | `l{H}N` | string | the owner of the claim N; expires with the claim |
//! | `n{H}N` | hash | `v` the note N |
//! | `r{H}N` | sorted set | the calls that recently replaced the note N -> when |
//!
//! Times are in microseconds, and dates in seconds. A type contains neither `:` nor `/`, a device no brace, and a serial
//! number no control character. So these keys and fields are never ambiguous. The serial number determines the bucket, and the
//! device determines the part of an index. The name N of a claim or a note may contain braces. So the hash tag is the hash H
//! of the name, and the name follows the tag.

use passkit_server::{
    PassId,
    delivery::Subject,
    identifiers::{DeviceIdentifier, SerialNumber, TypeIdentifier},
    store::Audience,
};

use crate::error::Error;

/// The version of the layout. It increases with every change of the layout.
pub(crate) const FORMAT: u64 = 2;

/// The number of parts of the index of a pass, and of the index of a type. If one of these numbers changes, [`FORMAT`] must
/// change too.
pub(crate) const PASS_PARTS: u64 = 8;
pub(crate) const TYPE_PARTS: u64 = 64;

/// The first fields in each read of a bucket. The fields of the serial numbers follow.
pub(crate) const BUCKET_HEAD: [&str; 3] = [BUCKET_CLOCK, "\tv", "\td"];

pub(crate) const BUCKET_CLOCK: &str = "\tc";

/// The field of a pending change of the whole type, and the start of an entry that records such a change while it is under
/// way. Neither can be a serial number.
pub(crate) const WHOLE_TYPE: &str = "\tall";
pub(crate) const UNDER_WAY: &str = "\tp";

/// The number of parts of the index of subjects with delivery records. The layout depends on it too.
pub(crate) const DELIVERY_PARTS: u64 = 64;

const KINDS: [&str; 15] = [
    "a{", "b{", "d{", "e{", "f{", "h{", "l{", "n{", "o{", "p{", "q{", "r{", "t{", "y{", "z{",
];

pub(crate) const PUSH_TOKEN: &str = "t";
pub(crate) const DEVICE_CLOCK: &str = "c";
pub(crate) const TOMBSTONE: &str = "x";

pub(crate) const NOTE: &str = "v";

#[derive(Debug)]
pub(crate) struct Keys {
    pub(crate) prefix: String,
    pub(crate) buckets: u64,
}

impl Keys {
    pub(crate) fn store(prefix: &str) -> String {
        format!("{prefix}store")
    }

    /// Returns whether this is a key of this store, and not of a store with a longer prefix.
    pub(crate) fn is_own(&self, key: &str) -> bool {
        let kind = key.strip_prefix(&self.prefix);
        kind.is_some_and(|kind| KINDS.iter().any(|start| kind.starts_with(start)))
    }

    pub(crate) fn types(&self) -> String {
        format!("{}types", self.prefix)
    }

    pub(crate) fn bucket_of(&self, serial: &SerialNumber) -> u64 {
        hash(serial.as_str()) % self.buckets
    }

    fn in_bucket(&self, kind: char, type_id: &TypeIdentifier, bucket: u64) -> String {
        format!("{}{kind}{{{type_id}:{bucket}}}", self.prefix)
    }

    pub(crate) fn bucket(&self, type_id: &TypeIdentifier, bucket: u64) -> String {
        self.in_bucket('b', type_id, bucket)
    }

    pub(crate) fn bucket_with(&self, pass: &PassId) -> String {
        self.bucket(&pass.type_id, self.bucket_of(&pass.serial))
    }

    pub(crate) fn published(&self, type_id: &TypeIdentifier, bucket: u64) -> String {
        self.in_bucket('t', type_id, bucket)
    }

    /// Returns the type of a key that [`published`](Self::published) made.
    pub(crate) fn read_published(&self, key: &str) -> Option<TypeIdentifier> {
        let (type_id, _) = self.tag(key, "t{")?.split_once(':')?;
        TypeIdentifier::new(type_id).ok()
    }

    pub(crate) fn pending(&self, type_id: &TypeIdentifier, bucket: u64) -> String {
        self.in_bucket('o', type_id, bucket)
    }

    pub(crate) fn pending_by_age(&self, type_id: &TypeIdentifier, bucket: u64) -> String {
        self.in_bucket('a', type_id, bucket)
    }

    /// Returns the keys of a bucket, of its pending changes, and of the index of these changes by age.
    pub(crate) fn bucket_and_pending(&self, type_id: &TypeIdentifier, bucket: u64) -> [String; 3] {
        [
            self.bucket(type_id, bucket),
            self.pending(type_id, bucket),
            self.pending_by_age(type_id, bucket),
        ]
    }

    /// Returns the type and bucket of a key that [`pending_by_age`](Self::pending_by_age) made.
    pub(crate) fn read_pending_by_age(&self, key: &str) -> Option<(TypeIdentifier, u64)> {
        let (type_id, bucket) = self.tag(key, "a{")?.split_once(':')?;
        Some((TypeIdentifier::new(type_id).ok()?, bucket.parse().ok()?))
    }

    fn of_type(&self, kind: char, type_id: &TypeIdentifier) -> String {
        format!("{}{kind}{{{type_id}}}", self.prefix)
    }

    pub(crate) fn dirty(&self, type_id: &TypeIdentifier) -> String {
        self.of_type('q', type_id)
    }

    pub(crate) fn deferred(&self, type_id: &TypeIdentifier) -> String {
        self.of_type('h', type_id)
    }

    /// Returns the type of a key that [`deferred`](Self::deferred) made.
    pub(crate) fn read_deferred(&self, key: &str) -> Option<TypeIdentifier> {
        TypeIdentifier::new(self.tag(key, "h{")?).ok()
    }

    pub(crate) fn deferred_times(&self, type_id: &TypeIdentifier) -> String {
        self.of_type('z', type_id)
    }

    pub(crate) fn device(&self, device: &DeviceIdentifier) -> String {
        format!("{}d{{{}}}", self.prefix, device.as_str())
    }

    /// Returns the device of a key that [`device`](Self::device) made.
    pub(crate) fn read_device(&self, key: &str) -> Option<DeviceIdentifier> {
        DeviceIdentifier::new(self.tag(key, "d{")?).ok()
    }

    /// Returns the key of the index part that contains a device.
    pub(crate) fn part_with(&self, audience: Audience<'_>, device: &DeviceIdentifier) -> String {
        self.part(audience, hash(device.as_str()) % parts(audience))
    }

    pub(crate) fn part(&self, audience: Audience<'_>, part: u64) -> String {
        match audience {
            Audience::Pass(pass) => format!(
                "{}p{{{}:{}:{part}}}",
                self.prefix, pass.type_id, pass.serial
            ),
            Audience::Type(type_id) => format!("{}y{{{type_id}:{part}}}", self.prefix),
        }
    }

    /// Returns the pass or type of a key that [`part`](Self::part) made.
    pub(crate) fn read_part(&self, key: &str) -> Option<Indexed> {
        if let Some(tag) = self.tag(key, "y{") {
            return Some(Indexed::Type(
                TypeIdentifier::new(tag.split_once(':')?.0).ok()?,
            ));
        }
        let (type_id, rest) = self.tag(key, "p{")?.split_once(':')?;
        Some(Indexed::Pass(
            PassId::new(type_id, rest.rsplit_once(':')?.0).ok()?,
        ))
    }

    pub(crate) fn deliveries(&self, member: &str) -> String {
        format!("{}e{{{member}}}", self.prefix)
    }

    /// Returns the key of the index part that contains a subject with delivery records.
    pub(crate) fn delivery_part_with(&self, member: &str) -> String {
        self.delivery_part(hash(member) % DELIVERY_PARTS)
    }

    pub(crate) fn delivery_part(&self, part: u64) -> String {
        format!("{}f{{{part}}}", self.prefix)
    }

    fn named(&self, kind: char, name: &str) -> String {
        format!("{}{kind}{{{:x}}}{name}", self.prefix, hash(name))
    }

    pub(crate) fn claim(&self, name: &str) -> String {
        self.named('l', name)
    }

    pub(crate) fn note(&self, name: &str) -> String {
        self.named('n', name)
    }

    pub(crate) fn note_calls(&self, name: &str) -> String {
        self.named('r', name)
    }

    fn tag<'a>(&self, key: &'a str, start: &str) -> Option<&'a str> {
        key.strip_prefix(&self.prefix)?
            .strip_prefix(start)?
            .strip_suffix('}')
    }
}

/// An owned [`Audience`].
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Indexed {
    Pass(PassId),
    Type(TypeIdentifier),
}

impl Indexed {
    pub(crate) fn audience(&self) -> Audience<'_> {
        match self {
            Self::Pass(pass) => Audience::Pass(pass),
            Self::Type(type_id) => Audience::Type(type_id),
        }
    }
}

/// Returns the member that stands for a subject in the index of subjects with delivery records.
pub(crate) fn member(subject: &Subject) -> String {
    let (kind, type_id, name) = subject.parts();
    format!("{kind}:{type_id}:{name}")
}

/// Returns the number of parts of an index.
pub(crate) fn parts(audience: Audience<'_>) -> u64 {
    match audience {
        Audience::Pass(_) => PASS_PARTS,
        Audience::Type(_) => TYPE_PARTS,
    }
}

/// Returns the field in the hash of a device that belongs to the device's entry in this index.
pub(crate) fn field(audience: Audience<'_>) -> String {
    match audience {
        Audience::Pass(pass) => format!("{}/{}", pass.type_id, pass.serial),
        Audience::Type(type_id) => type_id.as_str().to_owned(),
    }
}

/// Returns the pass or type that a field of a device belongs to. Returns `None` for a field of the device itself.
pub(crate) fn read_field(field: &str) -> Option<Indexed> {
    Some(match field.split_once('/') {
        Some((type_id, serial)) => Indexed::Pass(PassId::new(type_id, serial).ok()?),
        None => Indexed::Type(TypeIdentifier::new(field).ok()?),
    })
}

/// Returns the serial number in the field of a registration, if it is a registration of this type.
pub(crate) fn read_field_of(field: &[u8], type_id: &TypeIdentifier) -> Option<SerialNumber> {
    let serial = field
        .strip_prefix(type_id.as_str().as_bytes())?
        .strip_prefix(b"/")?;
    SerialNumber::new(std::str::from_utf8(serial).ok()?).ok()
}

/// Returns the field of a bucket that contains the digest of a pass's content.
pub(crate) fn content_field(serial: &SerialNumber) -> String {
    format!("\t#{serial}")
}

/// Returns the value of the device's clock at a registration, which is the digits at the start of the field's value.
///
/// Only the scripts use the rest of the value: see `register.lua`.
pub(crate) fn read_registration(value: &[u8]) -> Result<u64, Error> {
    let digits = value
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    read_number(&value[..digits]).ok_or(Error::unreadable("registration"))
}

pub(crate) fn read_number(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Computes FNV-1a. The layout depends on this hash, so it must never change.
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
        let keys = Keys {
            prefix: "a:".into(),
            buckets: 64,
        };
        let device = DeviceIdentifier::new("d~1").unwrap();
        let type_id = TypeIdentifier::new("pass.a").unwrap();
        for serial in ["1", "A:B", "}{", "{x}", "a}:0", "ü/ /"] {
            let pass = PassId::new("pass.a", serial).unwrap();
            let of_pass = Audience::Pass(&pass);
            let indexed = Some(Indexed::Pass(pass.clone()));
            assert_eq!(keys.read_part(&keys.part_with(of_pass, &device)), indexed);
            assert_eq!(read_field(&field(of_pass)), indexed);
            assert_eq!(
                read_field_of(field(of_pass).as_bytes(), &pass.type_id),
                Some(pass.serial)
            );
        }
        let of_type = Audience::Type(&type_id);
        let indexed = Some(Indexed::Type(type_id.clone()));
        assert_eq!(keys.read_part(&keys.part_with(of_type, &device)), indexed);
        assert_eq!(read_field(&field(of_type)), indexed);
        assert_eq!(read_field_of(field(of_type).as_bytes(), &type_id), None);
        for own in [PUSH_TOKEN, DEVICE_CLOCK, TOMBSTONE, "u"] {
            assert_eq!(read_field(own), None);
        }
        assert_eq!(keys.read_device(&keys.device(&device)), Some(device));
        assert_eq!(keys.read_device("a:b{pass.a:1}"), None);
        assert_eq!(
            keys.read_pending_by_age(&keys.pending_by_age(&type_id, 7)),
            Some((type_id.clone(), 7))
        );
        assert_eq!(
            keys.read_deferred(&keys.deferred(&type_id)),
            Some(type_id.clone())
        );
        let [bucket, pending, by_age] = keys.bucket_and_pending(&type_id, 7);
        for key in [bucket, pending, by_age, keys.published(&type_id, 7)] {
            assert!(keys.is_own(&key) && key.ends_with("{pass.a:7}"));
        }
        for key in [
            keys.dirty(&type_id),
            keys.deferred(&type_id),
            keys.deferred_times(&type_id),
        ] {
            assert!(keys.is_own(&key) && key.ends_with("{pass.a}"));
        }
        assert!(keys.is_own("a:b{pass.a:1}") && !keys.is_own("a:b:d{1}") && !keys.is_own("b:d{1}"));
    }

    #[test]
    fn a_name_with_braces_does_not_reach_the_hash_tag() {
        let keys = Keys {
            prefix: "a:".into(),
            buckets: 64,
        };
        for name in ["pushes:pass.a", "}{", "{x}", "{", "ü }"] {
            let tags = [keys.claim(name), keys.note(name), keys.note_calls(name)].map(|key| {
                assert!(keys.is_own(&key) && key.ends_with(name));
                let (_, behind) = key.split_once('{').unwrap();
                behind.split_once('}').unwrap().0.to_owned()
            });
            assert!(!tags[0].is_empty() && tags[0] == tags[1] && tags[1] == tags[2]);
        }
    }

    #[test]
    fn values_are_read_back() {
        for (value, version) in [("17", 17), ("17+", 17), ("17:16", 17), ("17+16", 17)] {
            assert_eq!(read_registration(value.as_bytes()).unwrap(), version);
        }
        assert!(read_registration(b"").is_err() && read_registration(b"+1").is_err());
    }

    /// The layout depends on the hash.
    #[test]
    fn the_hash_never_changes() {
        assert_eq!(hash(""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(hash("foobar"), 0x8594_4171_f739_67e8);
    }
}
