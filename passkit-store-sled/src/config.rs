use std::path::PathBuf;

/// The folder of a [`SledStore`](crate::SledStore), and how much memory it may use.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// The folder of the store. It is created if it does not exist, and must contain nothing else.
    pub path: PathBuf,
    /// Whether to create the store if there is none.
    pub create: bool,
    /// The size of the page cache in bytes, measured on disk. Memory use is several times higher.
    ///
    /// In addition, the store uses three quarters of this size for rows that were recently read or written. It reads these
    /// rows without waiting for the disk. The rows of a registration have about 300 bytes.
    pub cache_bytes: u64,
}

impl Config {
    /// Returns the configuration of a store in this folder, with 64 MiB for pages and 48 MiB for rows. If there is no store,
    /// opening creates it.
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
