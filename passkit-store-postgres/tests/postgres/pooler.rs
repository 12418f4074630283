use std::sync::Arc;

use passkit_conformance::store::{cases, run};
use passkit_server::{RegistrationStore, StoreErrorKind};
use passkit_store_postgres::{Config, PostgresStore};
use passkit_test_servers::postgres::{PgBouncer, Server};

use crate::support::text_of;

/// The checks that make very many round trips are left to the direct connection.
const LONG: [&str; 6] = [
    "store/parallel-history-adds-up",
    "store/random-sequences-follow-the-model",
    "store/ten-thousand-passes-on-one-device",
    "store/one-pass-on-many-devices",
    "store/no-device-goes-stale",
    "store/old-tags-miss-nothing",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn keeps_the_contract_behind_pgbouncer() {
    let server = Server::throwaway(&["fsync=off", "synchronous_commit=off"]).unwrap();
    let database = server.new_database().await.unwrap();
    // Fewer connections than the store uses, so that they change hands.
    let pooler = PgBouncer::start(&server, 3).unwrap();
    let url = pooler.url(&database);
    let store = PostgresStore::connect(&url, Config::new().transaction_pooler(true)).await.unwrap();
    store.migrate().await.unwrap();
    store.check().await.unwrap();
    let cases = cases();
    let short = cases.iter().filter(|one| !LONG.contains(&one.case.id));
    let store: Arc<dyn RegistrationStore> = Arc::new(store);
    run(short, move || std::future::ready(store.clone())).await.assert_kept();

    let error = PostgresStore::connect(&url, Config::new()).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Configuration, "{error:?}");
    assert!(text_of(&error).contains("pooler"), "{error:?}");
}
