use std::{
    collections::{BTreeSet, HashMap},
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock, atomic::AtomicBool},
};

use passkit_server::{PassId, PassState, store::ContentDigest};

use crate::{catalog::Catalog, listed::Listed};

/// What requests and the watcher share.
pub(crate) struct Shared {
    pub(crate) catalog: Arc<Catalog>,
    /// Every pass that was ever served, including withdrawn ones.
    passes: RwLock<HashMap<PassId, Listed>>,
    /// Whether the watcher did not answer in time when it was last asked.
    pub(crate) slow: AtomicBool,
    /// The given folders that are absent.
    absent: RwLock<BTreeSet<PathBuf>>,
}

impl Shared {
    pub(crate) fn new(catalog: Catalog) -> Self {
        Self {
            catalog: Arc::new(catalog),
            passes: RwLock::default(),
            slow: AtomicBool::new(false),
            absent: RwLock::default(),
        }
    }

    pub(crate) fn absent(&self) -> BTreeSet<PathBuf> {
        let absent = self.absent.read().unwrap_or_else(PoisonError::into_inner);
        absent.clone()
    }

    pub(crate) fn set_absent(&self, absent: &BTreeSet<PathBuf>) {
        *self.absent.write().unwrap_or_else(PoisonError::into_inner) = absent.clone();
    }

    pub(crate) fn read<T>(&self, look: impl FnOnce(&HashMap<PassId, Listed>) -> T) -> T {
        look(&self.passes.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn write<T>(&self, change: impl FnOnce(&mut HashMap<PassId, Listed>) -> T) -> T {
        change(&mut self.passes.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns the digest of this instance's copy of `pass` if the store last published another
    /// digest. Returns `None` if the copy has a change that the store lacks, because the copy is
    /// then newer.
    pub(crate) fn differing(&self, pass: &PassId, state: &PassState) -> Option<ContentDigest> {
        let published = state.published?;
        self.read(|passes| {
            let listed = passes.get(pass)?;
            let differs = listed.content != published && !listed.unmarked && !listed.withdrawn;
            differs.then_some(listed.content)
        })
    }

    /// Returns whether `pass` was withdrawn, and the store does not know that yet.
    pub(crate) fn has_unpublished_removal(&self, pass: &PassId) -> bool {
        let is_unpublished = |listed: &Listed| listed.withdrawn && listed.unmarked;
        self.read(|passes| passes.get(pass).is_some_and(is_unpublished))
    }

    /// Remembers that phones may get this content with the `Last-Modified` of other content. Does
    /// nothing if this content is no longer served. Returns whether this is new.
    pub(crate) fn set_misdated(&self, pass: &PassId, content: ContentDigest) -> bool {
        self.write(|passes| match passes.get_mut(pass) {
            Some(listed) if listed.content == content => {
                !std::mem::replace(&mut listed.misdated, true)
            }
            _ => false,
        })
    }
}
