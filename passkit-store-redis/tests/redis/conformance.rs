use std::sync::Arc;

use passkit_conformance::store::run_all;
use passkit_server::RegistrationStore;
use passkit_store_redis::{Config, RedisStore};
use passkit_test_servers::redis::{Cluster, SentinelSet, Single};

async fn keeps_the_contract(url: &str) {
    let store = RedisStore::connect(url, Config::new()).await.unwrap();
    let store: Arc<dyn RegistrationStore> = Arc::new(store);
    let report = run_all(|| {
        let store = Arc::clone(&store);
        async move { store }
    })
    .await;
    println!("{report}");
    report.assert_kept();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_node_keeps_the_contract() {
    let server = Single::start().unwrap();
    keeps_the_contract(server.url()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sentinel_keeps_the_contract() {
    let servers = SentinelSet::start().unwrap();
    keeps_the_contract(&servers.url()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn cluster_keeps_the_contract() {
    let servers = Cluster::start().unwrap();
    keeps_the_contract(&servers.url()).await;
}
