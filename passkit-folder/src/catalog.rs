//! The file beside the store that remembers what is served: a copy of each archive, and what is
//! known about it.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use bytes::Bytes;
use passkit_server::{PassId, SourceError, identifiers::TokenDigest};
use redb::{
    Database, Durability, OwnedAccessGuard, ReadableDatabase, ReadableTable, TableDefinition,
};

use crate::{FolderError, files::Stamp, listed::Listed, readers::Readers};

/// Type and serial number.
type Key = (&'static str, &'static str);
/// Path, stamp, content, tokens (32 bytes each), withdrawn, unmarked, misdated.
type Value = (
    &'static str,
    [u64; 6],
    [u8; 32],
    &'static [u8],
    bool,
    bool,
    bool,
);

const PASSES: TableDefinition<'_, Key, Value> = TableDefinition::new("passes");
const ARCHIVES: TableDefinition<'_, Key, &[u8]> = TableDefinition::new("archives");
/// The sizes of the archives.
const LENGTHS: TableDefinition<'_, Key, u64> = TableDefinition::new("lengths");
const SETTINGS: TableDefinition<'_, &str, bool> = TableDefinition::new("settings");
const ALLOW_UNSIGNED: &str = "allow-unsigned";

/// Bytes of archives and rows kept in memory.
const CACHE: usize = 8 * 1024 * 1024;

pub(crate) struct Catalog {
    path: PathBuf,
    /// `None` after a failure, until it can be opened again.
    database: RwLock<Option<Database>>,
    readers: Readers,
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
                Err(redb::Error::DatabaseAlreadyOpen) if number < last => number += 1,
                Err(error) => {
                    return Err(FolderError::Copies {
                        path,
                        source: error.into(),
                    });
                }
            }
        }
    }

    /// Opens the catalog in `folder`, or makes it.
    fn open(folder: &Path) -> Result<Self, redb::Error> {
        fs::create_dir_all(folder).map_err(redb::Error::Io)?;
        let path = folder.join("catalog.redb");
        let database = open_database(&path)?;
        // So that readers always find the tables.
        let write = database.begin_write()?;
        write.open_table(PASSES)?;
        write.open_table(ARCHIVES)?;
        write.open_table(LENGTHS)?;
        write.open_table(SETTINGS)?;
        write.commit()?;
        Ok(Self {
            path,
            database: RwLock::new(Some(database)),
            readers: Readers::default(),
        })
    }

    /// Shows every row, type by type.
    pub(crate) fn rows(&self, mut show: impl FnMut(Row)) -> Result<(), redb::Error> {
        for row in self.read()?.open_table(PASSES)?.iter()? {
            let (key, value) = row?;
            if let Some(row) = to_row(key.value(), value.value()) {
                show(row);
            }
        }
        Ok(())
    }

    /// Whether unsigned archives were allowed when the catalog was filled.
    pub(crate) fn allowed_unsigned(&self) -> Result<bool, redb::Error> {
        let setting = self.read()?.open_table(SETTINGS)?.get(ALLOW_UNSIGNED)?;
        Ok(setting.is_some_and(|value| value.value()))
    }

    /// Writes rows and archives in one commit, on disk when this returns.
    pub(crate) fn put<'a>(
        &self,
        rows: impl IntoIterator<Item = (&'a Row, Copy)>,
    ) -> Result<(), redb::Error> {
        let mut replaced = Vec::new();
        let written = self.write(Durability::Immediate, |write| {
            let mut passes = write.open_table(PASSES)?;
            let mut archives = write.open_table(ARCHIVES)?;
            let mut lengths = write.open_table(LENGTHS)?;
            for (row, copy) in rows {
                let key = (row.pass.type_id.as_str(), row.pass.serial.as_str());
                if !matches!(copy, Copy::Keep) {
                    replaced.push(row.pass.clone());
                }
                match copy {
                    Copy::Put(bytes) => {
                        archives.insert(key, &bytes[..])?;
                        lengths.insert(key, bytes.len() as u64)?;
                    }
                    Copy::Keep => {}
                    Copy::Remove => {
                        archives.remove(key)?;
                        lengths.remove(key)?;
                    }
                }
                insert(&mut passes, row)?;
            }
            Ok(())
        });
        self.readers.forget(&replaced);
        written
    }

    /// Remembers that the store has the last change of `passes`. It is on disk with the next
    /// commit. After a crash before that, the passes are marked again.
    pub(crate) fn set_marked(&self, passes: &[PassId]) -> Result<(), redb::Error> {
        self.write(Durability::None, |write| {
            update(write, passes, Listed::set_marked)
        })
    }

    /// Remembers that phones may have a copy of `pass` under the date of other content. On disk when this returns.
    pub(crate) fn set_misdated(&self, pass: &PassId) -> Result<(), redb::Error> {
        self.write(Durability::Immediate, |write| {
            update(write, std::slice::from_ref(pass), |listed| {
                listed.misdated = true
            })
        })
    }

    /// Remembers by which rules everything in the catalog was checked.
    pub(crate) fn remember_rules(&self, allow_unsigned: bool) -> Result<(), redb::Error> {
        self.write(Durability::Immediate, |write| {
            write
                .open_table(SETTINGS)?
                .insert(ALLOW_UNSIGNED, allow_unsigned)?;
            Ok(())
        })
    }

    /// The archive of a pass, shared with the cache.
    pub(crate) fn archive(&self, pass: &PassId) -> Result<Option<Bytes>, redb::Error> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let read = database
            .as_ref()
            .ok_or(redb::Error::PreviousIo)?
            .begin_read()?;
        let archive = read
            .open_table(ARCHIVES)?
            .get_owned((pass.type_id.as_str(), pass.serial.as_str()))?;
        Ok(archive.map(|archive| Bytes::from_owner(Owned(archive))))
    }

    /// The archive of a pass, shared with all who read it now. It holds no read transaction, so a
    /// slow reader does not make the file grow.
    pub(crate) async fn shared_archive(
        self: &Arc<Self>,
        pass: &PassId,
    ) -> Result<Option<Bytes>, SourceError> {
        let read = async || {
            let (catalog, pass) = (self.clone(), pass.clone());
            let archive = tokio::task::spawn_blocking(move || {
                let archive = catalog.archive(&pass)?;
                Ok::<_, redb::Error>(archive.map(|archive| archive.to_vec()))
            });
            Ok::<_, SourceError>(archive.await??)
        };
        self.readers.get(pass, read).await
    }

    /// The size of the archive of a pass.
    pub(crate) fn archive_length(&self, pass: &PassId) -> Result<Option<u64>, redb::Error> {
        let key = (pass.type_id.as_str(), pass.serial.as_str());
        let length = self.read()?.open_table(LENGTHS)?.get(key)?;
        match length {
            Some(length) => Ok(Some(length.value())),
            // Copies that were made before lengths were kept.
            None => Ok(self.archive(pass)?.map(|archive| archive.len() as u64)),
        }
    }

    fn read(&self) -> Result<redb::ReadTransaction, redb::Error> {
        if let Some(database) = &*self.database.read().unwrap_or_else(PoisonError::into_inner) {
            return Ok(database.begin_read()?);
        }
        self.reopen()?;
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        Ok(database
            .as_ref()
            .ok_or(redb::Error::PreviousIo)?
            .begin_read()?)
    }

    fn write(
        &self,
        durability: Durability,
        change: impl FnOnce(&redb::WriteTransaction) -> Result<(), redb::Error>,
    ) -> Result<(), redb::Error> {
        self.reopen()?;
        let written = {
            let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
            database
                .as_ref()
                .ok_or(redb::Error::PreviousIo)
                .and_then(|database| {
                    let mut write = database.begin_write()?;
                    write.set_durability(durability)?;
                    change(&write)?;
                    Ok(write.commit()?)
                })
        };
        if written.is_err() {
            // After a failed write, as on a full disk, the handle no longer works. The next write
            // opens a new one.
            *self
                .database
                .write()
                .unwrap_or_else(PoisonError::into_inner) = None;
            let _ = self.reopen();
        }
        written
    }

    fn reopen(&self) -> Result<(), redb::Error> {
        let mut database = self
            .database
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if database.is_none() {
            *database = Some(open_database(&self.path)?);
        }
        Ok(())
    }
}

fn open_database(path: &Path) -> Result<Database, redb::Error> {
    Ok(Database::builder().set_cache_size(CACHE).create(path)?)
}

fn update(
    write: &redb::WriteTransaction,
    passes: &[PassId],
    change: impl Fn(&mut Listed),
) -> Result<(), redb::Error> {
    let mut table = write.open_table(PASSES)?;
    for pass in passes {
        let key = (pass.type_id.as_str(), pass.serial.as_str());
        let row = table.get(key)?.and_then(|value| to_row(key, value.value()));
        if let Some(mut row) = row {
            change(&mut row.listed);
            insert(&mut table, &row)?;
        }
    }
    Ok(())
}

fn insert(table: &mut redb::Table<'_, Key, Value>, row: &Row) -> Result<(), redb::Error> {
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
    } = listed;
    let tokens: Vec<u8> = tokens.iter().flat_map(|token| *token.as_bytes()).collect();
    let value = (
        &**path,
        stamp.0,
        *content,
        &tokens[..],
        *withdrawn,
        *unmarked,
        *misdated,
    );
    table.insert((pass.type_id.as_str(), pass.serial.as_str()), value)?;
    Ok(())
}

/// `None` if the key is no pass by today's rules. Such a row is ignored.
fn to_row(
    (type_id, serial): (&str, &str),
    (path, stamp, content, tokens, withdrawn, unmarked, misdated): (
        &str,
        [u64; 6],
        [u8; 32],
        &[u8],
        bool,
        bool,
        bool,
    ),
) -> Option<Row> {
    let tokens = tokens
        .as_chunks()
        .0
        .iter()
        .map(|token| TokenDigest::from_bytes(*token))
        .collect();
    let pass = PassId::new(type_id, serial).ok()?;
    let listed = Listed {
        tokens,
        content,
        unmarked,
        misdated,
        path: path.into(),
        withdrawn,
    };
    Some(Row {
        pass,
        listed,
        stamp: Stamp(stamp),
    })
}

struct Owned(OwnedAccessGuard<&'static [u8]>);

impl AsRef<[u8]> for Owned {
    fn as_ref(&self) -> &[u8] {
        self.0.value()
    }
}
