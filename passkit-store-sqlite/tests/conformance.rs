//! Runs the conformance cases, each on its own file.
use std::sync::Arc;

use passkit_conformance::store::{BoxError, Stores, TestStore};
use passkit_server::async_trait;
use passkit_store_sqlite::SqliteStore;
use tempfile::TempDir;

struct Files;

#[async_trait]
impl Stores for Files {
    type Place = TempDir;

    async fn open(&self) -> Result<(TestStore, TempDir), BoxError> {
        let folder = tempfile::tempdir()?;
        let store = SqliteStore::create(folder.path().join("passkit.db"))?;
        Ok((with_all_traits(store), folder))
    }

    async fn reopen(&self, folder: &TempDir) -> Option<Result<TestStore, BoxError>> {
        let store = SqliteStore::open(folder.path().join("passkit.db"));
        Some(store.map(with_all_traits).map_err(Into::into))
    }
}

fn with_all_traits(store: SqliteStore) -> TestStore {
    let store = Arc::new(store);
    TestStore::with_all(store.clone()).with_delivery(store)
}

passkit_conformance::store_tests!(Files);
