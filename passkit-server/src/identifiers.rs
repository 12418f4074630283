//! The identifiers and secrets of the protocol. Each value is checked when it is made.
//!
//! Values of these types are always well-formed, so no other code checks them again. `Debug` never
//! shows a secret.

use std::{fmt, sync::Arc};

use sha2::{Digest, Sha256};

pub use crate::kind::Kind;
use crate::text::OneLine;

/// The reason why a text is not a valid identifier. It does not contain the text, which may be a
/// secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} {problem}")]
pub struct InvalidIdentifier {
    what: &'static str,
    problem: &'static str,
}

const fn invalid(what: &'static str, problem: &'static str) -> InvalidIdentifier {
    InvalidIdentifier { what, problem }
}

/// Returns whether the text has only "unreserved" characters (RFC 3986). Such characters stay
/// unchanged in any URL.
fn is_unreserved(text: &str) -> bool {
    // Not `all`, because checking every byte is faster than stopping early.
    text.bytes().fold(true, |so_far, b| {
        so_far & (b.is_ascii_alphanumeric() | matches!(b, b'-' | b'.' | b'_' | b'~'))
    })
}

/// Returns whether the text has a control character. Nearly every text is plain ASCII, which can be
/// checked without decoding.
fn has_control(text: &str) -> bool {
    let plain = text
        .bytes()
        .fold(true, |so_far, b| so_far & matches!(b, b' '..=b'~'));
    !plain && text.chars().any(char::is_control)
}

macro_rules! text_identifier {
    ($name:ident) => {
        impl $name {
            /// Returns the identifier as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidIdentifier;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::new(text)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

macro_rules! plain_text {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

macro_rules! secret_text {
    ($name:ident) => {
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(redacted)"))
            }
        }
    };
}

/// A pass type identifier (`pass.com.example.ticket`) or order type identifier
/// (`order.com.example.shop`).
///
/// It has 1 to 128 unreserved ASCII characters. It starts with the prefix of a [`Kind`], and at
/// least one character follows.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TypeIdentifier(Arc<str>);

text_identifier!(TypeIdentifier);
plain_text!(TypeIdentifier);

impl TypeIdentifier {
    /// Checks and copies `text`.
    ///
    /// # Errors
    /// Fails if the text is too long, has other characters, or starts with neither `pass.` nor
    /// `order.`.
    pub fn new(text: &str) -> Result<Self, InvalidIdentifier> {
        const WHAT: &str = "type identifier";
        let Some(kind) = Kind::of_type(text) else {
            return Err(invalid(
                WHAT,
                "starts with neither \"pass.\" nor \"order.\"",
            ));
        };
        if text.len() == kind.type_prefix().len() {
            return Err(invalid(WHAT, "has nothing after its prefix"));
        }
        if text.len() > 128 {
            return Err(invalid(WHAT, "is longer than 128 characters"));
        }
        if !is_unreserved(text) {
            return Err(invalid(
                WHAT,
                "has a character other than letters, digits, \"-\", \".\", \"_\" and \"~\"",
            ));
        }
        Ok(Self(text.into()))
    }

    /// Returns whether this is the type of passes or of orders.
    #[must_use]
    pub fn kind(&self) -> Kind {
        // `new` accepts no other prefix.
        Kind::of_type(&self.0).unwrap_or(Kind::Pass)
    }
}

/// The serial number of a pass, or the order identifier of an order.
///
/// It has 1 to 512 bytes of any text without control characters. Issuers use slashes, spaces and
/// more.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SerialNumber(Arc<str>);

text_identifier!(SerialNumber);
plain_text!(SerialNumber);

impl SerialNumber {
    /// Checks and copies `text`.
    ///
    /// # Errors
    /// Fails if the text is empty, longer than 512 bytes, or has a control character.
    pub fn new(text: &str) -> Result<Self, InvalidIdentifier> {
        const WHAT: &str = "serial number";
        if text.is_empty() {
            return Err(invalid(WHAT, "is empty"));
        }
        if text.len() > 512 {
            return Err(invalid(WHAT, "is longer than 512 bytes"));
        }
        if has_control(text) {
            return Err(invalid(WHAT, "has a control character"));
        }
        Ok(Self(text.into()))
    }
}

/// The identity of a pass or an order: its type and its serial number.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PassId {
    /// The pass type identifier, or the order type identifier.
    pub type_id: TypeIdentifier,
    /// The serial number, or the order identifier.
    pub serial: SerialNumber,
}

impl PassId {
    /// Checks both parts.
    ///
    /// # Errors
    /// Fails like [`TypeIdentifier::new`] and [`SerialNumber::new`].
    pub fn new(type_id: &str, serial: &str) -> Result<Self, InvalidIdentifier> {
        Ok(Self {
            type_id: TypeIdentifier::new(type_id)?,
            serial: SerialNumber::new(serial)?,
        })
    }
}

impl fmt::Display for PassId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A serial number may contain characters that change the direction of writing.
        write!(f, "{} {}", self.type_id, OneLine::of(self.serial.as_str()))
    }
}

/// A device library identifier (a device identifier for orders).
///
/// It has 1 to 128 unreserved ASCII characters. Apple's devices send 32 hexadecimal digits, and
/// other wallets send other forms. A device identifier is a secret, because it is enough to list
/// the passes of the device. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceIdentifier(Arc<str>);

text_identifier!(DeviceIdentifier);
secret_text!(DeviceIdentifier);

impl DeviceIdentifier {
    /// Checks and copies `text`.
    ///
    /// # Errors
    /// Fails if the text is empty, longer than 128 characters, or has a character that is not
    /// unreserved in URLs.
    pub fn new(text: &str) -> Result<Self, InvalidIdentifier> {
        const WHAT: &str = "device identifier";
        if text.is_empty() {
            return Err(invalid(WHAT, "is empty"));
        }
        if text.len() > 128 {
            return Err(invalid(WHAT, "is longer than 128 characters"));
        }
        if !is_unreserved(text) {
            return Err(invalid(
                WHAT,
                "has a character other than letters, digits, \"-\", \".\", \"_\" and \"~\"",
            ));
        }
        Ok(Self(text.into()))
    }
}

/// The push token of a device: an APNs token, or a token of another wallet, such as a UUID or an
/// FCM token.
///
/// It has 1 to 400 printable ASCII characters without spaces, and is kept as received. Two [APNs
/// tokens](Self::is_apns) that differ only in case are equal. A push token is a secret, and `Debug`
/// does not show it.
#[derive(Clone)]
pub struct PushToken(Arc<str>);

text_identifier!(PushToken);
secret_text!(PushToken);

impl PushToken {
    /// Checks and copies `text`.
    ///
    /// # Errors
    /// Fails if the text is empty, longer than 400 characters, or has other characters.
    pub fn new(text: &str) -> Result<Self, InvalidIdentifier> {
        const WHAT: &str = "push token";
        if text.is_empty() {
            return Err(invalid(WHAT, "is empty"));
        }
        if text.len() > 400 {
            return Err(invalid(WHAT, "is longer than 400 characters"));
        }
        if !text
            .bytes()
            .fold(true, |so_far, b| so_far & b.is_ascii_graphic())
        {
            return Err(invalid(WHAT, "has a character that is not printable ASCII"));
        }
        Ok(Self(text.into()))
    }

    /// Returns whether this can be an APNs token: an even number of hexadecimal digits.
    #[must_use]
    pub fn is_apns(&self) -> bool {
        self.0.len().is_multiple_of(2)
            && self
                .0
                .bytes()
                .fold(true, |so_far, b| so_far & b.is_ascii_hexdigit())
    }
}

impl PartialEq for PushToken {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0 || (self.0.eq_ignore_ascii_case(&other.0) && self.is_apns())
    }
}

impl Eq for PushToken {}

impl std::hash::Hash for PushToken {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        let is_apns = self.is_apns();
        self.0
            .bytes()
            .for_each(|b| if is_apns { b.to_ascii_lowercase() } else { b }.hash(state));
    }
}

/// The `authenticationToken` of a pass: a secret that the pass shares with its web service.
///
/// It has 16 to 1,024 bytes, without control characters and without surrounding white space. Apple
/// requires at least 16. An authentication token is a secret, and `Debug` does not show it.
#[derive(Clone)]
pub struct AuthToken(Arc<str>);

text_identifier!(AuthToken);
secret_text!(AuthToken);

impl AuthToken {
    /// Checks and copies `text`.
    ///
    /// # Errors
    /// Fails if the text has fewer than 16 or more than 1,024 bytes, has a control character, or
    /// starts or ends with white space.
    pub fn new(text: &str) -> Result<Self, InvalidIdentifier> {
        const WHAT: &str = "authentication token";
        if text.len() < 16 {
            return Err(invalid(WHAT, "is shorter than 16 characters"));
        }
        if text.len() > 1024 {
            return Err(invalid(WHAT, "is longer than 1,024 bytes"));
        }
        if has_control(text) {
            return Err(invalid(WHAT, "has a control character"));
        }
        if text.trim() != text {
            return Err(invalid(WHAT, "starts or ends with white space"));
        }
        Ok(Self(text.into()))
    }

    /// Returns the SHA-256 of the token. A server can store this instead of the token.
    #[must_use]
    pub fn digest(&self) -> TokenDigest {
        TokenDigest::of(self.0.as_bytes())
    }
}

/// The SHA-256 of an authentication token. A program that stores only the digest can still check a
/// token.
#[derive(Clone, Copy)]
pub struct TokenDigest([u8; 32]);

impl TokenDigest {
    pub(crate) fn of(token: &[u8]) -> Self {
        Self(Sha256::digest(token).into())
    }

    /// Makes a digest from stored bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the 32 bytes to store.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl PartialEq for TokenDigest {
    /// Compares in constant time.
    fn eq(&self, other: &Self) -> bool {
        subtle::ConstantTimeEq::ct_eq(&self.0[..], &other.0[..]).into()
    }
}

impl Eq for TokenDigest {}

impl fmt::Debug for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenDigest(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use std::hash::{DefaultHasher, Hash, Hasher};

    use super::*;

    #[test]
    fn the_longest_of_each_is_accepted_and_one_more_is_not() {
        let is_type = |length: usize| {
            TypeIdentifier::new(&format!("pass.{}", "x".repeat(length - 5))).is_ok()
        };
        assert!(is_type(6) && is_type(128) && !is_type(129));
        let is_serial = |length| SerialNumber::new(&"x".repeat(length)).is_ok();
        assert!(is_serial(1) && is_serial(512) && !is_serial(513));
        let is_device = |length| DeviceIdentifier::new(&"x".repeat(length)).is_ok();
        assert!(!is_device(0) && is_device(1) && is_device(128) && !is_device(129));
        let is_push_token = |length| PushToken::new(&"a".repeat(length)).is_ok();
        assert!(!is_push_token(0) && is_push_token(1) && is_push_token(400) && !is_push_token(401));
        let is_token = |length| AuthToken::new(&"x".repeat(length)).is_ok();
        assert!(!is_token(15) && is_token(16) && is_token(1024) && !is_token(1025));
    }

    #[test]
    fn serials_of_the_wild_are_accepted() {
        for serial in [
            "H8JP44-ORD07/09/25-MARTINEZ/LANI-UA987-en",
            "ABC.123_x~1",
            "zwölf Stück",
            "a b",
            "..",
            "/",
        ] {
            assert_eq!(SerialNumber::new(serial).unwrap().as_str(), serial);
        }
        for serial in ["", "a\0b", "a\nb", "\u{85}", &"x".repeat(513)] {
            assert!(SerialNumber::new(serial).is_err(), "{serial:?}");
        }
    }

    #[test]
    fn types_say_their_kind() {
        assert_eq!(
            TypeIdentifier::new("pass.com.example").unwrap().kind(),
            Kind::Pass
        );
        assert_eq!(
            TypeIdentifier::new("order.com.example").unwrap().kind(),
            Kind::Order
        );
        for text in [
            "",
            "pass.",
            "com.example",
            "pass.a/b",
            "PASS.a",
            &format!("pass.{}", "x".repeat(124)),
        ] {
            assert!(TypeIdentifier::new(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn push_tokens_of_apns_compare_without_case_and_others_with() {
        assert_eq!(PushToken::new("aB").unwrap(), PushToken::new("Ab").unwrap());
        assert_ne!(PushToken::new("ab").unwrap(), PushToken::new("ac").unwrap());
        assert_ne!(PushToken::new("xB").unwrap(), PushToken::new("xb").unwrap());
        assert_ne!(
            PushToken::new("aBc").unwrap(),
            PushToken::new("abc").unwrap()
        );
        let hash = |text| {
            let mut hasher = DefaultHasher::new();
            PushToken::new(text).unwrap().hash(&mut hasher);
            hasher.finish()
        };
        assert_eq!(hash("aB"), hash("Ab"));
        assert_ne!(hash("ab"), hash("ac"));
        for text in ["ab", "AB", &"0".repeat(400)] {
            assert!(PushToken::new(text).unwrap().is_apns(), "{text:?}");
        }
        for text in [
            "a",
            "abc",
            "zz",
            "6F9619FF-8B86-D011-B42D-00CF4FC964FF",
            "cMv:APA91bHPRgkF3_x-y",
        ] {
            assert!(!PushToken::new(text).unwrap().is_apns(), "{text:?}");
        }
        for text in ["", " ab ", "a b", "ab\n", "ä", &"a".repeat(401)] {
            assert!(PushToken::new(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_digest_is_the_sha_256_and_survives_being_kept() {
        let digest = AuthToken::new("0123456789abcdef").unwrap().digest();
        assert_eq!(
            digest.as_bytes()[..],
            Sha256::digest(b"0123456789abcdef")[..]
        );
        assert_eq!(TokenDigest::from_bytes(*digest.as_bytes()), digest);
        assert_ne!(TokenDigest::from_bytes([0; 32]), digest);
    }

    #[test]
    fn secrets_do_not_print() {
        let shown = format!(
            "{:?} {:?} {:?} {:?}",
            AuthToken::new("0123456789abcdef").unwrap(),
            AuthToken::new("0123456789abcdef").unwrap().digest(),
            PushToken::new("c0ffee").unwrap(),
            DeviceIdentifier::new("c0ffee").unwrap(),
        );
        assert!(
            !shown.contains("0123") && !shown.contains("c0ffee"),
            "{shown}"
        );
        assert_eq!(shown.matches("(redacted)").count(), 4, "{shown}");
        let error = AuthToken::new("short-secret").unwrap_err();
        assert!(!format!("{error} {error:?}").contains("short-secret"));
    }
}
