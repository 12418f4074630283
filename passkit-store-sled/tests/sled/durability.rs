use std::{path::Path, sync::Arc, time::Duration};

use passkit_server::store::{Coordination, RegistrationStore};
use passkit_store_sled::SledStore;
use passkit_test_servers::child::{self, SystemCall, Trace, report};

use crate::support::{content, device, devices, mark, pass, publish, registered, serial, token};

const OPERATIONS: usize = 50;

#[test]
fn the_child() {
    let Some(folder) = child::path() else { return };
    child::run(async {
        let store = SledStore::open(folder).unwrap();
        for i in 0..OPERATIONS {
            report(&format!("begin-{i}."));
            let name = format!("{}", i / 5);
            let (device, pass) = (device(&name), pass(&name));
            match i % 5 {
                0 => drop(store.register(&device, &pass, &token()).await.unwrap()),
                1 => mark(&store, &[serial("1")]).await,
                2 => publish(&store, &content(&name, Some(1))).await,
                3 => assert!(store.replace_note(&name, None, Some("note")).await.unwrap()),
                _ => assert!(store.unregister(&device, &pass).await.unwrap()),
            }
            report(&format!("acknowledged-{i}."));
        }
    });
}

/// Runs a child under strace. Returns how it wrote and synced the data file.
fn trace(test: &str, store: &Path, options: &[&str]) -> Trace {
    Trace::record(test, store, &store.join("db"), options)
}

/// The store syncs the data file between the last write of a change and the acknowledgement.
#[test]
fn every_acknowledgement_follows_a_sync() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    trace("durability::the_child", &store, &[]).assert_synced(OPERATIONS);
}

/// Starts a change, waits until `show` returns another value, and reports both moments.
async fn reports_what_shows<T: PartialEq>(
    what: &str,
    change: impl Future<Output = ()> + Send + 'static,
    show: impl AsyncFn() -> T,
) {
    let before = show().await;
    report(&format!("begin-{what}."));
    let changing = tokio::spawn(change);
    while show().await == before {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    report(&format!("shown-{what}."));
    changing.await.unwrap();
}

#[test]
fn the_child_with_slow_syncs() {
    let Some(folder) = child::path() else { return };
    child::run(async {
        let store = Arc::new(SledStore::open(folder).unwrap());
        let own = || Arc::clone(&store);
        let (one, other) = (device("one"), device("other"));
        store.register(&one, &pass("1"), &token()).await.unwrap();
        let s = own();
        let publishing = async move { publish(&s, &content("1", Some(1))).await };
        reports_what_shows("publish", publishing, async || {
            store.pass_state(&pass("1")).await.unwrap()
        })
        .await;
        let s = own();
        let removing = async move { publish(&s, &content("1", None)).await };
        reports_what_shows("remove", removing, async || {
            store.published(&[pass("1")]).await.unwrap()
        })
        .await;
        let s = own();
        let noting =
            async move { assert!(s.replace_note("name", None, Some("note")).await.unwrap()) };
        reports_what_shows("note", noting, async || store.note("name").await.unwrap()).await;
        let s = own();
        let marking = async move { mark(&s, &[serial("1")]).await };
        reports_what_shows("mark", marking, async || {
            store.pass_state(&pass("1")).await.unwrap()
        })
        .await;
        let (s, d) = (own(), one.clone());
        let register = async move {
            s.register(&d, &pass("2"), &token()).await.unwrap();
        };
        reports_what_shows("register", register, async || {
            registered(&store, &one).await
        })
        .await;
        let (s, d) = (own(), other.clone());
        let register = async move {
            s.register(&d, &pass("2"), &token()).await.unwrap();
        };
        let of_pass = async || devices(&store, &pass("2")).await;
        reports_what_shows("another-device", register, of_pass).await;
        let (s, d) = (own(), one.clone());
        let unregister = async move { assert!(s.unregister(&d, &pass("1")).await.unwrap()) };
        reports_what_shows("unregister", unregister, async || {
            registered(&store, &one).await
        })
        .await;
        let (s, d) = (own(), other.clone());
        let forget = async move {
            assert!(
                s.forget_device(&d, std::time::SystemTime::now())
                    .await
                    .unwrap()
            );
        };
        reports_what_shows("forget", forget, of_pass).await;
    });
}

/// A crash must not take back what a reader has seen.
#[test]
fn readers_see_only_what_is_durable() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    // Slow syncs would give a reader the time to see what is not durable yet.
    let options = ["-e", "inject=fdatasync:delay_enter=1000000"];
    let trace = trace("durability::the_child_with_slow_syncs", &store, &options);
    assert!(trace.count("DELAYED") >= 9, "{trace:?}");
    let changes = [
        "publish",
        "remove",
        "note",
        "mark",
        "register",
        "another-device",
        "unregister",
        "forget",
    ];
    for what in changes {
        let [begin, shown] =
            ["begin", "shown"].map(|when| trace.line_of(&format!("{when}-{what}")));
        let write = trace
            .calls
            .iter()
            .find(|call| call.name == "pwrite64" && call.began > begin);
        let written = write
            .unwrap_or_else(|| panic!("{what} wrote nothing"))
            .ended;
        let is_durable =
            |call: &SystemCall| call.is_sync() && call.began > written && call.ended < shown;
        assert!(
            trace.calls.iter().any(is_durable),
            "a reader saw {what} before it was durable"
        );
    }
}
