//! What the page remembers about the whole service, because finding it out may read everything.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use passkit_server::{identifiers::TypeIdentifier, store::StoreError};

use super::{PATIENCE, Page, blocking, request::Refusal};
use crate::{failure::Chain, store::Store};

/// Counting may read the whole store, so it is done this often at most, and only while somebody
/// looks at the page.
const COUNT_EVERY: Duration = Duration::from_secs(600);
/// When to count again after the store failed.
const COUNT_AGAIN: Duration = Duration::from_secs(60);
/// A change of a pass in a folder waits while all passes are looked through, and phones wait for
/// the change. So this is done this often at most, however many people look at the page.
const FOLDERS_EVERY: Duration = Duration::from_secs(10);
/// How many passes are read from the store at once.
const AT_ONCE: usize = 1000;

#[derive(Default)]
pub(super) struct Known {
    folders: Kept<InFolders>,
    store: Counts,
}

/// The passes and orders in the folders.
pub(super) struct InFolders {
    pub(super) passes: usize,
    pub(super) types: BTreeSet<TypeIdentifier>,
}

/// What the store has.
#[derive(Default)]
pub(super) struct InStore {
    pub(super) devices: u64,
    pub(super) registrations: u64,
    /// The types that have registrations. With --archives-in-store, also the types of all passes
    /// that were published.
    pub(super) types: BTreeSet<TypeIdentifier>,
}

impl InStore {
    async fn count(store: &dyn Store, archives: bool) -> Result<Self, StoreError> {
        let stats = store.stats().await?;
        let mut known = Self {
            devices: stats.devices,
            registrations: stats.types.iter().map(|one| one.registrations).sum(),
            types: stats.types.into_iter().map(|one| one.type_id).collect(),
        };
        // All types of folders are known already, so only archives in the store need this.
        let mut after = None;
        let mut goes_on = archives;
        while goes_on {
            let page = store.published_passes(after.as_ref(), AT_ONCE).await?;
            let types = page.items.into_iter().map(|pass| pass.type_id);
            known.types.extend(types);
            after = page.next;
            goes_on = after.is_some();
        }
        Ok(known)
    }
}

impl Page {
    /// Returns what the folders have, as it was up to 10 seconds ago.
    pub(super) async fn in_folders(&self) -> Result<Arc<InFolders>, Refusal> {
        let look = || {
            let source = self.source.clone();
            blocking(move || InFolders {
                passes: source.len(),
                types: source.types(),
            })
        };
        self.state.known.folders.get(FOLDERS_EVERY, look).await
    }

    /// Returns what the store had when it was last counted. Begins to count again if that is long
    /// ago. `None` before the first count.
    pub(super) fn in_store(&self) -> Option<Arc<InStore>> {
        let counts = &self.state.known.store;
        counts.get(&self.store.store, self.source.archives.is_some())
    }

    /// Like [`in_store`](Self::in_store). With --archives-in-store, waits for a count that goes on,
    /// though not long.
    pub(super) async fn in_store_soon(&self) -> Option<Arc<InStore>> {
        let known = self.in_store();
        if self.source.archives.is_none() {
            return known;
        }
        let counts = &self.state.known.store;
        let _ = tokio::time::timeout(PATIENCE, counts.counting.lock()).await;
        self.in_store()
    }
}

/// A value that is reused for some time.
struct Kept<T>(tokio::sync::Mutex<Option<(Instant, Arc<T>)>>);

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self(tokio::sync::Mutex::new(None))
    }
}

impl<T> Kept<T> {
    /// Returns the value. Makes it if it is older than `fresh`. Callers at the same moment wait, and
    /// share the value.
    async fn get<E>(
        &self,
        fresh: Duration,
        make: impl AsyncFnOnce() -> Result<T, E>,
    ) -> Result<Arc<T>, E> {
        let mut kept = self.0.lock().await;
        if let Some((made, value)) = &*kept
            && made.elapsed() < fresh
        {
            return Ok(value.clone());
        }
        let value = Arc::new(make().await?);
        *kept = Some((Instant::now(), value.clone()));
        Ok(value)
    }
}

/// The last counts of the store.
#[derive(Default)]
struct Counts {
    counted: Arc<Mutex<Counted>>,
    /// Locked while counting goes on.
    counting: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Default)]
struct Counted {
    last: Option<Arc<InStore>>,
    /// When to count again.
    due: Option<Instant>,
}

impl Counts {
    /// Returns the last counts, and begins to count again if they are old.
    fn get(&self, store: &Arc<dyn Store>, archives: bool) -> Option<Arc<InStore>> {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        if counted.due.is_none_or(|due| Instant::now() >= due)
            && let Ok(turn) = self.counting.clone().try_lock_owned()
        {
            counted.due = Some(Instant::now() + COUNT_EVERY);
            let (store, kept) = (store.clone(), self.counted.clone());
            tokio::spawn(async move {
                let known = InStore::count(&*store, archives).await;
                let mut counted = kept.lock().unwrap_or_else(PoisonError::into_inner);
                match known {
                    Ok(known) => counted.last = Some(Arc::new(known)),
                    Err(error) => {
                        counted.due = Some(Instant::now() + COUNT_AGAIN);
                        tracing::warn!("the operator's page can't count: {}", Chain(&error));
                    }
                }
                drop(counted);
                drop(turn);
            });
        }
        counted.last.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        sync::atomic::{AtomicUsize, Ordering},
    };

    use super::*;

    #[tokio::test]
    async fn callers_share_a_value_until_it_is_old() {
        let (kept, made) = (Kept::default(), AtomicUsize::new(0));
        let get = |fresh| {
            kept.get(fresh, async || {
                tokio::task::yield_now().await;
                Ok::<_, Infallible>(made.fetch_add(1, Ordering::Relaxed))
            })
        };
        let (one, other) = tokio::join!(get(Duration::MAX), get(Duration::MAX));
        let Ok((one, other)) = one.and_then(|one| other.map(|other| (one, other)));
        assert_eq!((*one, *other), (0, 0));
        let Ok(later) = get(Duration::ZERO).await;
        assert_eq!(*later, 1);
    }
}
