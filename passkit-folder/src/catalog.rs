//! The database beside the store that remembers what is served: a copy of each archive, and what is
//! known about it.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use passkit_server::{PassId, identifiers::TokenDigest, service::Prefix};
use rusqlite::{Connection, ErrorCode, OptionalExtension as _, Transaction, params};
use sha2::{Digest as _, Sha256};

use crate::{FolderError, files::Stamp, listed::Listed, readers::Readers};

/// `stamp` is six numbers of 8 bytes, `tokens` are 32 bytes each, and `digest` is that of the archive as it was written.
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

/// Kilobytes of pages in memory, for writing and for each thread that reads.
const WRITER_CACHE: i64 = 4 * 1024;
const READER_CACHE: i64 = 512;
/// The most connections that are kept open for reading.
const READERS: usize = 8;

const DATABASE: &str = "catalog.db";
/// A file of this name means that the database can't be repaired.
const DAMAGED: &str = "damaged";

/// Why the catalog can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CatalogError {
    #[error("another process uses it")]
    InUse,
    /// A copy is not what was written.
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

/// What happens to the archive of a pass whose row is written.
pub(crate) enum Copy {
    Put(Bytes),
    Keep,
    Remove,
}

/// The most processes that keep catalogs in folders beside each other.
const NEIGHBOURS: u32 = 64;

impl Catalog {
    /// Opens the catalog in `folder`, or makes it. If another process uses it and `next_free` is set, takes the next
    /// folder with a number at its end. Returns the folder that was taken too.
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

    /// Opens the catalog in `folder`, or makes it. A damaged one is put aside, because everything in it can be made anew
    /// from the files.
    fn open(folder: &Path) -> Result<Self, CatalogError> {
        create_folder(folder)?;
        let lock = private().open(folder.join("lock"))?;
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
                    "{}: the copies are damaged, and are made anew from the files",
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

    /// Whether unsigned archives were allowed when the catalog was filled.
    pub(crate) fn allowed_unsigned(&self) -> Result<bool, CatalogError> {
        Ok(self
            .setting(ALLOW_UNSIGNED)?
            .is_some_and(|value| value == "1"))
    }

    /// The edition of the store that has everything in the catalog.
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

    /// Writes rows and archives in one commit, on disk when this returns.
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

    /// Remembers that the store has the last change of `passes`. It is on disk with the next
    /// commit. After a crash before that, the passes are marked again.
    pub(crate) fn set_marked(&self, passes: &[PassId]) -> Result<(), CatalogError> {
        self.write(false, |transaction| {
            // As `Listed::set_marked` does.
            let mut statement = transaction.prepare_cached(
                "update pass set unmarked = 0, misdated = misdated and withdrawn where type = ?1 and serial = ?2",
            )?;
            for pass in passes {
                statement.execute([pass.type_id.as_str(), pass.serial.as_str()])?;
            }
            Ok(())
        })
    }

    /// Remembers that phones may have a copy of `pass` under the date of other content. On disk when this returns.
    pub(crate) fn set_misdated(&self, pass: &PassId) -> Result<(), CatalogError> {
        self.write(true, |transaction| {
            transaction.execute(
                "update pass set misdated = 1 where type = ?1 and serial = ?2",
                [pass.type_id.as_str(), pass.serial.as_str()],
            )?;
            Ok(())
        })
    }

    /// Remembers by which rules everything in the catalog was checked.
    pub(crate) fn remember_rules(&self, allow_unsigned: bool) -> Result<(), CatalogError> {
        let value = if allow_unsigned { "1" } else { "0" };
        self.write(true, |transaction| set(transaction, ALLOW_UNSIGNED, value))
    }

    /// Remembers that everything in the catalog has to be published to this edition of the store.
    pub(crate) fn begin_edition(&self, edition: &str) -> Result<(), CatalogError> {
        self.write(true, |transaction| {
            transaction.execute("update pass set unmarked = 1", [])?;
            set(transaction, EDITION, edition)
        })
    }

    /// The archive of a pass, read from disk.
    ///
    /// [`CatalogError::Damaged`] if it is not what was written.
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

    /// The archive of a pass, shared with all who read it now.
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

    /// The number of bytes of the archive of a pass.
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
            // Without this file, the next start finds the damage at the same place.
            private().open(self.folder.join(DAMAGED))?;
            tracing::error!(
                "{}: the copies are damaged; start the service again, which makes them anew",
                self.folder.display()
            );
        }
        written
    }
}

/// No change is half made when a thread panics: its transaction is rolled back.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes a folder that nobody but its owner can open.
fn create_folder(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

/// Makes files that nobody but their owner can read.
fn private() -> fs::OpenOptions {
    let mut options = File::options();
    options.write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

fn open_database(folder: &Path) -> Result<Connection, CatalogError> {
    // SQLite gives its other files the permissions of this one.
    private().open(folder.join(DATABASE))?;
    let connection = connect(folder, WRITER_CACHE)?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.execute_batch(SCHEMA)?;
    // Reads all rows, to find damage before it is in the way.
    connection.query_row("select count(*) from pass", [], |_| Ok(()))?;
    Ok(connection)
}

fn connect(folder: &Path, cache: i64) -> Result<Connection, CatalogError> {
    let flags =
        rusqlite::OpenFlags::SQLITE_OPEN_READ_WRITE | rusqlite::OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(folder.join(DATABASE), flags)?;
    // A connection that closes may have the database locked for a moment.
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

/// `None` if it is no pass by today's rules. Such a row is ignored.
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
