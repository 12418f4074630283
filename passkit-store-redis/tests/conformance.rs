//! Runs the conformance cases on one node, behind Sentinels and on a Cluster. Each store has its own prefix.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

use std::{
    any::Any,
    io,
    process::ExitCode,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use passkit_conformance::{
    libtest_mimic::{Trial, run},
    store::{BoxError, Stores, TestStore, arguments, trials},
};
use passkit_server::{async_trait, store::clock};
use passkit_store_redis::{Config, RedisStore};
use passkit_test_servers::redis::{Cluster, SentinelSet, Single};

/// An address and its servers, which stop when this is dropped.
type Servers = (String, Box<dyn Any + Send + Sync>);

struct RedisStores {
    start: fn() -> io::Result<Servers>,
    servers: Arc<OnceLock<Servers>>,
}

impl RedisStores {
    async fn connect(&self, prefix: &str) -> Result<TestStore, BoxError> {
        let (url, _) = self.servers.get_or_init(|| (self.start)().unwrap());
        let store = RedisStore::connect(url, Config::new().prefix(prefix)).await?;
        let store = Arc::new(store);
        Ok(TestStore::with_all(store.clone()).with_delivery(store))
    }
}

#[async_trait]
impl Stores for RedisStores {
    type Place = String;

    async fn open(&self) -> Result<(TestStore, String), BoxError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let prefix = format!(
            "test-{}-{}:",
            clock::now_micros(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        Ok((self.connect(&prefix).await?, prefix))
    }

    /// Only the server has the data, so this connects again. Other tests crash the server.
    async fn reopen(&self, prefix: &String) -> Option<Result<TestStore, BoxError>> {
        Some(self.connect(prefix).await)
    }
}

/// A kind of servers: its name, how to start it, and which cases run on it unless `PASSKIT_ALL_CASES` is set.
type Topology = (&'static str, fn() -> io::Result<Servers>, fn(&str) -> bool);

const TOPOLOGIES: [Topology; 3] = [
    (
        "node",
        || Single::start().map(|server| (server.url().to_owned(), Box::new(server) as _)),
        |_| true,
    ),
    // Behind Sentinels there is one node, and only the connection differs. So these cases are about calls that
    // meet, that are dropped, or that find another connection.
    (
        "sentinel",
        || SentinelSet::start().map(|servers| (servers.url(), Box::new(servers) as _)),
        |case| {
            let of_connections = ["parallel", "interleaved", "dropped", "reopening", "history"];
            of_connections.iter().any(|word| case.contains(word))
        },
    ),
    // The other cases read all slots of a Cluster again and again, or fill a part of it. Other tests do so once.
    (
        "cluster",
        || Cluster::start().map(|servers| (servers.url(), Box::new(servers) as _)),
        |case| {
            let of_all_slots = [
                "store/all-published-passes-come-back",
                "store/all-registrations-come-back",
                "store/all-registrations-come-back-under-change",
                "store/one-pass-on-many-devices",
                "store/register-many-twice-adds-nothing",
                "store/stats-count-what-is-there",
            ];
            !of_all_slots.contains(&case)
        },
    ),
];

fn main() -> ExitCode {
    // The servers must outlive the cases.
    let servers: [Arc<OnceLock<Servers>>; 3] = Default::default();
    let all = std::env::var_os("PASSKIT_ALL_CASES").is_some();
    let trials = TOPOLOGIES
        .iter()
        .zip(&servers)
        .flat_map(|((name, start, is_chosen), servers)| {
            let trials = trials(RedisStores {
                start: *start,
                servers: Arc::clone(servers),
            });
            let chosen = trials
                .into_iter()
                .filter(move |trial| all || is_chosen(trial.name()));
            chosen.map(|trial: Trial| trial.with_kind(*name))
        });
    run(&arguments(), trials.collect()).exit_code()
}
