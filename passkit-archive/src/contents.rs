//! Reads the zip archive. The limits apply to real sizes, not to declared ones.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Cursor, Read as _},
};

use passkit_server::identifiers::Kind;
use zip::{CompressionMethod, ZipArchive, read::ZipFileEntry, result::ZipError};

use crate::{
    directory::{self, Directory, Fault},
    finding::Finding,
    foreign,
    layout::{self, Digests, Layout, MANIFEST, PERSONALIZATION, SIGNATURE, sha256},
    rules::{self, Rule},
};

/// The largest archive that is read: 15 MiB. Wallet loads passes up to about this size.
pub const MAX_ARCHIVE_BYTES: usize = 15 << 20;

/// The limit for all files of an archive together when unpacked: 64 MiB.
pub const MAX_UNPACKED_BYTES: usize = 64 << 20;

/// The largest `pass.json`, `order.json` or `manifest.json` that is read: 1 MiB.
pub const MAX_JSON_BYTES: usize = 1 << 20;

/// The largest `signature` that is read: 64 KiB. A signature with Apple's certificates has about 3
/// KiB.
pub const MAX_SIGNATURE_BYTES: usize = 64 << 10;

/// The largest `pass.strings` or `personalization.json` that is read: 256 KiB.
pub const MAX_TEXT_BYTES: usize = 256 << 10;

/// The limit for the bytes that are read of all these texts together: 1 MiB.
pub const MAX_TEXTS_BYTES: usize = 1 << 20;

/// How much of an image is read: the header of a PNG file.
const IMAGE_HEADER_BYTES: usize = 29;

/// The content of an archive.
#[derive(Debug)]
pub(crate) struct Contents {
    pub(crate) kind: Kind,
    /// The content of the description file.
    pub(crate) description: Option<Vec<u8>>,
    pub(crate) manifest: Part,
    pub(crate) signature: Part,
    /// The files that the manifest must list, sorted by name.
    pub(crate) files: Vec<File>,
    /// The names of files that are present, but have a problem.
    unusable: BTreeSet<String>,
}

impl Contents {
    /// Returns whether a file that the manifest may list is present. The file may be unusable.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.file(name).is_some() || self.unusable.contains(name)
    }

    /// Returns a file by its name, if it is usable.
    pub(crate) fn file(&self, name: &str) -> Option<&File> {
        let at = self
            .files
            .binary_search_by(|file| file.name.as_str().cmp(name));
        self.files.get(at.ok()?)
    }

    /// Returns a digest of all files that the manifest must list, with their names. Files that
    /// macOS added are left out.
    pub(crate) fn digest(&self) -> [u8; 32] {
        let mut listing = Vec::new();
        for file in self.files.iter().filter(|file| file.litter.is_none()) {
            listing.extend_from_slice(&(file.name.len() as u64).to_be_bytes());
            listing.extend_from_slice(file.name.as_bytes());
            listing.extend_from_slice(&file.sha256);
        }
        sha256(&listing)
    }

    /// Returns whether there is an image of this name, such as `icon` or `logo.png`, in any
    /// resolution and language.
    pub(crate) fn has_image(&self, name: &str) -> bool {
        let stem = name.strip_suffix(".png").unwrap_or(name);
        let is_image = |path: &str| {
            let name = path.rsplit('/').next().unwrap_or_default();
            let rest = name.strip_prefix(stem);
            rest.is_some_and(|rest| matches!(rest, ".png" | "@2x.png" | "@3x.png"))
        };
        let names = self.files.iter().map(|file| &file.name);
        self.has(name) || names.chain(&self.unusable).any(|name| is_image(name))
    }
}

/// The manifest or the signature. These two files describe the archive itself.
#[derive(Debug, Default)]
pub(crate) enum Part {
    #[default]
    Missing,
    /// The file is present but can't be read. A finding says why.
    Unusable,
    Present(Vec<u8>),
}

/// A file that the manifest must list.
#[derive(Debug)]
pub(crate) struct File {
    pub(crate) name: String,
    /// The number of bytes.
    pub(crate) size: usize,
    /// The first bytes, if the checks need them.
    pub(crate) start: Vec<u8>,
    pub(crate) sha256: [u8; 32],
    /// The digest that the manifest must list.
    pub(crate) listed_digest: String,
    /// Set for a file that macOS added. `None` for a file of the pass.
    pub(crate) litter: Option<Litter>,
}

/// A file that macOS adds and that no reader needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Litter {
    /// `._name`: metadata of another file. Phones ignore it.
    AppleDouble,
    /// `.DS_Store`, or anything else in `__MACOSX`.
    Other,
}

impl Litter {
    pub(crate) fn of(name: &str) -> Option<Self> {
        let file = name.rsplit('/').next().unwrap_or_default();
        if file.starts_with("._") {
            Some(Self::AppleDouble)
        } else if file == ".DS_Store" || name.starts_with("__MACOSX/") {
            Some(Self::Other)
        } else {
            None
        }
    }
}

/// Unpacks `bytes`. Returns `None` if nothing more can be checked. In that case, a finding says
/// why.
pub(crate) fn read(bytes: &[u8], findings: &mut Vec<Finding>) -> Option<Contents> {
    if bytes.len() > MAX_ARCHIVE_BYTES {
        findings.push(Finding::of_archive(
            &rules::TOO_LARGE,
            format!(
                "has {} bytes, more than the {MAX_ARCHIVE_BYTES} allowed; use smaller images",
                bytes.len()
            ),
        ));
        return None;
    }
    let (mut zip, directory) = open(bytes).map_err(|one| findings.push(one)).ok()?;
    if directory.zip.len() < bytes.len() {
        findings.push(Finding::of_archive(
            &rules::ZIP_TAIL,
            "has something after its end; remove it",
        ));
    }
    let twice = directory::colliding_names(&directory.names);
    if !twice.is_empty() {
        // If two files have the same name, some readers use the first of them and others use the
        // second. Nothing more can be trusted then.
        findings.extend(twice.into_iter().map(|name| {
            Finding::in_file(
                &rules::NAME_TWICE,
                &String::from_utf8_lossy(name),
                "is in the archive twice, or another file has the same letters in another case; \
                 remove one of them",
            )
        }));
        return None;
    }
    let kind = kind(&directory.names)
        .map_err(|one| findings.push(one))
        .ok()?;
    let layout = Layout::of(kind);

    let mut contents = Contents {
        kind,
        description: None,
        manifest: Part::Missing,
        signature: Part::Missing,
        files: Vec::with_capacity(zip.len()),
        unusable: BTreeSet::new(),
    };
    let mut left = MAX_UNPACKED_BYTES;
    let mut texts_left = MAX_TEXTS_BYTES;
    for index in 0..zip.len() {
        let name = match file_name(&zip, index) {
            Ok(Some(name)) => name,
            Ok(None) => continue,
            Err(finding) => {
                contents.set_unusable(finding.file().unwrap_or_default());
                findings.push(finding);
                continue;
            }
        };
        let limit = match name.as_str() {
            MANIFEST => MAX_JSON_BYTES,
            SIGNATURE => MAX_SIGNATURE_BYTES,
            name if name == layout.description_file => MAX_JSON_BYTES,
            _ => MAX_UNPACKED_BYTES,
        };
        let keep = if limit < MAX_UNPACKED_BYTES {
            limit
        } else {
            kept_bytes(&name).min(texts_left)
        };
        let mut unpacked = Unpacked::new(layout, keep);
        let result = unpack(&mut zip, index, limit.min(left), &mut unpacked);
        let reason = match left.checked_sub(unpacked.length) {
            Some(now_left) => {
                left = now_left;
                result.err()
            }
            None => {
                findings.push(Finding::of_archive(
                    &rules::TOO_LARGE,
                    format!("unpacks to more than the {MAX_UNPACKED_BYTES} bytes allowed"),
                ));
                return None;
            }
        };
        match reason {
            None => {
                if limit == MAX_UNPACKED_BYTES {
                    texts_left -= unpacked.start.len();
                }
                contents.add(layout, name, unpacked);
            }
            Some(reason) => {
                contents.set_unusable(&name);
                findings.push(Finding::in_file(&rules::ENTRY, &name, reason));
            }
        }
    }
    contents.files.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Some(contents)
}

/// Unpacks all files of a zip archive, within its limits. Returns the kind of the archive, and the
/// files by their names.
pub(crate) fn unpack_all(bytes: &[u8]) -> Result<(Kind, BTreeMap<String, Vec<u8>>), Finding> {
    let too_large = |message| Finding::of_archive(&rules::TOO_LARGE, message);
    if bytes.len() > MAX_ARCHIVE_BYTES {
        return Err(too_large(format!(
            "has more than the {MAX_ARCHIVE_BYTES} bytes allowed; use smaller images"
        )));
    }
    let (mut zip, directory) = open(bytes)?;
    if let Some(name) = directory::colliding_names(&directory.names).first() {
        let message = "is in the archive twice, or another file has the same letters in another \
                       case; remove one of them";
        let name = String::from_utf8_lossy(name);
        return Err(Finding::in_file(&rules::NAME_TWICE, &name, message));
    }
    let kind = kind(&directory.names)?;
    let mut files = BTreeMap::new();
    let mut left = MAX_UNPACKED_BYTES;
    for index in 0..zip.len() {
        let Some(name) = file_name(&zip, index)? else {
            continue;
        };
        let mut unpacked = Unpacked::new(Layout::of(kind), left);
        unpack(&mut zip, index, left, &mut unpacked)
            .map_err(|reason| Finding::in_file(&rules::ENTRY, &name, reason))?;
        left -= unpacked.length;
        files.insert(name, unpacked.start);
    }
    Ok((kind, files))
}

/// Opens a zip archive. Fails if readers could find different files in it.
pub(crate) fn open(bytes: &[u8]) -> Result<(Zip<'_>, Directory<'_>), Finding> {
    let damaged = |reason: String| Finding::of_archive(&rules::ZIP_STRUCTURE, reason);
    let directory = directory::read(bytes).map_err(|fault| match fault {
        Fault::NoEnd => Finding::of_archive(&rules::NOT_ZIP, foreign::what(bytes)),
        Fault::Entries(_) => Finding::of_archive(&rules::TOO_LARGE, fault.to_string()),
        fault => damaged(fault.to_string()),
    })?;
    let zip = ZipArchive::new(Cursor::new(directory.zip))
        .map_err(|error| damaged(format!("can't be opened: {}", zip_error(error))))?;
    if !zip.file_names_raw().eq(directory.names.iter().copied()) {
        let names: BTreeSet<_> = directory.names.iter().collect();
        if names.len() == directory.names.len() {
            return Err(damaged("its list of files is damaged; zip it again".into()));
        }
    }
    Ok((zip, directory))
}

/// Returns how many bytes of a file the checks of its content need.
fn kept_bytes(name: &str) -> usize {
    if name == PERSONALIZATION || name.ends_with(".lproj/pass.strings") {
        MAX_TEXT_BYTES
    } else if layout::is_image(name) {
        IMAGE_HEADER_BYTES
    } else {
        0
    }
}

/// The parts of an unpacked file that are kept.
pub(crate) struct Unpacked {
    length: usize,
    digests: Digests,
    /// The first bytes, at most `keep`.
    start: Vec<u8>,
    keep: usize,
}

impl Unpacked {
    fn new(layout: &Layout, keep: usize) -> Self {
        Self {
            length: 0,
            digests: layout.digest.start(),
            start: Vec::new(),
            keep,
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        self.length += bytes.len();
        self.digests.update(bytes);
        let room = self.keep - self.start.len();
        self.start
            .extend_from_slice(bytes.get(..room).unwrap_or(bytes));
    }
}

impl Contents {
    /// Adds a file. Keeps its content if that is needed later.
    fn add(&mut self, layout: &Layout, name: String, unpacked: Unpacked) {
        let mut start = unpacked.start;
        match name.as_str() {
            MANIFEST => self.manifest = Part::Present(start),
            SIGNATURE => self.signature = Part::Present(start),
            _ => {
                if name == layout.description_file {
                    self.description = Some(std::mem::take(&mut start));
                }
                let (sha256, listed_digest) = unpacked.digests.finish();
                let litter = Litter::of(&name);
                self.files.push(File {
                    name,
                    size: unpacked.length,
                    start,
                    sha256,
                    listed_digest,
                    litter,
                });
            }
        }
    }

    fn set_unusable(&mut self, name: &str) {
        match name {
            MANIFEST => self.manifest = Part::Unusable,
            SIGNATURE => self.signature = Part::Unusable,
            _ => drop(self.unusable.insert(name.to_owned())),
        }
    }
}

pub(crate) type Zip<'a> = ZipArchive<Cursor<&'a [u8]>>;

/// Returns the kind of the archive. The description file in it decides, never the name of the
/// archive.
fn kind(names: &[&[u8]]) -> Result<Kind, Finding> {
    let has = |kind| names.contains(&Layout::of(kind).description_file.as_bytes());
    let wrong = |message: String| Finding::of_archive(&rules::NO_DESCRIPTION, message);
    match (has(Kind::Pass), has(Kind::Order)) {
        (true, false) => Ok(Kind::Pass),
        (false, true) => Ok(Kind::Order),
        (true, true) => Err(wrong(
            "has both pass.json and order.json; remove one of them".into(),
        )),
        (false, false) => {
            let mut texts = names
                .iter()
                .filter_map(|name| std::str::from_utf8(name).ok());
            if texts.clone().any(layout::is_pass) {
                return Err(Finding::of_archive(
                    &rules::BUNDLE,
                    "is a bundle of passes (.pkpasses); unzip it, and use its passes one by one",
                ));
            }
            let in_folder = texts.find_map(|name| {
                let (folder, file) = name.rsplit_once('/')?;
                Kind::ALL
                    .map(|kind| Layout::of(kind).description_file)
                    .contains(&file)
                    .then_some((folder, file))
            });
            Err(match in_folder {
                Some((folder, file)) => wrong(format!(
                    "has {file} in the folder {folder}; zip the files, not the folder that contains them"
                )),
                None => wrong("has neither pass.json nor order.json".into()),
            })
        }
    }
}

/// Returns the name of an entry that can be unpacked, or `None` for a directory.
fn file_name(zip: &Zip<'_>, index: usize) -> Result<Option<String>, Finding> {
    let entry = match zip.by_index_data(index) {
        Ok(entry) => entry,
        Err(error) => {
            return Err(Finding::of_archive(
                &rules::ZIP_STRUCTURE,
                format!("has a damaged entry: {}", zip_error(error)),
            ));
        }
    };
    let Ok(name) = std::str::from_utf8(entry.name_raw()) else {
        let name = String::from_utf8_lossy(entry.name_raw());
        return Err(Finding::in_file(
            &rules::NAME,
            &name,
            "has a name that is not UTF-8; rename it",
        ));
    };
    let directory = name.strip_suffix('/');
    let unusable = unusable_name(directory.unwrap_or(name))
        .map(|reason| (&rules::NAME, reason))
        .or_else(|| unusable_entry(&entry));
    if let Some((rule, reason)) = unusable {
        return Err(Finding::in_file(rule, name, reason));
    }
    Ok(directory.is_none().then(|| name.to_owned()))
}

pub(crate) fn unusable_name(name: &str) -> Option<&'static str> {
    if name.starts_with('/') {
        return Some("has an absolute name; name files relative to the root of the archive");
    }
    if name.contains('\\') {
        return Some("has a backslash in its name; separate folders with /");
    }
    if name.contains(char::is_control) {
        return Some("has a control character in its name; rename it");
    }
    name.split('/').find_map(|part| match part {
        "" | "." | ".." => {
            Some("has an empty part, \".\" or \"..\" in its name; name files relative to the root")
        }
        _ => None,
    })
}

fn unusable_entry(entry: &ZipFileEntry<'_>) -> Option<(&'static Rule, &'static str)> {
    let found = |rule, reason| Some((rule, reason));
    if entry.encrypted() {
        found(&rules::ENTRY, "is encrypted; zip it without a password")
    } else if entry.is_symlink() {
        found(&rules::NAME, "is a symbolic link; add the file itself")
    } else if !matches!(
        entry.compression(),
        CompressionMethod::Stored | CompressionMethod::Deflated
    ) {
        found(
            &rules::ENTRY,
            "is compressed in a way other than deflate; zip it with deflate or store it",
        )
    } else {
        None
    }
}

/// Unpacks an entry piece by piece. Fails after `limit` bytes, and never reads much more than that.
fn unpack(
    zip: &mut Zip<'_>,
    index: usize,
    limit: usize,
    unpacked: &mut Unpacked,
) -> Result<(), String> {
    let damaged = |reason| format!("is damaged: {reason}; zip it again");
    let file = zip
        .by_index(index)
        .map_err(|error| damaged(zip_error(error)))?;
    let mut file = file.take(limit as u64 + 1);
    let mut piece = [0; 16 << 10];
    loop {
        match file.read(&mut piece) {
            Ok(0) => break,
            Ok(length) => unpacked.update(piece.get(..length).unwrap_or_default()),
            Err(error) => return Err(damaged(error.to_string())),
        }
    }
    if unpacked.length > limit {
        return Err(format!("is larger than the {limit} bytes allowed for it"));
    }
    Ok(())
}

fn zip_error(error: ZipError) -> String {
    match error {
        ZipError::InvalidArchive(reason) => reason.into_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unusable_names_are_found() {
        for name in [
            "icon.png",
            "en.lproj/pass.strings",
            "a..b",
            "..a",
            ".hidden",
            "größe.png",
        ] {
            assert_eq!(unusable_name(name), None, "{name}");
        }
        for (name, reason) in [
            ("/etc/passwd", "absolute"),
            ("../icon.png", "\"..\""),
            ("a/../b", "\"..\""),
            ("a//b", "empty"),
            ("", "empty"),
            ("en.lproj\\pass.strings", "backslash"),
            ("a\nb", "control"),
        ] {
            assert!(unusable_name(name).unwrap().contains(reason), "{name:?}");
        }
    }

    #[test]
    fn what_macos_adds_is_recognized() {
        for (name, litter) in [
            ("icon.png", None),
            (".hidden", None),
            ("._icon.png", Some(Litter::AppleDouble)),
            ("en.lproj/._pass.strings", Some(Litter::AppleDouble)),
            ("__MACOSX/._icon.png", Some(Litter::AppleDouble)),
            ("__MACOSX/icon.png", Some(Litter::Other)),
            ("en.lproj/.DS_Store", Some(Litter::Other)),
        ] {
            assert_eq!(Litter::of(name), litter, "{name}");
        }
    }
}
