//! How the archives of passes and orders differ. Everything else in this crate is the same code for both.

use passkit_server::identifiers::Kind;
use ring::digest;
use sha1::{Digest as _, Sha1};

/// The file that lists the digests of the others.
pub(crate) const MANIFEST: &str = "manifest.json";
/// The file that holds the signature over the manifest.
pub(crate) const SIGNATURE: &str = "signature";

/// What is where in the archive of one [`Kind`].
#[derive(Debug)]
pub(crate) struct Layout {
    /// The file that describes the pass or order, and by whose presence the kind is known.
    pub(crate) description_file: &'static str,
    /// The digest of the manifest.
    pub(crate) digest: FileDigest,
    /// The key of the version of the format, which is 1.
    pub(crate) version_key: &'static str,
    /// The key of the type identifier.
    pub(crate) type_key: &'static str,
    /// The key of the serial number or order identifier.
    pub(crate) serial_key: &'static str,
    /// What the common name of Apple's certificates starts with.
    pub(crate) certificate_name: &'static str,
}

static PASS: Layout = Layout {
    description_file: "pass.json",
    digest: FileDigest::Sha1,
    version_key: "formatVersion",
    type_key: "passTypeIdentifier",
    serial_key: "serialNumber",
    certificate_name: "Pass Type ID: ",
};

static ORDER: Layout = Layout {
    description_file: "order.json",
    digest: FileDigest::Sha256,
    version_key: "schemaVersion",
    type_key: "orderTypeIdentifier",
    serial_key: "orderIdentifier",
    certificate_name: "Order Type ID: ",
};

impl Layout {
    pub(crate) fn of(kind: Kind) -> &'static Self {
        match kind {
            Kind::Pass => &PASS,
            Kind::Order => &ORDER,
        }
    }
}

/// The digest with which a manifest lists its files, in lower-case hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileDigest {
    Sha1,
    Sha256,
}

impl FileDigest {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Sha1 => "SHA-1",
            Self::Sha256 => "SHA-256",
        }
    }

    /// The digest as the manifest lists it, of a `content` whose SHA-256 is known already.
    pub(crate) fn listed(self, content: &[u8], sha256: &[u8; 32]) -> String {
        match self {
            Self::Sha1 => hex(&Sha1::digest(content)),
            Self::Sha256 => hex(sha256),
        }
    }
}

/// The SHA-256 of a content. From ring, whose code for processors without SHA instructions is the fastest at hand.
pub(crate) fn sha256(content: &[u8]) -> [u8; 32] {
    let mut sha256 = [0; 32];
    sha256.copy_from_slice(digest::digest(&digest::SHA256, content).as_ref());
    sha256
}

fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from_digit(nibble.into(), 16).unwrap_or_default();
    bytes.iter().flat_map(|&byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}
