//! The name of the file of a pass, made from its serial number. Issuers choose serial numbers freely, and
//! the names must be safe on every file system.

use std::fmt::Write as _;

use passkit_server::identifiers::{Kind, SerialNumber};
use sha2::{Digest as _, Sha256};

/// The longest name without its extension, in bytes. File systems allow 255.
const MAX_BYTES: usize = 200;

/// Returns the file name of a pass. Different serial numbers get different names, even on file systems that ignore case.
///
/// Letters, digits, `-`, `_` and `.` stay. Other bytes are written as `%20`. If there are capitals, `~`
/// and hexadecimal digits follow: one bit for each letter, set for a capital. A long serial becomes `=`
/// and its SHA-256.
pub(super) fn file_name(kind: Kind, serial: &SerialNumber) -> String {
    let serial = serial.as_str();
    let mut name = String::with_capacity(serial.len() + 16);
    for (at, byte) in serial.bytes().enumerate() {
        let is_plain =
            byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') || byte == b'.' && at > 0;
        if is_plain {
            name.push(char::from(byte));
        } else {
            // Writing to a string never fails.
            let _ = write!(name, "%{byte:02x}");
        }
    }
    if is_device(&name) {
        // Windows reserves these names for devices.
        name.insert(0, '%');
    }
    let capitals = capitals(serial);
    if !capitals.is_empty() {
        name.push('~');
        name.push_str(&capitals);
    }
    if name.len() > MAX_BYTES {
        name = format!("={:x}", Sha256::digest(serial));
    }
    name.push('.');
    name.push_str(kind.extension());
    name
}

/// Returns which letters are capitals, as hexadecimal digits. It is empty if there are none.
fn capitals(serial: &str) -> String {
    let letters = serial.bytes().filter(u8::is_ascii_alphabetic);
    let bits: Vec<bool> = letters.map(|letter| letter.is_ascii_uppercase()).collect();
    if !bits.contains(&true) {
        return String::new();
    }
    let digit = |bits: &[bool]| {
        let value = bits
            .iter()
            .fold(0, |value, bit| value << 1 | u32::from(*bit));
        char::from_digit(value << (4 - bits.len()), 16).unwrap_or_default()
    };
    bits.chunks(4).map(digit).collect()
}

fn is_device(name: &str) -> bool {
    let stem = name
        .split('.')
        .next()
        .unwrap_or_default()
        .to_ascii_lowercase();
    let is_numbered = |start: &str| {
        let number = stem.strip_prefix(start);
        number.is_some_and(|number| number.len() == 1 && number.bytes().all(|b| b.is_ascii_digit()))
    };
    matches!(&*stem, "con" | "prn" | "aux" | "nul") || is_numbered("com") || is_numbered("lpt")
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn name(serial: &str) -> String {
        file_name(Kind::Pass, &SerialNumber::new(serial).unwrap())
    }

    #[test]
    fn names_are_readable() {
        for (serial, expected) in [
            ("1042", "1042.pkpass"),
            ("a-1_b.c", "a-1_b.c.pkpass"),
            ("A-1", "A-1~8.pkpass"),
            ("CARD-0001", "CARD-0001~f.pkpass"),
            ("Card", "Card~8.pkpass"),
            ("aaaaB", "aaaaB~08.pkpass"),
            ("../etc", "%2e.%2fetc.pkpass"),
            ("a b/\u{fc}", "a%20b%2f%c3%bc.pkpass"),
            ("con.x", "%con.x.pkpass"),
            ("COM1", "%COM1~e.pkpass"),
        ] {
            assert_eq!(name(serial), expected, "{serial}");
        }
        let long = name(&"\u{fc}".repeat(200));
        assert!(long.starts_with('=') && long.len() < 100, "{long}");
    }

    #[test]
    fn different_serials_have_different_names_in_any_case() {
        let parts = [
            "a", "A", "b", "B", "%", "%61", "~", "~8", ".", "..", "/", "=", " ", "\u{e9}",
            "e\u{301}", "con", "CON", "0",
        ];
        let mut serials: Vec<String> = parts.iter().map(ToString::to_string).collect();
        for _ in 0..2 {
            let longer = serials
                .iter()
                .flat_map(|one| parts.map(|part| format!("{one}{part}")));
            serials.extend(longer.collect::<Vec<_>>());
        }
        serials.extend((0..300).map(|length| "x".repeat(length + 1)));
        serials.sort();
        serials.dedup();
        let mut names: HashMap<String, String> = HashMap::new();
        for serial in serials {
            let name = name(&serial);
            assert!(
                !name.starts_with('.') && !name.contains(['/', '\\']) && name.len() < 255,
                "{name}"
            );
            let other = names.insert(name.to_lowercase(), serial.clone());
            assert!(other.is_none(), "{serial:?} and {other:?} are both {name}");
        }
    }
}
