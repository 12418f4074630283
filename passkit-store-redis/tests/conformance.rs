//! The contract, case by case, on one node, behind Sentinels and on a Cluster; each store under a prefix of its own.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

use std::{
    collections::HashMap,
    process::ExitCode,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use passkit_conformance::{
    libtest_mimic::{Arguments, Trial, run},
    store::{BoxError, Stores, trials},
};
use passkit_server::{PushQueue, RegistrationStore, StoreMaintenance, async_trait, clock};
use passkit_store_redis::{Config, RedisStore};
use passkit_test_servers::redis::{Cluster, SentinelSet, Single};

enum Servers {
    Node(Single),
    Sentinel(SentinelSet),
    Cluster(Cluster),
}

impl Servers {
    fn url(&self) -> String {
        match self {
            Self::Node(server) => server.url().to_owned(),
            Self::Sentinel(servers) => servers.url(),
            Self::Cluster(servers) => servers.url(),
        }
    }
}

struct RedisStores {
    start: fn() -> std::io::Result<Servers>,
    /// Started for the first case that wants them. The last case lets go of this before it ends, so another holds them.
    servers: Arc<OnceLock<Servers>>,
    /// The prefix of each store, by its address. They are kept, so that no address comes twice.
    opened: Mutex<HashMap<usize, (String, Arc<RedisStore>)>>,
}

impl RedisStores {
    fn new(start: fn() -> std::io::Result<Servers>, servers: &Arc<OnceLock<Servers>>) -> Self {
        Self { start, servers: Arc::clone(servers), opened: Mutex::default() }
    }

    async fn connect(&self, prefix: &str) -> Result<Arc<RedisStore>, BoxError> {
        let start = || (self.start)().unwrap_or_else(|error| panic!("{error}"));
        let url = self.servers.get_or_init(start).url();
        Ok(Arc::new(RedisStore::connect(&url, Config::new().prefix(prefix)).await?))
    }

    async fn make(&self) -> Result<Arc<RedisStore>, BoxError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let prefix = format!("test-{}-{}:", clock::now_micros(), NEXT.fetch_add(1, Ordering::Relaxed));
        let store = self.connect(&prefix).await?;
        self.opened.lock().unwrap().insert(Arc::as_ptr(&store).addr(), (prefix, store.clone()));
        Ok(store)
    }

    /// Connects anew: nothing of the store is left but what the server has. What that has after a crash of its own is
    /// tried elsewhere.
    async fn connect_again(&self, address: usize) -> Result<Arc<RedisStore>, BoxError> {
        let prefix = self.opened.lock().unwrap()[&address].0.clone();
        self.connect(&prefix).await
    }
}

#[async_trait]
impl Stores for RedisStores {
    async fn open(&self) -> Result<Arc<dyn RegistrationStore>, BoxError> {
        Ok(self.make().await?)
    }

    async fn reopen(
        &self,
        store: Arc<dyn RegistrationStore>,
    ) -> Option<Result<Arc<dyn RegistrationStore>, BoxError>> {
        let store = self.connect_again(Arc::as_ptr(&store).addr()).await;
        Some(store.map(|store| store as Arc<dyn RegistrationStore>))
    }

    async fn maintained(&self) -> Option<Result<Arc<dyn StoreMaintenance>, BoxError>> {
        Some(self.make().await.map(|store| store as Arc<dyn StoreMaintenance>))
    }

    async fn queued(&self) -> Option<Result<Arc<dyn PushQueue>, BoxError>> {
        Some(self.make().await.map(|store| store as Arc<dyn PushQueue>))
    }

    async fn reopen_queued(&self, store: Arc<dyn PushQueue>) -> Option<Result<Arc<dyn PushQueue>, BoxError>> {
        let store = self.connect_again(Arc::as_ptr(&store).addr()).await;
        Some(store.map(|store| store as Arc<dyn PushQueue>))
    }
}

/// What Sentinels name is one node: there these have no more to find, and take long.
const LONG_ON_SENTINEL: [&str; 3] = [
    "store/no-device-goes-stale",
    "store/one-pass-on-many-devices",
    "store/ten-thousand-passes-on-one-device",
];

/// These read all slots of a Cluster again and again, or fill a part of it; other tests do so once.
const LONG_ON_CLUSTER: [&str; 3] = [
    "store/all-registrations-come-back-under-change",
    "store/one-pass-on-many-devices",
    "store/stats-count-what-is-there",
];

/// `PASSKIT_ALL_CASES=1` leaves out none.
fn main() -> ExitCode {
    let servers: [Arc<OnceLock<Servers>>; 3] = Default::default();
    let on = |kind, servers, start| {
        trials(RedisStores::new(start, servers)).into_iter().map(move |trial: Trial| trial.with_kind(kind))
    };
    let all = std::env::var_os("PASSKIT_ALL_CASES").is_some();
    let but = |left_out: &'static [&str]| move |trial: &Trial| all || !left_out.contains(&trial.name());
    let trials = on("node", &servers[0], || Single::start().map(Servers::Node))
        .chain(
            on("sentinel", &servers[1], || SentinelSet::start().map(Servers::Sentinel))
                .filter(but(&LONG_ON_SENTINEL)),
        )
        .chain(
            on("cluster", &servers[2], || Cluster::start().map(Servers::Cluster))
                .filter(but(&LONG_ON_CLUSTER)),
        );
    run(&Arguments::from_args(), trials.collect()).exit_code()
}
