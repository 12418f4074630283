//! Import, export, counts and repair.

use std::collections::BTreeSet;

use passkit_server::{Registration, RegistrationStore as _, StoreMaintenance as _};
use passkit_store_redis::{Config, RedisStore, redis};
use passkit_test_servers::redis::{Cluster, Single};

use crate::support::{connection, device, devices_of, held, pass, prefix, token};

fn many(count: usize) -> Vec<Registration> {
    let one = |i: usize| Registration {
        device: device(format!("d{}", i % 250)),
        push_token: token(),
        pass: pass(format!("{}", i * 31 % 400)),
    };
    (0..count).map(one).collect()
}

async fn moves_in_and_out(url: &str) {
    let store = RedisStore::connect(url, Config::new().prefix(prefix())).await.unwrap();
    let other = RedisStore::connect(url, Config::new().prefix(prefix())).await.unwrap();
    other.register(&device("other"), &pass("1"), &token()).await.unwrap();
    let all = many(1_200);
    let different: BTreeSet<_> =
        all.iter().map(|one| (one.device.as_str().to_owned(), one.pass.clone())).collect();
    assert_eq!(store.register_many(&all).await.unwrap(), different.len() as u64);
    assert_eq!(store.register_many(&all).await.unwrap(), 0);
    store.unregister(&device("gone"), &pass("1")).await.unwrap();
    store.register(&device("gone"), &pass("1"), &token()).await.unwrap();
    store.unregister(&device("gone"), &pass("1")).await.unwrap();
    store.mark_updated(&pass("1").type_id, &[pass("7").serial]).await.unwrap();

    for limit in [1, 100, 5_000] {
        let mut found = BTreeSet::new();
        let mut after = None;
        loop {
            let page = store.registrations(after.as_ref(), limit).await.unwrap();
            for one in page.registrations {
                assert_eq!(one.push_token, token());
                found.insert((one.device.as_str().to_owned(), one.pass));
            }
            let Some(next) = page.next else { break };
            after = Some(next);
            if limit == 1 {
                break;
            }
        }
        assert!(limit == 1 || found == different, "{} of {}", found.len(), different.len());
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repair_brings_both_sides_in_line() {
    let server = Single::start().unwrap();
    let prefix = prefix();
    let store = RedisStore::connect(server.url(), Config::new().prefix(prefix.clone())).await.unwrap();
    store.register_many(&many(500)).await.unwrap();
    let nothing = store.repair().await.unwrap();
    assert_eq!((nothing.looked_at, nothing.removed, nothing.restored), (500, 0, 0));

    // What a process leaves that ends between the two steps of a register, and what a failover may lose.
    let mut c = connection(server.url()).await;
    // All hints of a device are in parts of one number.
    store.register(&device("ghost"), &pass("1"), &token()).await.unwrap();
    let parts: Vec<String> = redis::cmd("KEYS").arg(format!("{prefix}p*")).query_async(&mut c).await.unwrap();
    let mut number = String::new();
    for part in &parts {
        if redis::cmd("HEXISTS").arg(part).arg("ghost").query_async(&mut c).await.unwrap() {
            number = part[part.rfind(':').unwrap()..].to_owned();
        }
    }
    store.unregister(&device("ghost"), &pass("1")).await.unwrap();
    let (of_ghost, others): (Vec<_>, Vec<_>) = parts.iter().partition(|part| part.ends_with(&number));
    for part in &of_ghost[..20] {
        let _: () = redis::cmd("HSET").arg(part).arg("ghost").arg(5).query_async(&mut c).await.unwrap();
    }
    let mut lost = 0;
    for part in &others[..20] {
        let count: u64 = redis::cmd("HLEN").arg(part).query_async(&mut c).await.unwrap();
        let _: () = redis::cmd("DEL").arg(part).query_async(&mut c).await.unwrap();
        lost += count;
    }
    let repaired = store.repair().await.unwrap();
    assert_eq!((repaired.removed, repaired.restored), (20, lost));
    let again = store.repair().await.unwrap();
    assert_eq!((again.looked_at, again.removed, again.restored), (500, 0, 0));
    for one in many(500) {
        let found = devices_of(&store, &one.pass).await;
        assert!(found.contains(&one.device.as_str().to_owned()));
    }
    // A device of which only the hints were there registers as any.
    store.register(&device("ghost"), &pass("1"), &token()).await.unwrap();
    assert_eq!(held(&store, &device("ghost")).await, ["1"]);
    assert!(devices_of(&store, &pass("1")).await.contains(&"ghost".to_owned()));
}
