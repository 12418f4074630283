//! The reference store for the cases.

use std::sync::Arc;

use async_trait::async_trait;
use passkit_conformance::store::{BoxError, Stores, TestStore};
use passkit_server::store::MemoryStore;

/// Opens a new store for each case. Reopening returns the same store, because the store loses
/// nothing.
pub(crate) struct Memory;

#[async_trait]
impl Stores for Memory {
    type Place = TestStore;

    async fn open(&self) -> Result<(TestStore, TestStore), BoxError> {
        let store = Arc::new(MemoryStore::new());
        let store = TestStore::with_all(store.clone()).with_delivery(store);
        Ok((store.clone(), store))
    }

    async fn reopen(&self, store: &TestStore) -> Option<Result<TestStore, BoxError>> {
        Some(Ok(store.clone()))
    }
}
