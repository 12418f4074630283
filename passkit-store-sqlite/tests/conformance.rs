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
        Ok((TestStore::with_all(Arc::new(store)), folder))
    }

    async fn reopen(&self, folder: &TempDir) -> Option<Result<TestStore, BoxError>> {
        let store = SqliteStore::open(folder.path().join("passkit.db"));
        Some(
            store
                .map(|store| TestStore::with_all(Arc::new(store)))
                .map_err(Into::into),
        )
    }
}

passkit_conformance::store_tests!(Files);
