use std::path::PathBuf;

/// Where a [`SledStore`](crate::SledStore) lives, and how much memory it may use.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// The folder of the store. It is created if it does not exist, and must contain nothing else.
    pub path: PathBuf,
    /// Whether to create the store if there is none.
    pub create: bool,
    /// Size of the page cache in bytes, measured on disk. Memory use is several times higher.
    ///
    /// The store uses three quarters of this size in addition, for rows that were read or written lately. It reads these
    /// without waiting for the disk. The rows of a registration have about 300 bytes.
    pub cache_bytes: u64,
}

impl Config {
    /// A store in this folder, with a page cache of 64 MiB and 48 MiB for rows. It is created if there is none.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            create: true,
            cache_bytes: 64 << 20,
        }
    }

    /// Sets [`create`](Self::create).
    #[must_use]
    pub fn create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// Sets [`cache_bytes`](Self::cache_bytes).
    #[must_use]
    pub fn cache_bytes(mut self, bytes: u64) -> Self {
        self.cache_bytes = bytes;
        self
    }

    pub(crate) fn rows_bytes(&self) -> u64 {
        self.cache_bytes / 4 * 3
    }
}
