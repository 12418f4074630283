use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
};

use passkit_server::{
    Changed,
    maintenance::StoreMaintenance as _,
    store::{RegistrationStore as _, StoreErrorKind},
};
use passkit_store_sqlite::SqliteStore;
use tokio::task::JoinSet;

use crate::support::{device, pass, serial, text, token, type_id};

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_made_under_load_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(SqliteStore::create(folder.path().join("passkit.db")).unwrap());
    let stop = Arc::new(AtomicBool::new(false));
    let acknowledged = Arc::new(AtomicU64::new(0));
    let mut writers = JoinSet::new();
    for writer in 0..8 {
        let (store, stop, acknowledged) = (
            Arc::clone(&store),
            Arc::clone(&stop),
            Arc::clone(&acknowledged),
        );
        writers.spawn(async move {
            for i in 0_u64.. {
                // One mark of two passes. A copy must have it for both or for neither.
                let pair = [serial(format!("{writer}-a")), serial(format!("{writer}-b"))];
                store
                    .mark(&type_id(), Changed::Passes(&pair))
                    .await
                    .unwrap();
                let phone = device(format!("{writer}-{i}"));
                store
                    .register(&phone, &pass(format!("{i}")), &token())
                    .await
                    .unwrap();
                acknowledged.fetch_add(1, SeqCst);
                if stop.load(SeqCst) {
                    break;
                }
            }
        });
    }
    for round in 0..5 {
        let path = folder.path().join(format!("{round}.db"));
        while acknowledged.load(SeqCst) < 50 * (round + 1) {
            tokio::task::yield_now().await;
        }
        let before = acknowledged.load(SeqCst);
        store.backup(&path).await.unwrap();
        let copy = SqliteStore::open(&path).unwrap();
        let stats = copy.stats().await.unwrap();
        assert!(stats.devices >= before, "{stats:?}");
        assert_eq!(stats.devices, stats.types[0].registrations);
        for writer in 0..8 {
            let a = copy.pass_state(&pass(format!("{writer}-a"))).await.unwrap();
            let b = copy.pass_state(&pass(format!("{writer}-b"))).await.unwrap();
            assert_eq!(a.version, b.version);
        }
    }
    stop.store(true, SeqCst);
    writers.join_all().await;
}

#[tokio::test]
async fn a_copy_is_one_file_and_replaces_none() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::create(folder.path().join("passkit.db")).unwrap();
    store
        .register(&device("a"), &pass("1"), &token())
        .await
        .unwrap();
    let copies = folder.path().join("copies");
    fs::create_dir(&copies).unwrap();
    store.backup(copies.join("copy.db")).await.unwrap();
    let names: Vec<_> = fs::read_dir(&copies)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names, ["copy.db"]);

    let error = store.backup(copies.join("copy.db")).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Configuration);
    assert!(
        text(&error).ends_with("copy.db exists; remove it or name another file"),
        "{error:?}"
    );
    let error = store.backup(copies.join("none/copy.db")).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Configuration);
    assert_eq!(fs::read_dir(&copies).unwrap().count(), 1);
}
