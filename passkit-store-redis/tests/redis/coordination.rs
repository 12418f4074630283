//! Claims and notes between processes.

use std::time::Duration;

use passkit_server::store::Coordination as _;
use passkit_store_redis::{Config, RedisStore, redis};
use passkit_test_servers::redis::{Cluster, Node, Single};
use tokio::task::JoinSet;

use crate::support::{connection, prefix};

const HOUR: Duration = Duration::from_secs(3_600);

/// Names that would change the slot on a Cluster if they became part of a hash tag.
const NAMES: [&str; 6] = [
    "pushes:pass.com.example",
    "{",
    "}{",
    "{a}b",
    "a}",
    "ü {x} :/",
];

async fn names_are_apart(url: &str) {
    let prefix = prefix();
    let open = || RedisStore::connect(url, Config::new().prefix(prefix.clone()));
    let (one, other) = (open().await.unwrap(), open().await.unwrap());
    for name in NAMES {
        assert!(one.claim(name, "one", HOUR).await.unwrap());
        assert!(!other.claim(name, "other", HOUR).await.unwrap());
        assert_eq!(other.note(name).await.unwrap(), None);
        assert!(!one.replace_note(name, Some("x"), Some("y")).await.unwrap());
        assert!(one.replace_note(name, None, Some(name)).await.unwrap());
        assert!(!other.replace_note(name, None, Some("x")).await.unwrap());
        assert_eq!(other.note(name).await.unwrap().as_deref(), Some(name));
    }
    for name in NAMES {
        other.release(name, "other").await.unwrap();
        assert!(!other.claim(name, "other", HOUR).await.unwrap());
        one.release(name, "one").await.unwrap();
        assert!(other.claim(name, "other", HOUR).await.unwrap());
        assert_eq!(other.note(name).await.unwrap().as_deref(), Some(name));
        assert!(other.replace_note(name, Some(name), None).await.unwrap());
        assert_eq!(one.note(name).await.unwrap(), None);
        assert!(one.replace_note(name, None, None).await.unwrap());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_node_keeps_names_apart() {
    let server = Single::start().unwrap();
    names_are_apart(server.url()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cluster_keeps_names_apart() {
    let servers = Cluster::start().unwrap();
    names_are_apart(&servers.url()).await;
}

/// Many callers read and replace a note again and again. Every call counts exactly once.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_note_counts_every_call_once_while_connections_break() {
    const CALLERS: u64 = 4;
    const EACH: u64 = 50;
    let server = Node::start(&[]).unwrap();
    let mut tasks = JoinSet::new();
    for _ in 0..CALLERS {
        let store = RedisStore::connect(&server.url(), Config::new())
            .await
            .unwrap();
        tasks.spawn(async move {
            let mut done = 0;
            while done < EACH {
                let note = store.note("count").await.unwrap();
                let next = note
                    .as_deref()
                    .map_or(0, |count| count.parse::<u64>().unwrap())
                    + 1;
                done += u64::from(
                    store
                        .replace_note("count", note.as_deref(), Some(&next.to_string()))
                        .await
                        .unwrap(),
                );
            }
        });
    }
    // This breaks connections before the answers come. The server may have run the commands.
    let mut c = connection(&server.url()).await;
    while !tasks.is_empty() {
        let kill = redis::cmd("CLIENT")
            .arg(&["KILL", "TYPE", "normal", "SKIPME", "yes"])
            .query_async::<u64>(&mut c)
            .await;
        kill.unwrap();
        tokio::task::yield_now().await;
        while let Some(done) = tasks.try_join_next() {
            done.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let store = RedisStore::connect(&server.url(), Config::new())
        .await
        .unwrap();
    assert_eq!(
        store.note("count").await.unwrap(),
        Some((CALLERS * EACH).to_string())
    );
}

/// The server decides when a claim expires, not the caller.
#[tokio::test]
async fn a_claim_expires() {
    let server = Single::start().unwrap();
    let store = RedisStore::connect(server.url(), Config::new().prefix(prefix()))
        .await
        .unwrap();
    assert!(store.claim("a", "one", Duration::ZERO).await.unwrap());
    let mut tries = 0;
    while !store.claim("a", "other", Duration::MAX).await.unwrap() {
        tries += 1;
        assert!(tries < 10_000, "the claim stays");
    }
    assert!(!store.claim("a", "one", HOUR).await.unwrap());
}
