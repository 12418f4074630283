//! Delivery records: what is in Redis, and scripts that run twice.

use std::time::{Duration, UNIX_EPOCH};

use passkit_server::delivery::{DeliveryLog as _, Event, Record, Subject};
use passkit_store_redis::{Config, RedisStore, redis};
use passkit_test_servers::redis::Single;

use crate::{
    scripts::{run, script},
    support::{connection, device, pass, prefix, type_id},
};

fn record(subject: &Subject, event: Event, at: u64) -> Record {
    Record {
        subject: subject.clone(),
        event,
        version: 7,
        count: 1,
        at,
        detail: String::new(),
    }
}

async fn store(url: &str) -> (RedisStore, String) {
    let prefix = prefix();
    let config = Config::new().prefix(prefix.clone());
    (RedisStore::connect(url, config).await.unwrap(), prefix)
}

/// Returns the keys of the store that start with this kind, and how many members or fields they have.
async fn keys(
    connection: &mut redis::aio::MultiplexedConnection,
    prefix: &str,
    kind: &str,
) -> Vec<(String, u64)> {
    let pattern = format!("{prefix}{kind}*");
    let all: Vec<String> = redis::cmd("KEYS")
        .arg(pattern)
        .query_async(connection)
        .await
        .unwrap();
    let mut counted = Vec::new();
    for key in all {
        let count = if kind == "f" { "ZCARD" } else { "HLEN" };
        let count = redis::cmd(count)
            .arg(&key)
            .query_async(connection)
            .await
            .unwrap();
        counted.push((key, count));
    }
    counted
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_left_of_records_that_were_forgotten_or_discarded() {
    let server = Single::start().unwrap();
    let (store, prefix) = store(server.url()).await;
    let mut c = connection(server.url()).await;
    let mut subjects: Vec<_> = (0..500)
        .map(|number| Subject::Device(type_id(), device(format!("d{number}"))))
        .collect();
    subjects.push(Subject::Pass(pass("}{")));
    let records: Vec<_> = subjects
        .iter()
        .flat_map(|one| {
            [
                record(one, Event::Asked, 10),
                record(one, Event::Told, 2_000),
            ]
        })
        .collect();
    store.record(&records).await.unwrap();
    assert_eq!(keys(&mut c, &prefix, "e").await.len(), 501);
    let indexed: u64 = keys(&mut c, &prefix, "f")
        .await
        .iter()
        .map(|(_, count)| count)
        .sum();
    assert_eq!(indexed, 501);
    store.forget(&subjects[..200]).await.unwrap();
    let discard = async |micros| {
        let time = UNIX_EPOCH + Duration::from_micros(micros);
        while !store.discard_before(time, 100).await.unwrap() {}
    };
    // Half of the records are old.
    discard(1_000).await;
    let left = store.records(&subjects[200..]).await.unwrap();
    assert!(
        left.iter()
            .all(|records| records.len() == 1 && records[0].event == Event::Told)
    );
    discard(3_000).await;
    for kind in ["e", "f"] {
        assert_eq!(keys(&mut c, &prefix, kind).await, [], "{kind}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scripts_of_records_run_twice() {
    let server = Single::start().unwrap();
    let mut c = connection(server.url()).await;
    let prefix = prefix();
    let key = format!("{prefix}e{{type:pass.a:}}");
    let merge = script!("delivery_record");
    for call in ["one", "one", "two", "two"] {
        let args = [call, "fetched", "7", "2", "1700000000000000", "a:b"];
        let _is_new: u64 = run(&mut c, &merge, &key, &args).await;
    }
    let value: String = redis::cmd("HGET")
        .arg(&key)
        .arg("fetched")
        .query_async(&mut c)
        .await
        .unwrap();
    assert_eq!(value, "7:4:1700000000000000:a:b");
    let discard = script!("delivery_discard");
    for _ in 0..2 {
        let oldest: String = run(&mut c, &discard, &key, &["1700000000000000"]).await;
        assert_eq!(oldest, "1700000000000000");
    }
    for _ in 0..2 {
        let oldest: String = run(&mut c, &discard, &key, &["1700000000000001"]).await;
        assert_eq!(oldest, "");
    }
    let index = format!("{prefix}f{{1}}");
    let unindex = script!("delivery_unindex");
    for (time, left) in [
        ("1700000000000001", 1),
        ("1700000000000000", 0),
        ("1700000000000000", 0),
    ] {
        if left == 1 {
            let add = redis::cmd("ZADD")
                .arg(&index)
                .arg("1700000000000000")
                .arg("type:pass.a:")
                .query_async(&mut c)
                .await;
            let () = add.unwrap();
        }
        let _done: u64 = run(&mut c, &unindex, &index, &[time, "type:pass.a:"]).await;
        let found: u64 = redis::cmd("ZCARD")
            .arg(&index)
            .query_async(&mut c)
            .await
            .unwrap();
        assert_eq!(found, left);
    }
}

/// An instance with a newer version of the program may write events that this version does not know.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_of_unknown_events_are_left_out_and_forgotten() {
    let server = Single::start().unwrap();
    let (store, prefix) = store(server.url()).await;
    let mut c = connection(server.url()).await;
    let subject = Subject::Type(type_id());
    let known = record(&subject, Event::Fetched, 10);
    store.record(std::slice::from_ref(&known)).await.unwrap();
    let key = format!("{prefix}e{{type:{}:}}", type_id());
    let () = redis::cmd("HSET")
        .arg(&key)
        .arg("newer")
        .arg("7:1:10:")
        .query_async(&mut c)
        .await
        .unwrap();
    let subjects = [subject];
    assert_eq!(store.records(&subjects).await.unwrap(), [vec![known]]);
    store.forget(&subjects).await.unwrap();
    assert_eq!(keys(&mut c, &prefix, "e").await, []);
}
