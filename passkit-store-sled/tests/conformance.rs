//! Runs the conformance cases. Each case has its own folder.

use std::{
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use passkit_conformance::store::{BoxError, Stores, TestStore};
use passkit_store_sled::SledStore;
use tempfile::TempDir;

fn open(folder: &Path) -> Result<TestStore, BoxError> {
    let store = Arc::new(SledStore::open(folder)?);
    Ok(TestStore::with_all(store.clone()).with_delivery(store))
}

struct Folders;

#[passkit_server::async_trait]
impl Stores for Folders {
    type Place = TempDir;
    async fn open(&self) -> Result<(TestStore, TempDir), BoxError> {
        let place = tempfile::tempdir()?;
        Ok((open(&place.path().join("store"))?, place))
    }

    /// Copies the files as they are now, and opens the copy. So it has only what would survive a `kill -9`.
    async fn reopen(&self, place: &TempDir) -> Option<Result<TestStore, BoxError>> {
        static COPIES: AtomicU64 = AtomicU64::new(0);
        let store = place.path().join("store");
        let number = COPIES.fetch_add(1, Ordering::Relaxed);
        let copy = place.path().join(format!("copy-{number}"));
        let copied = Command::new("cp").arg("-r").args([&store, &copy]).status();
        Some(copied.map_err(BoxError::from).and_then(|_| open(&copy)))
    }
}
passkit_conformance::store_tests!(Folders);
