//! The differences between archives of passes and orders. All other code of this crate is the same
//! for both.

use passkit_server::identifiers::Kind;
use ring::digest;
use sha1::{Digest as _, Sha1};

/// The file that lists the digests of the others.
pub(crate) const MANIFEST: &str = "manifest.json";
/// The file that holds the signature over the manifest.
pub(crate) const SIGNATURE: &str = "signature";

/// The names and digests in archives of one [`Kind`].
#[derive(Debug)]
pub(crate) struct Layout {
    /// The file that describes the pass or order. Its presence decides the kind.
    pub(crate) description_file: &'static str,
    /// The digest of the manifest.
    pub(crate) digest: FileDigest,
    /// The key of the format version, which is 1.
    pub(crate) version_key: &'static str,
    /// The key of the type identifier.
    pub(crate) type_key: &'static str,
    /// The key of the serial number or order identifier.
    pub(crate) serial_key: &'static str,
    /// The prefix of the common name in Apple's certificates.
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

    /// Returns the digest of `content` as the manifest lists it. The SHA-256 of the content is
    /// already known.
    pub(crate) fn listed(self, content: &[u8], sha256: &[u8; 32]) -> String {
        match self {
            Self::Sha1 => hex(&Sha1::digest(content)),
            Self::Sha256 => hex(sha256),
        }
    }
}

/// Returns the SHA-256 of a content. It uses ring, which is fast on processors without SHA
/// instructions.
pub(crate) fn sha256(content: &[u8]) -> [u8; 32] {
    let mut sha256 = [0; 32];
    sha256.copy_from_slice(digest::digest(&digest::SHA256, content).as_ref());
    sha256
}

fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from_digit(nibble.into(), 16).unwrap_or_default();
    bytes
        .iter()
        .flat_map(|&byte| [digit(byte >> 4), digit(byte & 15)])
        .collect()
}
