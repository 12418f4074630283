use std::sync::Arc;

use passkit_conformance::store::run_all;
use passkit_server::RegistrationStore;

use crate::support::new_store;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn keeps_the_contract() {
    let store: Arc<dyn RegistrationStore> = Arc::new(new_store().await);
    let report = run_all(|| {
        let store = Arc::clone(&store);
        async move { store }
    })
    .await;
    report.assert_kept();
    println!("{report}");
}
