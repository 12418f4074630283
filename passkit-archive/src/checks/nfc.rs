//! The `nfc` dictionary, which readers at a till use.

use der::Decode as _;
use serde_json::{Map, Value};

use super::text;
use crate::{
    asn1::{PublicKeyInfo, oid},
    json::Step,
    rules,
    walk::Walk,
};

/// The longest message, in bytes of UTF-8.
const MAX_MESSAGE_BYTES: usize = 64;

/// The longest key that is decoded, in characters. A P-256 key has 124 characters.
const MAX_KEY_CHARACTERS: usize = 1_024;

pub(crate) fn check<'a>(json: &'a Map<String, Value>, walk: &mut Walk<'a, '_>) {
    let Some(nfc) = json.get("nfc").and_then(Value::as_object) else {
        return;
    };
    walk.within(Step::Key("nfc"), |walk| {
        if let Some(length) = text(nfc, "message")
            .map(str::len)
            .filter(|length| *length > MAX_MESSAGE_BYTES)
        {
            walk.report_key(
                "message",
                &rules::NFC,
                format_args!("has {length} bytes; write at most {MAX_MESSAGE_BYTES}"),
            );
        }
        if text(nfc, "encryptionPublicKey").is_some_and(|key| !is_p256(key)) {
            walk.report_key(
                "encryptionPublicKey",
                &rules::NFC,
                "is not a P-256 public key; write its SubjectPublicKeyInfo (DER) in base64",
            );
        }
    });
}

/// Returns whether a text is a P-256 public key: a SubjectPublicKeyInfo in base64.
fn is_p256(text: &str) -> bool {
    let Some(der) = (text.len() <= MAX_KEY_CHARACTERS)
        .then(|| from_base64(text))
        .flatten()
    else {
        return false;
    };
    let Ok(PublicKeyInfo { algorithm, key }) = PublicKeyInfo::from_der(&der) else {
        return false;
    };
    let curve = algorithm
        .parameters
        .and_then(|curve| curve.decode_as::<der::asn1::ObjectIdentifier>().ok());
    let is_point = matches!(
        (key.raw_bytes(), key.raw_bytes().len()),
        ([4, ..], 65) | ([2 | 3, ..], 33)
    );
    algorithm.algorithm == oid::EC_PUBLIC_KEY && curve == Some(oid::P_256) && is_point
}

/// Decodes base64 with its padding.
fn from_base64(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=');
    let padding = text.len() - digits.len();
    if !text.len().is_multiple_of(4) || padding > 2 {
        return None;
    }
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    for group in digits.as_bytes().chunks(4) {
        let mut number = 0_u32;
        for digit in group {
            let value = match digit {
                b'A'..=b'Z' => digit - b'A',
                b'a'..=b'z' => digit - b'a' + 26,
                b'0'..=b'9' => digit - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                _ => return None,
            };
            number = number << 6 | u32::from(value);
        }
        let missing = 4 - group.len();
        let [_, decoded @ ..] = (number << (6 * missing)).to_be_bytes();
        bytes.extend_from_slice(decoded.get(..3 - missing)?);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_decoded() {
        for (text, bytes) in [
            ("", &b""[..]),
            ("Zg==", b"f"),
            ("Zm8=", b"fo"),
            ("Zm9v", b"foo"),
            ("+/+/", &[0xfb, 0xff, 0xbf]),
        ] {
            assert_eq!(from_base64(text).as_deref(), Some(bytes), "{text}");
        }
        for text in ["Z", "Zg", "Zg=", "Z===", "Zm9v\n", "Zm9ä"] {
            assert_eq!(from_base64(text), None, "{text}");
        }
    }

    #[test]
    fn keys_are_of_p256() {
        // Made with `openssl ecparam -genkey -name …` and `openssl ec -pubout -outform DER`.
        let plain = include_str!("../../tests/fixtures/p256.base64").trim();
        let compressed = include_str!("../../tests/fixtures/p256-compressed.base64").trim();
        let other = include_str!("../../tests/fixtures/p384.base64").trim();
        assert!(is_p256(plain) && is_p256(compressed));
        assert!(!is_p256(other) && !is_p256("A") && !is_p256(""));
        assert!(!is_p256(&plain.repeat(100)));
    }
}
