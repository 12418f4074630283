//! A folder of archives as a [`PassSource`].
//!
//! A watcher thread looks for files that changed, checks them, and hands good ones to the catalog. The catalog is a file
//! of its own beside the store. It has a copy of every archive that is served, so the last good version stays when a file
//! is half-written, broken or removed. Requests are answered from the catalog alone. No path that a device sends is ever
//! joined to a file name.
//!
//! A change goes through these steps, and each may be the last before a crash:
//! 1. catalog: the new archive, as an unmarked change, in one commit;
//! 2. memory: requests see it;
//! 3. store: the content is published, which marks the pass and makes its pushes pending;
//! 4. catalog: the change is marked.
//!
//! A removed file is such a change too: the store then knows that the pass is no longer offered.
//!
//! # Several instances
//! Several processes may serve the same folder over one store, each with a catalog of its own. The store knows the digest
//! of the content that was published last. The instance that notices a change first marks it. An instance whose copy has another
//! digest [reads the file again](Folder::agree) before it serves the pass. If the file has that other content too, the
//! instances serve different folders, or the database was restored from an older copy. The instance then serves its copy
//! and publishes it again: at once the first time, and after [pauses](pauses::Pauses) that grow. Nothing is answered 503
//! because of it.
//!
//! A phone that fetches such a copy gets it under the date of the other content, and would take that content for
//! unchanged later. So the pass is *misdated* until it is marked again, and its next change is marked even if the store
//! knows its content.

mod catalog;
mod check;
mod files;
mod pauses;
mod publish;
mod read;
#[cfg(test)]
mod tests;
mod watch;

use std::{
    collections::{BTreeSet, HashMap},
    path::PathBuf,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::Duration,
};

use async_trait::async_trait;
use catalog::Catalog;
use passkit_server::{
    ArchiveBody, Credentials, PassId, PassSource, PassState, SourceError,
    identifiers::{Kind, TokenDigest, TypeIdentifier},
    push::Publisher,
    store::{ContentDigest, RegistrationStore, StoreError},
};
use tokio::sync::oneshot;

pub(crate) use self::read::read_archives;
use crate::failure::Failure;

/// How long a request waits until the watcher has read a file again.
const READ_AGAIN: Duration = Duration::from_secs(5);

/// Which folders to serve, and by which rules.
#[derive(Clone, Debug)]
pub(crate) struct FolderOptions {
    /// Each folder with the kind of archives it is searched for.
    pub(crate) roots: Vec<(Kind, PathBuf)>,
    pub(crate) catalog: Place,
    pub(crate) allow_unsigned: bool,
}

/// Where the catalog is kept.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// In this folder, which no other process uses.
    Own(PathBuf),
    /// In this folder, or the next with a number that no other process uses.
    FirstFree(PathBuf),
}

/// The most processes that share a place for their catalogs.
const NEIGHBOURS: u32 = 64;

impl Place {
    fn open(&self) -> Result<Catalog, Failure> {
        let opened = |path: &PathBuf| {
            Catalog::open(path).map_err(|error| {
                (
                    matches!(error, redb::Error::DatabaseAlreadyOpen),
                    path.clone(),
                    error,
                )
            })
        };
        let result = match self {
            Self::Own(path) => opened(path),
            Self::FirstFree(first) => {
                let numbered = (2..=NEIGHBOURS).map(|number| {
                    let mut name = first.clone().into_os_string();
                    name.push(format!("-{number}"));
                    PathBuf::from(name)
                });
                let mut result = opened(first);
                for path in numbered {
                    if !matches!(result, Err((true, ..))) {
                        break;
                    }
                    result = opened(&path);
                }
                result
            }
        };
        result.map_err(|(_, path, error)| {
            Failure::from_error(format!("can't use {}", path.display()), &error)
        })
    }
}

/// The passes and orders in some folders, as they are now.
#[derive(Clone)]
pub(crate) struct Folder {
    shared: Arc<Shared>,
    store: Arc<dyn RegistrationStore>,
    wake: mpsc::Sender<watch::Event>,
}

/// Where changes are published.
pub(crate) struct Outlet {
    pub(crate) publisher: Arc<Publisher>,
    /// The store behind it.
    pub(crate) store: Arc<dyn RegistrationStore>,
    pub(crate) runtime: tokio::runtime::Handle,
}

struct Shared {
    catalog: Catalog,
    /// Every pass that was ever served, withdrawn ones too.
    passes: RwLock<HashMap<PassId, Listed>>,
    /// Whether the watcher did not answer in time when it was last asked.
    slow: AtomicBool,
}

/// What is known of a pass without reading its archive.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Listed {
    /// The last tokens of the pass, the newest at the end: copies on phones may have an old one.
    tokens: Box<[TokenDigest]>,
    /// The digest of what its files hold, whatever the signature: the pass has changed when this has.
    content: ContentDigest,
    /// The store does not have the last change yet.
    unmarked: bool,
    /// Phones may have a copy of this pass under the date of other content.
    misdated: bool,
    /// The file it came from last.
    path: Arc<str>,
    withdrawn: bool,
}

impl Listed {
    /// The store has the last change.
    fn set_marked(&mut self) {
        self.unmarked = false;
        // A removal marks nothing.
        self.misdated &= self.withdrawn;
    }
}

/// Stops the watcher when dropped.
pub(crate) struct Watching {
    stop: Arc<AtomicBool>,
    wake: mpsc::Sender<watch::Event>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // The watcher may have ended already.
        let _ = self.wake.send(watch::Event::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Folder {
    /// Reads the folders, publishes what changed since they were last served, and keeps watching them.
    ///
    /// Blocks until everything has been looked at once.
    pub(crate) fn open(
        options: &FolderOptions,
        outlet: Outlet,
    ) -> Result<(Self, Watching), Failure> {
        let roots = options
            .roots
            .iter()
            .map(|(kind, path)| {
                files::open_root(path)
                    .map(|path| (*kind, path))
                    .map_err(|error| {
                        Failure::new(format!("can't read the folder {}: {error}", path.display()))
                    })
            })
            .collect::<Result<Vec<_>, _>>()?;
        let catalog = options.catalog.open()?;
        let store = outlet.store.clone();
        let shared = Arc::new(Shared {
            catalog,
            passes: RwLock::default(),
            slow: AtomicBool::new(false),
        });
        let publishing = publish::Publishing::new(shared.clone(), outlet, options.allow_unsigned);
        let watching = publishing
            .and_then(|publishing| watch::Watcher::new(publishing, roots).start())
            .map_err(|error| Failure::from_error("can't use the copies of the archives", &error))?;
        Ok((
            Self {
                shared,
                store,
                wake: watching.wake.clone(),
            },
            watching,
        ))
    }

    /// Returns when the copy of `pass` may be served: at once if it has the content that was published last, or was never
    /// published. Otherwise the watcher reads the file again first. `state` is that of the request.
    async fn agree(&self, pass: &PassId, state: &PassState) -> Result<(), StoreError> {
        if self.shared.differing(pass, state).is_none() {
            return Ok(());
        }
        // The state may be older than the copy, so that a copy that is ahead looks like one that is behind.
        let state = self.store.pass_state(pass).await?;
        let Some(content) = self.shared.differing(pass, &state) else {
            return Ok(());
        };
        let (reply, done) = oneshot::channel();
        // The watcher may have ended: the process is about to end too.
        let _ = self.wake.send(watch::Event::ReadAgain {
            pass: pass.clone(),
            content,
            reply,
        });
        if matches!(tokio::time::timeout(READ_AGAIN, done).await, Ok(Ok(()))) {
            self.shared.slow.store(false, Ordering::Relaxed);
            return Ok(());
        }
        self.shared.set_misdated(pass, content);
        if !self.shared.slow.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "{pass}: another instance published other content, and its file can't be read within {} s; \
                 the copy is served",
                READ_AGAIN.as_secs()
            );
        }
        Ok(())
    }

    /// How many passes and orders are offered.
    pub(crate) fn len(&self) -> usize {
        self.shared
            .read(|passes| passes.values().filter(|listed| !listed.withdrawn).count())
    }

    /// Their types.
    pub(crate) fn types(&self) -> BTreeSet<TypeIdentifier> {
        self.shared.read(|passes| {
            let offered = passes.iter().filter(|(_, listed)| !listed.withdrawn);
            offered.map(|(pass, _)| pass.type_id.clone()).collect()
        })
    }
}

impl Shared {
    fn read<T>(&self, look: impl FnOnce(&HashMap<PassId, Listed>) -> T) -> T {
        look(&self.passes.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write<T>(&self, change: impl FnOnce(&mut HashMap<PassId, Listed>) -> T) -> T {
        change(&mut self.passes.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// The content of the copy of `pass`, if other content was published last. A copy with a change that the store does
    /// not have yet is newer than that.
    fn differing(&self, pass: &PassId, state: &PassState) -> Option<ContentDigest> {
        let published = state.published?;
        self.read(|passes| {
            let listed = passes.get(pass)?;
            let differs = listed.content != published && !listed.unmarked && !listed.withdrawn;
            differs.then_some(listed.content)
        })
    }

    /// Remembers that phones may get this content under the date of another one, if it is still what is served. Returns
    /// whether that is news.
    fn set_misdated(&self, pass: &PassId, content: ContentDigest) -> bool {
        self.write(|passes| match passes.get_mut(pass) {
            Some(listed) if listed.content == content => {
                !std::mem::replace(&mut listed.misdated, true)
            }
            _ => false,
        })
    }
}

#[async_trait]
impl PassSource for Folder {
    async fn credentials(&self, pass: &PassId) -> Result<Option<Credentials>, SourceError> {
        Ok(self.shared.read(|passes| {
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
        let (shared, pass) = (self.shared.clone(), pass.clone());
        let bytes = tokio::task::spawn_blocking(move || shared.catalog.archive(&pass)).await??;
        Ok(bytes.map(ArchiveBody::from))
    }
}
