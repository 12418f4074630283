//! A folder of archives as a [`PassSource`].
//!
//! A watcher thread looks for files that changed, checks them, and hands good ones to the catalog, a file of its own
//! beside the store, which keeps a copy of every archive being served: whatever is then half-written, broken or
//! removed in the folder, the last good version stays. Requests are answered from the catalog alone; no path a
//! device sends is ever joined to a file name.
//!
//! A change goes through these steps, each of which may be the last before a crash:
//! 1. catalog: the new archive, with a note that its mark is owed, in one commit;
//! 2. memory: requests see it;
//! 3. store: the pass is marked, and its pushes are owed;
//! 4. catalog: the note is taken back.
//!
//! Several processes may serve the same folder over one store, each with a catalog of its own. The store then knows
//! which content was published last: a change is marked by whoever notices it first, and whoever has not seen that
//! content yet looks at the file before it serves the pass.

mod catalog;
mod files;
mod judge;
mod publish;
mod read;
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
    Archive, ContentDigest, Credentials, Kind, PassId, PassSource, PublishedContent, SourceError,
    TokenDigest, TypeIdentifier,
};

pub(crate) use self::read::read_archives;
use crate::{failure::Failure, marking::Marking};

/// How long a request waits for content that another process has published already.
const CATCH_UP: Duration = Duration::from_secs(5);

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
    /// In this folder, which nobody else uses.
    Own(PathBuf),
    /// In this folder, or the next with a number that no other process uses.
    FirstFree(PathBuf),
}

/// The most processes that share a place for their catalogs.
const NEIGHBOURS: u32 = 64;

impl Place {
    fn open(&self) -> Result<Catalog, Failure> {
        let opened = |path: &PathBuf| {
            Catalog::open(path)
                .map_err(|error| (matches!(error, redb::Error::DatabaseAlreadyOpen), path.clone(), error))
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
        result
            .map_err(|(_, path, error)| Failure::from_error(format!("can't use {}", path.display()), &error))
    }
}

/// The passes and orders in some folders, as they are now.
#[derive(Clone)]
pub(crate) struct Folder {
    shared: Arc<Shared>,
    /// Where other processes publish too.
    published: Option<Arc<dyn PublishedContent>>,
    wake: mpsc::Sender<watch::Event>,
}

struct Shared {
    catalog: Catalog,
    /// Every pass that was ever served, withdrawn ones too.
    passes: RwLock<HashMap<PassId, Listed>>,
}

/// What is known of a pass without reading its archive.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Listed {
    /// Of every token the pass ever had: copies on phones may hold an old one.
    tokens: Box<[TokenDigest]>,
    /// What its files hold, whatever the signature: the pass has changed when this has.
    content: ContentDigest,
    /// The store has not been told of the last change yet.
    owed: bool,
    /// The file it came from last.
    path: Arc<str>,
    withdrawn: bool,
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
        // A watcher that is gone needs no telling.
        let _ = self.wake.send(watch::Event::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Folder {
    /// Reads the folders, marks what changed since they were last served, and keeps watching them.
    ///
    /// Blocks until everything has been looked at once.
    pub(crate) fn open(
        options: &FolderOptions,
        marking: Marking,
        runtime: tokio::runtime::Handle,
    ) -> Result<(Self, Watching), Failure> {
        let roots = options
            .roots
            .iter()
            .map(|(kind, path)| {
                files::open_root(path).map(|path| (*kind, path)).map_err(|error| {
                    Failure::new(format!("can't read the folder {}: {error}", path.display()))
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        let catalog = options.catalog.open()?;
        let published = marking.store.published.clone();
        let shared = Arc::new(Shared { catalog, passes: RwLock::default() });
        let publishing = publish::Publishing::new(shared.clone(), marking, runtime, options.allow_unsigned);
        let watching = publishing
            .and_then(|publishing| watch::Watcher::new(publishing, roots).start())
            .map_err(|error| Failure::from_error("can't use the copies of the archives", &error))?;
        Ok((Self { shared, published, wake: watching.wake.clone() }, watching))
    }

    /// Waits until this process has the content that was published last, or newer.
    async fn catch_up(&self, published: &dyn PublishedContent, pass: &PassId) -> Result<(), SourceError> {
        let Some(last) = published.published(pass).await? else { return Ok(()) };
        let behind = || {
            self.shared.read(|passes| {
                let listed = passes.get(pass)?;
                (listed.content != last && !listed.owed).then(|| listed.path.clone())
            })
        };
        let Some(path) = behind() else { return Ok(()) };
        let deadline = tokio::time::Instant::now() + CATCH_UP;
        // A watcher that is gone is about to end the process.
        let _ = self.wake.send(watch::Event::Look(path.clone()));
        while behind().is_some() {
            if tokio::time::Instant::now() > deadline {
                // Or it was this process that was ahead, and another one has caught up meanwhile.
                if published.published(pass).await? != Some(last) {
                    return Ok(());
                }
                return Err(format!("{path} is not the version of {pass} that was published last").into());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// How many passes and orders are offered.
    pub(crate) fn len(&self) -> usize {
        self.shared.read(|passes| passes.values().filter(|listed| !listed.withdrawn).count())
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
}

#[async_trait]
impl PassSource for Folder {
    async fn credentials(&self, pass: &PassId) -> Result<Option<Credentials>, SourceError> {
        Ok(self.shared.read(|passes| {
            passes.get(pass).map(|listed| {
                let credentials: Credentials = listed.tokens.iter().copied().collect();
                if listed.withdrawn { credentials.withdrawn() } else { credentials }
            })
        }))
    }

    async fn archive(&self, pass: &PassId) -> Result<Option<Archive>, SourceError> {
        if let Some(published) = &self.published {
            self.catch_up(&**published, pass).await?;
        }
        let (shared, pass) = (self.shared.clone(), pass.clone());
        let bytes = tokio::task::spawn_blocking(move || shared.catalog.archive(&pass)).await??;
        Ok(bytes.map(Archive::from))
    }
}
