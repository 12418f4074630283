use std::{
    future::poll_fn,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use passkit_conformance::store::{TestStore, cases, run};
use passkit_server::store::{RegistrationStore, StoreErrorKind};
use passkit_store_postgres::{Config, PostgresStore};
use passkit_test_servers::postgres::{PgBouncer, Server};

use crate::support::{device, pass, text_of, token};

/// Cases with very many round trips. They are tested only without a pooler.
const LONG: [&str; 6] = [
    "store/parallel-history-adds-up",
    "store/random-sequences-follow-the-model",
    "store/ten-thousand-passes-on-one-device",
    "store/one-pass-on-many-devices",
    "store/no-device-goes-stale",
    "store/old-tags-miss-nothing",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_contract_holds_behind_pgbouncer() {
    let server = Server::throwaway(&["fsync=off", "synchronous_commit=off"]).unwrap();
    let database = server.new_database().await.unwrap();
    // The pooler has fewer connections than the store, so that the store's connections share them.
    let pooler = PgBouncer::start(&server, 3).unwrap();
    let url = pooler.url(&database);
    let store = PostgresStore::connect(&url, Config::new().transaction_pooler(true))
        .await
        .unwrap();
    store.migrate().await.unwrap();
    store.check().await.unwrap();
    let cases = cases();
    let short = cases.iter().filter(|one| !LONG.contains(&one.case.id));
    // The cases about maintenance are left out, because each needs its own database.
    let store = TestStore::new(Arc::new(store.clone())).with_queue(Arc::new(store));
    run(short, move || std::future::ready(store.clone()))
        .await
        .assert_passed();

    let error = PostgresStore::connect(&url, Config::new())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Configuration, "{error:?}");
    assert!(text_of(&error).contains("pooler"), "{error:?}");
}

/// A call that is dropped while its transaction begins must not leave it open. Otherwise the pooler would have one connection
/// fewer, and after a few such calls every call would wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn dropped_calls_leave_no_transaction_open() {
    let server = Server::throwaway(&["fsync=off", "synchronous_commit=off"]).unwrap();
    let database = server.new_database().await.unwrap();
    let pooler = PgBouncer::start(&server, 3).unwrap();
    let config = Config::new()
        .transaction_pooler(true)
        .timeout(Duration::from_secs(60));
    let store = PostgresStore::connect(&pooler.url(&database), config)
        .await
        .unwrap();
    store.migrate().await.unwrap();
    let direct = PostgresStore::connect(&server.url(&database), Config::new())
        .await
        .unwrap();
    let open = "select count(*) from pg_stat_activity
        where datname = current_database() and pid <> pg_backend_pid() and state <> 'idle'";
    for polls in 0.. {
        let (device, pass, token) = (device("d"), pass("1"), token());
        let mut call = store.register(&device, &pass, &token);
        let mut polled = 0;
        let done = poll_fn(|context| {
            if polled == polls {
                return Poll::Ready(false);
            }
            polled += 1;
            call.as_mut()
                .poll(context)
                .map(|registered| registered.is_ok())
        });
        let done = done.await;
        drop(call);
        let start = Instant::now();
        while sqlx::query_scalar::<_, i64>(open)
            .fetch_one(direct.pool())
            .await
            .unwrap()
            > 0
        {
            assert!(
                start.elapsed() < Duration::from_secs(60),
                "a transaction is left open after {polls} polls"
            );
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        // A call needs more polls on a busy machine. So the loop does not end when the first call finishes before the drop.
        if done && polls > 20 {
            break;
        }
    }
    store
        .register(&device("d"), &pass("1"), &token())
        .await
        .unwrap();
}
