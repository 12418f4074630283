//! Published content: several processes publish it, and each change is marked once.

use passkit_server::{
    Changed, PassId,
    identifiers::TokenDigest,
    push::{PushQueue as _, Scope},
    store::{Content, ContentDigest, Published, RegistrationStore as _, StoreErrorKind},
};
use passkit_store_redis::{Config, RedisStore, redis};
use passkit_test_servers::redis::{Cluster, Single};

use crate::support::{connection, device, mark, pass, prefix, serial, token, type_id};

fn digest(number: u8) -> ContentDigest {
    // These bytes have a meaning in the layout.
    let mut digest = [0; 32];
    digest[1..6].copy_from_slice(&[number, b'\r', b'\n', 0xff, b'%']);
    digest
}

fn content(text: impl AsRef<str>, number: u8) -> Content {
    crate::support::content(text, digest(number))
}

fn tokens(numbers: impl IntoIterator<Item = u8>) -> Vec<TokenDigest> {
    numbers
        .into_iter()
        .map(|number| TokenDigest::from_bytes(digest(number)))
        .collect()
}

async fn open(url: &str, prefix: &str) -> RedisStore {
    RedisStore::connect(url, Config::new().prefix(prefix))
        .await
        .unwrap()
}

async fn publish(store: &RedisStore, contents: &[Content]) {
    store
        .mark(&type_id(), Changed::Contents(contents))
        .await
        .unwrap();
}

async fn published(store: &RedisStore, pass: &PassId) -> Option<Published> {
    let mut all = store.published(std::slice::from_ref(pass)).await.unwrap();
    assert_eq!(all.len(), 1);
    all.remove(0)
}

async fn marks_what_is_new(url: &str) {
    let prefix = prefix();
    let stores = [open(url, &prefix).await, open(url, &prefix).await];
    let [store, other] = &stores;
    let (me, one) = (device("d"), pass("1"));
    store.register(&me, &one, &token()).await.unwrap();
    mark(store, &[serial("1")]).await.unwrap();
    store.mark(&type_id(), Changed::All).await.unwrap();
    assert_eq!(
        published(store, &one).await,
        None,
        "a plain mark publishes nothing"
    );
    publish(store, &[]).await;

    let mut tag = store
        .changes_since(&me, &type_id(), None)
        .await
        .unwrap()
        .tag;
    for (number, marks) in [(1, true), (1, false), (2, true), (2, false), (1, true)] {
        let before = store.pass_state(&one).await.unwrap();
        publish(other, &[content("1", number)]).await;
        let after = store.pass_state(&one).await.unwrap();
        assert_eq!(after.version > before.version, marks);
        assert_eq!(after.last_modified > before.last_modified, marks);
        assert_eq!(after.published, Some(digest(number)));
        let changes = store
            .changes_since(&me, &type_id(), Some(tag))
            .await
            .unwrap();
        assert_eq!(!changes.serials.is_empty(), marks);
        if marks {
            tag = changes.tag;
        }
        mark(store, &[serial("1")]).await.unwrap();
        assert_eq!(
            store.pass_state(&one).await.unwrap().published,
            Some(digest(number)),
            "a plain mark leaves it"
        );
        tag = store
            .changes_since(&me, &type_id(), Some(tag))
            .await
            .unwrap()
            .tag;
    }

    // Some content is unchanged, some is new, some was never published. Each bucket needs more than one script.
    let all = |new: u8| -> Vec<Content> {
        (0..3_000_u32)
            .map(|i| content(format!("m{i}"), if i % 3 == 0 { new } else { 7 }))
            .collect()
    };
    publish(store, &all(7)[..2_000]).await;
    let mut before = Vec::new();
    for i in 0..3_000 {
        before.push(store.pass_state(&pass(format!("m{i}"))).await.unwrap());
    }
    publish(other, &all(8)).await;
    let passes: Vec<PassId> = (0..3_000).map(|i| pass(format!("m{i}"))).collect();
    let kept = store.published(&passes).await.unwrap();
    for (i, (before, kept)) in before.into_iter().zip(kept).enumerate() {
        let state = store.pass_state(&passes[i]).await.unwrap();
        assert_eq!(
            state.version > before.version,
            i % 3 == 0 || i >= 2_000,
            "{i}"
        );
        assert_eq!(
            state.published,
            Some(digest(if i % 3 == 0 { 8 } else { 7 })),
            "{i}"
        );
        assert_eq!(kept.unwrap().digest, state.published, "{i}");
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

/// Scripts treat tokens like [`Published::update`].
#[tokio::test]
async fn tokens_and_removals_are_kept_as_the_reference_keeps_them() {
    let server = Single::start().unwrap();
    let store = open(server.url(), &prefix()).await;
    let (one, other) = (pass("1"), pass("2"));
    let mut expected = Published::default();
    let steps: Vec<(Option<u8>, Vec<u8>)> = vec![
        (None, vec![1]),
        (Some(1), vec![1, 2, 3]),
        (Some(1), vec![]),
        (Some(1), vec![2, 2, 1]),
        (Some(2), (10..25).collect()),
        (None, vec![3]),
        (None, vec![]),
        (Some(2), (0..40).chain([7]).collect()),
        (Some(3), vec![200, 8]),
    ];
    for (number, (step, names)) in steps.into_iter().enumerate() {
        let before = store.pass_state(&one).await.unwrap();
        let one_content = Content {
            serial: serial("1"),
            digest: step.map(digest),
            tokens: tokens(names),
        };
        let is_marked = expected.update(&one_content);
        store
            .mark_and_push(&type_id(), Changed::Contents(&[one_content]))
            .await
            .unwrap();
        let after = store.pass_state(&one).await.unwrap();
        assert_eq!(after.version > before.version, is_marked, "step {number}");
        assert_eq!(after.published, expected.digest, "step {number}");
        let kept = store
            .published(&[other.clone(), one.clone(), one.clone()])
            .await
            .unwrap();
        assert_eq!(
            kept,
            [None, Some(expected.clone()), Some(expected.clone())],
            "step {number}"
        );
        let pending = store.pending(&type_id(), 10).await.unwrap();
        assert_eq!(
            pending.len(),
            usize::from(after.version > 0),
            "step {number}: a removal pushes nothing"
        );
        assert!(
            pending
                .iter()
                .all(|one| one.version == after.version && one.scope == Scope::Pass(serial("1")))
        );
    }
    assert_eq!(store.published(&[]).await.unwrap(), []);
}

/// The date shows the number of marks, because each further mark in the same second adds one to it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn contents_that_two_stores_publish_at_once_are_marked_once() {
    const ROUNDS: u64 = 100;
    let server = Single::start().unwrap();
    let prefix = prefix();
    let stores = [
        open(server.url(), &prefix).await,
        open(server.url(), &prefix).await,
    ];
    let one = pass("1");
    for _ in 0..30 {
        mark(&stores[0], &[serial("1")]).await.unwrap();
    }
    let before = stores[0].pass_state(&one).await.unwrap().last_modified;
    for round in 0..ROUNDS {
        let tasks = stores.clone().map(|store| {
            tokio::spawn(async move { publish(&store, &[content("1", round as u8)]).await })
        });
        for task in tasks {
            task.await.unwrap();
        }
    }
    assert_eq!(
        stores[1].pass_state(&one).await.unwrap().last_modified,
        before + ROUNDS
    );
}

#[tokio::test]
async fn an_invalid_digest_is_an_error() {
    let server = Single::start().unwrap();
    // With one bucket, the test knows its key.
    let prefix = prefix();
    let config = Config::new().prefix(prefix.clone()).buckets(1);
    let store = RedisStore::connect(server.url(), config).await.unwrap();
    let key = format!("{prefix}b{{{}:0}}", type_id());
    let mut c = connection(server.url()).await;
    let _: () = redis::cmd("HSET")
        .arg(key)
        .arg("\t#1")
        .arg("short")
        .query_async(&mut c)
        .await
        .unwrap();
    for error in [
        store.published(&[pass("1")]).await.map(drop).unwrap_err(),
        store.pass_state(&pass("1")).await.map(drop).unwrap_err(),
    ] {
        assert_eq!(error.kind(), StoreErrorKind::Corrupt);
    }
}
