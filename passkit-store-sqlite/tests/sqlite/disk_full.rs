use std::{fs, sync::Arc, time::Duration};

use passkit_server::store::{RegistrationStore as _, StoreErrorKind};
use passkit_store_sqlite::{SqliteStore, rusqlite::ErrorCode};
use passkit_test_servers::disk::SmallDisk;
use tokio::task::JoinSet;

use crate::support::{device, pass, registered, sqlite_code, text, token};

const WRITERS: usize = 16;
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_full_disk_loses_nothing_and_recovers() {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(folder.path(), 24) else {
        return;
    };
    let path = folder.path().join("passkit.db");
    let store = Arc::new(SqliteStore::create(&path).unwrap());
    store
        .register(&device("first"), &pass("1"), &token())
        .await
        .unwrap();
    let (ballast, _) = disk.fill();

    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let store = Arc::clone(&store);
        writers.spawn(async move {
            let mut acknowledged = Vec::new();
            loop {
                let name = format!("{:06}", acknowledged.len());
                match store
                    .register(&device(format!("{writer}")), &pass(&name), &token())
                    .await
                {
                    Ok(_) => acknowledged.push(name),
                    Err(error) => {
                        assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{error:?}");
                        let code = sqlite_code(&error);
                        assert!(
                            matches!(code, ErrorCode::DiskFull | ErrorCode::SystemIoFailure),
                            "{error:?}"
                        );
                        return (writer, acknowledged);
                    }
                }
            }
        });
    }
    let results = tokio::time::timeout(PATIENCE, writers.join_all())
        .await
        .expect("the writers end when the disk is full");
    assert_eq!(
        registered(&*store, &device("first")).await,
        ["1"],
        "reading goes on"
    );

    fs::remove_file(&ballast).unwrap();
    store
        .register(&device("first"), &pass("2"), &token())
        .await
        .unwrap();
    drop(store);
    let store = SqliteStore::open(&path).unwrap();
    assert_eq!(registered(&store, &device("first")).await, ["1", "2"]);
    for (writer, acknowledged) in results {
        let found = registered(&store, &device(format!("{writer}"))).await;
        for name in acknowledged {
            assert!(found.contains(&name), "{name} is lost");
        }
    }
}

#[tokio::test]
async fn a_read_only_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(folder.path(), 24) else {
        return;
    };
    let path = folder.path().join("passkit.db");
    drop(SqliteStore::create(&path).unwrap());
    // The system may take a moment to close the files of the store.
    while !disk.remount("ro") {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let error = SqliteStore::open(&path).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Configuration);
    let expected =
        "passkit.db can't be written to; give this user the right to write it and its folder";
    assert!(text(&error).ends_with(expected), "{error:?}");
    assert!(disk.remount("rw"));
    SqliteStore::open(&path)
        .unwrap()
        .register(&device("a"), &pass("1"), &token())
        .await
        .unwrap();
}
