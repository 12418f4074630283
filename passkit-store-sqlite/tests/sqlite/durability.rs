use std::{
    collections::HashMap,
    fs,
    io::ErrorKind,
    process::{Command, Stdio},
};

use passkit_server::{Changed, store::RegistrationStore};
use passkit_store_sqlite::SqliteStore;

use crate::support::{child, child_path, device, pass, report, serial, token, type_id};

const OPERATIONS: usize = 30;

#[test]
fn the_child() {
    let Some(path) = child_path() else { return };
    // The test harness has not ended its own line.
    report("");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let store = SqliteStore::create(path).unwrap();
        for i in 0..OPERATIONS {
            report(&format!("begin-{i}."));
            let (device, pass) = (device(format!("{}", i / 3)), pass(format!("{}", i / 3)));
            match i % 3 {
                0 => drop(store.register(&device, &pass, &token()).await.unwrap()),
                1 => store
                    .mark(&type_id(), Changed::Passes(&[serial("1")]))
                    .await
                    .unwrap(),
                _ => assert!(store.unregister(&device, &pass).await.unwrap()),
            }
            report(&format!("acknowledged-{i}."));
        }
    });
}

/// A system call on the log, with the lines of the trace where it started and ended.
struct Call {
    name: String,
    began: usize,
    ended: usize,
}

/// A call takes two lines of the trace if another thread interrupts it.
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

/// The log is synced between the last write of a change and its acknowledgement.
#[test]
fn every_acknowledgement_follows_a_sync() {
    if child_path().is_some() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("passkit.db");
    let trace_path = folder.path().join("trace");
    let child = child("durability::the_child", &path);
    let mut strace = Command::new("strace");
    strace
        .args([
            "-f",
            "-y",
            "-e",
            "trace=pwrite64,write,fdatasync,fsync",
            "-o",
        ])
        .arg(&trace_path)
        .arg(child.get_program())
        .args(child.get_args())
        .env("PASSKIT_SQLITE_CHILD", &path)
        .stdout(Stdio::null());
    let ended = match strace.status() {
        Err(e) if e.kind() == ErrorKind::NotFound => {
            panic!(
                "this test needs strace: install it, for example with \"apt-get install strace\""
            )
        }
        ended => ended.unwrap(),
    };
    assert!(ended.success());

    let trace = fs::read_to_string(trace_path).unwrap();
    let file = format!("<{}-wal>", fs::canonicalize(&path).unwrap().display());
    let calls = calls(&trace, &file);
    let line = |text: String| {
        trace
            .lines()
            .position(|line| line.contains(&text) && line.contains("write(1"))
            .unwrap_or_else(|| panic!("{text} is not in the trace"))
    };
    let is_sync = |call: &Call| matches!(&*call.name, "fsync" | "fdatasync");
    for i in 0..OPERATIONS {
        let begin = line(format!("\"begin-{i}."));
        let acknowledged = line(format!("\"acknowledged-{i}."));
        let last_write = calls
            .iter()
            .filter(|call| call.name == "pwrite64" && (begin..acknowledged).contains(&call.began))
            .map(|call| call.ended)
            .max()
            .unwrap_or_else(|| panic!("operation {i} wrote nothing"));
        assert!(
            calls
                .iter()
                .any(|call| is_sync(call) && call.began > last_write && call.ended < acknowledged),
            "operation {i} was acknowledged without a sync after its last write"
        );
    }
}
