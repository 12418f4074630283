//! Delivery records between instances of different versions, and between callers that meet.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use passkit_server::delivery::{DeliveryLog as _, Event, Record, Subject};
use passkit_store_postgres::{PostgresStore, sqlx};
use tokio::task::JoinSet;

use crate::support::{deadlocks, device, new_store, pass, type_id};

pub(crate) fn record(subject: &Subject, event: Event) -> Record {
    Record {
        subject: subject.clone(),
        event,
        version: 7,
        count: 1,
        at: 1,
        detail: String::new(),
    }
}

/// Makes each call for delivery records.
pub(crate) async fn are_kept(store: &PostgresStore) {
    let subjects = [Subject::Pass(pass("1"))];
    let one = record(&subjects[0], Event::Fetched);
    store.record(std::slice::from_ref(&one)).await.unwrap();
    let read = store.records(&subjects).await.unwrap();
    assert_eq!(read, [[one.clone()]]);
    store.forget(&subjects).await.unwrap();
    assert_eq!(store.records(&subjects).await.unwrap(), [[]]);
    store.record(&[one]).await.unwrap();
    let time = SystemTime::now();
    assert!(store.discard_before(time, 10).await.unwrap());
    assert_eq!(store.records(&subjects).await.unwrap(), [[]]);
}

/// An instance with a newer version of the program may write events that this version does not know.
#[tokio::test]
async fn records_of_unknown_events_are_left_out_and_forgotten() {
    let store = new_store().await;
    let subjects = [Subject::Pass(pass("1")), Subject::Type(type_id())];
    let records = subjects.clone().map(|one| record(&one, Event::Fetched));
    store.record(&records).await.unwrap();
    let newer =
        "insert into passkit.delivery (kind, pass_type, name, event, version, count, at, detail)
        select kind, pass_type, name, 'newer', version, count, at, detail from passkit.delivery";
    sqlx::query(newer).execute(store.pool()).await.unwrap();
    let read = store.records(&subjects).await.unwrap();
    assert_eq!(read, records.map(|record| vec![record]));
    store.forget(&subjects[..1]).await.unwrap();
    let left: i64 = sqlx::query_scalar("select count(*) from passkit.delivery")
        .fetch_one(store.pool())
        .await
        .unwrap();
    assert_eq!(left, 2);
}

/// Calls that write, forget and discard the same records lock the same rows.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_calls_deadlock() {
    let store = std::sync::Arc::new(new_store().await);
    let mut subjects: Vec<_> = (0..40)
        .map(|number| Subject::Device(type_id(), device(format!("d{number}"))))
        .collect();
    let events = [Event::Told, Event::Asked, Event::Registered];
    let mut tasks = JoinSet::new();
    for task in 0..8 {
        subjects.rotate_left(7);
        let (store, subjects) = (store.clone(), subjects.clone());
        tasks.spawn(async move {
            for round in 0..25 {
                match task {
                    0 => store.forget(&subjects).await.unwrap(),
                    1 => {
                        let time = UNIX_EPOCH + Duration::from_micros(1_000);
                        _ = store.discard_before(time, 50).await.unwrap();
                    }
                    _ => {
                        let mut records: Vec<_> = subjects
                            .iter()
                            .flat_map(|one| events.map(|event| record(one, event)))
                            .collect();
                        if (task + round) % 2 == 0 {
                            records.reverse();
                        }
                        store.record(&records).await.unwrap();
                    }
                }
            }
        });
    }
    tasks.join_all().await;
    assert_eq!(deadlocks(&store).await, 0);
}
