//! Keeps rows that were recently read or written.

use sled::IVec;

/// Rows by key. The value is `None` if the row is known not to exist.
#[derive(Debug)]
pub(super) struct Memory(quick_cache::sync::Cache<Box<[u8]>, Option<IVec>, Size>);

#[derive(Clone, Debug)]
struct Size;

impl quick_cache::Weighter<Box<[u8]>, Option<IVec>> for Size {
    fn weight(&self, key: &Box<[u8]>, row: &Option<IVec>) -> u64 {
        /// The approximate size of an entry without its bytes.
        const ENTRY: usize = 120;
        (key.len() + row.as_ref().map_or(0, |row| row.len()) + ENTRY) as u64
    }
}

impl Memory {
    /// Makes an empty cache with room for this number of bytes.
    pub(super) fn new(bytes: u64) -> Self {
        let about = usize::try_from(bytes / 300).unwrap_or(usize::MAX);
        Self(quick_cache::sync::Cache::with_weighter(about, bytes, Size))
    }

    /// Returns the row if it is in memory.
    #[expect(clippy::option_option, reason = "a row may be known not to exist")]
    pub(super) fn get(&self, key: &[u8]) -> Option<Option<IVec>> {
        self.0.get(key)
    }

    pub(super) fn keep(&self, key: &[u8], row: Option<IVec>) {
        self.0.insert(key.into(), row);
    }

    pub(super) fn drop_row(&self, key: &[u8]) {
        self.0.remove(key);
    }

    pub(super) fn clear(&self) {
        self.0.clear();
    }
}
