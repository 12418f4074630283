//! The stores that `--store` can name.

use std::{fmt, path::PathBuf, str::FromStr, sync::Arc};

use passkit_server::{maintenance::StoreMaintenance, metrics::Measured, push::PushQueue};
use passkit_store_postgres::{Config, PostgresStore};
use passkit_store_redis::{RedisStore, Repaired};
use passkit_store_sled::SledStore;

use crate::failure::Failure;

/// A store, as written on the command line. Neither `Display` nor `Debug` shows a password.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum StoreUrl {
    /// `sled:PATH`
    Sled(PathBuf),
    /// `postgres://…`
    Postgres(String),
    /// `redis://…` and its relatives.
    Redis(String),
}

/// What the program needs of a store.
pub(crate) trait Store: PushQueue + StoreMaintenance {}

impl<T: PushQueue + StoreMaintenance> Store for T {}

/// A store that is ready.
#[derive(Clone)]
pub(crate) struct OpenStore {
    pub(crate) store: Arc<dyn Store>,
    /// Whether other processes may use it at the same time.
    pub(crate) shared: bool,
}

impl OpenStore {
    /// Every call of the program is counted for `--metrics`.
    fn new(store: impl Store + 'static, shared: bool) -> Self {
        Self {
            store: Arc::new(Measured::new(store)),
            shared,
        }
    }
}

const FORMS: &str = "sled:FOLDER, as in sled:./passkit-data, postgres://USER:PASSWORD@HOST/DATABASE, \
                     redis://HOST:PORT, redis+cluster://HOST:PORT,HOST:PORT or redis+sentinel://HOST:PORT/MASTER";

impl FromStr for StoreUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text.split_once(':').unwrap_or_default();
        match scheme {
            "sled" if rest.is_empty() => {
                Err("sled: needs a folder, as in sled:./passkit-data".into())
            }
            "sled" => Ok(Self::Sled(rest.into())),
            "postgres" | "postgresql" => Ok(Self::Postgres(text.into())),
            "redis" | "rediss" | "redis+cluster" | "rediss+cluster" | "redis+sentinel"
            | "rediss+sentinel" => Ok(Self::Redis(text.into())),
            _ => Err(format!("this program knows no such store; write {FORMS}")),
        }
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sled(path) => write!(f, "sled:{}", path.display()),
            Self::Postgres(url) | Self::Redis(url) => f.write_str(&without_password(url)),
        }
    }
}

/// A setting of a store in the environment. Few need these, so they are not options of every command.
fn setting(name: &str) -> Result<Option<String>, Failure> {
    match std::env::var(name) {
        Ok(value) if value.is_empty() => Ok(None),
        Ok(value) => Ok(Some(value)),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(error) => Err(Failure::from_error(name, &error)),
    }
}

/// The content of a file that the environment names.
fn file(name: &str) -> Result<Option<Vec<u8>>, Failure> {
    let Some(path) = setting(name)? else {
        return Ok(None);
    };
    let read = std::fs::read(&path);
    read.map(Some)
        .map_err(|error| Failure::from_error(format!("{name}={path}"), &error))
}

/// A URL without the password of its authority, and without its query, which may contain one.
fn without_password(url: &str) -> String {
    let url = url.split('?').next().unwrap_or_default();
    let (scheme, rest) = url.split_once("://").unwrap_or((url, ""));
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    match authority.rsplit_once('@') {
        Some((user, hosts)) => {
            let user = user.split(':').next().unwrap_or_default();
            format!("{scheme}://{user}@{hosts}{path}")
        }
        None => format!("{scheme}://{rest}"),
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl StoreUrl {
    /// Opens the store.
    pub(crate) async fn open(&self) -> Result<OpenStore, Failure> {
        let cannot =
            |error: &dyn std::error::Error| Failure::from_error("can't open the store", error);
        match self.clone() {
            Self::Sled(path) => {
                let opened = tokio::task::spawn_blocking(move || SledStore::open(path)).await;
                let store = opened
                    .map_err(|error| cannot(&error))?
                    .map_err(|error| cannot(&error))?;
                Ok(OpenStore::new(store, false))
            }
            Self::Postgres(url) => {
                let store = self.connect(&url).await?;
                store
                    .check()
                    .await
                    .map_err(|error| Failure::from_error(format!("can't use {self}"), &error))?;
                Ok(OpenStore::new(store, true))
            }
            Self::Redis(url) => Ok(OpenStore::new(self.connect_redis(&url).await?, true)),
        }
    }

    /// Makes or updates the tables of the store. Returns `false` if it needs none.
    pub(crate) async fn migrate(&self) -> Result<bool, Failure> {
        match self {
            Self::Sled(_) | Self::Redis(_) => Ok(false),
            Self::Postgres(url) => {
                let migrated = self.connect(url).await?.migrate().await;
                migrated.map_err(|error| {
                    Failure::from_error(format!("can't migrate {self}"), &error)
                })?;
                Ok(true)
            }
        }
    }

    /// Repairs the index of the store. `None` if the store has no index to repair.
    pub(crate) async fn repair(&self) -> Result<Option<Repaired>, Failure> {
        match self {
            Self::Sled(_) | Self::Postgres(_) => Ok(None),
            Self::Redis(url) => {
                let repaired = self.connect_redis(url).await?.repair().await;
                repaired
                    .map(Some)
                    .map_err(|error| Failure::from_error(format!("can't repair {self}"), &error))
            }
        }
    }

    async fn connect_redis(&self, url: &str) -> Result<RedisStore, Failure> {
        let mut config = passkit_store_redis::Config::new();
        if let Some(prefix) = setting("PASSKIT_REDIS_PREFIX")? {
            config = config.prefix(prefix);
        }
        if let Some(replicas) = setting("PASSKIT_REDIS_MIN_REPLICAS")? {
            let replicas = replicas.parse().map_err(|_| {
                Failure::new(format!(
                    "PASSKIT_REDIS_MIN_REPLICAS must be a number of replicas, and is {replicas:?}"
                ))
            })?;
            config = config.min_replicas(replicas);
        }
        if let Some(pem) = file("PASSKIT_REDIS_CERT")? {
            config = config.client_certificate(pem);
        }
        if let Some(pem) = file("PASSKIT_REDIS_ROOT")? {
            config = config.root_certificates(pem);
        }
        RedisStore::connect(url, config)
            .await
            .map_err(|error| Failure::from_error(format!("can't use {self}"), &error))
    }

    async fn connect(&self, url: &str) -> Result<PostgresStore, Failure> {
        let pooler = setting("PASSKIT_POSTGRES_POOLER")?
            .is_some_and(|value| value != "0" && value != "false");
        PostgresStore::connect(url, Config::new().transaction_pooler(pooler))
            .await
            .map_err(|error| Failure::from_error(format!("can't connect to {self}"), &error))
    }

    /// The files and folders that the store consists of or that opening it reads, as far as they
    /// are on this machine. No command may overwrite them.
    pub(crate) fn files(&self) -> Result<Vec<PathBuf>, Failure> {
        match self {
            Self::Sled(path) => Ok(vec![path.clone()]),
            Self::Postgres(_) => Ok(Vec::new()),
            Self::Redis(_) => {
                let named = [
                    setting("PASSKIT_REDIS_CERT")?,
                    setting("PASSKIT_REDIS_ROOT")?,
                ];
                Ok(named.into_iter().flatten().map(PathBuf::from).collect())
            }
        }
    }

    /// The folder for the copies of `serve` if the store is a folder. It is on the same disk and
    /// under the same lock.
    pub(crate) fn companion_folder(&self) -> Option<PathBuf> {
        match self {
            Self::Sled(path) => Some(path.join("folder")),
            Self::Postgres(_) | Self::Redis(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_not_shown() {
        assert_eq!(
            without_password("postgres://u:secret@h:5432/d?password=secret"),
            "postgres://u@h:5432/d"
        );
        assert_eq!(without_password("postgres://h/d"), "postgres://h/d");
    }

    #[test]
    fn store_urls_are_read_or_explained() {
        assert_eq!("sled:./a b".parse(), Ok(StoreUrl::Sled("./a b".into())));
        for url in [
            "postgresql://h/d",
            "redis://h",
            "redis+cluster://h:1,h:2",
            "rediss+sentinel://h:1/m",
        ] {
            assert!(
                url.parse::<StoreUrl>()
                    .is_ok_and(|store| store.to_string() == url),
                "{url}"
            );
        }
        for wrong in ["sled:", "", "mysql://localhost", "./passkit-data"] {
            assert!(
                wrong
                    .parse::<StoreUrl>()
                    .unwrap_err()
                    .contains("sled:./passkit-data"),
                "{wrong}"
            );
        }
    }
}
