use std::time::Duration;

use passkit_server::store::{Coordination, StoreErrorKind};
use passkit_store_postgres::{Config, PostgresStore};
use tokio::task::JoinSet;

use crate::support::{new_database, new_store};

const HOUR: Duration = Duration::from_secs(3_600);

/// Opens stores with separate pools, like instances.
async fn instances(count: usize) -> Vec<PostgresStore> {
    let url = new_database().await;
    let mut stores = Vec::new();
    for _ in 0..count {
        stores.push(
            PostgresStore::connect(&url, Config::new().connections(2))
                .await
                .unwrap(),
        );
    }
    stores[0].migrate().await.unwrap();
    stores
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_of_many_claims_wins_until_it_is_released() {
    let stores = instances(3).await;
    let claim_by_all = async |name: &'static str| {
        let mut tasks = JoinSet::new();
        for i in 0..12 {
            let store = stores[i % 3].clone();
            tasks.spawn(async move {
                let owner = format!("owner {i}");
                store
                    .claim(name, &owner, HOUR)
                    .await
                    .unwrap()
                    .then_some(owner)
            });
        }
        tasks
            .join_all()
            .await
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
    };
    for round in 0..10 {
        let winners = claim_by_all("job").await;
        assert_eq!(winners.len(), 1, "round {round}: {winners:?}");
        stores[0].release("job", "owner of nothing").await.unwrap();
        assert!(
            claim_by_all("job")
                .await
                .iter()
                .all(|owner| *owner == winners[0]),
            "round {round}"
        );
        stores[2].release("job", &winners[0]).await.unwrap();
    }
}

/// The claim expires by the clock of the database. Instead of waiting, the test changes the expiry in the database.
#[tokio::test]
async fn an_expired_claim_can_go_to_another_owner() {
    let store = new_store().await;
    assert!(store.claim("job", "one", HOUR).await.unwrap());
    assert!(!store.claim("job", "two", HOUR).await.unwrap());
    let remaining = "select until - passkit.now_micros() from passkit.claim";
    let remaining: i64 = sqlx::query_scalar(remaining)
        .fetch_one(store.pool())
        .await
        .unwrap();
    assert!(
        (3_500_000_000..=3_600_000_000).contains(&remaining),
        "{remaining}"
    );
    sqlx::raw_sql("update passkit.claim set until = until - 3600000000")
        .execute(store.pool())
        .await
        .unwrap();
    assert!(store.claim("job", "two", Duration::MAX).await.unwrap());
    assert!(!store.claim("job", "one", HOUR).await.unwrap());
    // The former owner can't release a claim that it has lost.
    store.release("job", "one").await.unwrap();
    assert!(!store.claim("job", "one", HOUR).await.unwrap());
    assert!(store.claim("another job", "one", HOUR).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_of_many_replacements_of_a_note_wins() {
    let stores = instances(3).await;
    let replace_by_all = async |expected: Option<&'static str>, new: &'static str| {
        let mut tasks = JoinSet::new();
        for i in 0..12 {
            let store = stores[i % 3].clone();
            tasks.spawn(async move {
                let new = format!("{new} {i}");
                store
                    .replace_note("epoch", expected, Some(&new))
                    .await
                    .unwrap()
                    .then_some(new)
            });
        }
        tasks
            .join_all()
            .await
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
    };
    for round in 0..10 {
        // There is no note yet.
        let winners = replace_by_all(None, "first").await;
        assert_eq!(winners.len(), 1, "round {round}: {winners:?}");
        assert_eq!(
            stores[1].note("epoch").await.unwrap().as_ref(),
            winners.first()
        );
        assert!(
            stores[0]
                .replace_note("epoch", Some(&winners[0]), Some("known"))
                .await
                .unwrap()
        );
        let winners = replace_by_all(Some("known"), "second").await;
        assert_eq!(winners.len(), 1, "round {round}: {winners:?}");
        assert_eq!(
            stores[1].note("epoch").await.unwrap().as_ref(),
            winners.first()
        );
        assert!(!stores[0].replace_note("epoch", None, None).await.unwrap());
        assert!(
            !stores[0]
                .replace_note("epoch", Some("known"), None)
                .await
                .unwrap()
        );
        assert!(
            stores[0]
                .replace_note("epoch", Some(&winners[0]), None)
                .await
                .unwrap()
        );
        assert!(stores[0].replace_note("epoch", None, None).await.unwrap());
        assert_eq!(stores[1].note("epoch").await.unwrap(), None);
    }
}

/// A replacement that may have happened is not sent again. The second answer would say that another caller has won.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_replacement_whose_answer_is_lost_is_an_error() {
    let store = new_store().await;
    assert!(store.replace_note("n", None, Some("old")).await.unwrap());
    let mut locked = store.pool().begin().await.unwrap();
    sqlx::raw_sql("update passkit.note set note = 'new'")
        .execute(&mut *locked)
        .await
        .unwrap();
    let replacing = store.clone();
    let replacing =
        tokio::spawn(async move { replacing.replace_note("n", Some("old"), Some("new")).await });
    let cut = "select pg_terminate_backend(pid) from pg_stat_activity
        where datname = current_database() and wait_event_type = 'Lock'";
    while sqlx::query(cut)
        .fetch_all(store.pool())
        .await
        .unwrap()
        .is_empty()
    {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    locked.commit().await.unwrap();
    let error = replacing.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{error:?}");
    // The store checks its connections and goes on.
    assert_eq!(store.note("n").await.unwrap().as_deref(), Some("new"));
    assert!(
        store
            .replace_note("n", Some("new"), Some("newer"))
            .await
            .unwrap()
    );
}

/// A connection that broke while it was idle is found before the replacement is sent.
#[tokio::test]
async fn broken_connections_fail_no_replacement() {
    let store = PostgresStore::connect(&new_database().await, Config::new().connections(1))
        .await
        .unwrap();
    store.migrate().await.unwrap();
    let mut admin = store.pool().acquire().await.unwrap().detach();
    let cut = "select pg_terminate_backend(pid) from pg_stat_activity
        where datname = current_database() and pid <> pg_backend_pid() and application_name <> 'other'";
    for i in 0..5 {
        let (before, after) = (format!("{i}"), format!("{}", i + 1));
        let expected = (i > 0).then_some(before.as_str());
        assert!(
            store
                .replace_note("n", expected, Some(&after))
                .await
                .unwrap()
        );
        let cut = sqlx::query(cut).fetch_all(&mut admin).await.unwrap();
        assert!(!cut.is_empty());
    }
}
