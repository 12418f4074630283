//! Finds the files in a folder. Detects, without reading a file, whether it has changed.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use passkit_archive::MAX_ARCHIVE_BYTES;
use passkit_server::identifiers::Kind;

/// Size, times and inode of a file. While these values stay the same, the content is the same.
///
/// One of the times is the change time of the inode, because no program can set it back. So a file
/// that was rewritten with its old size and modification time is noticed. Some systems have no such
/// time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stamp(pub(crate) [u64; 6]);

impl Stamp {
    /// Returns `None` if there is no such file.
    pub(crate) fn of(path: &Path) -> io::Result<Option<Self>> {
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_file() => Ok(Some(Self::of_metadata(&metadata))),
            Ok(_) => Ok(None),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    #[cfg(unix)]
    fn of_metadata(metadata: &fs::Metadata) -> Self {
        use std::os::unix::fs::MetadataExt as _;
        Self([
            metadata.size(),
            metadata.ino(),
            metadata.mtime().cast_unsigned(),
            metadata.mtime_nsec().cast_unsigned(),
            metadata.ctime().cast_unsigned(),
            metadata.ctime_nsec().cast_unsigned(),
        ])
    }

    #[cfg(not(unix))]
    fn of_metadata(metadata: &fs::Metadata) -> Self {
        let modified = metadata
            .modified()
            .ok()
            .and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
        let modified = modified.unwrap_or_default();
        Self([
            metadata.len(),
            0,
            modified.as_secs(),
            u64::from(modified.subsec_nanos()),
            0,
            0,
        ])
    }

    /// Returns the size in bytes.
    pub(crate) fn size(self) -> u64 {
        self.0[0]
    }
}

/// Archives are read and published in groups of at most this many bytes and files.
const GROUP_BYTES: u64 = 2 * 1024 * 1024;
const GROUP_FILES: usize = 250;

/// Divides files into groups that may be in memory at once. A larger file is a separate group.
pub(crate) fn groups(files: &[(PathBuf, Stamp)]) -> impl Iterator<Item = &[(PathBuf, Stamp)]> {
    let mut rest = files;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = |(_, stamp): &&(PathBuf, Stamp)| {
            bytes += stamp.size().min(MAX_ARCHIVE_BYTES as u64);
            bytes <= GROUP_BYTES
        };
        let count = rest.iter().take(GROUP_FILES).take_while(fits).count();
        let (group, later) = rest.split_at_checked(count.max(1))?;
        rest = later;
        Some(group)
    })
}

/// The archives found below some folders.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) files: Vec<(PathBuf, Stamp)>,
    /// Folders and files that could not be read. Their content is unknown.
    pub(crate) unreadable: Vec<(PathBuf, io::Error)>,
}

/// The identity of the folder that a path leads to. It changes when a link changes or the folder is
/// replaced.
pub(crate) type Identity = (u64, u64);

/// Returns `None` if there is no such folder, or if the system has no such identity.
pub(crate) fn identity(path: &Path) -> Option<Identity> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        fs::metadata(path)
            .ok()
            .map(|metadata| (metadata.dev(), metadata.ino()))
    }
    #[cfg(not(unix))]
    {
        let _ = path;
        None
    }
}

/// Returns the absolute path of a folder that can be listed.
pub(crate) fn open_root(path: &Path) -> io::Result<PathBuf> {
    // A link stays a link, because its target may change.
    let path = std::path::absolute(path)?;
    fs::read_dir(&path)?;
    Ok(path)
}

/// Returns whether a file below a folder of `kind` is a candidate: it has the right extension and
/// is not hidden.
pub(crate) fn is_candidate(kind: Kind, path: &Path) -> bool {
    let hidden = path
        .file_name()
        .is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
    !hidden
        && path
            .extension()
            .is_some_and(|extension| extension.eq_ignore_ascii_case(kind.extension()))
}

/// Finds everything below `root`, in the order of the paths. Links to files are followed, links to
/// folders are not.
pub(crate) fn find(kind: Kind, root: &Path, found: &mut Found) {
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) => {
                found.unreadable.push((folder, error));
                continue;
            }
        };
        for entry in entries {
            let path = match &entry {
                Ok(entry) => entry.path(),
                Err(_) => folder.clone(),
            };
            match entry.and_then(|entry| look_at(kind, &entry, &path, &mut folders)) {
                Ok(Some(stamp)) => found.files.push((path, stamp)),
                Ok(None) => {}
                Err(error) => found.unreadable.push((path, error)),
            }
        }
    }
}

/// Adds the stamp of a candidate file. Adds a folder to the list of folders to search.
fn look_at(
    kind: Kind,
    entry: &fs::DirEntry,
    path: &Path,
    folders: &mut Vec<PathBuf>,
) -> io::Result<Option<Stamp>> {
    if entry.file_type()?.is_dir() {
        if !entry.file_name().as_encoded_bytes().starts_with(b".") {
            folders.push(path.to_path_buf());
        }
        return Ok(None);
    }
    if is_candidate(kind, path) {
        Stamp::of(path)
    } else {
        Ok(None)
    }
}
