//! The contract, case by case, each on a folder of its own.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use passkit_conformance::store::{BoxError, Stores};
use passkit_server::{PushQueue, RegistrationStore, StoreMaintenance, async_trait};
use passkit_store_sled::SledStore;
use tempfile::TempDir;

struct SledStores {
    root: TempDir,
    /// Where each store lies, by its address. They are kept, so that no address comes twice.
    opened: Mutex<HashMap<usize, (PathBuf, Arc<SledStore>)>>,
}

impl SledStores {
    fn new() -> Self {
        Self { root: tempfile::tempdir().unwrap(), opened: Mutex::default() }
    }

    fn make(&self) -> Result<Arc<SledStore>, BoxError> {
        let mut opened = self.opened.lock().unwrap();
        let folder = self.root.path().join(opened.len().to_string());
        let store = Arc::new(SledStore::open(&folder)?);
        opened.insert(Arc::as_ptr(&store).addr(), (folder, store.clone()));
        Ok(store)
    }

    /// A copy of the files as they lie: what is not in them is what a `kill -9` would lose.
    fn open_copy(&self, address: usize) -> Result<Arc<SledStore>, BoxError> {
        let folder = self.opened.lock().unwrap()[&address].0.clone();
        let copy = folder.with_extension("copy");
        copy_all(&folder, &copy)?;
        Ok(Arc::new(SledStore::open(copy)?))
    }
}

#[async_trait]
impl Stores for SledStores {
    async fn open(&self) -> Result<Arc<dyn RegistrationStore>, BoxError> {
        Ok(self.make()?)
    }

    async fn reopen(
        &self,
        store: Arc<dyn RegistrationStore>,
    ) -> Option<Result<Arc<dyn RegistrationStore>, BoxError>> {
        Some(self.open_copy(Arc::as_ptr(&store).addr()).map(|store| store as Arc<dyn RegistrationStore>))
    }

    async fn maintained(&self) -> Option<Result<Arc<dyn StoreMaintenance>, BoxError>> {
        Some(self.make().map(|store| store as Arc<dyn StoreMaintenance>))
    }

    async fn queued(&self) -> Option<Result<Arc<dyn PushQueue>, BoxError>> {
        Some(self.make().map(|store| store as Arc<dyn PushQueue>))
    }

    async fn reopen_queued(&self, store: Arc<dyn PushQueue>) -> Option<Result<Arc<dyn PushQueue>, BoxError>> {
        Some(self.open_copy(Arc::as_ptr(&store).addr()).map(|store| store as Arc<dyn PushQueue>))
    }
}

fn copy_all(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let from = entry?.path();
        let to = to.join(from.file_name().unwrap_or_default());
        if from.is_dir() {
            copy_all(&from, &to)?;
        } else {
            fs::copy(&from, &to)?;
        }
    }
    Ok(())
}

passkit_conformance::store_tests!(SledStores::new());
