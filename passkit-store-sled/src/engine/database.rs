//! Opens and syncs the files.

use std::{
    collections::HashMap,
    fs::{self, File, TryLockError},
    io::{self, Write as _},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use passkit_server::{
    identifiers::TypeIdentifier,
    private_files,
    store::{StoreErrorKind, clock},
};
use sled::IVec;

use crate::{
    config::Config,
    error::SledError,
    layout::{self, StoreRow, TypeRow},
};

/// If a page is larger than a quarter of a segment, the engine writes the page to a separate file, which it never syncs.
/// With this segment size no page is that large: an index page has about 256 keys of at most 772 bytes.
const SEGMENT_BYTES: usize = 1 << 20;

/// The engine does not start with a smaller cache.
const LEAST_CACHE: u64 = 64 << 10;

/// How long to wait for the engine's own lock. Because of [`FolderLock`], no other process can have this lock. While this
/// process closes a database, that database keeps the lock until its last write in the background is done.
const CLOSING: Duration = Duration::from_secs(10);

/// Keeps other processes out of the folder, even while the database in the folder is opened again.
#[derive(Debug)]
pub(crate) struct FolderLock {
    file: File,
    path: PathBuf,
}

impl FolderLock {
    const NAME: &str = "lock";

    /// Fails if no store was created in the folder. Creates nothing.
    pub(crate) fn require(folder: &Path) -> Result<(), SledError> {
        if fs::metadata(folder.join(Self::NAME)).is_ok_and(|file| file.len() > 0) {
            return Ok(());
        }
        Err(SledError::new(
            StoreErrorKind::Configuration,
            format!(
                "there is no store in {}; check the path, or create it first",
                folder.display()
            ),
        ))
    }

    pub(crate) fn take(folder: &Path) -> Result<Self, SledError> {
        let shown = folder.display();
        private_files::create_folder(folder)
            .map_err(|e| SledError::io(format!("create the folder {shown}"), e))?;
        let path = folder.join(Self::NAME);
        let file = private_files::open(&path)
            .map_err(|e| SledError::io(format!("open {}", path.display()), e))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { file, path }),
            Err(TryLockError::WouldBlock) => Err(SledError::new(
                StoreErrorKind::Configuration,
                format!(
                    "the store in {shown} is in use by another process; stop it, or choose another folder"
                ),
            )),
            Err(TryLockError::Error(e)) => {
                Err(SledError::io(format!("lock the folder {shown}"), e))
            }
        }
    }

    /// Returns whether a store was created here. Nothing is acknowledged before that.
    pub(crate) fn has_store(&self) -> Result<bool, SledError> {
        self.file
            .metadata()
            .map(|file| file.len() > 0)
            .map_err(|e| self.failure(e))
    }

    /// Records that the store in this folder is durable. If the store is empty when it is opened later, it has lost
    /// everything.
    pub(crate) fn record_store(&mut self) -> Result<(), SledError> {
        self.file
            .write_all(b"passkit-store-sled\n")
            .and_then(|()| self.file.sync_all())
            .map_err(|e| self.failure(e))
    }

    fn failure(&self, error: io::Error) -> SledError {
        SledError::io(format!("read or write {}", self.path.display()), error)
    }
}

/// An open database.
#[derive(Debug)]
pub(crate) struct Database {
    path: PathBuf,
    /// `None` only during the drop.
    engine: Option<sled::Db>,
    /// A second handle on the engine's data file. The store uses this handle to sync the file, because the engine never
    /// syncs it.
    data_file: File,
}

/// The values that are read when the database is opened.
#[derive(Debug)]
pub(crate) struct Contents {
    pub(crate) created: u64,
    pub(crate) types: HashMap<TypeIdentifier, TypeRow>,
}

impl Database {
    /// Opens the database in a folder that the caller has locked, and makes everything in it durable. With `create`, creates
    /// the database.
    pub(crate) fn open(config: &Config, create: bool) -> Result<(Self, Contents), SledError> {
        let path = &config.path;
        catch_unwind(AssertUnwindSafe(|| Self::open_inner(config, create)))
            .unwrap_or_else(|panic| Err(SledError::panic(path, &*panic)))
    }

    fn open_inner(config: &Config, create: bool) -> Result<(Self, Contents), SledError> {
        let path = config.path.clone();
        remove_unfinished_snapshots(&path)?;
        let data_path = path.join("db");
        let at_data = |e| SledError::io(format!("open {}", data_path.display()), e);
        let data_file = if create {
            private_files::open(&data_path)
        } else {
            File::options().read(true).write(true).open(&data_path)
        };
        let data_file = data_file.map_err(at_data)?;
        // The engine treats everything that it reads now as durable. So the file is synced first, and its pages are read from
        // the disk, because the system's page cache may differ from the disk after a failed sync.
        data_file.sync_all().map_err(at_data)?;
        forget_cached_pages(&data_file);
        wait_for_closing(&data_file, &path)?;

        let engine = open_engine(config)?;
        let database = Self {
            path,
            engine: Some(engine),
            data_file,
        };
        let contents = database.read_contents(create)?;
        database.sync()?;
        database.sync_names()?;
        Ok((database, contents))
    }

    fn read_contents(&self, create: bool) -> Result<Contents, SledError> {
        let engine = self.engine()?;
        let store = match self.get(layout::STORE)? {
            Some(row) => StoreRow::decode(&row)?,
            None if create && engine.first().map_err(|e| self.failure(e))?.is_none() => {
                let row = StoreRow {
                    format: layout::FORMAT,
                    created: clock::now_micros() / 1_000_000,
                };
                engine
                    .insert(layout::STORE, row.encode())
                    .map_err(|e| self.failure(e))?;
                row
            }
            None => {
                let path = self.path.display();
                return Err(if create {
                    SledError::new(
                        StoreErrorKind::Configuration,
                        format!(
                            "the folder {path} contains a database of another program; choose another folder"
                        ),
                    )
                } else {
                    SledError::new(
                        StoreErrorKind::Corrupt,
                        format!(
                            "the store in {path} has lost its contents; restore the folder from a backup"
                        ),
                    )
                });
            }
        };
        if store.format != layout::FORMAT {
            return Err(SledError::new(
                StoreErrorKind::Configuration,
                format!(
                    "the store in {} has format {}, and this version reads only format {}; use the version that wrote it",
                    self.path.display(),
                    store.format,
                    layout::FORMAT
                ),
            ));
        }
        let types = engine
            .scan_prefix(layout::TYPES)
            .map(|row| {
                let (key, value) = row.map_err(|e| self.failure(e))?;
                Ok((
                    layout::read_type(&key[layout::TYPES.len()..])?,
                    TypeRow::decode(&value)?,
                ))
            })
            .collect::<Result<_, SledError>>()?;
        Ok(Contents {
            created: store.created,
            types,
        })
    }

    fn failure(&self, error: sled::Error) -> SledError {
        SledError::engine(&self.path, error)
    }

    fn engine(&self) -> Result<&sled::Db, SledError> {
        self.engine.as_ref().ok_or_else(SledError::closed)
    }

    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<IVec>, SledError> {
        self.engine()?.get(key).map_err(|e| self.failure(e))
    }

    /// Returns the rows whose keys start with `prefix`, in order, starting after the key `after`.
    pub(crate) fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
    ) -> Result<impl Iterator<Item = Result<(IVec, IVec), SledError>>, SledError> {
        use std::ops::Bound::{Excluded, Included, Unbounded};
        let start = after.map_or(Included(prefix), Excluded);
        let rows = self.engine()?.range::<&[u8], _>((start, Unbounded));
        let inside = prefix.to_vec();
        Ok(rows
            .map(|row| row.map_err(|e| self.failure(e)))
            .take_while(move |row| {
                row.as_ref()
                    .map_or(true, |(key, _)| key.starts_with(&inside))
            }))
    }

    /// Applies a batch. The batch is atomic, but durable only after [`sync`](Self::sync).
    pub(crate) fn apply(&self, batch: sled::Batch) -> Result<(), SledError> {
        self.engine()?
            .apply_batch(batch)
            .map_err(|e| self.failure(e))
    }

    /// Makes all applied batches durable.
    pub(crate) fn sync(&self) -> Result<(), SledError> {
        // The engine's flush gives the log to the file system (`pwrite`, `sync_file_range`). It does not sync the cache of
        // the disk or the new length of the file.
        self.engine()?.flush().map_err(|e| self.failure(e))?;
        self.data_file
            .sync_data()
            .map_err(|e| SledError::io(format!("sync the store in {}", self.path.display()), e))
    }

    /// Makes the names of new files durable. The engine creates files only when it is opened.
    fn sync_names(&self) -> Result<(), SledError> {
        let folder = fs::canonicalize(&self.path)
            .map_err(|e| SledError::io(format!("find the folder {}", self.path.display()), e))?;
        let names = [folder.join("conf"), folder.join("blobs")];
        for path in names.iter().map(PathBuf::as_path).chain(folder.ancestors()) {
            match File::open(path).and_then(|file| file.sync_all()) {
                // This user may lack the right to open the folders above the store's folder.
                Err(e)
                    if e.kind() == io::ErrorKind::PermissionDenied
                        && !path.starts_with(&folder) =>
                {
                    break;
                }
                result => {
                    result.map_err(|e| SledError::io(format!("sync {}", path.display()), e))?
                }
            }
            if !cfg!(unix) {
                break;
            }
        }
        Ok(())
    }

    /// Returns the size of all files in the folder.
    pub(crate) fn bytes_on_disk(&self) -> Result<u64, SledError> {
        fn bytes(folder: &Path) -> io::Result<u64> {
            let mut sum = 0;
            for entry in fs::read_dir(folder)? {
                let entry = entry?;
                match entry.metadata() {
                    Ok(file) if file.is_dir() => sum += bytes(&entry.path())?,
                    Ok(file) => sum += file.len(),
                    // The engine replaces its snapshot from time to time.
                    Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                    Err(e) => return Err(e),
                }
            }
            Ok(sum)
        }
        bytes(&self.path)
            .map_err(|e| SledError::io(format!("read the folder {}", self.path.display()), e))
    }

    /// Returns whether a write failed. The engine then refuses every call until it is opened again.
    pub(crate) fn has_failed(&self) -> bool {
        self.engine
            .as_ref()
            .is_none_or(|engine| engine.context.global_error().is_err())
    }

    /// Ends a flush that waits for a failed write. The engine has two ways to write. If one of them fails, the engine does
    /// not wake the flush. Another flush wakes it.
    pub(crate) fn wake_after_failure(&self) {
        if self.has_failed()
            && let Some(engine) = &self.engine
        {
            // The flush returns at once, with the known error.
            let _known = engine.flush();
        }
    }
}

impl Drop for Database {
    /// Catches panics, because the engine panics in its own drop if it can't sync.
    fn drop(&mut self) {
        let engine = self.engine.take();
        if catch_unwind(AssertUnwindSafe(|| drop(engine))).is_err() {
            tracing::error!(path = %self.path.display(), "the storage engine panicked while it was closed");
        }
    }
}

/// Removes snapshots that a crash or a full disk left half written. The engine would try to read such a snapshot and fail.
/// Snapshots are not needed, because the log has everything.
fn remove_unfinished_snapshots(path: &Path) -> Result<(), SledError> {
    let read = || -> io::Result<()> {
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with("snap.") && name.ends_with(".generating") {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    };
    read().map_err(|e| SledError::io(format!("read the folder {}", path.display()), e))
}

/// Makes the operating system read the file from the disk again.
fn forget_cached_pages(file: &File) {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed) {
        tracing::debug!(%error, "the system kept pages of the data file in memory");
    }
    #[cfg(not(target_os = "linux"))]
    let _ = file;
}

/// Waits until an earlier database of this process has unlocked the data file.
fn wait_for_closing(data_file: &File, path: &Path) -> Result<(), SledError> {
    let at_lock = |e| SledError::io(format!("lock the store in {}", path.display()), e);
    let give_up = Instant::now() + CLOSING;
    // The engine locks the same file, and fails at once if another database has the lock.
    loop {
        match data_file.try_lock() {
            Ok(()) => return data_file.unlock().map_err(at_lock),
            Err(TryLockError::WouldBlock) if Instant::now() < give_up => {
                thread::sleep(Duration::from_millis(5))
            }
            Err(error) => return Err(at_lock(error.into())),
        }
    }
}

fn open_engine(config: &Config) -> Result<sled::Db, SledError> {
    let path = &config.path;
    sled::Config::new()
        .path(path)
        .cache_capacity(config.cache_bytes.max(LEAST_CACHE))
        .segment_size(SEGMENT_BYTES)
        // The engine need not flush by itself, because the writer flushes before it answers.
        .flush_every_ms(None)
        .open()
        .map_err(|e| SledError::engine(path, e))
}
