use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use async_trait::async_trait;
use passkit_server::{
    ArchiveBody, Credentials, PassId, PassSource, PassState, SourceError,
    identifiers::TypeIdentifier,
    push::Publisher,
    store::{ContentDigest, StoreError},
};
use tokio::{runtime::Handle, sync::oneshot};

use crate::{
    Config, FolderError,
    catalog::{Catalog, CatalogError},
    files,
    listed::Listed,
    publish::Publishing,
    shared::Shared,
    watch::{Event, Watcher, Watching},
};

/// How long a request waits until the watcher has read a file again.
const READ_AGAIN: Duration = Duration::from_secs(5);

/// The passes and orders in some folders, as they are now. Clones share their state.
///
/// A thread watches the folders. The thread ends when [`close`](Self::close) is called, or when the
/// last clone is dropped.
#[derive(Clone)]
pub struct Folder(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    publisher: Arc<Publisher>,
    watching: Watching,
}

impl Folder {
    /// Reads the folders, publishes what changed since they were last served, and keeps watching them.
    ///
    /// Returns when every file has been looked at once. New and changed files are read and checked
    /// first. `publisher` publishes the changes. Its store must be the store of the service. If the
    /// store is unavailable, opening goes on, and publishing is tried again later.
    ///
    /// # Errors
    /// * [`FolderError::NoFolder`] if `config` names no folder to serve
    /// * [`FolderError::Unreadable`] if one of the folders can't be listed
    /// * [`FolderError::Copies`] if the copies can't be read or written, or another process uses them
    /// * [`FolderError::Interrupted`] if the runtime is shut down meanwhile
    ///
    /// # Cancel safety
    /// If the future is dropped, the search goes on in the background. When the search is done, the
    /// folder is dropped.
    ///
    /// # Panics
    /// Panics outside a tokio runtime.
    pub async fn open(config: Config, publisher: Arc<Publisher>) -> Result<Self, FolderError> {
        let runtime = Handle::current();
        tokio::task::spawn_blocking(move || Self::open_now(&config, publisher, runtime))
            .await
            .map_err(|error| FolderError::Interrupted(error.into()))?
    }

    fn open_now(
        config: &Config,
        publisher: Arc<Publisher>,
        runtime: Handle,
    ) -> Result<Self, FolderError> {
        if config.roots.is_empty() {
            return Err(FolderError::NoFolder);
        }
        let roots = config
            .roots
            .iter()
            .map(|(kind, path)| {
                let root = files::open_root(path).map_err(|source| FolderError::Unreadable {
                    path: path.clone(),
                    source,
                })?;
                Ok((*kind, root))
            })
            .collect::<Result<Vec<_>, _>>()?;
        let (catalog, copies) = Catalog::open_free(&config.copies, config.next_free)?;
        let shared = Arc::new(Shared::new(catalog));
        let watching = Publishing::new(shared.clone(), publisher.clone(), runtime, config)
            .and_then(|publishing| Watcher::new(publishing, roots).start())
            .map_err(|error| FolderError::Copies {
                path: copies,
                source: error.into(),
            })?;
        Ok(Self(Arc::new(Inner {
            shared,
            publisher,
            watching,
        })))
    }

    /// Stops watching the folders, for all clones. If changes are being published, this waits until
    /// they were published or failed. What was served before is still served.
    ///
    /// Call it before the runtime ends. Otherwise, a change that is being published at that moment
    /// is published at the next start.
    ///
    /// # Cancel safety
    /// If the future is dropped, the watcher ends in the background.
    pub async fn close(&self) {
        let Some(thread) = self.0.watching.stop() else {
            return;
        };
        let ended = tokio::task::spawn_blocking(move || thread.join()).await;
        if !matches!(ended, Ok(Ok(()))) {
            tracing::error!("the watcher of the folders failed");
        }
    }

    /// Returns how many passes and orders are served.
    #[must_use]
    pub fn len(&self) -> usize {
        let served = |passes: &HashMap<PassId, Listed>| {
            passes.values().filter(|listed| !listed.withdrawn).count()
        };
        self.0.shared.read(served)
    }

    /// Returns whether this content is served for `pass`, and was published to the store.
    #[must_use]
    pub fn has_published(&self, pass: &PassId, content: &ContentDigest) -> bool {
        let is_published =
            |listed: &Listed| listed.content == *content && !listed.unmarked && !listed.withdrawn;
        let shared = &self.0.shared;
        shared.read(|passes| passes.get(pass).is_some_and(is_published))
    }

    /// Returns whether the file of `pass` was removed, and that was not published to the store yet.
    ///
    /// Until it was published, do not hand in an archive of the pass. The removal of the file could
    /// otherwise be published after the archive.
    #[must_use]
    pub fn has_unpublished_removal(&self, pass: &PassId) -> bool {
        self.0.shared.has_unpublished_removal(pass)
    }

    /// Returns whether no pass and no order is served.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the types of the passes and orders that are served.
    #[must_use]
    pub fn types(&self) -> BTreeSet<TypeIdentifier> {
        self.0.shared.read(|passes| {
            let served = passes.iter().filter(|(_, listed)| !listed.withdrawn);
            served.map(|(pass, _)| pass.type_id.clone()).collect()
        })
    }

    /// Returns the given folders that can't be read now, or that are gone. The passes from them are
    /// still served.
    #[must_use]
    pub fn absent(&self) -> BTreeSet<PathBuf> {
        self.0.shared.absent()
    }

    /// Returns when the copy of `pass` may be served. That is at once if the copy has the content
    /// that was published last, or if the pass was never published. Otherwise the watcher reads the
    /// file again first. `state` is the state that the request read.
    async fn agree(&self, pass: &PassId, state: &PassState) -> Result<(), StoreError> {
        if self.0.shared.differing(pass, state).is_none() {
            return Ok(());
        }
        // The state may be older than the copy. Compared with such a state, a newer copy looks
        // outdated.
        let state = self.0.publisher.store().pass_state(pass).await?;
        let Some(content) = self.0.shared.differing(pass, &state) else {
            return Ok(());
        };
        let (reply, done) = oneshot::channel();
        // If the watcher has ended, no reply comes, and the copy is served.
        self.0.watching.send(Event::ReadAgain {
            pass: pass.clone(),
            content: Some(content),
            reply,
        });
        if matches!(tokio::time::timeout(READ_AGAIN, done).await, Ok(Ok(()))) {
            self.0.shared.slow.store(false, Ordering::Relaxed);
            return Ok(());
        }
        self.0.shared.set_misdated(pass, content);
        if !self.0.shared.slow.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "{pass}: another instance published other content, and its file can't be read within {} s; \
                 the copy is served",
                READ_AGAIN.as_secs()
            );
        }
        Ok(())
    }
}

impl Folder {
    /// Returns when the watcher has read the file of a pass again, or after a time limit.
    async fn copy_again(&self, pass: &PassId) {
        tracing::warn!("{pass}: its copy is damaged, and is made again from the file");
        let (reply, done) = oneshot::channel();
        self.0.watching.send(Event::ReadAgain {
            pass: pass.clone(),
            content: None,
            reply,
        });
        // If the copy could not be made, reading it again fails too.
        let _ = tokio::time::timeout(READ_AGAIN, done).await;
    }
}

impl fmt::Debug for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Folder")
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl PassSource for Folder {
    async fn credentials(&self, pass: &PassId) -> Result<Option<Credentials>, SourceError> {
        Ok(self.0.shared.read(|passes| {
            passes.get(pass).map(|listed| {
                let credentials: Credentials = listed.tokens.iter().copied().collect();
                if listed.withdrawn {
                    credentials.withdrawn()
                } else {
                    credentials
                }
            })
        }))
    }

    async fn archive(
        &self,
        pass: &PassId,
        state: &PassState,
    ) -> Result<Option<ArchiveBody>, SourceError> {
        self.agree(pass, state).await?;
        let shared = &self.0.shared;
        let bytes = match shared.catalog.shared_archive(pass).await {
            Err(CatalogError::Damaged) => {
                self.copy_again(pass).await;
                shared.catalog.shared_archive(pass).await
            }
            read => read,
        }?;
        Ok(bytes.map(ArchiveBody::from))
    }

    async fn archive_length(
        &self,
        pass: &PassId,
        state: &PassState,
    ) -> Result<Option<u64>, SourceError> {
        self.agree(pass, state).await?;
        let (catalog, pass) = (self.0.shared.catalog.clone(), pass.clone());
        Ok(tokio::task::spawn_blocking(move || catalog.archive_length(&pass)).await??)
    }
}
