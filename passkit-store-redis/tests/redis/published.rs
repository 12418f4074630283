//! Content that several processes publish is marked once.

use passkit_server::{ContentDigest, PublishedContent as _, RegistrationStore as _, SerialNumber};
use passkit_store_redis::{Config, RedisStore, redis};
use passkit_test_servers::redis::{Cluster, Single};

use crate::support::{connection, device, pass, prefix, serial, token, type_id};

fn content(number: u8) -> ContentDigest {
    // Bytes that a script might take for something else.
    let mut digest = [0; 32];
    digest[1..6].copy_from_slice(&[number, b'\r', b'\n', 0xff, b'%']);
    digest
}

async fn open(url: &str, prefix: &str) -> RedisStore {
    RedisStore::connect(url, Config::new().prefix(prefix)).await.unwrap()
}

async fn marks_what_is_new(url: &str) {
    let prefix = prefix();
    let stores = [open(url, &prefix).await, open(url, &prefix).await];
    let [store, other] = &stores;
    let (me, one) = (device("d"), pass("1"));
    store.register(&me, &one, &token()).await.unwrap();
    assert_eq!(store.published(&one).await.unwrap(), None);
    store.mark_updated(&type_id(), &[serial("1")]).await.unwrap();
    store.mark_all_updated(&type_id()).await.unwrap();
    assert_eq!(store.published(&one).await.unwrap(), None, "a plain mark publishes nothing");
    store.publish(&type_id(), &[]).await.unwrap();

    let mut tag = store.updated_since(&me, &type_id(), None).await.unwrap().tag;
    for (number, marks) in [(1, true), (1, false), (2, true), (2, false), (1, true)] {
        let before = store.pass_state(&one).await.unwrap();
        other.publish(&type_id(), &[(serial("1"), content(number))]).await.unwrap();
        let after = store.pass_state(&one).await.unwrap();
        assert_eq!(after.version > before.version, marks);
        assert_eq!(after.last_modified > before.last_modified, marks);
        let changes = store.updated_since(&me, &type_id(), Some(tag)).await.unwrap();
        assert_eq!(!changes.serials.is_empty(), marks);
        if marks {
            tag = changes.tag;
        }
        assert_eq!(store.published(&one).await.unwrap(), Some(content(number)));
        store.mark_updated(&type_id(), &[serial("1")]).await.unwrap();
        assert_eq!(store.published(&one).await.unwrap(), Some(content(number)), "a plain mark leaves it");
        tag = store.updated_since(&me, &type_id(), Some(tag)).await.unwrap().tag;
    }

    // Some as they were, some new, some never published; in more than one script for a bucket.
    let all = |new: u8| -> Vec<(SerialNumber, ContentDigest)> {
        (0..3_000_u32).map(|i| (serial(format!("m{i}")), content(if i % 3 == 0 { new } else { 7 }))).collect()
    };
    store.publish(&type_id(), &all(7)[..2_000]).await.unwrap();
    let mut before = Vec::new();
    for i in 0..3_000 {
        before.push(store.pass_state(&pass(format!("m{i}"))).await.unwrap());
    }
    other.publish(&type_id(), &all(8)).await.unwrap();
    for (i, before) in before.into_iter().enumerate() {
        let pass = pass(format!("m{i}"));
        let marked = store.pass_state(&pass).await.unwrap() != before;
        assert_eq!(marked, i % 3 == 0 || i >= 2_000, "{i}");
        assert_eq!(store.published(&pass).await.unwrap(), Some(content(if i % 3 == 0 { 8 } else { 7 })));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_node_marks_what_is_new() {
    let server = Single::start().unwrap();
    marks_what_is_new(server.url()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cluster_marks_what_is_new() {
    let servers = Cluster::start().unwrap();
    marks_what_is_new(&servers.url()).await;
}

/// Dates tell the number of marks: made faster than one a second, each is one above the last.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_two_stores_publish_at_once_is_marked_once() {
    const ROUNDS: u64 = 100;
    let server = Single::start().unwrap();
    let prefix = prefix();
    let stores = [open(server.url(), &prefix).await, open(server.url(), &prefix).await];
    let one = pass("1");
    for _ in 0..30 {
        stores[0].mark_updated(&type_id(), &[serial("1")]).await.unwrap();
    }
    let before = stores[0].pass_state(&one).await.unwrap().last_modified;
    for round in 0..ROUNDS {
        let tasks = stores.clone().map(|store| {
            tokio::spawn(async move {
                store.publish(&type_id(), &[(serial("1"), content(round as u8))]).await.unwrap();
            })
        });
        for task in tasks {
            task.await.unwrap();
        }
    }
    assert_eq!(stores[1].pass_state(&one).await.unwrap().last_modified, before + ROUNDS);
}

#[tokio::test]
async fn what_is_no_digest_is_an_error() {
    let server = Single::start().unwrap();
    // Only so many buckets that the test knows which.
    let prefix = prefix();
    let config = Config::new().prefix(prefix.clone()).buckets(1);
    let store = RedisStore::connect(server.url(), config).await.unwrap();
    let key = format!("{prefix}b{{{}:0}}", type_id());
    let mut c = connection(server.url()).await;
    let _: () = redis::cmd("HSET").arg(key).arg("\t#1").arg("short").query_async(&mut c).await.unwrap();
    let error = store.published(&pass("1")).await.unwrap_err();
    assert_eq!(error.kind(), passkit_server::StoreErrorKind::Corrupt);
}
