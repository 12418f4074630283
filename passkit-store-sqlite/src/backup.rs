use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use rusqlite::{
    Connection,
    backup::{Backup, StepResult},
};

use crate::{
    engine::{self, POLL},
    error::SqliteError,
};

/// Copies the current state of the database. The copy gets its name only when it is complete and durable.
pub(crate) fn back_up(
    from: &Connection,
    to: &Path,
    lock_timeout: Duration,
) -> Result<(), SqliteError> {
    if fs::symlink_metadata(to).is_ok() {
        return Err(exists(to));
    }
    let mut partial = to.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    if fs::symlink_metadata(&partial).is_ok() {
        return Err(exists(&partial));
    }
    let copied = copy(from, &partial, lock_timeout).and_then(|()| keep(&partial, to));
    if copied.is_err() {
        let _reported_below = fs::remove_file(&partial);
    }
    copied
}

fn exists(path: &Path) -> SqliteError {
    SqliteError::configuration(format!(
        "{} exists; remove it or name another file",
        path.display()
    ))
}

fn copy(from: &Connection, to: &Path, lock_timeout: Duration) -> Result<(), SqliteError> {
    let mut target = engine::create(to, lock_timeout)?;
    let source_path = PathBuf::from(from.path().unwrap_or_default());
    let failed = |error| SqliteError::sqlite(&source_path, error);
    let backup = Backup::new(from, &mut target).map_err(failed)?;
    let deadline = Instant::now() + lock_timeout;
    // Copies all pages in one step. In several steps, the copy would start again after each change.
    while backup.step(-1).map_err(failed)? != StepResult::Done {
        if Instant::now() > deadline {
            let text = format!("{}: another program has it locked", source_path.display());
            return Err(SqliteError::new(
                passkit_server::store::StoreErrorKind::Unavailable,
                text,
            ));
        }
        thread::sleep(POLL);
    }
    drop(backup);
    target
        .close()
        .map_err(|(_, error)| SqliteError::sqlite(to, error))
}

fn keep(partial: &Path, path: &Path) -> Result<(), SqliteError> {
    let keep = || {
        File::open(partial)?.sync_all()?;
        fs::rename(partial, path)?;
        // Syncing the folder makes the name durable.
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        if cfg!(unix) {
            File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
        } else {
            Ok(())
        }
    };
    keep().map_err(|error| SqliteError::io("create", path, error))
}
