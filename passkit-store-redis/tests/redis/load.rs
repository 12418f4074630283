//! Writers, devices that poll and register, and a worker, while something happens to the servers. Every call and its
//! answer are recorded, and the conformance kit judges the whole.

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
    Owed, PageCursor, PushQueue as _, Reached, RegistrationStore as _, StoreError, UpdateTag,
};
use passkit_store_redis::RedisStore;
use tokio::{sync::Barrier, task::JoinSet, time::sleep};

use crate::support::{device, pass, serial, token, told, type_id};

const PASSES: usize = 60;
const WRITERS: usize = 16;
const POLLERS: usize = 100;
/// Of the pollers, those that also register and unregister all the while.
const REGISTRARS: usize = 6;

/// Between two lists of a device: a hundred of them ask a thousand times a second.
const BETWEEN_POLLS: Duration = Duration::from_millis(100);

struct Load {
    store: RedisStore,
    /// The same store, with all that devices and writers ask of it written down.
    recorder: Recorder,
    /// Passed when all devices have registered.
    begun: Barrier,
    stop: AtomicBool,
    /// Calls that succeeded, and calls that failed and were made again.
    done: AtomicUsize,
    failed: AtomicUsize,
}

impl Load {
    fn goes_on(&self) -> bool {
        !self.stop.load(SeqCst)
    }

    fn note<T: Debug>(&self, answer: Result<T, StoreError>, since: Instant) -> Option<T> {
        match answer {
            Ok(done) => {
                self.done.fetch_add(1, Relaxed);
                Some(done)
            }
            Err(error) => {
                self.failed.fetch_add(1, Relaxed);
                assert!(error.is_transient(), "{}", told(&error));
                assert!(since.elapsed() < Duration::from_secs(150), "for long: {}", told(&error));
                None
            }
        }
    }
}

/// Makes a call again until it succeeds. Every error must say that this is right.
macro_rules! until_done {
    ($load:expr, $call:expr) => {{
        let start = Instant::now();
        loop {
            if let Some(done) = $load.note($call.await, start) {
                break done;
            }
            sleep(Duration::from_millis(20)).await;
        }
    }};
}

/// Runs the load on the store until `faults` is over, which returns the servers, and demands that the answers are those of
/// a store that lost nothing: what was acknowledged holds, no device was left with old content, each last mark is owed
/// or was settled.
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
        async move { settle(&load).await }
    });

    load.begun.wait().await;
    let _servers = tokio::task::spawn_blocking(faults).await.unwrap();
    load.stop.store(true, SeqCst);
    writers.join_all().await;
    let tags = devices.join_all().await;
    all_is_owed_or_settled(&load, worker.await.unwrap()).await;

    // All is quiet. What is asked now leaves the answers above no way out.
    for (number, tag) in tags.into_iter().enumerate() {
        let me = device(number.to_string());
        until_done!(load, load.recorder.updated_since(&me, &type_id(), tag));
        until_done!(load, load.recorder.updated_since(&me, &type_id(), None));
    }
    for i in 0..PASSES {
        let pass = pass(i.to_string());
        until_done!(load, load.recorder.pass_state(&pass));
        until_done!(load, load.recorder.devices_of(&pass, None, 10 * POLLERS));
    }
    println!("{} calls done, {} made again", load.done.load(Relaxed), load.failed.load(Relaxed));
    let judging = Instant::now();
    let history = load.recorder.history();
    history.check().unwrap_or_else(|breach| panic!("{breach}"));
    println!("{} calls judged in {:?}", history.calls.len(), judging.elapsed());
}

/// Of the others a mark owes nothing.
fn is_owed(pass: usize) -> bool {
    !pass.is_multiple_of(3)
}

async fn write(number: usize, load: &Load) {
    let mut i = number;
    while load.goes_on() {
        i = (i * 7 + WRITERS + 1) % PASSES;
        let serials = [serial(i.to_string())];
        if is_owed(i) {
            until_done!(
                load,
                load.recorder.mark_by(&type_id(), &serials, load.store.mark_and_owe(&type_id(), &serials))
            );
        } else {
            until_done!(load, load.recorder.mark_updated(&type_id(), &serials));
        }
        if i.is_multiple_of(5) {
            until_done!(load, load.recorder.pass_state(&pass(i.to_string())));
        }
    }
}

/// Polls as a device does, registers and unregisters; returns the last tag.
async fn poll(number: usize, load: &Load) -> Option<UpdateTag> {
    let me = device(number.to_string());
    let mut held: BTreeSet<usize> = (number % PASSES..PASSES).step_by(4 + number % 11).collect();
    for i in &held {
        until_done!(load, load.recorder.register(&me, &pass(i.to_string()), &token()));
    }
    load.begun.wait().await;
    let mut tag = None;
    let mut i = number;
    while load.goes_on() {
        let changes = until_done!(load, load.recorder.updated_since(&me, &type_id(), tag));
        if !changes.serials.is_empty() {
            tag = Some(changes.tag);
        }
        if number >= REGISTRARS {
            sleep(BETWEEN_POLLS).await;
            continue;
        }
        i = (i * 5 + 3) % (PASSES + 1);
        let pass = pass((i % PASSES).to_string());
        if held.remove(&(i % PASSES)) {
            until_done!(load, load.recorder.unregister(&me, &pass));
        } else {
            until_done!(load, load.recorder.register(&me, &pass, &token()));
            held.insert(i % PASSES);
        }
    }
    tag
}

/// Works off debts as a worker does; returns for each the greatest version that it settled.
async fn settle(load: &Load) -> HashMap<Owed, u64> {
    let mut settled = HashMap::new();
    let mut round = 0;
    while load.goes_on() || settled.is_empty() {
        let owing = until_done!(load, load.store.owing());
        let debts = until_done!(load, load.store.debts(&type_id(), 20));
        assert!(owing.len() <= 1);
        let reached = debts.into_iter().enumerate().map(|(at, debt)| {
            let version = debt.reached.map_or(debt.version, |reached| reached.version);
            let next = (at + round).is_multiple_of(3).then(|| PageCursor::new("page"));
            (debt.owed, Reached { version, next })
        });
        let reached: Vec<(Owed, Reached)> = reached.collect();
        until_done!(load, load.store.advance(&type_id(), &reached));
        for (owed, reached) in reached {
            if reached.next.is_none() {
                settled.insert(owed, reached.version);
            }
        }
        round += 1;
        sleep(Duration::from_millis(5)).await;
    }
    settled
}

async fn all_is_owed_or_settled(load: &Load, settled: HashMap<Owed, u64>) {
    let debts = until_done!(load, load.store.debts(&type_id(), 1_000));
    let debts: HashMap<Owed, u64> = debts.into_iter().map(|debt| (debt.owed, debt.version)).collect();
    for i in 0..PASSES {
        let pass = pass(i.to_string());
        let marked = until_done!(load, load.store.pass_state(&pass)).version;
        let owed = Owed::Pass(pass.serial);
        let (kept, done) = (debts.get(&owed).copied(), settled.get(&owed).copied());
        if is_owed(i) {
            let newest = kept.max(done).unwrap_or(0);
            assert!(newest >= marked, "{i} marked {marked}, owed {kept:?}, settled {done:?}");
        } else {
            assert_eq!((kept, done), (None, None), "{i}");
        }
    }
}
