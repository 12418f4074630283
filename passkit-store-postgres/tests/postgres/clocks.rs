use std::time::Duration;

use passkit_server::{
    PassId,
    maintenance::{Registration, StoreMaintenance},
    store::RegistrationStore,
};
use passkit_store_postgres::PostgresStore;

use crate::support::{device, new_store, pass, registered, token};

/// Locks the row of a device. While `register` waits for that lock, registers the device once more and removes it. Returns
/// the last version of the device before the removal, and its version at the end.
async fn remove_while_waiting<F>(
    store: &PostgresStore,
    register: impl FnOnce(PostgresStore) -> F,
) -> (i64, i64)
where
    F: Future<Output: Send> + Send + 'static,
{
    store
        .register(&device("d"), &pass("1"), &token())
        .await
        .unwrap();
    let mut other = store.pool().begin().await.unwrap();
    sqlx::raw_sql("select from passkit.device where device_id = 'd' for update")
        .execute(&mut *other)
        .await
        .unwrap();
    let waiting = tokio::spawn(register(store.clone()));
    let waits = "select count(*) from pg_stat_activity
        where datname = current_database() and wait_event_type = 'Lock'";
    while sqlx::query_scalar::<_, i64>(waits)
        .fetch_one(store.pool())
        .await
        .unwrap()
        == 0
    {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let again = "select passkit.register('d', 'pass.com.example.ticket', '1', 'c0ffee')";
    sqlx::raw_sql(again).execute(&mut *other).await.unwrap();
    let version = "select version from passkit.device where device_id = 'd'";
    let last = sqlx::query_scalar(version)
        .fetch_one(&mut *other)
        .await
        .unwrap();
    let forget = "select passkit.forget('d', 9223372036854775807)";
    assert!(
        sqlx::query_scalar::<_, bool>(forget)
            .fetch_one(&mut *other)
            .await
            .unwrap()
    );
    other.commit().await.unwrap();
    waiting.await.unwrap();
    assert_eq!(registered(store, &device("d")).await, ["2"]);
    (
        last,
        sqlx::query_scalar(version)
            .fetch_one(store.pool())
            .await
            .unwrap(),
    )
}

/// The version of the registration must be above every tag that the device ever got, although the call began earlier.
#[tokio::test]
async fn the_clock_of_a_device_removed_meanwhile_does_not_go_back() {
    let store = new_store().await;
    let (last, now) = remove_while_waiting(&store, |store| async move {
        store
            .register(&device("d"), &pass("2"), &token())
            .await
            .unwrap();
    })
    .await;
    assert!(now > last, "from {last} back to {now}");
}

#[tokio::test]
async fn the_clocks_of_a_batch_of_devices_removed_meanwhile_do_not_go_back() {
    let store = new_store().await;
    let (last, now) = remove_while_waiting(&store, |store| async move {
        let of = |name: &str, pass: PassId| Registration {
            device: device(name),
            push_token: token(),
            pass,
        };
        let many = [
            of("c", pass("1")),
            of("d", pass("2")),
            of("e", pass("3")),
            of("d", pass("2")),
        ];
        assert_eq!(store.register_many(&many).await.unwrap(), 3);
    })
    .await;
    assert!(now > last, "from {last} back to {now}");
    let zero = "select count(*) from passkit.device d where version <= 0
        or exists (select from passkit.registration r where r.device_id = d.device_id and r.version <> d.version)";
    assert_eq!(
        sqlx::query_scalar::<_, i64>(zero)
            .fetch_one(store.pool())
            .await
            .unwrap(),
        0
    );
}
