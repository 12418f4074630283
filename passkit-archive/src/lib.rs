//! Reads, checks and makes the signed archives of Apple Wallet: `.pkpass` (passes) and `.order`
//! (orders).
//!
//! [`Report::of`] reads an archive and returns everything that was found in it. Each [`Finding`]
//! has a [`Level`]. The level says whether phones refuse the archive, something in it cannot work,
//! or the finding is only a warning or a note. [`Archive::check`] is the short form: it returns the
//! archive if phones accept it. [`ArchiveBuilder`] makes an archive, and a [`Signer`] signs it with
//! a throw-away certificate. Everything works for passes and orders alike. The crate has no
//! optional features.
//!
//! ```
//! # use passkit_archive::{ArchiveBuilder, placeholder_icon, Signer};
//! # use passkit_server::identifiers::{Kind, TypeIdentifier};
//! use passkit_archive::{Level, Report, Rules};
//!
//! # let pass = r#"{"formatVersion":1,"passTypeIdentifier":"pass.com.example.ticket","serialNumber":"A-1","teamIdentifier":"ABCDE12345","organizationName":"Example","description":"A ticket","webServiceURL":"https://example.com/wallet","authenticationToken":"0123456789abcdef","eventTicket":{}}"#;
//! # let signer = Signer::throwaway(&TypeIdentifier::new("pass.com.example.ticket")?, "ABCDE12345")?;
//! # let bytes = ArchiveBuilder::new(Kind::Pass, pass).file("icon.png", placeholder_icon(29)).build_signed(&signer)?;
//! let report = Report::of(&bytes, Rules::strict());
//! assert_eq!(report.archive.unwrap().id.to_string(), "pass.com.example.ticket A-1");
//! // The certificates do not lead to Apple.
//! assert_eq!(report.findings.worst(), Some(Level::Warning));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What is checked
//!
//! [`RULES`] is the table of everything that can be found, with its level. [`keys`] has the tables of
//! all keys.
//!
//! * **Zip**: The archive is undamaged, and all readers find the same files in it. It has at most
//!   15 MiB, 1,000 entries, and 64 MiB unpacked. It has no encryption, no links, no unusable or
//!   duplicate names, and no enclosing folder. Declared sizes are never trusted.
//! * **`pass.json` or `order.json`**: The file is UTF-8 and JSON, of at most 1 MiB, 20,000 values and
//!   64 levels. The keys have the types and values that phones expect. The presence of one of the two
//!   files decides the kind of the archive.
//! * **The content of a pass**: dates, colours and their contrast, fields and their formats, barcodes and their
//!   encodings, images by their headers, translations, semantic tags, NFC, and rewards enrolment. At most 256 KiB of
//!   each `pass.strings` and `personalization.json` are read, and at most 1 MiB of all of them together.
//! * **`manifest.json`**: It lists every file with its right digest, and nothing else. Passes use
//!   SHA-1, and orders use SHA-256.
//! * **`signature`**: It is a detached CMS signature (PKCS #7) over the manifest, in DER or BER,
//!   with RSA or with ECDSA on P-256 or P-384. It has the signing time, its own certificate, and
//!   the certificate of the issuer. Its own certificate was valid at the signing time, and is for
//!   this type identifier and this team.
//!
//! [`Rules::development`] accepts archives without signature, or without manifest and signature. An
//! archive without signature needs no team. Parts that are present must still be right.
//!
//! The crate checks neither the chain up to Apple's root nor revocation. Phones do.

mod algorithms;
mod archive;
mod archive_file;
mod asn1;
mod base64;
mod ber;
mod builder;
mod bundle;
mod certificate;
mod changes;
mod checks;
mod color;
mod contents;
mod dates;
mod description;
mod difference;
mod directory;
mod files;
mod finding;
mod foreign;
mod icon;
mod json;
pub mod keys;
mod layout;
mod manifest;
pub mod rules;
mod signature;
mod signer;
pub mod template;
#[cfg(test)]
mod testing;
mod walk;
mod web_service;

pub use archive::{Archive, Report, Rules};
pub use archive_file::{ArchiveFile, Identified};
pub use builder::{ArchiveBuilder, BuildError};
pub use bundle::{Bundle, BundleError, MAX_BUNDLE_BYTES, MAX_BUNDLE_PASSES};
pub use changes::{ChangeSummary, Changes, fields_with_messages};
pub use checks::{schemes::shown_style, strings::MAX_STRINGS};
pub use color::parse as read_color;
pub use contents::{
    MAX_ARCHIVE_BYTES, MAX_JSON_BYTES, MAX_SIGNATURE_BYTES, MAX_TEXT_BYTES, MAX_TEXTS_BYTES,
    MAX_UNPACKED_BYTES,
};
pub use dates::time as read_date;
pub use difference::{Change, Difference, Place};
pub use directory::MAX_ENTRIES;
pub use files::{PassFiles, ReadError};
pub use finding::{Finding, Findings, Position};
pub use icon::placeholder_icon;
pub use json::{MAX_JSON_DEPTH, MAX_JSON_VALUES};
pub use passkit_identity::SignatureAlgorithm;
pub use rules::{Area, Level, RULES, Rule};
pub use signature::check_token_signature;
pub use signer::{Purpose, Signer, SignerError, SignerErrorKind, SigningKey};

/// Compiles the example in the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
