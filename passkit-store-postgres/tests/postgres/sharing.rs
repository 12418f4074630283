use std::collections::BTreeSet;

use passkit_server::{
    Changed,
    store::{RegistrationStore, StoreErrorKind},
};
use tokio::task::JoinSet;

use crate::support::{content, device, new_store, pass, registered, serial, token, type_id};

const CALLERS: usize = 300;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_caller_gets_its_own_answer() {
    let store = new_store().await;
    let mut tasks = JoinSet::new();
    for i in 0..CALLERS {
        let store = store.clone();
        tasks.spawn(async move {
            let (device, own, other) = (device(format!("d{i}")), pass(format!("{i}")), pass("all"));
            store.register(&device, &own, &token()).await.unwrap();
            store.register(&device, &other, &token()).await.unwrap();
            let all = store
                .changes_since(&device, &type_id(), None)
                .await
                .unwrap();
            let serials: BTreeSet<_> = all
                .serials
                .iter()
                .map(|serial| serial.as_str().to_owned())
                .collect();
            assert_eq!(serials, BTreeSet::from([format!("{i}"), "all".into()]));
            store
                .mark(
                    &type_id(),
                    Changed::Contents(&[content(format!("{i}"), Some(i as u8), &[])]),
                )
                .await
                .unwrap();
            let before = store.pass_state(&own).await.unwrap();
            assert_eq!(before.published, Some([i as u8; 32]));
            store
                .mark(
                    &type_id(),
                    Changed::Passes(std::slice::from_ref(&own.serial)),
                )
                .await
                .unwrap();
            let after = store.pass_state(&own).await.unwrap();
            assert!(after.version > before.version && after.last_modified > before.last_modified);
            let changes = store
                .changes_since(&device, &type_id(), Some(all.tag))
                .await
                .unwrap();
            assert_eq!(changes.serials, [own.serial]);
            after.version
        });
    }
    let versions: BTreeSet<_> = tasks.join_all().await.into_iter().collect();
    assert!(
        versions.len() < CALLERS / 2,
        "{} statements for {CALLERS} marks",
        versions.len()
    );
}

/// A call that is dropped affects no other.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_dropped_call_affects_no_other() {
    let store = new_store().await;
    let mut tasks = JoinSet::new();
    for i in 0..CALLERS {
        let store = store.clone();
        tasks.spawn(async move {
            let (device, serials, pass) =
                (device(format!("d{i}")), [serial(format!("{i}"))], pass("1"));
            let token = token();
            let type_id = type_id();
            let mark = store.mark(&type_id, Changed::Passes(&serials));
            let register = store.register(&device, &pass, &token);
            if i % 3 == 0 {
                let gone = tokio::time::timeout(std::time::Duration::ZERO, async {
                    tokio::join!(mark, register)
                });
                let _gone = gone.await;
            } else {
                mark.await.unwrap();
                register.await.unwrap();
                assert!(
                    store
                        .pass_state(&crate::support::pass(format!("{i}")))
                        .await
                        .unwrap()
                        .version
                        > 0
                );
                assert_eq!(registered(&store, &device).await, ["1"]);
            }
        });
    }
    tasks.join_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_error_reaches_only_the_callers_it_concerns() {
    let store = new_store().await;
    let mut connection = store.pool().acquire().await.unwrap();
    sqlx::raw_sql("alter table passkit.pass add check (serial <> 'bad')")
        .execute(&mut *connection)
        .await
        .unwrap();
    // This crate never writes such a row.
    store
        .register(&device("broken"), &pass("1"), &token())
        .await
        .unwrap();
    sqlx::raw_sql("update passkit.registration set serial = e'a\\nb' where device_id = 'broken'")
        .execute(&mut *connection)
        .await
        .unwrap();
    let mut tasks = JoinSet::new();
    for i in 0..100 {
        let store = store.clone();
        tasks.spawn(async move {
            let bad = i % 10 == 3;
            let name = if bad {
                "bad".to_owned()
            } else {
                format!("{i}")
            };
            let marked = store
                .mark(&type_id(), Changed::Passes(&[serial(&name)]))
                .await;
            assert_eq!(marked.is_err(), bad, "{marked:?}");
            let version = store.pass_state(&pass(&name)).await.unwrap().version;
            assert_eq!(version == 0, bad);
            let asked = if bad {
                device("broken")
            } else {
                device("other")
            };
            let listed = store.changes_since(&asked, &type_id(), None).await;
            assert_eq!(
                listed.as_ref().err().map(|error| error.kind()),
                bad.then_some(StoreErrorKind::Corrupt)
            );
        });
    }
    tasks.join_all().await;
}

/// A mark of one type does not wait for a mark of another.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_locked_type_stops_no_other() {
    let store = new_store().await;
    let other = passkit_server::identifiers::TypeIdentifier::new("pass.com.example.other").unwrap();
    let mut transaction = store.pool().begin().await.unwrap();
    passkit_store_postgres::mark_in(
        &mut transaction,
        &type_id(),
        Changed::Passes(&[serial("1")]),
    )
    .await
    .unwrap();
    let waiting = (0..40).map(|_| {
        let store = store.clone();
        tokio::spawn(async move {
            store
                .mark(&type_id(), Changed::Passes(&[serial("2")]))
                .await
        })
    });
    let waiting: Vec<_> = waiting.collect();
    store
        .mark(&other, Changed::Passes(&[serial("1")]))
        .await
        .unwrap();
    assert!(waiting.iter().all(|task| !task.is_finished()));
    transaction.commit().await.unwrap();
    for task in waiting {
        task.await.unwrap().unwrap();
    }
}
