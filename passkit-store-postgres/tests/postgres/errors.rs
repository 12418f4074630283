use std::error::Error;

use passkit_server::{
    Changed,
    store::{RegistrationStore, StoreError, StoreErrorKind},
};
use passkit_store_postgres::{Config, PostgresStore, mark_in};
use tokio::task::JoinSet;

use crate::support::{device, new_database, new_store, pass, serial, token, type_id};

/// Returns the SQLSTATE of the driver's error.
fn sql_state(error: &StoreError) -> Option<String> {
    let mut driver = None;
    let mut next = error.source();
    while let Some(source) = next {
        driver = driver.or(source.downcast_ref::<sqlx::Error>());
        next = source.source();
    }
    let driver = driver.unwrap_or_else(|| panic!("no driver error among the sources of {error:?}"));
    Some(driver.as_database_error()?.code()?.into_owned())
}

#[tokio::test]
async fn errors_have_the_drivers_error_as_a_source() {
    let store = PostgresStore::connect(&new_database().await, Config::new())
        .await
        .unwrap();
    let error = store.pass_state(&pass("1")).await.unwrap_err();
    assert_eq!(sql_state(&error).as_deref(), Some("42P01"));
    let error = store
        .unregister(&device("d"), &pass("1"))
        .await
        .unwrap_err();
    assert_eq!(sql_state(&error).as_deref(), Some("3F000"));
    let mut connection = store.pool().acquire().await.unwrap();
    let error = mark_in(&mut connection, &type_id(), Changed::All)
        .await
        .unwrap_err();
    assert_eq!(sql_state(&error).as_deref(), Some("3F000"));
    drop(connection);
    store.pool().close().await;
    let error = store.pass_state(&pass("1")).await.unwrap_err();
    assert_eq!(sql_state(&error), None, "the pool is closed");
}

/// Every caller that shared a failed statement gets the whole chain.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn callers_that_share_an_error_get_the_drivers_error_too() {
    let store = new_store().await;
    // The first mark waits for this lock, so the others share the second statement.
    let mut locked = store.pool().begin().await.unwrap();
    mark_in(&mut locked, &type_id(), Changed::All)
        .await
        .unwrap();
    let mut tasks = JoinSet::new();
    for i in 0..40 {
        let store = store.clone();
        tasks.spawn(async move {
            let serials = [serial(format!("{i}"))];
            store
                .mark(&type_id(), Changed::Passes(&serials))
                .await
                .unwrap_err()
        });
    }
    let waiting = "select count(*) from pg_stat_activity
        where datname = current_database() and wait_event_type = 'Lock'";
    while sqlx::query_scalar::<_, i64>(waiting)
        .fetch_one(store.pool())
        .await
        .unwrap()
        == 0
    {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    // The transaction with the lock renames the table, so that the marks go on only when the table is gone.
    sqlx::raw_sql("alter table passkit.pass rename to gone")
        .execute(&mut *locked)
        .await
        .unwrap();
    locked.commit().await.unwrap();
    for error in tasks.join_all().await {
        assert_eq!(error.kind(), StoreErrorKind::Configuration, "{error:?}");
        assert_eq!(sql_state(&error).as_deref(), Some("42P01"));
    }
    sqlx::raw_sql("alter table passkit.gone rename to pass")
        .execute(store.pool())
        .await
        .unwrap();
    store
        .register(&device("d"), &pass("1"), &token())
        .await
        .unwrap();
    store
        .mark(&type_id(), Changed::Passes(&[serial("1")]))
        .await
        .unwrap();
}
