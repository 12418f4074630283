//! Acknowledged changes survive failures.

use std::time::{Duration, Instant};

use passkit_server::{
    Changed,
    store::{RegistrationStore as _, StoreErrorKind},
};
use passkit_store_redis::{Config, RedisStore};
use passkit_test_servers::redis::{Node, SentinelSet};

use crate::support::{chain, device, devices_of, mark, pass, serial, token, type_id};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_few_replicas_are_an_error() {
    let servers = SentinelSet::start().unwrap();
    let config = Config::new()
        .min_replicas(2)
        .replica_timeout(Duration::from_millis(200));
    let store = RedisStore::connect(&servers.url(), config).await.unwrap();
    let (me, one, two) = (device("d"), pass("1"), pass("2"));
    in_time!(store.register(&me, &one, &token()));

    servers.nodes[2].pause().unwrap();
    for attempt in 0..2 {
        for error in [
            store
                .register(&me, &two, &token())
                .await
                .map(drop)
                .unwrap_err(),
            mark(&store, &[serial("1")]).await.unwrap_err(),
            store.mark(&type_id(), Changed::All).await.unwrap_err(),
            // The first attempt took effect without confirmation. The second must not succeed either.
            store.unregister(&me, &one).await.map(drop).unwrap_err(),
        ] {
            assert_eq!(error.kind(), StoreErrorKind::Unavailable);
            assert!(
                chain(&error).contains(" of 2 replicas"),
                "attempt {attempt}: {}",
                chain(&error)
            );
        }
    }
    servers.nodes[2].resume().unwrap();
    in_time!(store.register(&me, &two, &token()));
    assert!(!in_time!(store.unregister(&me, &one)));
    assert_eq!(
        in_time!(store.changes_since(&me, &type_id(), None)).serials,
        [serial("2")]
    );
    assert!(devices_of(&store, &one).await.is_empty());
}

/// A failover may lose changes that the replicas did not confirm. If a device had seen such a change, it would miss later
/// ones, because their versions may be lower.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unconfirmed_changes_are_not_reported() {
    let servers = SentinelSet::start().unwrap();
    let config = Config::new().replica_timeout(Duration::from_millis(200));
    let store = RedisStore::connect(&servers.url(), config.clone().min_replicas(2))
        .await
        .unwrap();
    let hasty = RedisStore::connect(&servers.url(), config).await.unwrap();
    let (me, one, two) = (device("d"), pass("1"), pass("2"));
    in_time!(store.register(&me, &one, &token()));
    let before = in_time!(store.changes_since(&me, &type_id(), None)).tag;

    servers.nodes[2].pause().unwrap();
    // The first step changes only the clock of a bucket, the second only the clock of a device.
    for step in 0..2 {
        if step == 0 {
            mark(&hasty, &[serial("1")]).await.unwrap();
        } else {
            hasty.register(&me, &two, &token()).await.unwrap();
        }
        for error in [
            store
                .changes_since(&me, &type_id(), Some(before))
                .await
                .map(drop)
                .unwrap_err(),
            store.pass_state(&one).await.map(drop).unwrap_err(),
        ] {
            assert_eq!(error.kind(), StoreErrorKind::Unavailable);
            assert!(
                chain(&error).contains(" of 2 replicas"),
                "step {step}: {}",
                chain(&error)
            );
        }
        hasty
            .changes_since(&me, &type_id(), Some(before))
            .await
            .unwrap();
        hasty.pass_state(&one).await.unwrap();
    }
    servers.nodes[2].resume().unwrap();
    let changes = in_time!(store.changes_since(&me, &type_id(), Some(before)));
    assert_eq!(changes.serials.len(), 2);
    assert_eq!(
        in_time!(store.pass_state(&one)),
        hasty.pass_state(&one).await.unwrap()
    );
}

#[tokio::test]
async fn an_append_only_file_survives_a_kill() {
    let server = Node::start(&["--appendonly", "yes", "--appendfsync", "always"]).unwrap();
    let store = RedisStore::connect(&server.url(), Config::new())
        .await
        .unwrap();
    let (me, one) = (device("d"), pass("1"));
    store.register(&me, &one, &token()).await.unwrap();
    let tag = store
        .changes_since(&me, &type_id(), None)
        .await
        .unwrap()
        .tag;
    mark(&store, &[serial("1")]).await.unwrap();
    let state = store.pass_state(&one).await.unwrap();
    for _ in 0..2 {
        server.kill().unwrap();
        // A call that is made while the server is down waits for it.
        let waiting = tokio::spawn({
            let (store, one) = (store.clone(), one.clone());
            async move { store.pass_state(&one).await }
        });
        server.restart().unwrap();
        assert_eq!(waiting.await.unwrap().unwrap(), state);
        assert_eq!(
            store
                .changes_since(&me, &type_id(), Some(tag))
                .await
                .unwrap()
                .serials,
            [serial("1")]
        );
        assert_eq!(devices_of(&store, &one).await, ["d"]);
    }
}

/// A hanging server blocks calls for a bounded time. Later calls succeed.
#[tokio::test]
async fn a_server_that_hangs_is_unavailable_in_bounded_time() {
    let server = Node::start(&[]).unwrap();
    let config = Config::new()
        .response_timeout(Duration::from_millis(500))
        .call_timeout(Duration::from_secs(2));
    let store = RedisStore::connect(&server.url(), config).await.unwrap();
    let (me, one) = (device("d"), pass("1"));
    in_time!(store.register(&me, &one, &token()));
    server.pause().unwrap();
    let start = Instant::now();
    for error in [
        store.pass_state(&one).await.map(drop).unwrap_err(),
        store
            .register(&me, &one, &token())
            .await
            .map(drop)
            .unwrap_err(),
    ] {
        assert_eq!(
            error.kind(),
            StoreErrorKind::Unavailable,
            "{}",
            chain(&error)
        );
    }
    assert!(
        start.elapsed() < Duration::from_secs(60),
        "{:?}",
        start.elapsed()
    );
    server.resume().unwrap();
    assert_eq!(
        in_time!(store.changes_since(&me, &type_id(), None)).serials,
        [serial("1")]
    );
}
