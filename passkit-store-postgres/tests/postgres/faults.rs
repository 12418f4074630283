use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use passkit_server::{
    Changed,
    store::{Registered, RegistrationStore, StoreErrorKind},
};
use passkit_store_postgres::{Config, PostgresStore};
use passkit_test_servers::postgres::Server;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tokio::task::JoinSet;

use crate::support::{
    SERVER, device, new_database, new_store, pass, registered, serial, text_of, token, type_id,
};

const SOON: Duration = Duration::from_secs(60);

async fn run(connection: &mut PgConnection, sql: String) {
    sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(connection)
        .await
        .unwrap();
}

/// Registers until it succeeds. Errors before that must be `Unavailable`.
async fn recovers(store: &PostgresStore) {
    let start = Instant::now();
    while let Err(error) = store.register(&device("again"), &pass("1"), &token()).await {
        assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{error:?}");
        assert!(start.elapsed() < SOON, "does not recover: {error:?}");
    }
}

#[tokio::test]
async fn a_server_that_is_down_is_reported_at_once() {
    // This port was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let url = format!("postgres://postgres@127.0.0.1:{port}/p");
    let start = Instant::now();
    // The call fails at once, without waiting for its timeout.
    let error = PostgresStore::connect(&url, Config::new().timeout(2 * SOON))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{error:?}");
    assert!(text_of(&error).contains("refused"), "{error:?}");
    assert!(start.elapsed() < SOON);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_restart_loses_nothing_and_needs_no_help() {
    let server = Server::throwaway(&["fsync=off"]).unwrap();
    let url = server.url(&server.new_database().await.unwrap());
    let config = Config::new().timeout(Duration::from_secs(5));
    let store = PostgresStore::connect(&url, config).await.unwrap();
    store.migrate().await.unwrap();
    store
        .register(&device("d"), &pass("1"), &token())
        .await
        .unwrap();

    server.stop().unwrap();
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for i in 0..30 {
        let store = store.clone();
        tasks.spawn(async move {
            let error = match i % 3 {
                0 => store
                    .changes_since(&device("d"), &type_id(), None)
                    .await
                    .unwrap_err(),
                1 => store
                    .mark(&type_id(), Changed::Passes(&[serial("1")]))
                    .await
                    .unwrap_err(),
                _ => store
                    .unregister(&device("e"), &pass("1"))
                    .await
                    .unwrap_err(),
            };
            assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{error:?}");
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    assert!(start.elapsed() < SOON, "took {:?} to fail", start.elapsed());

    server.start().unwrap();
    recovers(&store).await;
    assert_eq!(registered(&store, &device("d")).await, ["1"]);

    // After a restart while the connections are idle, the next call succeeds.
    server.stop().unwrap();
    server.start().unwrap();
    assert_eq!(
        store
            .register(&device("d"), &pass("1"), &token())
            .await
            .unwrap(),
        Registered::Existing
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn calls_survive_broken_connections() {
    let store = new_store().await;
    let mut admin = PgConnection::connect(&SERVER.url("postgres"))
        .await
        .unwrap();
    let database: String = sqlx::query_scalar("select current_database()::text")
        .fetch_one(store.pool())
        .await
        .unwrap();
    let mut tasks = JoinSet::new();
    let done = Arc::new(AtomicUsize::new(0));
    for task in 0..6 {
        let (store, done) = (store.clone(), done.clone());
        tasks.spawn(async move {
            for i in 0..100 {
                let (device, pass) = (device(format!("{task}")), pass(format!("{}", i % 7)));
                store.register(&device, &pass, &token()).await.unwrap();
                store
                    .mark(
                        &type_id(),
                        Changed::Passes(std::slice::from_ref(&pass.serial)),
                    )
                    .await
                    .unwrap();
                assert!(
                    registered(&store, &device)
                        .await
                        .contains(&pass.serial.as_str().to_owned())
                );
                store.unregister(&device, &pass).await.unwrap();
                done.fetch_add(1, Relaxed);
            }
        });
    }
    /// The number of rounds that the tasks finish between two cuts. With fewer, all retries of a call could be cut.
    const BETWEEN: usize = 60;
    let (mut cuts, mut next) = (0, BETWEEN);
    let mut look = tokio::time::interval(Duration::from_millis(2));
    loop {
        tokio::select! {
            ended = tasks.join_next() => match ended {
                Some(ended) => ended.unwrap(),
                None => break,
            },
            _ = look.tick() => {
                if done.load(Relaxed) < next {
                    continue;
                }
                let cut = "select count(pg_terminate_backend(pid)) from pg_stat_activity where datname = $1";
                let cut: i64 = sqlx::query_scalar(cut).bind(&database).fetch_one(&mut admin).await.unwrap();
                cuts += cut;
                next = done.load(Relaxed) + BETWEEN;
            }
        }
    }
    assert!(cuts > 0);
}

/// A call that waits too long fails, and the next one succeeds. The statements of failed calls don't pile up at the server.
#[tokio::test]
async fn a_call_that_takes_too_long_fails() {
    let url = new_database().await;
    let first = PostgresStore::connect(&url, Config::new()).await.unwrap();
    first.migrate().await.unwrap();
    let ours = Config::new().timeout(Duration::from_secs(3));
    let servers = Config::new()
        .timeout(SOON)
        .statement_timeout(Duration::from_secs(3));
    for config in [ours, servers] {
        let store = PostgresStore::connect(&url, config).await.unwrap();
        first
            .register(&device("d"), &pass("1"), &token())
            .await
            .unwrap();
        let mut locked = first.pool().begin().await.unwrap();
        sqlx::query("lock table passkit.device")
            .execute(&mut *locked)
            .await
            .unwrap();
        let start = Instant::now();
        for error in [
            store
                .register(&device("d"), &pass("1"), &token())
                .await
                .unwrap_err(),
            store
                .unregister(&device("d"), &pass("1"))
                .await
                .unwrap_err(),
            store
                .changes_since(&device("d"), &type_id(), None)
                .await
                .unwrap_err(),
        ] {
            assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{error:?}");
        }
        assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
        // A call without that lock succeeds once it has a connection. On a busy machine it may take longer to make one than
        // the short timeout of this test.
        let start = Instant::now();
        while let Err(error) = store
            .mark(&type_id(), Changed::Passes(&[serial("1")]))
            .await
        {
            assert!(start.elapsed() < SOON, "{error:?}");
        }
        locked.rollback().await.unwrap();
        recovers(&store).await;
    }
}

/// Without a limit for the time in the queue, the last of these callers would wait for eight statements or more.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn callers_wait_no_longer_than_the_timeout_however_many_they_are() {
    const CALLERS: usize = 2_000;
    let url = new_database().await;
    let first = PostgresStore::connect(&url, Config::new()).await.unwrap();
    first.migrate().await.unwrap();
    let limit = Duration::from_secs(5);
    let store = PostgresStore::connect(&url, Config::new().timeout(limit))
        .await
        .unwrap();
    let mut locked = first.pool().begin().await.unwrap();
    sqlx::query("lock table passkit.device")
        .execute(&mut *locked)
        .await
        .unwrap();
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let store = store.clone();
        callers.spawn(async move {
            let start = Instant::now();
            let device = device(format!("{caller}"));
            let error = if caller % 2 == 0 {
                store
                    .register(&device, &pass("1"), &token())
                    .await
                    .unwrap_err()
            } else {
                store
                    .changes_since(&device, &type_id(), None)
                    .await
                    .unwrap_err()
            };
            assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{error:?}");
            start.elapsed()
        });
    }
    let waited = callers.join_all().await.into_iter().max().unwrap();
    assert!(waited < limit + Duration::from_secs(30), "{waited:?}");
    locked.rollback().await.unwrap();
    recovers(&store).await;
}

#[tokio::test]
async fn a_read_only_database_serves_reads() {
    let store = new_store().await;
    store
        .register(&device("d"), &pass("1"), &token())
        .await
        .unwrap();
    let mut admin = PgConnection::connect(&SERVER.url("postgres"))
        .await
        .unwrap();
    let name: String = sqlx::query_scalar("select current_database()::text")
        .fetch_one(store.pool())
        .await
        .unwrap();
    let cut =
        format!("select pg_terminate_backend(pid) from pg_stat_activity where datname = '{name}'");
    run(
        &mut admin,
        format!("alter database {name} set default_transaction_read_only = on"),
    )
    .await;
    run(&mut admin, cut).await;
    assert_eq!(registered(&store, &device("d")).await, ["1"]);
    for error in [
        store
            .register(&device("d"), &pass("2"), &token())
            .await
            .unwrap_err(),
        store
            .unregister(&device("d"), &pass("1"))
            .await
            .unwrap_err(),
        store
            .mark(&type_id(), Changed::Passes(&[serial("1")]))
            .await
            .unwrap_err(),
        store.mark(&type_id(), Changed::All).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{error:?}");
        assert!(text_of(&error).contains("read-only"), "{error:?}");
    }
    run(
        &mut admin,
        format!("alter database {name} reset default_transaction_read_only"),
    )
    .await;
    recovers(&store).await;
}

/// A store that was used may be dropped outside a runtime.
#[test]
fn a_store_can_be_dropped_outside_a_runtime() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let store = runtime.block_on(async {
        let store = new_store().await;
        store
            .register(&device("d"), &pass("1"), &token())
            .await
            .unwrap();
        store
    });
    drop(store);
    let store = runtime.block_on(new_store());
    drop(runtime);
    drop(store);
}
