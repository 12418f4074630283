//! The differences between archives of passes and of orders. All other code of this crate treats
//! both in the same way.

use passkit_server::identifiers::Kind;
use ring::digest;
use sha1::{Digest as _, Sha1};

/// The file that lists the digests of the other files.
pub(crate) const MANIFEST: &str = "manifest.json";
/// The file with the signature over the manifest.
pub(crate) const SIGNATURE: &str = "signature";
/// The file that lets people sign up for rewards.
pub(crate) const PERSONALIZATION: &str = "personalization.json";
/// The file that says how `passkit make` fills in a template. It belongs to no pass.
pub(crate) const RECIPE: &str = "passkit.toml";

/// The names and digests that are used in archives of one [`Kind`].
#[derive(Debug)]
pub(crate) struct Layout {
    /// The file that describes the pass or order. Its presence decides the kind.
    pub(crate) description_file: &'static str,
    /// The kind of digest that the manifest lists.
    pub(crate) digest: FileDigest,
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
    type_key: "passTypeIdentifier",
    serial_key: "serialNumber",
    certificate_name: "Pass Type ID: ",
};

static ORDER: Layout = Layout {
    description_file: "order.json",
    digest: FileDigest::Sha256,
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

/// A kind of digest that a manifest lists, in lower-case hexadecimal digits.
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

    /// Starts the digests of a file.
    pub(crate) fn start(self) -> Digests {
        Digests {
            sha256: digest::Context::new(&digest::SHA256),
            sha1: matches!(self, Self::Sha1).then(Sha1::new),
        }
    }

    /// Returns the digest of `content`, written as in the manifest.
    pub(crate) fn listed(self, content: &[u8]) -> String {
        match self {
            Self::Sha1 => hex(&Sha1::digest(content)),
            Self::Sha256 => hex(&sha256(content)),
        }
    }
}

/// The digests of a file while it is read.
pub(crate) struct Digests {
    sha256: digest::Context,
    sha1: Option<Sha1>,
}

impl Digests {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        if let Some(sha1) = &mut self.sha1 {
            sha1.update(bytes);
        }
    }

    /// Returns the SHA-256, and the digest as written in the manifest.
    pub(crate) fn finish(self) -> ([u8; 32], String) {
        let sha256 = to_array(&self.sha256.finish());
        let listed = match self.sha1 {
            Some(sha1) => hex(&sha1.finalize()),
            None => hex(&sha256),
        };
        (sha256, listed)
    }
}

/// Returns the SHA-256 of `content`. It uses ring, which is fast even on processors without SHA
/// instructions.
pub(crate) fn sha256(content: &[u8]) -> [u8; 32] {
    to_array(&digest::digest(&digest::SHA256, content))
}

fn to_array(digest: &digest::Digest) -> [u8; 32] {
    let mut array = [0; 32];
    array.copy_from_slice(digest.as_ref());
    array
}

fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from_digit(nibble.into(), 16).unwrap_or_default();
    bytes
        .iter()
        .flat_map(|&byte| [digit(byte >> 4), digit(byte & 15)])
        .collect()
}

/// Returns whether a file in an archive is a pass itself. Files that macOS added don't count.
pub(crate) fn is_pass(name: &str) -> bool {
    let file = name.rsplit('/').next().unwrap_or_default();
    !file.starts_with('.')
        && file
            .rsplit_once('.')
            .is_some_and(|(_, extension)| extension.eq_ignore_ascii_case("pkpass"))
}

/// Returns whether a file has the name of an image.
pub(crate) fn is_image(path: &str) -> bool {
    let extension = path.rsplit_once('.').map(|(_, extension)| extension);
    extension.is_some_and(|extension| {
        ["png", "jpg", "jpeg", "gif", "webp", "heic", "svg", "pdf"]
            .iter()
            .any(|other| extension.eq_ignore_ascii_case(other))
    })
}
