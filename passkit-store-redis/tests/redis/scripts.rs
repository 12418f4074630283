//! Runs each script twice, as happens after a lost connection. Also checks what the scripts refuse.

use passkit_server::{
    Changed,
    store::{Registered, RegistrationStore as _},
};
pub(crate) use passkit_store_redis::redis::aio::MultiplexedConnection;
use passkit_store_redis::{
    Config, RedisStore,
    redis::{self, Script},
};
use passkit_test_servers::redis::Single;

use crate::support::{
    connection, device, devices_of, mark, pass, prefix, registered, serial, token, type_id,
};

/// What `unregister.lua` returns: the number of the entry in the index of the pass, and the number of the entry in the
/// index of the type. The second is empty if the device has other registrations of the type.
pub(crate) type Removed = Option<(u64, String)>;

macro_rules! script {
    ($name:literal) => {
        passkit_store_redis::redis::Script::new(include_str!(concat!(
            "../../src/engine/scripts/",
            $name,
            ".lua"
        )))
    };
}

pub(crate) use script;

pub(crate) async fn run<T: redis::FromRedisValue>(
    connection: &mut MultiplexedConnection,
    script: &Script,
    key: &str,
    args: &[impl AsRef<str>],
) -> T {
    run_on(connection, script, &[key], args).await
}

async fn run_on<T: redis::FromRedisValue>(
    connection: &mut MultiplexedConnection,
    script: &Script,
    keys: &[&str],
    args: &[impl AsRef<str>],
) -> T {
    let mut invocation = script.prepare_invoke();
    keys.iter().for_each(|key| {
        invocation.key(key);
    });
    let args: Vec<&str> = args.iter().map(AsRef::as_ref).collect();
    invocation.arg(args).invoke_async(connection).await.unwrap()
}

async fn sorted(connection: &mut MultiplexedConnection, key: &str) -> Vec<(String, u64)> {
    redis::cmd("ZRANGE")
        .arg(key)
        .arg(&["0", "-1", "WITHSCORES"])
        .query_async(connection)
        .await
        .unwrap()
}

async fn hash(connection: &mut MultiplexedConnection, key: &str) -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = redis::cmd("HGETALL")
        .arg(key)
        .query_async(connection)
        .await
        .unwrap();
    all.sort();
    all
}

async fn get(connection: &mut MultiplexedConnection, key: &str, field: &str) -> Option<String> {
    redis::cmd("HGET")
        .arg(key)
        .arg(field)
        .query_async(connection)
        .await
        .unwrap()
}

#[tokio::test]
async fn scripts_of_devices_run_twice() {
    let server = Single::start().unwrap();
    let mut c = connection(server.url()).await;
    let p = prefix();
    let key = p.as_str();
    let register = script!("register");
    let args = ["200", "aa", "1", "pass.a", "160", "pass.a/1", "150"];
    for _ in 0..2 {
        // The second run finds its own entry and gives the same answer.
        assert_eq!(run::<Vec<u64>>(&mut c, &register, key, &args).await, [1]);
        assert_eq!(
            get(&mut c, key, "pass.a").await.unwrap(),
            "160",
            "one registration"
        );
    }
    assert_eq!(get(&mut c, key, "pass.a/1").await.unwrap(), "201:150");
    for _ in 0..2 {
        let again = [
            "300", "bb", "2", "pass.a", "270", "pass.b", "295", "pass.a/1", "250", "pass.a/2",
            "300", "pass.b/1", "290",
        ];
        assert_eq!(
            run::<Vec<u64>>(&mut c, &register, key, &again).await,
            [0, 1, 1]
        );
        assert_eq!(get(&mut c, key, "pass.a").await.unwrap(), "270:2");
        assert_eq!(get(&mut c, key, "pass.b").await.unwrap(), "295");
    }
    assert_eq!(get(&mut c, key, "t").await.unwrap(), "bb");

    let unregister = script!("unregister");
    for _ in 0..2 {
        let removed = run::<Removed>(
            &mut c,
            &unregister,
            key,
            &["pass.a/1", "pass.a", "60", "one"],
        )
        .await;
        assert_eq!(
            removed,
            Some((250, String::new())),
            "the highest entry, and not the last of its type"
        );
        assert_eq!(get(&mut c, key, "pass.a").await.unwrap(), "270");
    }
    let before = hash(&mut c, key).await;
    assert_eq!(
        run::<Removed>(
            &mut c,
            &unregister,
            key,
            &["pass.a/1", "pass.a", "60", "two"]
        )
        .await,
        None
    );
    assert_eq!(hash(&mut c, key).await, before);
    assert_eq!(get(&mut c, key, "x").await.unwrap(), "250");
    for _ in 0..2 {
        let removed = run::<Removed>(
            &mut c,
            &unregister,
            key,
            &["pass.b/1", "pass.b", "60", "of b"],
        )
        .await;
        assert_eq!(removed, Some((290, "295".into())));
        assert_eq!(get(&mut c, key, "pass.b").await, None);
        assert_eq!(
            get(&mut c, key, "x").await.unwrap(),
            "295",
            "neither entry can be relied on"
        );
    }

    // When the last registration is removed, the device is removed too. Only the tombstone stays, because a register under
    // way may need it.
    for _ in 0..2 {
        let removed = run::<Removed>(
            &mut c,
            &unregister,
            key,
            &["pass.a/2", "pass.a", "60", "three"],
        )
        .await;
        assert_eq!(removed, Some((300, "270".into())));
    }
    assert_eq!(get(&mut c, key, "t").await, None);
    assert_eq!(get(&mut c, key, "x").await.unwrap(), "300");
    let expires: i64 = redis::cmd("TTL")
        .arg(key)
        .query_async(&mut c)
        .await
        .unwrap();
    assert!((1..=60).contains(&expires));
    for (of_type, of_pass) in [("400", "300"), ("300", "400")] {
        let args = ["400", "cc", "1", "pass.a", of_type, "pass.a/3", of_pass];
        assert_eq!(
            run::<Vec<u64>>(&mut c, &register, key, &args).await,
            [300],
            "each of the two entries counts"
        );
    }
    assert_eq!(
        get(&mut c, key, "t").await,
        None,
        "nothing is stored for what is refused"
    );
    let args = ["400", "cc", "1", "pass.a", "302", "pass.a/3", "301"];
    assert_eq!(run::<Vec<u64>>(&mut c, &register, key, &args).await, [1]);
    let expires: i64 = redis::cmd("TTL")
        .arg(key)
        .query_async(&mut c)
        .await
        .unwrap();
    assert_eq!(expires, -1);
    // While the type has a registration, an older entry of the type is enough.
    let args = ["400", "cc", "1", "pass.a", "9", "pass.a/5", "303"];
    assert_eq!(run::<Vec<u64>>(&mut c, &register, key, &args).await, [1]);
    assert_eq!(get(&mut c, key, "pass.a").await.unwrap(), "302:2");

    let tombstone = script!("tombstone");
    for _ in 0..2 {
        assert_eq!(
            run::<u64>(&mut c, &tombstone, key, &["pass.a/3", "999", "60"]).await,
            0
        );
        assert_eq!(
            run::<u64>(&mut c, &tombstone, key, &["pass.a", "999", "60"]).await,
            0
        );
        assert_eq!(
            run::<u64>(&mut c, &tombstone, key, &["pass.a/4", "500", "60"]).await,
            1
        );
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
    assert_eq!(
        run::<Option<Vec<String>>>(&mut c, &forget, key, &["10", "60", "four"]).await,
        None
    );
    let all = ["9007199254740992", "60", "five"];
    let mut removed = run::<Option<Vec<(String, u64)>>>(&mut c, &forget, key, &all)
        .await
        .unwrap();
    removed.sort();
    assert_eq!(
        removed,
        [
            ("pass.a".to_owned(), 302),
            ("pass.a/3".to_owned(), 301),
            ("pass.a/5".to_owned(), 303)
        ]
    );
    assert_eq!(
        run::<Option<Vec<String>>>(&mut c, &forget, key, &all).await,
        Some(Vec::new())
    );
    let before = hash(&mut c, key).await;
    let another = ["9007199254740992", "60", "six"];
    assert_eq!(
        run::<Option<Vec<String>>>(&mut c, &forget, key, &another).await,
        None
    );
    assert_eq!(hash(&mut c, key).await, before);
}

#[tokio::test]
async fn scripts_of_indexes_run_twice() {
    let server = Single::start().unwrap();
    let mut c = connection(server.url()).await;
    let p = prefix();
    let key = p.as_str();
    let add = script!("index_add");
    assert_eq!(
        run::<Vec<u64>>(&mut c, &add, key, &["100", "d", "e"]).await,
        [100, 100]
    );
    assert_eq!(
        run::<Vec<u64>>(&mut c, &add, key, &["100", "d", "d"]).await,
        [101, 102]
    );
    // The new numbers are above the old ones, even if the clock is behind.
    assert_eq!(run::<Vec<u64>>(&mut c, &add, key, &["7", "d"]).await, [103]);
    let remove = script!("index_remove");
    for _ in 0..2 {
        run::<u64>(&mut c, &remove, key, &["d", "102", "e", "100"]).await;
        assert_eq!(hash(&mut c, key).await, [("d".into(), "103".into())]);
    }
}

#[tokio::test]
async fn scripts_of_buckets_run_twice() {
    let server = Single::start().unwrap();
    let mut c = connection(server.url()).await;
    let p = prefix();
    let key = p.as_str();
    let keys = &[key, &format!("{p}t")];
    // The current time in microseconds. Some number formats would lose digits of it.
    let now = "1790000000123456";
    let mark = script!("mark");
    run_on::<u64>(&mut c, &mark, keys, &[now, "1000", "0", "1", "2"]).await;
    assert_eq!(
        get(&mut c, key, "1").await.unwrap(),
        "1790000000123456:1790000000"
    );
    run_on::<u64>(&mut c, &mark, keys, &[now, "1000", "0", "1"]).await;
    assert_eq!(
        get(&mut c, key, "1").await.unwrap(),
        "1790000000123457:1790000001"
    );
    assert_eq!(
        get(&mut c, key, "2").await.unwrap(),
        "1790000000123456:1790000000"
    );
    let mark_all = script!("mark_all");
    for (clock, date) in [
        ("1790000000123458", "1790000002"),
        ("1790000000123459", "1790000003"),
    ] {
        run::<u64>(&mut c, &mark_all, key, &[now, "1000"]).await;
        for (field, value) in [("\tc", clock), ("\tv", clock), ("\td", date), ("\tl", date)] {
            assert_eq!(get(&mut c, key, field).await.unwrap(), value);
        }
    }
    let advance_clock = script!("advance_clock");
    for _ in 0..2 {
        let values: Vec<Option<String>> = run(
            &mut c,
            &advance_clock,
            key,
            &["1790000000999999", "\tc", "no such", "2"],
        )
        .await;
        assert_eq!(values[0].as_deref(), Some("1790000000999999"));
        assert_eq!(values[1], None);
        assert_eq!(values[2].as_deref(), Some("1790000000123456:1790000000"));
    }
    let values: Vec<Option<String>> = run(&mut c, &advance_clock, key, &["5", "\tc"]).await;
    assert_eq!(
        values[0].as_deref(),
        Some("1790000000999999"),
        "a clock never goes back"
    );
}

#[tokio::test]
async fn publishing_runs_twice() {
    let server = Single::start().unwrap();
    let mut c = connection(server.url()).await;
    let p = prefix();
    let key = p.as_str();
    let now = "1790000000123456";
    let mark = script!("mark");
    let (others, pending, by_age) = (format!("{p}t"), format!("{p}o"), format!("{p}a"));
    let keys = &[key, &others, &pending, &by_age];
    let (one, two) = ("a".repeat(32), "b".repeat(32));
    for marked in [2, 0] {
        let args = [
            now, "1000", "16", "1", "aa", &one, "2", "bb", "", "3", "", &two,
        ];
        assert_eq!(run_on::<u64>(&mut c, &mark, keys, &args).await, marked);
        assert_eq!(
            hash(&mut c, &pending).await,
            [("1".into(), now.into()), ("2".into(), now.into())]
        );
        let all = [
            ("1", format!("+{one}")),
            ("2", "+".into()),
            ("3", format!("-{two}")),
        ];
        assert_eq!(
            hash(&mut c, &others).await,
            all.map(|(serial, value)| (serial.to_owned(), value))
        );
        for (field, value) in [
            ("1", "1790000000123456:1790000000"),
            ("\t#1", "aa"),
            ("\t#2", "bb"),
            ("\tc", "1790000000123456"),
            ("\tl", "1790000000"),
        ] {
            assert_eq!(get(&mut c, key, field).await.unwrap(), value);
        }
        assert_eq!(
            (get(&mut c, key, "\t#3").await, get(&mut c, key, "3").await),
            (None, None),
            "a removal marks nothing"
        );
    }
    for marked in [2, 0] {
        let args = [
            now, "1000", "16", "1", "aa", &two, "2", "cc", "", "3", "dd", &two,
        ];
        assert_eq!(run_on::<u64>(&mut c, &mark, keys, &args).await, marked);
        assert_eq!(get(&mut c, &pending, "1").await.as_deref(), Some(now));
        assert_eq!(
            get(&mut c, &others, "1").await.unwrap(),
            format!("+{one}{two}")
        );
        for serial in ["2", "3"] {
            assert_eq!(
                get(&mut c, &pending, serial).await.unwrap(),
                "1790000000123457"
            );
        }
        assert_eq!(
            get(&mut c, key, "1").await.unwrap(),
            "1790000000123456:1790000000"
        );
        assert_eq!(
            get(&mut c, key, "2").await.unwrap(),
            "1790000000123457:1790000001"
        );
        assert_eq!(get(&mut c, key, "\tc").await.unwrap(), "1790000000123457");
    }
    let published = script!("published");
    let before = hash(&mut c, key).await;
    for confirms in ["0", "1"] {
        let all: (Vec<Option<String>>, Vec<Option<String>>) = run_on(
            &mut c,
            &published,
            &[key, &others],
            &[confirms, "3", "4", "1"],
        )
        .await;
        let values = vec![Some(format!("+{two}")), None, Some(format!("+{one}{two}"))];
        assert_eq!(
            all,
            (vec![Some("dd".into()), None, Some("aa".into())], values)
        );
        assert_eq!(hash(&mut c, key).await, before);
    }
}

#[tokio::test]
async fn scripts_of_pending_changes_run_twice() {
    let server = Single::start().unwrap();
    let mut c = connection(server.url()).await;
    let p = prefix();
    let (others, pending, by_age) = (format!("{p}t"), format!("{p}o"), format!("{p}a"));
    let mark_keys = &[p.as_str(), &others, &pending, &by_age];
    let keys = &[p.as_str(), &pending, &by_age];
    let now = "1790000000123456";
    let mark = script!("mark");
    for version in [now, "1790000000123457"] {
        run_on::<u64>(&mut c, &mark, mark_keys, &[now, "1000", "0", "1", "2"]).await;
        assert_eq!(
            get(&mut c, &p, "1")
                .await
                .unwrap()
                .split_once(':')
                .unwrap()
                .0,
            version
        );
        assert_eq!(
            hash(&mut c, &pending).await,
            [("1".into(), version.into()), ("2".into(), version.into())]
        );
    }
    let record_progress = script!("record_progress");
    let version = "1790000000123457";
    for _ in 0..2 {
        // Two items have progress to a page, and two have progress to the end. In each pair, one change does not exist.
        let to = [
            "1", version, "@7-:\nx", "3", version, "@x", "2", version, "end", "4", version, "end",
        ];
        run_on::<u64>(&mut c, &record_progress, keys, &to).await;
        assert_eq!(
            hash(&mut c, &pending).await,
            [("1".into(), format!("{version}:{version}:7-:\nx"))]
        );
        assert_eq!(
            sorted(&mut c, &by_age).await,
            [("1".into(), 1_790_000_000_123_456)]
        );
    }
    // A worker finishes the older version of a change. The change stays with its newer version.
    run_on::<u64>(
        &mut c,
        &mark,
        mark_keys,
        &["1790000000200000", "1000", "0", "1"],
    )
    .await;
    assert_eq!(
        get(&mut c, &pending, "1").await.unwrap(),
        format!("1790000000200000:{version}:7-:\nx")
    );
    assert_eq!(
        sorted(&mut c, &by_age).await,
        [("1".into(), 1_790_000_000_123_456)]
    );
    for _ in 0..2 {
        run_on::<u64>(&mut c, &record_progress, keys, &["1", version, "end"]).await;
        assert_eq!(
            hash(&mut c, &pending).await,
            [("1".into(), "1790000000200000".into())]
        );
        assert_eq!(
            sorted(&mut c, &by_age).await,
            [("1".into(), 1_790_000_000_200_000)]
        );
    }

    // An entry records that a change of a whole type is under way. The entry is removed when the change becomes pending.
    let _: () = redis::cmd("ZADD")
        .arg(&by_age)
        .arg(5)
        .arg("\tp1")
        .query_async(&mut c)
        .await
        .unwrap();
    let mark_all = script!("mark_all");
    for version in ["1790000000300000", "1790000000300001"] {
        let args = [now, "1000", "1790000000300000", "\tp1"];
        assert_eq!(
            run_on::<String>(&mut c, &mark_all, keys, &args).await,
            version
        );
        assert_eq!(get(&mut c, &p, "\tv").await.as_deref(), Some(version));
        assert_eq!(
            get(&mut c, &pending, "\tall").await.as_deref(),
            Some(version)
        );
        let aged = sorted(&mut c, &by_age).await;
        assert_eq!(
            aged,
            [
                ("\tall".into(), 1_790_000_000_123_456),
                ("1".into(), 1_790_000_000_200_000)
            ]
        );
    }
}

#[tokio::test]
async fn scripts_of_queues_run_twice() {
    let server = Single::start().unwrap();
    let mut c = connection(server.url()).await;
    let p = prefix();
    let key = p.as_str();
    let (mark_dirty, clear_dirty) = (script!("mark_dirty"), script!("clear_dirty"));
    for _ in 0..2 {
        run::<u64>(&mut c, &mark_dirty, key, &["3", "17"]).await;
        let dirty = hash(&mut c, key).await;
        let now = passkit_server::store::clock::now_micros();
        assert!(
            dirty.len() == 2
                && dirty
                    .iter()
                    .all(|(_, at)| now.abs_diff(at.parse().unwrap()) < 10_000_000)
        );
    }
    let marked = get(&mut c, key, "3").await.unwrap();
    for _ in 0..2 {
        // Of these buckets, one is too new, one has another time, and one does not exist.
        run::<u64>(&mut c, &clear_dirty, key, &["60000000", "3", &marked]).await;
        run::<u64>(&mut c, &clear_dirty, key, &["0", "3", "5", "4", &marked]).await;
        assert_eq!(hash(&mut c, key).await.len(), 2);
    }
    for _ in 0..2 {
        run::<u64>(&mut c, &clear_dirty, key, &["0", "3", &marked]).await;
        assert_eq!(get(&mut c, key, "3").await, None);
    }

    let (deferred, times) = (format!("{p}h"), format!("{p}z"));
    let keys = &[deferred.as_str(), &times];
    let defer = script!("defer");
    for _ in 0..2 {
        run_on::<u64>(
            &mut c,
            &defer,
            keys,
            &["d", "x", "1790000000123456", "e", "y", "", "f", "", ""],
        )
        .await;
        let all =
            [("\t", ""), ("d", "x"), ("e", "y")].map(|(field, value)| (field.into(), value.into()));
        assert_eq!(hash(&mut c, &deferred).await, all);
        assert_eq!(
            sorted(&mut c, &times).await,
            [("d".into(), 1_790_000_000_123_456)]
        );
    }
    for _ in 0..2 {
        run_on::<u64>(&mut c, &defer, keys, &["d", "x", "", "e", "", ""]).await;
        assert_eq!(
            hash(&mut c, &deferred).await,
            [("\t".into(), String::new()), ("d".into(), "x".into())]
        );
        assert_eq!(sorted(&mut c, &times).await, []);
    }
}

#[tokio::test]
async fn scripts_of_claims_and_notes_run_twice() {
    let server = Single::start().unwrap();
    let mut c = connection(server.url()).await;
    let p = prefix();
    let key = format!("{p}l");
    let (claim, release) = (script!("claim"), script!("release"));
    for _ in 0..2 {
        assert_eq!(run::<u64>(&mut c, &claim, &key, &["a", "60000"]).await, 1);
        assert_eq!(run::<u64>(&mut c, &claim, &key, &["b", "60000"]).await, 0);
        run::<u64>(&mut c, &release, &key, &["b"]).await;
        assert_eq!(run::<u64>(&mut c, &claim, &key, &["", "60000"]).await, 0);
    }
    let expires: i64 = redis::cmd("PTTL")
        .arg(&key)
        .query_async(&mut c)
        .await
        .unwrap();
    assert!((1..=60_000).contains(&expires));
    for _ in 0..2 {
        run::<u64>(&mut c, &release, &key, &["a"]).await;
        let there: bool = redis::cmd("EXISTS")
            .arg(&key)
            .query_async(&mut c)
            .await
            .unwrap();
        assert!(!there);
    }

    let (note, calls) = (format!("{p}n"), format!("{p}r"));
    let keys = &[note.as_str(), &calls];
    let replace = script!("replace_note");
    for _ in 0..2 {
        assert_eq!(
            run_on::<u64>(&mut c, &replace, keys, &["one", "", "=x", "60"]).await,
            1
        );
        assert_eq!(
            run_on::<u64>(&mut c, &replace, keys, &["late", "", "=y", "60"]).await,
            0
        );
        assert_eq!(get(&mut c, &note, "v").await.as_deref(), Some("x"));
    }
    assert_eq!(
        run_on::<u64>(&mut c, &replace, keys, &["two", "=x", "=", "60"]).await,
        1
    );
    assert_eq!(get(&mut c, &note, "v").await.as_deref(), Some(""));
    // A call runs again after another call replaced the note. It changes nothing and gives the same answer.
    for _ in 0..2 {
        assert_eq!(
            run_on::<u64>(&mut c, &replace, keys, &["one", "", "=x", "60"]).await,
            1
        );
        assert_eq!(get(&mut c, &note, "v").await.as_deref(), Some(""));
    }
    for _ in 0..2 {
        assert_eq!(
            run_on::<u64>(&mut c, &replace, keys, &["three", "=", "", "60"]).await,
            1
        );
        assert_eq!(get(&mut c, &note, "v").await, None);
        assert_eq!(
            run_on::<u64>(&mut c, &replace, keys, &["late", "=", "=z", "60"]).await,
            0
        );
    }
    // Old calls are forgotten. If no new call comes, all calls are forgotten.
    let _: () = redis::cmd("ZADD")
        .arg(&calls)
        .arg(5)
        .arg("old")
        .query_async(&mut c)
        .await
        .unwrap();
    assert_eq!(sorted(&mut c, &calls).await.len(), 4);
    assert_eq!(
        run_on::<u64>(&mut c, &replace, keys, &["four", "", "", "60"]).await,
        1
    );
    let names: Vec<String> = sorted(&mut c, &calls)
        .await
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    assert!(
        names.len() == 4 && !names.contains(&"old".to_owned()),
        "{names:?}"
    );
    let expires: i64 = redis::cmd("TTL")
        .arg(&calls)
        .query_async(&mut c)
        .await
        .unwrap();
    assert!((1..=60).contains(&expires));
}

/// A server has no scripts after a restart or a failover.
#[tokio::test]
async fn scripts_are_sent_again_when_the_server_lost_them() {
    let server = Single::start().unwrap();
    let store = RedisStore::connect(server.url(), Config::new().prefix(prefix()))
        .await
        .unwrap();
    let mut c = connection(server.url()).await;
    for round in 0..3 {
        let _: () = redis::cmd("SCRIPT")
            .arg("FLUSH")
            .query_async(&mut c)
            .await
            .unwrap();
        let me = device("d");
        let one = pass(round.to_string());
        assert_eq!(
            store.register(&me, &one, &token()).await.unwrap(),
            Registered::Created
        );
        let _: () = redis::cmd("SCRIPT")
            .arg("FLUSH")
            .query_async(&mut c)
            .await
            .unwrap();
        // The passes are in several buckets. Every command of the call must be sent again.
        let serials: Vec<_> = (0..20).map(|i| serial(i.to_string())).collect();
        mark(&store, &serials).await.unwrap();
        store.mark(&type_id(), Changed::All).await.unwrap();
    }
    assert_eq!(registered(&store, &device("d")).await, ["0", "1", "2"]);
    assert_eq!(devices_of(&store, &pass("1")).await, ["d"]);
}
