use std::sync::Arc;

use passkit_conformance::store::{CHECKS, Check, run};
use passkit_server::RegistrationStore;
use passkit_store_redis::{Config, RedisStore};
use passkit_test_servers::redis::{Cluster, SentinelSet, Single};

use crate::support::prefix;

async fn keeps_the_contract(url: &str, checks: impl Iterator<Item = &'static Check>) {
    let store = RedisStore::connect(url, Config::new().prefix(prefix())).await.unwrap();
    let store: Arc<dyn RegistrationStore> = Arc::new(store);
    run(checks, || {
        let store = Arc::clone(&store);
        async move { store }
    })
    .await
    .assert_kept();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_node_keeps_the_contract() {
    let server = Single::start().unwrap();
    keeps_the_contract(server.url(), CHECKS.iter()).await;
}

/// What Sentinels name is one node; the checks that take longest have no more to find in it than there. With
/// `PASSKIT_ALL_CHECKS=1` they run all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sentinel_keeps_the_contract() {
    let servers = SentinelSet::start().unwrap();
    let long = ["no-device-goes-stale", "ten-thousand-passes-on-one-device", "one-pass-on-many-devices"];
    let all = std::env::var_os("PASSKIT_ALL_CHECKS").is_some();
    let chosen = move |check: &&Check| all || !long.iter().any(|name| check.id().ends_with(name));
    keeps_the_contract(&servers.url(), CHECKS.iter().filter(chosen)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn cluster_keeps_the_contract() {
    let servers = Cluster::start().unwrap();
    keeps_the_contract(&servers.url(), CHECKS.iter()).await;
}
