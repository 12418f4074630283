//! The Redis store beside the bare commands and scripts that it cannot do without, over the same driver in the same
//! run; a device with 10,000 passes; what a registration takes in memory; a Cluster beside one node.
//!
//! `cargo bench -p passkit-benches --bench redis`. Prints medians and, which alone means something on a shared
//! machine, ratios. `PASSKIT_BENCH_REGISTRATIONS` sets how many there are (1,000,000).

#![allow(clippy::expect_used)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use passkit_server::{
    DeviceIdentifier, PassId, PushToken, Registration, RegistrationStore as _, SerialNumber,
    StoreMaintenance as _, TypeIdentifier,
};
use passkit_store_redis::{
    Config, RedisStore,
    redis::{self, Script, aio::ConnectionManager, cluster::ClusterClient, cluster_async::ClusterConnection},
};
use passkit_test_servers::redis::{Cluster, Node};
use tokio::task::JoinSet;

const TYPE: &str = "pass.com.example.bench";
const CLIENTS: usize = 64;
const PASSES_EACH: usize = 3;
const ROUNDS: usize = 7;
const ROUND: Duration = Duration::from_millis(1_500);

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

#[tokio::main]
async fn main() -> Outcome<()> {
    let count = std::env::var("PASSKIT_BENCH_REGISTRATIONS").map_or(Ok(1_000_000), |count| count.parse())?;
    let node = Node::start(&["--slowlog-log-slower-than", "5000"])?;
    let store = RedisStore::connect(&node.url(), Config::new()).await?;
    let bare = redis::Client::open(node.url())?.get_connection_manager().await?;

    memory(&store, &node, count).await?;
    println!("\nper second, medians of {ROUNDS} rounds{:>20}{:>12}{:>8}", "bare", "store", "ratio");
    for clients in [1, CLIENTS] {
        let floor = Floor::Node(bare.clone());
        compare(&format!("one node, query, {clients} clients"), clients, query(&floor, &store).await?).await;
    }
    let floor = Floor::Node(bare.clone());
    compare(&format!("one node, register, {CLIENTS} clients"), CLIENTS, register(&floor, &store)).await;
    compare(&format!("one node, mark one, {CLIENTS} clients"), CLIENTS, mark(&floor, &store)).await;
    ten_thousand(&store).await?;

    let servers = Cluster::start_own(&[])?;
    let store = RedisStore::connect(&servers.url(), Config::new()).await?;
    let nodes = servers.url().replace("redis+cluster://", "");
    let nodes: Vec<String> = nodes.split(',').map(|node| format!("redis://{node}/")).collect();
    let bare = ClusterClient::new(nodes)?.get_async_connection().await?;
    store.register_many(&registrations(0..30_000)).await?;
    for clients in [1, CLIENTS] {
        let floor = Floor::Cluster(bare.clone());
        compare(&format!("Cluster, query, {clients} clients"), clients, query(&floor, &store).await?).await;
    }
    let floor = Floor::Cluster(bare);
    compare(&format!("Cluster, register, {CLIENTS} clients"), CLIENTS, register(&floor, &store)).await;
    compare(&format!("Cluster, mark one, {CLIENTS} clients"), CLIENTS, mark(&floor, &store)).await;
    ten_thousand(&store).await
}

fn device(index: usize) -> DeviceIdentifier {
    DeviceIdentifier::new(&format!("{index:032x}")).expect("a device")
}

fn pass(index: usize) -> PassId {
    PassId::new(TYPE, &format!("SERIAL-{index:08}")).expect("a pass")
}

fn type_id() -> TypeIdentifier {
    TypeIdentifier::new(TYPE).expect("a type")
}

fn token() -> PushToken {
    PushToken::new(&"ab".repeat(32)).expect("a push token")
}

/// Three passes on each device, and each pass on one device: what takes the most room.
fn registrations(range: std::ops::Range<usize>) -> Vec<Registration> {
    let one = |i| Registration { device: device(i / PASSES_EACH), push_token: token(), pass: pass(i) };
    range.map(one).collect()
}

async fn memory(store: &RedisStore, node: &Node, count: usize) -> Outcome<()> {
    let used = || -> Outcome<u64> {
        let info = node.ask(&["INFO", "memory"])?;
        let used = info.lines().find_map(|line| line.strip_prefix("used_memory:")).ok_or("no used_memory")?;
        Ok(used.trim().parse()?)
    };
    let (before, start) = (used()?, Instant::now());
    for from in (0..count).step_by(10_000) {
        store.register_many(&registrations(from..(from + 10_000).min(count))).await?;
    }
    let seconds = start.elapsed().as_secs_f64();
    let each = (used()? - before) / count as u64;
    println!("{count} registrations: {each} bytes each; imported at {:.0} a second", count as f64 / seconds);

    // One pass on a tenth as many devices, which hold nothing else.
    let (crowd, before) = (count / 10, used()?);
    for from in (0..crowd).step_by(10_000) {
        let one = |i| Registration { device: device(1 << 40 | i), push_token: token(), pass: pass(0) };
        store.register_many(&(from..(from + 10_000).min(crowd)).map(one).collect::<Vec<_>>()).await?;
    }
    let each = (used()? - before) / crowd as u64;
    let start = Instant::now();
    let (mut found, mut after) = (0, None);
    loop {
        let page = store.devices_of(&pass(0), after.as_ref(), 1_000).await?;
        found += page.devices.len();
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let slowest = node.ask(&["SLOWLOG", "LEN"])?;
    println!(
        "one pass on {crowd} devices of its own: {each} bytes each; {found} read in pages at {:.0} a second; {slowest} commands \
         of all took over 5 ms",
        found as f64 / start.elapsed().as_secs_f64()
    );
    Ok(())
}

async fn ten_thousand(store: &RedisStore) -> Outcome<()> {
    let many = device(usize::MAX >> 1);
    let all: Vec<Registration> = (0..10_000)
        .map(|i| Registration { device: many.clone(), push_token: token(), pass: pass(i) })
        .collect();
    store.register_many(&all).await?;
    let first = store.updated_since(&many, &type_id(), None).await?;
    assert_eq!(first.serials.len(), 10_000);
    let mut times = Vec::new();
    for _ in 0..21 {
        let start = Instant::now();
        store.updated_since(&many, &type_id(), Some(first.tag)).await?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    println!("query of a device with 10,000 passes: {:.1} ms", median(times));
    Ok(())
}

/// What a store cannot do without: the same commands and scripts, with no store around them.
#[derive(Clone)]
enum Floor {
    Node(ConnectionManager),
    Cluster(ClusterConnection),
}

impl Floor {
    async fn run(&mut self, cmd: &redis::Cmd) {
        let done: redis::Value = match self {
            Self::Node(connection) => cmd.query_async(connection).await.expect("answered"),
            Self::Cluster(connection) => cmd.query_async(connection).await.expect("answered"),
        };
        std::hint::black_box(done);
    }

    /// Some commands at once.
    async fn run_all(&mut self, cmds: &[redis::Cmd]) {
        match self {
            Self::Node(connection) => {
                let mut pipe = redis::pipe();
                for cmd in cmds {
                    pipe.add_command(cmd.clone());
                }
                let _: Vec<redis::Value> = pipe.query_async(connection).await.expect("answered");
            }
            Self::Cluster(_) => {
                let mut tasks = JoinSet::new();
                for cmd in cmds {
                    let (mut floor, cmd) = (self.clone(), cmd.clone());
                    tasks.spawn(async move { floor.run(&cmd).await });
                }
                tasks.join_all().await;
            }
        }
    }

    async fn script(&mut self, script: &Script, key: String, args: &[String]) {
        let mut call = script.key(key);
        for arg in args {
            call.arg(arg);
        }
        let done: redis::Value = match self {
            Self::Node(connection) => call.invoke_async(connection).await.expect("answered"),
            Self::Cluster(connection) => call.invoke_async(connection).await.expect("answered"),
        };
        std::hint::black_box(done);
    }
}

type Work = Arc<dyn Fn(usize) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

fn work<F: Future<Output = ()> + Send + 'static>(once: impl Fn(usize) -> F + Send + Sync + 'static) -> Work {
    Arc::new(move |i| Box::pin(once(i)))
}

const DEVICES: usize = 1_000;

/// What changed for a device with three passes, where nothing did.
async fn query(floor: &Floor, store: &RedisStore) -> Outcome<(Work, Work)> {
    let mut tags = Vec::new();
    for i in 0..DEVICES {
        tags.push(store.updated_since(&device(i), &type_id(), None).await?.tag);
        let key = format!("floor:d{{{}}}", device(i).as_str());
        let mut set = redis::cmd("HSET");
        set.arg(key).arg("t").arg(token().as_str()).arg("c").arg("1790000000000000");
        for pass in i * PASSES_EACH..(i + 1) * PASSES_EACH {
            set.arg(format!("{TYPE}/SERIAL-{pass:08}")).arg("1790000000000000");
        }
        floor.clone().run(&set).await;
    }
    let own = store.clone();
    let of_store = work(move |i| {
        let (store, tag) = (own.clone(), tags[i % DEVICES]);
        async move {
            let changes = store.updated_since(&device(i % DEVICES), &type_id(), Some(tag)).await;
            assert!(changes.expect("an answer").serials.is_empty());
        }
    });
    let floor = floor.clone();
    let bare = work(move |i| {
        let mut floor = floor.clone();
        async move {
            let i = i % DEVICES;
            let mut get = redis::cmd("HGETALL");
            get.arg(format!("floor:d{{{}}}", device(i).as_str()));
            floor.run(&get).await;
            let buckets = (i * PASSES_EACH..(i + 1) * PASSES_EACH).map(|pass| {
                let mut get = redis::cmd("HMGET");
                get.arg(format!("floor:b{{{TYPE}:{}}}", pass * 7 % 64)).arg(&["\tc", "\tv", "\td"]);
                get.arg(format!("SERIAL-{pass:08}"));
                get
            });
            floor.run_all(&buckets.collect::<Vec<_>>()).await;
        }
    });
    Ok((bare, of_store))
}

macro_rules! script {
    ($name:literal) => {
        Script::new(include_str!(concat!("../../passkit-store-redis/src/scripts/", $name, ".lua")))
    };
}

/// A pass that is new to the device.
fn register(floor: &Floor, store: &RedisStore) -> (Work, Work) {
    static NEXT: AtomicU64 = AtomicU64::new(1 << 48);
    let new = || NEXT.fetch_add(1, Ordering::Relaxed) as usize;
    let own = store.clone();
    let of_store = work(move |i| {
        let store = own.clone();
        async move {
            store.register(&device(new()), &pass(i), &token()).await.expect("registered");
        }
    });
    let (floor, hint, register) = (floor.clone(), Arc::new(script!("hint")), Arc::new(script!("register")));
    let bare = work(move |i| {
        let (mut floor, hint, register) = (floor.clone(), hint.clone(), register.clone());
        async move {
            let device = device(new()).as_str().to_owned();
            let now = passkit_server::clock::now_micros().to_string();
            floor.script(&hint, format!("floor:p{{{TYPE}:{i}}}"), &[now.clone(), device.clone()]).await;
            let args = [now.clone(), token().as_str().to_owned(), format!("{TYPE}/SERIAL-{i:08}"), now];
            floor.script(&register, format!("floor:d{{{device}}}"), &args).await;
        }
    });
    (bare, of_store)
}

fn mark(floor: &Floor, store: &RedisStore) -> (Work, Work) {
    let own = store.clone();
    let of_store = work(move |i| {
        let store = own.clone();
        async move {
            let serials = [SerialNumber::new(&format!("SERIAL-{:08}", i % 3_000)).expect("a serial number")];
            store.mark_updated(&type_id(), &serials).await.expect("marked");
        }
    });
    let (floor, mark) = (floor.clone(), Arc::new(script!("mark")));
    let bare = work(move |i| {
        let (mut floor, mark) = (floor.clone(), mark.clone());
        async move {
            let now = passkit_server::clock::now_micros().to_string();
            let args = [now, "1790000000".to_owned(), format!("SERIAL-{:08}", i % 3_000)];
            floor.script(&mark, format!("floor:b{{{TYPE}:{}}}", i % 64), &args).await;
        }
    });
    (bare, of_store)
}

/// By turns, so that what else the machine does falls on both.
async fn compare(name: &str, clients: usize, (bare, store): (Work, Work)) {
    let (mut floors, mut ours, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let floor = throughput(clients, &bare).await;
        let own = throughput(clients, &store).await;
        floors.push(floor);
        ours.push(own);
        ratios.push(own / floor);
    }
    println!("{name:<38}{:>12.0}{:>12.0}{:>8.2}", median(floors), median(ours), median(ratios));
}

async fn throughput(clients: usize, work: &Work) -> f64 {
    let (done, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let mut tasks = JoinSet::new();
    for client in 0..clients {
        let (done, stop, work) = (done.clone(), stop.clone(), work.clone());
        tasks.spawn(async move {
            let mut i = client;
            while !stop.load(Ordering::Relaxed) {
                work(i).await;
                i += CLIENTS;
                done.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    tokio::time::sleep(ROUND / 5).await;
    let (before, start) = (done.load(Ordering::Relaxed), Instant::now());
    tokio::time::sleep(ROUND).await;
    let rate = (done.load(Ordering::Relaxed) - before) as f64 / start.elapsed().as_secs_f64();
    stop.store(true, Ordering::Relaxed);
    tasks.join_all().await;
    rate
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
