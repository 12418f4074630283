use std::path::PathBuf;

/// Where a [`SledStore`](crate::SledStore) lives, and how much memory it may use.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// The folder of the store. It is created when it does not exist, and holds nothing else.
    pub path: PathBuf,
    /// How many bytes of pages, as they are on disk, are kept in memory. Pages in memory take several times that.
    pub cache_bytes: u64,
}

impl Config {
    /// A store in this folder, with 64 MiB of pages in memory.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), cache_bytes: 64 << 20 }
    }

    /// With this many bytes of pages in memory.
    #[must_use]
    pub fn cache_bytes(mut self, bytes: u64) -> Self {
        self.cache_bytes = bytes;
        self
    }
}
