//! The stores that `--store` can name.

use std::{
    error::Error as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use passkit_identity::pem;
use passkit_server::{
    delivery::DeliveryLog,
    maintenance::StoreMaintenance,
    metrics::Measured,
    push::PushQueue,
    store::{ArchiveStore, StoreError, StoreErrorKind},
};
use passkit_store_postgres::{Config, PostgresStore};
use passkit_store_redis::{RedisStore, Repaired};
use passkit_store_sled::SledStore;
use passkit_store_sqlite::SqliteStore;

use crate::failure::{Chain, Failure};
pub(crate) use crate::store_url::StoreUrl;

/// Everything that the program needs from a store.
pub(crate) trait Store: PushQueue + StoreMaintenance + DeliveryLog {}

impl<T: PushQueue + StoreMaintenance + DeliveryLog> Store for T {}

/// A store that is ready.
#[derive(Clone)]
pub(crate) struct OpenStore {
    pub(crate) store: Arc<dyn Store>,
    /// The same store. `None` if it does not keep archives.
    pub(crate) archives: Option<Arc<dyn ArchiveStore>>,
    /// Whether other processes may use it at the same time.
    pub(crate) shared: bool,
}

impl OpenStore {
    /// Wraps the store, so that `--metrics` counts every call of the program.
    fn new(store: impl Store + 'static, shared: bool) -> Self {
        Self {
            store: Arc::new(Measured::new(store)),
            archives: None,
            shared,
        }
    }

    /// Wraps a store that keeps archives.
    fn with_archives(store: impl Store + ArchiveStore + 'static) -> Self {
        let store = Arc::new(Measured::new(store));
        Self {
            store: store.clone(),
            archives: Some(store),
            shared: true,
        }
    }
}

/// The store of every command, unless the user names another one.
pub(crate) const DEFAULT: &str = "sqlite:./passkit.db";

/// Reads a setting of a store from the environment. Few users need these, so they are not options.
fn setting(name: &str) -> Result<Option<String>, Failure> {
    match std::env::var(name) {
        Ok(value) if value.is_empty() => Ok(None),
        Ok(value) => Ok(Some(value)),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(error) => Err(Failure::from_error(name, &error)),
    }
}

/// Reads the file that an environment variable names.
fn file(name: &str) -> Result<Option<Vec<u8>>, Failure> {
    let Some(path) = setting(name)? else {
        return Ok(None);
    };
    let read = pem::read_file(path.as_ref());
    let shown = pem::shown(path.as_ref());
    read.map(|text| Some(pem::tidy(&text)))
        .map_err(|error| Failure::from_error(format!("{name}={shown}"), &error))
}

impl StoreUrl {
    /// Opens a store that exists.
    pub(crate) async fn open(&self) -> Result<OpenStore, Failure> {
        self.check_there()?;
        self.open_with(false).await
    }

    /// Fails if the store should be a file or a folder and does not exist.
    fn check_there(&self) -> Result<(), Failure> {
        match self {
            Self::Sqlite(path) | Self::Sled(path) if !path.exists() => Err(Failure::new(format!(
                "there is no store {self}; name the one that `passkit serve` uses, with --store, or make one with \
                 `passkit serve` or `passkit import`"
            ))),
            _ => Ok(()),
        }
    }

    /// Opens the store. If it is a file or a folder that does not exist, makes it first.
    pub(crate) async fn open_or_create(&self) -> Result<OpenStore, Failure> {
        self.open_with(true).await
    }

    async fn open_with(&self, create: bool) -> Result<OpenStore, Failure> {
        match self {
            Self::Sqlite(path) => Ok(OpenStore::with_archives(open_sqlite(path, create).await?)),
            Self::Sled(path) => {
                let config = passkit_store_sled::Config::new(path).create(create);
                let store = blocking(move || SledStore::open_with(&config)).await?;
                Ok(OpenStore::new(store, false))
            }
            Self::Postgres(url) => {
                let store = self.connect(url).await?;
                store
                    .check()
                    .await
                    .map_err(|error| self.cannot("use", &error))?;
                Ok(OpenStore::with_archives(store))
            }
            Self::Redis(url) => Ok(OpenStore::new(self.connect_redis(url).await?, true)),
        }
    }

    /// Opens the store for the operator's page, with a few separate connections, so that the page never takes a connection
    /// from phones. A store that only one handle can open is shared.
    pub(crate) async fn open_for_page(&self, opened: &OpenStore) -> Result<OpenStore, Failure> {
        match self {
            Self::Sled(_) => Ok(opened.clone()),
            Self::Sqlite(path) => {
                let config = passkit_store_sqlite::Config::new(path).readers(PAGE_CONNECTIONS);
                let store = blocking(move || SqliteStore::open_with(&config)).await?;
                Ok(OpenStore::with_archives(store))
            }
            Self::Postgres(url) => {
                let config = postgres_config()?.connections(PAGE_CONNECTIONS as u32);
                let store = PostgresStore::connect(url, config).await;
                let store = store.map_err(|error| self.cannot("connect to", &error))?;
                Ok(OpenStore::with_archives(store))
            }
            Self::Redis(url) => Ok(OpenStore::new(self.connect_redis(url).await?, true)),
        }
    }

    /// Makes or updates the tables of the store. Returns `false` if the store needs no tables.
    pub(crate) async fn migrate(&self) -> Result<bool, Failure> {
        match self {
            Self::Sqlite(_) | Self::Sled(_) | Self::Redis(_) => Ok(false),
            Self::Postgres(url) => {
                let migrated = self.connect(url).await?.migrate().await;
                migrated.map_err(|error| self.cannot("migrate", &error))?;
                Ok(true)
            }
        }
    }

    /// Repairs the index of the store. Returns `None` if the store has no such index.
    pub(crate) async fn repair(&self) -> Result<Option<Repaired>, Failure> {
        match self {
            Self::Sqlite(_) | Self::Sled(_) | Self::Postgres(_) => Ok(None),
            Self::Redis(url) => {
                let repaired = self.connect_redis(url).await?.repair().await;
                repaired
                    .map(Some)
                    .map_err(|error| self.cannot("repair", &error))
            }
        }
    }

    fn cannot(&self, what: &str, error: &StoreError) -> Failure {
        let why = self.hide_login(&Chain(error).to_string());
        Failure::new(format!("can't {what} {self}: {why}"))
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
            .map_err(|error| self.cannot("use", &error))
    }

    async fn connect(&self, url: &str) -> Result<PostgresStore, Failure> {
        PostgresStore::connect(url, postgres_config()?)
            .await
            .map_err(|error| self.cannot("connect to", &error))
    }

    /// Returns the files and folders on this machine that make up the store, and the files that the
    /// store reads when it is opened. No command may overwrite them.
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

    /// Returns the folder for the copies of `serve` if the store is a folder. It is on the same
    /// disk and under the same lock.
    pub(crate) fn companion_folder(&self) -> Option<PathBuf> {
        match self {
            Self::Sled(path) => Some(path.join("folder")),
            Self::Sqlite(_) | Self::Postgres(_) | Self::Redis(_) => None,
        }
    }

    /// Returns whether both URLs name the same store. This does not notice that two different URLs
    /// name the same database.
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
                // Only the cause is shown. The text of the error itself blames the store, but the
                // problem is with the copy.
                return copied.map_err(|error| {
                    let cause = error.source().unwrap_or(&error);
                    Failure::from_error("can't make the backup", cause)
                });
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

/// How many connections the operator's page has.
const PAGE_CONNECTIONS: usize = 2;

fn postgres_config() -> Result<Config, Failure> {
    let pooler =
        setting("PASSKIT_POSTGRES_POOLER")?.is_some_and(|value| value != "0" && value != "false");
    Ok(Config::new().transaction_pooler(pooler))
}

/// The name of the note with the edition of a store, which is a random text. If the edition
/// changes, instances publish all their files again. `passkit restored` changes it.
const EDITION: &str = "passkit-edition";

/// Returns the edition of the store. Makes one if the store is new.
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

/// Makes a cheap call, to see whether the store answers.
pub(crate) async fn check_answers(store: &dyn Store) -> Result<(), StoreError> {
    store.note(EDITION).await.map(drop)
}

/// Gives the store a new edition.
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

/// The name of a note that a store has until `passkit copy` or `passkit restored` is complete. The
/// note contains the name of the command and a random text.
const UNFINISHED: &str = "passkit-unfinished";

/// A command that changes a store. The store must not be served until the command is complete.
pub(crate) struct Unfinished {
    note: String,
    before: Option<String>,
}

impl Unfinished {
    /// Writes the note. Replaces the note of an earlier command that was interrupted.
    pub(crate) async fn begin(store: &dyn Store, command: &str) -> Result<Self, StoreError> {
        let note = format!("{command} {}", random_text()?);
        loop {
            let before = store.note(UNFINISHED).await?;
            if store
                .replace_note(UNFINISHED, before.as_deref(), Some(&note))
                .await?
            {
                return Ok(Self { note, before });
            }
        }
    }

    /// Returns whether this store has the note. If so, it is the store to which the note was
    /// written.
    pub(crate) async fn is_in(&self, store: &dyn Store) -> Result<bool, StoreError> {
        Ok(store.note(UNFINISHED).await?.as_ref() == Some(&self.note))
    }

    /// Puts the earlier note back. Call this if the command ends before it changes anything else in the store.
    pub(crate) async fn undo(&self, store: &dyn Store) -> Result<(), StoreError> {
        let before = self.before.as_deref();
        store
            .replace_note(UNFINISHED, Some(&self.note), before)
            .await
            .map(drop)
    }

    /// Removes the note, unless another command has replaced it.
    pub(crate) async fn finish(&self, store: &dyn Store) -> Result<(), StoreError> {
        store
            .replace_note(UNFINISHED, Some(&self.note), None)
            .await
            .map(drop)
    }
}

/// Fails if a command that fills or marks the store was interrupted.
pub(crate) async fn check_finished(store: &dyn Store, url: &StoreUrl) -> Result<(), Failure> {
    let note = store
        .note(UNFINISHED)
        .await
        .map_err(|error| Failure::from_error(format!("can't use {url}"), &error))?;
    let Some(note) = note else { return Ok(()) };
    let command = note.split(' ').next().unwrap_or_default();
    Err(Failure::new(format!(
        "{url} is not complete, because `passkit {command}` was interrupted or still runs; run it again (or, to serve what \
         is there, `passkit restored`)"
    )))
}

/// Returns a random text that occurs nowhere else.
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

/// Returns an identity that no other file or folder has. It is the same for every path that leads
/// to the file.
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
