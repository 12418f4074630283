use std::{
    thread,
    time::{Duration, Instant},
};

use passkit_server::store::{RegistrationStore, StoreErrorKind};
use passkit_store_sled::SledStore;
use passkit_test_servers::child::{self, report};
use tokio::time::timeout;

use crate::support::{device, pass, registered, token};

const REGISTRATIONS: usize = 30;
const TIME_LIMIT: Duration = Duration::from_secs(60);

/// Registers passes one after the other. Repeats each call until it succeeds.
#[test]
fn the_child() {
    let Some(folder) = child::path() else { return };
    child::run(async {
        let begun = Instant::now();
        let store = loop {
            match SledStore::open(&folder) {
                Ok(store) => break store,
                Err(error) => {
                    report(&format!("failed opening {error:?}"));
                    assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{error:?}");
                    assert!(begun.elapsed() < TIME_LIMIT, "{error:?}");
                }
            }
        };
        for i in 0..REGISTRATIONS {
            loop {
                let (device, pass, token) = (device("d"), pass(i.to_string()), token());
                let Ok(answer) = timeout(TIME_LIMIT, store.register(&device, &pass, &token)).await
                else {
                    report("the call hangs");
                    // Dropping the store would hang as well.
                    #[expect(clippy::exit, reason = "a hanging store never closes")]
                    std::process::exit(1);
                };
                match answer {
                    Ok(_) => break report(&format!("ack {i}")),
                    Err(error) => {
                        report(&format!("failed {i} {error:?}"));
                        assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{error:?}");
                        assert!(begun.elapsed() < TIME_LIMIT, "no recovery: {error:?}");
                        // The store waits a second before it opens the database again.
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                }
            }
        }
    });
}

fn run(fault: &str, when: usize) -> usize {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    drop(SledStore::open(&store).unwrap());
    let call = fault.split(':').next().unwrap();
    let options = [
        "-qq",
        "-e",
        &format!("trace={call}"),
        "-e",
        &format!("inject={fault}:when={when}"),
    ];
    let (ended, trace) = child::traced("faults::the_child", &store, &options);
    let out = String::from_utf8_lossy(&ended.stdout).into_owned();
    assert!(ended.status.success(), "{fault}, {when}: {out}");
    let acknowledged = out
        .lines()
        .filter_map(|line| line.strip_prefix("ack "))
        .collect::<Vec<_>>();
    assert_eq!(acknowledged.len(), REGISTRATIONS, "{fault}, {when}: {out}");

    let injected = trace.matches("(INJECTED)").count();
    let failed = out
        .lines()
        .filter(|line| line.starts_with("failed"))
        .count();
    assert!(
        injected == 0 || failed > 0,
        "{fault}, {when}: a failure that no caller saw: {out}"
    );
    let store = SledStore::open(&store).unwrap();
    let found = tokio::runtime::Runtime::new()
        .unwrap()
        .block_on(registered(&store, &device("d")));
    assert!(
        acknowledged
            .iter()
            .all(|name| found.iter().any(|found| found == name)),
        "{fault}, {when}: {found:?}"
    );
    failed
}

/// In each run, another system call fails. A caller gets an error, nothing acknowledged is lost, no call hangs, and the store
/// recovers.
#[test]
fn failed_system_calls_are_reported_and_recovered_from() {
    for fault in [
        "pwrite64:error=ENOSPC",
        // The write fails late, so that a thread already waits for it.
        "pwrite64:error=ENOSPC:delay_enter=100000",
        "sync_file_range:error=EIO",
        "fdatasync:error=EIO",
    ] {
        let runs = (1..=8)
            .map(|when| thread::spawn(move || run(fault, when)))
            .collect::<Vec<_>>();
        let failed = runs
            .into_iter()
            .map(|run| run.join().unwrap())
            .sum::<usize>();
        assert!(failed > 0, "{fault} hit nothing");
    }
}
