use std::io::{Cursor, Read as _};

use passkit_server::{PassId, identifiers::Kind};
use zip::{CompressionMethod, ZipWriter};

use crate::{
    Archive, BuildError, Findings, Rules, builder,
    contents::{self, MAX_ARCHIVE_BYTES, Zip},
    layout::is_pass,
};

/// The size of the largest bundle that is read. Safari has the same limit of 150 MiB.
pub const MAX_BUNDLE_BYTES: usize = 150 << 20;

/// How many passes a bundle may have. Source: Apple's *Distributing and Updating a Pass*.
pub const MAX_BUNDLE_PASSES: usize = 10;

/// A bundle of passes: a `.pkpasses` file, which is a zip archive of `.pkpass` files.
///
/// Safari and Mail add all passes of a bundle at once. A web service serves passes one by one.
#[derive(Debug)]
pub struct Bundle<'a> {
    zip: Zip<'a>,
}

impl<'a> Bundle<'a> {
    /// Opens a bundle. Returns `None` if the bytes are something else, such as a single pass.
    #[must_use]
    pub fn open(bytes: &'a [u8]) -> Option<Self> {
        let (zip, directory) = contents::open(bytes).ok()?;
        let is_bundle = directory
            .names
            .iter()
            .filter_map(|name| std::str::from_utf8(name).ok())
            .any(is_pass);
        let is_archive = directory
            .names
            .iter()
            .any(|name| matches!(*name, b"pass.json" | b"order.json"));
        (is_bundle && !is_archive).then_some(Self { zip })
    }

    /// Unpacks the passes one by one. Each item is the name and the bytes of a pass.
    ///
    /// If a pass is too large, it is unpacked only until this is clear. If a pass is damaged, the
    /// bytes before the damage are returned. In both cases, [`Report::of`](crate::Report::of)
    /// explains the problem.
    pub fn passes(&mut self) -> impl Iterator<Item = (String, Vec<u8>)> {
        (0..self.zip.len()).filter_map(|index| {
            let entry = self.zip.by_index(index).ok()?;
            let name = String::from_utf8_lossy(entry.name_raw()).into_owned();
            if !is_pass(&name) {
                return None;
            }
            let mut bytes = Vec::new();
            let mut limited = entry.take(MAX_ARCHIVE_BYTES as u64 + 1);
            // The bytes before an error are enough for a report.
            let _ = limited.read_to_end(&mut bytes);
            Some((name, bytes))
        })
    }

    /// Makes a bundle of signed passes: a `.pkpasses` file. The name of each pass is its position.
    /// Serve the file with the media type `application/vnd.apple.pkpasses`.
    ///
    /// # Errors
    /// Fails if there are no passes, if there are more than [`MAX_BUNDLE_PASSES`], or if they are
    /// together larger than [`MAX_BUNDLE_BYTES`]. Also fails if phones would refuse a pass, if an
    /// archive is an order, or if a pass occurs twice. The error then has the index of the archive.
    pub fn build(passes: &[Vec<u8>]) -> Result<Vec<u8>, BundleError> {
        if passes.is_empty() || passes.len() > MAX_BUNDLE_PASSES {
            return Err(BundleError::Count(passes.len()));
        }
        if passes.iter().map(Vec::len).sum::<usize>() > MAX_BUNDLE_BYTES {
            return Err(BundleError::Size);
        }
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        let mut ids = Vec::new();
        for (index, pass) in passes.iter().enumerate() {
            let archive = Archive::check(pass, Rules::strict())
                .map_err(|findings| BundleError::Pass(index, findings))?;
            if archive.kind() == Kind::Order {
                return Err(BundleError::Order(index));
            }
            if ids.contains(&archive.id) {
                return Err(BundleError::Twice(index, archive.id));
            }
            ids.push(archive.id);
            // Passes are compressed already.
            let name = format!("{}.pkpass", index + 1);
            builder::add(&mut zip, &name, pass, CompressionMethod::Stored)?;
        }
        Ok(zip.finish().map_err(BuildError::zip)?.into_inner())
    }
}

/// An error while a bundle was made. A number is the index of a pass.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// There are too few or too many passes.
    #[error("a bundle has 1 to {MAX_BUNDLE_PASSES} passes, not {0}")]
    Count(usize),
    /// The passes are too large together.
    #[error("the passes have more than 150 MiB together")]
    Size,
    /// Phones would refuse a pass.
    #[error("phones would refuse the pass: {}", worst(.1))]
    Pass(usize, Findings),
    /// An order can't be in a bundle.
    #[error("is an order; a bundle has passes only")]
    Order(usize),
    /// The same pass occurs twice.
    #[error("is the pass {1} again; phones keep one of each")]
    Twice(usize, PassId),
    /// The zip archive could not be written.
    #[error(transparent)]
    Build(#[from] BuildError),
}

impl BundleError {
    /// Returns the index of the pass that is wrong.
    #[must_use]
    pub fn index(&self) -> Option<usize> {
        match self {
            Self::Pass(index, _) | Self::Order(index) | Self::Twice(index, _) => Some(*index),
            _ => None,
        }
    }
}

fn worst(findings: &Findings) -> String {
    findings
        .first()
        .map(ToString::to_string)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ArchiveBuilder, Signer, placeholder_icon};

    fn pass(serial: &str) -> Vec<u8> {
        let type_id = "pass.com.example.ticket".parse().unwrap();
        let signer = Signer::throwaway(&type_id, "ABCDE12345").unwrap();
        let pass = serde_json::json!({
            "formatVersion": 1, "passTypeIdentifier": type_id.as_str(), "serialNumber": serial,
            "teamIdentifier": "ABCDE12345", "organizationName": "Example", "description": "A ticket", "eventTicket": {},
        });
        let builder = ArchiveBuilder::new(Kind::Pass, pass.to_string());
        let builder = builder.file("icon.png", placeholder_icon(29));
        builder.build_signed(&signer).unwrap()
    }

    #[test]
    fn a_bundle_has_its_passes() {
        let passes = [pass("A"), pass("B")];
        let bundle = Bundle::build(&passes).unwrap();
        let read: Vec<(String, Vec<u8>)> = Bundle::open(&bundle).unwrap().passes().collect();
        assert!(
            read.iter()
                .map(|(name, _)| name)
                .eq(["1.pkpass", "2.pkpass"])
        );
        assert!(read.iter().map(|(_, bytes)| bytes).eq(&passes));
    }

    #[test]
    fn what_phones_would_refuse_is_in_no_bundle() {
        let refused = |passes: &[Vec<u8>]| {
            let error = Bundle::build(passes).unwrap_err();
            (error.index(), error.to_string())
        };
        let (index, text) = refused(&[pass("A"), b"no pass".to_vec()]);
        assert!(
            index == Some(1) && text.starts_with("phones would refuse the pass: "),
            "{text}"
        );
        let (index, text) = refused(&[pass("A"), pass("B"), pass("A")]);
        assert!(
            index == Some(2) && text.contains("pass.com.example.ticket A again"),
            "{text}"
        );
        assert_eq!(refused(&[]).1, "a bundle has 1 to 10 passes, not 0");
        assert_eq!(
            refused(&vec![pass("A"); 11]).1,
            "a bundle has 1 to 10 passes, not 11"
        );
        assert_eq!(
            refused(&vec![vec![0; 16 << 20]; 10]).1,
            "the passes have more than 150 MiB together"
        );
    }
}
