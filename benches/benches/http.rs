//! Compares the service with a bare axum handler that gives the same answer. Both are called in this process, and over the
//! loopback interface with 64 connections. There, each side has a separate process. The stores are memory, sled and SQLite.
//! An archive of 1 MB is compared with a static file.
//!
//! A service over a PostgreSQL without statistics is compared with a service over the same data in an analyzed database. For
//! each durable store, a fetch of 20 KB is compared with a 304 from the same process, and with the same fetch over sled.

#![allow(clippy::expect_used)]

use std::{
    cell::{OnceCell, RefCell},
    collections::HashMap,
    convert::Infallible,
    env,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
};

use axum::{
    Router,
    body::{Body, Bytes, HttpBody},
    http::Request,
    response::{IntoResponse, Response},
};
use http_body_util::BodyExt as _;
use passkit_benches::{
    data,
    http::{self, Case, with_body},
    statistics::{self, Statistics},
    turns::{Bench, Side, called, runtime},
};
use passkit_server::{maintenance::StoreMaintenance, store::MemoryStore};
use passkit_store_redis::RedisStore;
use passkit_store_sled::SledStore;
use passkit_store_sqlite::SqliteStore;
use passkit_test_servers::redis::Node;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::Mutex,
};
use tower_http::services::ServeFile;
use tower_service::Service;

const CONNECTIONS: usize = 64;

/// What a child process serves: `memory`, `sled`, `sqlite`, `postgres`, `redis`, or the index of a `Case`. For an index, a
/// bare handler in the child serves the fixed answer of the case.
const SERVE: &str = "PASSKIT_BENCH_SERVE";
/// The folder of the child's store, or the address of its server.
const FOLDER: &str = "PASSKIT_BENCH_FOLDER";

fn main() {
    if let Ok(what) = env::var(SERVE) {
        return serve(&what, env::var_os(FOLDER).unwrap_or_default().into());
    }
    let mut bench = Bench::new("http");
    for case in Case::ALL {
        bench.compare("in process", case.name(), 1, || in_process(case));
    }
    let folder = tempfile::tempdir().expect("a folder");
    for store in ["memory", "sled", "sqlite"] {
        for case in Case::ALL {
            // An archive takes much longer than the call of the store, so one store is enough.
            if store == "memory" || !matches!(case, Case::PassSmall | Case::PassLarge) {
                bench.compare(store, case.name(), CONNECTIONS, || {
                    over_loopback(store, case, folder.path())
                });
            }
        }
    }
    let postgres = OnceCell::new();
    fetches(&mut bench, folder.path(), &postgres);
    // The floor is the same service over the same data in an analyzed database.
    let size = data::sizes()
        .pop()
        .expect("a size")
        .max(http::REGISTRATIONS);
    for statistics in Statistics::ALL
        .into_iter()
        .filter(|one| *one != Statistics::Analyzed)
    {
        for case in [Case::ListNothing, Case::ListAll, Case::PassUnchanged] {
            let name = format!("{}, {}", case.name(), statistics.name());
            bench.compare("postgres", &name, CONNECTIONS, || {
                let postgres: &Postgres = postgres.get_or_init(Postgres::start);
                let [own, floor] =
                    [statistics, Statistics::Analyzed].map(|one| postgres.service(one, size));
                let tag = own.tag.clone();
                (
                    throughput(floor.clone(), case, floor.tag.clone()),
                    throughput(own, case, tag),
                )
            });
        }
    }
    bench.finish();
}

/// Fetches a pass of 20 KB from a service on each store. Compares this with a 304 from the same service, and with the same
/// fetch from a service on sled.
fn fetches(bench: &mut Bench, folder: &Path, postgres: &OnceCell<Postgres>) {
    let redis = OnceCell::new();
    let files: RefCell<HashMap<String, Arc<Server>>> = RefCell::default();
    let of_redis = OnceCell::new();
    let service = |store: &str| -> Arc<Server> {
        let registrations = http::REGISTRATIONS;
        match store {
            "postgres" => postgres
                .get_or_init(Postgres::start)
                .service(Statistics::Analyzed, registrations),
            "redis" => {
                let redis: &Node = redis.get_or_init(|| Node::start(&[]).expect("Redis"));
                let start = || Arc::new(Server::start("redis", Path::new(&redis.url())));
                of_redis.get_or_init(start).clone()
            }
            _ => {
                let start = || {
                    let folder = folder.join(format!("fetch-{store}"));
                    std::fs::create_dir_all(&folder).expect("a folder");
                    Arc::new(Server::start(store, &folder))
                };
                files
                    .borrow_mut()
                    .entry(store.to_owned())
                    .or_insert_with(start)
                    .clone()
            }
        }
    };
    let side = |store: &str, case: Case| {
        let server = service(store);
        let tag = server.tag.clone();
        throughput(server, case, tag)
    };
    for store in ["sled", "sqlite", "postgres", "redis"] {
        let fetch = Case::PassSmall;
        let case = format!("{}, beside 304", fetch.name());
        bench.compare(store, &case, CONNECTIONS, || {
            (side(store, Case::PassUnchanged), side(store, fetch))
        });
        if store != "sled" {
            let case = format!("{}, beside sled", fetch.name());
            bench.compare(store, &case, CONNECTIONS, || {
                (side("sled", fetch), side(store, fetch))
            });
        }
    }
}

/// A PostgreSQL server. For each kind of planner statistics and each number of registrations, it has a database and a
/// service process.
struct Postgres {
    server: passkit_test_servers::postgres::Server,
    services: RefCell<HashMap<(&'static str, usize), Arc<Server>>>,
}

impl Postgres {
    fn start() -> Self {
        let server = statistics::server(Some(&data::folder().join("data"))).expect("PostgreSQL");
        Self {
            server,
            services: RefCell::default(),
        }
    }

    fn service(&self, statistics: Statistics, size: usize) -> Arc<Server> {
        let start = || {
            let filled = statistics::filled(&self.server, statistics, size);
            let url = runtime().block_on(filled).expect("filled");
            Arc::new(Server::start("postgres", Path::new(&url)))
        };
        self.services
            .borrow_mut()
            .entry((statistics.name(), size))
            .or_insert_with(start)
            .clone()
    }
}

fn in_process(case: Case) -> (Side, Side) {
    let store = Arc::new(MemoryStore::new());
    let (bare, tag) = runtime().block_on(async {
        (
            bare(case).await,
            http::load(&*store, http::REGISTRATIONS).await,
        )
    });
    let service = http::service(store);
    let same_tag = tag.clone();
    let on_floor = move |i| call(bare.clone(), case.request(&same_tag, i));
    let on_own = move |i| call(service.clone(), case.request(&tag, i));
    (called(1, on_floor), called(1, on_own))
}

async fn call<S, B>(mut service: S, request: Request<Bytes>)
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible>,
    B: HttpBody,
{
    let Ok(answer) = service.call(with_body(request)).await;
    std::hint::black_box(answer.into_body().collect().await.ok());
}

/// Returns a handler that always gives the answer of the service.
async fn bare(case: Case) -> Router {
    let store = Arc::new(MemoryStore::new());
    let tag = http::load(&*store, http::REGISTRATIONS).await;
    let Ok(answer) = http::service(store)
        .call(with_body(case.request(&tag, 0)))
        .await;
    assert_eq!(answer.status(), case.status(), "{}", case.name());
    let (head, body) = answer.into_parts();
    let body = body.collect().await.expect("a body").to_bytes();
    let constant = move || {
        let answer = (head.status, head.headers.clone(), body.clone());
        async move { answer.into_response() }
    };
    Router::new().fallback(constant)
}

/// Runs the child process.
fn serve(what: &str, folder: PathBuf) {
    runtime().block_on(async {
        let (app, tag) = match what {
            "memory" => over(MemoryStore::new()).await,
            "sled" => over(SledStore::open(folder).expect("a store")).await,
            "sqlite" => {
                over(SqliteStore::create(folder.join("passkit.db")).expect("a store")).await
            }
            "redis" => {
                let config = passkit_store_redis::Config::new();
                let store = RedisStore::connect(folder.to_str().expect("an address"), config).await;
                over(store.expect("a store")).await
            }
            "postgres" => {
                let url = folder.to_str().expect("an address");
                let store = Arc::new(statistics::store(url).await.expect("a store"));
                let tag = http::tag(&*store).await;
                (Router::new().fallback_service(http::service(store)), tag)
            }
            number => {
                let case = Case::ALL[number.parse::<usize>().expect("a number")];
                let app = if case == Case::PassLarge {
                    let file = folder.join("large.pkpass");
                    std::fs::write(&file, http::large_archive()).expect("written");
                    Router::new().fallback_service(ServeFile::new(file))
                } else {
                    bare(case).await
                };
                (app, String::new())
            }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        println!("{} {tag}", listener.local_addr().expect("an address"));
        axum::serve(listener, app).await.expect("served");
    });
}

async fn over<S: StoreMaintenance + 'static>(store: S) -> (Router, String) {
    let store = Arc::new(store);
    let tag = http::load(&*store, http::REGISTRATIONS).await;
    (Router::new().fallback_service(http::service(store)), tag)
}

fn over_loopback(store: &str, case: Case, folder: &Path) -> (Side, Side) {
    let number = Case::ALL
        .iter()
        .position(|other| *other == case)
        .expect("one of all");
    let folder = folder.join(format!("{store}-{number}"));
    std::fs::create_dir_all(&folder).expect("a folder");
    let own = Arc::new(Server::start(store, &folder));
    let floor = Arc::new(Server::start(&number.to_string(), &folder));
    let tag = own.tag.clone();
    (
        throughput(floor, case, tag.clone()),
        throughput(own, case, tag),
    )
}

/// A server process. It is killed when this is dropped.
struct Server {
    process: Child,
    address: String,
    tag: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Server {
    fn start(what: &str, folder: &Path) -> Self {
        let program = env::current_exe().expect("this program");
        let mut command = Command::new(program);
        let mut process = command
            .env(SERVE, what)
            .env(FOLDER, folder)
            .stdout(Stdio::piped())
            .spawn()
            .expect("started");
        let mut line = String::new();
        let output = process.stdout.take().expect("its output");
        BufReader::new(output).read_line(&mut line).expect("a line");
        let (address, tag) = line
            .trim_end_matches('\n')
            .split_once(' ')
            .expect("address and tag");
        Self {
            process,
            address: address.to_owned(),
            tag: tag.to_owned(),
        }
    }

    /// Sends a request, and returns the start of the answer.
    fn exchange(&self, request: &[u8]) -> String {
        let mut stream = std::net::TcpStream::connect(&self.address).expect("connected");
        stream.write_all(request).expect("sent");
        let mut start = [0; 64];
        let read = stream.read(&mut start).expect("an answer");
        String::from_utf8_lossy(&start[..read]).into_owned()
    }
}

fn to_wire(request: &Request<Bytes>) -> Vec<u8> {
    let mut head = format!(
        "{} {} HTTP/1.1\r\nhost: bench\r\n",
        request.method(),
        request.uri()
    );
    for (name, value) in request.headers() {
        head.push_str(&format!("{name}: {}\r\n", value.to_str().expect("a text")));
    }
    let mut wire = format!("{head}content-length: {}\r\n\r\n", request.body().len()).into_bytes();
    wire.extend_from_slice(request.body());
    wire
}

/// Each connection has one request at a time.
fn throughput(server: Arc<Server>, case: Case, tag: String) -> Side {
    let answer = server.exchange(&to_wire(&case.request(&tag, usize::MAX / 4)));
    assert!(
        answer.starts_with(&format!("HTTP/1.1 {}", case.status())),
        "{answer}"
    );
    let connections: Vec<_> = runtime().block_on(async {
        let mut connections = Vec::new();
        for _ in 0..CONNECTIONS {
            let stream = TcpStream::connect(&server.address)
                .await
                .expect("connected");
            stream.set_nodelay(true).expect("set");
            connections.push(Mutex::new((stream, vec![0; 64 << 10])));
        }
        connections
    });
    let (connections, tag): (Arc<[_]>, Arc<str>) = (connections.into(), tag.into());
    called(CONNECTIONS, move |i| {
        let (connections, tag, server) = (connections.clone(), tag.clone(), server.clone());
        async move {
            let mut connection = connections[i % CONNECTIONS].lock().await;
            let (stream, buffer) = &mut *connection;
            stream
                .write_all(&to_wire(&case.request(&tag, i)))
                .await
                .expect("sent");
            read_answer(stream, buffer).await;
            drop(server);
        }
    })
}

async fn read_answer(stream: &mut TcpStream, buffer: &mut [u8]) {
    let mut filled = 0;
    let end = loop {
        let read = stream.read(&mut buffer[filled..]).await.expect("an answer");
        assert!(read > 0, "the connection was closed");
        filled += read;
        if let Some(end) = buffer[..filled]
            .windows(4)
            .position(|window| window == b"\r\n\r\n")
        {
            break end;
        }
    };
    let head = std::str::from_utf8(&buffer[..end]).expect("a head");
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let length = length.map_or(0, |length| length.parse().expect("a length"));
    let mut left = (end + 4 + length) - filled;
    while left > 0 {
        let read = stream.read(buffer).await.expect("the rest");
        assert!(read > 0, "the connection was closed");
        left -= read;
    }
}
