use std::{
    collections::HashMap, fs, io::ErrorKind, path::Path, process::Command, sync::Arc,
    time::Duration,
};

use passkit_server::store::{Coordination, RegistrationStore};
use passkit_store_sled::SledStore;

use crate::support::{
    child, child_folder, content, device, devices, mark, pass, publish, registrations, serial,
    tell, token,
};

const OPERATIONS: usize = 50;

#[test]
fn the_child() {
    let Some(folder) = child_folder() else { return };
    // The harness leaves its own line open.
    tell("");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let store = SledStore::open(folder).unwrap();
        for i in 0..OPERATIONS {
            tell(&format!("begin-{i}."));
            let name = format!("{}", i / 5);
            let (device, pass) = (device(&name), pass(&name));
            match i % 5 {
                0 => drop(store.register(&device, &pass, &token()).await.unwrap()),
                1 => mark(&store, &[serial("1")]).await,
                2 => publish(&store, &content(&name, Some(1))).await,
                3 => assert!(store.replace_note(&name, None, Some("note")).await.unwrap()),
                _ => assert!(store.unregister(&device, &pass).await.unwrap()),
            }
            tell(&format!("acknowledged-{i}."));
        }
    });
}

/// A system call on the data file, by the lines of the trace at which it began and ended.
struct Call {
    name: String,
    began: usize,
    ended: usize,
}

/// Calls that other threads interrupted stand on two lines.
fn calls(trace: &str, file: &str) -> Vec<Call> {
    let mut unfinished: HashMap<(String, String), usize> = HashMap::new();
    let mut calls = Vec::new();
    for (at, line) in trace.lines().enumerate() {
        let mut words = line.splitn(2, ' ');
        let (thread, call) = (
            words.next().unwrap(),
            words.next().unwrap_or_default().trim_start(),
        );
        if let Some(resumed) = call.strip_prefix("<... ") {
            let name = resumed.split(' ').next().unwrap();
            if let Some(began) = unfinished.remove(&(thread.to_owned(), name.to_owned())) {
                calls.push(Call {
                    name: name.to_owned(),
                    began,
                    ended: at,
                });
            }
        } else if call.contains(file) {
            let name = call.split('(').next().unwrap().to_owned();
            if call.ends_with("<unfinished ...>") {
                unfinished.insert((thread.to_owned(), name), at);
            } else {
                calls.push(Call {
                    name,
                    began: at,
                    ended: at,
                });
            }
        }
    }
    calls
}

/// Runs a test of this program as a child under strace, and returns the trace of its writes and syncs.
fn traced(test: &str, store: &Path, options: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace");
    let child = child(test, store);
    let mut strace = Command::new("strace");
    strace
        .args([
            "-f",
            "-y",
            "-e",
            "trace=pwrite64,write,fdatasync,sync_file_range",
        ])
        .args(options)
        .arg("-o")
        .arg(&trace)
        .arg(child.get_program())
        .args(child.get_args())
        .env("PASSKIT_SLED_CHILD", store);
    let ended = match strace.output() {
        Err(e) if e.kind() == ErrorKind::NotFound => {
            panic!(
                "this test needs strace: install it, for example with \"apt-get install strace\""
            )
        }
        ended => ended.unwrap(),
    };
    assert!(
        ended.status.success(),
        "{}",
        String::from_utf8_lossy(&ended.stdout)
    );
    fs::read_to_string(trace).unwrap()
}

/// The calls on the data file of a store.
fn calls_on_data(trace: &str, store: &Path) -> Vec<Call> {
    calls(
        trace,
        &format!(
            "<{}>",
            fs::canonicalize(store).unwrap().join("db").display()
        ),
    )
}

/// The line of the trace at which the child wrote this.
fn line_of(trace: &str, text: &str) -> usize {
    let text = format!("\"{text}.");
    trace
        .lines()
        .position(|line| line.contains(&text) && line.contains("write(1"))
        .unwrap_or_else(|| panic!("{text} is not in the trace"))
}

/// Between the last write of a change and its acknowledgement the data file is synced.
#[test]
fn every_acknowledgement_follows_a_sync() {
    if child_folder().is_some() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    let trace = traced("durability::the_child", &store, &[]);
    let calls = calls_on_data(&trace, &store);
    for i in 0..OPERATIONS {
        let begin = line_of(&trace, &format!("begin-{i}"));
        let acknowledged = line_of(&trace, &format!("acknowledged-{i}"));
        let last_write = calls
            .iter()
            .filter(|call| call.name == "pwrite64" && (begin..acknowledged).contains(&call.began))
            .map(|call| call.ended)
            .max()
            .unwrap_or_else(|| panic!("operation {i} wrote nothing"));
        assert!(
            calls.iter().any(|call| call.name == "fdatasync"
                && call.began > last_write
                && call.ended < acknowledged),
            "operation {i} was acknowledged without a sync after its last write"
        );
    }
}

/// Begins a change, waits until `show` shows another value, and reports both moments.
async fn reports_what_shows<T: PartialEq>(
    what: &str,
    change: impl Future<Output = ()> + Send + 'static,
    show: impl AsyncFn() -> T,
) {
    let before = show().await;
    tell(&format!("begin-{what}."));
    let changing = tokio::spawn(change);
    while show().await == before {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    tell(&format!("shown-{what}."));
    changing.await.unwrap();
}

#[test]
fn the_child_with_slow_syncs() {
    let Some(folder) = child_folder() else { return };
    // The harness leaves its own line open.
    tell("");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
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
            registrations(&store, &one).await
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
            registrations(&store, &one).await
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

/// A crash may not take back what a reader saw.
#[test]
fn readers_see_only_what_is_durable() {
    if child_folder().is_some() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    // Slow syncs leave readers the time to see too much.
    let options = ["-e", "inject=fdatasync:delay_enter=1000000"];
    let trace = traced("durability::the_child_with_slow_syncs", &store, &options);
    assert!(trace.matches("DELAYED").count() >= 9, "{trace}");
    let calls = calls_on_data(&trace, &store);
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
            ["begin", "shown"].map(|when| line_of(&trace, &format!("{when}-{what}")));
        let write = calls
            .iter()
            .find(|call| call.name == "pwrite64" && call.began > begin);
        let written = write
            .unwrap_or_else(|| panic!("{what} wrote nothing"))
            .ended;
        let is_durable =
            |call: &Call| call.name == "fdatasync" && call.began > written && call.ended < shown;
        assert!(
            calls.iter().any(is_durable),
            "a reader saw {what} before it was durable"
        );
    }
}
