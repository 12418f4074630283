use bytes::Bytes;
use passkit_server::{
    PassId,
    store::{ArchiveStore as _, Changed, Content, RegistrationStore as _},
};
use passkit_store_sqlite::{SqliteStore, rusqlite::Connection};

use crate::support::{pass, serial, type_id};

async fn put(store: &SqliteStore, pass: &PassId, digest: u8) {
    let archive = Bytes::from(vec![digest; 1_000]);
    store
        .put_archive(pass, &[digest; 32], archive)
        .await
        .unwrap();
}

/// Returns the digests of the archives of a pass.
async fn kept(store: &SqliteStore, pass: &PassId) -> Vec<u8> {
    let mut kept = Vec::new();
    for digest in 0..10 {
        let archive = store.archive(pass, &[digest; 32]).await.unwrap();
        kept.extend(archive.map(|_| digest));
    }
    kept
}

#[tokio::test(flavor = "multi_thread")]
async fn only_old_archives_that_are_not_published_are_removed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("passkit.db");
    let store = SqliteStore::create(&path).unwrap();
    for digest in 1..=4 {
        put(&store, &pass("1"), digest).await;
        put(&store, &pass("2"), digest).await;
    }
    let published = Content {
        serial: serial("1"),
        digest: Some([2; 32]),
        tokens: Vec::new(),
    };
    store
        .mark(&type_id(), Changed::Contents(&[published]))
        .await
        .unwrap();
    let age = "update passkit_archive set put_at = put_at - case digest
        when x'0404040404040404040404040404040404040404040404040404040404040404' then 3500000000 else 3600000001 end";
    let connection = Connection::open(&path).unwrap();
    connection.execute_batch(age).unwrap();
    assert_eq!(kept(&store, &pass("1")).await, [1, 2, 3, 4]);
    // An archive that is put again is like a new one.
    put(&store, &pass("1"), 3).await;
    assert_eq!(kept(&store, &pass("1")).await, [2, 3, 4]);
    assert_eq!(kept(&store, &pass("2")).await, [1, 2, 3, 4]);
}
