//! The PostgreSQL store beside the bare statements, through sqlx and through `pgbench`, on one server and in one run.
//!
//! `cargo bench -p passkit-benches --bench postgres`. Prints medians and, which alone means something on a shared
//! machine, the ratio to the floor of the same run. `PASSKIT_BENCH_REGISTRATIONS` sets how many registrations the
//! large table has (1,000,000).

#![allow(clippy::expect_used)]

use std::{
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use passkit_server::{
    DeviceIdentifier, PassId, PushToken, Registration, RegistrationStore, SerialNumber, StoreMaintenance,
    TypeIdentifier, UpdateTag,
};
use passkit_store_postgres::{
    Config, PostgresStore,
    sqlx::{self, AssertSqlSafe, Connection as _, PgConnection},
};
use passkit_test_servers::postgres::{Server, program};

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

const TYPE: &str = "pass.com.example.bench";
const PASSES_EACH: usize = 3;
const PASSES: usize = 1_000;
const SMALL: usize = 9_999;
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(2);

/// What a list costs at least: the statement for one device, as one would write it by hand.
const LIST: &str = "\
select coalesce(c.version, 0) as type_version, coalesce(d.version, 0) as device_version, r.serial
from (select $2::text as pass_type) t
left join passkit.clock c using (pass_type)
left join passkit.device d on d.device_id = $1
left join (passkit.registration r left join passkit.pass p using (pass_type, serial))
  on r.device_id = $1 and r.pass_type = $2
 and ($3::bigint is null or $3 > coalesce(c.version, 0) or $4 > coalesce(d.version, 0)
      or greatest(coalesce(p.version, 0), coalesce(c.floor, 0)) > $3 or r.version > $4)";

#[tokio::main]
async fn main() -> Outcome<()> {
    // Durable, as a server is by default.
    let server = Server::throwaway(&["shared_buffers=512MB"])?;
    let large = std::env::var("PASSKIT_BENCH_REGISTRATIONS").map_or(Ok(1_000_000), |text| text.parse())?;
    let small_url = loaded(&server, SMALL).await?;
    let url = loaded(&server, large).await?;
    let store = PostgresStore::connect(&url, Config::new()).await?;
    let small = PostgresStore::connect(&small_url, Config::new()).await?;

    println!("\n{:<46}{:>12}{:>12}{:>8}", "", "floor", "store", "ratio");
    alone(&store, &url, large).await?;
    growth(&small, &store, large).await?;
    together(&store, &url, large).await?;
    marks(&store, &url).await?;
    registers(&store).await?;
    pages(&store, &url).await
}

fn print(name: &str, floor: f64, own: f64, ratio: f64) {
    println!("{name:<46}{floor:>12.0}{own:>12.0}{ratio:>8.2}");
}

fn device(index: usize) -> DeviceIdentifier {
    DeviceIdentifier::new(&format!("{index:032x}")).expect("a device")
}

fn pass(index: usize) -> PassId {
    PassId::new(TYPE, &format!("S-{}", index % PASSES)).expect("a pass")
}

fn type_id() -> TypeIdentifier {
    TypeIdentifier::new(TYPE).expect("a type")
}

fn token() -> PushToken {
    PushToken::new(&"ab".repeat(32)).expect("a push token")
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A database with so many registrations, three on each device, and a mark of each pass.
async fn loaded(server: &Server, registrations: usize) -> Outcome<String> {
    let url = server.url(&server.new_database().await?);
    let store = PostgresStore::connect(&url, Config::new()).await?;
    store.migrate().await?;
    let start = Instant::now();
    for first in (0..registrations).step_by(10_000) {
        let part: Vec<_> = (first..registrations.min(first + 10_000))
            .map(|i| Registration { device: device(i / PASSES_EACH), push_token: token(), pass: pass(i) })
            .collect();
        store.register_many(&part).await?;
    }
    println!("loaded {registrations} registrations in {:.1} s", start.elapsed().as_secs_f64());
    let serials: Vec<SerialNumber> = (0..PASSES).map(|i| pass(i).serial).collect();
    store.mark_updated(&type_id(), &serials).await?;
    sqlx::query("vacuum analyze").execute(store.pool()).await?;
    Ok(url)
}

/// One caller: microseconds for a list of three passes, beside the bare statement on one connection.
async fn alone(store: &PostgresStore, url: &str, large: usize) -> Outcome<()> {
    const CALLS: usize = 2_000;
    let mut bare = PgConnection::connect(url).await?;
    let tag = tag_of(store).await?;
    let (mut floors, mut owns, mut ratios) = (vec![], vec![], vec![]);
    for round in 0..ROUNDS {
        let start = Instant::now();
        for i in 0..CALLS {
            let device = device((i * 7919 + round) % (large / PASSES_EACH));
            sqlx::query(LIST)
                .bind(device.as_str())
                .bind(TYPE)
                .bind(tag.type_version as i64)
                .bind(tag.device_version as i64)
                .fetch_all(&mut bare)
                .await?;
        }
        let floor = start.elapsed().as_secs_f64() / CALLS as f64 * 1e6;
        let own = list_alone(store, tag, large, CALLS, round).await?;
        floors.push(floor);
        owns.push(own);
        ratios.push(own / floor);
    }
    print("list alone, sqlx's statement (us)", median(floors), median(owns), median(ratios));
    Ok(())
}

/// What a device has seen that has not seen the last mark, which was of all passes.
async fn tag_of(store: &PostgresStore) -> Outcome<UpdateTag> {
    let tag = store.updated_since(&device(0), &type_id(), None).await?.tag;
    Ok(UpdateTag { type_version: tag.type_version - 1, ..tag })
}

async fn list_alone(
    store: &PostgresStore,
    tag: UpdateTag,
    registrations: usize,
    calls: usize,
    round: usize,
) -> Outcome<f64> {
    let start = Instant::now();
    for i in 0..calls {
        let device = device((i * 7919 + round) % (registrations / PASSES_EACH));
        store.updated_since(&device, &type_id(), Some(tag)).await?;
    }
    Ok(start.elapsed().as_secs_f64() / calls as f64 * 1e6)
}

async fn growth(small: &PostgresStore, store: &PostgresStore, large: usize) -> Outcome<()> {
    let (small_tag, large_tag) = (tag_of(small).await?, tag_of(store).await?);
    let (mut floors, mut owns, mut ratios) = (vec![], vec![], vec![]);
    for round in 0..ROUNDS {
        let floor = list_alone(small, small_tag, SMALL, 2_000, round).await?;
        let own = list_alone(store, large_tag, large, 2_000, round).await?;
        floors.push(floor);
        owns.push(own);
        ratios.push(own / floor);
    }
    print(
        &format!("list alone, {SMALL} and {large} rows (us)"),
        median(floors),
        median(owns),
        median(ratios),
    );
    Ok(())
}

/// Calls a second by `callers` tasks.
async fn rate<F, C>(callers: usize, call: F) -> Outcome<f64>
where
    F: Fn(usize, usize) -> C + Send + Sync + 'static,
    C: Future<Output = ()> + Send,
{
    let (call, count, start) = (Arc::new(call), Arc::new(AtomicU64::new(0)), Instant::now());
    let tasks: Vec<_> = (0..callers)
        .map(|caller| {
            let (call, count) = (call.clone(), count.clone());
            tokio::spawn(async move {
                for i in 0.. {
                    if start.elapsed() > ROUND {
                        break;
                    }
                    call(caller, i).await;
                    count.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await?;
    }
    Ok(count.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64())
}

/// 64 callers, beside `pgbench` with 8 clients and the bare statement.
async fn together(store: &PostgresStore, url: &str, large: usize) -> Outcome<()> {
    let Some(pgbench) = program("pgbench") else {
        println!("left out, for want of pgbench: lists a second");
        return Ok(());
    };
    let tag = tag_of(store).await?;
    let devices = large / PASSES_EACH;
    let folder = tempfile::tempdir()?;
    let script = folder.path().join("list.sql");
    let list = LIST
        .replace("$1", "lpad(to_hex(cast(:d as int)), 32, '0')")
        .replace("$2", &format!("'{TYPE}'"))
        .replace("$3", &tag.type_version.to_string())
        .replace("$4", &tag.device_version.to_string());
    std::fs::write(&script, format!("\\set d random(0, {})\n{list};\n", devices - 1))?;
    let (mut floors, mut owns, mut ratios) = (vec![], vec![], vec![]);
    for _ in 0..ROUNDS {
        let pgbench = Command::new(&pgbench)
            .args(["-n", "-M", "prepared", "-c", "8", "-j", "1", "-T", "2", "-f"])
            .arg(&script)
            .arg(url)
            .output()?;
        let said = String::from_utf8_lossy(&pgbench.stdout).into_owned();
        let line = said.lines().find_map(|line| line.strip_prefix("tps = ")).ok_or("pgbench says no rate")?;
        let floor: f64 = line.split_whitespace().next().unwrap_or_default().parse()?;
        let store = store.clone();
        let own = rate(64, move |caller, i| {
            let store = store.clone();
            async move {
                let device = device((caller * 104_729 + i * 7_919) % devices);
                store.updated_since(&device, &type_id(), Some(tag)).await.expect("listed");
            }
        })
        .await?;
        floors.push(floor);
        owns.push(own);
        ratios.push(own / floor);
    }
    print("lists a second, 64 callers, pgbench -c 8", median(floors), median(owns), median(ratios));
    Ok(())
}

/// 512 callers that mark a pass each, beside one connection that marks 512 passes with each statement.
async fn marks(store: &PostgresStore, url: &str) -> Outcome<()> {
    const CALLERS: usize = 512;
    let mut bare = PgConnection::connect(url).await?;
    let serials: Vec<String> = (0..CALLERS).map(|i| format!("S-{i}")).collect();
    let (mut floors, mut owns, mut ratios) = (vec![], vec![], vec![]);
    for _ in 0..ROUNDS {
        let (start, mut marked) = (Instant::now(), 0);
        while start.elapsed() < ROUND {
            sqlx::query("select passkit.mark($1, $2)").bind(TYPE).bind(&serials).execute(&mut bare).await?;
            marked += CALLERS;
        }
        let floor = marked as f64 / start.elapsed().as_secs_f64();
        let store = store.clone();
        let own = rate(CALLERS, move |caller, _| {
            let store = store.clone();
            async move { store.mark_updated(&type_id(), &[pass(caller).serial]).await.expect("marked") }
        })
        .await?;
        floors.push(floor);
        owns.push(own);
        ratios.push(own / floor);
    }
    print("marks a second, 512 callers, batched by hand", median(floors), median(owns), median(ratios));
    Ok(())
}

/// 64 callers that register, beside one.
async fn registers(store: &PostgresStore) -> Outcome<()> {
    let (mut floors, mut owns, mut ratios) = (vec![], vec![], vec![]);
    for round in 0..ROUNDS {
        let mut rates = [0.0; 2];
        for (at, callers) in [(0, 1), (1, 64)] {
            let store = store.clone();
            rates[at] = rate(callers, move |caller, i| {
                let store = store.clone();
                async move {
                    let device = device(1_000_000_000 + ((round * 2 + at) * 64 + caller) * 1_000_000 + i);
                    store.register(&device, &pass(i), &token()).await.expect("registered");
                }
            })
            .await?;
        }
        floors.push(rates[0]);
        owns.push(rates[1]);
        ratios.push(rates[1] / rates[0]);
    }
    print("registers a second, 1 caller, 64 callers", median(floors), median(owns), median(ratios));
    Ok(())
}

/// All push tokens of a pass on a million devices, and a device with 10,000 passes.
async fn pages(store: &PostgresStore, url: &str) -> Outcome<()> {
    let devices = 1_000_000;
    // Not the store's, which give a statement 30 s.
    let mut connection = PgConnection::connect(url).await?;
    sqlx::query(AssertSqlSafe(format!(
        "with d as (
            insert into passkit.device select 'x' || lpad(to_hex(n), 31, '0'), 'c0ffee', n
            from generate_series(1, {devices}) n returning device_id
        ) insert into passkit.registration select device_id, '{TYPE}', 'everywhere', 1 from d"
    )))
    .execute(&mut connection)
    .await?;
    sqlx::query(AssertSqlSafe(format!(
        "insert into passkit.registration
        select 'x' || lpad(to_hex(1), 31, '0'), '{TYPE}', 'M-' || n, 1 from generate_series(1, 10000) n"
    )))
    .execute(&mut connection)
    .await?;
    let everywhere = PassId::new(TYPE, "everywhere")?;
    let (start, mut after, mut count) = (Instant::now(), None, 0);
    loop {
        let page = store.devices_of(&everywhere, after.as_ref(), 5_000).await?;
        count += page.devices.len();
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    println!("\n{count} push tokens of one pass in pages of 5,000: {:.1} s", start.elapsed().as_secs_f64());
    let many = DeviceIdentifier::new(&format!("x{:031x}", 1))?;
    let mut times = vec![];
    for _ in 0..9 {
        let start = Instant::now();
        let listed = store.updated_since(&many, &type_id(), None).await?.serials.len();
        assert!(listed > 10_000, "{listed}");
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    println!("all 10,001 passes of a device: {:.1} ms", median(times));
    let start = Instant::now();
    store.stats().await?;
    println!("counting what is there: {:.1} s", start.elapsed().as_secs_f64());
    Ok(())
}
