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
//! 3. store: the pass is marked;
//! 4. catalog: the note is taken back.

mod catalog;
mod files;
mod watch;

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::JoinHandle,
};

use async_trait::async_trait;
use catalog::Catalog;
use passkit_server::{
    Archive, Credentials, Kind, PassId, PassSource, RegistrationStore, SourceError, TokenDigest,
};

use crate::failure::Failure;

/// Which folders to serve, and by which rules.
#[derive(Clone, Debug)]
pub(crate) struct FolderOptions {
    /// Each folder with the kind of archives it is searched for.
    pub(crate) roots: Vec<(Kind, PathBuf)>,
    /// Where the catalog is kept.
    pub(crate) catalog: PathBuf,
    pub(crate) allow_unsigned: bool,
}

/// The passes and orders in some folders, as they are now.
#[derive(Clone)]
pub(crate) struct Folder {
    shared: Arc<Shared>,
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
    content: [u8; 32],
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
    /// Reads the folders, marks in `store` what changed since they were last served, and keeps watching them.
    ///
    /// Blocks until everything has been looked at once.
    pub(crate) fn open(
        options: &FolderOptions,
        store: Arc<dyn RegistrationStore>,
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
        let unusable =
            |error| Failure::from_error(format!("can't use {}", options.catalog.display()), &error);
        let catalog = Catalog::open(&options.catalog).map_err(unusable)?;
        let shared = Arc::new(Shared { catalog, passes: RwLock::default() });
        let watcher = watch::Watcher::new(shared.clone(), store, runtime, roots, options.allow_unsigned);
        let watching = watcher.and_then(watch::Watcher::start).map_err(unusable)?;
        Ok((Self { shared }, watching))
    }

    /// How many passes and orders are offered.
    pub(crate) fn len(&self) -> usize {
        self.shared.read(|passes| passes.values().filter(|listed| !listed.withdrawn).count())
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
        let (shared, pass) = (self.shared.clone(), pass.clone());
        let bytes = tokio::task::spawn_blocking(move || shared.catalog.archive(&pass)).await??;
        Ok(bytes.map(Archive::from))
    }
}
