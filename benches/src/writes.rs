//! The floor of a write runs the same scripts and functions over the bare driver. Its writes are durable if the writes of
//! the store are durable. This module also has the floor for reading pages of a pass's devices.

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock, Mutex},
};

use futures_util::future::join_all;
use passkit_server::{
    PassId,
    identifiers::{DeviceIdentifier, SerialNumber},
    store::clock,
};
use passkit_store_postgres::sqlx::{self, Row as _};
use passkit_store_redis::{
    SCRIPTS,
    redis::{self, Script, Value, from_redis_value},
};

use crate::{
    data::{TYPE, token},
    floor::{Driver, Floor, bucket, key_of, prefix},
};

static INDEX_ADD: LazyLock<Script> = LazyLock::new(|| script("index_add"));
static REGISTER: LazyLock<Script> = LazyLock::new(|| script("register"));
static MARK: LazyLock<Script> = LazyLock::new(|| script("mark"));

/// Returns the store's script of this name.
fn script(name: &str) -> Script {
    let (_, source) = SCRIPTS
        .iter()
        .find(|(known, _)| *known == name)
        .expect("a script of the store");
    Script::new(source)
}

impl Driver {
    async fn script(&self, script: &Script, keys: &[String], args: &[String]) {
        let mut call = script.prepare_invoke();
        for key in keys {
            call.key(key);
        }
        for arg in args {
            call.arg(arg);
        }
        let done: Value = match self {
            Self::Node(connection) => call
                .invoke_async(&mut connection.clone())
                .await
                .expect("answered"),
            Self::Cluster(connection) => call
                .invoke_async(&mut connection.clone())
                .await
                .expect("answered"),
        };
        std::hint::black_box(done);
    }
}

impl Floor {
    /// Registers a device. `number` is the number of the call.
    pub async fn register_one(&self, number: usize, device: &DeviceIdentifier, pass: &PassId) {
        let now = clock::now_micros();
        match self {
            Self::Memory(maps) => {
                let mut maps = maps.lock().expect("unpoisoned");
                let registrations = maps.devices.entry(device.as_str().to_owned()).or_default();
                registrations.insert(pass.serial.as_str().to_owned(), now);
            }
            Self::Sled(engine, _) => {
                let mut batch = sled::Batch::default();
                let by_device = format!("{}{}", prefix(device), pass.serial);
                batch.insert(by_device.into_bytes(), &now.to_be_bytes());
                batch.insert(
                    format!("{}\0{}", key_of(pass.serial.as_str()), device.as_str()).into_bytes(),
                    &[],
                );
                engine.apply_batch(batch).expect("written");
                self.sync().await;
            }
            Self::Sqlite(threads) => threads.register(device, pass).await,
            Self::Postgres(connections) => {
                sqlx::query("select passkit.register($1, $2, $3, $4)")
                    .bind(device.as_str())
                    .bind(TYPE)
                    .bind(pass.serial.as_str())
                    .bind(token().as_str())
                    .execute(&mut *connections.any(number).await)
                    .await
                    .expect("registered");
            }
            // The keys differ from the store's keys, because the store would find these data incomplete.
            Self::Redis(driver, _) => {
                let now = now.to_string();
                let of_pass = format!("floor:p{{{TYPE}:{}}}", pass.serial);
                let of_type = format!("floor:y{{{TYPE}:{}}}", bucket(device.as_str()));
                let entry = [now.clone(), device.as_str().to_owned()];
                let index_add = |part| {
                    let entry = &entry;
                    async move { driver.script(&INDEX_ADD, &[part], entry).await }
                };
                join_all([of_pass, of_type].map(index_add)).await;
                let (token, field) = (token(), format!("{TYPE}/{}", pass.serial));
                let args = [&now, token.as_str(), "1", TYPE, &now, &field, &now].map(str::to_owned);
                driver
                    .script(
                        &REGISTER,
                        &[format!("floor:d{{{}}}", device.as_str())],
                        &args,
                    )
                    .await;
            }
        }
    }

    /// Marks passes, durably. `number` is the number of the call.
    pub async fn mark_durably(&self, number: usize, serials: &[SerialNumber]) {
        let now = clock::now_micros();
        match self {
            Self::Memory(_) => self.mark(serials, now),
            Self::Sled(..) => {
                self.mark(serials, now);
                self.sync().await;
            }
            Self::Sqlite(threads) => threads.mark(serials).await,
            Self::Postgres(connections) => {
                let serials: Vec<_> = serials
                    .iter()
                    .map(|serial| serial.as_str().to_owned())
                    .collect();
                sqlx::query("select passkit.mark($1, $2, null, false)")
                    .bind(TYPE)
                    .bind(serials)
                    .execute(&mut *connections.any(number).await)
                    .await
                    .expect("marked");
            }
            Self::Redis(driver, _) => {
                let mut buckets: BTreeMap<u64, Vec<String>> = BTreeMap::new();
                for serial in serials {
                    let args = buckets.entry(bucket(serial.as_str())).or_insert_with(|| {
                        vec![now.to_string(), (now / 1_000_000).to_string(), "0".into()]
                    });
                    args.push(serial.as_str().to_owned());
                }
                let one = |(bucket, args): (u64, Vec<String>)| async move {
                    let keys = ["b", "t"].map(|kind| format!("floor:{kind}{{{TYPE}:{bucket}}}"));
                    driver.script(&MARK, &keys, &args).await;
                };
                join_all(buckets.into_iter().map(one)).await;
            }
        }
    }

    /// Makes all written data durable.
    async fn sync(&self) {
        if let Self::Sled(engine, file) = self {
            let (engine, file) = (engine.clone(), file.clone());
            let sync = move || {
                engine.flush().expect("flushed");
                file.sync_data().expect("synced");
            };
            tokio::task::spawn_blocking(sync).await.expect("synced");
        }
    }
}

/// Reads all pages of a pass's devices, again and again.
#[derive(Clone)]
pub struct Pages {
    floor: Arc<Floor>,
    pass: PassId,
    /// The start of the next page: after this device, or for Redis at this cursor of this part of the index.
    place: Arc<Mutex<(String, u64, u64)>>,
}

impl Pages {
    /// Starts with the first page.
    #[must_use]
    pub fn new(floor: Arc<Floor>, pass: PassId) -> Self {
        Self {
            floor,
            pass,
            place: Arc::default(),
        }
    }

    /// Returns the push tokens of the next page of about `limit` devices.
    pub async fn next(&self, limit: usize) -> Vec<String> {
        let (after, part, cursor) = self.place.lock().expect("unpoisoned").clone();
        let (tokens, place) = match &*self.floor {
            Floor::Memory(maps) => {
                let maps = maps.lock().expect("unpoisoned");
                let devices = maps
                    .tokens
                    .range((std::ops::Bound::Excluded(after), std::ops::Bound::Unbounded));
                let page: Vec<_> = devices.take(limit).collect();
                let last = page
                    .last()
                    .filter(|_| page.len() == limit)
                    .map(|(device, _)| (*device).clone());
                (
                    page.into_iter().map(|(_, token)| token.clone()).collect(),
                    (last.unwrap_or_default(), 0, 0),
                )
            }
            Floor::Sled(engine, _) => {
                let prefix = format!("{}\0", key_of(self.pass.serial.as_str()));
                let mut tokens = Vec::new();
                let mut last = String::new();
                for row in engine.range(format!("{prefix}{after}\u{1}")..).take(limit) {
                    let (key, _) = row.expect("read");
                    let Some(device) = key.strip_prefix(prefix.as_bytes()) else {
                        break;
                    };
                    last = std::str::from_utf8(device).expect("a device").to_owned();
                    let token = engine
                        .get(format!("t{last}"))
                        .expect("read")
                        .expect("a push token");
                    tokens.push(
                        std::str::from_utf8(&token)
                            .expect("a push token")
                            .to_owned(),
                    );
                }
                let last = if tokens.len() < limit {
                    String::new()
                } else {
                    last
                };
                (tokens, (last, 0, 0))
            }
            Floor::Sqlite(threads) => {
                let page = threads.devices(&self.pass, after, limit).await;
                let last = page.last().filter(|_| page.len() == limit);
                let last = last.map(|(device, _)| device.clone()).unwrap_or_default();
                let tokens = page.into_iter().map(|(_, token)| token);
                (tokens.collect(), (last, 0, 0))
            }
            Floor::Postgres(connections) => {
                let (_, statement) = *passkit_store_postgres::STATEMENTS
                    .iter()
                    .find(|(name, _)| *name == "devices of pass")
                    .expect("the store's statement for a page");
                let rows = sqlx::query(statement)
                    .bind(TYPE)
                    .bind(self.pass.serial.as_str())
                    .bind(after)
                    .bind(limit as i64)
                    .fetch_all(&mut *connections.any(0).await)
                    .await
                    .expect("rows");
                let last = rows
                    .last()
                    .filter(|_| rows.len() == limit)
                    .map(|row| row.get(0));
                (
                    rows.iter().map(|row| row.get(1)).collect(),
                    (last.unwrap_or_default(), 0, 0),
                )
            }
            Floor::Redis(driver, prefix) => {
                let mut scan = redis::cmd("HSCAN");
                scan.arg(format!("{prefix}p{{{TYPE}:{}:{part}}}", self.pass.serial));
                scan.arg(cursor).arg("COUNT").arg(limit);
                let page = driver.run(vec![scan]).await.pop().expect("an answer");
                let (cursor, page): (u64, Vec<(String, String)>) =
                    from_redis_value(page).expect("a page");
                let gets = page.iter().map(|(device, _)| {
                    let mut get = redis::cmd("HMGET");
                    get.arg(format!("{prefix}d{{{device}}}"));
                    get.arg("t").arg(format!("{TYPE}/{}", self.pass.serial));
                    get
                });
                let rows = driver.run(gets.collect()).await;
                let token = |row| {
                    let (token, _): (String, String) = from_redis_value(row).expect("a push token");
                    token
                };
                let part = if cursor == 0 { (part + 1) % 8 } else { part };
                (
                    rows.into_iter().map(token).collect(),
                    (String::new(), part, cursor),
                )
            }
        };
        *self.place.lock().expect("unpoisoned") = place;
        tokens
    }
}
