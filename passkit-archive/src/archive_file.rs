use std::{
    fmt,
    fs::File,
    io::{self, BufReader, Read as _},
    path::Path,
};

use passkit_server::{
    AuthToken, PassId,
    identifiers::{Kind, SerialNumber, TypeIdentifier},
};
use serde_json::{Map, Value};
use zip::ZipArchive;

use crate::{
    MAX_ARCHIVE_BYTES, MAX_ENTRIES, MAX_JSON_BYTES, json,
    layout::{Layout, MANIFEST, SIGNATURE},
};

/// How many bytes of the file are read at once. The last ones have the list of the entries.
const BUFFER_BYTES: usize = 4 << 10;

/// An archive in a file, to read a few of its entries without the others. It checks nothing. For
/// that, use [`Report::of`](crate::Report::of).
pub struct ArchiveFile {
    zip: ZipArchive<BufReader<File>>,
    kind: Kind,
}

/// What an [`ArchiveFile`] says about itself.
///
/// `Debug` does not show the token.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Identified {
    /// Type and serial.
    pub id: PassId,
    /// The authentication token. `None` if it is missing or can't be used.
    pub auth_token: Option<AuthToken>,
    /// Whether the pass is marked as no longer valid.
    pub voided: bool,
}

impl ArchiveFile {
    /// Opens a file. Returns `None` if it is no archive, for example because it is cut off.
    ///
    /// # Errors
    /// Fails if the file can't be read.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Option<Self>> {
        let file = File::open(path)?;
        let found = file.metadata()?;
        if !found.is_file() || found.len() > MAX_ARCHIVE_BYTES as u64 {
            return Ok(None);
        }
        let reader = BufReader::with_capacity(BUFFER_BYTES, file);
        let zip = match ZipArchive::new(reader) {
            Ok(zip) if zip.len() <= MAX_ENTRIES => zip,
            _ => return Ok(None),
        };
        let has = |kind: &Kind| {
            let name = Layout::of(*kind).description_file;
            zip.index_for_name(name).is_some()
        };
        let kind = Kind::ALL.into_iter().find(has);
        Ok(kind.map(|kind| Self { zip, kind }))
    }

    /// Returns whether there is a signature. It may be wrong.
    #[must_use]
    pub fn is_signed(&self) -> bool {
        self.zip.index_for_name(SIGNATURE).is_some()
    }

    /// Reads `manifest.json`. Returns `None` if it is missing, damaged or too large.
    pub fn manifest(&mut self) -> Option<Vec<u8>> {
        self.entry(MANIFEST)
    }

    /// Reads the identity and the token of the pass or order. Returns `None` if the archive is
    /// damaged.
    pub fn identify(&mut self) -> Option<Identified> {
        let layout = Layout::of(self.kind);
        let object = self.description()?;
        let text = |key: &str| object.get(key)?.as_str();
        Some(Identified {
            id: PassId {
                type_id: TypeIdentifier::new(text(layout.type_key)?).ok()?,
                serial: SerialNumber::new(text(layout.serial_key)?).ok()?,
            },
            auth_token: text("authenticationToken").and_then(|token| AuthToken::new(token).ok()),
            voided: object.get("voided") == Some(&Value::Bool(true)),
        })
    }

    /// Reads `pass.json` or `order.json`. Returns `None` if the archive is damaged.
    pub fn description(&mut self) -> Option<Map<String, Value>> {
        let text = self.entry(Layout::of(self.kind).description_file)?;
        serde_json::from_slice(&json::readable(&text)).ok()
    }

    fn entry(&mut self, name: &str) -> Option<Vec<u8>> {
        let entry = self.zip.by_name(name).ok()?;
        let mut content = Vec::new();
        let mut limited = entry.take(MAX_JSON_BYTES as u64 + 1);
        limited.read_to_end(&mut content).ok()?;
        (content.len() <= MAX_JSON_BYTES).then_some(content)
    }
}

impl fmt::Debug for ArchiveFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ArchiveFile")
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}
