use std::{
    collections::{HashMap, VecDeque},
    fmt, slice,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::{sync::Semaphore, time::Instant};

use crate::{
    ArchiveBody, Credentials, PassId, PassSource, PassState, SourceError,
    store::{ArchiveStore, ContentDigest},
};

/// How many archives are read from the store at a time.
const READS: usize = 8;
/// How long an archive is kept in memory. The same content may be put again with another signature.
const KEPT: Duration = Duration::from_secs(60);
/// How often the state of a pass is read, if other content is published meanwhile.
const TRIES: usize = 3;

/// Serves the archives that any instance has put into an [`ArchiveStore`].
///
/// The content of an answer always belongs to its date, because the state of a pass names the content that was published
/// last. Each request asks the store for the tokens of its pass. The archives that were read last are kept in memory, for
/// a minute. So if the same content is put again with another signature, it is served within a minute.
///
/// If a pass was published, but its archive was not put, a fetch is answered 503.
pub struct StoredArchives<S> {
    store: S,
    cache: Mutex<Cache>,
    /// Limits the memory, and lets requests for the same archive wait for the first request.
    reading: Semaphore,
}

impl<S> StoredArchives<S> {
    /// The default size of the cache in bytes.
    pub const CACHE_BYTES: usize = 64 * 1024 * 1024;

    /// Serves the archives in `store`, which must be the store of the service.
    pub fn new(store: S) -> Self {
        Self {
            store,
            cache: Mutex::new(Cache {
                limit: Self::CACHE_BYTES,
                ..Cache::default()
            }),
            reading: Semaphore::new(READS),
        }
    }

    /// Sets how many bytes of archives are kept in memory. Default: [`CACHE_BYTES`](Self::CACHE_BYTES).
    #[must_use]
    pub fn cache_bytes(self, limit: usize) -> Self {
        self.cache().limit = limit;
        self
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: ArchiveStore> StoredArchives<S> {
    /// Returns the archive with the content that was published last. `state` may be older. Returns `None` if no content was
    /// published.
    async fn latest(&self, pass: &PassId, state: &PassState) -> Result<Option<Bytes>, SourceError> {
        let mut content = state.published;
        for _ in 0..TRIES {
            let Some(digest) = content else {
                return Ok(None);
            };
            if let Some(archive) = self.read(pass, digest).await? {
                return Ok(Some(archive));
            }
            // Newer content may have been published, and the older archive removed.
            let published = self.store.pass_state(pass).await?.published;
            if published == content {
                break;
            }
            content = published;
        }
        Err(format!("{pass}: was published, but its archive is not in the store").into())
    }

    async fn read(
        &self,
        pass: &PassId,
        content: ContentDigest,
    ) -> Result<Option<Bytes>, SourceError> {
        let key = (pass.clone(), content);
        if let Some(archive) = self.cache().get(&key) {
            return Ok(Some(archive));
        }
        let _turn = self.reading.acquire().await?;
        if let Some(archive) = self.cache().get(&key) {
            return Ok(Some(archive));
        }
        let archive = self.store.archive(pass, &content).await?;
        if let Some(archive) = &archive {
            self.cache().insert(key, archive.clone());
        }
        Ok(archive)
    }
}

impl<S> fmt::Debug for StoredArchives<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredArchives").finish_non_exhaustive()
    }
}

#[async_trait]
impl<S: ArchiveStore> PassSource for StoredArchives<S> {
    async fn credentials(&self, pass: &PassId) -> Result<Option<Credentials>, SourceError> {
        let published = self.store.published(slice::from_ref(pass)).await?;
        Ok(published.into_iter().flatten().next().map(|published| {
            let credentials: Credentials = published.tokens.iter().copied().collect();
            if published.removed {
                credentials.withdrawn()
            } else {
                credentials
            }
        }))
    }

    async fn archive(
        &self,
        pass: &PassId,
        state: &PassState,
    ) -> Result<Option<ArchiveBody>, SourceError> {
        Ok(self.latest(pass, state).await?.map(ArchiveBody::from))
    }
}

/// The archives that were read last.
#[derive(Default)]
struct Cache {
    archives: HashMap<Key, (Bytes, Instant)>,
    /// The keys, in the order in which they were added.
    order: VecDeque<Key>,
    bytes: usize,
    limit: usize,
}

type Key = (PassId, ContentDigest);

impl Cache {
    fn get(&self, key: &Key) -> Option<Bytes> {
        let (archive, read_at) = self.archives.get(key)?;
        (read_at.elapsed() < KEPT).then(|| archive.clone())
    }

    /// Adds an archive, or replaces it, and removes the oldest ones.
    fn insert(&mut self, key: Key, archive: Bytes) {
        if archive.len() > self.limit {
            return;
        }
        self.bytes += archive.len();
        match self.archives.insert(key.clone(), (archive, Instant::now())) {
            Some((older, _)) => self.bytes -= older.len(),
            None => self.order.push_back(key),
        }
        while self.bytes > self.limit
            && let Some(oldest) = self.order.pop_front()
        {
            if let Some((archive, _)) = self.archives.remove(&oldest) {
                self.bytes -= archive.len();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        AuthToken, Changed,
        store::{Content, MemoryStore, RegistrationStore as _},
    };

    fn pass() -> PassId {
        PassId::new("pass.com.example.stored", "A-1").unwrap()
    }

    async fn publish(store: &MemoryStore, digest: Option<u8>) {
        let token = AuthToken::new("a-token-of-16-chars").unwrap().digest();
        let content = Content {
            serial: pass().serial,
            digest: digest.map(|digest| [digest; 32]),
            tokens: vec![token],
        };
        store
            .mark(&pass().type_id, Changed::Contents(&[content]))
            .await
            .unwrap();
    }

    async fn put(store: &MemoryStore, digest: u8, archive: &'static [u8]) {
        let archive = Bytes::from_static(archive);
        store
            .put_archive(&pass(), &[digest; 32], archive)
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn the_archive_that_was_published_last_is_served() {
        let store = MemoryStore::new();
        let source = StoredArchives::new(&store);
        assert!(source.credentials(&pass()).await.unwrap().is_none());
        let unknown = store.pass_state(&pass()).await.unwrap();
        assert!(source.latest(&pass(), &unknown).await.unwrap().is_none());
        put(&store, 1, b"one").await;
        put(&store, 2, b"two").await;
        publish(&store, Some(1)).await;
        let first = store.pass_state(&pass()).await.unwrap();
        assert_eq!(
            source.latest(&pass(), &first).await.unwrap().unwrap(),
            "one"
        );
        publish(&store, Some(2)).await;
        let second = store.pass_state(&pass()).await.unwrap();
        assert_eq!(
            source.latest(&pass(), &second).await.unwrap().unwrap(),
            "two"
        );
        let credentials = source.credentials(&pass()).await.unwrap().unwrap();
        assert!(!credentials.is_withdrawn());
        publish(&store, None).await;
        let credentials = source.credentials(&pass()).await.unwrap().unwrap();
        assert!(credentials.is_withdrawn());
    }

    #[tokio::test]
    async fn a_removed_archive_is_replaced_by_the_one_published_since() {
        let store = MemoryStore::new();
        let source = StoredArchives::new(&store);
        publish(&store, Some(1)).await;
        let first = store.pass_state(&pass()).await.unwrap();
        assert!(source.latest(&pass(), &first).await.is_err());
        put(&store, 2, b"two").await;
        publish(&store, Some(2)).await;
        assert_eq!(
            source.latest(&pass(), &first).await.unwrap().unwrap(),
            "two"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_archive_that_was_signed_again_is_served_after_a_minute() {
        let store = MemoryStore::new();
        let source = StoredArchives::new(&store);
        put(&store, 1, b"old signature").await;
        publish(&store, Some(1)).await;
        let state = store.pass_state(&pass()).await.unwrap();
        let served = async || source.latest(&pass(), &state).await.unwrap().unwrap();
        assert_eq!(served().await, "old signature");
        put(&store, 1, b"new").await;
        assert_eq!(served().await, "old signature");
        tokio::time::advance(KEPT).await;
        assert_eq!(served().await, "new");
        let cache = source.cache();
        assert_eq!((cache.bytes, cache.order.len()), (3, 1));
    }

    #[test]
    fn the_cache_has_a_limit() {
        let mut cache = Cache {
            limit: 10,
            ..Cache::default()
        };
        let key = |digest| (pass(), [digest; 32]);
        for digest in 0..5 {
            cache.insert(key(digest), Bytes::from_static(b"four"));
            cache.insert(key(digest), Bytes::from_static(b"four"));
        }
        cache.insert(key(9), Bytes::from_static(b"eleven bytes"));
        assert_eq!(
            (cache.bytes, cache.archives.len(), cache.order.len()),
            (8, 2, 2)
        );
        assert!(cache.get(&key(3)).is_some() && cache.get(&key(2)).is_none());
    }
}
