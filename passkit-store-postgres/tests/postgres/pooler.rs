use std::sync::Arc;

use passkit_conformance::store::{TestStore, cases, run};
use passkit_server::store::StoreErrorKind;
use passkit_store_postgres::{Config, PostgresStore};
use passkit_test_servers::postgres::{PgBouncer, Server};

use crate::support::text_of;

/// Cases that make very many round trips: the direct connection runs them.
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
    // The cases of maintenance need a database each.
    let store = TestStore::new(Arc::new(store.clone())).with_queue(Arc::new(store));
    run(short, move || std::future::ready(store.clone())).await.assert_passed();

    let error = PostgresStore::connect(&url, Config::new()).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Configuration, "{error:?}");
    assert!(text_of(&error).contains("pooler"), "{error:?}");
}
