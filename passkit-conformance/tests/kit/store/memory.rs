//! Where the cases get memory stores from, sound and otherwise.

use std::sync::Arc;

use async_trait::async_trait;
use passkit_conformance::store::{BoxError, Stores};
use passkit_server::{MemoryStore, PushQueue, RegistrationStore, StoreMaintenance};

/// A new store for each case. It is "opened anew" as it is, as one that loses nothing would be.
pub(crate) struct Memory;

#[async_trait]
impl Stores for Memory {
    async fn open(&self) -> Result<Arc<dyn RegistrationStore>, BoxError> {
        Ok(Arc::new(MemoryStore::new()))
    }

    async fn reopen(
        &self,
        store: Arc<dyn RegistrationStore>,
    ) -> Option<Result<Arc<dyn RegistrationStore>, BoxError>> {
        Some(Ok(store))
    }

    async fn maintained(&self) -> Option<Result<Arc<dyn StoreMaintenance>, BoxError>> {
        Some(Ok(Arc::new(MemoryStore::new())))
    }

    async fn queued(&self) -> Option<Result<Arc<dyn PushQueue>, BoxError>> {
        Some(Ok(Arc::new(MemoryStore::new())))
    }

    async fn reopen_queued(&self, store: Arc<dyn PushQueue>) -> Option<Result<Arc<dyn PushQueue>, BoxError>> {
        Some(Ok(store))
    }
}
