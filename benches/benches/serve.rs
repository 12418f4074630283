//! `passkit serve` over the sled store with 100,000 registrations, beside a bare axum handler that answers a constant
//! of the same size; and registration in groups beside one flush for each.
//!
//! `cargo bench -p passkit-benches --bench serve`. Prints medians and, which alone means something on a shared
//! machine, the ratio to the floor of the same run.

#![allow(clippy::expect_used)]

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use passkit_archive::{ArchiveBuilder, Signer};
use passkit_server::{DeviceIdentifier, Kind, PassId, PushToken, RegistrationStore, TypeIdentifier};
use passkit_store_sled::SledStore;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

const TYPE: &str = "pass.com.example.bench";
const TOKEN: &str = "a-token-of-the-bench";
const DEVICES: usize = 33_334;
const PASSES_EACH: usize = 3;
const PASSES: usize = 1_000;
const CONNECTIONS: usize = 64;
const ROUNDS: usize = 7;
const ROUND: Duration = Duration::from_secs(2);

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Outcome<()> {
    if let Some(body) = std::env::var_os("PASSKIT_BENCH_FLOOR") {
        return bare_handler(body.to_string_lossy().parse()?);
    }
    let folder = tempfile::tempdir()?;
    println!("loading {} registrations", DEVICES * PASSES_EACH);
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(load(&folder.path().join("store")))?;
    make_passes(&folder.path().join("passes"))?;

    let service = Server::passkit(folder.path())?;
    let list = format!("/v1/devices/{}/registrations/{TYPE}", device(0));
    let body = exchange(&service.address, &get(&list, ""))?.1;
    let tag = body.rsplit('"').nth(1).ok_or("no tag")?.to_owned();
    let pass = format!("/v1/passes/{TYPE}/S-0");
    let authorization = format!("Authorization: ApplePass {TOKEN}\r\n");
    let (head, _) = exchange(&service.address, &get(&pass, &authorization))?;
    let date = head.lines().find_map(|line| line.strip_prefix("last-modified: ")).ok_or("no date")?;
    let conditional = format!("{authorization}If-Modified-Since: {date}\r\n");

    println!("\n{CONNECTIONS} connections, {ROUNDS} rounds of {} s each, medians", ROUND.as_secs());
    println!("{:<34}{:>12}{:>12}{:>8}", "", "bare/s", "passkit/s", "ratio");
    let anyone =
        |path: &'static str| move |index: usize| get(&path.replace("DEVICE", &device(index % DEVICES)), "");
    let list_of_any: &'static str = format!("/v1/devices/DEVICE/registrations/{TYPE}").leak();
    let list_since: &'static str = format!("{list_of_any}?passesUpdatedSince={tag}").leak();
    compare("list, all of 3 (200)", &service, body.len(), anyone(list_of_any))?;
    compare("list, nothing new (204)", &service, 0, {
        let request = get(&format!("{list}?passesUpdatedSince={tag}"), "");
        move |_| request.clone()
    })?;
    let (first, _) = exchange(&service.address, &get(&list_since.replace("DEVICE", &device(0)), ""))?;
    assert!(first.starts_with("HTTP/1.1 204"), "{first}");
    compare("pass, unchanged (304)", &service, 0, move |index| {
        get(&pass.replace("S-0", &format!("S-{}", index % PASSES)), &conditional)
    })?;
    drop(service);

    let (floor, grouped) = runtime.block_on(registrations(folder.path()))?;
    println!("\n{CONNECTIONS} clients registering");
    println!("{:<34}{floor:>12.0}", "a flush for each");
    println!("{:<34}{grouped:>12.0}{:>12.1} times", "in groups", grouped / floor);
    Ok(())
}

fn device(index: usize) -> String {
    format!("{index:032x}")
}

async fn load(path: &Path) -> Outcome<()> {
    let store = Arc::new(SledStore::open(path)?);
    let tasks: Vec<_> = (0..256)
        .map(|task| {
            let store = store.clone();
            tokio::spawn(async move {
                let token = PushToken::new(&"ab".repeat(32)).expect("a push token");
                for index in (task..DEVICES).step_by(256) {
                    let device = DeviceIdentifier::new(&device(index)).expect("a device");
                    for pass in 0..PASSES_EACH {
                        let serial = format!("S-{}", (index * PASSES_EACH + pass) % PASSES);
                        let pass = PassId::new(TYPE, &serial).expect("a pass");
                        store.register(&device, &pass, &token).await.expect("registered");
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await?;
    }
    Ok(())
}

fn make_passes(folder: &Path) -> Outcome<()> {
    std::fs::create_dir(folder)?;
    let signer = Signer::throwaway(&TypeIdentifier::new(TYPE)?, "TEAM123456")?;
    for index in 0..PASSES {
        let description = format!(
            r#"{{"formatVersion":1,"passTypeIdentifier":"{TYPE}","serialNumber":"S-{index}","teamIdentifier":
            "TEAM123456","organizationName":"Bench","description":"Bench","generic":{{}},"webServiceURL":
            "https://wallet.example.com/","authenticationToken":"{TOKEN}"}}"#
        );
        let archive = ArchiveBuilder::new(Kind::Pass, description)
            .file("icon.png", passkit_archive::placeholder_icon(29))
            .build_signed(&signer)?;
        std::fs::write(folder.join(format!("{index}.pkpass")), archive)?;
    }
    Ok(())
}

/// A server process, killed when dropped.
struct Server {
    process: Child,
    address: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Server {
    fn passkit(folder: &Path) -> Outcome<Self> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let built =
            Command::new(cargo).args(["build", "--release", "--quiet", "-p", "passkit-cli"]).status()?;
        assert!(built.success(), "passkit-cli does not build");
        // This program is in target/release/deps.
        let binary = std::env::current_exe()?.ancestors().nth(2).ok_or("no target folder")?.join("passkit");
        let store = format!("sled:{}", folder.join("store").display());
        Self::start(
            Command::new(binary)
                .args(["serve", "--listen", "127.0.0.1:0", "--store", &store, "--passes"])
                .arg(folder.join("passes"))
                .env("PASSKIT_LOG", "error"),
        )
    }

    fn bare(body_length: usize) -> Outcome<Self> {
        Self::start(
            Command::new(std::env::current_exe()?).env("PASSKIT_BENCH_FLOOR", body_length.to_string()),
        )
    }

    fn start(command: &mut Command) -> Outcome<Self> {
        let mut process = command.stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(process.stdout.take().ok_or("no output")?).read_line(&mut line)?;
        let address = line.trim().rsplit('/').next().unwrap_or_default().to_owned();
        Ok(Self { process, address })
    }
}

/// Answers everything with a constant of that many bytes: 204 if none.
fn bare_handler(body_length: usize) -> Outcome<()> {
    let body: &'static str = "x".repeat(body_length).leak();
    let app = axum::Router::new().fallback(move || async move {
        if body.is_empty() {
            Err(axum::http::StatusCode::NO_CONTENT)
        } else {
            Ok(([("content-type", "application/json")], body))
        }
    });
    tokio::runtime::Runtime::new()?.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        println!("listening on http://{}", listener.local_addr()?);
        Ok(axum::serve(listener, app).await?)
    })
}

fn get(path: &str, headers: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: bench\r\n{headers}\r\n").into_bytes()
}

/// Head and body of one answer.
fn exchange(address: &str, request: &[u8]) -> Outcome<(String, String)> {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(address)?;
    let request = String::from_utf8_lossy(request).replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("no answer")?;
    Ok((head.to_owned(), body.to_owned()))
}

fn compare<F>(name: &str, service: &Server, body_length: usize, request: F) -> Outcome<()>
where
    F: Fn(usize) -> Vec<u8> + Send + Sync + 'static,
{
    let request: Arc<dyn Fn(usize) -> Vec<u8> + Send + Sync> = Arc::new(request);
    let bare = Server::bare(body_length)?;
    let (mut floors, mut ours, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let floor = throughput(&bare.address, request.clone())?;
        let own = throughput(&service.address, request.clone())?;
        floors.push(floor);
        ours.push(own);
        ratios.push(own / floor);
    }
    println!("{name:<34}{:>12.0}{:>12.0}{:>8.2}", median(floors), median(ours), median(ratios));
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Answers a second over [`CONNECTIONS`] connections, each with one request under way.
fn throughput(address: &str, request: Arc<dyn Fn(usize) -> Vec<u8> + Send + Sync>) -> Outcome<f64> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let (answers, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let mut tasks = Vec::new();
        for connection in 0..CONNECTIONS {
            let mut stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let (answers, stop, request) = (answers.clone(), stop.clone(), request.clone());
            tasks.push(tokio::spawn(async move {
                // Made before the clock runs: it is the server that is measured.
                let requests: Vec<Vec<u8>> = (0..64).map(|i| request(connection * 64 + i)).collect();
                let mut buffer = vec![0; 16 * 1024];
                for request in requests.iter().cycle() {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    stream.write_all(request).await.expect("sent");
                    read_answer(&mut stream, &mut buffer).await;
                    answers.fetch_add(1, Ordering::Relaxed);
                }
            }));
        }
        tokio::time::sleep(ROUND / 4).await;
        let (before, started) = (answers.load(Ordering::Relaxed), Instant::now());
        tokio::time::sleep(ROUND).await;
        let rate = (answers.load(Ordering::Relaxed) - before) as f64 / started.elapsed().as_secs_f64();
        stop.store(true, Ordering::Relaxed);
        for task in tasks {
            task.await?;
        }
        Ok(rate)
    })
}

async fn read_answer(stream: &mut TcpStream, buffer: &mut [u8]) {
    let mut filled = 0;
    loop {
        let read = stream.read(&mut buffer[filled..]).await.expect("an answer");
        assert!(read > 0, "the connection was closed");
        filled += read;
        let Some(end) = buffer[..filled].windows(4).position(|window| window == b"\r\n\r\n") else {
            continue;
        };
        let head = std::str::from_utf8(&buffer[..end]).expect("a head").to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 20") || head.starts_with("http/1.1 304"), "{head}");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        if filled >= end + 4 + length.map_or(0, |length| length.parse().expect("a length")) {
            return;
        }
    }
}

/// Registrations a second by [`CONNECTIONS`] clients: taking turns, so that each has a flush of its own, and together.
async fn registrations(folder: &Path) -> Outcome<(f64, f64)> {
    let (mut single, mut grouped) = (Vec::new(), Vec::new());
    for round in 0..3 {
        for (at_once, rates) in [(1, &mut single), (CONNECTIONS, &mut grouped)] {
            let store = SledStore::open(folder.join(format!("registrations-{round}-{at_once}")))?;
            rates.push(registering(Arc::new(store), at_once).await?);
        }
    }
    Ok((median(single), median(grouped)))
}

/// The rate with so many of the clients' calls under way at once.
async fn registering(store: Arc<SledStore>, at_once: usize) -> Outcome<f64> {
    let turns = Arc::new(tokio::sync::Semaphore::new(at_once));
    let count = Arc::new(AtomicU64::new(0));
    let started = Instant::now();
    let tasks: Vec<_> = (0..CONNECTIONS)
        .map(|client| {
            let (store, turns, count) = (store.clone(), turns.clone(), count.clone());
            tokio::spawn(async move {
                let token = PushToken::new(&"ab".repeat(32)).expect("a push token");
                for number in 0.. {
                    let _turn = turns.acquire().await.expect("a turn");
                    if started.elapsed() > ROUND {
                        break;
                    }
                    let device = device(number * CONNECTIONS + client);
                    let device = DeviceIdentifier::new(&device).expect("a device");
                    let pass = PassId::new(TYPE, &format!("S-{}", number % PASSES)).expect("a pass");
                    store.register(&device, &pass, &token).await.expect("registered");
                    count.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await?;
    }
    Ok(count.load(Ordering::Relaxed) as f64 / started.elapsed().as_secs_f64())
}
