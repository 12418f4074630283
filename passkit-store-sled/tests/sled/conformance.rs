use std::sync::Arc;

use passkit_conformance::store::run_all;
use passkit_server::RegistrationStore;
use passkit_store_sled::SledStore;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn RegistrationStore> = Arc::new(SledStore::open(folder.path()).unwrap());
    run_all(|| {
        let store = Arc::clone(&store);
        async move { store }
    })
    .await
    .assert_kept();
}
