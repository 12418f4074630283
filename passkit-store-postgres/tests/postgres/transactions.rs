use passkit_server::{
    Changed,
    identifiers::TypeIdentifier,
    push::{Progress, PushQueue, Scope},
    store::RegistrationStore,
};
use passkit_store_postgres::{mark_and_push_in, mark_in};
use tokio::task::JoinSet;

use crate::support::{content, deadlocks, device, new_store, pass, serial, token, type_id};

#[tokio::test]
async fn content_and_mark_commit_together_or_not_at_all() {
    let store = new_store().await;
    sqlx::query("create table content (text text)")
        .execute(store.pool())
        .await
        .unwrap();
    store
        .register(&device("d"), &pass("1"), &token())
        .await
        .unwrap();
    let tag = store
        .changes_since(&device("d"), &type_id(), None)
        .await
        .unwrap()
        .tag;
    for commit in [false, true] {
        let mut transaction = store.pool().begin().await.unwrap();
        sqlx::query("insert into content values ('new')")
            .execute(&mut *transaction)
            .await
            .unwrap();
        let serials = [serial("1"), serial("1")];
        mark_in(&mut transaction, &type_id(), Changed::Passes(&serials))
            .await
            .unwrap();
        mark_in(&mut transaction, &type_id(), Changed::Passes(&[]))
            .await
            .unwrap();
        // The mark is not visible to others yet.
        let meanwhile = store
            .changes_since(&device("d"), &type_id(), Some(tag))
            .await
            .unwrap();
        assert!(meanwhile.serials.is_empty());
        if commit {
            transaction.commit().await.unwrap();
        } else {
            transaction.rollback().await.unwrap();
        }
        let after = store
            .changes_since(&device("d"), &type_id(), Some(tag))
            .await
            .unwrap();
        assert_eq!(!after.serials.is_empty(), commit);
        let rows: i64 = sqlx::query_scalar("select count(*) from content")
            .fetch_one(store.pool())
            .await
            .unwrap();
        assert_eq!(rows == 1, commit);
    }
}

#[tokio::test]
async fn mark_and_pushes_commit_together_or_not_at_all() {
    let store = new_store().await;
    let (serials, contents) = ([serial("1"), serial("1")], [content("1", Some(1), &[1])]);
    for (commit, changed, scopes) in [
        (false, Changed::Passes(&serials), vec![]),
        (
            true,
            Changed::Passes(&serials),
            vec![Scope::Pass(serial("1"))],
        ),
        (false, Changed::Contents(&contents), vec![]),
        (
            true,
            Changed::Contents(&contents),
            vec![Scope::Pass(serial("1"))],
        ),
        // Publishes the same content again.
        (true, Changed::Contents(&contents), vec![]),
        (false, Changed::All, vec![]),
        (true, Changed::All, vec![Scope::Type]),
        (true, Changed::Passes(&[]), vec![]),
        (true, Changed::Contents(&[]), vec![]),
    ] {
        let before = store.pass_state(&pass("1")).await.unwrap();
        let mut transaction = store.pool().begin().await.unwrap();
        mark_and_push_in(&mut transaction, &type_id(), changed)
            .await
            .unwrap();
        assert!(store.pending(&type_id(), 9).await.unwrap().is_empty());
        if commit {
            transaction.commit().await.unwrap();
        } else {
            transaction.rollback().await.unwrap();
        }
        let after = store.pass_state(&pass("1")).await.unwrap();
        assert_eq!(
            after.version > before.version,
            !scopes.is_empty(),
            "{changed:?}"
        );
        if !commit {
            assert_eq!(after, before);
        }
        let pending = store.pending(&type_id(), 9).await.unwrap();
        let found: Vec<_> = pending.iter().map(|change| change.scope.clone()).collect();
        assert_eq!(found, scopes, "{changed:?}");
        assert!(pending.iter().all(|change| change.version == after.version));
        let done: Vec<_> = pending
            .into_iter()
            .map(|change| {
                (
                    change.scope,
                    Progress {
                        version: change.version,
                        next: None,
                    },
                )
            })
            .collect();
        store.record_progress(&type_id(), &done).await.unwrap();
    }
}

/// Transactions mark several types in order, and the store marks each of them at the same time.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn marks_of_several_types_never_deadlock() {
    let store = new_store().await;
    let types: Vec<_> = (0..4)
        .map(|i| TypeIdentifier::new(&format!("pass.com.example.t{i}")).unwrap())
        .collect();
    let mut tasks = JoinSet::new();
    for task in 0..15_usize {
        let (store, types) = (store.clone(), types.clone());
        tasks.spawn(async move {
            for round in 0..25 {
                let serials = [
                    serial(format!("{}", round % 3)),
                    serial(format!("{}", 3 + task % 5)),
                ];
                let contents = serials
                    .clone()
                    .map(|serial| content(serial.as_str(), Some(round as u8), &[task as u8]));
                let (one, other) = (&types[task % 4], &types[round % 4]);
                if task < 3 {
                    let mut transaction = store.pool().begin().await.unwrap();
                    for type_id in &types[task % 2..] {
                        mark_in(&mut transaction, type_id, Changed::Passes(&serials))
                            .await
                            .unwrap();
                        let one = Changed::Passes(&serials[..1]);
                        mark_and_push_in(&mut transaction, type_id, one)
                            .await
                            .unwrap();
                        let contents = Changed::Contents(&contents);
                        mark_and_push_in(&mut transaction, type_id, contents)
                            .await
                            .unwrap();
                    }
                    transaction.commit().await.unwrap();
                } else if task == 3 {
                    store.mark(other, Changed::All).await.unwrap();
                } else if task < 6 {
                    let done: Vec<(Scope, Progress)> = store
                        .pending(one, 5)
                        .await
                        .unwrap()
                        .into_iter()
                        .map(|change| {
                            (
                                change.scope,
                                Progress {
                                    version: change.version,
                                    next: None,
                                },
                            )
                        })
                        .collect();
                    store.record_progress(one, &done).await.unwrap();
                    store.mark_and_push(other, Changed::All).await.unwrap();
                } else if task < 9 {
                    store
                        .mark_and_push(one, Changed::Passes(&serials))
                        .await
                        .unwrap();
                } else if task < 12 {
                    store.mark(one, Changed::Contents(&contents)).await.unwrap();
                } else {
                    store.mark(one, Changed::Passes(&serials)).await.unwrap();
                }
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    assert_eq!(deadlocks(&store).await, 0);
}
