use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use passkit_server::private_files;
use rusqlite::{
    Connection, ErrorCode,
    backup::{Backup, StepResult},
    ffi,
};

use crate::{
    engine::{self, POLL},
    error::SqliteError,
};

/// SQLite takes a file with one of these endings for a part of the database beside it.
const PARTS: [&str; 3] = ["-wal", "-shm", "-journal"];

/// Copies the current state of the database. The copy gets its name only when it is complete and durable.
pub(crate) fn back_up(
    from: &Connection,
    to: &Path,
    lock_timeout: Duration,
) -> Result<(), SqliteError> {
    let partial = with_ending(to, ".partial");
    refuse_existing(to)?;
    for part in PARTS {
        refuse_existing(&with_ending(to, part))?;
    }
    refuse_unfinished(&partial)?;
    refuse_part(to)?;
    match private_files::create_empty(&partial) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(unfinished(&partial));
        }
        made => made.map_err(|error| SqliteError::io("create", &partial, error))?,
    }
    let copied = copy(from, &partial, lock_timeout).and_then(|()| keep(&partial, to));
    if copied.is_err() {
        let _reported_below = fs::remove_file(&partial);
    }
    copied
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(ending);
    path.into()
}

fn refuse_existing(path: &Path) -> Result<(), SqliteError> {
    if fs::symlink_metadata(path).is_err() {
        return Ok(());
    }
    Err(SqliteError::configuration(format!(
        "{} exists; remove it or name another file",
        path.display()
    )))
}

/// Refuses to write where an earlier backup was killed, or where another one runs.
fn refuse_unfinished(partial: &Path) -> Result<(), SqliteError> {
    let parts = PARTS.map(|part| with_ending(partial, part));
    let mut files = parts.iter().map(PathBuf::as_path).chain([partial]);
    if files.any(|file| fs::symlink_metadata(file).is_ok()) {
        return Err(unfinished(partial));
    }
    Ok(())
}

fn unfinished(partial: &Path) -> SqliteError {
    SqliteError::configuration(format!(
        "{0} is left over from an interrupted backup, or another backup is running; if none is running, remove {0}*",
        partial.display()
    ))
}

/// Refuses a name that makes the copy a part of another database. SQLite would apply the copy to that database, or
/// delete the copy.
fn refuse_part(path: &Path) -> Result<(), SqliteError> {
    let name = path.file_name().and_then(|name| name.to_str());
    let whole = PARTS.iter().find_map(|part| name?.strip_suffix(part));
    match whole.map(|whole| path.with_file_name(whole)) {
        Some(whole) if whole.exists() => Err(SqliteError::configuration(format!(
            "{} would be a part of {}; name another file",
            path.display(),
            whole.display()
        ))),
        _ => Ok(()),
    }
}

fn copy(from: &Connection, to: &Path, lock_timeout: Duration) -> Result<(), SqliteError> {
    let mut target = engine::connect(to, lock_timeout)?;
    let source = PathBuf::from(from.path().unwrap_or_default());
    let failed = |error| SqliteError::sqlite(if is_of_copy(&error) { to } else { &source }, error);
    let backup = Backup::new(from, &mut target).map_err(failed)?;
    let deadline = Instant::now() + lock_timeout;
    // Copies all pages in one step. In several steps, the copy would start again after each change.
    while backup.step(-1).map_err(failed)? != StepResult::Done {
        if Instant::now() > deadline {
            let text = format!("{}: another program has locked it", source.display());
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

/// Returns whether the error comes from the copy, and not from the database. The copy is only written, and the database
/// is only read.
fn is_of_copy(error: &rusqlite::Error) -> bool {
    error.sqlite_error().is_some_and(|error| match error.code {
        ErrorCode::DiskFull => true,
        ErrorCode::SystemIoFailure => {
            ![ffi::SQLITE_IOERR_READ, ffi::SQLITE_IOERR_SHORT_READ].contains(&error.extended_code)
        }
        _ => false,
    })
}

fn keep(partial: &Path, path: &Path) -> Result<(), SqliteError> {
    let keep = || {
        File::open(partial)?.sync_all()?;
        private_files::give_name(partial, path)?;
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
