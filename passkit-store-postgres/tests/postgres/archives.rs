use bytes::Bytes;
use passkit_server::{
    Changed, PassId,
    store::{ArchiveStore as _, RegistrationStore as _},
};
use passkit_store_postgres::{Config, PostgresStore};
use sqlx::Executor as _;

use crate::{
    delivery,
    support::{content, new_database, new_store, pass, type_id},
};

async fn put(store: &PostgresStore, pass: &PassId, digest: u8) {
    let archive = Bytes::from(vec![digest; 1_000]);
    store
        .put_archive(pass, &[digest; 32], archive)
        .await
        .unwrap();
}

/// Returns the digests of the archives of a pass.
async fn kept(store: &PostgresStore, pass: &PassId) -> Vec<u8> {
    let mut kept = Vec::new();
    for digest in 0..10 {
        let archive = store.archive(pass, &[digest; 32]).await.unwrap();
        kept.extend(archive.map(|_| digest));
    }
    kept
}

#[tokio::test]
async fn only_old_archives_that_are_not_published_are_removed() {
    let store = new_store().await;
    for digest in 1..=4 {
        put(&store, &pass("1"), digest).await;
        put(&store, &pass("2"), digest).await;
    }
    let published = [content("1", Some(2), &[1])];
    store
        .mark(&type_id(), Changed::Contents(&published))
        .await
        .unwrap();
    let age = "update passkit.archive set put_at = put_at - case digest
        when decode(repeat('04', 32), 'hex') then 3500000000 else 3600000001 end";
    store.pool().execute(age).await.unwrap();
    assert_eq!(kept(&store, &pass("1")).await, [1, 2, 3, 4]);
    // An archive that is put again is like a new one.
    put(&store, &pass("1"), 3).await;
    assert_eq!(kept(&store, &pass("1")).await, [2, 3, 4]);
    assert_eq!(kept(&store, &pass("2")).await, [1, 2, 3, 4]);
}

#[tokio::test]
async fn a_schema_without_archives_is_migrated() {
    let store = PostgresStore::connect(&new_database().await, Config::new())
        .await
        .unwrap();
    let first = sqlx::raw_sql(include_str!("../../migrations/0001_store.sql"));
    store.pool().execute(first).await.unwrap();
    assert!(store.check().await.is_err());
    store.migrate().await.unwrap();
    store.check().await.unwrap();
    put(&store, &pass("1"), 1).await;
    assert_eq!(kept(&store, &pass("1")).await, [1]);
    delivery::are_kept(&store).await;
}
