//! Not part of the public API. The crates of this project share it.
//!
//! Makes and opens files and folders for secrets. Only their owner can open what this module makes,
//! whatever the umask is. If there is a link instead of a file, the link is not followed, because
//! another user may have put it there.

use std::{
    ffi::OsString,
    fs::{self, DirBuilder, File, OpenOptions},
    hash::{BuildHasher as _, RandomState},
    io,
    path::{Path, PathBuf},
};

/// Makes a folder, and any missing folders above it. Logs a warning if the folder already exists
/// and other users can open it.
///
/// # Errors
/// Fails if the folder can't be made.
pub fn create_folder(folder: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)?;
    warn_of_readers(folder);
    Ok(())
}

/// Makes a file, and opens it for reading and writing.
///
/// # Errors
/// Fails if there is anything at this path, even a link, or if the file can't be made.
pub fn create_new(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Opens a file for reading and writing. Makes the file if it is missing. Logs a warning if the
/// file already exists and other users can open it.
///
/// # Errors
/// Fails if there is a link at this path, or if the file can't be made or opened.
pub fn open(path: &Path) -> io::Result<File> {
    match create_new(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        made => return made,
    }
    let file = File::options().read(true).write(true).open(path)?;
    // This check comes after opening, so that no link can replace the file in between.
    if !is_same(&file.metadata()?, &fs::symlink_metadata(path)?) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is a link; remove it",
        ));
    }
    warn_of_readers(path);
    Ok(file)
}

#[cfg(unix)]
fn is_same(one: &fs::Metadata, other: &fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

#[cfg(not(unix))]
fn is_same(_: &fs::Metadata, other: &fs::Metadata) -> bool {
    !other.is_symlink()
}

/// Makes an empty file under another name, and then renames it to `path`. So this function never
/// closes a file that SQLite has open at `path`. SQLite would lose its locks on that file.
///
/// # Errors
/// Fails if there is anything at this path, even a link, or if the file can't be made.
pub fn create_empty(path: &Path) -> io::Result<()> {
    let unnamed = beside(path)?;
    drop(create_new(&unnamed)?);
    let named = give_name(&unnamed, path);
    if named.is_err() {
        // The file is empty, so it does no harm if it stays.
        let _ = fs::remove_file(&unnamed);
    }
    named
}

/// Renames a file. Never replaces anything at the new path.
///
/// # Errors
/// Fails if there is anything at the new path, even a link, or if the file can't be renamed.
pub fn give_name(file: &Path, path: &Path) -> io::Result<()> {
    use io::ErrorKind::{PermissionDenied, Unsupported};
    // Unlike `rename`, a hard link never replaces anything.
    match fs::hard_link(file, path) {
        Ok(()) => fs::remove_file(file),
        // Some file systems have no hard links.
        Err(error)
            if matches!(error.kind(), PermissionDenied | Unsupported)
                && fs::symlink_metadata(path).is_err() =>
        {
            fs::rename(file, path)
        }
        Err(error) => Err(error),
    }
}

/// Returns a new path in the folder of `path`. Nobody can guess the new file name.
///
/// # Errors
/// Fails if the path has no file name.
pub fn beside(path: &Path) -> io::Result<PathBuf> {
    let name = path
        .file_name()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not a file name"))?;
    let mut beside = OsString::from(".");
    beside.push(name);
    beside.push(format!(".{:016x}", RandomState::new().hash_one(name)));
    Ok(path.with_file_name(beside))
}

/// Logs a warning if users other than the owner can open this file or folder.
pub fn warn_of_readers(path: &Path) {
    #[cfg(unix)]
    if let Ok(found) = fs::metadata(path) {
        let mode = std::os::unix::fs::MetadataExt::mode(&found) & 0o777;
        if mode & 0o077 != 0 {
            let private = if found.is_dir() { 700 } else { 600 };
            tracing::warn!(
                "{} is for secrets, and other users have access to it (mode {mode:03o}); run: chmod {private} {0}",
                path.display(),
            );
        }
    }
    #[cfg(not(unix))]
    let _ = path;
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn folder() -> PathBuf {
        let name = format!("passkit-private-{:x}", RandomState::new().hash_one(0));
        let folder = std::env::temp_dir().join(name);
        create_folder(&folder).unwrap();
        folder
    }

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn only_the_owner_can_open_what_is_made() {
        let folder = folder();
        let at = |name: &str| folder.join(name);
        create_folder(&at("a/b")).unwrap();
        create_new(&at("new")).unwrap();
        open(&at("opened")).unwrap();
        open(&at("opened")).unwrap();
        create_empty(&at("empty")).unwrap();
        give_name(&at("new"), &at("named")).unwrap();
        for path in [&folder, &at("a"), &at("a/b")] {
            assert_eq!(mode(path), 0o700, "{}", path.display());
        }
        for name in ["opened", "empty", "named"] {
            assert_eq!(mode(&at(name)), 0o600, "{name}");
        }
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 4);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn nothing_is_replaced_and_no_link_is_followed() {
        let folder = folder();
        let at = |name: &str| folder.join(name);
        fs::write(at("old"), "old").unwrap();
        symlink("old", at("link")).unwrap();
        symlink("nothing", at("dangling")).unwrap();
        for name in ["old", "link", "dangling"] {
            assert!(create_new(&at(name)).is_err(), "{name}");
            assert!(create_empty(&at(name)).is_err(), "{name}");
            assert!(give_name(&at("old"), &at(name)).is_err(), "{name}");
            assert_eq!(open(&at(name)).is_ok(), name == "old", "{name}");
        }
        assert_eq!(fs::read(at("old")).unwrap(), b"old");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 3);
        fs::remove_dir_all(folder).unwrap();
    }
}
