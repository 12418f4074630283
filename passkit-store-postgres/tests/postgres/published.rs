use passkit_server::{ContentDigest, Owed, PublishedContent, PushQueue, RegistrationStore, SerialNumber};
use passkit_store_postgres::{Config, PostgresStore};
use tokio::task::JoinSet;

use crate::support::{device, new_database, new_store, pass, serial, token, type_id};

fn content(name: &str, content: u8) -> (SerialNumber, ContentDigest) {
    (serial(name), [content; 32])
}

/// A device is told of exactly what was marked.
#[tokio::test]
async fn only_new_content_is_marked() {
    let store = new_store().await;
    let (device, type_id) = (device("d"), type_id());
    for name in ["1", "2", "3"] {
        store.register(&device, &pass(name), &token()).await.unwrap();
    }
    assert_eq!(store.published(&pass("1")).await.unwrap(), None);
    let mut tag = store.updated_since(&device, &type_id, None).await.unwrap().tag;
    let mut told = async || {
        let changes = store.updated_since(&device, &type_id, Some(tag)).await.unwrap();
        tag = changes.tag;
        let mut told: Vec<_> = changes.serials.iter().map(|serial| serial.as_str().to_owned()).collect();
        told.sort();
        told
    };

    store.publish(&type_id, &[content("1", 1), content("2", 1)]).await.unwrap();
    assert_eq!(told().await, ["1", "2"]);
    let before = store.pass_state(&pass("1")).await.unwrap();
    store.publish(&type_id, &[content("2", 1), content("1", 1)]).await.unwrap();
    store.publish(&type_id, &[]).await.unwrap();
    assert_eq!(told().await, Vec::<String>::new());
    assert_eq!(store.pass_state(&pass("1")).await.unwrap(), before);

    // One as it was, one new, one never seen.
    store.publish(&type_id, &[content("1", 1), content("2", 2), content("3", 1)]).await.unwrap();
    assert_eq!(told().await, ["2", "3"]);
    assert_eq!(store.pass_state(&pass("1")).await.unwrap(), before);
    assert_eq!(store.published(&pass("2")).await.unwrap(), Some([2; 32]));

    // Marks made otherwise leave the content, also of a pass that has none.
    store.mark_updated(&type_id, &[serial("1"), serial("unpublished")]).await.unwrap();
    store.mark_all_updated(&type_id).await.unwrap();
    assert_eq!(told().await, ["1", "2", "3"]);
    assert_eq!(store.published(&pass("1")).await.unwrap(), Some([1; 32]));
    assert_eq!(store.published(&pass("unpublished")).await.unwrap(), None);
    store.publish(&type_id, &[content("1", 1), content("2", 2), content("3", 1)]).await.unwrap();
    assert_eq!(told().await, Vec::<String>::new());
    store.publish(&type_id, &[content("1", 0)]).await.unwrap();
    assert_eq!(told().await, ["1"]);
    assert!(store.pass_state(&pass("1")).await.unwrap().last_modified > before.last_modified);
}

/// Exactly what was marked is owed, with the version of its mark.
#[tokio::test]
async fn what_is_published_is_owed() {
    let store = new_store().await;
    store.publish(&type_id(), &[content("1", 1), content("2", 1)]).await.unwrap();
    let first = store.pass_state(&pass("1")).await.unwrap().version;
    store.publish(&type_id(), &[content("1", 1), content("2", 2)]).await.unwrap();
    let second = store.pass_state(&pass("2")).await.unwrap().version;
    let debts = store.debts(&type_id(), 9).await.unwrap();
    let mut owed: Vec<_> = debts.into_iter().map(|debt| (debt.owed, debt.version)).collect();
    owed.sort();
    assert!(second > first);
    assert_eq!(owed, [(Owed::Pass(serial("1")), first), (Owed::Pass(serial("2")), second)]);
}

/// More than one statement takes.
#[tokio::test]
async fn a_large_folder_is_published_whole() {
    let store = new_store().await;
    let contents: Vec<_> = (0..4_500).map(|i| content(&format!("{i}"), 7)).collect();
    store.publish(&type_id(), &contents).await.unwrap();
    for name in ["0", "1999", "2000", "4499"] {
        assert_eq!(store.published(&pass(name)).await.unwrap(), Some([7; 32]), "{name}");
    }
    assert_eq!(store.published(&pass("4500")).await.unwrap(), None);
}

/// Two instances that see each change of a folder at the same time, while others mark: each content is marked once.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn instances_that_publish_the_same_mark_it_once() {
    const NAMES: [&str; 5] = ["1", "2", "3", "4", "5"];
    let url = new_database().await;
    let stores = [
        PostgresStore::connect(&url, Config::new()).await.unwrap(),
        PostgresStore::connect(&url, Config::new()).await.unwrap(),
    ];
    stores[0].migrate().await.unwrap();
    for round in 0..40 {
        let mut publishing = JoinSet::new();
        for task in 0..6 {
            let store = stores[task % 2].clone();
            publishing.spawn(async move {
                // In no common order.
                let mut contents = NAMES.map(|name| content(name, round));
                contents.rotate_left(task);
                store.publish(&type_id(), &contents).await.unwrap();
                Some(store.pass_state(&pass("1")).await.unwrap())
            });
            let store = stores[(task + 1) % 2].clone();
            publishing.spawn(async move {
                store.mark_updated(&type_id(), &[serial("other"), serial("another")]).await.unwrap();
                None
            });
        }
        // A second mark would have moved what the first publisher saw.
        let states: Vec<_> = publishing.join_all().await.into_iter().flatten().collect();
        assert!(states.iter().all(|state| *state == states[0]), "round {round}: {states:?}");
        for name in NAMES {
            assert_eq!(stores[0].published(&pass(name)).await.unwrap(), Some([round; 32]));
        }
    }
    let deadlocks: i64 =
        sqlx::query_scalar("select deadlocks from pg_stat_database where datname = current_database()")
            .fetch_one(stores[0].pool())
            .await
            .unwrap();
    assert_eq!(deadlocks, 0);
}
