//! Import, export, counts and repair.

use std::collections::BTreeSet;

use passkit_server::{
    maintenance::{Registration, StoreMaintenance as _},
    store::RegistrationStore as _,
};
use passkit_store_redis::{Config, RedisStore, redis};
use passkit_test_servers::redis::{Cluster, Single};

use crate::support::{
    connection, device, devices_of, devices_of_type, mark, pass, prefix, registered, token,
};

fn many(count: usize) -> Vec<Registration> {
    let one = |i: usize| Registration {
        device: device(format!("d{}", i % 250)),
        push_token: token(),
        pass: pass(format!("{}", i * 31 % 400)),
    };
    (0..count).map(one).collect()
}

async fn moves_in_and_out(url: &str) {
    let store = RedisStore::connect(url, Config::new().prefix(prefix()))
        .await
        .unwrap();
    let other = RedisStore::connect(url, Config::new().prefix(prefix()))
        .await
        .unwrap();
    other
        .register(&device("other"), &pass("1"), &token())
        .await
        .unwrap();
    let all = many(1_200);
    let different: BTreeSet<_> = all
        .iter()
        .map(|one| (one.device.as_str().to_owned(), one.pass.clone()))
        .collect();
    assert_eq!(
        store.register_many(&all).await.unwrap(),
        different.len() as u64
    );
    assert_eq!(store.register_many(&all).await.unwrap(), 0);
    store.unregister(&device("gone"), &pass("1")).await.unwrap();
    store
        .register(&device("gone"), &pass("1"), &token())
        .await
        .unwrap();
    store.unregister(&device("gone"), &pass("1")).await.unwrap();
    mark(&store, &[pass("7").serial]).await.unwrap();

    for limit in [1, 100, 5_000] {
        let mut found = BTreeSet::new();
        let mut after = None;
        loop {
            let page = store.registrations(after.as_ref(), limit).await.unwrap();
            for one in page.items {
                assert_eq!(one.push_token, token());
                found.insert((one.device.as_str().to_owned(), one.pass));
            }
            let Some(next) = page.next else { break };
            after = Some(next);
            if limit == 1 {
                break;
            }
        }
        assert!(
            limit == 1 || found == different,
            "{} of {}",
            found.len(),
            different.len()
        );
    }
    let stats = store.stats().await.unwrap();
    assert_eq!(stats.devices, 250);
    assert_eq!(stats.types.len(), 1);
    assert_eq!(stats.types[0].passes, 400);
    assert_eq!(stats.types[0].registrations, different.len() as u64);
    assert!(stats.storage_bytes.is_some_and(|bytes| bytes > 10_000));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_node_moves_in_and_out() {
    let server = Single::start().unwrap();
    moves_in_and_out(server.url()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cluster_moves_in_and_out() {
    let servers = Cluster::start().unwrap();
    moves_in_and_out(&servers.url()).await;
}

/// A process that ends in the middle of a call leaves superfluous entries. A failover may lose entries.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repair_brings_both_indexes_in_line() {
    let server = Single::start().unwrap();
    let prefix = prefix();
    let store = RedisStore::connect(server.url(), Config::new().prefix(prefix.clone()))
        .await
        .unwrap();
    store.register_many(&many(500)).await.unwrap();
    // There is an entry for each registration, and one for each device in the index of the type.
    let nothing = store.repair().await.unwrap();
    assert_eq!(
        (nothing.checked, nothing.removed, nothing.restored),
        (750, 0, 0)
    );

    let mut c = connection(server.url()).await;
    let mut parts = Vec::new();
    for kind in ["p", "y"] {
        let of_kind: Vec<String> = redis::cmd("KEYS")
            .arg(format!("{prefix}{kind}{{*"))
            .query_async(&mut c)
            .await
            .unwrap();
        parts.push(of_kind);
    }
    let (mut added, mut lost) = (0, 0);
    for of_kind in &parts {
        for (at, part) in of_kind.iter().enumerate().take(20) {
            if at % 2 == 0 {
                let count: u64 = redis::cmd("HLEN")
                    .arg(part)
                    .query_async(&mut c)
                    .await
                    .unwrap();
                let _: () = redis::cmd("DEL")
                    .arg(part)
                    .query_async(&mut c)
                    .await
                    .unwrap();
                lost += count;
            }
        }
    }
    // All entries of a device are in the part with the same number.
    store
        .register(&device("ghost"), &pass("1"), &token())
        .await
        .unwrap();
    let mut of_ghost = Vec::new();
    for (kind, of_kind) in ["p", "y"].iter().zip(&parts) {
        let now: Vec<String> = redis::cmd("KEYS")
            .arg(format!("{prefix}{kind}{{*"))
            .query_async(&mut c)
            .await
            .unwrap();
        for part in &now {
            if redis::cmd("HEXISTS")
                .arg(part)
                .arg("ghost")
                .query_async(&mut c)
                .await
                .unwrap()
            {
                let number = part[part.rfind(':').unwrap()..].to_owned();
                of_ghost.extend(
                    now.iter()
                        .chain(of_kind)
                        .filter(|part| part.ends_with(&number))
                        .cloned(),
                );
            }
        }
    }
    store
        .unregister(&device("ghost"), &pass("1"))
        .await
        .unwrap();
    of_ghost.sort();
    of_ghost.dedup();
    assert!(
        of_ghost
            .iter()
            .any(|part| part.starts_with(&format!("{prefix}y")))
    );
    for part in of_ghost {
        added += redis::cmd("HSET")
            .arg(&part)
            .arg("ghost")
            .arg(5)
            .query_async::<u64>(&mut c)
            .await
            .unwrap();
    }
    let repaired = store.repair().await.unwrap();
    assert_eq!((repaired.removed, repaired.restored), (added, lost));
    let again = store.repair().await.unwrap();
    assert_eq!((again.checked, again.removed, again.restored), (750, 0, 0));
    for one in many(500) {
        let found = devices_of(&store, &one.pass).await;
        assert!(found.contains(&one.device.as_str().to_owned()));
    }
    assert_eq!(devices_of_type(&store).await.len(), 250);
    // A device that had only entries can register.
    store
        .register(&device("ghost"), &pass("1"), &token())
        .await
        .unwrap();
    assert_eq!(registered(&store, &device("ghost")).await, ["1"]);
    assert!(
        devices_of(&store, &pass("1"))
            .await
            .contains(&"ghost".to_owned())
    );
    assert!(devices_of_type(&store).await.contains(&"ghost".to_owned()));
}
