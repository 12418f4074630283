use std::{path::PathBuf, time::Duration};

/// Where a [`SqliteStore`](crate::SqliteStore) lies, and what it may use.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// The file of the database. SQLite keeps two more files beside it, `-wal` and `-shm`.
    pub path: PathBuf,
    /// Whether to make the store if there is no file, or an empty one.
    pub create: bool,
    /// How long a call waits while another program has the database locked, a day at most. After that it fails with a
    /// transient error.
    pub lock_timeout: Duration,
    /// How many threads read, at least one.
    pub readers: usize,
    /// The memory for pages of the database in bytes, for all threads together.
    pub cache_bytes: u64,
}

impl Config {
    /// A store that exists in this file: 5 s for locks, 4 threads that read, 64 MiB of pages in memory.
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

    /// Makes the store if there is none, or doesn't.
    #[must_use]
    pub fn create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// Waits this long for locks of other programs.
    #[must_use]
    pub fn lock_timeout(mut self, timeout: Duration) -> Self {
        self.lock_timeout = timeout;
        self
    }

    /// Reads with this many threads.
    #[must_use]
    pub fn readers(mut self, readers: usize) -> Self {
        self.readers = readers;
        self
    }

    /// Keeps this many bytes of pages in memory.
    #[must_use]
    pub fn cache_bytes(mut self, bytes: u64) -> Self {
        self.cache_bytes = bytes;
        self
    }
}
