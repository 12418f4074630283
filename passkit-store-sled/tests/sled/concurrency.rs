use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
};

use passkit_server::{
    PassState,
    store::{Audience, Registered, RegistrationStore},
};
use passkit_store_sled::SledStore;
use tokio::task::JoinSet;

use crate::support::{device, devices, mark, pass, registered, serial, token, type_id};

const PASSES: usize = 200;
const MARKS: usize = 150;

/// Sixteen writers mark two hundred passes while devices ask for changes all the time. In the end every device has the newest
/// version of every pass, and its list is empty.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_device_ends_with_an_old_pass() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(SledStore::open(folder.path()).unwrap());
    let mut phones = JoinSet::new();
    let done = Arc::new(AtomicBool::new(false));
    // The first two devices have a few passes, the others have all of them.
    for (name, step) in [("a", 40), ("b", 25), ("c", 1), ("d", 1)] {
        let device = device(name);
        for i in (0..PASSES).step_by(step) {
            store
                .register(&device, &pass(i.to_string()), &token())
                .await
                .unwrap();
        }
        let (store, done) = (Arc::clone(&store), Arc::clone(&done));
        phones.spawn(async move {
            let mut tag = None;
            let mut has: HashMap<String, PassState> = HashMap::new();
            let mut fetched = 0;
            loop {
                let last_round = done.load(SeqCst);
                let changes = store.changes_since(&device, &type_id(), tag).await.unwrap();
                let unique = changes.serials.iter().collect::<BTreeSet<_>>();
                assert_eq!(unique.len(), changes.serials.len(), "a serial number twice");
                if !changes.serials.is_empty() {
                    if let Some(asked) = tag {
                        assert_ne!(asked, changes.tag, "serials with the tag of the question");
                        assert!(changes.tag.type_version >= asked.type_version);
                        assert!(changes.tag.device_version >= asked.device_version);
                    }
                    tag = Some(changes.tag);
                }
                for serial in &changes.serials {
                    fetched += 1;
                    let state = store.pass_state(&pass(serial.as_str())).await.unwrap();
                    if let Some(old) = has.insert(serial.as_str().to_owned(), state) {
                        assert!(
                            state.version >= old.version
                                && state.last_modified >= old.last_modified
                        );
                    }
                }
                if last_round {
                    let quiet = store.changes_since(&device, &type_id(), tag).await.unwrap();
                    assert!(quiet.serials.is_empty(), "{} again", quiet.serials.len());
                    return (name, step, has, fetched);
                }
                // Answers from memory don't yield. Without this pause, the four devices would keep all threads busy, and the
                // writers could not run.
                tokio::task::yield_now().await;
            }
        });
    }
    let mut writers = JoinSet::new();
    for writer in 0..16_usize {
        let store = Arc::clone(&store);
        writers.spawn(async move {
            for i in 0..MARKS {
                let number = (i * 7919 + writer * 104_729) % PASSES;
                let serials = [
                    serial(number.to_string()),
                    serial(((number + 1) % PASSES).to_string()),
                ];
                mark(&store, &serials[..1 + i % 2]).await;
            }
        });
    }
    while let Some(ended) = writers.join_next().await {
        ended.unwrap();
    }
    done.store(true, SeqCst);
    while let Some(ended) = phones.join_next().await {
        let (name, step, has, fetched) = ended.unwrap();
        assert!(fetched >= PASSES / step);
        for i in (0..PASSES).step_by(step) {
            let now = store.pass_state(&pass(i.to_string())).await.unwrap();
            assert_eq!(has[&i.to_string()], now, "device {name} is stale");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_of_several_parallel_registrations_creates() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(SledStore::open(folder.path()).unwrap());
    for round in 0..30 {
        let mut tasks = JoinSet::new();
        for _ in 0..16 {
            let store = Arc::clone(&store);
            tasks.spawn(async move {
                store
                    .register(&device("d"), &pass(format!("{round}")), &token())
                    .await
            });
        }
        let results = tasks.join_all().await;
        let created = results
            .iter()
            .filter(|r| matches!(r, Ok(Registered::Created)))
            .count();
        let existing = results
            .iter()
            .filter(|r| matches!(r, Ok(Registered::Existing)))
            .count();
        assert_eq!((created, existing), (1, 15));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn pages_do_not_miss_a_device_that_stays() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(SledStore::open(folder.path()).unwrap());
    let staying = (0..300)
        .map(|i| format!("{i:04}-stays"))
        .collect::<BTreeSet<_>>();
    let mut tasks = JoinSet::new();
    for name in staying.clone() {
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            store
                .register(&device(name), &pass("1"), &token())
                .await
                .unwrap()
        });
    }
    tasks.join_all().await;

    let stop = Arc::new(AtomicBool::new(false));
    let changes = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    for task in 0..8_usize {
        let (store, stop, changes) = (Arc::clone(&store), Arc::clone(&stop), Arc::clone(&changes));
        tasks.spawn(async move {
            let mut i = task;
            while !stop.load(SeqCst) {
                i += 8;
                let comes = device(format!("{:04}-comes", i % 300));
                store.register(&comes, &pass("1"), &token()).await.unwrap();
                // A device that stays may register again.
                let stays = device(format!("{:04}-stays", (i * 7) % 300));
                store.register(&stays, &pass("1"), &token()).await.unwrap();
                store.unregister(&comes, &pass("1")).await.unwrap();
                changes.fetch_add(1, SeqCst);
            }
        });
    }
    let mut rounds = 0;
    while rounds < 20 || changes.load(SeqCst) < 500 {
        rounds += 1;
        let mut seen = BTreeSet::new();
        let mut after = None;
        loop {
            let audience = Audience::Pass(&pass("1"));
            let page = store
                .devices(audience, after.as_ref(), 7 + rounds % 5)
                .await
                .unwrap();
            for found in page.items {
                let fresh = seen.insert(found.device.as_str().to_owned());
                assert!(fresh, "a device twice");
                assert_eq!(found.push_token, token());
            }
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

/// A call that is dropped happens completely or not at all.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn dropped_calls_happen_completely_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(SledStore::open(folder.path()).unwrap());
    let mut tasks = JoinSet::new();
    for i in 0..400_usize {
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            let (device, pass, token) = (device(format!("{i}")), pass(format!("{i}")), token());
            let register = store.register(&device, &pass, &token);
            tokio::select! {
                biased;
                _ = register => {}
                () = async { for _ in 0..i % 5 { tokio::task::yield_now().await } } => {}
            }
        });
    }
    tasks.join_all().await;
    drop(store);
    let store = SledStore::open(folder.path()).unwrap();
    let mut there = 0;
    for i in 0..400 {
        let listed = registered(&store, &device(format!("{i}"))).await;
        let paged = devices(&store, &pass(format!("{i}"))).await;
        assert_eq!(listed.len(), paged.len(), "half a registration");
        there += listed.len();
    }
    assert!(there > 0);
}
