//! Measures the store and the bare statements, over connections with the same settings:
//! `cargo run --release -p passkit-store-sqlite --example measure -- [FOLDER [REGISTRATIONS...]]`
//!
//! With a single caller, the bare statement also runs on another thread, so that both times include the switch of threads.
//! With several numbers of registrations, the table also shows the growth.
#![allow(
    clippy::unwrap_used,
    reason = "a measurement that cannot go on should panic"
)]

#[allow(
    dead_code,
    unreachable_pub,
    reason = "the statements of the store itself"
)]
#[path = "../src/layout.rs"]
mod layout;

use std::{
    hint::black_box,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use passkit_server::{
    Changed, PassId,
    identifiers::{DeviceIdentifier, PushToken, SerialNumber, TypeIdentifier},
    maintenance::{Registration, StoreMaintenance as _},
    store::{RegistrationStore, UpdateTag, clock},
};
use passkit_store_sqlite::{
    SqliteStore,
    rusqlite::{Connection, params},
};
use tokio::sync::oneshot;

const TYPE: &str = "pass.com.example.ticket";
const PASSES_OF_A_DEVICE: u64 = 3;
const CALLERS: u64 = 64;
const THREADS: u64 = 4;

fn device(number: u64) -> String {
    format!("{:032x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

fn serial(number: u64) -> String {
    format!(
        "{:08}-{:08x}",
        number % 1_000_000,
        (number % 1_000_000).wrapping_mul(2_654_435_761) as u32
    )
}

/// Returns a number below `below`. Consecutive values of `i` give numbers without a pattern.
fn scattered(i: u64, below: u64) -> u64 {
    let mut x = i.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (x ^ (x >> 31)) % below
}

fn connect(path: &Path) -> Connection {
    let connection = Connection::open(path).unwrap();
    connection
        .pragma_update(None, "synchronous", "full")
        .unwrap();
    connection
        .pragma_update(None, "cell_size_check", true)
        .unwrap();
    connection
        .pragma_update(None, "cache_size", -(65_536 / 7))
        .unwrap();
    connection.set_prepared_statement_cache_capacity(64);
    connection
}

fn bare_list(connection: &Connection, device: &str, tag: Option<UpdateTag>) -> usize {
    let mut statement = connection.prepare_cached(layout::CHANGES_SINCE).unwrap();
    let tag = tag.map(|tag| {
        (
            layout::integer(tag.type_version),
            layout::integer(tag.device_version),
        )
    });
    let mut rows = statement
        .query(params![
            device,
            TYPE,
            tag.map(|tag| tag.0),
            tag.map(|tag| tag.1)
        ])
        .unwrap();
    let mut count = 0;
    while let Some(row) = rows.next().unwrap() {
        count += row
            .get::<_, Option<String>>(2)
            .unwrap()
            .map_or(0, |serial| serial.len());
    }
    count
}

fn bare_state(connection: &Connection, serial: &str) -> u64 {
    let mut statement = connection.prepare_cached(layout::PASS_STATE).unwrap();
    statement
        .query_row(params![TYPE, serial], |row| layout::number(row, 0))
        .unwrap()
}

/// Makes these registrations in one commit.
fn bare_register(
    connection: &Connection,
    registrations: impl IntoIterator<Item = (String, String)>,
) {
    let run = |sql| connection.prepare_cached(sql).unwrap().execute([]).unwrap();
    run("begin immediate");
    for (device, serial) in registrations {
        let mut statement = connection.prepare_cached(layout::REGISTER_DEVICE).unwrap();
        let now = layout::integer(clock::now_micros());
        let version: i64 = statement
            .query_row(params![device, "c0ffee", now], |row| row.get(0))
            .unwrap();
        let mut statement = connection.prepare_cached(layout::REGISTER).unwrap();
        statement
            .execute(params![device, TYPE, serial, version])
            .unwrap();
    }
    run("commit");
}

type Job = Box<dyn FnOnce(&Connection) + Send>;

/// Starts a thread that runs the jobs it gets.
fn thread_of(path: &Path) -> mpsc::Sender<Job> {
    let connection = connect(path);
    let (sender, jobs) = mpsc::channel::<Job>();
    thread::spawn(move || jobs.into_iter().for_each(|job| job(&connection)));
    sender
}

async fn hand_over<T: Send + 'static>(
    thread: &mpsc::Sender<Job>,
    job: impl FnOnce(&Connection) -> T + Send + 'static,
) -> T {
    let (sender, answer) = oneshot::channel();
    let job: Job = Box::new(move |connection| drop(sender.send(job(connection))));
    thread.send(job).unwrap();
    answer.await.unwrap()
}

/// The times of single calls in microseconds: the name of the call, and its times with bare SQLite and with the store.
type Times = Vec<(&'static str, [f64; 2])>;

/// Measures each kind of call in 15 runs, and prints the microseconds of the fastest run, because other work on the machine
/// only makes runs slower. The kinds take turns.
async fn alone<A, B>(
    times: &mut Times,
    what: &'static str,
    calls: u64,
    mut bare: impl AsyncFnMut(u64) -> A,
    mut store: impl AsyncFnMut(u64) -> B,
) {
    const RUNS: u64 = 15;
    let mut fastest = [f64::INFINITY; 2];
    for run in 0..RUNS {
        let numbers = || run * calls..(run + 1) * calls;
        let start = Instant::now();
        for i in numbers() {
            black_box(bare(i).await);
        }
        let between = Instant::now();
        for i in numbers() {
            black_box(store(i).await);
        }
        let times = [between - start, between.elapsed()];
        for (fastest, time) in fastest.iter_mut().zip(times) {
            *fastest = fastest.min(time.as_secs_f64() * 1e6 / calls as f64);
        }
    }
    row(what, fastest);
    times.push((what, fastest));
}

fn row(what: &str, [bare, store]: [f64; 2]) {
    println!("{what:28} {bare:18.2} {store:8.2} {:7.2}", store / bare);
}

/// Measures the calls per second of 64 tasks.
async fn together<F: Future<Output: Send> + Send>(
    call: impl Fn(u64) -> F + Send + Sync + 'static,
) -> f64 {
    let (call, count) = (Arc::new(call), Arc::new(AtomicU64::new(0)));
    let start = Instant::now();
    let end = start + Duration::from_secs(3);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..CALLERS {
        let (call, count) = (Arc::clone(&call), Arc::clone(&count));
        tasks.spawn(async move {
            while Instant::now() < end {
                black_box(call(count.fetch_add(1, Relaxed)).await);
            }
        });
    }
    tasks.join_all().await;
    count.load(Relaxed) as f64 / start.elapsed().as_secs_f64()
}

/// Measures the calls per second of threads that do nothing else.
fn threads<R>(path: &Path, call: impl Fn(&Connection, u64) -> R + Sync) -> f64 {
    let count = AtomicU64::new(0);
    let start = Instant::now();
    let end = start + Duration::from_secs(3);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let connection = connect(path);
                while Instant::now() < end {
                    black_box(call(&connection, count.fetch_add(1, Relaxed)));
                }
            });
        }
    });
    count.load(Relaxed) as f64 / start.elapsed().as_secs_f64()
}

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().map_or_else(std::env::temp_dir, Into::into);
    let mut sizes: Vec<u64> = arguments.map(|text| text.parse().unwrap()).collect();
    if sizes.is_empty() {
        sizes.push(300_000);
    }
    let mut smallest: Option<Times> = None;
    for registrations in sizes {
        let times = measure(&folder, registrations).await;
        let Some(smallest) = &smallest else {
            smallest = Some(times);
            continue;
        };
        println!("growth, times                bare, on a thread    store   ratio");
        for ((what, before), (_, after)) in smallest.iter().zip(&times) {
            row(what, [after[0] / before[0], after[1] / before[1]]);
        }
    }
}

/// Measures with this number of registrations, which stay in the folder.
async fn measure(folder: &Path, registrations: u64) -> Times {
    let path = folder.join(format!("passkit-measure-{registrations}.db"));
    let store = Arc::new(SqliteStore::create(&path).unwrap());
    let devices = registrations / PASSES_OF_A_DEVICE;
    let type_id = TypeIdentifier::new(TYPE).unwrap();
    let token = PushToken::new("c0ffee").unwrap();
    let id = |number: u64| DeviceIdentifier::new(&device(number)).unwrap();
    let pass = move |number: u64| PassId::new(TYPE, &serial(number)).unwrap();

    let start = Instant::now();
    if store
        .changes_since(&id(0), &type_id, None)
        .await
        .unwrap()
        .serials
        .is_empty()
    {
        for first in (0..devices).step_by(5_000) {
            let numbers = first..(first + 5_000).min(devices);
            let batch: Vec<_> = numbers
                .flat_map(|number| {
                    (0..PASSES_OF_A_DEVICE).map(move |i| (number, number * PASSES_OF_A_DEVICE + i))
                })
                .map(|(number, i)| Registration {
                    device: id(number),
                    push_token: token.clone(),
                    pass: pass(i),
                })
                .collect();
            store.register_many(&batch).await.unwrap();
        }
        let serials: Vec<_> = (0..registrations.min(1_000_000))
            .map(|i| SerialNumber::new(&serial(i)).unwrap())
            .collect();
        for step in serials.chunks(10_000) {
            store.mark(&type_id, Changed::Passes(step)).await.unwrap();
        }
        println!("filled in {:.1?}", start.elapsed());
    }
    let tag = store
        .changes_since(&id(0), &type_id, None)
        .await
        .unwrap()
        .tag;
    println!(
        "{registrations} registrations, {:?} bytes",
        store.stats().await.unwrap().storage_bytes.unwrap()
    );
    let thread = thread_of(&path);
    let any = move |i| scattered(i, devices);
    // Each measurement registers new devices.
    let first_new = clock::now_micros();
    let next = |kind: u64| move |i: u64| first_new + (kind << 32) + i;
    let large = DeviceIdentifier::new("large").unwrap();
    let passes: Vec<_> = (0..10_000)
        .map(|i| Registration {
            device: large.clone(),
            push_token: token.clone(),
            pass: pass(i),
        })
        .collect();
    store.register_many(&passes).await.unwrap();
    let of_large = store
        .changes_since(&large, &type_id, None)
        .await
        .unwrap()
        .tag;

    let mut times = Times::new();
    println!("alone, microseconds          bare, on a thread    store   ratio");
    let bare =
        async |device: String, tag| hand_over(&thread, move |c| bare_list(c, &device, tag)).await;
    let list = async |device: DeviceIdentifier, tag| {
        store.changes_since(&device, &type_id, tag).await.unwrap()
    };
    alone(
        &mut times,
        "list, all of 3 passes",
        1_000,
        async |i| bare(device(any(i)), None).await,
        async |i| list(id(any(i)), None).await,
    )
    .await;
    alone(
        &mut times,
        "list, what is new",
        1_000,
        async |i| bare(device(any(i)), Some(tag)).await,
        async |i| list(id(any(i)), Some(tag)).await,
    )
    .await;
    alone(
        &mut times,
        "list, nothing of 10,000",
        1_000,
        async |_| bare("large".to_owned(), Some(of_large)).await,
        async |_| list(large.clone(), Some(of_large)).await,
    )
    .await;
    alone(
        &mut times,
        "list, all of 10,000",
        5,
        async |_| bare("large".to_owned(), None).await,
        async |_| list(large.clone(), None).await,
    )
    .await;
    let older = UpdateTag {
        type_version: of_large.type_version - 1,
        ..of_large
    };
    alone(
        &mut times,
        "list, what is new of 10,000",
        5,
        async |_| bare("large".to_owned(), Some(older)).await,
        async |_| list(large.clone(), Some(older)).await,
    )
    .await;
    alone(
        &mut times,
        "state",
        1_000,
        async |i| hand_over(&thread, move |c| bare_state(c, &serial(any(i)))).await,
        async |i| store.pass_state(&pass(any(i))).await.unwrap(),
    )
    .await;
    let (of_bare, of_store) = (next(0), next(1));
    alone(
        &mut times,
        "register",
        200,
        async |i| {
            hand_over(&thread, move |c| {
                bare_register(c, [(device(of_bare(i)), serial(i))])
            })
            .await
        },
        async |i| {
            store
                .register(&id(of_store(i)), &pass(i), &token)
                .await
                .unwrap()
        },
    )
    .await;

    println!("64 callers, calls per second     bare, {THREADS} threads    store   ratio");
    let shared = || (Arc::clone(&store), type_id.clone());
    let bare = threads(&path, |c, i| bare_list(c, &device(any(i)), None));
    let (s, t) = shared();
    let of_store = together(move |i| {
        let (s, t) = (Arc::clone(&s), t.clone());
        async move {
            s.changes_since(&DeviceIdentifier::new(&device(any(i))).unwrap(), &t, None)
                .await
                .unwrap()
        }
    })
    .await;
    row("list, all", [bare, of_store]);
    let bare = threads(&path, |c, i| bare_state(c, &serial(any(i))));
    let (s, _) = shared();
    let of_store = together(move |i| {
        let s = Arc::clone(&s);
        async move { s.pass_state(&pass(any(i))).await.unwrap() }
    })
    .await;
    row("state", [bare, of_store]);
    let new = next(2);
    let one = connect(&path);
    let rates = [1, CALLERS].map(|group| {
        let start = Instant::now();
        let commits = 6_000 / (group + 1);
        for i in 0..commits {
            let all = (0..group).map(|n| i * group + n);
            bare_register(&one, all.map(|n| (device(new(group << 20 | n)), serial(n))));
        }
        (commits * group) as f64 / start.elapsed().as_secs_f64()
    });
    let new = next(3);
    let (s, _) = shared();
    let token_of = token.clone();
    let of_store = together(move |i| {
        let (s, token) = (Arc::clone(&s), token_of.clone());
        async move {
            let device = DeviceIdentifier::new(&device(new(i))).unwrap();
            s.register(&device, &pass(i), &token).await.unwrap()
        }
    })
    .await;
    row("register, bare: a commit each", [rates[0], of_store]);
    row("register, bare: 64 a commit", [rates[1], of_store]);
    drop(thread);
    times
}
