//! The files: opening them, and making what was written outlive a power cut.

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write as _},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use passkit_server::{
    identifiers::TypeIdentifier,
    store::{StoreErrorKind, clock},
};
use sled::IVec;

use crate::{
    config::Config,
    error::Failure,
    layout::{self, StoreRow, TypeRow},
};

/// Pages above a quarter of a segment would go to files of their own, which the engine never syncs. With segments of
/// this size none can: an index page holds some 256 keys, and no key is longer than 772 bytes.
const SEGMENT_BYTES: usize = 1 << 20;

/// With next to nothing the engine does not start.
const LEAST_CACHE: u64 = 64 << 10;

/// How long to wait for the engine's own lock. Only this process can have it (see [`FolderLock`]): a database that is
/// being closed keeps it until its last background write is done.
const CLOSING: Duration = Duration::from_secs(10);

/// Keeps every other opener out of the folder for as long as this lives, also while the database in it is reopened.
#[derive(Debug)]
pub(crate) struct FolderLock {
    file: File,
    path: PathBuf,
}

impl FolderLock {
    pub(crate) fn take(folder: &Path) -> Result<Self, Failure> {
        let shown = folder.display();
        fs::create_dir_all(folder)
            .map_err(|e| Failure::io(format!("create the folder {shown}"), e))?;
        let path = folder.join("lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(|e| Failure::io(format!("open {}", path.display()), e))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { file, path }),
            Err(TryLockError::WouldBlock) => Err(Failure::new(
                StoreErrorKind::Configuration,
                format!(
                    "the store in {shown} is in use by another process; stop that one, or choose another folder"
                ),
            )),
            Err(TryLockError::Error(e)) => Err(Failure::io(format!("lock the folder {shown}"), e)),
        }
    }

    /// Whether a store was made here. Nothing was acknowledged before its making was finished.
    pub(crate) fn has_store(&self) -> Result<bool, Failure> {
        self.file
            .metadata()
            .map(|file| file.len() > 0)
            .map_err(|e| self.failure(e))
    }

    /// Records that the store in this folder is made and durable: from now on one that is empty has lost everything.
    pub(crate) fn record_store(&mut self) -> Result<(), Failure> {
        self.file
            .write_all(b"passkit-store-sled\n")
            .and_then(|()| self.file.sync_all())
            .map_err(|e| self.failure(e))
    }

    fn failure(&self, error: io::Error) -> Failure {
        Failure::io(format!("read or write {}", self.path.display()), error)
    }
}

/// An open database.
#[derive(Debug)]
pub(crate) struct Database {
    path: PathBuf,
    /// `None` only while it is being dropped.
    engine: Option<sled::Db>,
    /// The engine's data file, opened once more: the engine itself never syncs it.
    data_file: File,
}

/// What is read when a database is opened.
#[derive(Debug)]
pub(crate) struct Contents {
    pub(crate) created: u64,
    pub(crate) types: HashMap<TypeIdentifier, TypeRow>,
}

impl Database {
    /// Opens the database in a folder that the caller has locked, and makes everything in it durable. A new one is
    /// made only if `create`.
    pub(crate) fn open(config: &Config, create: bool) -> Result<(Self, Contents), Failure> {
        let path = &config.path;
        catch_unwind(AssertUnwindSafe(|| Self::open_inner(config, create)))
            .unwrap_or_else(|panic| Err(Failure::panic(path, &*panic)))
    }

    fn open_inner(config: &Config, create: bool) -> Result<(Self, Contents), Failure> {
        let path = config.path.clone();
        remove_unfinished_snapshots(&path)?;
        let data_path = path.join("db");
        let at_data = |e| Failure::io(format!("open {}", data_path.display()), e);
        let data_file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(create)
            .truncate(false)
            .open(&data_path)
            .map_err(at_data)?;
        // The engine takes what it reads now for durable, and writes that down. What it reads must therefore be on disk,
        // and come from there: after a failed sync, the page cache may have what the disk does not.
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

    fn read_contents(&self, create: bool) -> Result<Contents, Failure> {
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
                    Failure::new(
                        StoreErrorKind::Configuration,
                        format!(
                            "the folder {path} holds another program's database; choose another folder"
                        ),
                    )
                } else {
                    Failure::new(
                        StoreErrorKind::Corrupt,
                        format!(
                            "the store in {path} has lost its contents; restore the folder from a backup"
                        ),
                    )
                });
            }
        };
        if store.format != layout::FORMAT {
            return Err(Failure::new(
                StoreErrorKind::Configuration,
                format!(
                    "the store in {} has format {}, and this version reads format {}; use the version that wrote it",
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
            .collect::<Result<_, Failure>>()?;
        Ok(Contents {
            created: store.created,
            types,
        })
    }

    fn failure(&self, error: sled::Error) -> Failure {
        Failure::engine(&self.path, error)
    }

    fn engine(&self) -> Result<&sled::Db, Failure> {
        self.engine.as_ref().ok_or_else(Failure::closed)
    }

    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<IVec>, Failure> {
        self.engine()?.get(key).map_err(|e| self.failure(e))
    }

    /// The rows whose keys start with `prefix`, in order, and behind the key `after` if there is one.
    pub(crate) fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
    ) -> Result<impl Iterator<Item = Result<(IVec, IVec), Failure>>, Failure> {
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

    /// Applies all of the batch or, after a crash, none of it. Durable only after [`sync`](Self::sync).
    pub(crate) fn apply(&self, batch: sled::Batch) -> Result<(), Failure> {
        self.engine()?
            .apply_batch(batch)
            .map_err(|e| self.failure(e))
    }

    /// Makes everything that was applied outlive a power cut.
    pub(crate) fn sync(&self) -> Result<(), Failure> {
        // The engine's flush hands the log to the file system (`pwrite`, `sync_file_range`), which outlives this
        // process. Neither the disk's own cache nor the file's new length is covered by that, hence the second call.
        self.engine()?.flush().map_err(|e| self.failure(e))?;
        self.data_file
            .sync_data()
            .map_err(|e| Failure::io(format!("sync the store in {}", self.path.display()), e))
    }

    /// Makes the files themselves outlive a power cut. New ones come only with opening: the engine's snapshot of its
    /// page table, and at the first time all of them.
    fn sync_names(&self) -> Result<(), Failure> {
        let folder = fs::canonicalize(&self.path)
            .map_err(|e| Failure::io(format!("find the folder {}", self.path.display()), e))?;
        let names = [folder.join("conf"), folder.join("blobs")];
        for path in names.iter().map(PathBuf::as_path).chain(folder.ancestors()) {
            match File::open(path).and_then(|file| file.sync_all()) {
                // Above the folder of the store it is enough to reach what this user may read.
                Err(e)
                    if e.kind() == io::ErrorKind::PermissionDenied
                        && !path.starts_with(&folder) =>
                {
                    break;
                }
                result => result.map_err(|e| Failure::io(format!("sync {}", path.display()), e))?,
            }
            if !cfg!(unix) {
                break;
            }
        }
        Ok(())
    }

    /// How many bytes all files in the folder have.
    pub(crate) fn bytes_on_disk(&self) -> Result<u64, Failure> {
        fn bytes(folder: &Path) -> io::Result<u64> {
            let mut sum = 0;
            for entry in fs::read_dir(folder)? {
                let entry = entry?;
                match entry.metadata() {
                    Ok(file) if file.is_dir() => sum += bytes(&entry.path())?,
                    Ok(file) => sum += file.len(),
                    // The engine puts a new snapshot in the place of the old one now and then.
                    Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                    Err(e) => return Err(e),
                }
            }
            Ok(sum)
        }
        bytes(&self.path)
            .map_err(|e| Failure::io(format!("read the folder {}", self.path.display()), e))
    }

    /// Whether the engine has met a failed write, after which it refuses everything until it is opened again.
    pub(crate) fn has_failed(&self) -> bool {
        self.engine
            .as_ref()
            .is_none_or(|engine| engine.context.global_error().is_err())
    }

    /// Ends a flush that waits for a write which failed. Of the engine's two ways to write, one wakes the waiting threads
    /// after a failure and the other does not, but every new flush does.
    pub(crate) fn wake_after_failure(&self) {
        if self.has_failed()
            && let Some(engine) = &self.engine
        {
            // A failed engine answers at once.
            let _known = engine.flush();
        }
    }
}

impl Drop for Database {
    /// The engine's own drop panics where it cannot sync.
    fn drop(&mut self) {
        let engine = self.engine.take();
        if catch_unwind(AssertUnwindSafe(|| drop(engine))).is_err() {
            tracing::error!(path = %self.path.display(), "the storage engine failed while it was closed");
        }
    }
}

/// A crash, or a full disk, in the middle of an earlier opening leaves a snapshot half written; the engine would take
/// it for the newest and refuse it. It is not needed, as the log has everything.
fn remove_unfinished_snapshots(path: &Path) -> Result<(), Failure> {
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
    read().map_err(|e| Failure::io(format!("read the folder {}", path.display()), e))
}

/// Makes the next reads come from the disk.
fn forget_cached_pages(file: &File) {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed) {
        tracing::debug!(%error, "pages of the data file stay in memory");
    }
    #[cfg(not(target_os = "linux"))]
    let _ = file;
}

/// Waits until a database that this process had open has let go of the data file.
fn wait_for_closing(data_file: &File, path: &Path) -> Result<(), Failure> {
    let at_lock = |e| Failure::io(format!("lock the store in {}", path.display()), e);
    let give_up = Instant::now() + CLOSING;
    // The engine locks the same file, but does not wait for it.
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

fn open_engine(config: &Config) -> Result<sled::Db, Failure> {
    let path = &config.path;
    sled::Config::new()
        .path(path)
        .cache_capacity(config.cache_bytes.max(LEAST_CACHE))
        .segment_size(SEGMENT_BYTES)
        // The writer flushes, before it answers anyone.
        .flush_every_ms(None)
        .open()
        .map_err(|e| Failure::engine(path, e))
}
