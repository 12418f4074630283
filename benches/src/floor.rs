//! The floor of a list reads the same rows over the bare driver. It can answer only this question,
//! checks nothing, and does not retry.

use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    sync::{Arc, Mutex},
};

use futures_util::future::join_all;
use passkit_server::{
    identifiers::{DeviceIdentifier, SerialNumber},
    maintenance::Registration,
    store::UpdateTag,
};
use passkit_store_postgres::sqlx::{self, Connection as _, PgConnection, Row as _};
use passkit_store_redis::redis::{
    self, Value, aio::ConnectionManager, cluster_async::ClusterConnection, from_redis_value,
};

use crate::{data::TYPE, sqlite::Threads};

/// The bare driver of a store.
pub enum Floor {
    /// Maps behind a lock.
    Memory(Mutex<Maps>),
    /// A separate database, with a row for each registration. The file is a second handle on its
    /// data file, for syncing.
    Sled(sled::Db, Arc<File>),
    /// Threads with connections to the store's database.
    Sqlite(Threads),
    /// Connections to the store's database.
    Postgres(Connections),
    /// A connection to the store's server, and the prefix of the store's keys.
    Redis(Driver, String),
}

/// One node or a Cluster.
#[derive(Clone)]
pub enum Driver {
    /// One node.
    Node(ConnectionManager),
    /// A Cluster.
    Cluster(ClusterConnection),
}

impl Driver {
    /// Runs several commands at once.
    pub async fn run(&self, commands: Vec<redis::Cmd>) -> Vec<Value> {
        match self {
            Self::Node(connection) => {
                let mut connection = connection.clone();
                if let [command] = &commands[..] {
                    return vec![
                        command
                            .query_async(&mut connection)
                            .await
                            .expect("answered"),
                    ];
                }
                let mut pipe = redis::pipe();
                for command in commands {
                    pipe.add_command(command);
                }
                pipe.query_async(&mut connection).await.expect("answered")
            }
            Self::Cluster(connection) => {
                let one = |command: redis::Cmd| {
                    let mut connection = connection.clone();
                    async move {
                        command
                            .query_async(&mut connection)
                            .await
                            .expect("answered")
                    }
                };
                join_all(commands.into_iter().map(one)).await
            }
        }
    }
}

/// Connections to PostgreSQL.
pub struct Connections(Vec<tokio::sync::Mutex<PgConnection>>);

impl Connections {
    /// Makes eight connections. The store has the same number.
    ///
    /// # Errors
    /// Fails if the server can't be reached.
    pub async fn new(url: &str) -> sqlx::Result<Self> {
        let mut connections = Vec::new();
        for _ in 0..8 {
            connections.push(PgConnection::connect(url).await?.into());
        }
        Ok(Self(connections))
    }

    /// Returns a free connection. A single caller always gets the first connection.
    pub async fn any(&self, number: usize) -> tokio::sync::MutexGuard<'_, PgConnection> {
        match self
            .0
            .iter()
            .find_map(|connection| connection.try_lock().ok())
        {
            Some(free) => free,
            None => self.0[number % self.0.len()].lock().await,
        }
    }
}

/// The floor of the memory store.
#[derive(Debug, Default)]
pub struct Maps {
    pub(crate) devices: HashMap<String, BTreeMap<String, u64>>,
    passes: HashMap<String, u64>,
    /// The push tokens of a pass's devices.
    pub(crate) tokens: BTreeMap<String, String>,
}

impl Floor {
    /// Returns whether the floor has separate data, which must be loaded.
    fn has_own_rows(&self) -> bool {
        matches!(self, Self::Memory(_) | Self::Sled(..))
    }

    /// Adds registrations, if the floor has separate data.
    pub fn register(&self, registrations: &[Registration]) {
        if !self.has_own_rows() {
            return;
        }
        let mut batch = sled::Batch::default();
        for Registration { device, pass, .. } in registrations {
            match self {
                Self::Memory(maps) => {
                    let mut maps = maps.lock().expect("unpoisoned");
                    let passes = maps.devices.entry(device.as_str().to_owned()).or_default();
                    passes.insert(pass.serial.as_str().to_owned(), 0);
                }
                _ => {
                    let key = [prefix(device).as_bytes(), pass.serial.as_str().as_bytes()].concat();
                    batch.insert(key, &0_u64.to_be_bytes());
                }
            }
        }
        if let Self::Sled(engine, _) = self {
            engine.apply_batch(batch).expect("written");
        }
    }

    /// Adds devices of one pass, if the floor has separate data.
    pub fn register_by_pass(&self, registrations: &[Registration]) {
        let mut batch = sled::Batch::default();
        for Registration {
            device,
            pass,
            push_token,
        } in registrations
        {
            match self {
                Self::Memory(maps) => {
                    let mut maps = maps.lock().expect("unpoisoned");
                    maps.tokens
                        .insert(device.as_str().to_owned(), push_token.as_str().to_owned());
                }
                Self::Sled(..) => {
                    batch.insert(
                        format!("t{}", device.as_str()).into_bytes(),
                        push_token.as_str(),
                    );
                    let by_pass = format!("{}\0{}", key_of(pass.serial.as_str()), device.as_str());
                    batch.insert(by_pass.into_bytes(), &[]);
                }
                Self::Sqlite(_) | Self::Postgres(_) | Self::Redis(..) => return,
            }
        }
        if let Self::Sled(engine, _) = self {
            engine.apply_batch(batch).expect("written");
        }
    }

    /// Gives the passes this version, if the floor has separate data.
    pub fn mark(&self, serials: &[SerialNumber], version: u64) {
        match self {
            Self::Memory(maps) => {
                let mut maps = maps.lock().expect("unpoisoned");
                maps.passes.extend(
                    serials
                        .iter()
                        .map(|serial| (serial.as_str().to_owned(), version)),
                );
            }
            Self::Sled(engine, _) => {
                let mut batch = sled::Batch::default();
                for serial in serials {
                    batch.insert(key_of(serial.as_str()).into_bytes(), &version.to_be_bytes());
                }
                engine.apply_batch(batch).expect("written");
            }
            Self::Sqlite(_) | Self::Postgres(_) | Self::Redis(..) => {}
        }
    }

    /// Reads what changed for the device. `number` is the number of the call.
    pub async fn changes_since(
        &self,
        number: usize,
        device: &DeviceIdentifier,
        since: UpdateTag,
    ) -> Vec<String> {
        match self {
            Self::Memory(maps) => {
                let maps = maps.lock().expect("unpoisoned");
                let version = |serial: &str| maps.passes.get(serial).copied().unwrap_or(0);
                let passes = maps.devices.get(device.as_str()).into_iter().flatten();
                passes
                    .filter(|(serial, registered)| {
                        version(serial) > since.type_version || **registered > since.device_version
                    })
                    .map(|(serial, _)| serial.clone())
                    .collect()
            }
            Self::Sled(engine, _) => {
                let number = |row: &[u8]| u64::from_be_bytes(row.try_into().expect("a number"));
                let prefix = prefix(device);
                let mut changed = Vec::new();
                for row in engine.scan_prefix(&prefix) {
                    let (key, registered) = row.expect("read");
                    let serial =
                        std::str::from_utf8(&key[prefix.len()..]).expect("a serial number");
                    let version = engine
                        .get(key_of(serial))
                        .expect("read")
                        .map_or(0, |row| number(&row));
                    if version > since.type_version || number(&registered) > since.device_version {
                        changed.push(serial.to_owned());
                    }
                }
                changed
            }
            Self::Sqlite(threads) => threads.changes_since(number, device, since).await,
            Self::Postgres(connections) => {
                let (_, statement) = *passkit_store_postgres::STATEMENTS
                    .iter()
                    .find(|(name, _)| *name == "changes since")
                    .expect("the store's statement for one device");
                let mut connection = connections.any(number).await;
                let row = sqlx::query(statement)
                    .bind(device.as_str())
                    .bind(TYPE)
                    .bind(since.type_version as i64)
                    .bind(since.device_version as i64)
                    .fetch_one(&mut *connection)
                    .await
                    .expect("a row");
                row.get(2)
            }
            Self::Redis(driver, prefix) => of_redis(driver, prefix, device, since).await,
        }
    }
}

pub(crate) fn prefix(device: &DeviceIdentifier) -> String {
    format!("r{}\0{TYPE}\0", device.as_str())
}

pub(crate) fn key_of(serial: &str) -> String {
    format!("p{TYPE}\0{serial}")
}

/// Sends a command for the device, and a command for each bucket that has passes of the device.
async fn of_redis(
    driver: &Driver,
    prefix: &str,
    device: &DeviceIdentifier,
    since: UpdateTag,
) -> Vec<String> {
    let mut get = redis::cmd("HGETALL");
    get.arg(format!("{prefix}d{{{}}}", device.as_str()));
    let row = driver.run(vec![get]).await.pop().expect("an answer");
    let row: Vec<(String, String)> = from_redis_value(row).expect("fields and values");
    let mut buckets: BTreeMap<u64, Vec<(&str, u64)>> = BTreeMap::new();
    for (field, value) in &row {
        let Some(serial) = field
            .strip_prefix(TYPE)
            .and_then(|rest| rest.strip_prefix('/'))
        else {
            continue;
        };
        let digits = value.split([':', '+']).next().expect("digits");
        buckets
            .entry(bucket(serial))
            .or_default()
            .push((serial, digits.parse().expect("a version")));
    }
    let commands = buckets.iter().map(|(bucket, passes)| {
        let mut get = redis::cmd("HMGET");
        get.arg(format!("{prefix}b{{{TYPE}:{bucket}}}"))
            .arg(&["\tc", "\tv", "\td"]);
        for (serial, _) in passes {
            get.arg(serial);
        }
        get
    });
    let answers = driver.run(commands.collect()).await;
    let mut changed = Vec::new();
    for (passes, answer) in buckets.values().zip(answers) {
        let states: Vec<Option<String>> = from_redis_value(answer).expect("values");
        for ((serial, registered), state) in passes.iter().zip(&states[3..]) {
            let version = state.as_ref().map_or(0, |state| {
                let (version, _) = state.split_once(':').expect("version and date");
                version.parse().expect("a version")
            });
            if version > since.type_version || *registered > since.device_version {
                changed.push((*serial).to_owned());
            }
        }
    }
    changed
}

/// Returns the bucket that the store chooses: FNV-1a modulo 64.
pub(crate) fn bucket(serial: &str) -> u64 {
    serial
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        })
        % 64
}
