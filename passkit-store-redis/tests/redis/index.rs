//! The devices of a pass beside the passes of a device.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use passkit_server::RegistrationStore as _;
use passkit_store_redis::{Config, RedisStore};
use passkit_test_servers::redis::Single;
use tokio::task::JoinSet;

use crate::support::{device, devices_of, held, pass, prefix, token};

/// However registers and unregisters of one registration meet, in two processes, what stands in the end stands on both
/// sides.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_registration_that_stands_is_found_from_its_pass() {
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
                if (caller + round / 7) % 2 == 0 {
                    store.register(&me, &one, &token()).await.map(drop)
                } else {
                    store.unregister(&me, &one).await.map(drop)
                }
            });
        }
        tasks.join_all().await.into_iter().collect::<Result<(), _>>().unwrap();
        let on_device = !held(&stores[0], &me).await.is_empty();
        let on_pass = devices_of(&stores[0], &one).await.contains(&me.as_str().to_owned());
        assert_eq!(on_device, on_pass, "round {round}");
        standing += usize::from(on_device);
    }
    assert!((20..400).contains(&standing), "{standing} of 400 stood");
}

/// Devices that stay are in the pages while others come and go, and while small parts grow large.
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
            // Enough that some parts change their encoding.
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
    for round in 0..12 {
        let mut seen = BTreeSet::new();
        let mut after = None;
        loop {
            let page = store.devices_of(&one, after.as_ref(), 9 + round * 12).await.unwrap();
            seen.extend(page.devices.into_iter().map(|found| found.device.as_str().to_owned()));
            let Some(next) = page.next else { break };
            after = Some(next);
        }
        assert!(staying.is_subset(&seen), "missing {:?}", staying.difference(&seen).next());
    }
    stop.store(true, SeqCst);
    tasks.join_all().await;
}
