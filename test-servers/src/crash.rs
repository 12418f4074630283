//! Kills a process while it writes. Then checks that its store has everything that the process acknowledged.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

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
    identifiers::TokenDigest,
    push::{PushQueue, Scope},
    store::{Audience, Content, ContentDigest, UpdateTag},
};
use tokio::task::JoinSet;

use crate::{
    child::{self, report},
    fixtures::{self, device, pass, registered, serial, token, type_id},
};

const TASKS: u64 = 32;

/// The number of passes. If a store has a special form for long lists of registrations, this number is high enough for that
/// form.
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

fn content_digest(number: u64) -> ContentDigest {
    let mut digest = [0; 32];
    digest[..8].copy_from_slice(&number.to_be_bytes());
    digest
}

/// Writes to a store until the process is killed. Reports each call and each result of a read, on one line each.
///
/// Each task has a separate device and separate passes, so that the lines about them are in order. Tasks also read the
/// passes of other tasks. A crash must not undo anything that they read.
pub async fn write_until_killed(store: impl PushQueue + 'static) {
    let store = Arc::new(store);
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            let mut state = seed() ^ task << 17;
            let device = device(format!("d{task}"));
            loop {
                let number = random(&mut state) % PASSES;
                let pass = pass(format!("{task}-{number}"));
                match random(&mut state) % 7 {
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
                        assert!(new.version > old.version && new.last_modified > old.last_modified);
                        report(&format!(
                            "saw {task}-{number} {} {}",
                            new.version, new.last_modified
                        ));
                    }
                    4 => {
                        let number = random(&mut state);
                        report(&format!("publish {} {number}", pass.serial));
                        let digest = content_digest(number);
                        let tokens = vec![TokenDigest::from_bytes(digest)];
                        let content = Content {
                            serial: pass.serial.clone(),
                            digest: Some(digest),
                            tokens,
                        };
                        store
                            .mark_and_push(&type_id(), Changed::Contents(&[content]))
                            .await
                            .unwrap();
                        let PassState {
                            version,
                            last_modified,
                            published,
                        } = store.pass_state(&pass).await.unwrap();
                        assert_eq!(published, Some(digest));
                        report(&format!(
                            "saw {} {version} {last_modified} {number}",
                            pass.serial
                        ));
                    }
                    5 => {
                        let seen = store.pass_state(&fixtures::pass("all")).await.unwrap();
                        report(&format!("saw all {} {}", seen.version, seen.last_modified));
                    }
                    _ => {
                        let other = fixtures::device(format!("d{}", random(&mut state) % TASKS));
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
}

#[derive(Default)]
struct Expected {
    /// Whether a pass is registered. The key is the task and the pass.
    registered: HashMap<(u64, u64), bool>,
    passes: HashMap<String, PassState>,
    /// For each pass, the digest that was acknowledged last, if any, and the digests that were published since.
    contents: HashMap<String, Vec<Option<ContentDigest>>>,
    type_version: u64,
    acknowledged: usize,
}

impl Expected {
    fn read(&mut self, lines: &[String]) -> (HashMap<u64, u64>, HashMap<String, UpdateTag>) {
        // The unfinished call of each task when the process was killed.
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
                ["publish", name, ..] => {
                    let digests = self
                        .contents
                        .entry(name.to_owned())
                        .or_insert_with(|| vec![None]);
                    digests.push(Some(content_digest(number(2))));
                }
                ["saw", name, ..] => {
                    if words.len() > 4 {
                        self.contents
                            .insert(name.to_owned(), vec![Some(content_digest(number(4)))]);
                    }
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

fn run_and_kill(test: &str, path: &Path, after: Duration) -> Vec<String> {
    let mut child = child::command(test, path)
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
            // The kill may cut a line short. A line without an end does not count.
            if out.read_line(&mut line).unwrap() == 0 || !line.ends_with('\n') {
                return lines;
            }
            if line.starts_with("ack") {
                let _sent_before = first.send(());
            }
            lines.push(line.trim_end().to_owned());
        }
    });
    at_work.recv_timeout(Duration::from_secs(60)).unwrap();
    // The pause only chooses the time of the kill. Nothing waits for it.
    thread::sleep(after);
    child.kill().unwrap();
    child.wait().unwrap();
    reader.join().unwrap()
}

/// Runs a test that calls [`write_until_killed`] as a child, kills it, and checks the store that it leaves. Repeats this 20
/// times, or as often as `PASSKIT_CRASH_ROUNDS` says.
///
/// # Panics
/// Panics if anything acknowledged is lost, or anything that was read is gone.
pub fn kill_and_check<S: PushQueue>(test: &str, path: &Path, open: impl Fn(&Path) -> S) {
    let rounds = std::env::var("PASSKIT_CRASH_ROUNDS").map_or(20, |text| text.parse().unwrap());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut expected = Expected::default();
    let mut state = seed();
    for round in 0..rounds {
        let lines = run_and_kill(test, path, Duration::from_millis(random(&mut state) % 500));
        let acknowledged = expected.acknowledged;
        let (trying, tags) = expected.read(&lines);
        assert!(
            expected.acknowledged > acknowledged,
            "round {round}: nothing happened: {lines:?}"
        );
        let store = open(path);
        runtime.block_on(async {
            for task in 0..TASKS {
                let listed = registered(&store, &device(format!("d{task}"))).await;
                for number in 0..PASSES {
                    let name = format!("{task}-{number}");
                    let is = listed.contains(&name);
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
            let count = store
                .backlog()
                .await
                .unwrap()
                .first()
                .map_or(0, |backlog| backlog.pending);
            assert_eq!(
                count,
                pending.len() as u64,
                "round {round}: the count of pending changes is wrong"
            );
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
                // No worker sends the pushes. Each marked pass is therefore pending with the version of its last mark.
                let pending = pending.get(&Scope::Pass(serial(name))).copied();
                assert_eq!(
                    pending.unwrap_or(0),
                    now.version,
                    "round {round}: {name} is marked and not pending"
                );
                *seen = now;
            }
            for (name, digests) in &mut expected.contents {
                let state = store.pass_state(&pass(name)).await.unwrap();
                assert!(
                    digests.contains(&state.published),
                    "round {round}: the content of {name} went back"
                );
                let published = store.published(&[pass(name)]).await.unwrap().remove(0);
                let token = published
                    .as_ref()
                    .and_then(|published| published.tokens.last().copied());
                let digest = published.and_then(|published| published.digest);
                assert_eq!(
                    digest, state.published,
                    "round {round}: half of the content of {name}"
                );
                assert_eq!(
                    token,
                    digest.map(TokenDigest::from_bytes),
                    "round {round}: a token of {name} is lost"
                );
                *digests = vec![digest];
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
                // The device may have been removed and registered again. Its clock then starts again.
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
