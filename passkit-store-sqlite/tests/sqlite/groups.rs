use std::{process::Command, sync::Arc, time::Duration};

use passkit_server::{
    Changed,
    store::{Coordination as _, Registered, RegistrationStore as _, StoreErrorKind},
};
use passkit_store_sqlite::{Config, SqliteStore, rusqlite::Connection};
use tokio::task::JoinSet;

use crate::support::{device, pass, serial, token, type_id};

/// Counts the commits in the log. Another process reads the log, because closing the file here would release SQLite's locks
/// on it.
fn commits(path: &std::path::Path) -> usize {
    let read = Command::new("cat")
        .arg(format!("{}-wal", path.display()))
        .output()
        .unwrap();
    assert!(read.status.success());
    let log = &read.stdout;
    let page_size = u32::from_be_bytes(log[8..12].try_into().unwrap()) as usize;
    // The last frame of a commit has the size of the database.
    log[32..]
        .chunks_exact(24 + page_size)
        .filter(|frame| frame[4..8] != [0; 4])
        .count()
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_wait_share_a_commit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("passkit.db");
    let patient = Config::new(&path)
        .create(true)
        .lock_timeout(Duration::from_secs(60));
    let store = Arc::new(SqliteStore::open_with(&patient).unwrap());
    store.mark(&type_id(), Changed::All).await.unwrap();
    let before = commits(&path);
    let stranger = Connection::open(&path).unwrap();
    stranger.execute_batch("begin immediate").unwrap();
    let mut calls = JoinSet::new();
    for i in 0..200 {
        let store = Arc::clone(&store);
        calls.spawn(async move {
            if i % 2 == 0 {
                store
                    .register(&device(format!("{i}")), &pass("1"), &token())
                    .await
                    .map(drop)
            } else {
                store
                    .mark(&type_id(), Changed::Passes(&[serial("1")]))
                    .await
            }
        });
    }
    // Some calls may start after the lock is free, and then commit alone.
    tokio::time::sleep(Duration::from_millis(200)).await;
    stranger.execute_batch("rollback").unwrap();
    for result in calls.join_all().await {
        result.unwrap();
    }
    let commits = commits(&path) - before;
    assert!(commits < 100, "200 calls took {commits} commits");
    assert_eq!(store.count_devices(&pass("1"), 999).await.unwrap(), 100);
}

/// Triggers make one change fail. One of them rolls back the whole transaction.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_fails_takes_no_other_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("passkit.db");
    let patient = Config::new(&path)
        .create(true)
        .lock_timeout(Duration::from_secs(60));
    let store = Arc::new(SqliteStore::open_with(&patient).unwrap());
    let stranger = Connection::open(&path).unwrap();
    stranger
        .execute_batch(
            "create trigger a before insert on passkit_note when new.name = 'abort'
                begin select raise(abort, 'no'); end;
            create trigger b before insert on passkit_note when new.name = 'rollback'
                begin select raise(rollback, 'no'); end;
            begin immediate",
        )
        .unwrap();
    let (mut failing, mut others) = (JoinSet::new(), JoinSet::new());
    for i in 0..60 {
        let store = Arc::clone(&store);
        if i % 10 == 5 {
            let name = if i % 20 == 5 { "abort" } else { "rollback" };
            failing.spawn(async move { store.replace_note(name, None, Some("a")).await });
        } else {
            others.spawn(async move {
                store
                    .register(&device(format!("{i}")), &pass("1"), &token())
                    .await
            });
        }
    }
    // Because of the lock, the calls form a group. The result must be the same if they don't.
    tokio::time::sleep(Duration::from_millis(200)).await;
    stranger.execute_batch("rollback").unwrap();
    for result in failing.join_all().await {
        let error = result.unwrap_err();
        assert_eq!(
            (error.kind(), error.is_transient()),
            (StoreErrorKind::Other, false),
            "{error:?}"
        );
    }
    for result in others.join_all().await {
        assert_eq!(result.unwrap(), Registered::Created);
    }
    assert_eq!(store.count_devices(&pass("1"), 999).await.unwrap(), 54);
    assert_eq!(store.note("abort").await.unwrap(), None);
}
