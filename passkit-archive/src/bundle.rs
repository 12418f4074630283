use std::io::Read as _;

use crate::{
    contents::{self, MAX_ARCHIVE_BYTES, Zip},
    layout::is_pass,
};

/// The size of the largest bundle that is read. Safari has the same limit of 150 MiB.
pub const MAX_BUNDLE_BYTES: usize = 150 << 20;

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
}
