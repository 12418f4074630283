use std::path::PathBuf;

/// Where a [`SledStore`](crate::SledStore) lives, and how much memory it may use.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// The folder of the store. It is created when it does not exist, and contains nothing else.
    pub path: PathBuf,
    /// Size of the page cache in bytes, measured on disk. Memory use is several times higher. Three quarters of this size
    /// is added for rows that were read or written lately, which are read without waiting for the disk. A registration has
    /// some 300 bytes of rows.
    pub cache_bytes: u64,
}

impl Config {
    /// A store in this folder, with 64 MiB of pages and 48 MiB of rows in memory.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            cache_bytes: 64 << 20,
        }
    }

    /// With this many bytes of pages in memory, and three quarters of it of rows.
    #[must_use]
    pub fn cache_bytes(mut self, bytes: u64) -> Self {
        self.cache_bytes = bytes;
        self
    }

    pub(crate) fn rows_bytes(&self) -> u64 {
        self.cache_bytes / 4 * 3
    }
}
