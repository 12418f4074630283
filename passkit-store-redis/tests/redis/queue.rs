//! Debts that calls which were cut off leave, notes that are lost, and long queues.

use std::time::Duration;

use passkit_server::{
    Owed, PublishedContent as _, PushQueue as _, Reached, RegistrationStore as _, SerialNumber,
    StoreMaintenance as _, clock,
};
use passkit_store_redis::{Config, RedisStore, redis};
use passkit_test_servers::redis::{Node, SentinelSet, Single};

use crate::support::{connection, pass, prefix, serial, told, type_id};

fn many(count: usize) -> Vec<SerialNumber> {
    (0..count).map(|i| serial(i.to_string())).collect()
}

async fn open(url: &str, prefix: &str) -> RedisStore {
    RedisStore::connect(url, Config::new().prefix(prefix)).await.unwrap()
}

/// The process ended after some buckets were marked.
#[tokio::test]
async fn a_mark_of_a_type_that_was_cut_off_is_finished() {
    let server = Single::start().unwrap();
    let prefix = prefix();
    let store = open(server.url(), &prefix).await;
    let mut c = connection(server.url()).await;
    store.mark_and_owe(&type_id(), &[serial("1")]).await.unwrap();
    let by_age = format!("{prefix}a{{{}:0}}", type_id());
    let begun = |ago: u64| {
        let mut cmd = redis::cmd("ZADD");
        cmd.arg(&by_age).arg(clock::now_micros() - ago * 1_000_000).arg(format!("\tp{ago}"));
        cmd
    };
    let _: () = begun(30).query_async(&mut c).await.unwrap();
    let before = store.pass_state(&pass("2")).await.unwrap();
    // It may still be under way. Bucket 0 was not noted: a fresh process looks into all.
    let store = open(server.url(), &prefix).await;
    let owing = store.owing().await.unwrap();
    assert!(owing[0].debts == 2 && owing[0].since.is_some());
    assert_eq!(store.debts(&type_id(), 10).await.unwrap().len(), 1);
    assert_eq!(store.pass_state(&pass("2")).await.unwrap(), before);

    let _: () = begun(90).query_async(&mut c).await.unwrap();
    store.debts(&type_id(), 10).await.unwrap();
    let debts = store.debts(&type_id(), 10).await.unwrap();
    let of_type = debts.iter().find(|debt| debt.owed == Owed::Type).unwrap();
    for i in 0..200 {
        let state = store.pass_state(&pass(i.to_string())).await.unwrap();
        assert_eq!(state.version, of_type.version, "{i}");
    }
    let left: Vec<String> =
        redis::cmd("ZRANGE").arg(&by_age).arg(&[0, -1]).query_async(&mut c).await.unwrap();
    assert!(left.contains(&"\tp30".to_owned()) && !left.contains(&"\tp90".to_owned()));
}

#[tokio::test]
async fn lost_notes_are_found_again() {
    let server = Single::start().unwrap();
    let prefix = prefix();
    let store = open(server.url(), &prefix).await;
    let mut c = connection(server.url()).await;
    store.mark_and_owe(&type_id(), &many(100)).await.unwrap();
    assert_eq!(store.owing().await.unwrap()[0].debts, 100);
    let notes = format!("{prefix}q{{{}}}", type_id());
    for repaired in [false, true] {
        let _: () = redis::cmd("DEL").arg(&notes).query_async(&mut c).await.unwrap();
        if repaired {
            let _: () = redis::cmd("DEL").arg(format!("{prefix}types")).query_async(&mut c).await.unwrap();
            assert_eq!(store.owing().await.unwrap(), []);
            store.repair().await.unwrap();
        } else {
            assert_eq!(store.owing().await.unwrap(), [], "all buckets are looked into only now and then");
            // A process that starts does.
            open(server.url(), &prefix).await.owing().await.unwrap();
        }
        assert_eq!(store.owing().await.unwrap()[0].debts, 100);
        assert_eq!(store.debts(&type_id(), 1_000).await.unwrap().len(), 100);
    }
}

/// Notes are removed when they are old and nothing is owed there, and so no longer looked behind.
#[tokio::test]
async fn old_notes_of_empty_buckets_go() {
    let server = Single::start().unwrap();
    let prefix = prefix();
    let store = open(server.url(), &prefix).await;
    let mut c = connection(server.url()).await;
    store.mark_and_owe(&type_id(), &many(3)).await.unwrap();
    let notes = format!("{prefix}q{{{}}}", type_id());
    let settle = async |limit| {
        let debts = store.debts(&type_id(), limit).await.unwrap();
        let done: Vec<_> = debts
            .into_iter()
            .map(|debt| (debt.owed, Reached { version: debt.version, next: None }))
            .collect();
        store.advance(&type_id(), &done).await.unwrap();
    };
    settle(2).await;
    let noted: Vec<u64> = redis::cmd("HKEYS").arg(&notes).query_async(&mut c).await.unwrap();
    assert_eq!(noted.len(), 3, "the serial numbers are in different buckets");
    for (settled, left) in [(false, 3), (true, 1)] {
        if settled {
            let before = clock::now_micros() - 601_000_000;
            for bucket in &noted {
                let _: () =
                    redis::cmd("HSET").arg(&notes).arg(bucket).arg(before).query_async(&mut c).await.unwrap();
            }
        }
        assert_eq!(store.owing().await.unwrap()[0].debts, 1);
        let count: usize = redis::cmd("HLEN").arg(&notes).query_async(&mut c).await.unwrap();
        assert_eq!(count, left);
    }
    settle(10).await;
    assert_eq!(store.owing().await.unwrap(), []);
    let count: usize = redis::cmd("HLEN").arg(&notes).query_async(&mut c).await.unwrap();
    assert_eq!(count, 0);
}

#[tokio::test]
async fn what_is_published_is_owed_once() {
    let server = Single::start().unwrap();
    let store = open(server.url(), &prefix()).await;
    let contents: Vec<_> = many(2_000).into_iter().map(|serial| (serial, [7; 32])).collect();
    for _ in 0..2 {
        store.publish(&type_id(), &contents).await.unwrap();
        let debts = store.debts(&type_id(), 10_000).await.unwrap();
        assert_eq!(debts.len(), 2_000);
        for debt in &debts[..50] {
            let Owed::Pass(serial) = &debt.owed else { panic!("a type") };
            let state = store.pass_state(&pass(serial.as_str())).await.unwrap();
            assert_eq!(state.version, debt.version);
        }
    }
}

/// However long the queue, the server is never busy with it for long: no command is about more than a part of it.
#[tokio::test]
async fn long_queues_are_read_in_small_steps() {
    let server = Node::start(&[]).unwrap();
    // One bucket, so that nothing else divides the queue.
    let store = RedisStore::connect(&server.url(), Config::new().buckets(1)).await.unwrap();
    let serials = many(60_000);
    store.mark_updated(&type_id(), &serials).await.unwrap();
    store.mark_and_owe(&type_id(), &serials).await.unwrap();
    store.mark_all_and_owe(&type_id()).await.unwrap();
    assert_eq!(store.owing().await.unwrap()[0].debts, 60_001);
    let mut left = 60_001;
    let mut rounds = 0;
    while left > 0 {
        let limit = if rounds < 20 { 256 } else { 20_000 };
        let debts = store.debts(&type_id(), limit).await.unwrap();
        assert!((limit.min(left)..=limit).contains(&debts.len()), "{} of {left}", debts.len());
        left -= debts.len();
        let done: Vec<_> = debts
            .into_iter()
            .map(|debt| (debt.owed, Reached { version: debt.version, next: None }))
            .collect();
        store.advance(&type_id(), &done).await.unwrap();
        rounds += 1;
    }
    assert_eq!(store.owing().await.unwrap(), []);
    // Marks in steps of at most 1,000, everything else in steps of at most 250.
    let steps = 60_000 / 250;
    let stats = server.ask(&["INFO", "commandstats"]).unwrap();
    for (command, least) in [("evalsha", 60 + 2 * steps), ("hmget", steps), ("zrange", steps)] {
        let of_command = stats.split_once(&format!("cmdstat_{command}:calls=")).unwrap().1;
        let calls: usize = of_command.split(',').next().unwrap().parse().unwrap();
        println!("{command}: {calls} calls");
        assert!(calls >= least, "{command}: {calls} calls, fewer than {least}");
    }
    store.stats().await.unwrap();
}

/// Nothing that a worker or a publisher is told may be lost with a master.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queues_wait_for_replicas() {
    let servers = SentinelSet::start().unwrap();
    let config = Config::new().min_replicas(2).replica_timeout(Duration::from_millis(200));
    let store = RedisStore::connect(&servers.url(), config).await.unwrap();
    let type_id = type_id();
    in_time!(store.mark_and_owe(&type_id, &[serial("1")]));
    let version = in_time!(store.debts(&type_id, 1))[0].version;
    let settled = [(Owed::Pass(serial("1")), Reached { version, next: None })];
    servers.nodes[2].pause().unwrap();
    for attempt in 0..2 {
        for error in [
            store.mark_and_owe(&type_id, &[serial("2")]).await.unwrap_err(),
            store.mark_all_and_owe(&type_id).await.unwrap_err(),
            store.publish(&type_id, &[(serial("2"), [7; 32])]).await.unwrap_err(),
            store.lease(&type_id, "a", Duration::from_secs(1)).await.map(drop).unwrap_err(),
            store.advance(&type_id, &settled).await.unwrap_err(),
            store.unhold(&type_id, &[crate::support::device("d")]).await.unwrap_err(),
        ] {
            assert!(told(&error).contains(" of 2 replicas"), "attempt {attempt}: {}", told(&error));
        }
    }
    servers.nodes[2].resume().unwrap();
}
