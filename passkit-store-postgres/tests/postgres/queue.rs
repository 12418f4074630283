use std::{
    collections::BTreeMap,
    time::{Duration, UNIX_EPOCH},
};

use passkit_server::{
    Changed,
    identifiers::{PushToken, TypeIdentifier},
    push::{DeferredPush, PendingChange, Progress, PushQueue, Scope},
    store::PageCursor,
};
use tokio::task::JoinSet;

use crate::support::{content, deadlocks, device, new_store, serial, token, type_id};

fn push(attempts: u32) -> DeferredPush {
    DeferredPush {
        push_token: token(),
        due: attempts
            .is_multiple_of(2)
            .then(|| UNIX_EPOCH + Duration::from_secs(attempts.into())),
        attempts,
        bad_since: attempts
            .is_multiple_of(3)
            .then(|| UNIX_EPOCH + Duration::from_micros(attempts.into())),
    }
}

#[tokio::test]
async fn deferred_pushes_are_set_and_removed_in_one_call() {
    let store = new_store().await;
    let other_wallet = DeferredPush {
        push_token: PushToken::new("a:UUID_-1").unwrap(),
        ..push(7)
    };
    let pushes = [
        (device("b"), Some(push(1))),
        (device("a"), Some(push(2))),
        (device("b"), Some(push(3))),
        (device("c"), Some(push(4))),
        (device("c"), None),
        (device("never"), None),
        (device("d"), None),
        (device("d"), Some(other_wallet.clone())),
    ];
    store.defer(&type_id(), &pushes).await.unwrap();
    let all = store.deferred(&type_id(), None, 9).await.unwrap();
    let expected = vec![
        (device("a"), push(2)),
        (device("b"), push(3)),
        (device("d"), other_wallet.clone()),
    ];
    assert_eq!(all.items, expected);
    let first = store.deferred(&type_id(), None, 2).await.unwrap();
    assert_eq!(first.items, expected[..2]);
    let second = store
        .deferred(&type_id(), first.next.as_ref(), 2)
        .await
        .unwrap();
    assert_eq!(second.items, expected[2..]);
    assert!(second.next.is_none());

    store.defer(&type_id(), &[]).await.unwrap();
    store
        .defer(
            &type_id(),
            &[
                (device("a"), None),
                (device("b"), None),
                (device("d"), None),
            ],
        )
        .await
        .unwrap();
    assert!(
        store
            .deferred(&type_id(), None, 9)
            .await
            .unwrap()
            .items
            .is_empty()
    );
    assert!(store.backlog().await.unwrap().is_empty());
}

/// Several callers at once defer more pushes than fit into one statement.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_callers_can_defer_at_once() {
    let store = new_store().await;
    let mut tasks = JoinSet::new();
    for task in 0..4_u32 {
        let store = store.clone();
        tasks.spawn(async move {
            let mut pushes: Vec<_> = (0..2_500)
                .map(|i| (device(format!("{i}")), (i % 4 != task).then(|| push(task))))
                .collect();
            if task % 2 == 1 {
                pushes.reverse();
            }
            store.defer(&type_id(), &pushes).await.unwrap();
        });
    }
    tasks.join_all().await;
    assert_eq!(deadlocks(&store).await, 0);
    let pushes: Vec<_> = (0..2_500)
        .map(|i| (device(format!("{i}")), Some(push(9))))
        .collect();
    store.defer(&type_id(), &pushes).await.unwrap();
    let page = store.deferred(&type_id(), None, 10_000).await.unwrap();
    assert!(page.items.len() == 2_500 && page.items.iter().all(|(_, one)| *one == push(9)));
}

#[tokio::test]
async fn the_backlog_has_the_oldest_change_and_the_first_deferred_push_of_each_type() {
    let store = new_store().await;
    let other = TypeIdentifier::new("order.com.example.shop").unwrap();
    store
        .mark_and_push(
            &type_id(),
            Changed::Passes(&[serial("1"), serial("2"), serial("1")]),
        )
        .await
        .unwrap();
    store.mark_and_push(&type_id(), Changed::All).await.unwrap();
    store
        .mark_and_push(&type_id(), Changed::Passes(&[]))
        .await
        .unwrap();
    store
        .defer(
            &other,
            &[(device("a"), Some(push(1))), (device("b"), Some(push(4)))],
        )
        .await
        .unwrap();
    let backlog: BTreeMap<_, _> = store
        .backlog()
        .await
        .unwrap()
        .into_iter()
        .map(|one| (one.type_id.clone(), one))
        .collect();
    assert_eq!(backlog.len(), 2);
    assert_eq!(
        (
            backlog[&type_id()].pending,
            backlog[&type_id()].next_deferred
        ),
        (3, None)
    );
    assert!(backlog[&type_id()].since.is_some());
    assert_eq!((backlog[&other].pending, backlog[&other].since), (0, None));
    assert_eq!(
        backlog[&other].next_deferred,
        Some(UNIX_EPOCH + Duration::from_secs(4))
    );
}

#[tokio::test]
async fn progress_counts_for_the_version_that_it_names() {
    let store = new_store().await;
    let mark = async || {
        store
            .mark_and_push(&type_id(), Changed::Contents(&[content("1", Some(1), &[])]))
            .await
            .unwrap();
        store
            .mark_and_push(&type_id(), Changed::Passes(&[serial("1")]))
            .await
            .unwrap();
        let [change]: [PendingChange; 1] = store
            .pending(&type_id(), 9)
            .await
            .unwrap()
            .try_into()
            .expect("one change");
        assert_eq!(change.scope, Scope::Pass(serial("1")));
        change
    };
    let record = async |version, next: Option<&str>| {
        let progress = Progress {
            version,
            next: next.map(PageCursor::new),
        };
        store
            .record_progress(&type_id(), &[(Scope::Pass(serial("1")), progress)])
            .await
            .unwrap();
    };
    let first = mark().await;
    assert_eq!(first.progress, None);
    record(first.version, Some("here")).await;
    let second = mark().await;
    assert!(second.version > first.version);
    let progress = Progress {
        version: first.version,
        next: Some(PageCursor::new("here")),
    };
    assert_eq!(second.progress, Some(progress));
    // A worker reached the end for the older version, so the devices are read again.
    record(first.version, None).await;
    let pending = store.pending(&type_id(), 9).await.unwrap();
    assert_eq!(
        pending,
        [PendingChange {
            progress: None,
            ..second.clone()
        }]
    );
    record(second.version, None).await;
    assert!(store.pending(&type_id(), 9).await.unwrap().is_empty());
    // Progress of a pass without a pending change is ignored.
    record(second.version, Some("here")).await;
    record(second.version, None).await;
    assert!(store.backlog().await.unwrap().is_empty());
}
