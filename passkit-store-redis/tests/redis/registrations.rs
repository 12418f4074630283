//! Compares the indexes of passes and types with the registrations of devices.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, SystemTime},
};

use passkit_server::{
    identifiers::PushToken,
    maintenance::{Registration, StoreMaintenance as _},
    store::{Audience, Registered, RegistrationStore as _},
};
use passkit_store_redis::{Config, RedisStore, redis};
use passkit_test_servers::redis::{Cluster, Single};
use tokio::task::JoinSet;

use crate::support::{
    connection, device, devices_of, devices_of_type, pass, prefix, registered, token, type_id,
};

/// Two processes register and unregister the same registration at once. In the end, registration and index entry either both
/// exist or both don't.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_existing_registration_is_found_from_its_pass() {
    let server = Single::start().unwrap();
    let prefix = prefix();
    let open = || RedisStore::connect(server.url(), Config::new().prefix(prefix.clone()));
    let stores = [open().await.unwrap(), open().await.unwrap()];
    let mut standing = 0;
    for round in 0..400_usize {
        let me = device(format!("d{}", round % 7));
        let one = pass("1");
        let mut tasks = JoinSet::new();
        for caller in 0..2 + round % 5 {
            let (store, me, one) = (stores[caller % 2].clone(), me.clone(), one.clone());
            tasks.spawn(async move {
                for _ in 0..(round + caller) % 3 {
                    tokio::task::yield_now().await;
                }
                // In some rounds, all tasks make the same call.
                if round % 8 == 0 || (round % 8 != 1 && (caller + round / 7) % 2 == 0) {
                    store.register(&me, &one, &token()).await.map(drop)
                } else {
                    store.unregister(&me, &one).await.map(drop)
                }
            });
        }
        tasks
            .join_all()
            .await
            .into_iter()
            .collect::<Result<(), _>>()
            .unwrap();
        let on_device = !registered(&stores[0], &me).await.is_empty();
        let on_pass = devices_of(&stores[0], &one)
            .await
            .contains(&me.as_str().to_owned());
        assert_eq!(on_device, on_pass, "round {round}");
        standing += usize::from(on_device);
    }
    assert!((50..=350).contains(&standing), "{standing} of 400 stood");
}

/// Two processes register, unregister and forget several passes of a device at once. The device is in the index of the type
/// while it has one of the passes.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_device_is_in_the_index_of_its_type_until_its_last_pass_is_removed() {
    let server = Single::start().unwrap();
    let prefix = prefix();
    let open = || RedisStore::connect(server.url(), Config::new().prefix(prefix.clone()));
    let stores = [open().await.unwrap(), open().await.unwrap()];
    let far = SystemTime::now() + Duration::from_secs(86_400);
    let mut standing = 0;
    for round in 0..400_usize {
        let me = device(format!("d{}", round % 5));
        let mut tasks = JoinSet::new();
        for caller in 0..3 + round % 4 {
            let (store, me) = (stores[caller % 2].clone(), me.clone());
            let one = pass((caller % 3).to_string());
            tasks.spawn(async move {
                for _ in 0..(round + caller) % 3 {
                    tokio::task::yield_now().await;
                }
                // In some rounds, all tasks make the same call for all passes.
                let choice = match round % 8 {
                    0 => 0,
                    1 => 6,
                    _ => (caller + round / 5) % 7,
                };
                match choice {
                    0 | 2 | 5 => store.register(&me, &one, &token()).await.map(drop),
                    6 => store.forget_device(&me, far).await.map(drop),
                    _ => store.unregister(&me, &one).await.map(drop),
                }
            });
        }
        tasks
            .join_all()
            .await
            .into_iter()
            .collect::<Result<(), _>>()
            .unwrap();
        let of_device = registered(&stores[0], &me).await;
        let on_type = devices_of_type(&stores[0])
            .await
            .contains(&me.as_str().to_owned());
        assert_eq!(!of_device.is_empty(), on_type, "round {round}");
        for serial in ["0", "1", "2"] {
            let on_pass = devices_of(&stores[0], &pass(serial))
                .await
                .contains(&me.as_str().to_owned());
            assert_eq!(
                of_device.contains(&serial.to_owned()),
                on_pass,
                "round {round}"
            );
        }
        standing += usize::from(on_type);
    }
    assert!((50..=350).contains(&standing), "{standing} of 400 stood");

    // When no registration is left, no index has an entry.
    for number in 0..5 {
        for serial in ["0", "1", "2"] {
            stores[1]
                .unregister(&device(format!("d{number}")), &pass(serial))
                .await
                .unwrap();
        }
    }
    assert_eq!(entries(server.url(), &prefix).await, 0);
}

/// Returns the number of entries in all indexes.
async fn entries(url: &str, prefix: &str) -> u64 {
    let mut c = connection(url).await;
    let mut count = 0;
    for kind in ["p", "y"] {
        let parts: Vec<String> = redis::cmd("KEYS")
            .arg(format!("{prefix}{kind}{{*"))
            .query_async(&mut c)
            .await
            .unwrap();
        for part in parts {
            count += redis::cmd("HLEN")
                .arg(part)
                .query_async::<u64>(&mut c)
                .await
                .unwrap();
        }
    }
    count
}

/// If a process ends in the middle of a call, it leaves at worst a superfluous entry. The next call removes it.
#[tokio::test]
async fn the_next_call_removes_entries_that_an_interrupted_call_left() {
    let server = Single::start().unwrap();
    let prefix = prefix();
    let store = RedisStore::connect(server.url(), Config::new().prefix(prefix.clone()))
        .await
        .unwrap();
    let (me, one) = (device("d"), pass("1"));
    store.register(&me, &one, &token()).await.unwrap();
    assert_eq!(entries(server.url(), &prefix).await, 2);
    // This leaves the state of an unregister that stopped after its first step.
    let mut c = connection(server.url()).await;
    let key = format!("{prefix}d{{d}}");
    for field in [
        format!("{}/1", type_id()),
        type_id().to_string(),
        "t".to_owned(),
    ] {
        let gone: bool = redis::cmd("HDEL")
            .arg(&key)
            .arg(field)
            .query_async(&mut c)
            .await
            .unwrap();
        assert!(gone);
    }
    assert!(devices_of(&store, &one).await.is_empty() && devices_of_type(&store).await.is_empty());
    assert!(!store.unregister(&me, &one).await.unwrap());
    assert_eq!(entries(server.url(), &prefix).await, 0);

    // Another pass of the type keeps the entry of the type.
    store.register(&me, &pass("2"), &token()).await.unwrap();
    assert!(!store.unregister(&me, &one).await.unwrap());
    assert_eq!(devices_of_type(&store).await, ["d"]);
    assert_eq!(store.count_devices(&pass("2"), 10).await.unwrap(), 1);
    assert_eq!(store.count_devices(&pass("2"), 0).await.unwrap(), 0);
}

async fn types_are_apart(url: &str) {
    let store = RedisStore::connect(url, Config::new().prefix(prefix()))
        .await
        .unwrap();
    // A push token may contain the separator of other values.
    let odd = PushToken::new("cMv:APA91b:{}:{7}/-_,").unwrap();
    let other = passkit_server::PassId::new("pass.com.example.ticket2", "1").unwrap();
    let mut all = Vec::new();
    for i in 0..300 {
        for pass in [pass((i % 7).to_string()), pass("x"), other.clone()] {
            all.push(Registration {
                device: device(format!("d{i}")),
                push_token: token(),
                pass,
            });
        }
    }
    // If one call has several tokens for a device, the last one counts.
    all.push(Registration {
        device: device("d7"),
        push_token: odd.clone(),
        pass: pass("x"),
    });
    assert_eq!(store.register_many(&all).await.unwrap(), 900);
    assert_eq!(
        store
            .register(&device("d7"), &pass("y"), &odd)
            .await
            .unwrap(),
        Registered::Created
    );
    assert_eq!(devices_of_type(&store).await.len(), 300);
    let mut after = None;
    let mut tokens = Vec::new();
    loop {
        let page = store
            .devices(Audience::Type(&type_id()), after.as_ref(), 7)
            .await
            .unwrap();
        tokens.extend(
            page.items
                .into_iter()
                .filter(|one| one.device == device("d7"))
                .map(|one| one.push_token),
        );
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(tokens, [odd]);
    for i in 0..300 {
        assert!(
            store
                .unregister(&device(format!("d{i}")), &pass("x"))
                .await
                .unwrap()
        );
    }
    assert_eq!(devices_of_type(&store).await.len(), 300);
    for i in 0..300 {
        assert!(
            store
                .unregister(&device(format!("d{i}")), &pass((i % 7).to_string()))
                .await
                .unwrap()
        );
    }
    assert_eq!(devices_of_type(&store).await, ["d7"]);
    assert_eq!(
        crate::support::devices(&store, Audience::Type(&other.type_id))
            .await
            .len(),
        300
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_node_keeps_types_apart() {
    let server = Single::start().unwrap();
    types_are_apart(server.url()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cluster_keeps_types_apart() {
    let servers = Cluster::start().unwrap();
    types_are_apart(&servers.url()).await;
}

/// A device that stays registered is on the pages, even if others come and go and parts of the index grow.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn pages_miss_no_device_that_stays() {
    let server = Single::start().unwrap();
    let config = Config::new().prefix(prefix());
    let store = RedisStore::connect(server.url(), config).await.unwrap();
    let one = pass("1");
    let staying: BTreeSet<String> = (0..300).map(|i| format!("stays-{i}")).collect();
    for name in &staying {
        store.register(&device(name), &one, &token()).await.unwrap();
    }
    let stop = Arc::new(AtomicBool::new(false));
    let mut tasks = JoinSet::new();
    for task in 0..3_usize {
        let (store, stop, one) = (store.clone(), Arc::clone(&stop), one.clone());
        tasks.spawn(async move {
            // These are enough devices to change the encoding of some parts.
            for i in 0.. {
                if stop.load(SeqCst) {
                    break;
                }
                let comes = device(format!("comes-{task}-{}", i % 2_000));
                store.register(&comes, &one, &token()).await.unwrap();
                let stays = device(format!("stays-{}", (i * 7 + task) % 300));
                store.register(&stays, &one, &token()).await.unwrap();
                if i % 3 == 0 {
                    store.unregister(&comes, &one).await.unwrap();
                }
            }
        });
    }
    for (round, audience) in (0..12).zip(
        [Audience::Pass(&one), Audience::Type(&one.type_id)]
            .into_iter()
            .cycle(),
    ) {
        let mut seen = BTreeSet::new();
        let mut after = None;
        loop {
            let limit = 9 + round * 12;
            let page = store
                .devices(audience, after.as_ref(), limit)
                .await
                .unwrap();
            seen.extend(
                page.items
                    .into_iter()
                    .map(|found| found.device.as_str().to_owned()),
            );
            let Some(next) = page.next else { break };
            after = Some(next);
        }
        assert!(
            staying.is_subset(&seen),
            "missing {:?}",
            staying.difference(&seen).next()
        );
    }
    stop.store(true, SeqCst);
    tasks.join_all().await;
}
