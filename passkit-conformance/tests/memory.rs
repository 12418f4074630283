//! The conformance test of the reference store. Any store crate can have a test like this.

use std::sync::Arc;

use passkit_conformance::store::TestStore;
use passkit_server::store::MemoryStore;

passkit_conformance::store_tests!(|| async { TestStore::with_all(Arc::new(MemoryStore::new())) });
