use std::{
    collections::BTreeMap,
    error::Error as _,
    fs, io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use passkit_server::store::{RegistrationStore, StoreError, StoreErrorKind};
use passkit_store_sled::SledStore;
use passkit_test_servers::disk::SmallDisk;
use tokio::{task::JoinSet, time::timeout};

use crate::support::{device, pass, registered, token, type_id};

const WRITERS: usize = 16;
const TIME_LIMIT: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_full_ext4_loses_nothing_and_recovers() {
    recovers("ext4").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_full_tmpfs_loses_nothing_and_recovers() {
    recovers("tmpfs").await;
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let waited = timeout(TIME_LIMIT, async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(waited.await.is_ok(), "no {what}");
}

/// Returns whether one of the error's sources says that the disk is full.
fn says_full(error: &StoreError) -> bool {
    let is_full = |error: &io::Error| error.kind() == io::ErrorKind::StorageFull;
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_is_full = match cause.downcast_ref() {
            Some(sled::Error::Io(error)) => is_full(error),
            _ => cause.downcast_ref().is_some_and(is_full),
        };
        if cause_is_full {
            return true;
        }
        next = cause.source();
    }
    false
}

async fn recovers(kind: &str) {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().join("mnt");
    fs::create_dir(&at).unwrap();
    let mounted = match kind {
        "tmpfs" => SmallDisk::mount(&at, 24),
        _ => SmallDisk::mount_ext4(&at, &folder.path().join("image"), 32),
    };
    let Some(disk) = mounted else {
        return;
    };
    let path = at.join("store");
    let store = Arc::new(SledStore::open(&path).unwrap());

    let acknowledged = Arc::new(Mutex::new(BTreeMap::<usize, Vec<String>>::new()));
    let successes: Arc<Vec<AtomicUsize>> =
        Arc::new((0..WRITERS).map(|_| AtomicUsize::new(0)).collect());
    let failures: Arc<Vec<AtomicUsize>> =
        Arc::new((0..WRITERS).map(|_| AtomicUsize::new(0)).collect());
    let causes = Arc::new(AtomicUsize::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let (store, stop) = (Arc::clone(&store), Arc::clone(&stop));
        let (acknowledged, successes) = (Arc::clone(&acknowledged), Arc::clone(&successes));
        let (failures, causes) = (Arc::clone(&failures), Arc::clone(&causes));
        writers.spawn(async move {
            let mut number = 0;
            while !stop.load(SeqCst) {
                // There are few devices, so that the store fits on its disk.
                number += 1;
                let device = device(format!("{writer}-{}", number / 30));
                let name = format!("{}", number % 30);
                let (pass, token) = (pass(&name), token());
                let register = store.register(&device, &pass, &token);
                match timeout(TIME_LIMIT, register).await.expect("register hangs") {
                    Ok(_) => {
                        acknowledged
                            .lock()
                            .unwrap()
                            .entry(writer)
                            .or_default()
                            .push(format!("{} {name}", device.as_str()));
                        successes[writer].fetch_add(1, SeqCst);
                        // The pause keeps the store from filling the disk at once.
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                    Err(error) => {
                        assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{error:?}");
                        if says_full(&error) {
                            causes.fetch_add(1, SeqCst);
                        }
                        failures[writer].fetch_add(1, SeqCst);
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                }
            }
        });
    }
    let counts = |of: &Arc<Vec<AtomicUsize>>| of.iter().map(|n| n.load(SeqCst)).collect::<Vec<_>>();
    let all_above = |of: &Arc<Vec<AtomicUsize>>, than: &[usize]| {
        of.iter().zip(than).all(|(n, t)| n.load(SeqCst) > *t)
    };

    for round in 0..3 {
        let before = counts(&successes);
        until("registrations", || all_above(&successes, &before)).await;
        let failed = counts(&failures);
        let (ballast, ballast_bytes) = disk.fill();
        until("the disk to be full", || {
            assert!(writers.len() == WRITERS);
            all_above(&failures, &failed)
        })
        .await;
        let asked = timeout(
            TIME_LIMIT,
            store.changes_since(&device("0-0"), &type_id(), None),
        )
        .await;
        if let Err(error) = asked.expect("a read hangs") {
            assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{error:?}");
        }
        // After so many failures, the store has tried to open the database again.
        let failed = counts(&failures)
            .iter()
            .map(|n| n + 150)
            .collect::<Vec<_>>();
        until("more failures", || all_above(&failures, &failed)).await;
        eprintln!(
            "{kind}, round {round}: full after {ballast_bytes} bytes of ballast, failures {:?}",
            counts(&failures)
        );

        fs::remove_file(&ballast).unwrap();
        let before = counts(&successes);
        until("recovery", || all_above(&successes, &before)).await;
    }
    assert!(
        causes.load(SeqCst) > 0,
        "no error had the full disk as its source"
    );
    stop.store(true, SeqCst);
    while let Some(ended) = writers.join_next().await {
        ended.unwrap();
    }

    let check = async |store: &SledStore| {
        let mut checked = 0;
        let all = acknowledged.lock().unwrap().clone();
        for line in all.values().flatten() {
            let (name, serial) = line.split_once(' ').unwrap();
            let found = registered(store, &device(name)).await;
            assert!(
                found.iter().any(|found| found == serial),
                "{kind}: {line} was acknowledged and is lost"
            );
            checked += 1;
        }
        checked
    };
    let checked = check(&store).await;
    drop(store);
    let store = SledStore::open(&path).unwrap();
    assert_eq!(check(&store).await, checked);
    eprintln!("{kind}: {checked} acknowledged registrations, none lost");
    drop(store);
}
