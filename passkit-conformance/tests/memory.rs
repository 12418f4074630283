//! The reference store, certified as any store is.

use std::sync::Arc;

use async_trait::async_trait;
use passkit_conformance::store::{BoxError, Stores};
use passkit_server::{MemoryStore, PushQueue, RegistrationStore, StoreMaintenance};

struct Memory;

#[async_trait]
impl Stores for Memory {
    async fn open(&self) -> Result<Arc<dyn RegistrationStore>, BoxError> {
        Ok(Arc::new(MemoryStore::new()))
    }

    async fn maintained(&self) -> Option<Result<Arc<dyn StoreMaintenance>, BoxError>> {
        Some(Ok(Arc::new(MemoryStore::new())))
    }

    async fn queued(&self) -> Option<Result<Arc<dyn PushQueue>, BoxError>> {
        Some(Ok(Arc::new(MemoryStore::new())))
    }
}

passkit_conformance::store_tests!(Memory);
