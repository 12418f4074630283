use std::{
    fs,
    io::ErrorKind,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use passkit_server::store::{RegistrationStore, StoreErrorKind};
use passkit_store_sled::SledStore;
use tokio::time::timeout;

use crate::support::{child, child_folder, device, pass, registrations, tell, token};

const REGISTRATIONS: usize = 30;
const TIME_LIMIT: Duration = Duration::from_secs(60);

/// Registers one after the other, each until it succeeds.
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
        let begun = Instant::now();
        let store = loop {
            match SledStore::open(&folder) {
                Ok(store) => break store,
                Err(error) => {
                    tell(&format!("failed opening {error:?}"));
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
                    tell("it hangs");
                    // Closing the store would hang as well.
                    #[expect(clippy::exit, reason = "a hanging store never closes")]
                    std::process::exit(1);
                };
                match answer {
                    Ok(_) => break tell(&format!("ack {i}")),
                    Err(error) => {
                        tell(&format!("failed {i} {error:?}"));
                        assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{error:?}");
                        assert!(begun.elapsed() < TIME_LIMIT, "no recovery: {error:?}");
                        // It does not open again before a second has passed.
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
    let child = child("faults::the_child", &store);
    let mut strace = Command::new("strace");
    strace
        .args(["-f", "-qq", "-e"])
        .arg(format!("trace={}", fault.split(':').next().unwrap()))
        .arg("-e")
        .arg(format!("inject={fault}:when={when}"))
        .arg("-o")
        .arg(folder.path().join("trace"))
        .arg(child.get_program())
        .args(child.get_args())
        .env("PASSKIT_SLED_CHILD", &store)
        .stderr(Stdio::null());
    let ended = match strace.output() {
        Err(e) if e.kind() == ErrorKind::NotFound => {
            panic!(
                "this test needs strace: install it, for example with \"apt-get install strace\""
            )
        }
        ended => ended.unwrap(),
    };
    let out = String::from_utf8_lossy(&ended.stdout).into_owned();
    assert!(ended.status.success(), "{fault}, {when}: {out}");
    let acknowledged = out
        .lines()
        .filter_map(|line| line.strip_prefix("ack "))
        .collect::<Vec<_>>();
    assert_eq!(acknowledged.len(), REGISTRATIONS, "{fault}, {when}: {out}");

    let injected = fs::read_to_string(folder.path().join("trace"))
        .unwrap()
        .matches("(INJECTED)")
        .count();
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
        .block_on(registrations(&store, &device("d")));
    assert!(
        acknowledged
            .iter()
            .all(|name| found.iter().any(|found| found == name)),
        "{fault}, {when}: {found:?}"
    );
    failed
}

/// One system call fails, each time another one. Its caller gets an error, nothing acknowledged is lost, nothing hangs,
/// and the store recovers.
#[test]
fn failed_system_calls_are_reported_and_recovered_from() {
    if child_folder().is_some() {
        return;
    }
    // Late, so that the caller already waits for the write when it fails.
    for fault in [
        "pwrite64:error=ENOSPC",
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
