//! What the program writes: lines on standard output, and files. A file gets its name when it is
//! complete.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    sync::OnceLock,
};

use clap::builder::{PathBufValueParser, TypedValueParser};
use tempfile::NamedTempFile;

use crate::failure::Failure;

/// The first error of writing to standard output.
static UNPRINTED: OnceLock<io::Error> = OnceLock::new();

/// Notes whether a line reached standard output. It is not an error if the reader has ended, as in
/// `passkit device list | head -1`.
pub(crate) fn note(printed: io::Result<()>) {
    if let Err(error) = printed
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        let _ = UNPRINTED.set(error);
    }
}

/// Fails if a line could not be printed.
pub(crate) fn printed() -> Result<(), Failure> {
    match UNPRINTED.get() {
        Some(error) => Err(Failure::new(format!(
            "can't write to standard output: {error}"
        ))),
        None => Ok(()),
    }
}

/// A file that only its owner can read. It is written under a temporary name in the same folder,
/// and removed if it is never finished. If the process is killed, the next run removes it.
pub(crate) struct Output {
    path: PathBuf,
    file: BufWriter<NamedTempFile>,
}

impl Output {
    /// Begins a file. Refuses a path that is one of `inputs` or leads into one.
    pub(crate) fn create(path: &Path, inputs: &[PathBuf]) -> Result<Self, Failure> {
        if let Some(input) = inputs.iter().find(|input| leads_into(path, input)) {
            return Err(Failure::new(format!(
                "can't write {}: it would overwrite {}, which the command reads; name another file",
                path.display(),
                input.display()
            )));
        }
        if fs::metadata(path).is_ok_and(|found| !found.is_file()) {
            return Err(Failure::new(format!(
                "can't write {}: it is not a file; name another one",
                path.display()
            )));
        }
        let file = temporary(path).map_err(|error| cannot_write(path, &error))?;
        Ok(Self {
            path: path.to_owned(),
            file: BufWriter::new(file),
        })
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let written = self.file.write_all(bytes);
        written.map_err(|error| cannot_write(&self.path, &error))
    }

    /// Gives the file its name. An older file of that name is replaced.
    pub(crate) fn finish(self) -> Result<(), Failure> {
        let Self { path, file } = self;
        let file = file.into_inner().map_err(io::IntoInnerError::into_error);
        file.and_then(|file| {
            file.as_file().sync_all()?;
            file.persist(&path).map_err(|error| error.error)
        })
        .map(drop)
        .map_err(|error| cannot_write(&path, &error))
    }
}

/// How many characters `tempfile` adds to the start of a name.
const RANDOM: usize = 6;

/// Makes the temporary file of a path. It is locked until it is closed, so that other runs see that it is in use.
fn temporary(path: &Path) -> io::Result<NamedTempFile> {
    let mut start = OsString::from(".");
    start.push(path.file_name().unwrap_or_default());
    start.push(".passkit-");
    let folder = folder(path);
    remove_abandoned(folder, &start)?;
    loop {
        let mut new = tempfile::Builder::new();
        let file = new.prefix(&start).rand_bytes(RANDOM).tempfile_in(folder)?;
        // Some file systems have no locks. Then no run removes the files of others.
        let _ = file.as_file().lock();
        // Before the lock, another run may have removed it.
        if file.path().exists() {
            return Ok(file);
        }
    }
}

/// Removes the temporary files of processes that were killed.
fn remove_abandoned(folder: &Path, start: &OsStr) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let is_temporary = name.len() == start.len() + RANDOM
            && name
                .as_encoded_bytes()
                .starts_with(start.as_encoded_bytes());
        if is_temporary && entry.file_type()?.is_file() {
            let is_abandoned = File::open(entry.path()).is_ok_and(|file| file.try_lock().is_ok());
            if is_abandoned {
                // If this fails, the file belongs to another user.
                let _ = fs::remove_file(entry.path());
            }
        }
    }
    Ok(())
}

/// Reads a path from the command line. Refuses a URL, because it may be the URL of a store and
/// contain a password.
pub(crate) fn path() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(|path| {
        if path.to_string_lossy().contains("://") {
            Err("this is a URL, and not the path of a file")
        } else {
            Ok(path)
        }
    })
}

fn cannot_write(path: &Path, error: &io::Error) -> Failure {
    // `tempfile` adds the temporary name, which means nothing to the user.
    let error = error.to_string();
    let error = error.split(" at path ").next().unwrap_or_default();
    Failure::new(format!("can't write {}: {error}", path.display()))
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    }
}

/// Returns whether a file at `path` would be the file or folder `input`, or would be in that
/// folder. Links are followed.
fn leads_into(path: &Path, input: &Path) -> bool {
    is_same(path, input) || place(path).starts_with(place(input))
}

/// Returns the path without links. The file need not exist, but its folder must.
fn place(path: &Path) -> PathBuf {
    let in_folder = || {
        let folder = folder(path).canonicalize()?;
        Ok::<_, io::Error>(folder.join(path.file_name().unwrap_or_default()))
    };
    path.canonicalize()
        .or_else(|_| in_folder())
        .unwrap_or_else(|_| path.to_owned())
}

/// Returns whether two paths have the same inode, as hard links do.
#[cfg(unix)]
fn is_same(one: &Path, other: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let inode = |path: &Path| fs::metadata(path).map(|found| (found.dev(), found.ino()));
    matches!((inode(one), inode(other)), (Ok(one), Ok(other)) if one == other)
}

#[cfg(not(unix))]
fn is_same(one: &Path, other: &Path) -> bool {
    place(one) == place(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_appears_when_it_is_finished() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.csv");
        fs::write(&path, "old").unwrap();
        let mut output = Output::create(&path, &[]).unwrap();
        output.write(b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"old");
        drop(output);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        let mut output = Output::create(&path, &[]).unwrap();
        output.write(b"new").unwrap();
        output.finish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        #[cfg(unix)]
        {
            let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(&path).unwrap());
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn a_run_removes_the_file_of_a_killed_run_and_no_other_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.csv");
        for name in [
            ".a.csv.passkit-killed",
            ".a.csv.backup",
            ".a.csv.passkit-backup-1",
            ".b.csv.passkit-killed",
        ] {
            fs::write(folder.path().join(name), "old").unwrap();
        }
        let mut running = Output::create(&path, &[]).unwrap();
        running.write(b"new").unwrap();
        Output::create(&path, &[]).unwrap().finish().unwrap();
        running.finish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        let found = fs::read_dir(folder.path()).unwrap();
        let mut names: Vec<_> = found.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        let left = [
            ".a.csv.backup",
            ".a.csv.passkit-backup-1",
            ".b.csv.passkit-killed",
            "a.csv",
        ];
        assert_eq!(names, left);
    }

    #[cfg(unix)]
    #[test]
    fn an_input_is_no_output_whatever_leads_to_it() {
        use std::os::unix::fs::symlink;
        let temporary = tempfile::tempdir().unwrap();
        let at = |name: &str| temporary.path().join(name);
        fs::write(at("a.csv"), "a").unwrap();
        fs::write(at("other.csv"), "b").unwrap();
        fs::hard_link(at("a.csv"), at("hard.csv")).unwrap();
        symlink("a.csv", at("soft.csv")).unwrap();
        fs::create_dir(at("store")).unwrap();
        fs::write(at("store/db"), "c").unwrap();
        symlink("store", at("way")).unwrap();
        symlink("store/new", at("dangling")).unwrap();
        let inputs = [at("a.csv"), at("store"), at("not-made-yet")];
        for refused in [
            "a.csv",
            "hard.csv",
            "soft.csv",
            "./a.csv",
            "store",
            "store/db",
            "store/new.csv",
            "way/new.csv",
            "not-made-yet",
        ] {
            let error = Output::create(&at(refused), &inputs).err();
            let said = error.map_or_else(String::new, |error| error.to_string());
            assert!(said.contains("name another"), "{refused}: {said}");
        }
        for allowed in ["other.csv", "new.csv"] {
            assert!(Output::create(&at(allowed), &inputs).is_ok(), "{allowed}");
        }
        // The link itself is replaced. It is not followed.
        Output::create(&at("dangling"), &inputs)
            .unwrap()
            .finish()
            .unwrap();
        assert!(!at("store/new").exists());
        assert!(Output::create(temporary.path(), &[]).is_err());
    }
}
