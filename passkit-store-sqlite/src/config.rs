use std::{path::PathBuf, time::Duration};

/// The file of a [`SqliteStore`](crate::SqliteStore), and the limits for using it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// The file of the database. SQLite keeps two more files in the same folder, with the endings `-wal` and `-shm`.
    pub path: PathBuf,
    /// Whether to make the store if there is no file, or an empty one.
    pub create: bool,
    /// How long a call waits while another program has locked the database, at most a day. After that time, the call fails
    /// with a transient error.
    pub lock_timeout: Duration,
    /// How many threads read. 0 counts as 1.
    pub readers: usize,
    /// The size of the page cache in bytes, for all threads together.
    pub cache_bytes: u64,
}

impl Config {
    /// The configuration of an existing store in this file. It waits 5 s for locks, reads with 4 threads, and caches 64 MiB of
    /// pages.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            create: false,
            lock_timeout: Duration::from_secs(5),
            readers: 4,
            cache_bytes: 64 << 20,
        }
    }

    /// Sets [`create`](Self::create).
    #[must_use]
    pub fn create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// Sets [`lock_timeout`](Self::lock_timeout).
    #[must_use]
    pub fn lock_timeout(mut self, timeout: Duration) -> Self {
        self.lock_timeout = timeout;
        self
    }

    /// Sets [`readers`](Self::readers).
    #[must_use]
    pub fn readers(mut self, readers: usize) -> Self {
        self.readers = readers;
        self
    }

    /// Sets [`cache_bytes`](Self::cache_bytes).
    #[must_use]
    pub fn cache_bytes(mut self, bytes: u64) -> Self {
        self.cache_bytes = bytes;
        self
    }
}
