#![doc = include_str!("../README.md")]

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
pub use contents::{MAX_ARCHIVE_BYTES, MAX_ENTRIES, MAX_JSON_BYTES, MAX_SIGNATURE_BYTES, MAX_UNPACKED_BYTES};
pub use icon::placeholder_icon;
pub use problem::{Position, Problem, Problems};
pub use signer::Signer;
