//! The folder of finished passes. Each file appears complete, or not at all.
//!
//! New files are written into a hidden folder first, which `passkit serve` ignores. A group of them is
//! synced with one call, and then each file is renamed. After a crash or a power loss, each file therefore
//! has either its old or its new content. The next run removes what a stopped run left in the hidden
//! folder.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use passkit_archive::{ArchiveFile, Identified, MAX_ARCHIVE_BYTES, template::TokenSecret};
use passkit_server::{
    identifiers::{Kind, SerialNumber, TypeIdentifier},
    private_files,
    text::OneLine,
};

use tempfile::TempPath;

use super::{file_name::file_name, parallel::in_parallel, secret::Secret};
use crate::failure::Failure;

/// The hidden folder in the output folder.
const HIDDEN: &str = ".passkit-make";
/// The file by which the secret of the folder is recognised.
const CHECK: &str = "secret-check";
const LOCK: &str = "lock";
/// How many names are in memory at once.
const NAMES: usize = 4_096;
/// How often to try again while another process writes.
const PAUSE: Duration = Duration::from_millis(20);
/// The start of the names of files that are being written.
const NEW: &str = "new-";

pub(crate) struct OutputFolder {
    path: PathBuf,
    hidden: PathBuf,
    kind: Kind,
    next: AtomicU64,
    /// The content of the note about the secret, if this run wrote the note.
    note: OnceLock<String>,
    /// Keeps other processes away. `None` in a dry run, which writes nothing.
    _lock: Option<File>,
}

/// A file in the folder before it is replaced.
pub(super) enum Existing {
    Missing,
    /// The file is not an archive, or a part of it can't be read.
    Damaged,
    Archive(Box<ArchiveFile>),
}

/// A complete file that does not have its final name yet. It is removed when this is dropped.
#[derive(Debug)]
pub(super) struct Staged {
    temporary: TempPath,
    path: PathBuf,
}

impl OutputFolder {
    /// Opens a folder to write to. Makes the folder if it is missing, and removes what a stopped run left. While another
    /// process writes to the folder, waits for at most `limit`. Returns `None` if this takes longer.
    pub(crate) fn open_within(
        path: &Path,
        kind: Kind,
        limit: Duration,
    ) -> Result<Option<Self>, Failure> {
        let mut this = Self::look_at(path, kind);
        let lock = this.prepare().map_err(|error| this.cannot_write(&error))?;
        let started = Instant::now();
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if started.elapsed() >= limit => return Ok(None),
                Err(TryLockError::WouldBlock) => thread::sleep(PAUSE),
                Err(TryLockError::Error(error)) => return Err(this.cannot_write(&error)),
            }
        }
        this.clean().map_err(|error| this.cannot_write(&error))?;
        this._lock = Some(lock);
        Ok(Some(this))
    }

    /// Opens a folder to see what would change. The folder may be missing.
    pub(crate) fn look_at(path: &Path, kind: Kind) -> Self {
        Self {
            path: path.to_owned(),
            hidden: path.join(HIDDEN),
            kind,
            next: AtomicU64::new(0),
            note: OnceLock::new(),
            _lock: None,
        }
    }

    /// Makes the folders, and opens the lock.
    fn prepare(&self) -> io::Result<File> {
        fs::create_dir_all(&self.path)?;
        match fs::create_dir(&self.hidden) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => made?,
        }
        private_files::open(&self.hidden.join(LOCK))
    }

    /// Removes what a stopped run left.
    fn clean(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.hidden)? {
            let entry = entry?;
            let name = entry.file_name();
            if name.as_encoded_bytes().starts_with(NEW.as_bytes()) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    fn cannot_write(&self, error: &io::Error) -> Failure {
        Failure::new(format!(
            "can't write to {}: {error}",
            OneLine::path(&self.path)
        ))
    }

    /// Returns the name of the file of a pass.
    pub(crate) fn file_name(&self, serial: &SerialNumber) -> String {
        file_name(self.kind, serial)
    }

    /// Returns the path of a file, for messages.
    pub(super) fn shown(&self, name: &str) -> String {
        OneLine::path(&self.path.join(name)).to_string()
    }

    /// Opens the file of this name.
    pub(super) fn existing(&self, name: &str) -> Result<Existing, Failure> {
        match ArchiveFile::open(self.path.join(name)) {
            Ok(Some(archive)) => Ok(Existing::Archive(Box::new(archive))),
            Ok(None) => Ok(Existing::Damaged),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Existing::Missing),
            Err(error) => Err(Failure::new(format!(
                "can't read {}: {error}",
                self.shown(name)
            ))),
        }
    }

    /// Reads a file. The error is only a text, because the other files can still be read.
    pub(super) fn read(&self, name: &str) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        let limit = MAX_ARCHIVE_BYTES as u64 + 1;
        File::open(self.path.join(name))
            .and_then(|file| file.take(limit).read_to_end(&mut bytes))
            .map_err(|error| format!("can't be read: {error}"))?;
        Ok(bytes)
    }

    /// Calls `look` with the names of all finished files until it returns a value. Each call gets a group
    /// of names, because there may be a million files.
    pub(super) fn find<T>(
        &self,
        mut look: impl FnMut(Vec<String>) -> Result<Option<T>, Failure>,
    ) -> Result<Option<T>, Failure> {
        let cannot_read = |error: io::Error| {
            Failure::new(format!("can't read {}: {error}", OneLine::path(&self.path)))
        };
        let mut entries = match fs::read_dir(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            entries => entries.map_err(cannot_read)?,
        };
        loop {
            let mut names = Vec::new();
            for entry in entries.by_ref().take(NAMES) {
                names.push(entry.map_err(cannot_read)?.file_name());
            }
            if names.is_empty() {
                return Ok(None);
            }
            // passkit made no file with another name.
            let names = names.into_iter().filter_map(|name| name.into_string().ok());
            let mut names: Vec<String> = names.filter(|name| self.is_finished(name)).collect();
            names.sort_unstable();
            if let Some(found) = look(names)? {
                return Ok(Some(found));
            }
        }
    }

    fn is_finished(&self, name: &str) -> bool {
        let end = name.rsplit_once('.').map_or("", |(_, end)| end);
        !name.starts_with('.') && end.eq_ignore_ascii_case(self.kind.extension())
    }

    /// Writes a file under a temporary name.
    pub(super) fn stage(&self, name: &str, content: &[u8]) -> Result<Staged, Failure> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let temporary = self.hidden.join(format!("{NEW}{number}"));
        let write = || {
            let mut file = File::create_new(&temporary)?;
            let temporary = TempPath::try_from_path(&temporary)?;
            file.write_all(content)?;
            #[cfg(not(target_os = "linux"))]
            file.sync_all()?;
            Ok(temporary)
        };
        Ok(Staged {
            temporary: write().map_err(|error| self.cannot_write(&error))?,
            path: self.path.join(name),
        })
    }

    /// Makes the content of files durable, and then gives them their final names.
    pub(super) fn commit(&self, files: Vec<Staged>) -> Result<(), Failure> {
        if files.is_empty() {
            return Ok(());
        }
        self.sync()?;
        for Staged { temporary, path } in files {
            let named = temporary.persist(path);
            named.map_err(|error| self.cannot_write(&error.error))?;
        }
        Ok(())
    }

    /// Writes a single file, and gives it its final name. Call [`sync_names`](Self::sync_names) afterwards.
    pub(super) fn replace(&self, name: &str, content: &[u8]) -> Result<(), Failure> {
        let Staged { temporary, path } = self.stage(name, content)?;
        let commit = || {
            File::open(&temporary)?.sync_all()?;
            temporary.persist(path).map_err(|error| error.error)
        };
        commit().map_err(|error| self.cannot_write(&error))
    }

    /// Makes the names of the files durable.
    pub(super) fn sync_names(&self) -> Result<(), Failure> {
        // Other systems can't open a folder, so they can't sync it either.
        #[cfg(unix)]
        File::open(&self.path)
            .and_then(|folder| folder.sync_all())
            .map_err(|error| self.cannot_write(&error))?;
        Ok(())
    }

    /// Makes everything on the file system durable. One call costs less than one call for each file.
    pub(super) fn sync(&self) -> Result<(), Failure> {
        let sync = || {
            let folder = File::open(&self.path)?;
            #[cfg(target_os = "linux")]
            rustix::fs::syncfs(&folder)?;
            #[cfg(all(unix, not(target_os = "linux")))]
            folder.sync_all()?;
            #[cfg(not(unix))]
            drop(folder);
            Ok(())
        };
        sync().map_err(|error: io::Error| self.cannot_write(&error))
    }

    /// Refuses a folder with passes of this type whose tokens come from another secret. If these passes
    /// were made again, their tokens would change and their phones would be locked out.
    ///
    /// A note in the hidden folder identifies the secret. Only files that changed after the note was
    /// written are read. Without a note, all files are read.
    pub(crate) fn check_secret(
        &self,
        secret: &Secret,
        path: &Path,
        type_id: &TypeIdentifier,
    ) -> Result<(), Failure> {
        let refused = |what: String| {
            Failure::new(format!(
                "{what} was made with another secret than {}, and phones that have it would be locked out; put the old \
                 secret back, or use another folder",
                OneLine::path(path)
            ))
        };
        let (note, written) = match self.read_note()? {
            Some((note, written)) => (Some(note), written),
            None => (None, None),
        };
        if note.as_ref().is_some_and(|note| *note != secret.check) {
            return Err(refused(format!("a pass in {}", OneLine::path(&self.path))));
        }
        let check = |name: String| {
            let found = fs::metadata(self.path.join(&name)).ok();
            let changed = found.and_then(|found| changed_at(&found));
            if written.is_some() && changed < written {
                return Ok(());
            }
            match self.token_of(&name, &secret.tokens, type_id)? {
                Token::Derived => Ok(()),
                Token::Other => Err(refused(self.shown(&name))),
                // According to the note, the tokens of all passes here come from this secret.
                Token::Unknown if note.is_some() => Ok(()),
                Token::Unknown => Err(Failure::new(format!(
                    "{} is damaged, so nobody knows whether it was made with the secret {}; remove the file if no phone \
                     has the pass",
                    self.shown(&name),
                    OneLine::path(path)
                ))),
            }
        };
        self.find(|names| {
            let checked: Result<Vec<()>, Failure> = in_parallel(names, check).into_iter().collect();
            checked.map(|_| None::<()>)
        })
        .map(drop)
    }

    /// Returns whether there is a pass of this type that may have a token.
    pub(crate) fn has_tokens(&self, type_id: &TypeIdentifier) -> Result<bool, Failure> {
        if self.read_note()?.is_some() {
            return Ok(true);
        }
        let has_token = |pass: Identified| pass.auth_token.is_some() && pass.id.type_id == *type_id;
        let found = self.find(|names| {
            for name in names {
                let may_have = match self.existing(&name)? {
                    Existing::Missing => false,
                    Existing::Damaged => true,
                    Existing::Archive(mut archive) => archive.identify().is_none_or(has_token),
                };
                if may_have {
                    return Ok(Some(()));
                }
            }
            Ok(None)
        });
        Ok(found?.is_some())
    }

    fn token_of(
        &self,
        name: &str,
        tokens: &TokenSecret,
        type_id: &TypeIdentifier,
    ) -> Result<Token, Failure> {
        let pass = match self.existing(name)? {
            Existing::Missing => return Ok(Token::Derived),
            Existing::Damaged => return Ok(Token::Unknown),
            Existing::Archive(mut archive) => archive.identify(),
        };
        let Some(pass) = pass else {
            return Ok(Token::Unknown);
        };
        let Some(token) = pass.auth_token.filter(|_| pass.id.type_id == *type_id) else {
            return Ok(Token::Derived);
        };
        let derived = tokens.token(&pass.id);
        let is_same = derived.is_ok_and(|derived| derived.as_str() == token.as_str());
        Ok(if is_same {
            Token::Derived
        } else {
            Token::Other
        })
    }

    /// Returns the note about the secret, and when it was written.
    fn read_note(&self) -> Result<Option<(String, Option<Moment>)>, Failure> {
        let path = self.hidden.join(CHECK);
        let read = || io::Result::Ok((fs::read_to_string(&path)?, fs::metadata(&path)?));
        match read() {
            Ok((note, found)) => Ok(Some((note.trim().to_owned(), changed_at(&found)))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Failure::new(format!(
                "can't read {}: {error}",
                OneLine::path(&path)
            ))),
        }
    }

    /// Writes the note about the secret of the passes. Call it before the first pass is written.
    pub(crate) fn remember(&self, secret: &Secret) -> Result<(), Failure> {
        self.write_note(self.note.get_or_init(|| secret.check.clone()))
    }

    /// Writes the note again, if there is one. The next run does not read files that are older than the note.
    pub(super) fn renew_note(&self) -> Result<(), Failure> {
        self.note.get().map_or(Ok(()), |note| self.write_note(note))
    }

    fn write_note(&self, note: &str) -> Result<(), Failure> {
        let staged = self.stage(CHECK, note.as_bytes())?;
        self.commit(vec![Staged {
            path: self.hidden.join(CHECK),
            ..staged
        }])
    }
}

/// Returns the error that another process has been writing to a folder for too long.
pub(crate) fn busy(path: &Path) -> Failure {
    Failure::new(format!(
        "another passkit make writes to {}; wait until it has ended",
        OneLine::path(path)
    ))
}

/// The origin of the token of a pass.
enum Token {
    /// The token is derived from the secret, or the pass has no token.
    Derived,
    Other,
    Unknown,
}

/// The time of the last change of a file, in seconds and nanoseconds. No program can set this time back.
type Moment = (i64, i64);

/// Returns `None` if the system has no such time.
fn changed_at(found: &fs::Metadata) -> Option<Moment> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        Some((found.ctime(), found.ctime_nsec()))
    }
    #[cfg(not(unix))]
    {
        let _ = found;
        None
    }
}
