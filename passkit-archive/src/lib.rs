//! Reads, checks and makes the signed archives of Apple Wallet: `.pkpass` (passes) and `.order`
//! (orders).
//!
//! [`Archive::check`] reads an archive and reports all [`Problems`] at once. [`ArchiveBuilder`]
//! makes an archive, and a [`Signer`] signs it with a throw-away certificate. Both work for passes
//! and orders alike. The crate has no optional features.
//!
//! ```
//! # use passkit_archive::{ArchiveBuilder, placeholder_icon, Signer};
//! # use passkit_server::identifiers::{Kind, TypeIdentifier};
//! use passkit_archive::{Archive, Rules};
//!
//! # let pass = r#"{"formatVersion":1,"passTypeIdentifier":"pass.com.example.ticket","serialNumber":"A-1","teamIdentifier":"ABCDE12345","organizationName":"Example","description":"A ticket","webServiceURL":"https://example.com/wallet","authenticationToken":"0123456789abcdef","eventTicket":{}}"#;
//! # let signer = Signer::throwaway(&TypeIdentifier::new("pass.com.example.ticket")?, "ABCDE12345")?;
//! # let bytes = ArchiveBuilder::new(Kind::Pass, pass).file("icon.png", placeholder_icon(29)).build_signed(&signer)?;
//! let archive = Archive::check(&bytes, Rules::strict())?;
//! assert_eq!(archive.id.to_string(), "pass.com.example.ticket A-1");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What is checked
//!
//! * **Zip**: The archive is complete and undamaged. It has at most 15 MiB, 1,000 entries, and 64
//!   MiB unpacked. It has no encryption, no links, no unusable or duplicate names, no enclosing
//!   folder, and no files that macOS adds. Declared sizes are never trusted.
//! * **`pass.json` or `order.json`**: The file is UTF-8 and JSON. It has the required keys with
//!   their types, and the two keys that updates need, `webServiceURL` and `authenticationToken`.
//!   The presence of one of the two files decides the kind of the archive.
//! * **`manifest.json`**: It lists every file with its right digest and nothing else. Passes use
//!   SHA-1, orders SHA-256.
//! * **`signature`**: It is a detached CMS signature (PKCS #7) over the manifest, in DER or BER,
//!   with RSA or with ECDSA on P-256 or P-384. Its certificate is for this type identifier and this
//!   team.
//!
//! [`Rules::development`] accepts archives without manifest and signature, and then without a team,
//! and also `http://`. Parts that are present must still be right.
//!
//! The certificate chain, dates and revocation are not checked, because phones do that.

mod archive;
mod asn1;
mod ber;
mod builder;
mod contents;
mod description;
mod icon;
mod json;
mod layout;
mod manifest;
mod problem;
mod signature;
mod signer;
#[cfg(test)]
mod testing;
mod web_service;

pub use archive::{Archive, Rules};
pub use builder::{ArchiveBuilder, BuildError};
pub use contents::{
    MAX_ARCHIVE_BYTES, MAX_ENTRIES, MAX_JSON_BYTES, MAX_SIGNATURE_BYTES, MAX_UNPACKED_BYTES,
};
pub use icon::placeholder_icon;
pub use problem::{Position, Problem, Problems};
pub use signer::Signer;

/// Compiles the example in the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
