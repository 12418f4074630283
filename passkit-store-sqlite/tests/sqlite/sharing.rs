//! Several processes use one file, and other programs lock it.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Stdio},
    sync::Arc,
    time::Duration,
};

use passkit_server::{
    Changed,
    store::{Audience, Coordination as _, RegistrationStore as _, StoreErrorKind, UpdateTag},
};
use passkit_store_sqlite::{
    Config, SqliteStore,
    rusqlite::{Connection, ErrorCode},
};
use passkit_test_servers::child::{self, report};
use tokio::task::JoinSet;

use crate::support::{device, pass, registered, serial, sqlite_code, text, token, type_id};

const PROCESSES: usize = 3;
const TASKS: usize = 8;
const ROUNDS: usize = 25;
const PATIENCE: Duration = Duration::from_secs(60);

/// Registers devices, marks a pass that all processes share, and counts in a note that all processes share.
#[test]
fn the_child() {
    let Some(path) = child::path() else { return };
    let name = std::env::var("PASSKIT_SQLITE_NAME").unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let store =
            Arc::new(SqliteStore::open_with(&Config::new(path).lock_timeout(PATIENCE)).unwrap());
        let mut tasks = JoinSet::new();
        for task in 0..TASKS {
            let (store, name) = (Arc::clone(&store), name.clone());
            tasks.spawn(async move {
                for round in 0..ROUNDS {
                    let device = device(format!("{name}-{task}"));
                    store
                        .register(&device, &pass(format!("{round}")), &token())
                        .await
                        .unwrap();
                    store
                        .mark(&type_id(), Changed::Passes(&[serial("shared")]))
                        .await
                        .unwrap();
                    loop {
                        let old = store.note("count").await.unwrap();
                        let new = old.as_deref().map_or(0, |old| old.parse::<u64>().unwrap()) + 1;
                        if store
                            .replace_note("count", old.as_deref(), Some(&new.to_string()))
                            .await
                            .unwrap()
                        {
                            break;
                        }
                    }
                }
            });
        }
        tasks.join_all().await;
    });
}

#[test]
fn processes_share_a_file_and_lose_nothing() {
    if child::path().is_some() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("passkit.db");
    let store = SqliteStore::create(&path).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let phone = device("phone");
    runtime
        .block_on(store.register(&phone, &pass("shared"), &token()))
        .unwrap();
    let first = runtime.block_on(store.pass_state(&pass("shared"))).unwrap();
    let mut children: Vec<Child> = (0..PROCESSES)
        .map(|name| {
            let mut child = child::command("sharing::the_child", &path);
            child
                .env("PASSKIT_SQLITE_NAME", format!("p{name}"))
                .stdout(Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();

    // A phone asks for changes all the time. In the end it must have the last mark.
    let mut tag: Option<UpdateTag> = None;
    let mut fetched = 0;
    let mut ask = || {
        runtime.block_on(async {
            let changes = store.changes_since(&phone, &type_id(), tag).await.unwrap();
            if !changes.serials.is_empty() {
                assert!(tag.is_none_or(|tag| {
                    changes.tag.type_version >= tag.type_version
                        && changes.tag.device_version >= tag.device_version
                        && changes.tag != tag
                }));
                tag = Some(changes.tag);
                fetched = store.pass_state(&pass("shared")).await.unwrap().version;
            }
        });
        fetched
    };
    while children
        .iter_mut()
        .any(|child| child.try_wait().unwrap().is_none())
    {
        ask();
    }
    for child in &mut children {
        assert!(child.wait().unwrap().success());
    }
    let fetched = ask();
    runtime.block_on(async {
        let last = store.pass_state(&pass("shared")).await.unwrap();
        assert_eq!(fetched, last.version, "the phone is stale");
        let marks = (PROCESSES * TASKS * ROUNDS) as u64;
        assert!(
            last.last_modified >= first.last_modified + marks,
            "two marks gave one date"
        );
        assert_eq!(
            store.note("count").await.unwrap().unwrap(),
            marks.to_string()
        );
        for process in 0..PROCESSES {
            for task in 0..TASKS {
                let found = registered(&store, &device(format!("p{process}-{task}"))).await;
                assert_eq!(found.len(), ROUNDS, "of process {process}, task {task}");
            }
        }
        assert_eq!(
            store.count_devices(&pass("0"), u64::MAX).await.unwrap(),
            (PROCESSES * TASKS) as u64
        );
    });
}

/// Takes two claims, reports that, and runs until it is killed.
#[test]
fn the_child_that_claims() {
    let Some(path) = child::path() else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = SqliteStore::open(path).unwrap();
        assert!(
            store
                .claim("job", "child", Duration::from_secs(2))
                .await
                .unwrap()
        );
        assert!(
            store
                .claim("long job", "child", Duration::from_secs(3600))
                .await
                .unwrap()
        );
        report("\nclaimed");
        std::future::pending::<()>().await;
    });
}

#[test]
fn a_claim_holds_in_other_processes_and_outlives_its_own_for_its_time() {
    if child::path().is_some() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("passkit.db");
    let store = SqliteStore::create(&path).unwrap();
    let mut child = child::command("sharing::the_child_that_claims", &path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "claimed"));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        child.kill().unwrap();
        child.wait().unwrap();
        let minute = Duration::from_secs(60);
        assert!(!store.claim("long job", "parent", minute).await.unwrap());
        let claimed = async {
            while !store.claim("job", "parent", minute).await.unwrap() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, claimed)
            .await
            .expect("the claim ends with its time");
        assert!(!store.claim("long job", "parent", minute).await.unwrap());
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_of_a_stranger_is_a_transient_error_and_stops_no_reader() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("passkit.db");
    let timeout = Duration::from_millis(200);
    let store =
        SqliteStore::open_with(&Config::new(&path).create(true).lock_timeout(timeout)).unwrap();
    let store = Arc::new(store);
    store
        .register(&device("a"), &pass("1"), &token())
        .await
        .unwrap();
    let stranger = Connection::open(&path).unwrap();
    stranger.execute_batch("begin exclusive").unwrap();

    let mut calls = JoinSet::new();
    for i in 0..32 {
        let store = Arc::clone(&store);
        calls.spawn(async move {
            store
                .register(&device(format!("b{i}")), &pass("1"), &token())
                .await
        });
    }
    for result in tokio::time::timeout(PATIENCE, calls.join_all())
        .await
        .expect("no call hangs")
    {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Unavailable);
        assert!(error.is_transient());
        assert!(
            text(&error).ends_with("passkit.db: another program has locked it"),
            "{error:?}"
        );
        assert_eq!(sqlite_code(&error), ErrorCode::DatabaseBusy);
    }
    assert_eq!(registered(&*store, &device("a")).await, ["1"]);

    stranger.execute_batch("rollback").unwrap();
    store
        .register(&device("a"), &pass("2"), &token())
        .await
        .unwrap();
    assert_eq!(registered(&*store, &device("a")).await, ["1", "2"]);
    let devices = store
        .devices(Audience::Type(&type_id()), None, 99)
        .await
        .unwrap()
        .items;
    assert_eq!(devices.len(), 2, "what failed did not happen later");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_ends_in_time_is_waited_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("passkit.db");
    let store =
        SqliteStore::open_with(&Config::new(&path).create(true).lock_timeout(PATIENCE)).unwrap();
    let store = Arc::new(store);
    let stranger = Connection::open(&path).unwrap();
    for i in 0..20 {
        stranger.execute_batch("begin immediate").unwrap();
        let call = tokio::spawn({
            let store = Arc::clone(&store);
            async move {
                store
                    .register(&device("a"), &pass(format!("{i}")), &token())
                    .await
            }
        });
        // The call succeeds whether it starts before or after the lock is released.
        tokio::time::sleep(Duration::from_millis(i)).await;
        stranger.execute_batch("commit").unwrap();
        call.await.unwrap().unwrap();
    }
}
