use std::{
    fs, io,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant, SystemTime},
};

use passkit_server::{
    Changed, PassId, PassState, async_trait,
    identifiers::{DeviceIdentifier, PushToken, TypeIdentifier},
    private_files,
    store::{
        Audience, Changes, Page, PageCursor, Published, Registered, RegisteredDevice,
        RegistrationStore, StoreError, UpdateTag, clock,
    },
};
use rusqlite::{Connection, Transaction, TransactionBehavior};

use crate::{
    backup::back_up,
    changes::{self, OwnedChange},
    config::Config,
    engine::{self, Engine, POLL},
    error::{SqliteError, is_busy},
    layout, network, registrations,
};

/// Older versions of SQLite can damage a database that several connections write to.
const OLDEST_SQLITE: i32 = 3_051_003;

/// A store in one SQLite file, for any number of processes on one machine.
///
/// Share it in an [`Arc`](std::sync::Arc). Dropping it finishes the waiting calls and ends its threads.
///
/// # Errors
/// If another program has locked the database, or the disk is full or fails, calls that write fail with a transient error.
/// Acknowledged changes are not lost.
#[derive(Debug)]
pub struct SqliteStore {
    pub(crate) engine: Engine,
    lock_timeout: Duration,
}

impl SqliteStore {
    /// Opens the store in this file. The call blocks its thread, and takes longer after a crash.
    ///
    /// # Errors
    /// * [`Configuration`](passkit_server::store::StoreErrorKind::Configuration) if there is no file or no store in it, or if the file
    ///   can't be read and written, is on a network file system, or has another version of the schema.
    /// * [`Corrupt`](passkit_server::store::StoreErrorKind::Corrupt) if the file is damaged or not a database.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, StoreError> {
        Self::open_with(&Config::new(path))
    }

    /// Opens the store in this file. If there is no file, or an empty one, the call makes the store first. Only the current
    /// user can read and write a new file.
    ///
    /// # Errors
    /// Same errors as [`open`](Self::open). It is also an error if the file has other tables. [`create_in`] adds a store to
    /// such a file.
    pub fn create(path: impl Into<PathBuf>) -> Result<Self, StoreError> {
        Self::open_with(&Config::new(path).create(true))
    }

    /// Opens the store with this configuration.
    ///
    /// # Errors
    /// Same errors as [`open`](Self::open).
    pub fn open_with(config: &Config) -> Result<Self, StoreError> {
        let config = &Config {
            lock_timeout: config.lock_timeout.min(LONGEST_TIMEOUT),
            ..config.clone()
        };
        if rusqlite::version_number() < OLDEST_SQLITE {
            return Err(SqliteError::configuration(format!(
                "this program uses SQLite {}, which may damage databases; build it with 3.51.3 or later",
                rusqlite::version()
            ))
            .into());
        }
        let path = find(&config.path, config.create)?;
        network::refuse(&path)?;
        let found = fs::metadata(&path).ok();
        match found.map(|found| found.len()) {
            None => create_file(&path)?,
            Some(0) if config.create => protect(&path)?,
            Some(_) => {}
        }
        let connection = engine::connect(&path, config.lock_timeout)?;
        prepare(&path, config, &connection)?;
        private_files::warn_of_readers(&path);
        // The writer waits for the lock by itself.
        connection
            .busy_timeout(Duration::ZERO)
            .map_err(|error| SqliteError::sqlite(&path, error))?;
        Ok(Self {
            engine: Engine::start(&path, config, connection)?,
            lock_timeout: config.lock_timeout,
        })
    }

    /// Copies the database into a new file while the store is in use. The copy has the state of one moment, and can be opened
    /// as a store. It is durable when this returns.
    ///
    /// # Errors
    /// [`Configuration`](passkit_server::store::StoreErrorKind::Configuration) if the file exists or can't be
    /// made, or if SQLite would take it for a part of another database. After an error, there is no file. If the process is
    /// killed, a file with the ending `.partial` is left.
    pub async fn backup(&self, path: impl Into<PathBuf>) -> Result<(), StoreError> {
        let (path, lock_timeout) = (path.into(), self.lock_timeout);
        let copied = self
            .engine
            .scan(move |connection| Ok(back_up(connection, &path, lock_timeout)))
            .await?;
        Ok(copied?)
    }
}

const LONGEST_TIMEOUT: Duration = Duration::from_secs(86_400);

/// Resolves symbolic links in the path of the database. The result is absolute, so SQLite can't mistake it for a URL.
fn find(path: &Path, create: bool) -> Result<PathBuf, SqliteError> {
    let failed = |error| SqliteError::io("open", path, error);
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => Err(SqliteError::configuration(format!(
            "{} is a folder; use the path of a file",
            path.display()
        ))),
        Err(error) if error.kind() == io::ErrorKind::NotFound && !create => {
            let text = format!(
                "there is no store {}; check the path, or create it first",
                path.display()
            );
            Err(SqliteError::configuration(text).caused_by(error))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let Some(name) = path.file_name() else {
                return Err(failed(error));
            };
            let folder = path
                .parent()
                .filter(|folder| !folder.as_os_str().is_empty());
            Ok(folder
                .unwrap_or(Path::new("."))
                .canonicalize()
                .map_err(failed)?
                .join(name))
        }
        _ => path.canonicalize().map_err(failed),
    }
}

/// Makes an empty file, unless another process makes it at the same time.
fn create_file(path: &Path) -> Result<(), SqliteError> {
    match private_files::create_empty(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(SqliteError::io("create", path, error))
        }
        _ => Ok(()),
    }
}

/// Removes the permissions of other users from an empty file that becomes a store.
fn protect(path: &Path) -> Result<(), SqliteError> {
    #[cfg(unix)]
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600))
        .map_err(|error| SqliteError::io("protect", path, error))?;
    Ok(())
}

/// Checks that the database contains a store of this version. Makes the store if it is new and `config` allows it.
fn prepare(path: &Path, config: &Config, connection: &Connection) -> Result<(), SqliteError> {
    let failed = |error| SqliteError::sqlite(path, error);
    let configuration = |text: &str| {
        Err(SqliteError::configuration(format!(
            "{} {text}",
            path.display()
        )))
    };
    let deadline = Instant::now() + config.lock_timeout;
    let has_store = |connection: &Connection| {
        // This is the first access to the file. Other processes may be opening it, or recovering it after a crash.
        wait(deadline, || {
            connection.query_row(layout::HAS_STORE, [], |row| row.get::<_, bool>(0))
        })
        .map_err(failed)
    };
    let is_new = !has_store(connection)?;
    if is_new && !config.create {
        return configuration("contains no store; check the path, or create the store first");
    }
    if is_new && tables(connection).map_err(failed)?.0 > 0 && !has_store(connection)? {
        return configuration("contains a database of another program; use another file");
    }
    let mode: String = wait(deadline, || {
        connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))
    })
    .map_err(failed)?;
    if mode != "wal" {
        return configuration("is on a file system without shared memory; move it to a local disk");
    }
    if is_new {
        wait(deadline, || {
            let transaction =
                Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
            if !transaction.query_row(layout::HAS_STORE, [], |row| row.get(0))? {
                make_store(&transaction)?;
            }
            transaction.commit()
        })
        .map_err(failed)?;
    }
    let version = wait(deadline, || upgrade(connection)).map_err(failed)?;
    if version != layout::VERSION {
        return configuration(&format!(
            "was written by another version of passkit (schema {version}, this one knows {}); use that version",
            layout::VERSION
        ));
    }
    Ok(())
}

/// Adds what this version needs to a store of an older version. Processes of the older version can still use the store until
/// they end. Returns the version of the schema.
fn upgrade(connection: &Connection) -> rusqlite::Result<i64> {
    let version = |connection: &Connection| {
        connection.query_row(layout::SCHEMA_VERSION, [], |row| row.get(0))
    };
    let is_older = |version| (1..layout::VERSION).contains(&version);
    if is_older(version(connection)?) {
        let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
        let before = version(&transaction)?;
        if is_older(before) {
            run_upgrades(&transaction, before)?;
            transaction.execute(layout::SET_SCHEMA_VERSION, [layout::VERSION])?;
        }
        transaction.commit()?;
    }
    version(connection)
}

/// Makes the current schema from the schema of this version.
fn run_upgrades(connection: &Connection, version: i64) -> rusqlite::Result<()> {
    let mut newer = layout::UPGRADES.iter().filter(|(to, _)| *to > version);
    newer.try_for_each(|(_, statements)| connection.execute_batch(statements))
}

/// Repeats a call while another connection has locked the database. SQLite itself does not wait in all cases.
fn wait<T>(
    deadline: Instant,
    mut call: impl FnMut() -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    loop {
        match call() {
            Err(error) if is_busy(&error) && Instant::now() < deadline => thread::sleep(POLL),
            done => return done,
        }
    }
}

/// Returns the number of tables and views, and how many of them have names that a store needs.
fn tables(connection: &Connection) -> rusqlite::Result<(i64, i64)> {
    connection.query_row(layout::TABLES, [], |row| Ok((row.get(0)?, row.get(1)?)))
}

fn make_store(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(layout::SCHEMA)?;
    run_upgrades(connection, 1)?;
    let created = layout::integer(clock::now_micros() / 1_000_000);
    connection
        .execute(layout::MAKE_STORE, [layout::VERSION, created])
        .map(drop)
}

/// Adds a store to your own database, in your own transaction. After the commit, [`SqliteStore::open`] opens the store and
/// switches the database to write-ahead logging.
///
/// # Errors
/// [`Configuration`](passkit_server::store::StoreErrorKind::Configuration) if the database has a table or view named `passes`, `devices`,
/// `registrations`, `pending_pushes`, `delivery_records`, or with a name that starts with `passkit_`.
pub fn create_in(transaction: &Transaction<'_>) -> Result<(), StoreError> {
    let path = PathBuf::from(transaction.path().unwrap_or_default());
    let failed = |error| SqliteError::sqlite(&path, error);
    if tables(transaction).map_err(failed)?.1 > 0 {
        let text = "already has a store, or a table with a name that a store needs";
        return Err(SqliteError::configuration(format!("{} {text}", path.display())).into());
    }
    make_store(transaction).map_err(failed)?;
    Ok(())
}

#[async_trait]
impl RegistrationStore for SqliteStore {
    async fn register(
        &self,
        device: &DeviceIdentifier,
        pass: &PassId,
        push_token: &PushToken,
    ) -> Result<Registered, StoreError> {
        let (device, pass, push_token) = (device.clone(), pass.clone(), push_token.clone());
        self.engine
            .write(move |connection| {
                registrations::register(connection, &device, &pass, &push_token)
            })
            .await
    }

    async fn unregister(
        &self,
        device: &DeviceIdentifier,
        pass: &PassId,
    ) -> Result<bool, StoreError> {
        let (device, pass) = (device.clone(), pass.clone());
        self.engine
            .write(move |connection| registrations::unregister(connection, &device, &pass))
            .await
    }

    async fn changes_since(
        &self,
        device: &DeviceIdentifier,
        type_id: &TypeIdentifier,
        since: Option<UpdateTag>,
    ) -> Result<Changes, StoreError> {
        let (device, type_id) = (device.clone(), type_id.clone());
        self.engine
            .read(move |connection| changes::changes_since(connection, &device, &type_id, since))
            .await
    }

    async fn pass_state(&self, pass: &PassId) -> Result<PassState, StoreError> {
        let pass = pass.clone();
        self.engine
            .read(move |connection| changes::pass_state(connection, &pass))
            .await
    }

    async fn mark(&self, type_id: &TypeIdentifier, changed: Changed<'_>) -> Result<(), StoreError> {
        let Some(changed) = OwnedChange::new(changed) else {
            return Ok(());
        };
        let type_id = type_id.clone();
        self.engine
            .write(move |connection| {
                changes::mark(connection, &type_id, changed.borrowed()).map(drop)
            })
            .await
    }

    async fn published(&self, passes: &[PassId]) -> Result<Vec<Option<Published>>, StoreError> {
        let passes = passes.to_vec();
        self.engine
            .read(move |connection| changes::published(connection, &passes))
            .await
    }

    async fn devices(
        &self,
        audience: Audience<'_>,
        after: Option<&PageCursor>,
        limit: usize,
    ) -> Result<Page<RegisteredDevice>, StoreError> {
        let after = after.cloned();
        match audience {
            Audience::Pass(pass) => {
                let pass = pass.clone();
                self.engine
                    .scan(move |connection| {
                        registrations::devices_of_pass(connection, &pass, after.as_ref(), limit)
                    })
                    .await
            }
            Audience::Type(type_id) => {
                let type_id = type_id.clone();
                self.engine
                    .scan(move |connection| {
                        registrations::devices_of_type(connection, &type_id, after.as_ref(), limit)
                    })
                    .await
            }
        }
    }

    async fn count_devices(&self, pass: &PassId, at_most: u64) -> Result<u64, StoreError> {
        let pass = pass.clone();
        self.engine
            .read(move |connection| registrations::count_devices(connection, &pass, at_most))
            .await
    }

    async fn forget_device(
        &self,
        device: &DeviceIdentifier,
        unregistered_at: SystemTime,
    ) -> Result<bool, StoreError> {
        let (device, unregistered_at) = (device.clone(), clock::micros(unregistered_at));
        self.engine
            .write(move |connection| {
                registrations::forget_device(connection, &device, unregistered_at)
            })
            .await
    }
}
