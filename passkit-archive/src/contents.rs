//! Reads the zip archive. The limits apply to real sizes, not to declared ones.

use std::{
    collections::BTreeSet,
    io::{Cursor, Read as _},
};

use passkit_server::identifiers::Kind;
use zip::{CompressionMethod, ZipArchive, read::ZipFileEntry, result::ZipError};

use crate::{
    layout::{Layout, MANIFEST, SIGNATURE, sha256},
    problem::Problem,
};

/// The largest archive that is read: 15 MiB. Wallet loads passes up to about this size.
pub const MAX_ARCHIVE_BYTES: usize = 15 << 20;

/// The most entries of an archive, with directories.
pub const MAX_ENTRIES: usize = 1_000;

/// The most that all files of an archive may have together when unpacked: 64 MiB.
pub const MAX_UNPACKED_BYTES: usize = 64 << 20;

/// The largest `pass.json`, `order.json` or `manifest.json` that is read: 4 MiB.
pub const MAX_JSON_BYTES: usize = 4 << 20;

/// The largest `signature` that is read: 64 KiB. A signature with Apple's certificates has about 3
/// KiB.
pub const MAX_SIGNATURE_BYTES: usize = 64 << 10;

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
    /// Returns whether a file that the manifest may list is present, usable or not.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.files
            .binary_search_by(|file| file.name.as_str().cmp(name))
            .is_ok()
            || self.unusable.contains(name)
    }

    /// Returns a digest of all files that the manifest must list, with their names.
    pub(crate) fn digest(&self) -> [u8; 32] {
        let mut listing = Vec::new();
        for file in &self.files {
            listing.extend_from_slice(&(file.name.len() as u64).to_be_bytes());
            listing.extend_from_slice(file.name.as_bytes());
            listing.extend_from_slice(&file.sha256);
        }
        sha256(&listing)
    }
}

/// One of the two files that belong to the archive itself.
#[derive(Debug, Default)]
pub(crate) enum Part {
    #[default]
    Missing,
    /// The file is present. A problem explains why it could not be read.
    Unusable,
    Present(Vec<u8>),
}

/// A file that the manifest must list.
#[derive(Debug)]
pub(crate) struct File {
    pub(crate) name: String,
    pub(crate) sha256: [u8; 32],
    /// The digest that the manifest must list.
    pub(crate) listed_digest: String,
}

/// Unpacks `bytes`. Returns `None` if nothing more can be checked. In that case there is a problem.
pub(crate) fn read(bytes: &[u8], problems: &mut Vec<Problem>) -> Option<Contents> {
    if bytes.len() > MAX_ARCHIVE_BYTES {
        problems.push(Problem::of_archive(format!(
            "has {} bytes, more than the {MAX_ARCHIVE_BYTES} allowed; use smaller images",
            bytes.len()
        )));
        return None;
    }
    let mut zip = match ZipArchive::new(Cursor::new(bytes)) {
        Ok(zip) => zip,
        Err(error) => {
            let reason = zip_error(error);
            problems.push(Problem::of_archive(format!(
                "is not a complete zip archive: {reason}"
            )));
            return None;
        }
    };
    if zip.len() > MAX_ENTRIES {
        problems.push(Problem::of_archive(format!(
            "has {} entries, more than the {MAX_ENTRIES} allowed",
            zip.len()
        )));
        return None;
    }
    if zip.has_duplicate_names() {
        // Readers differ in which of the two they take, so nothing more can be trusted.
        let names = duplicate_names(bytes, zip.central_directory_start());
        if names.is_empty() {
            problems.push(Problem::of_archive(
                "has two entries of the same name; remove one of them",
            ));
        }
        problems.extend(names.into_iter().map(|name| {
            Problem::in_file(
                &String::from_utf8_lossy(name),
                "is in the archive twice; remove one of them",
            )
        }));
        return None;
    }
    let kind = kind(&zip).map_err(|problem| problems.push(problem)).ok()?;
    let layout = Layout::of(kind);

    let mut contents = Contents {
        kind,
        description: None,
        manifest: Part::Missing,
        signature: Part::Missing,
        files: Vec::with_capacity(zip.len()),
        unusable: BTreeSet::new(),
    };
    let mut unpacked = Vec::new();
    let mut left = MAX_UNPACKED_BYTES;
    for index in 0..zip.len() {
        let name = match file_name(&zip, index) {
            Ok(Some(name)) => name,
            Ok(None) => continue,
            Err(problem) => {
                contents.set_unusable(problem.file().unwrap_or_default());
                problems.push(problem);
                continue;
            }
        };
        let limit = match name.as_str() {
            MANIFEST => MAX_JSON_BYTES,
            SIGNATURE => MAX_SIGNATURE_BYTES,
            name if name == layout.description_file => MAX_JSON_BYTES,
            _ => MAX_UNPACKED_BYTES,
        };
        let result = unpack(&mut zip, index, limit.min(left), &mut unpacked);
        let problem = match left.checked_sub(unpacked.len()) {
            Some(now_left) => {
                left = now_left;
                result.err()
            }
            None => {
                problems.push(Problem::of_archive(format!(
                    "unpacks to more than the {MAX_UNPACKED_BYTES} bytes allowed"
                )));
                return None;
            }
        };
        match problem {
            None => contents.add(layout, name, &mut unpacked),
            Some(reason) => {
                contents.set_unusable(&name);
                problems.push(Problem::in_file(&name, reason));
            }
        }
    }
    contents.files.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Some(contents)
}

impl Contents {
    /// Adds a file, with its content if that is needed later.
    fn add(&mut self, layout: &Layout, name: String, content: &mut Vec<u8>) {
        match name.as_str() {
            MANIFEST => self.manifest = Part::Present(std::mem::take(content)),
            SIGNATURE => self.signature = Part::Present(std::mem::take(content)),
            _ => {
                let sha256 = sha256(content);
                let listed_digest = layout.digest.listed(content, &sha256);
                if name == layout.description_file {
                    self.description = Some(std::mem::take(content));
                }
                self.files.push(File {
                    name,
                    sha256,
                    listed_digest,
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

type Zip<'a> = ZipArchive<Cursor<&'a [u8]>>;

/// The kind depends on the description file that is present, never on the name of the archive.
fn kind(zip: &Zip<'_>) -> Result<Kind, Problem> {
    let has = |kind| {
        zip.file_names_raw()
            .any(|name| name == Layout::of(kind).description_file.as_bytes())
    };
    match (has(Kind::Pass), has(Kind::Order)) {
        (true, false) => Ok(Kind::Pass),
        (false, true) => Ok(Kind::Order),
        (true, true) => Err(Problem::of_archive(
            "has both pass.json and order.json; remove one of them",
        )),
        (false, false) => {
            let in_folder = zip
                .file_names_raw()
                .filter_map(|name| std::str::from_utf8(name).ok())
                .find_map(|name| {
                    let (folder, file) = name.rsplit_once('/')?;
                    Kind::ALL
                        .map(|kind| Layout::of(kind).description_file)
                        .contains(&file)
                        .then_some((folder, file))
                });
            Err(Problem::of_archive(match in_folder {
                Some((folder, file)) => {
                    format!(
                        "has {file} in the folder {folder}; zip the files, not the folder they are in"
                    )
                }
                None => "has neither pass.json nor order.json".to_owned(),
            }))
        }
    }
}

/// Returns the name of an entry that can be unpacked, or `None` for a directory.
fn file_name(zip: &Zip<'_>, index: usize) -> Result<Option<String>, Problem> {
    let entry = match zip.by_index_data(index) {
        Ok(entry) => entry,
        Err(error) => {
            return Err(Problem::of_archive(format!(
                "has a damaged entry: {}",
                zip_error(error)
            )));
        }
    };
    let Ok(name) = std::str::from_utf8(entry.name_raw()) else {
        let name = String::from_utf8_lossy(entry.name_raw());
        return Err(Problem::in_file(
            &name,
            "has a name that is not UTF-8; rename it",
        ));
    };
    let directory = name.strip_suffix('/');
    if let Some(reason) =
        unusable_name(directory.unwrap_or(name)).or_else(|| unusable_entry(&entry))
    {
        return Err(Problem::in_file(name, reason));
    }
    Ok(directory.is_none().then(|| name.to_owned()))
}

fn unusable_name(name: &str) -> Option<&'static str> {
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
        "__MACOSX" | ".DS_Store" => {
            Some("was added by macOS; leave it out (zip -X, without .DS_Store)")
        }
        _ => None,
    })
}

fn unusable_entry(entry: &ZipFileEntry<'_>) -> Option<&'static str> {
    if entry.encrypted() {
        Some("is encrypted; zip it without a password")
    } else if entry.is_symlink() {
        Some("is a symbolic link; add the file itself")
    } else if !matches!(
        entry.compression(),
        CompressionMethod::Stored | CompressionMethod::Deflated
    ) {
        Some("is compressed in a way other than deflate; zip it with deflate or store it")
    } else {
        None
    }
}

/// Unpacks an entry into `unpacked`. It fails after `limit` bytes, and never writes more than one
/// byte beyond them.
fn unpack(
    zip: &mut Zip<'_>,
    index: usize,
    limit: usize,
    unpacked: &mut Vec<u8>,
) -> Result<(), String> {
    /// The most memory that a declared size may reserve.
    const TRUSTED_SIZE: usize = 1 << 20;

    unpacked.clear();
    let damaged = |reason| format!("is damaged: {reason}; zip it again");
    let file = zip
        .by_index(index)
        .map_err(|error| damaged(zip_error(error)))?;
    let declared = usize::try_from(file.size()).unwrap_or(usize::MAX);
    unpacked.reserve(declared.min(limit).min(TRUSTED_SIZE));
    file.take(limit as u64 + 1)
        .read_to_end(unpacked)
        .map_err(|error| damaged(error.to_string()))?;
    if unpacked.len() > limit {
        return Err(format!("is larger than the {limit} bytes allowed for it"));
    }
    Ok(())
}

fn zip_error(error: ZipError) -> String {
    match error {
        // EOCD is the library's name for the list of files at the end of an archive.
        ZipError::InvalidArchive(reason) if reason.contains("EOCD") => "its end is missing".into(),
        ZipError::InvalidArchive(reason) => reason.into_owned(),
        other => other.to_string(),
    }
}

/// Returns the names that occur more than once in the central directory at `start`.
fn duplicate_names(archive: &[u8], start: u64) -> BTreeSet<&[u8]> {
    /// Removes one header from the directory and returns its name.
    fn next<'a>(directory: &mut &'a [u8]) -> Option<&'a [u8]> {
        const HEADER_BYTES: usize = 46;
        let header = directory.strip_prefix(b"PK\x01\x02".as_slice())?;
        let length =
            |at: usize| Some(u16::from_le_bytes([*header.get(at)?, *header.get(at + 1)?]).into());
        let (name, extra, comment): (usize, usize, usize) = (length(24)?, length(26)?, length(28)?);
        let behind = directory.get(HEADER_BYTES..)?;
        *directory = behind.get(name + extra + comment..)?;
        behind.get(..name)
    }

    let start = usize::try_from(start).unwrap_or(usize::MAX);
    let mut directory = archive.get(start..).unwrap_or_default();
    let mut seen = BTreeSet::new();
    std::iter::from_fn(|| next(&mut directory))
        .filter(|name| !seen.insert(*name))
        .collect()
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
            (".DS_Store", "macOS"),
            ("en.lproj/.DS_Store", "macOS"),
            ("__MACOSX/._icon.png", "macOS"),
        ] {
            assert!(unusable_name(name).unwrap().contains(reason), "{name:?}");
        }
    }

    #[test]
    fn other_files_are_not_zip_archives() {
        for bytes in [&b""[..], b"no zip", b"PK\x03\x04"] {
            let mut problems = Vec::new();
            assert!(read(bytes, &mut problems).is_none());
            let [problem] = &problems[..] else {
                panic!("{problems:?}")
            };
            assert!(
                problem
                    .to_string()
                    .starts_with("the archive: is not a complete zip archive: "),
                "{problem}"
            );
        }
    }
}
