//! Reads the files of a pass or an order, to sign them. The files may come from strangers, so
//! everything is limited.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use passkit_server::{identifiers::Kind, text::OneLine};
use serde_json::{Map, Value};

use crate::{
    ArchiveBuilder, Finding, MAX_ARCHIVE_BYTES, MAX_ENTRIES, MAX_JSON_BYTES, MAX_UNPACKED_BYTES,
    checks::strings,
    contents::{self, Litter},
    directory, json,
    layout::{Layout, MANIFEST, RECIPE, SIGNATURE},
    rules,
};

/// How deep folders may be nested. A pass needs one level, such as `de.lproj`.
const MAX_DEPTH: usize = 8;

/// The reason why the files of a pass could not be read. `Display` writes one line, which says what
/// is wrong and how to fix it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// A file or folder can't be read.
    #[error("can't read {}", OneLine::path(.0))]
    File(PathBuf, #[source] io::Error),
    /// A file or folder can't be in an archive, such as a symbolic link.
    #[error("{}: {}", OneLine::path(.0), .1)]
    Unusable(PathBuf, &'static str),
    /// The files are not a pass or an order that can be signed.
    #[error(transparent)]
    Content(#[from] Finding),
}

/// The files of a pass or an order, without its manifest and its signature.
///
/// ```no_run
/// use passkit_archive::{PassFiles, Signer};
/// # use passkit_identity::Identity;
///
/// # let identity = Identity::from_files(None, "ticket.pem", "ticket.key")?;
/// let signer = Signer::new(&identity, None)?;
/// let archive = PassFiles::open("ticket.pass")?.into_builder().build_signed(&signer)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct PassFiles {
    kind: Kind,
    files: BTreeMap<String, Vec<u8>>,
    left_out: Vec<String>,
}

impl PassFiles {
    /// Reads a folder or an archive file. The call blocks on the disk.
    ///
    /// The manifest and the signature are left out, because signing makes new ones. Hidden files
    /// and backup copies of editors (`pass.json~`) are left out too.
    ///
    /// # Errors
    /// Fails if a file can't be read, is a symbolic link, or has a name that phones do not accept.
    /// Also fails if names differ only in upper and lower case, if there is neither `pass.json` nor
    /// `order.json`, or if there are both. Also fails above the limits of an archive: 1,000 files
    /// and 64 MiB.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, ReadError> {
        let path = path.as_ref();
        let unreadable = |error| ReadError::File(path.to_owned(), error);
        if fs::metadata(path).map_err(unreadable)?.is_dir() {
            return Self::of_folder(path);
        }
        let mut bytes = Vec::new();
        File::open(path)
            .and_then(|file| {
                file.take(MAX_ARCHIVE_BYTES as u64 + 1)
                    .read_to_end(&mut bytes)
            })
            .map_err(unreadable)?;
        Ok(Self::of_archive(&bytes)?)
    }

    /// Reads an archive, and ignores its manifest and its signature.
    ///
    /// # Errors
    /// Fails like [`open`](Self::open), with the finding that says why.
    pub fn of_archive(bytes: &[u8]) -> Result<Self, Finding> {
        let (kind, files) = contents::unpack_all(bytes)?;
        let (files, left_out) = files.into_iter().partition(|(name, _)| belongs(name));
        Ok(Self::new(kind, files, left_out.into_keys().collect()))
    }

    fn of_folder(path: &Path) -> Result<Self, ReadError> {
        let mut reading = Reading {
            files: BTreeMap::new(),
            left_out: Vec::new(),
            bytes_left: MAX_UNPACKED_BYTES,
        };
        reading.folder(path, "", 0)?;
        let names: Vec<&[u8]> = reading.files.keys().map(|name| name.as_bytes()).collect();
        if let Some(name) = directory::colliding_names(&names).first() {
            let name = String::from_utf8_lossy(name);
            let message =
                "has the same letters as another file, in another case; rename one of them";
            return Err(Finding::in_file(&rules::NAME_TWICE, &name, message).into());
        }
        let is_kind = |kind: &Kind| {
            let description = Layout::of(*kind).description_file;
            reading.files.contains_key(description)
        };
        let wrong = |message| Finding::of_archive(&rules::NO_DESCRIPTION, message);
        let kinds: Vec<Kind> = Kind::ALL.into_iter().filter(is_kind).collect();
        let kind = match kinds[..] {
            [kind] => kind,
            [] => {
                return Err(wrong(
                    "has neither pass.json nor order.json; name the folder that contains the file",
                )
                .into());
            }
            _ => {
                return Err(wrong("has both pass.json and order.json; remove one of them").into());
            }
        };
        Ok(Self::new(kind, reading.files, reading.left_out))
    }

    fn new(kind: Kind, mut files: BTreeMap<String, Vec<u8>>, left_out: Vec<String>) -> Self {
        files.remove(MANIFEST);
        files.remove(SIGNATURE);
        Self {
            kind,
            files,
            left_out,
        }
    }

    /// Returns whether these are the files of a pass or of an order.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Returns the names of the files that were left out, except the manifest and the signature.
    #[must_use]
    pub fn left_out(&self) -> &[String] {
        &self.left_out
    }

    /// Returns the content of a file, such as `icon.png`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.files.get(name).map(Vec::as_slice)
    }

    /// Returns the names of the files, sorted. A name in a folder has a slash.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    /// Parses `pass.json` or `order.json`.
    ///
    /// # Errors
    /// Fails if the file is not a JSON object, or exceeds the limits of the file.
    pub fn description(&self) -> Result<Map<String, Value>, Finding> {
        let file = Layout::of(self.kind).description_file;
        let text = strict_description(file, self.get(file).unwrap_or_default())?;
        serde_json::from_str(&text).map_err(|error| {
            Finding::in_file(&rules::JSON, file, format!("is not valid JSON: {error}"))
        })
    }

    /// Reads `pass.strings` of a language, such as `de`. Returns `None` if the pass has no such
    /// file.
    ///
    /// # Errors
    /// Fails if the file is damaged, or too large.
    #[must_use]
    pub fn texts(&self, language: &str) -> Option<Result<BTreeMap<String, String>, Finding>> {
        let name = format!("{language}.lproj/pass.strings");
        let texts = strings::read(self.get(&name)?);
        Some(texts.map_err(|message| Finding::in_file(&rules::STRINGS, &name, message)))
    }

    pub(crate) fn into_parts(self) -> (Kind, BTreeMap<String, Vec<u8>>) {
        (self.kind, self.files)
    }

    /// Makes the builder of an archive with these files. `passkit.toml` is left out, because it
    /// belongs to a template.
    pub fn into_builder(self) -> ArchiveBuilder {
        let builder = ArchiveBuilder::new(self.kind, "");
        self.files
            .into_iter()
            .filter(|(name, _)| name != RECIPE)
            .fold(builder, |builder, (name, content)| {
                builder.file(name, content)
            })
    }
}

/// Returns the content of `pass.json` or `order.json` as strict JSON.
pub(crate) fn strict_description(file: &str, text: &[u8]) -> Result<String, Finding> {
    if text.len() > MAX_JSON_BYTES {
        let message = format!("is larger than the {MAX_JSON_BYTES} bytes allowed for it");
        return Err(Finding::in_file(&rules::ENTRY, file, message));
    }
    json::strict(file, text)
}

impl std::fmt::Debug for PassFiles {
    /// Shows only the names of the files, because the contents include a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.files.keys()).finish()
    }
}

/// Returns whether a file belongs to the pass. These files do not belong to it: hidden files,
/// backup copies of editors, and files that macOS and Windows add to folders.
fn belongs(name: &str) -> bool {
    let is_litter = |part: &str| {
        part.starts_with(['.', '#'])
            || part.ends_with('~')
            || matches!(part, "__MACOSX" | "Thumbs.db" | "desktop.ini")
    };
    Litter::of(name).is_none() && !name.split('/').any(is_litter)
}

/// A folder that is being read.
struct Reading {
    files: BTreeMap<String, Vec<u8>>,
    left_out: Vec<String>,
    bytes_left: usize,
}

impl Reading {
    /// Reads a folder. `prefix` is its name in the archive, with a slash at the end.
    fn folder(&mut self, folder: &Path, prefix: &str, depth: usize) -> Result<(), ReadError> {
        let unreadable = |error| ReadError::File(folder.to_owned(), error);
        for entry in fs::read_dir(folder).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            let refused = |reason| Err(ReadError::Unusable(path.clone(), reason));
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
                return refused("has a name that is not UTF-8; rename it");
            };
            let name = format!("{prefix}{name}");
            if self.files.len() + self.left_out.len() == MAX_ENTRIES {
                return refused("is one file too many; a pass may have 1,000 files");
            }
            if !belongs(&name) {
                self.left_out.push(name);
                continue;
            }
            if let Some(reason) = contents::unusable_name(&name) {
                return refused(reason);
            }
            // This reads the properties of a link itself, because its target may be anywhere.
            let found = fs::symlink_metadata(&path)
                .map_err(|error| ReadError::File(path.clone(), error))?;
            if found.is_dir() {
                if depth == MAX_DEPTH {
                    return refused("is nested too deep; a pass has only folders such as de.lproj");
                }
                self.folder(&path, &format!("{name}/"), depth + 1)?;
            } else if found.is_file() {
                let content = self.file(&path)?;
                self.files.insert(name, content);
            } else {
                return refused("is a link or no regular file; put the file itself here");
            }
        }
        Ok(())
    }

    fn file(&mut self, path: &Path) -> Result<Vec<u8>, ReadError> {
        let mut content = Vec::new();
        File::open(path)
            .and_then(|file| {
                file.take(self.bytes_left as u64 + 1)
                    .read_to_end(&mut content)
            })
            .map_err(|error| ReadError::File(path.to_owned(), error))?;
        match self.bytes_left.checked_sub(content.len()) {
            Some(left) => self.bytes_left = left,
            None => {
                return Err(ReadError::Unusable(
                    path.to_owned(),
                    "is too large; the files of a pass may have 64 MiB together",
                ));
            }
        }
        Ok(content)
    }
}
