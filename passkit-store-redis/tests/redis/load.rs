//! Writers, pollers, registrars and a worker, while something happens to the servers.

use std::{
    collections::{BTreeSet, HashMap},
    fmt::Debug,
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU64, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::{Duration, Instant},
};

use passkit_server::{Owed, PageCursor, PushQueue as _, Reached, RegistrationStore, StoreError};
use passkit_store_redis::RedisStore;
use tokio::task::JoinSet;

use crate::support::{device, devices_of, held, pass, serial, token, told, type_id};

const PASSES: usize = 60;
const WRITERS: usize = 6;
const POLLERS: usize = 10;
const REGISTRARS: usize = 4;

#[derive(Debug, Default)]
struct State {
    /// The number of the newest content of each pass.
    content: Vec<AtomicU64>,
    stop: AtomicBool,
    writing: AtomicUsize,
    /// Calls that succeeded, and calls that failed and were made again.
    done: AtomicUsize,
    failed: AtomicUsize,
}

impl State {
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
    ($state:expr, $call:expr) => {{
        let start = Instant::now();
        loop {
            if let Some(done) = $state.note($call.await, start) {
                break done;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }};
}

/// Runs the load on the store until `faults` is over, which returns the servers, and demands that nothing acknowledged was lost, that no
/// device ends with old content, and that each last mark is owed or was settled.
pub(crate) async fn survives<T: Send + 'static>(
    store: RedisStore,
    faults: impl FnOnce() -> T + Send + 'static,
) {
    let state = Arc::new(State {
        content: (0..PASSES).map(|_| AtomicU64::new(0)).collect(),
        writing: AtomicUsize::new(WRITERS),
        ..State::default()
    });

    let mut pollers = JoinSet::new();
    for number in 0..POLLERS {
        let (store, state) = (store.clone(), state.clone());
        pollers.spawn(async move { poll(number, &store, &state).await });
    }
    let mut writers = JoinSet::new();
    for number in 0..WRITERS {
        let (store, state) = (store.clone(), state.clone());
        writers.spawn(async move {
            let mut i = number;
            while !state.stop.load(SeqCst) {
                i = (i * 7 + WRITERS) % PASSES;
                state.content[i].fetch_add(1, SeqCst);
                let serials = [serial(i.to_string())];
                if is_owed(i) {
                    until_done!(state, store.mark_and_owe(&type_id(), &serials));
                } else {
                    until_done!(state, store.mark_updated(&type_id(), &serials));
                }
            }
            state.writing.fetch_sub(1, SeqCst);
        });
    }
    let mut registrars = JoinSet::new();
    for number in 0..REGISTRARS {
        let (store, state) = (store.clone(), state.clone());
        registrars.spawn(async move { register(number, &store, &state).await });
    }

    let worker = tokio::spawn({
        let (store, state) = (store.clone(), state.clone());
        async move { settle(&store, &state).await }
    });

    let _servers = tokio::task::spawn_blocking(faults).await.unwrap();
    state.stop.store(true, SeqCst);
    writers.join_all().await;
    pollers.join_all().await;
    all_is_owed_or_settled(&store, &state, worker.await.unwrap()).await;
    for (name, expected) in registrars.join_all().await {
        assert_eq!(held(&store, &device(&name)).await, expected, "registrations of {name}");
        for i in 0..PASSES {
            let listed = devices_of(&store, &pass(i.to_string())).await.contains(&name);
            assert_eq!(listed, expected.contains(&i.to_string()), "{name} among the devices of {i}");
        }
    }
    println!("{} calls done, {} made again", state.done.load(Relaxed), state.failed.load(Relaxed));
}

/// Of the others a mark owes nothing.
fn is_owed(pass: usize) -> bool {
    !pass.is_multiple_of(3)
}

/// Works off debts as a worker does; returns for each the greatest version that it settled.
async fn settle(store: &RedisStore, state: &State) -> HashMap<Owed, u64> {
    let mut settled = HashMap::new();
    let mut round = 0;
    while !state.stop.load(SeqCst) {
        let owing = until_done!(state, store.owing());
        let debts = until_done!(state, store.debts(&type_id(), 20));
        assert!(owing.len() <= 1);
        let reached = debts.into_iter().enumerate().map(|(at, debt)| {
            let version = debt.reached.map_or(debt.version, |reached| reached.version);
            let next = (at + round).is_multiple_of(3).then(|| PageCursor::new("page"));
            (debt.owed, Reached { version, next })
        });
        let reached: Vec<(Owed, Reached)> = reached.collect();
        until_done!(state, store.advance(&type_id(), &reached));
        for (owed, reached) in reached {
            if reached.next.is_none() {
                settled.insert(owed, reached.version);
            }
        }
        round += 1;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(!settled.is_empty());
    settled
}

async fn all_is_owed_or_settled(store: &RedisStore, state: &State, settled: HashMap<Owed, u64>) {
    let debts = until_done!(state, store.debts(&type_id(), 1_000));
    let debts: HashMap<Owed, u64> = debts.into_iter().map(|debt| (debt.owed, debt.version)).collect();
    for i in 0..PASSES {
        let pass = pass(i.to_string());
        let marked = until_done!(state, store.pass_state(&pass)).version;
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

/// Polls as a device does, and ends with the newest content of all that it holds.
async fn poll(number: usize, store: &RedisStore, state: &State) {
    let me = device(format!("poller-{number}"));
    let mut seen: HashMap<String, u64> = HashMap::new();
    for i in (number..PASSES).step_by(4 + number) {
        seen.insert(i.to_string(), state.content[i].load(SeqCst));
        let pass = pass(i.to_string());
        until_done!(state, store.register(&me, &pass, &token()));
    }
    let mut tag = None;
    loop {
        let last_round = state.writing.load(SeqCst) == 0;
        let changes = until_done!(state, store.updated_since(&me, &type_id(), tag));
        if !changes.serials.is_empty() {
            if let Some(asked) = tag {
                let forward = changes.tag.type_version >= asked.type_version
                    && changes.tag.device_version >= asked.device_version;
                assert!(forward && changes.tag != asked, "{} after {asked}", changes.tag);
            }
            tag = Some(changes.tag);
        }
        for serial in changes.serials {
            let i: usize = serial.as_str().parse().unwrap();
            seen.insert(i.to_string(), state.content[i].load(SeqCst));
        }
        if last_round {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for (i, has) in seen {
        let newest = state.content[i.parse::<usize>().unwrap()].load(SeqCst);
        assert_eq!(has, newest, "poller {number} has old content of {i}");
    }
    let again = until_done!(state, store.updated_since(&me, &type_id(), tag));
    assert!(again.serials.is_empty(), "{} again", again.serials.len());
}

/// Registers and unregisters; returns what it must hold in the end.
async fn register(number: usize, store: &RedisStore, state: &State) -> (String, Vec<String>) {
    let name = format!("registrar-{number}");
    let me = device(&name);
    let mut expected = BTreeSet::new();
    let mut i = number;
    while !state.stop.load(SeqCst) {
        i = (i * 5 + 3) % PASSES + 1;
        let text = (i % PASSES).to_string();
        let pass = pass(&text);
        if expected.contains(&text) {
            until_done!(state, store.unregister(&me, &pass));
            expected.remove(&text);
        } else {
            until_done!(state, store.register(&me, &pass, &token()));
            expected.insert(text);
        }
    }
    (name, expected.into_iter().collect())
}
