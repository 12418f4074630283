//! The stores with data, and a floor for each store.

use std::{
    collections::HashMap,
    env, fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use passkit_server::{
    Changed,
    identifiers::{DeviceIdentifier, SerialNumber},
    maintenance::{Registration, StoreMaintenance},
    store::{Audience, MemoryStore, UpdateTag},
};
use passkit_store_postgres::{
    PostgresStore,
    sqlx::{self, Connection as _, PgConnection},
};
use passkit_store_redis::{
    RedisStore,
    redis::{self, cluster::ClusterClient},
};
use passkit_store_sled::SledStore;
use passkit_store_sqlite::SqliteStore;
use passkit_test_servers::{
    Outcome, postgres,
    redis::{Cluster, Node},
};
use serde_json::json;

use crate::{
    data::{self, EACH},
    floor::{Connections, Driver, Floor},
    sqlite, statistics,
};

/// The data of sled, opened with almost no cache. This shows the cost of rows that were not read recently.
pub const SLED_COLD: &str = "sled-cold";

/// Returns the size of sled's page cache in bytes.
fn sled_cache(store: &str) -> u64 {
    if store == SLED_COLD {
        64 << 10
    } else {
        passkit_store_sled::Config::new("").cache_bytes
    }
}

fn redis_prefix(name: &str) -> String {
    format!("bench-{name}:")
}

/// The maximum number of devices in the questions. It is so high that few devices occur in two questions.
const SAMPLE: usize = 30_000;

/// The number of registrations that a call makes.
const PART: usize = 10_000;

/// The servers that are available.
#[derive(Debug)]
pub struct Servers {
    postgres: Option<postgres::Server>,
    /// The address, and the process if it was started here.
    redis: Option<(String, Option<Node>)>,
    cluster: Option<Cluster>,
    /// The folder where data stay for the next run.
    kept: Option<PathBuf>,
    /// The server for databases that only this run uses.
    scratch: tempfile::TempDir,
}

/// Returns the server. If it is not available, prints a line and returns `None`.
fn available<T>(name: &str, server: Outcome<T>) -> Option<T> {
    server
        .inspect_err(|error| println!("{name} is left out: {error}"))
        .ok()
}

impl Servers {
    /// Servers whose data stay in `target/passkit-bench/data`, for benches that only read.
    #[must_use]
    pub fn kept() -> Self {
        Self::start(Some(data::folder().join("data")))
    }

    /// Servers that start empty and leave nothing.
    #[must_use]
    pub fn empty() -> Self {
        Self::start(None)
    }

    fn start(kept: Option<PathBuf>) -> Self {
        let redis = || {
            if let Ok(url) = env::var("PASSKIT_TEST_REDIS_URL") {
                return Ok((url, None));
            }
            let node = match &kept {
                Some(folder) => Node::kept(&folder.join("redis"), &[])?,
                None => Node::start(&[])?,
            };
            Ok((node.url(), Some(node)))
        };
        Self {
            postgres: available("postgres", statistics::server(kept.as_deref())),
            redis: available("redis", redis()),
            cluster: available("cluster", Cluster::start().map_err(Into::into)),
            kept,
            scratch: tempfile::tempdir().expect("a folder"),
        }
    }

    /// Returns the stores that are available.
    #[must_use]
    pub fn stores(&self) -> Vec<&'static str> {
        let has = |name: &&str| match *name {
            "postgres" => self.postgres.is_some(),
            "redis" => self.redis.is_some(),
            "cluster" => self.cluster.is_some(),
            _ => true,
        };
        ["memory", "sled", "sqlite", "postgres", "redis", "cluster"]
            .into_iter()
            .filter(has)
            .collect()
    }

    /// Returns the process of the Redis node, if it was started here.
    #[must_use]
    pub fn redis(&self) -> Option<&Node> {
        self.redis.as_ref()?.1.as_ref()
    }

    /// Opens a store and its floor, with the data that an earlier run left under this name.
    ///
    /// # Errors
    /// Fails if the server returns an error or can't be reached.
    pub async fn open(
        &self,
        store: &'static str,
        name: &str,
    ) -> Outcome<(Arc<dyn StoreMaintenance>, Floor)> {
        Ok((
            self.open_store(store, name).await?,
            self.open_floor(store, name).await?,
        ))
    }

    /// Opens a store without its floor.
    ///
    /// # Errors
    /// Fails if the server returns an error or can't be reached.
    pub async fn open_store(
        &self,
        store: &'static str,
        name: &str,
    ) -> Outcome<Arc<dyn StoreMaintenance>> {
        Ok(match store {
            "memory" => Arc::new(MemoryStore::new()),
            "sled" | SLED_COLD => {
                let path = self.folder().join(format!("sled-{name}"));
                fs::create_dir_all(&path)?;
                let config = passkit_store_sled::Config::new(&path).cache_bytes(sled_cache(store));
                Arc::new(SledStore::open_with(&config)?)
            }
            "sqlite" => {
                fs::create_dir_all(self.folder())?;
                Arc::new(SqliteStore::create(self.sqlite_path(name))?)
            }
            "postgres" => {
                let url = self.postgres_url(name).await?;
                let store = PostgresStore::connect(&url, Default::default()).await?;
                store.migrate().await?;
                Arc::new(store)
            }
            _ => {
                let (url, _) = self.redis_driver(store).await?;
                let config = passkit_store_redis::Config::new().prefix(redis_prefix(name));
                Arc::new(RedisStore::connect(&url, config).await?)
            }
        })
    }

    async fn open_floor(&self, store: &'static str, name: &str) -> Outcome<Floor> {
        Ok(match store {
            "memory" => Floor::Memory(Default::default()),
            "sled" | SLED_COLD => {
                let path = self.folder().join(format!("sled-floor-{name}"));
                let floor = sled::Config::new()
                    .path(&path)
                    .cache_capacity(sled_cache(store))
                    .open()?;
                Floor::Sled(floor, Arc::new(fs::File::open(path.join("db"))?))
            }
            "sqlite" => Floor::Sqlite(sqlite::Threads::start(&self.sqlite_path(name))?),
            "postgres" => Floor::Postgres(Connections::new(&self.postgres_url(name).await?).await?),
            _ => Floor::Redis(self.redis_driver(store).await?.1, redis_prefix(name)),
        })
    }

    fn sqlite_path(&self, name: &str) -> PathBuf {
        self.folder().join(format!("sqlite-{name}.db"))
    }

    fn folder(&self) -> &Path {
        self.kept.as_deref().unwrap_or(self.scratch.path())
    }

    /// Makes this number of registrations in parts of 10,000, unless an earlier run has made them. `also` also gets each
    /// part.
    ///
    /// # Errors
    /// Fails if the server returns an error or can't be reached.
    pub async fn load(
        &self,
        (store, name): (&'static str, &str),
        own: &dyn StoreMaintenance,
        count: usize,
        registration: impl Fn(usize) -> Registration,
        also: impl Fn(&[Registration]),
    ) -> Outcome<()> {
        let note = self
            .kept
            .as_ref()
            .map(|folder| folder.join(format!("{store}-{name}.json")));
        let last = registration(count - 1).pass;
        let is_there = !own
            .devices(Audience::Pass(&last), None, 1)
            .await?
            .items
            .is_empty();
        if is_there && note.as_ref().is_some_and(|note| note.exists()) {
            return Ok(());
        }
        for first in (0..count).step_by(PART) {
            let end = count.min(first + PART);
            let part: Vec<_> = (first..end).map(&registration).collect();
            own.register_many(&part).await?;
            also(&part);
            data::progress(
                &format!(
                    "loading {} registrations into {store}",
                    data::grouped(count)
                ),
                end,
                count,
            );
        }
        self.wait_until_idle(store, name).await?;
        if let Some(note) = note {
            fs::write(note, "")?;
        }
        Ok(())
    }

    /// Returns the address of the database with this name. Creates the database if it does not exist.
    ///
    /// # Errors
    /// Fails if the server returns an error or can't be reached.
    pub async fn postgres_url(&self, name: &str) -> Outcome<String> {
        let server = self.postgres.as_ref().ok_or("no PostgreSQL")?;
        statistics::database(server, name).await
    }

    /// Returns the address of Redis or of the Cluster, and a connection.
    ///
    /// # Errors
    /// Fails if the server returns an error or can't be reached.
    pub async fn redis_driver(&self, store: &str) -> Outcome<(String, Driver)> {
        if store == "redis" {
            let url = &self.redis.as_ref().ok_or("no Redis")?.0;
            let connection = redis::Client::open(&**url)?
                .get_connection_manager()
                .await?;
            return Ok((url.clone(), Driver::Node(connection)));
        }
        let url = self.cluster.as_ref().ok_or("no Cluster")?.url();
        let nodes = url.trim_start_matches("redis+cluster://").split(',');
        let nodes: Vec<String> = nodes.map(|node| format!("redis://{node}/")).collect();
        let connection = ClusterClient::new(nodes)?.get_async_connection().await?;
        Ok((url, Driver::Cluster(connection)))
    }

    /// Returns the memory use of Redis in bytes. `None` if it was not started here.
    #[must_use]
    pub fn redis_memory(&self) -> Option<f64> {
        let info = self.redis()?.ask(&["INFO", "memory"]).ok()?;
        info.lines()
            .find_map(|line| line.strip_prefix("used_memory:"))?
            .trim()
            .parse()
            .ok()
    }

    /// Waits for work that the server would otherwise do during the measurement. Call this after loading.
    ///
    /// # Errors
    /// Fails if the server returns an error or can't be reached.
    pub async fn wait_until_idle(&self, store: &str, name: &str) -> Outcome<()> {
        if store == "postgres" {
            let mut connection = PgConnection::connect(&self.postgres_url(name).await?).await?;
            statistics::keep_autovacuum_away(&mut connection).await?;
            sqlx::query("vacuum (freeze, analyze)")
                .execute(&mut connection)
                .await?;
            statistics::wait_for_writes(&mut connection).await?;
        }
        if let (Some(node), Some(_), "redis") = (self.redis(), &self.kept, store) {
            node.ask(&["BGSAVE"])?;
            while node
                .ask(&["INFO", "persistence"])?
                .contains("rdb_bgsave_in_progress:1")
            {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        }
        Ok(())
    }
}

/// A store with data. The passes of each device were marked once, and then one of them again.
pub struct Subject {
    /// The store.
    pub store: Arc<dyn StoreMaintenance>,
    /// The floor of the store.
    pub floor: Floor,
    /// The memory that a registration takes in Redis, in bytes.
    pub bytes_each: Option<f64>,
    marks: Marks,
    /// The devices in the questions, each with its clock.
    devices: Vec<(DeviceIdentifier, u64)>,
    many: (DeviceIdentifier, u64),
}

/// The type's clock before the marks, between them and after them.
#[derive(Clone, Copy, Debug, Default)]
struct Marks {
    before: u64,
    first: u64,
    second: u64,
}

/// A question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    /// One of the three passes of a device changed.
    OneOfThree,
    /// None of the three passes changed. The answer is 204.
    NoneOfThree,
    /// All three passes changed.
    AllOfThree,
    /// Ten of 10,000 passes changed.
    TenOfMany,
}

impl Case {
    /// All cases.
    pub const ALL: [Self; 4] = [
        Self::OneOfThree,
        Self::NoneOfThree,
        Self::AllOfThree,
        Self::TenOfMany,
    ];

    /// Returns a name for the table of results.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::OneOfThree => "3 passes, 1 changed",
            Self::NoneOfThree => "3 passes, none changed",
            Self::AllOfThree => "3 passes, all changed",
            Self::TenOfMany => "10,000 passes, 10 changed",
        }
    }

    /// Returns the number of serial numbers in the answer.
    #[must_use]
    pub fn changed(self) -> usize {
        match self {
            Self::OneOfThree => 1,
            Self::NoneOfThree => 0,
            Self::AllOfThree => 3,
            Self::TenOfMany => 10,
        }
    }
}

impl Subject {
    /// Opens a store. Loads the data, unless an earlier run has loaded them.
    ///
    /// # Errors
    /// Fails if the server returns an error or can't be reached.
    pub async fn open(servers: &Servers, store: &'static str, size: usize) -> Outcome<Self> {
        let name = size.to_string();
        let (opened, floor) = servers.open(store, &name).await?;
        let mut subject = Self {
            store: opened,
            floor,
            bytes_each: None,
            marks: Marks::default(),
            devices: Vec::new(),
            many: (data::device_with_many(), 0),
        };
        let data = if store == SLED_COLD { "sled" } else { store };
        let note = servers
            .kept
            .as_ref()
            .map(|folder| folder.join(format!("{data}-{size}.json")));
        if !subject.was_kept(note.as_deref()).await? {
            let before = servers.redis_memory();
            subject.load(store, size).await?;
            if let (Some(before), Some(after), "redis") = (before, servers.redis_memory(), store) {
                subject.bytes_each = Some((after - before) / size as f64);
            }
            subject.mark(size).await?;
            servers.wait_until_idle(store, &name).await?;
            let Marks {
                before,
                first,
                second,
            } = subject.marks;
            let found =
                json!({ "marks": [before, first, second], "bytes_each": subject.bytes_each });
            if let Some(note) = note {
                fs::write(note, found.to_string())?;
            }
        }
        subject.find_clocks(size).await?;
        Ok(subject)
    }

    /// Returns whether the data match the note of an earlier run.
    async fn was_kept(&mut self, note: Option<&std::path::Path>) -> Outcome<bool> {
        let Some(Ok(text)) = note.map(fs::read_to_string) else {
            return Ok(false);
        };
        let note: serde_json::Value = serde_json::from_str(&text)?;
        let mark = |at: usize| note["marks"][at].as_u64().unwrap_or(0);
        self.marks = Marks {
            before: mark(0),
            first: mark(1),
            second: mark(2),
        };
        self.bytes_each = note["bytes_each"].as_f64();
        Ok(self.clock().await? == self.marks.second)
    }

    async fn load(&self, store: &str, size: usize) -> Outcome<()> {
        let what = format!("loading {} registrations into {store}", data::grouped(size));
        for first in (0..size).step_by(PART) {
            let end = size.min(first + PART);
            let part = data::registrations(first..end);
            self.store.register_many(&part).await?;
            self.floor.register(&part);
            data::progress(&what, end, size);
        }
        Ok(())
    }

    async fn mark(&mut self, size: usize) -> Outcome<()> {
        let many = data::registrations_of_many();
        self.store.register_many(&many).await?;
        self.floor.register(&many);
        self.mark_these(&[data::serial_of_many(0)]).await?;
        self.marks.before = self.clock().await?;
        let passes = |each: usize| {
            let of_device = move |device| (0..each).map(move |i| data::serial(device * EACH + i));
            sample(size).flat_map(of_device).collect::<Vec<_>>()
        };
        self.mark_these(&passes(EACH)).await?;
        self.marks.first = self.clock().await?;
        let mut again = passes(1);
        again.extend((0..10).map(data::serial_of_many));
        self.mark_these(&again).await?;
        self.marks.second = self.clock().await?;
        Ok(())
    }

    async fn mark_these(&self, serials: &[SerialNumber]) -> Outcome<()> {
        for part in serials.chunks(1_000) {
            self.store
                .mark(&data::type_id(), Changed::Passes(part))
                .await?;
        }
        self.floor.mark(serials, self.clock().await?);
        Ok(())
    }

    /// Returns the type's clock, or 0 if the data are not complete. `device` has passes in every bucket of the store.
    async fn clock(&self) -> Outcome<u64> {
        let changes = self
            .store
            .changes_since(&data::device_with_many(), &data::type_id(), None)
            .await?;
        Ok(if changes.serials.len() == data::MANY {
            changes.tag.type_version
        } else {
            0
        })
    }

    async fn find_clocks(&mut self, size: usize) -> Outcome<()> {
        let mut tasks = tokio::task::JoinSet::new();
        let devices: Vec<usize> = sample(size).collect();
        for part in devices.chunks(devices.len().div_ceil(64)) {
            let (store, part) = (self.store.clone(), part.to_vec());
            tasks.spawn(async move {
                let mut clocks = Vec::new();
                for index in part {
                    let asked = store
                        .changes_since(&data::device(index), &data::type_id(), None)
                        .await;
                    clocks.push((index, asked.map(|changes| changes.tag.device_version)));
                }
                clocks
            });
        }
        let mut clocks = HashMap::new();
        for (index, clock) in tasks.join_all().await.into_iter().flatten() {
            clocks.insert(index, clock?);
        }
        // Consecutive questions are about distant devices, so that a question does not load the rows of the next question.
        self.devices = (0..devices.len())
            .map(|i| devices[i * 7_919 % devices.len()])
            .map(|index| (data::device(index), clocks[&index]))
            .collect();
        let changes = self
            .store
            .changes_since(&self.many.0, &data::type_id(), None)
            .await?;
        self.many.1 = changes.tag.device_version;
        Ok(())
    }

    /// Returns the device and the tag of a question.
    #[must_use]
    pub fn question(&self, case: Case, number: usize) -> (&DeviceIdentifier, UpdateTag) {
        let (device, device_version) = match case {
            Case::TenOfMany => &self.many,
            _ => &self.devices[number % self.devices.len()],
        };
        let type_version = match case {
            Case::OneOfThree | Case::TenOfMany => self.marks.first,
            Case::NoneOfThree => self.marks.second,
            Case::AllOfThree => self.marks.before,
        };
        (
            device,
            UpdateTag {
                type_version,
                device_version: *device_version,
            },
        )
    }

    /// Asks the store.
    pub async fn ask(&self, case: Case, number: usize) {
        let (device, since) = self.question(case, number);
        let changes = self
            .store
            .changes_since(device, &data::type_id(), Some(since))
            .await;
        assert_eq!(changes.expect("an answer").serials.len(), case.changed());
    }

    /// Asks the floor.
    pub async fn ask_floor(&self, case: Case, number: usize) {
        let (device, since) = self.question(case, number);
        assert_eq!(
            self.floor.changes_since(number, device, since).await.len(),
            case.changed()
        );
    }
}

/// Returns the numbers of the devices in the questions, spread over all devices.
fn sample(size: usize) -> impl Iterator<Item = usize> {
    let devices = size / EACH;
    let step = devices.div_ceil(SAMPLE);
    (0..devices).step_by(step)
}
