use passkit_server::{Owed, PushQueue, Reached, RegistrationStore, TypeIdentifier};
use passkit_store_postgres::{mark_and_owe_in, mark_updated_in};
use tokio::task::JoinSet;

use crate::support::{device, new_store, pass, serial, token, type_id};

#[tokio::test]
async fn content_and_mark_commit_together_or_not_at_all() {
    let store = new_store().await;
    sqlx::query("create table content (text text)").execute(store.pool()).await.unwrap();
    store.register(&device("d"), &pass("1"), &token()).await.unwrap();
    let tag = store.updated_since(&device("d"), &type_id(), None).await.unwrap().tag;
    for commit in [false, true] {
        let mut transaction = store.pool().begin().await.unwrap();
        sqlx::query("insert into content values ('new')").execute(&mut *transaction).await.unwrap();
        mark_updated_in(&mut transaction, &type_id(), &[serial("1"), serial("1")]).await.unwrap();
        mark_updated_in(&mut transaction, &type_id(), &[]).await.unwrap();
        // Nobody else sees it yet.
        let meanwhile = store.updated_since(&device("d"), &type_id(), Some(tag)).await.unwrap();
        assert!(meanwhile.serials.is_empty());
        if commit {
            transaction.commit().await.unwrap();
        } else {
            transaction.rollback().await.unwrap();
        }
        let after = store.updated_since(&device("d"), &type_id(), Some(tag)).await.unwrap();
        assert_eq!(!after.serials.is_empty(), commit);
        let rows: i64 =
            sqlx::query_scalar("select count(*) from content").fetch_one(store.pool()).await.unwrap();
        assert_eq!(rows == 1, commit);
    }
}

#[tokio::test]
async fn content_mark_and_pushes_commit_together_or_not_at_all() {
    let store = new_store().await;
    for commit in [false, true] {
        let before = store.pass_state(&pass("1")).await.unwrap();
        let mut transaction = store.pool().begin().await.unwrap();
        mark_and_owe_in(&mut transaction, &type_id(), &[serial("1"), serial("1")]).await.unwrap();
        mark_and_owe_in(&mut transaction, &type_id(), &[]).await.unwrap();
        assert!(store.debts(&type_id(), 9).await.unwrap().is_empty());
        if commit {
            transaction.commit().await.unwrap();
        } else {
            transaction.rollback().await.unwrap();
        }
        let after = store.pass_state(&pass("1")).await.unwrap();
        assert_eq!(after.version > before.version, commit);
        let debts = store.debts(&type_id(), 9).await.unwrap();
        let versions: Vec<_> = debts.iter().map(|debt| debt.version).collect();
        assert_eq!(versions, if commit { vec![after.version] } else { vec![] });
    }
}

/// Transactions that mark several types in their order, and the store's own marks of each, all at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn marks_of_several_types_never_deadlock() {
    let store = new_store().await;
    let types: Vec<_> =
        (0..4).map(|i| TypeIdentifier::new(&format!("pass.com.example.t{i}")).unwrap()).collect();
    let mut tasks = JoinSet::new();
    for task in 0..12_usize {
        let (store, types) = (store.clone(), types.clone());
        tasks.spawn(async move {
            for round in 0..25 {
                let serials = [serial(format!("{}", round % 3)), serial(format!("{}", task % 5))];
                if task < 3 {
                    let mut transaction = store.pool().begin().await.unwrap();
                    for type_id in &types[task % 2..] {
                        mark_updated_in(&mut transaction, type_id, &serials).await.unwrap();
                        mark_and_owe_in(&mut transaction, type_id, &serials[..1]).await.unwrap();
                        mark_and_owe_in(&mut transaction, type_id, &serials[1..]).await.unwrap();
                    }
                    transaction.commit().await.unwrap();
                } else if task == 3 {
                    store.mark_all_updated(&types[round % 4]).await.unwrap();
                } else if task < 6 {
                    let debts = store.debts(&types[task % 4], 5).await.unwrap();
                    let done: Vec<(Owed, Reached)> = debts
                        .into_iter()
                        .map(|debt| (debt.owed, Reached { version: debt.version, next: None }))
                        .collect();
                    store.advance(&types[task % 4], &done).await.unwrap();
                    store.mark_all_and_owe(&types[round % 4]).await.unwrap();
                } else if task < 9 {
                    store.mark_and_owe(&types[task % 4], &serials).await.unwrap();
                } else {
                    store.mark_updated(&types[task % 4], &serials).await.unwrap();
                }
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    let deadlocks: i64 =
        sqlx::query_scalar("select deadlocks from pg_stat_database where datname = current_database()")
            .fetch_one(store.pool())
            .await
            .unwrap();
    assert_eq!(deadlocks, 0);
}
