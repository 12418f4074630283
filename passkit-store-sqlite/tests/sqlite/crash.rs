use std::{
    collections::HashMap,
    io::{BufRead as _, BufReader},
    path::Path,
    process::Stdio,
    sync::{Arc, mpsc},
    thread,
    time::{Duration, SystemTime},
};

use passkit_server::{
    Changed, PassState,
    push::{PushQueue, Scope},
    store::{Audience, RegistrationStore, UpdateTag},
};
use passkit_store_sqlite::SqliteStore;
use tokio::task::JoinSet;

use crate::support::{child, child_path, device, pass, registered, report, serial, token, type_id};

const TASKS: u64 = 32;
const PASSES: u64 = 40;

fn random(state: &mut u64) -> u64 {
    *state = state
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    *state >> 33
}

fn seed() -> u64 {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap();
    u64::from(since.subsec_nanos()) ^ u64::from(std::process::id()) << 32
}

/// The child prints a line for each thing that it did or saw. Each task has its own device and passes, so its lines are in
/// order. What it saw of the passes of other tasks must not be lost either.
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
        let store = Arc::new(SqliteStore::create(path).unwrap());
        let mut tasks = JoinSet::new();
        for task in 0..TASKS {
            let store = Arc::clone(&store);
            tasks.spawn(async move {
                let mut state = seed() ^ task << 17;
                let device = device(format!("d{task}"));
                loop {
                    let number = random(&mut state) % PASSES;
                    let pass = pass(format!("{task}-{number}"));
                    match random(&mut state) % 6 {
                        0 | 1 => {
                            report(&format!("try {task} {number} registered"));
                            store.register(&device, &pass, &token()).await.unwrap();
                            report(&format!("ack {task} {number} registered"));
                        }
                        2 => {
                            report(&format!("try {task} {number} gone"));
                            store.unregister(&device, &pass).await.unwrap();
                            report(&format!("ack {task} {number} gone"));
                        }
                        3 => {
                            let old = store.pass_state(&pass).await.unwrap();
                            store
                                .mark_and_push(
                                    &type_id(),
                                    Changed::Passes(&[pass.serial.clone(), serial("all")]),
                                )
                                .await
                                .unwrap();
                            let new = store.pass_state(&pass).await.unwrap();
                            assert!(
                                new.version > old.version && new.last_modified > old.last_modified
                            );
                            report(&format!(
                                "saw {task}-{number} {} {}",
                                new.version, new.last_modified
                            ));
                        }
                        4 => {
                            let seen = store
                                .pass_state(&crate::support::pass("all"))
                                .await
                                .unwrap();
                            report(&format!("saw all {} {}", seen.version, seen.last_modified));
                        }
                        _ => {
                            let other =
                                crate::support::device(format!("d{}", random(&mut state) % TASKS));
                            let tag = store
                                .changes_since(&other, &type_id(), None)
                                .await
                                .unwrap()
                                .tag;
                            report(&format!(
                                "tag {} {} {}",
                                other.as_str(),
                                tag.type_version,
                                tag.device_version
                            ));
                        }
                    }
                }
            });
        }
        tasks.join_all().await;
    });
}

#[derive(Default)]
struct Expected {
    /// By task and pass.
    registered: HashMap<(u64, u64), bool>,
    passes: HashMap<String, PassState>,
    type_version: u64,
    acknowledged: usize,
}

impl Expected {
    fn read(&mut self, lines: &[String]) -> (HashMap<u64, u64>, HashMap<String, UpdateTag>) {
        // The calls that were under way, at most one for each task.
        let mut trying = HashMap::new();
        let mut tags: HashMap<String, UpdateTag> = HashMap::new();
        for line in lines {
            let words = line.split(' ').collect::<Vec<_>>();
            let number = |i: usize| words[i].parse::<u64>().unwrap();
            match words[..] {
                ["try", ..] => {
                    trying.insert(number(1), number(2));
                }
                ["ack", _, _, what] => {
                    trying.remove(&number(1));
                    self.registered
                        .insert((number(1), number(2)), what == "registered");
                    self.acknowledged += 1;
                }
                ["saw", name, ..] => {
                    let new = PassState {
                        version: number(2),
                        last_modified: number(3),
                        published: None,
                    };
                    let state = self.passes.entry(name.to_owned()).or_insert(new);
                    state.version = state.version.max(new.version);
                    state.last_modified = state.last_modified.max(new.last_modified);
                }
                ["tag", name, ..] => {
                    let new = UpdateTag {
                        type_version: number(2),
                        device_version: number(3),
                    };
                    let tag = tags.entry(name.to_owned()).or_insert(new);
                    tag.type_version = tag.type_version.max(new.type_version);
                    tag.device_version = tag.device_version.max(new.device_version);
                    self.type_version = self.type_version.max(tag.type_version);
                }
                _ => {}
            }
        }
        (trying, tags)
    }
}

fn run_and_kill(path: &Path, after: Duration) -> Vec<String> {
    let mut child = child("crash::the_child", path)
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let (first, at_work) = mpsc::channel();
    let reader = thread::spawn(move || {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            // A line without an end was interrupted by the kill, and is ignored.
            if out.read_line(&mut line).unwrap() == 0 || !line.ends_with('\n') {
                return lines;
            }
            if line.starts_with("ack") {
                let _only_the_first_counts = first.send(());
            }
            lines.push(line.trim_end().to_owned());
        }
    });
    at_work.recv_timeout(Duration::from_secs(60)).unwrap();
    // This chooses the moment of the kill. It does not wait for anything.
    thread::sleep(after);
    child.kill().unwrap();
    child.wait().unwrap();
    reader.join().unwrap()
}

/// `PASSKIT_CRASH_ROUNDS` sets how often.
#[test]
fn a_killed_process_loses_nothing_it_acknowledged() {
    if child_path().is_some() {
        return;
    }
    let rounds = std::env::var("PASSKIT_CRASH_ROUNDS").map_or(20, |text| text.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("passkit.db");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut expected = Expected::default();
    let mut state = seed();
    for round in 0..rounds {
        let lines = run_and_kill(&path, Duration::from_millis(random(&mut state) % 500));
        let acknowledged = expected.acknowledged;
        let (trying, tags) = expected.read(&lines);
        assert!(
            expected.acknowledged > acknowledged,
            "round {round}: nothing happened: {lines:?}"
        );
        let store = SqliteStore::open(&path).unwrap();
        runtime.block_on(async {
            for task in 0..TASKS {
                let found = registered(&store, &device(format!("d{task}"))).await;
                for number in 0..PASSES {
                    let name = format!("{task}-{number}");
                    let is = found.contains(&name);
                    let page = store
                        .devices(Audience::Pass(&pass(&name)), None, 9)
                        .await
                        .unwrap();
                    assert_eq!(
                        page.items.len(),
                        usize::from(is),
                        "round {round}: half of {name}"
                    );
                    let was = expected.registered.entry((task, number)).or_default();
                    if trying.get(&task) == Some(&number) {
                        *was = is;
                    }
                    assert_eq!(is, *was, "round {round}: {name} is not as acknowledged");
                }
            }
            let pending = store.pending(&type_id(), usize::MAX).await.unwrap();
            let pending: HashMap<_, _> = pending
                .into_iter()
                .map(|change| (change.scope, change.version))
                .collect();
            for (name, seen) in &mut expected.passes {
                let now = store.pass_state(&pass(name)).await.unwrap();
                assert!(
                    now.version >= seen.version && now.last_modified >= seen.last_modified,
                    "round {round}: {name} went back from {seen:?} to {now:?}"
                );
                // No worker runs, so every mark is pending with its last version.
                let version = pending.get(&Scope::Pass(serial(name))).copied();
                assert_eq!(
                    version.unwrap_or(0),
                    now.version,
                    "round {round}: {name} is marked and not pending"
                );
                *seen = now;
            }
            for (name, tag) in tags {
                let now = store
                    .changes_since(&device(&name), &type_id(), None)
                    .await
                    .unwrap()
                    .tag;
                assert!(
                    now.type_version >= tag.type_version,
                    "round {round}: the type's clock went back"
                );
                // A device may have been removed and registered again.
                if now.device_version != 0 && now.device_version < tag.device_version {
                    panic!("round {round}: the clock of {name} went back from {tag:?} to {now:?}");
                }
            }
        });
    }
    eprintln!(
        "{rounds} rounds, {} acknowledged changes of registrations",
        expected.acknowledged
    );
}
