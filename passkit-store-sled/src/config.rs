use std::path::PathBuf;

/// Where a [`SledStore`](crate::SledStore) lives, and how much memory it may use.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// The folder of the store. It is created when it does not exist, and holds nothing else.
    pub path: PathBuf,
    /// How many bytes of pages, as they are on disk, are kept in memory, where they take several times that; and
    /// three quarters of it again of rows that were read or written lately, which are answered without a thread that
    /// may wait for the disk. A registration has some 300 bytes of rows.
    pub cache_bytes: u64,
}

impl Config {
    /// A store in this folder, with 64 MiB of pages and 48 MiB of rows in memory.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), cache_bytes: 64 << 20 }
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
