//! Derives keys from passwords as PKCS #12 does (RFC 7292, appendix B).

use der::asn1::ObjectIdentifier;
use ring::{digest, hmac};

const SHA1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.14.3.2.26");
const SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1");
const SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.2");
const SHA512: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.3");

/// A password in the two forms that files use.
pub(super) struct Password<'a> {
    /// The password in UTF-8, for the newer schemes.
    pub(super) text: &'a str,
    /// The password in UTF-16 with a final zero, for the older schemes.
    pub(super) utf16: Vec<u8>,
}

impl<'a> Password<'a> {
    /// An empty password that is written as no bytes.
    pub(super) const NO_BYTES: Self = Self {
        text: "",
        utf16: Vec::new(),
    };

    pub(super) fn of(text: &'a str) -> Self {
        let utf16 = text.encode_utf16().chain([0]);
        Self {
            text,
            utf16: utf16.flat_map(u16::to_be_bytes).collect(),
        }
    }
}

/// Returns the digest algorithm of this identifier, and its HMAC. Returns `None` for an unknown
/// one.
pub(super) fn digest(
    id: ObjectIdentifier,
) -> Option<(hmac::Algorithm, &'static digest::Algorithm)> {
    match id {
        SHA1 => Some((
            hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            &digest::SHA1_FOR_LEGACY_USE_ONLY,
        )),
        SHA256 => Some((hmac::HMAC_SHA256, &digest::SHA256)),
        SHA384 => Some((hmac::HMAC_SHA384, &digest::SHA384)),
        SHA512 => Some((hmac::HMAC_SHA512, &digest::SHA512)),
        _ => None,
    }
}

/// Derives `length` bytes for a purpose: 1 for a key, 2 for an initial vector, 3 for the key of a
/// MAC.
pub(super) fn derive(
    digest: &'static digest::Algorithm,
    purpose: u8,
    password: &[u8],
    salt: &[u8],
    iterations: u32,
    length: usize,
) -> Vec<u8> {
    let block = digest.block_len();
    let fill = |bytes: &[u8]| {
        let length = bytes.len().next_multiple_of(block);
        bytes
            .iter()
            .copied()
            .cycle()
            .take(length)
            .collect::<Vec<_>>()
    };
    let mut input = [fill(salt), fill(password)].concat();
    let mut derived = Vec::new();
    loop {
        let mut context = digest::Context::new(digest);
        context.update(&vec![purpose; block]);
        context.update(&input);
        let mut hash = context.finish();
        for _ in 1..iterations {
            hash = digest::digest(digest, hash.as_ref());
        }
        derived.extend_from_slice(hash.as_ref());
        if derived.len() >= length {
            derived.truncate(length);
            return derived;
        }
        // Adds the hash and 1 to each block of the input. All of them are big-endian numbers.
        for part in input.chunks_mut(block) {
            let mut carry = 1;
            let hash = hash
                .as_ref()
                .iter()
                .copied()
                .cycle()
                .take(block)
                .collect::<Vec<_>>();
            for (byte, add) in part.iter_mut().zip(hash).rev() {
                let sum = u16::from(*byte) + u16::from(add) + carry;
                *byte = sum.to_be_bytes()[1];
                carry = sum >> 8;
            }
        }
    }
}
