//! The database with the copies of the archives. It remembers what is served: a copy of each
//! archive, and what is known about the pass.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use passkit_server::{PassId, identifiers::TokenDigest, private_files, service::Prefix};
use rusqlite::{Connection, ErrorCode, OptionalExtension as _, Transaction, params};
use sha2::{Digest as _, Sha256};

use crate::{FolderError, files::Stamp, listed::Listed, readers::Readers};

/// `stamp` is six numbers of 8 bytes, `tokens` are 32 bytes each, and `digest` is the SHA-256 of
/// the archive as it was written.
const SCHEMA: &str = "
create table if not exists pass (
    type text not null,
    serial text not null,
    path text not null,
    stamp blob not null,
    content blob not null,
    tokens blob not null,
    withdrawn integer not null,
    unmarked integer not null,
    misdated integer not null,
    prefix text,
    primary key (type, serial)
) strict, without rowid;
create table if not exists archive (
    type text not null,
    serial text not null,
    digest blob not null,
    bytes blob not null,
    primary key (type, serial)
) strict;
create table if not exists setting (
    name text not null primary key,
    value text not null
) strict, without rowid;";

const ALLOW_UNSIGNED: &str = "allow-unsigned";
const EDITION: &str = "edition";

/// The size of the page caches in KiB: for writing, and for each connection that reads.
const WRITER_CACHE: i64 = 4 * 1024;
const READER_CACHE: i64 = 512;
/// The maximum number of connections that are kept open for reading.
const READERS: usize = 8;

const DATABASE: &str = "catalog.db";
/// A file of this name means that the database can't be repaired.
const DAMAGED: &str = "damaged";

/// Why the catalog can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CatalogError {
    #[error("another process uses it")]
    InUse,
    /// A copy differs from what was written.
    #[error("the copy of the archive is damaged")]
    Damaged,
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Database(#[from] rusqlite::Error),
    #[error("reading the copy ended early")]
    Stopped(#[from] tokio::task::JoinError),
}

impl CatalogError {
    fn is_damage(&self) -> bool {
        let code = match self {
            Self::Database(error) => error.sqlite_error_code(),
            _ => None,
        };
        matches!(self, Self::Damaged)
            || matches!(
                code,
                Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
            )
    }
}

pub(crate) struct Catalog {
    folder: PathBuf,
    writer: Mutex<Connection>,
    readers: Mutex<Vec<Connection>>,
    being_sent: Readers,
    /// Holds the lock that keeps other processes away.
    _lock: File,
}

/// A pass in the catalog.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) pass: PassId,
    pub(crate) listed: Listed,
    pub(crate) stamp: Stamp,
}

/// What to do with the archive of a pass when its row is written.
pub(crate) enum Copy {
    Put(Bytes),
    Keep,
    Remove,
}

/// How many processes can keep their catalogs in numbered folders next to each other.
const NEIGHBOURS: u32 = 64;

impl Catalog {
    /// Opens the catalog in `folder`, or makes it. If another process uses it and `next_free` is
    /// set, tries the same name with a number at its end. Also returns the folder that it opened.
    pub(crate) fn open_free(
        folder: &Path,
        next_free: bool,
    ) -> Result<(Self, PathBuf), FolderError> {
        let last = if next_free { NEIGHBOURS } else { 1 };
        let mut number = 1;
        loop {
            let mut path = folder.as_os_str().to_owned();
            if number > 1 {
                path.push(format!("-{number}"));
            }
            let path = PathBuf::from(path);
            match Self::open(&path) {
                Ok(catalog) => return Ok((catalog, path)),
                Err(CatalogError::InUse) if number < last => number += 1,
                Err(error) => {
                    return Err(FolderError::Copies {
                        path,
                        source: error.into(),
                    });
                }
            }
        }
    }

    /// Opens the catalog in `folder`, or makes it. A damaged database is renamed, because
    /// everything in it can be made again from the files.
    fn open(folder: &Path) -> Result<Self, CatalogError> {
        private_files::create_folder(folder)?;
        let lock = private_files::open(&folder.join("lock"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(CatalogError::InUse),
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        let mark = folder.join(DAMAGED);
        let opened = if mark.exists() {
            Err(CatalogError::Damaged)
        } else {
            open_database(folder)
        };
        let writer = match opened {
            Err(error) if error.is_damage() => {
                tracing::error!(
                    "{}: the copies are damaged, and are made again from the files",
                    folder.display()
                );
                put_aside(folder)?;
                open_database(folder)?
            }
            opened => opened?,
        };
        Ok(Self {
            folder: folder.to_owned(),
            writer: Mutex::new(writer),
            readers: Mutex::default(),
            being_sent: Readers::default(),
            _lock: lock,
        })
    }

    /// Shows every row, type by type.
    pub(crate) fn rows(&self, mut show: impl FnMut(Row)) -> Result<(), CatalogError> {
        self.read(|connection| {
            let mut statement = connection.prepare(
                "select type, serial, path, stamp, content, tokens, withdrawn, unmarked, misdated, prefix from pass \
                 order by type, serial",
            )?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                if let Some(row) = to_row(row)? {
                    show(row);
                }
            }
            Ok(())
        })
    }

    /// Returns whether unsigned archives were allowed when the catalog was filled.
    pub(crate) fn allowed_unsigned(&self) -> Result<bool, CatalogError> {
        Ok(self
            .setting(ALLOW_UNSIGNED)?
            .is_some_and(|value| value == "1"))
    }

    /// Returns the edition of the store that everything in the catalog was published to.
    pub(crate) fn edition(&self) -> Result<Option<String>, CatalogError> {
        self.setting(EDITION)
    }

    fn setting(&self, name: &str) -> Result<Option<String>, CatalogError> {
        self.read(|connection| {
            let mut statement =
                connection.prepare_cached("select value from setting where name = ?1")?;
            Ok(statement.query_row([name], |row| row.get(0)).optional()?)
        })
    }

    /// Writes rows and archives in one commit. It is on disk when this returns.
    pub(crate) fn put<'a>(
        &self,
        rows: impl IntoIterator<Item = (&'a Row, Copy)>,
    ) -> Result<(), CatalogError> {
        let mut replaced = Vec::new();
        let written = self.write(true, |transaction| {
            let mut put_archive = transaction.prepare_cached(
                "insert or replace into archive (type, serial, digest, bytes) values (?1, ?2, ?3, ?4)",
            )?;
            let mut remove_archive = transaction
                .prepare_cached("delete from archive where type = ?1 and serial = ?2")?;
            for (row, copy) in rows {
                let (type_id, serial) = (row.pass.type_id.as_str(), row.pass.serial.as_str());
                if !matches!(copy, Copy::Keep) {
                    replaced.push(row.pass.clone());
                }
                match copy {
                    Copy::Put(bytes) => {
                        let digest = &Sha256::digest(&bytes)[..];
                        put_archive.execute(params![type_id, serial, digest, &bytes[..]])?;
                    }
                    Copy::Keep => {}
                    Copy::Remove => {
                        remove_archive.execute([type_id, serial])?;
                    }
                }
                put_row(transaction, row)?;
            }
            Ok(())
        });
        self.being_sent.forget(&replaced);
        written
    }

    /// Remembers that the store has the last change of `passes`. The commit is not synced. It
    /// becomes durable with the next synced commit. After a crash before that, the passes are
    /// published again.
    pub(crate) fn set_marked(&self, passes: &[PassId]) -> Result<(), CatalogError> {
        self.write(false, |transaction| {
            // Does the same as `Listed::set_marked`.
            let mut statement = transaction.prepare_cached(
                "update pass set unmarked = 0, misdated = 0 where type = ?1 and serial = ?2",
            )?;
            for pass in passes {
                statement.execute([pass.type_id.as_str(), pass.serial.as_str()])?;
            }
            Ok(())
        })
    }

    /// Remembers that phones may have a copy of `pass` with the `Last-Modified` of other content. This is on
    /// disk when the call returns.
    pub(crate) fn set_misdated(&self, pass: &PassId) -> Result<(), CatalogError> {
        self.write(true, |transaction| {
            transaction.execute(
                "update pass set misdated = 1 where type = ?1 and serial = ?2",
                [pass.type_id.as_str(), pass.serial.as_str()],
            )?;
            Ok(())
        })
    }

    /// Removes everything about these passes.
    pub(crate) fn forget(&self, passes: &[PassId]) -> Result<(), CatalogError> {
        self.write(true, |transaction| {
            for table in ["pass", "archive"] {
                let text = format!("delete from {table} where type = ?1 and serial = ?2");
                let mut statement = transaction.prepare_cached(&text)?;
                for pass in passes {
                    statement.execute([pass.type_id.as_str(), pass.serial.as_str()])?;
                }
            }
            Ok(())
        })
    }

    /// Remembers with which rules everything in the catalog was checked.
    pub(crate) fn remember_rules(&self, allow_unsigned: bool) -> Result<(), CatalogError> {
        let value = if allow_unsigned { "1" } else { "0" };
        self.write(true, |transaction| set(transaction, ALLOW_UNSIGNED, value))
    }

    /// Remembers the edition of the store, and that everything in the catalog has to be published
    /// to it.
    pub(crate) fn begin_edition(&self, edition: &str) -> Result<(), CatalogError> {
        self.write(true, |transaction| {
            transaction.execute("update pass set unmarked = 1", [])?;
            set(transaction, EDITION, edition)
        })
    }

    /// Reads the archive of a pass from disk.
    ///
    /// Fails with [`CatalogError::Damaged`] if the archive differs from what was written.
    pub(crate) fn archive(&self, pass: &PassId) -> Result<Option<Bytes>, CatalogError> {
        let read = self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "select digest, bytes from archive where type = ?1 and serial = ?2",
            )?;
            let copy = statement
                .query_row([pass.type_id.as_str(), pass.serial.as_str()], |row| {
                    Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, Vec<u8>>(1)?))
                })
                .optional()?;
            let Some((digest, bytes)) = copy else {
                return Ok(None);
            };
            if Sha256::digest(&bytes)[..] != digest {
                return Err(CatalogError::Damaged);
            }
            Ok(Some(Bytes::from(bytes)))
        });
        match read {
            Err(error) if error.is_damage() => Err(CatalogError::Damaged),
            read => read,
        }
    }

    /// Returns the archive of a pass. All current readers of the archive share one copy in memory.
    pub(crate) async fn shared_archive(
        self: &Arc<Self>,
        pass: &PassId,
    ) -> Result<Option<Bytes>, CatalogError> {
        let read = async || {
            let (catalog, pass) = (self.clone(), pass.clone());
            tokio::task::spawn_blocking(move || catalog.archive(&pass)).await?
        };
        self.being_sent.get(pass, read).await
    }

    /// Returns the size in bytes of the archive of a pass.
    pub(crate) fn archive_length(&self, pass: &PassId) -> Result<Option<u64>, CatalogError> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "select length(bytes) from archive where type = ?1 and serial = ?2",
            )?;
            let length = statement
                .query_row([pass.type_id.as_str(), pass.serial.as_str()], |row| {
                    row.get::<_, i64>(0)
                })
                .optional()?;
            Ok(length.and_then(|length| u64::try_from(length).ok()))
        })
    }

    fn read<T>(
        &self,
        question: impl FnOnce(&Connection) -> Result<T, CatalogError>,
    ) -> Result<T, CatalogError> {
        let idle = lock(&self.readers).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => connect(&self.folder, READER_CACHE)?,
        };
        let answer = question(&connection);
        let mut readers = lock(&self.readers);
        if readers.len() < READERS {
            readers.push(connection);
        }
        answer
    }

    fn write(
        &self,
        durable: bool,
        change: impl FnOnce(&Transaction<'_>) -> Result<(), CatalogError>,
    ) -> Result<(), CatalogError> {
        let mut connection = lock(&self.writer);
        let synchronous = if durable { "full" } else { "normal" };
        connection.pragma_update(None, "synchronous", synchronous)?;
        let written = connection
            .transaction()
            .map_err(CatalogError::from)
            .and_then(|transaction| {
                change(&transaction)?;
                Ok(transaction.commit()?)
            });
        if written.as_ref().is_err_and(CatalogError::is_damage) {
            // If this file exists, the next start makes all copies again. Without it, the start
            // would open the damaged database again.
            private_files::open(&self.folder.join(DAMAGED))?;
            tracing::error!(
                "{}: the copies are damaged; restart the service, which then makes them again",
                self.folder.display()
            );
        }
        written
    }
}

/// A poisoned lock can be used: if a thread panics, SQLite rolls back its transaction.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn open_database(folder: &Path) -> Result<Connection, CatalogError> {
    // SQLite gives its other files the same permissions as this one.
    private_files::open(&folder.join(DATABASE))?;
    let connection = connect(folder, WRITER_CACHE)?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.execute_batch(SCHEMA)?;
    // Reads all rows, so that damage is found at the start.
    connection.query_row("select count(*) from pass", [], |_| Ok(()))?;
    Ok(connection)
}

fn connect(folder: &Path, cache: i64) -> Result<Connection, CatalogError> {
    let flags =
        rusqlite::OpenFlags::SQLITE_OPEN_READ_WRITE | rusqlite::OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(folder.join(DATABASE), flags)?;
    // A connection that closes may lock the database for a moment.
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.pragma_update(None, "cache_size", -cache)?;
    Ok(connection)
}

fn put_aside(folder: &Path) -> io::Result<()> {
    let database = folder.join(DATABASE);
    if database.exists() {
        fs::rename(&database, folder.join("catalog.db.damaged"))?;
    }
    for name in ["catalog.db-wal", "catalog.db-shm", DAMAGED] {
        match fs::remove_file(folder.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn set(transaction: &Transaction<'_>, name: &str, value: &str) -> Result<(), CatalogError> {
    let text = "insert or replace into setting (name, value) values (?1, ?2)";
    transaction.execute(text, [name, value])?;
    Ok(())
}

fn put_row(transaction: &Transaction<'_>, row: &Row) -> Result<(), CatalogError> {
    let Row {
        pass,
        listed,
        stamp,
    } = row;
    let Listed {
        tokens,
        content,
        unmarked,
        misdated,
        path,
        withdrawn,
        prefix,
    } = listed;
    let tokens: Vec<u8> = tokens.iter().flat_map(|token| *token.as_bytes()).collect();
    let stamp: Vec<u8> = stamp
        .0
        .iter()
        .flat_map(|number| number.to_be_bytes())
        .collect();
    transaction
        .prepare_cached(
            "insert or replace into pass (type, serial, path, stamp, content, tokens, withdrawn, unmarked, misdated, \
             prefix) values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        )?
        .execute(params![
            pass.type_id.as_str(),
            pass.serial.as_str(),
            &**path,
            stamp,
            content,
            tokens,
            withdrawn,
            unmarked,
            misdated,
            prefix.as_ref().map(ToString::to_string)
        ])?;
    Ok(())
}

/// Returns `None` if the row names no pass that is valid by today's rules. Such a row is ignored.
fn to_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<Option<Row>> {
    let Ok(pass) = PassId::new(row.get_ref(0)?.as_str()?, row.get_ref(1)?.as_str()?) else {
        return Ok(None);
    };
    let mut stamp = [0; 6];
    let numbers = row.get_ref(3)?.as_blob()?.as_chunks().0;
    for (number, bytes) in stamp.iter_mut().zip(numbers) {
        *number = u64::from_be_bytes(*bytes);
    }
    let tokens = row.get_ref(5)?.as_blob()?.as_chunks().0;
    let listed = Listed {
        tokens: tokens
            .iter()
            .map(|token| TokenDigest::from_bytes(*token))
            .collect(),
        content: row.get(4)?,
        withdrawn: row.get(6)?,
        unmarked: row.get(7)?,
        misdated: row.get(8)?,
        path: row.get_ref(2)?.as_str()?.into(),
        prefix: match row.get_ref(9)?.as_str_or_null()? {
            Some(prefix) => Prefix::new(prefix).ok().map(Arc::new),
            None => None,
        },
    };
    Ok(Some(Row {
        pass,
        listed,
        stamp: Stamp(stamp),
    }))
}
