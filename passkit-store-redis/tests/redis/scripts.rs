//! Each script run twice, as the driver does after a lost connection; and what they refuse.

use passkit_server::{Registered, RegistrationStore as _};
use passkit_store_redis::{
    Config, RedisStore,
    redis::{self, Script, aio::MultiplexedConnection},
};
use passkit_test_servers::redis::Single;

use crate::support::{connection, device, devices_of, held, pass, prefix, serial, token, type_id};

macro_rules! script {
    ($name:literal) => {
        Script::new(include_str!(concat!("../../src/scripts/", $name, ".lua")))
    };
}

async fn run<T: redis::FromRedisValue>(
    connection: &mut MultiplexedConnection,
    script: &Script,
    key: &str,
    args: &[&str],
) -> T {
    run_on(connection, script, &[key], args).await
}

async fn run_on<T: redis::FromRedisValue>(
    connection: &mut MultiplexedConnection,
    script: &Script,
    keys: &[&str],
    args: &[&str],
) -> T {
    let mut invocation = script.prepare_invoke();
    keys.iter().for_each(|key| {
        invocation.key(key);
    });
    invocation.arg(args).invoke_async(connection).await.unwrap()
}

async fn sorted(connection: &mut MultiplexedConnection, key: &str) -> Vec<(String, u64)> {
    redis::cmd("ZRANGE").arg(key).arg(&["0", "-1", "WITHSCORES"]).query_async(connection).await.unwrap()
}

async fn hash(connection: &mut MultiplexedConnection, key: &str) -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> =
        redis::cmd("HGETALL").arg(key).query_async(connection).await.unwrap();
    all.sort();
    all
}

async fn get(connection: &mut MultiplexedConnection, key: &str, field: &str) -> Option<String> {
    redis::cmd("HGET").arg(key).arg(field).query_async(connection).await.unwrap()
}

#[tokio::test]
async fn scripts_of_devices_run_twice() {
    let server = Single::start().unwrap();
    let mut c = connection(server.url()).await;
    let p = prefix();
    let key = p.as_str();
    let register = script!("register");
    let args = ["200", "aa", "pass.a/1", "150"];
    for _ in 0..2 {
        // The second run finds its own hint, and says the same.
        assert_eq!(run::<Vec<u64>>(&mut c, &register, key, &args).await, [1]);
    }
    assert_eq!(get(&mut c, key, "pass.a/1").await.unwrap(), "201:150");
    for _ in 0..2 {
        let again = ["300", "bb", "pass.a/1", "250", "pass.a/2", "300"];
        assert_eq!(run::<Vec<u64>>(&mut c, &register, key, &again).await, [0, 1]);
    }
    assert_eq!(get(&mut c, key, "t").await.unwrap(), "bb");

    let unregister = script!("unregister");
    for _ in 0..2 {
        let removed = run::<Option<u64>>(&mut c, &unregister, key, &["pass.a/1", "60", "one"]).await;
        assert_eq!(removed, Some(250), "the highest hint");
    }
    let before = hash(&mut c, key).await;
    assert_eq!(run::<Option<u64>>(&mut c, &unregister, key, &["pass.a/1", "60", "two"]).await, None);
    assert_eq!(hash(&mut c, key).await, before);
    assert_eq!(get(&mut c, key, "x").await.unwrap(), "250");

    // The last one takes the device with it, but not what a register under way may still run into.
    for _ in 0..2 {
        let removed = run::<Option<u64>>(&mut c, &unregister, key, &["pass.a/2", "60", "three"]).await;
        assert_eq!(removed, Some(300));
    }
    assert_eq!(get(&mut c, key, "t").await, None);
    let expires: i64 = redis::cmd("TTL").arg(key).query_async(&mut c).await.unwrap();
    assert!((1..=60).contains(&expires));
    assert_eq!(run::<Vec<u64>>(&mut c, &register, key, &["400", "cc", "pass.a/3", "300"]).await, [300]);
    assert_eq!(get(&mut c, key, "t").await, None, "nothing is stored for what is refused");
    assert_eq!(run::<Vec<u64>>(&mut c, &register, key, &["400", "cc", "pass.a/3", "301"]).await, [1]);
    let expires: i64 = redis::cmd("TTL").arg(key).query_async(&mut c).await.unwrap();
    assert_eq!(expires, -1);

    let condemn = script!("condemn");
    for _ in 0..2 {
        assert_eq!(run::<u64>(&mut c, &condemn, key, &["pass.a/3", "999", "60"]).await, 0);
        assert_eq!(run::<u64>(&mut c, &condemn, key, &["pass.a/4", "500", "60"]).await, 1);
    }
    assert_eq!(get(&mut c, key, "x").await.unwrap(), "500");

    let confirm = script!("confirm");
    let before = hash(&mut c, key).await;
    for _ in 0..2 {
        let all: Vec<String> = run(&mut c, &confirm, key, &["c"]).await;
        assert_eq!(all.len(), 2 * before.len());
        let some: Vec<Option<String>> = run(&mut c, &confirm, key, &["c", "t", "no such"]).await;
        assert_eq!(some, [Some("cc".to_owned()), None]);
        assert_eq!(hash(&mut c, key).await, before);
    }
    let none: Vec<String> = run(&mut c, &confirm, &format!("{p}none"), &["c"]).await;
    assert!(none.is_empty() && hash(&mut c, &format!("{p}none")).await.is_empty());

    let forget = script!("forget");
    assert_eq!(run::<Option<Vec<String>>>(&mut c, &forget, key, &["10", "60", "four"]).await, None);
    let all = ["9007199254740992", "60", "five"];
    for expected in [vec!["pass.a/3".to_owned(), "301".to_owned()], Vec::new()] {
        assert_eq!(run::<Option<Vec<String>>>(&mut c, &forget, key, &all).await, Some(expected));
    }
    let before = hash(&mut c, key).await;
    let another = ["9007199254740992", "60", "six"];
    assert_eq!(run::<Option<Vec<String>>>(&mut c, &forget, key, &another).await, None);
    assert_eq!(hash(&mut c, key).await, before);
}

#[tokio::test]
async fn scripts_of_hints_run_twice() {
    let server = Single::start().unwrap();
    let mut c = connection(server.url()).await;
    let p = prefix();
    let key = p.as_str();
    let hint = script!("hint");
    assert_eq!(run::<Vec<u64>>(&mut c, &hint, key, &["100", "d", "e"]).await, [100, 100]);
    assert_eq!(run::<Vec<u64>>(&mut c, &hint, key, &["100", "d", "d"]).await, [101, 102]);
    // A clock that is behind gives hints above the old ones all the same.
    assert_eq!(run::<Vec<u64>>(&mut c, &hint, key, &["7", "d"]).await, [103]);
    let unhint = script!("unhint");
    for _ in 0..2 {
        run::<u64>(&mut c, &unhint, key, &["d", "102", "e", "100"]).await;
        assert_eq!(hash(&mut c, key).await, [("d".into(), "103".into())]);
    }
}

#[tokio::test]
async fn scripts_of_buckets_run_twice() {
    let server = Single::start().unwrap();
    let mut c = connection(server.url()).await;
    let p = prefix();
    let key = p.as_str();
    // Micros of today, which would lose digits in other formats.
    let now = "1790000000123456";
    let mark = script!("mark");
    run::<u64>(&mut c, &mark, key, &[now, "1000", "1", "2"]).await;
    assert_eq!(get(&mut c, key, "1").await.unwrap(), "1790000000123456:1790000000");
    run::<u64>(&mut c, &mark, key, &[now, "1000", "1"]).await;
    assert_eq!(get(&mut c, key, "1").await.unwrap(), "1790000000123457:1790000001");
    assert_eq!(get(&mut c, key, "2").await.unwrap(), "1790000000123456:1790000000");
    let mark_all = script!("mark_all");
    for (clock, date) in [("1790000000123458", "1790000002"), ("1790000000123459", "1790000003")] {
        run::<u64>(&mut c, &mark_all, key, &[now, "1000"]).await;
        for (field, value) in [("\tc", clock), ("\tv", clock), ("\td", date), ("\tl", date)] {
            assert_eq!(get(&mut c, key, field).await.unwrap(), value);
        }
    }
    let raise = script!("raise");
    for _ in 0..2 {
        let values: Vec<Option<String>> =
            run(&mut c, &raise, key, &["1790000000999999", "\tc", "no such", "2"]).await;
        assert_eq!(values[0].as_deref(), Some("1790000000999999"));
        assert_eq!(values[1], None);
        assert_eq!(values[2].as_deref(), Some("1790000000123456:1790000000"));
    }
    let values: Vec<Option<String>> = run(&mut c, &raise, key, &["5", "\tc"]).await;
    assert_eq!(values[0].as_deref(), Some("1790000000999999"), "a clock never goes back");
}

#[tokio::test]
async fn publishing_runs_twice() {
    let server = Single::start().unwrap();
    let mut c = connection(server.url()).await;
    let p = prefix();
    let key = p.as_str();
    let now = "1790000000123456";
    let publish = script!("publish");
    let (debts, by_age) = (format!("{p}o"), format!("{p}a"));
    let keys = &[key, &debts, &by_age];
    for marked in [2, 0] {
        assert_eq!(run_on::<u64>(&mut c, &publish, keys, &[now, "1000", "1", "aa", "2", "bb"]).await, marked);
        assert_eq!(hash(&mut c, &debts).await, [("1".into(), now.into()), ("2".into(), now.into())]);
        for (field, value) in [
            ("1", "1790000000123456:1790000000"),
            ("\t#1", "aa"),
            ("\t#2", "bb"),
            ("\tc", "1790000000123456"),
            ("\tl", "1790000000"),
        ] {
            assert_eq!(get(&mut c, key, field).await.unwrap(), value);
        }
    }
    for marked in [1, 0] {
        assert_eq!(run_on::<u64>(&mut c, &publish, keys, &[now, "1000", "1", "aa", "2", "cc"]).await, marked);
        assert_eq!(get(&mut c, &debts, "1").await.as_deref(), Some(now));
        assert_eq!(get(&mut c, &debts, "2").await.unwrap(), "1790000000123457");
        assert_eq!(get(&mut c, key, "1").await.unwrap(), "1790000000123456:1790000000");
        assert_eq!(get(&mut c, key, "2").await.unwrap(), "1790000000123457:1790000001");
        assert_eq!(get(&mut c, key, "\tc").await.unwrap(), "1790000000123457");
    }
}

#[tokio::test]
async fn scripts_of_debts_run_twice() {
    let server = Single::start().unwrap();
    let mut c = connection(server.url()).await;
    let p = prefix();
    let (debts, by_age) = (format!("{p}o"), format!("{p}a"));
    let keys = &[p.as_str(), &debts, &by_age];
    let now = "1790000000123456";
    let mark = script!("mark");
    for version in [now, "1790000000123457"] {
        run_on::<u64>(&mut c, &mark, keys, &[now, "1000", "1", "2"]).await;
        assert_eq!(get(&mut c, &p, "1").await.unwrap().split_once(':').unwrap().0, version);
        assert_eq!(hash(&mut c, &debts).await, [("1".into(), version.into()), ("2".into(), version.into())]);
    }
    let advance = script!("advance");
    let version = "1790000000123457";
    for _ in 0..2 {
        // To a page; the same of a debt that is not there; and to the end.
        let to = ["1", version, "@7-:\nx", "3", version, "@x", "2", version, "end", "4", version, "end"];
        run_on::<u64>(&mut c, &advance, keys, &to).await;
        assert_eq!(hash(&mut c, &debts).await, [("1".into(), format!("{version}:{version}:7-:\nx"))]);
        assert_eq!(sorted(&mut c, &by_age).await, [("1".into(), 1_790_000_000_123_456)]);
    }
    // Owed again, and the older version settled: it stays, as one that was owed then.
    run_on::<u64>(&mut c, &mark, keys, &["1790000000200000", "1000", "1"]).await;
    assert_eq!(get(&mut c, &debts, "1").await.unwrap(), format!("1790000000200000:{version}:7-:\nx"));
    assert_eq!(sorted(&mut c, &by_age).await, [("1".into(), 1_790_000_000_123_456)]);
    for _ in 0..2 {
        run_on::<u64>(&mut c, &advance, keys, &["1", version, "end"]).await;
        assert_eq!(hash(&mut c, &debts).await, [("1".into(), "1790000000200000".into())]);
        assert_eq!(sorted(&mut c, &by_age).await, [("1".into(), 1_790_000_000_200_000)]);
    }

    // A whole type, in place of what says that it is being marked.
    let _: () = redis::cmd("ZADD").arg(&by_age).arg(5).arg("\tp1").query_async(&mut c).await.unwrap();
    let mark_all = script!("mark_all");
    for version in ["1790000000300000", "1790000000300001"] {
        let args = [now, "1000", "1790000000300000", "\tp1"];
        assert_eq!(run_on::<String>(&mut c, &mark_all, keys, &args).await, version);
        assert_eq!(get(&mut c, &p, "\tv").await.as_deref(), Some(version));
        assert_eq!(get(&mut c, &debts, "\tall").await.as_deref(), Some(version));
        let aged = sorted(&mut c, &by_age).await;
        assert_eq!(aged, [("\tall".into(), 1_790_000_000_123_456), ("1".into(), 1_790_000_000_200_000)]);
    }
}

#[tokio::test]
async fn scripts_of_queues_run_twice() {
    let server = Single::start().unwrap();
    let mut c = connection(server.url()).await;
    let p = prefix();
    let key = p.as_str();
    let (note, unnote) = (script!("note"), script!("unnote"));
    for _ in 0..2 {
        run::<u64>(&mut c, &note, key, &["3", "17"]).await;
        let notes = hash(&mut c, key).await;
        let now = passkit_server::clock::now_micros();
        assert!(
            notes.len() == 2 && notes.iter().all(|(_, at)| now.abs_diff(at.parse().unwrap()) < 10_000_000)
        );
    }
    let noted = get(&mut c, key, "3").await.unwrap();
    for _ in 0..2 {
        // Too new, another, and none.
        run::<u64>(&mut c, &unnote, key, &["60000000", "3", &noted]).await;
        run::<u64>(&mut c, &unnote, key, &["0", "3", "5", "4", &noted]).await;
        assert_eq!(hash(&mut c, key).await.len(), 2);
    }
    for _ in 0..2 {
        run::<u64>(&mut c, &unnote, key, &["0", "3", &noted]).await;
        assert_eq!(get(&mut c, key, "3").await, None);
    }

    let (held, times) = (format!("{p}h"), format!("{p}z"));
    let keys = &[held.as_str(), &times];
    let hold = script!("hold");
    for _ in 0..2 {
        run_on::<u64>(&mut c, &hold, keys, &["d", "x", "1790000000123456", "e", "y", "", "f", "", ""]).await;
        let all = [("\t", ""), ("d", "x"), ("e", "y")].map(|(field, value)| (field.into(), value.into()));
        assert_eq!(hash(&mut c, &held).await, all);
        assert_eq!(sorted(&mut c, &times).await, [("d".into(), 1_790_000_000_123_456)]);
    }
    for _ in 0..2 {
        run_on::<u64>(&mut c, &hold, keys, &["d", "x", "", "e", "", ""]).await;
        assert_eq!(hash(&mut c, &held).await, [("\t".into(), String::new()), ("d".into(), "x".into())]);
        assert_eq!(sorted(&mut c, &times).await, []);
    }

    let lease_key = format!("{p}l");
    let (lease, release) = (script!("lease"), script!("release"));
    for _ in 0..2 {
        assert_eq!(run::<u64>(&mut c, &lease, &lease_key, &["a", "60000"]).await, 1);
        assert_eq!(run::<u64>(&mut c, &lease, &lease_key, &["b", "60000"]).await, 0);
        run::<u64>(&mut c, &release, &lease_key, &["b"]).await;
        assert_eq!(run::<u64>(&mut c, &lease, &lease_key, &["", "60000"]).await, 0);
    }
    let expires: i64 = redis::cmd("PTTL").arg(&lease_key).query_async(&mut c).await.unwrap();
    assert!((1..=60_000).contains(&expires));
    for _ in 0..2 {
        run::<u64>(&mut c, &release, &lease_key, &["a"]).await;
        let there: bool = redis::cmd("EXISTS").arg(&lease_key).query_async(&mut c).await.unwrap();
        assert!(!there);
    }
}

/// A server that restarts, or takes over, knows no scripts.
#[tokio::test]
async fn scripts_are_sent_again_when_the_server_lost_them() {
    let server = Single::start().unwrap();
    let store = RedisStore::connect(server.url(), Config::new().prefix(prefix())).await.unwrap();
    let mut c = connection(server.url()).await;
    for round in 0..3 {
        let _: () = redis::cmd("SCRIPT").arg("FLUSH").query_async(&mut c).await.unwrap();
        let me = device("d");
        let one = pass(round.to_string());
        assert_eq!(store.register(&me, &one, &token()).await.unwrap(), Registered::Created);
        let _: () = redis::cmd("SCRIPT").arg("FLUSH").query_async(&mut c).await.unwrap();
        // One bucket each: with several in one call, each is sent again.
        let serials: Vec<_> = (0..20).map(|i| serial(i.to_string())).collect();
        store.mark_updated(&type_id(), &serials).await.unwrap();
        store.mark_all_updated(&type_id()).await.unwrap();
    }
    assert_eq!(held(&store, &device("d")).await, ["0", "1", "2"]);
    assert_eq!(devices_of(&store, &pass("1")).await, ["d"]);
}
