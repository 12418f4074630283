//! The reference store, certified as any store is.

use std::sync::Arc;

use passkit_conformance::store::TestStore;
use passkit_server::store::MemoryStore;

passkit_conformance::store_tests!(|| async { TestStore::with_all(Arc::new(MemoryStore::new())) });
