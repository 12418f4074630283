//! The stores that `--store` can name.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
};

use passkit_identity::pem;
use passkit_server::{
    maintenance::StoreMaintenance,
    metrics::Measured,
    push::PushQueue,
    store::{StoreError, StoreErrorKind},
    text::OneLine,
};
use passkit_store_postgres::{Config, PostgresStore};
use passkit_store_redis::{RedisStore, Repaired};
use passkit_store_sled::SledStore;
use passkit_store_sqlite::SqliteStore;

use crate::failure::Failure;

/// A store, as written on the command line. Neither `Display` nor `Debug` shows a password.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum StoreUrl {
    /// `sqlite:FILE`
    Sqlite(PathBuf),
    /// `sled:FOLDER`
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

/// The store of every command, unless another one is named.
pub(crate) const DEFAULT: &str = "sqlite:./passkit.db";

const FORMS: &str = "sqlite:FILE, as in sqlite:./passkit.db, sled:FOLDER, postgres://USER:PASSWORD@HOST/DATABASE, \
                     redis://HOST:PORT, redis+cluster://HOST:PORT,HOST:PORT or redis+sentinel://HOST:PORT/MASTER";

impl FromStr for StoreUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text.split_once(':').unwrap_or_default();
        match scheme {
            "sqlite" if rest.is_empty() => {
                Err("sqlite: needs a file, as in sqlite:./passkit.db".into())
            }
            "sqlite" => Ok(Self::Sqlite(rest.into())),
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
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Self::Sled(path) => write!(f, "sled:{}", path.display()),
            Self::Postgres(url) | Self::Redis(url) => OneLine::url(url).fmt(f),
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
    let read = pem::read_file(path.as_ref());
    let shown = pem::shown(path.as_ref());
    read.map(|text| Some(pem::tidy(&text)))
        .map_err(|error| Failure::from_error(format!("{name}={shown}"), &error))
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl StoreUrl {
    /// Opens a store that exists.
    pub(crate) async fn open(&self) -> Result<OpenStore, Failure> {
        self.check_there()?;
        self.open_with(false).await
    }

    /// Fails if the store should be a file or a folder and is not there.
    fn check_there(&self) -> Result<(), Failure> {
        match self {
            Self::Sqlite(path) | Self::Sled(path) if !path.exists() => Err(Failure::new(format!(
                "there is no store {self}; name the one that `passkit serve` uses, with --store, or make one with \
                 `passkit serve` or `passkit import`"
            ))),
            _ => Ok(()),
        }
    }

    /// Opens the store. Makes it first if it is a file or a folder that does not exist.
    pub(crate) async fn open_or_create(&self) -> Result<OpenStore, Failure> {
        self.open_with(true).await
    }

    async fn open_with(&self, create: bool) -> Result<OpenStore, Failure> {
        match self {
            Self::Sqlite(path) => Ok(OpenStore::new(open_sqlite(path, create).await?, true)),
            Self::Sled(path) => {
                let path = path.clone();
                let store = blocking(move || SledStore::open(path)).await?;
                Ok(OpenStore::new(store, false))
            }
            Self::Postgres(url) => {
                let store = self.connect(url).await?;
                store
                    .check()
                    .await
                    .map_err(|error| Failure::from_error(format!("can't use {self}"), &error))?;
                Ok(OpenStore::new(store, true))
            }
            Self::Redis(url) => Ok(OpenStore::new(self.connect_redis(url).await?, true)),
        }
    }

    /// Makes or updates the tables of the store. Returns `false` if it needs none.
    pub(crate) async fn migrate(&self) -> Result<bool, Failure> {
        match self {
            Self::Sqlite(_) | Self::Sled(_) | Self::Redis(_) => Ok(false),
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
            Self::Sqlite(_) | Self::Sled(_) | Self::Postgres(_) => Ok(None),
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
            Self::Sqlite(path) => Ok(["", "-wal", "-shm", "-journal"]
                .map(|end| {
                    let mut name = path.clone().into_os_string();
                    name.push(end);
                    PathBuf::from(name)
                })
                .into()),
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
            Self::Sqlite(_) | Self::Postgres(_) | Self::Redis(_) => None,
        }
    }

    /// Whether both name one place. Two URLs of one database may differ.
    pub(crate) fn is_same_place(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Sqlite(one), Self::Sqlite(other)) | (Self::Sled(one), Self::Sled(other)) => {
                one == other || identity(one).is_some_and(|one| Some(one) == identity(other))
            }
            _ => self == other,
        }
    }

    /// Copies the store into a new file while it is in use.
    pub(crate) async fn back_up(&self, to: &Path) -> Result<(), Failure> {
        let how = match self {
            Self::Sqlite(path) => {
                self.check_there()?;
                let copied = open_sqlite(path, false).await?.backup(to).await;
                return copied
                    .map_err(|error| Failure::from_error("can't make the backup", &error));
            }
            Self::Sled(path) => format!("stop the service, and copy the folder {}", path.display()),
            Self::Postgres(_) => "use pg_dump, or the backups of your database server".into(),
            Self::Redis(_) => {
                "copy the files of the server, which its command BGSAVE or BGREWRITEAOF writes"
                    .into()
            }
        };
        Err(Failure::new(format!(
            "this command backs up sqlite: stores only; for {self}, {how}"
        )))
    }
}

/// The note that names the state of a store. `passkit restored` changes it.
const EDITION: &str = "passkit-edition";

/// The name of the store's state, which is new in every new store.
pub(crate) async fn edition(store: &dyn Store) -> Result<String, StoreError> {
    loop {
        if let Some(edition) = store.note(EDITION).await? {
            return Ok(edition);
        }
        store
            .replace_note(EDITION, None, Some(&random_text()?))
            .await?;
    }
}

/// Gives the store's state a new name.
pub(crate) async fn renew_edition(store: &dyn Store) -> Result<(), StoreError> {
    loop {
        let before = store.note(EDITION).await?;
        let new = random_text()?;
        if store
            .replace_note(EDITION, before.as_deref(), Some(&new))
            .await?
        {
            return Ok(());
        }
    }
}

/// A text that nobody else has.
pub(crate) fn random_text() -> Result<String, StoreError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| StoreError::new(StoreErrorKind::Other, error))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

async fn open_sqlite(path: &Path, create: bool) -> Result<SqliteStore, Failure> {
    let config = passkit_store_sqlite::Config::new(path).create(create);
    blocking(move || SqliteStore::open_with(&config)).await
}

/// Opens a store on a thread that may block.
async fn blocking<T: Send + 'static>(
    open: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, Failure> {
    let cannot = |error: &dyn std::error::Error| Failure::from_error("can't open the store", error);
    tokio::task::spawn_blocking(open)
        .await
        .map_err(|error| cannot(&error))?
        .map_err(|error| cannot(&error))
}

/// What tells a file or folder apart from all others, whatever its path.
fn identity(path: &Path) -> Option<impl PartialEq> {
    let metadata = std::fs::metadata(path).ok()?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        Some((metadata.dev(), metadata.ino()))
    }
    #[cfg(not(unix))]
    {
        drop(metadata);
        path.canonicalize().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_not_shown() {
        let url = "postgres://u:se/c?r#et@h:5432/d?password=secret";
        let store: StoreUrl = url.parse().unwrap();
        assert_eq!(
            format!("{store} {store:?}"),
            "postgres://h:5432/d postgres://h:5432/d"
        );
    }

    #[test]
    fn store_urls_are_read_or_explained() {
        assert_eq!("sled:./a b".parse(), Ok(StoreUrl::Sled("./a b".into())));
        assert_eq!(DEFAULT.parse(), Ok(StoreUrl::Sqlite("./passkit.db".into())));
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
        for wrong in ["sqlite:", "", "mysql://localhost", "./passkit-data"] {
            assert!(
                wrong
                    .parse::<StoreUrl>()
                    .unwrap_err()
                    .contains("sqlite:./passkit.db"),
                "{wrong}"
            );
        }
    }
}
