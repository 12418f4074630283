use passkit_server::{
    Changed,
    push::{PushQueue as _, Scope},
    store::{RegistrationStore as _, StoreErrorKind, UpdateTag},
};
use passkit_store_sqlite::{
    SqliteStore, create_in, mark_and_push_in, mark_in,
    rusqlite::{Connection, TransactionBehavior::Immediate},
};

use crate::support::{device, pass, serial, text, token, type_id};

#[tokio::test]
async fn a_mark_commits_with_the_content_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shop.db");
    let mut own = Connection::open(&path).unwrap();
    own.execute_batch(
        "create table ticket (id text primary key, seat text); pragma user_version = 3",
    )
    .unwrap();
    let transaction = own.transaction().unwrap();
    create_in(&transaction).unwrap();
    transaction.commit().unwrap();
    let store = SqliteStore::open(&path).unwrap();
    store
        .register(&device("a"), &pass("1"), &token())
        .await
        .unwrap();
    let first = store
        .changes_since(&device("a"), &type_id(), None)
        .await
        .unwrap()
        .tag;
    let changed = async |tag: UpdateTag| {
        let changes = store
            .changes_since(&device("a"), &type_id(), Some(tag))
            .await
            .unwrap();
        (changes.serials, changes.tag)
    };

    let transaction = own.transaction_with_behavior(Immediate).unwrap();
    transaction
        .execute("insert into ticket values ('1', 'A 12')", [])
        .unwrap();
    mark_in(&transaction, &type_id(), Changed::Passes(&[serial("1")])).unwrap();
    assert_eq!(
        changed(first).await,
        (vec![], first),
        "seen before its commit"
    );
    transaction.rollback().unwrap();
    assert_eq!(changed(first).await, (vec![], first), "rolled back");

    let transaction = own.transaction_with_behavior(Immediate).unwrap();
    transaction
        .execute("insert into ticket values ('1', 'A 12')", [])
        .unwrap();
    mark_in(&transaction, &type_id(), Changed::Passes(&[serial("1")])).unwrap();
    transaction.commit().unwrap();
    let (serials, second) = changed(first).await;
    assert_eq!(serials, [serial("1")]);
    assert!(store.backlog().await.unwrap().is_empty());

    let transaction = own.transaction_with_behavior(Immediate).unwrap();
    mark_and_push_in(&transaction, &type_id(), Changed::All).unwrap();
    transaction.commit().unwrap();
    assert_eq!(changed(second).await.0, [serial("1")]);
    assert_eq!(
        store.pending(&type_id(), 9).await.unwrap()[0].scope,
        Scope::Type
    );
    let version: i64 = own
        .query_row("pragma user_version", [], |row| row.get(0))
        .unwrap();
    assert_eq!(
        version, 3,
        "the schema version belongs to the program that owns the file"
    );
}

#[test]
fn a_name_that_is_taken_is_an_error() {
    let mut own = Connection::open_in_memory().unwrap();
    own.execute_batch("create table devices (id text)").unwrap();
    let transaction = own.transaction().unwrap();
    let error = create_in(&transaction).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Configuration);
    assert!(
        text(&error).ends_with("a table with a name that a store needs"),
        "{error:?}"
    );
    transaction.execute_batch("drop table devices").unwrap();
    create_in(&transaction).unwrap();
    create_in(&transaction).unwrap_err();
}

#[test]
fn a_database_without_a_store_is_an_error() {
    let mut own = Connection::open_in_memory().unwrap();
    let transaction = own.transaction().unwrap();
    mark_in(&transaction, &type_id(), Changed::All).unwrap_err();
}
