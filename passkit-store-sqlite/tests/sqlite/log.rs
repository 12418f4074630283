use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use passkit_server::{
    identifiers::SerialNumber,
    store::{Changed, RegistrationStore as _},
};
use passkit_store_sqlite::{SqliteStore, rusqlite::Connection};
use tokio::task::JoinSet;

use crate::support::{device, pass, serial, token, type_id};

const PASSES: usize = 20_000;

/// Each mark writes a large part of the database again, while readers are active all the time. If the log never started over,
/// it would grow to about 400 MiB.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_log_stays_small_under_load() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("passkit.db");
    let size = || fs::metadata(format!("{}-wal", path.display())).map_or(0, |log| log.len() >> 20);
    let store = Arc::new(SqliteStore::create(&path).unwrap());
    store
        .register(&device("a"), &pass("1"), &token())
        .await
        .unwrap();
    let serials: Vec<SerialNumber> = (0..PASSES).map(|i| serial(format!("{i:0100}"))).collect();
    store
        .mark(&type_id(), Changed::Passes(&serials))
        .await
        .unwrap();

    let stop = Arc::new(AtomicBool::new(false));
    let mut readers = JoinSet::new();
    for _ in 0..8 {
        let (store, stop) = (Arc::clone(&store), Arc::clone(&stop));
        readers.spawn(async move {
            while !stop.load(SeqCst) {
                store
                    .changes_since(&device("a"), &type_id(), None)
                    .await
                    .unwrap();
            }
        });
    }
    let mut largest = 0;
    for i in 0..160 {
        // Marks every fortieth pass, so that every page of the database changes.
        let some: Vec<_> = serials.iter().skip(i % 40).step_by(40).cloned().collect();
        store
            .mark(&type_id(), Changed::Passes(&some))
            .await
            .unwrap();
        largest = largest.max(size());
    }
    stop.store(true, SeqCst);
    readers.join_all().await;
    eprintln!("the log had at most {largest} MiB");
    assert!(largest < 150, "the log has grown to {largest} MiB");
}

/// A long read keeps the log from starting over. The log grows, and writing goes on.
#[tokio::test]
async fn a_long_read_stops_no_writer() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("passkit.db");
    let store = SqliteStore::create(&path).unwrap();
    let serials: Vec<SerialNumber> = (0..PASSES).map(|i| serial(format!("{i:0100}"))).collect();
    store
        .mark(&type_id(), Changed::Passes(&serials))
        .await
        .unwrap();
    let reader = Connection::open(&path).unwrap();
    reader.execute_batch("begin").unwrap();
    let before: i64 = reader
        .query_row("select max(version) from passkit_pass", [], |row| {
            row.get(0)
        })
        .unwrap();
    for _ in 0..40 {
        store
            .mark(&type_id(), Changed::Passes(&serials))
            .await
            .unwrap();
    }
    let still: i64 = reader
        .query_row("select max(version) from passkit_pass", [], |row| {
            row.get(0)
        })
        .unwrap();
    assert_eq!(still, before, "the snapshot of the reader");
    reader.execute_batch("commit").unwrap();
    store
        .mark(&type_id(), Changed::Passes(&serials))
        .await
        .unwrap();
}
