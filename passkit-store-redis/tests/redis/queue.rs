//! Interrupted calls, lost dirty buckets, and long queues.

use std::time::Duration;

use passkit_server::{
    Changed,
    identifiers::{PushToken, SerialNumber},
    maintenance::StoreMaintenance as _,
    push::{DeferredPush, PendingChange, Progress, PushQueue as _, Scope},
    store::{Content, Coordination as _, PageCursor, RegistrationStore as _, StoreError, clock},
};
use passkit_store_redis::{Config, RedisStore, redis};
use passkit_test_servers::redis::{Cluster, Node, SentinelSet, Single};

use crate::support::{chain, connection, content, device, mark, pass, prefix, serial, type_id};

fn many(count: usize) -> Vec<SerialNumber> {
    (0..count).map(|i| serial(i.to_string())).collect()
}

async fn mark_and_push(store: &RedisStore, serials: &[SerialNumber]) -> Result<(), StoreError> {
    store
        .mark_and_push(&type_id(), Changed::Passes(serials))
        .await
}

/// Records that the pushes of these changes were sent to all devices.
async fn finish(store: &RedisStore, changes: Vec<PendingChange>) {
    let done = changes.into_iter().map(|change| {
        (
            change.scope,
            Progress {
                version: change.version,
                next: None,
            },
        )
    });
    store
        .record_progress(&type_id(), &done.collect::<Vec<_>>())
        .await
        .unwrap();
}

async fn open(url: &str, prefix: &str) -> RedisStore {
    RedisStore::connect(url, Config::new().prefix(prefix))
        .await
        .unwrap()
}

/// A process ends after it has marked some buckets. Another process marks the type again.
#[tokio::test]
async fn an_interrupted_mark_of_a_type_is_finished() {
    let server = Single::start().unwrap();
    let prefix = prefix();
    let store = open(server.url(), &prefix).await;
    let mut c = connection(server.url()).await;
    mark_and_push(&store, &[serial("1")]).await.unwrap();
    let by_age = format!("{prefix}a{{{}:0}}", type_id());
    let begun = |ago: u64| {
        let mut cmd = redis::cmd("ZADD");
        cmd.arg(&by_age)
            .arg(clock::now_micros() - ago * 1_000_000)
            .arg(format!("\tp{ago}"));
        cmd
    };
    let _: () = begun(30).query_async(&mut c).await.unwrap();
    let before = store.pass_state(&pass("2")).await.unwrap();
    // The mark may still be under way. Bucket 0 is not dirty, but a new process reads all buckets.
    let store = open(server.url(), &prefix).await;
    let backlog = store.backlog().await.unwrap();
    assert!(backlog[0].pending == 2 && backlog[0].since.is_some());
    assert_eq!(store.pending(&type_id(), 10).await.unwrap().len(), 1);
    assert_eq!(store.pass_state(&pass("2")).await.unwrap(), before);

    let _: () = begun(90).query_async(&mut c).await.unwrap();
    store.pending(&type_id(), 10).await.unwrap();
    let pending = store.pending(&type_id(), 10).await.unwrap();
    let of_type = pending
        .iter()
        .find(|change| change.scope == Scope::Type)
        .unwrap();
    for i in 0..200 {
        let state = store.pass_state(&pass(i.to_string())).await.unwrap();
        assert_eq!(state.version, of_type.version, "{i}");
    }
    let left: Vec<String> = redis::cmd("ZRANGE")
        .arg(&by_age)
        .arg(&[0, -1])
        .query_async(&mut c)
        .await
        .unwrap();
    assert!(left.contains(&"\tp30".to_owned()) && !left.contains(&"\tp90".to_owned()));
}

#[tokio::test]
async fn lost_dirty_buckets_are_found_again() {
    let server = Single::start().unwrap();
    let prefix = prefix();
    let store = open(server.url(), &prefix).await;
    let mut c = connection(server.url()).await;
    mark_and_push(&store, &many(100)).await.unwrap();
    assert_eq!(store.backlog().await.unwrap()[0].pending, 100);
    let dirty = format!("{prefix}q{{{}}}", type_id());
    for repaired in [false, true] {
        let _: () = redis::cmd("DEL")
            .arg(&dirty)
            .query_async(&mut c)
            .await
            .unwrap();
        if repaired {
            let _: () = redis::cmd("DEL")
                .arg(format!("{prefix}types"))
                .query_async(&mut c)
                .await
                .unwrap();
            assert_eq!(store.backlog().await.unwrap(), []);
            store.repair().await.unwrap();
        } else {
            assert_eq!(
                store.backlog().await.unwrap(),
                [],
                "all buckets are looked into only now and then"
            );
            // A new process finds the lost buckets.
            open(server.url(), &prefix).await.backlog().await.unwrap();
        }
        assert_eq!(store.backlog().await.unwrap()[0].pending, 100);
        assert_eq!(store.pending(&type_id(), 1_000).await.unwrap().len(), 100);
    }
}

/// Buckets that are empty and have been dirty for a long time are cleared. They are then no longer
/// read.
#[tokio::test]
async fn dirty_buckets_that_are_empty_are_cleared() {
    let server = Single::start().unwrap();
    let prefix = prefix();
    let store = open(server.url(), &prefix).await;
    let mut c = connection(server.url()).await;
    mark_and_push(&store, &many(3)).await.unwrap();
    let dirty = format!("{prefix}q{{{}}}", type_id());
    let finish_some = async |limit| {
        let pending = store.pending(&type_id(), limit).await.unwrap();
        finish(&store, pending).await;
    };
    finish_some(2).await;
    let marked: Vec<u64> = redis::cmd("HKEYS")
        .arg(&dirty)
        .query_async(&mut c)
        .await
        .unwrap();
    assert_eq!(
        marked.len(),
        3,
        "the serial numbers are in different buckets"
    );
    for (is_old, left) in [(false, 3), (true, 1)] {
        if is_old {
            let before = clock::now_micros() - 601_000_000;
            for bucket in &marked {
                let _: () = redis::cmd("HSET")
                    .arg(&dirty)
                    .arg(bucket)
                    .arg(before)
                    .query_async(&mut c)
                    .await
                    .unwrap();
            }
        }
        assert_eq!(store.backlog().await.unwrap()[0].pending, 1);
        let count: usize = redis::cmd("HLEN")
            .arg(&dirty)
            .query_async(&mut c)
            .await
            .unwrap();
        assert_eq!(count, left);
    }
    finish_some(10).await;
    assert_eq!(store.backlog().await.unwrap(), []);
    let count: usize = redis::cmd("HLEN")
        .arg(&dirty)
        .query_async(&mut c)
        .await
        .unwrap();
    assert_eq!(count, 0);
}

#[tokio::test]
async fn pushes_of_published_contents_are_pending_once() {
    let server = Single::start().unwrap();
    let store = open(server.url(), &prefix()).await;
    let contents: Vec<Content> = (0..2_000)
        .map(|i| content(i.to_string(), [7; 32]))
        .collect();
    for _ in 0..2 {
        store
            .mark_and_push(&type_id(), Changed::Contents(&contents))
            .await
            .unwrap();
        let pending = store.pending(&type_id(), 10_000).await.unwrap();
        assert_eq!(pending.len(), 2_000);
        for change in &pending[..50] {
            let Scope::Pass(serial) = &change.scope else {
                panic!("a type")
            };
            let state = store.pass_state(&pass(serial.as_str())).await.unwrap();
            assert_eq!(state.version, change.version);
        }
    }
}

/// Each command reads only a part of a long queue, so no command keeps the server busy for long.
#[tokio::test]
async fn long_queues_are_read_in_small_steps() {
    let server = Node::start(&[]).unwrap();
    // There is one bucket, so that the whole queue is in it.
    let store = RedisStore::connect(&server.url(), Config::new().buckets(1))
        .await
        .unwrap();
    let serials = many(60_000);
    mark(&store, &serials).await.unwrap();
    mark_and_push(&store, &serials).await.unwrap();
    store.mark_and_push(&type_id(), Changed::All).await.unwrap();
    assert_eq!(store.backlog().await.unwrap()[0].pending, 60_001);
    let mut left = 60_001;
    let mut rounds = 0;
    while left > 0 {
        let limit = if rounds < 20 { 256 } else { 20_000 };
        let pending = store.pending(&type_id(), limit).await.unwrap();
        assert!(
            (limit.min(left)..=limit).contains(&pending.len()),
            "{} of {left}",
            pending.len()
        );
        left -= pending.len();
        finish(&store, pending).await;
        rounds += 1;
    }
    assert_eq!(store.backlog().await.unwrap(), []);
    // Passes are marked in steps of at most 1,000. Everything else is done in steps of at most 250.
    let steps = 60_000 / 250;
    let stats = server.ask(&["INFO", "commandstats"]).unwrap();
    for (command, least) in [
        ("evalsha", 60 + 2 * steps),
        ("hmget", steps),
        ("zrange", steps),
    ] {
        let of_command = stats
            .split_once(&format!("cmdstat_{command}:calls="))
            .unwrap()
            .1;
        let calls: usize = of_command.split(',').next().unwrap().parse().unwrap();
        println!("{command}: {calls} calls");
        assert!(
            calls >= least,
            "{command}: {calls} calls, fewer than {least}"
        );
    }
    store.stats().await.unwrap();
}

/// A failover must not lose what a worker or a publisher has seen.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queues_wait_for_replicas() {
    let servers = SentinelSet::start().unwrap();
    let config = Config::new()
        .min_replicas(2)
        .replica_timeout(Duration::from_millis(200));
    let store = RedisStore::connect(&servers.url(), config).await.unwrap();
    let type_id = type_id();
    in_time!(mark_and_push(&store, &[serial("1")]));
    let version = in_time!(store.pending(&type_id, 1))[0].version;
    let done = [(
        Scope::Pass(serial("1")),
        Progress {
            version,
            next: None,
        },
    )];
    let contents = [content("2", [7; 32])];
    servers.nodes[2].pause().unwrap();
    for attempt in 0..2 {
        for error in [
            mark_and_push(&store, &[serial("2")]).await.unwrap_err(),
            store
                .mark_and_push(&type_id, Changed::All)
                .await
                .unwrap_err(),
            // The first attempt took effect without confirmation. The second must not succeed either.
            store
                .mark_and_push(&type_id, Changed::Contents(&contents))
                .await
                .unwrap_err(),
            store
                .mark(&type_id, Changed::Contents(&contents))
                .await
                .unwrap_err(),
            store.published(&[pass("2")]).await.map(drop).unwrap_err(),
            store
                .claim("a", "b", Duration::from_secs(1))
                .await
                .map(drop)
                .unwrap_err(),
            store.release("a", "b").await.unwrap_err(),
            store
                .replace_note("a", None, Some("x"))
                .await
                .map(drop)
                .unwrap_err(),
            store
                .replace_note("a", Some("x"), Some("x"))
                .await
                .map(drop)
                .unwrap_err(),
            store.note("a").await.map(drop).unwrap_err(),
            store.record_progress(&type_id, &done).await.unwrap_err(),
            store
                .defer(&type_id, &[(device("d"), None)])
                .await
                .unwrap_err(),
        ] {
            assert!(
                chain(&error).contains(" of 2 replicas"),
                "attempt {attempt}: {}",
                chain(&error)
            );
        }
    }
    servers.nodes[2].resume().unwrap();
}

/// The items of one call are applied in their order, even if there are many.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn progress_is_recorded_in_its_order() {
    let servers = Cluster::start().unwrap();
    let store = open(&servers.url(), &prefix()).await;
    for round in 0..20 {
        mark_and_push(&store, &[serial("1"), serial("2")])
            .await
            .unwrap();
        let of_one = |pending: Vec<PendingChange>| {
            pending
                .into_iter()
                .find(|change| change.scope == Scope::Pass(serial("1")))
                .unwrap()
        };
        let version = of_one(store.pending(&type_id(), 10).await.unwrap()).version;
        let page = |number: usize| Some(PageCursor::new(format!("{round}-{number}")));
        let one = |next| (Scope::Pass(serial("1")), Progress { version, next });
        let mut progress: Vec<_> = (0..1_000).map(|number| one(page(number))).collect();
        store.record_progress(&type_id(), &progress).await.unwrap();
        let change = of_one(store.pending(&type_id(), 10).await.unwrap());
        assert_eq!(change.progress.unwrap().next, page(999));
        progress.push(one(None));
        progress.extend((0..600).map(|number| one(page(number))));
        store.record_progress(&type_id(), &progress).await.unwrap();
        let left = store.pending(&type_id(), 10).await.unwrap();
        assert_eq!(left.len(), 1, "a finished change stays finished");
    }
}

/// The last entry of a device counts. Tokens may contain the separator of the layout.
#[tokio::test]
async fn deferred_pushes_are_the_last_of_each_device() {
    let server = Single::start().unwrap();
    let store = open(server.url(), &prefix()).await;
    let push = |token: &str, attempts| DeferredPush {
        push_token: PushToken::new(token).unwrap(),
        due: None,
        attempts,
        bad_since: None,
    };
    let mut pushes = Vec::new();
    for attempts in 0..3_000 {
        pushes.push((device("d"), Some(push("a:b:{}", attempts))));
        pushes.push((device("e"), (attempts < 2_999).then(|| push(":", attempts))));
    }
    store.defer(&type_id(), &pushes).await.unwrap();
    let page = store.deferred(&type_id(), None, 10).await.unwrap();
    assert_eq!(page.items, [(device("d"), push("a:b:{}", 2_999))]);
}

#[tokio::test]
async fn a_limit_of_0_returns_a_pending_change() {
    let server = Single::start().unwrap();
    let store = open(server.url(), &prefix()).await;
    mark_and_push(&store, &[serial("1")]).await.unwrap();
    assert_eq!(store.pending(&type_id(), 0).await.unwrap().len(), 1);
}
