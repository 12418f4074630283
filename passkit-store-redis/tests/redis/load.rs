//! Load for the failover tests: writers, devices that poll and register, and a worker. The load records every call with its
//! answer, and the conformance kit checks the record.

use std::{
    collections::{BTreeSet, HashMap},
    fmt::Debug,
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::{Duration, Instant},
};

use passkit_conformance::store::history::Recorder;
use passkit_server::{
    Changed,
    push::{Progress, PushQueue as _, Scope},
    store::{Audience, PageCursor, RegistrationStore as _, StoreError, UpdateTag},
};
use passkit_store_redis::RedisStore;
use tokio::{sync::Barrier, task::JoinSet, time::sleep};

use crate::support::{chain, content, device, pass, serial, token, type_id};

const PASSES: usize = 60;
const WRITERS: usize = 16;
const POLLERS: usize = 100;
/// How many of the polling devices also register and unregister all the time.
const REGISTRARS: usize = 6;

/// The pause between two lists of a device. Together, a hundred devices ask a thousand times a second.
const BETWEEN_POLLS: Duration = Duration::from_millis(100);

struct Load {
    store: RedisStore,
    /// The same store, recording the calls of devices and writers.
    recorder: Recorder,
    /// Opens when all devices have registered.
    begun: Barrier,
    stop: AtomicBool,
    /// The number of calls that succeeded, and of calls that failed and were repeated.
    done: AtomicUsize,
    failed: AtomicUsize,
}

impl Load {
    fn goes_on(&self) -> bool {
        !self.stop.load(SeqCst)
    }

    fn count<T: Debug>(&self, answer: Result<T, StoreError>, since: Instant) -> Option<T> {
        match answer {
            Ok(done) => {
                self.done.fetch_add(1, Relaxed);
                Some(done)
            }
            Err(error) => {
                self.failed.fetch_add(1, Relaxed);
                assert!(error.is_transient(), "{}", chain(&error));
                assert!(
                    since.elapsed() < Duration::from_secs(150),
                    "for long: {}",
                    chain(&error)
                );
                None
            }
        }
    }
}

/// Repeats a call until it succeeds. Every error must be transient.
macro_rules! until_done {
    ($load:expr, $call:expr) => {{
        let start = Instant::now();
        loop {
            if let Some(done) = $load.count($call.await, start) {
                break done;
            }
            sleep(Duration::from_millis(20)).await;
        }
    }};
}

/// Runs the load until `faults` ends, which returns the servers. The answers must show that nothing was lost: every
/// acknowledged change is there, every device has the newest content, and the last mark of each pass is pending or done.
pub(crate) async fn survives<T: Send + 'static>(
    store: RedisStore,
    faults: impl FnOnce() -> T + Send + 'static,
) {
    let load = Arc::new(Load {
        recorder: Recorder::new(Arc::new(store.clone())),
        store,
        begun: Barrier::new(POLLERS + 1),
        stop: AtomicBool::new(false),
        done: AtomicUsize::new(0),
        failed: AtomicUsize::new(0),
    });
    let mut devices = JoinSet::new();
    for number in 0..POLLERS {
        let load = load.clone();
        devices.spawn(async move { poll(number, &load).await });
    }
    let mut writers = JoinSet::new();
    for number in 0..WRITERS {
        let load = load.clone();
        writers.spawn(async move { write(number, &load).await });
    }
    let worker = tokio::spawn({
        let load = load.clone();
        async move { work(&load).await }
    });

    load.begun.wait().await;
    let _servers = tokio::task::spawn_blocking(faults).await.unwrap();
    load.stop.store(true, SeqCst);
    writers.join_all().await;
    let tags = devices.join_all().await;
    all_is_pending_or_done(&load, worker.await.unwrap()).await;

    // The faults are over. These last calls show whether anything was lost.
    for (number, tag) in tags.into_iter().enumerate() {
        let me = device(number.to_string());
        until_done!(load, load.recorder.changes_since(&me, &type_id(), tag));
        until_done!(load, load.recorder.changes_since(&me, &type_id(), None));
    }
    for i in 0..PASSES {
        let pass = pass(i.to_string());
        until_done!(load, load.recorder.pass_state(&pass));
        until_done!(
            load,
            load.recorder
                .devices(Audience::Pass(&pass), None, 10 * POLLERS)
        );
    }
    let mut after = None;
    loop {
        let page = until_done!(
            load,
            load.recorder
                .devices(Audience::Type(&type_id()), after.as_ref(), 30)
        );
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    println!(
        "{} calls done, {} made again",
        load.done.load(Relaxed),
        load.failed.load(Relaxed)
    );
    let checking = Instant::now();
    let history = load.recorder.history();
    history
        .check()
        .unwrap_or_else(|violation| panic!("{violation}"));
    println!(
        "{} calls checked in {:?}",
        history.calls.len(),
        checking.elapsed()
    );
}

/// Returns whether this pass is marked with pushes.
fn has_pushes(pass: usize) -> bool {
    !pass.is_multiple_of(3)
}

async fn write(number: usize, load: &Load) {
    let mut i = number;
    let mut count = 0_u64;
    while load.goes_on() {
        i = (i * 7 + WRITERS + 1) % PASSES;
        let serials = [serial(i.to_string())];
        count += 1;
        let mut digest = [number as u8; 32];
        digest[..8].copy_from_slice(&u64::to_le_bytes(count));
        let contents = [content(i.to_string(), digest)];
        let changed = if i.is_multiple_of(2) {
            Changed::Contents(&contents)
        } else {
            Changed::Passes(&serials)
        };
        if has_pushes(i) {
            let type_id = type_id();
            until_done!(
                load,
                load.recorder.mark_by(
                    &type_id,
                    changed,
                    load.store.mark_and_push(&type_id, changed)
                )
            );
        } else {
            until_done!(load, load.recorder.mark(&type_id(), changed));
        }
        if i.is_multiple_of(5) {
            until_done!(load, load.recorder.pass_state(&pass(i.to_string())));
        }
    }
}

/// Polls like a device, and registers and unregisters. Returns the last tag.
async fn poll(number: usize, load: &Load) -> Option<UpdateTag> {
    let me = device(number.to_string());
    let mut registered: BTreeSet<usize> =
        (number % PASSES..PASSES).step_by(4 + number % 11).collect();
    for i in &registered {
        until_done!(
            load,
            load.recorder.register(&me, &pass(i.to_string()), &token())
        );
    }
    load.begun.wait().await;
    let mut tag = None;
    let mut i = number;
    while load.goes_on() {
        let changes = until_done!(load, load.recorder.changes_since(&me, &type_id(), tag));
        if !changes.serials.is_empty() {
            tag = Some(changes.tag);
        }
        if number >= REGISTRARS {
            sleep(BETWEEN_POLLS).await;
            continue;
        }
        i = (i * 5 + 3) % (PASSES + 1);
        let pass = pass((i % PASSES).to_string());
        if registered.remove(&(i % PASSES)) {
            until_done!(load, load.recorder.unregister(&me, &pass));
        } else {
            until_done!(load, load.recorder.register(&me, &pass, &token()));
            registered.insert(i % PASSES);
        }
    }
    tag
}

/// Finishes pending changes like a worker. Returns the greatest version that it finished for each.
async fn work(load: &Load) -> HashMap<Scope, u64> {
    let mut all_done = HashMap::new();
    let mut round = 0;
    while load.goes_on() || all_done.is_empty() {
        let backlog = until_done!(load, load.store.backlog());
        let pending = until_done!(load, load.store.pending(&type_id(), 20));
        assert!(backlog.len() <= 1);
        let progress = pending.into_iter().enumerate().map(|(at, change)| {
            let version = change
                .progress
                .map_or(change.version, |progress| progress.version);
            let next = (at + round)
                .is_multiple_of(3)
                .then(|| PageCursor::new("page"));
            (change.scope, Progress { version, next })
        });
        let progress: Vec<(Scope, Progress)> = progress.collect();
        until_done!(load, load.store.record_progress(&type_id(), &progress));
        for (scope, progress) in progress {
            if progress.next.is_none() {
                all_done.insert(scope, progress.version);
            }
        }
        round += 1;
        sleep(Duration::from_millis(5)).await;
    }
    all_done
}

async fn all_is_pending_or_done(load: &Load, done: HashMap<Scope, u64>) {
    let pending = until_done!(load, load.store.pending(&type_id(), 1_000));
    let pending: HashMap<Scope, u64> = pending
        .into_iter()
        .map(|change| (change.scope, change.version))
        .collect();
    for i in 0..PASSES {
        let pass = pass(i.to_string());
        let marked = until_done!(load, load.store.pass_state(&pass)).version;
        let scope = Scope::Pass(pass.serial);
        let (pending, done) = (pending.get(&scope).copied(), done.get(&scope).copied());
        if has_pushes(i) {
            let newest = pending.max(done).unwrap_or(0);
            assert!(
                newest >= marked,
                "{i} marked {marked}, pending {pending:?}, done {done:?}"
            );
        } else {
            assert_eq!((pending, done), (None, None), "{i}");
        }
    }
}
