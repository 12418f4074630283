//! Wrong settings of servers, and wrong addresses. Each error is one line that says how to fix it.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use passkit_server::{
    Changed,
    delivery::{DeliveryLog as _, Event, Record, Subject},
    push::{DeferredPush, Progress, PushQueue as _},
    store::{Audience, Content, Coordination as _, RegistrationStore, StoreError, StoreErrorKind},
};
use passkit_store_redis::{Config, RedisStore, redis};
use passkit_test_servers::redis::{Cluster, Node, Single};

use crate::support::{chain, connection, content, device, pass, prefix, serial, token, type_id};

async fn refused(url: &str, config: Config) -> StoreError {
    let config = config.call_timeout(Duration::from_secs(5));
    RedisStore::connect(url, config)
        .await
        .map(drop)
        .expect_err(url)
}

#[track_caller]
fn is_one_line(error: &StoreError, kind: StoreErrorKind, part: &str) {
    let text = chain(error);
    assert_eq!(error.kind(), kind, "{text}");
    assert!(
        text.contains(part) && !text.contains('\n') && !text.contains("secret"),
        "{text}"
    );
}

use StoreErrorKind::{Configuration, Corrupt, Unavailable};

#[tokio::test]
async fn wrong_passwords_users_and_rights_are_refused() {
    let server = Node::start(&["--requirepass", "secret"]).unwrap();
    let port = server.port();
    let at = |user: &str| format!("redis://{user}127.0.0.1:{port}/");
    is_one_line(
        &refused(&at(""), Config::new()).await,
        Configuration,
        "NOAUTH",
    );
    is_one_line(
        &refused(&at(":secret1@"), Config::new()).await,
        Configuration,
        "127.0.0.1",
    );
    RedisStore::connect(&at(":secret@"), Config::new())
        .await
        .unwrap();

    let mut c = connection(&at(":secret@")).await;
    for (user, rights) in [
        ("noscripts", "~* +@all -@scripting"),
        ("nokeys", "~other:* +@all"),
        ("reader", "~* +@read +info +ping"),
    ] {
        let mut cmd = redis::cmd("ACL");
        cmd.arg("SETUSER").arg(user).arg("on").arg(">secret");
        cmd.arg(rights.split(' ').collect::<Vec<_>>());
        let _: () = cmd.query_async(&mut c).await.unwrap();
        is_one_line(
            &refused(&at(&format!("{user}:secret@")), Config::new()).await,
            Configuration,
            "NoPerm",
        );
    }
    // These are the rights that the documentation lists, and no more.
    let _: () = redis::cmd("ACL")
        .arg(&[
            "SETUSER",
            "store",
            "on",
            ">secret",
            "~passkit:*",
            "+@hash",
            "+@scripting",
            "+@connection",
        ])
        .arg(&[
            "+info",
            "+wait",
            "+expire",
            "+persist",
            "+unlink",
            "+scan",
            "+memory|usage",
            "-script",
        ])
        .arg(&[
            "+zadd",
            "+zcard",
            "+zrange",
            "+zrem",
            "+zremrangebyscore",
            "+zscore",
            "+get",
            "+set",
            "+time",
        ])
        .query_async(&mut c)
        .await
        .unwrap();
    let store = RedisStore::connect(&at("store:secret@"), Config::new())
        .await
        .unwrap();
    passkit_server::maintenance::StoreMaintenance::stats(&store)
        .await
        .unwrap();
    every_call(&store).await.unwrap();
    store.repair().await.unwrap();
    let wanted = [
        "first-register-creates",
        "forget-respects-the-time",
        "every-mark-moves-the-date",
    ];
    let mut cases = passkit_conformance::store::cases();
    cases.retain(|one| wanted.iter().any(|id| one.case.id.ends_with(id)));
    assert_eq!(cases.len(), wanted.len());
    let store: Arc<dyn RegistrationStore> = Arc::new(store);
    passkit_conformance::store::run(&cases, move || std::future::ready(Arc::clone(&store)))
        .await
        .assert_passed();
}

/// Calls the methods that the conformance cases don't call.
async fn every_call(store: &RedisStore) -> Result<(), StoreError> {
    let (type_id, device) = (type_id(), device("d"));
    let contents = [
        content("1", [7; 32]),
        Content {
            digest: None,
            ..content("3", [7; 32])
        },
    ];
    let subjects = [Subject::Device(type_id.clone(), device.clone())];
    let record = Record {
        subject: subjects[0].clone(),
        event: Event::Asked,
        version: 0,
        count: 1,
        at: 1,
        detail: String::new(),
    };
    store.record(&[record]).await?;
    assert_eq!(store.records(&subjects).await?[0].len(), 1);
    while !store.discard_before(SystemTime::now(), 10).await? {}
    store.forget(&subjects).await?;
    store
        .mark_and_push(&type_id, Changed::Contents(&contents))
        .await?;
    assert!(store.published(&[pass("1")]).await?[0].is_some());
    store
        .mark_and_push(&type_id, Changed::Passes(&[serial("1"), serial("2")]))
        .await?;
    store.mark_and_push(&type_id, Changed::All).await?;
    let push = DeferredPush {
        push_token: token(),
        due: None,
        attempts: 1,
        bad_since: None,
    };
    store
        .defer(&type_id, &[(device.clone(), Some(push))])
        .await?;
    assert_eq!(store.deferred(&type_id, None, 10).await?.items.len(), 1);
    assert_eq!(store.backlog().await?.len(), 1);
    let pending = store.pending(&type_id, 10).await?;
    assert_eq!(pending.len(), 3);
    let done = pending.into_iter().map(|change| {
        (
            change.scope,
            Progress {
                version: change.version,
                next: None,
            },
        )
    });
    store
        .record_progress(&type_id, &done.collect::<Vec<_>>())
        .await?;
    store.defer(&type_id, &[(device.clone(), None)]).await?;
    assert_eq!(store.backlog().await?, []);
    assert!(store.claim("a", "b", Duration::from_secs(60)).await?);
    store.release("a", "b").await?;
    store.release("a", "b").await?;
    assert!(store.replace_note("a", None, Some("b")).await?);
    assert!(!store.replace_note("a", None, Some("b")).await?);
    assert!(store.replace_note("a", Some("b"), None).await?);
    assert!(!store.replace_note("a", Some("b"), None).await?);
    store.note("a").await?;
    store.register(&device, &pass("1"), &token()).await?;
    assert_eq!(
        store
            .devices(Audience::Type(&type_id), None, 10)
            .await?
            .items
            .len(),
        1
    );
    assert_eq!(store.count_devices(&pass("1"), 10).await?, 1);
    assert!(store.unregister(&device, &pass("1")).await?);
    Ok(())
}

#[tokio::test]
async fn servers_that_evict_are_refused() {
    let server =
        Node::start(&["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"]).unwrap();
    is_one_line(
        &refused(&server.url(), Config::new()).await,
        Configuration,
        "allkeys-lru",
    );
}

#[tokio::test]
async fn replicas_and_wrong_databases_are_refused() {
    let server = Node::start(&[]).unwrap();
    let url = format!("{}99", server.url());
    is_one_line(
        &refused(&url, Config::new()).await,
        Configuration,
        "127.0.0.1",
    );
    let replica = Node::start(&["--replicaof", "127.0.0.1", &server.port().to_string()]).unwrap();
    is_one_line(
        &refused(&replica.url(), Config::new()).await,
        Configuration,
        "replica",
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_not_used_as_a_node_or_the_other_way_round() {
    let cluster = Cluster::start_own(&["--maxmemory-policy", "noeviction"]).unwrap();
    let node = cluster.masters().next().unwrap();
    is_one_line(
        &refused(&node.url(), Config::new()).await,
        Configuration,
        "redis+cluster://",
    );
    let url = format!("{}/3", cluster.url());
    is_one_line(&refused(&url, Config::new()).await, Configuration, "SELECT");
    let url = cluster
        .url()
        .replace("redis+cluster://", "redis+cluster://:secret@");
    is_one_line(
        &refused(&url, Config::new()).await,
        Configuration,
        "127.0.0.1",
    );
    let single = Single::start().unwrap();
    let url = single.url().replace("redis://", "redis+cluster://");
    is_one_line(
        &refused(&url, Config::new()).await,
        Configuration,
        "cluster",
    );
    node.ask(&["CONFIG", "SET", "maxmemory-policy", "volatile-ttl"])
        .unwrap();
    is_one_line(
        &refused(&cluster.url(), Config::new()).await,
        Configuration,
        "volatile-ttl",
    );
}

#[tokio::test]
async fn an_address_without_a_server_is_unavailable() {
    for url in [
        "redis://127.0.0.1:1/",
        "redis+cluster://127.0.0.1:1,127.0.0.1:2",
        "redis+sentinel://127.0.0.1:1,127.0.0.1:2/main",
    ] {
        is_one_line(
            &refused(url, Config::new()).await,
            Unavailable,
            "127.0.0.1:1",
        );
    }
}

#[tokio::test]
async fn wrong_addresses_prefixes_and_buckets_are_refused() {
    let server = Single::start().unwrap();
    for url in [
        "redis",
        "http://u:secret@h/",
        "redis+cluster://",
        "redis+sentinel://127.0.0.1:1",
    ] {
        is_one_line(
            &refused(url, Config::new()).await,
            Configuration,
            "redis://",
        );
    }
    for prefix in ["", "a b", "a{b}", "a*"] {
        is_one_line(
            &refused(server.url(), Config::new().prefix(prefix)).await,
            Configuration,
            "prefix",
        );
    }
    for buckets in [0, 5_000] {
        is_one_line(
            &refused(server.url(), Config::new().buckets(buckets)).await,
            Configuration,
            "buckets",
        );
    }
    let prefix = prefix();
    let config = || Config::new().prefix(prefix.clone());
    RedisStore::connect(server.url(), config().buckets(16))
        .await
        .unwrap();
    is_one_line(
        &refused(server.url(), config().buckets(32)).await,
        Configuration,
        "has 16 buckets",
    );
    RedisStore::connect(server.url(), config()).await.unwrap();

    let mut c = connection(server.url()).await;
    let key = format!("{prefix}store");
    let _: () = redis::cmd("HSET")
        .arg(&key)
        .arg("format")
        .arg(9)
        .query_async(&mut c)
        .await
        .unwrap();
    is_one_line(
        &refused(server.url(), config()).await,
        Configuration,
        "format 9",
    );
    let _: () = redis::cmd("SET")
        .arg(&key)
        .arg("x")
        .query_async(&mut c)
        .await
        .unwrap();
    is_one_line(&refused(server.url(), config()).await, Corrupt, "WRONGTYPE");
}
