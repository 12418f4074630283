//! The conformance test of the reference store. Any store crate can have a test like this.

use std::sync::Arc;

use passkit_conformance::store::TestStore;
use passkit_server::store::MemoryStore;

passkit_conformance::store_tests!(|| async {
    let store = Arc::new(MemoryStore::new());
    TestStore::with_all(store.clone()).with_archives(store)
});
