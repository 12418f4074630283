//! Writes base64 (RFC 4648).

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const DIGITS_FOR_URL: &[u8; 64] =
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
/// How long the lines of PEM are.
const LINE: usize = 64;

/// Encodes for URLs, without padding (section 5).
pub(crate) fn for_url(bytes: &[u8]) -> String {
    encode(bytes, DIGITS_FOR_URL)
}

/// Encodes as a section of PEM (RFC 7468).
pub(crate) fn pem(label: &str, bytes: &[u8]) -> String {
    let mut text = encode(bytes, DIGITS);
    while !text.len().is_multiple_of(4) {
        text.push('=');
    }
    // All digits are ASCII, so each byte is a character.
    let lines = text.as_bytes().chunks(LINE).map(String::from_utf8_lossy);
    let lines: String = lines.map(|line| format!("{line}\n")).collect();
    format!("-----BEGIN {label}-----\n{lines}-----END {label}-----\n")
}

fn encode(bytes: &[u8], digits: &[u8; 64]) -> String {
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let number = group
            .iter()
            .chain(&[0; 3])
            .take(3)
            .fold(0_usize, |number, byte| number << 8 | usize::from(*byte));
        for digit in 0..=group.len() {
            let at = number >> (18 - 6 * digit) & 63;
            text.extend(digits.get(at).map(|digit| char::from(*digit)));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_match_known_values() {
        for (bytes, text) in [
            (&b""[..], ""),
            (b"f", "Zg"),
            (b"fo", "Zm8"),
            (b"foo", "Zm9v"),
            (b"\xfb\xff\xfe", "-__-"),
        ] {
            assert_eq!(for_url(bytes), text);
        }
        assert_eq!(
            pem("KEY", &[0xfb; 49]),
            format!(
                "-----BEGIN KEY-----\n{}\n+w==\n-----END KEY-----\n",
                "+/v7".repeat(16)
            )
        );
    }
}
