use std::{
    collections::BTreeMap,
    fmt,
    fs::File,
    io::{self, BufReader, Read, Seek},
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

/// How many bytes of the file are read at once. Usually, the list of the entries fits into the last
/// bytes.
const BUFFER_BYTES: usize = 4 << 10;

/// An archive in a file. It reads single entries without the others, and checks nothing. To check
/// an archive, use [`Report::of`](crate::Report::of).
pub struct ArchiveFile(Entries<BufReader<File>>);

/// The entries of an archive, wherever it is. Nothing is checked.
pub(crate) struct Entries<R> {
    zip: ZipArchive<R>,
    pub(crate) kind: Kind,
}

/// The identity of the pass or order in an [`ArchiveFile`], and its token.
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
    /// Opens a file. Returns `None` if the file is not a complete archive.
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
        Ok(Entries::open(reader).map(Self))
    }

    /// Returns whether there is a signature. It may be wrong.
    #[must_use]
    pub fn is_signed(&self) -> bool {
        self.0.zip.index_for_name(SIGNATURE).is_some()
    }

    /// Reads `manifest.json`. Returns `None` if it is missing, damaged or too large.
    pub fn manifest(&mut self) -> Option<Vec<u8>> {
        self.0.entry(MANIFEST)
    }

    /// Reads the identity and the token of the pass or order. Returns `None` if the archive is
    /// damaged.
    pub fn identify(&mut self) -> Option<Identified> {
        let layout = Layout::of(self.0.kind);
        let object = self.0.description()?;
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
}

impl<R: Read + Seek> Entries<R> {
    /// Returns `None` if this is not an archive.
    pub(crate) fn open(reader: R) -> Option<Self> {
        let zip = match ZipArchive::new(reader) {
            Ok(zip) if zip.len() <= MAX_ENTRIES => zip,
            _ => return None,
        };
        let has = |kind: &Kind| {
            let name = Layout::of(*kind).description_file;
            zip.index_for_name(name).is_some()
        };
        let kind = Kind::ALL.into_iter().find(has)?;
        Some(Self { zip, kind })
    }

    /// Reads `pass.json` or `order.json`.
    pub(crate) fn description(&mut self) -> Option<Map<String, Value>> {
        let text = self.entry(Layout::of(self.kind).description_file)?;
        serde_json::from_slice(&json::readable(&text)).ok()
    }

    /// Returns the checksum and the size of each entry, without reading it.
    pub(crate) fn checksums(&mut self) -> Option<BTreeMap<String, (u32, u64)>> {
        (0..self.zip.len())
            .map(|index| {
                let entry = self.zip.by_index_raw(index).ok()?;
                let name = entry.name().ok()?.into_owned();
                Some((name, (entry.crc32(), entry.size())))
            })
            .collect()
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
            .field("kind", &self.0.kind)
            .finish_non_exhaustive()
    }
}
