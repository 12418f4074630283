use std::{
    fs, io,
    path::{Path, PathBuf},
};

use passkit_archive::{Archive, ArchiveFile, Level, Rules};
use passkit_server::{PassId, identifiers::Kind};

use crate::{
    check::{Checked, check_all, summary},
    files::{Found, find, groups},
};

/// Reads the archives below a folder, in the order of their paths, until `each` returns `false`.
///
/// `each` gets the path of a file, and its archive or the problem. Development archives, which have
/// no signature, count as good. An archive that phones refuse counts as a problem.
///
/// # Errors
/// Fails with the error of the operating system if the folder can't be listed.
pub fn read_archives(
    kind: Kind,
    root: &Path,
    mut each: impl FnMut(&Path, Result<Archive, String>) -> bool,
) -> io::Result<()> {
    fs::read_dir(root)?;
    let mut found = Found::default();
    find(kind, root, &mut found);
    for (path, error) in found.unreadable {
        each(&path, Err(format!("can't be read: {error}")));
    }
    found.files.sort_by(|(one, _), (other, _)| one.cmp(other));
    for group in groups(&found.files) {
        for ((path, _), checked) in group.iter().zip(check_all(group, Rules::development())) {
            let content = match checked {
                Checked::Read { archive, .. } if archive.kind() != kind => {
                    Err(format!("holds {}", archive.id))
                }
                Checked::Read { findings, .. } if findings.worst() >= Some(Level::Refused) => {
                    Err(summary(&findings))
                }
                Checked::Read { archive, .. } => Ok(*archive),
                Checked::Refused(problem) => Err(problem),
                Checked::Gone => continue,
            };
            if !each(path, content) {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Finds the file of a pass or an order below a folder. Reads only the identity in each file, and
/// begins with the files whose names contain the serial number.
///
/// # Errors
/// Fails with the error of the operating system if the folder can't be listed.
pub fn find_archive(root: &Path, pass: &PassId) -> io::Result<Option<PathBuf>> {
    fs::read_dir(root)?;
    let mut found = Found::default();
    find(pass.type_id.kind(), root, &mut found);
    let mut paths: Vec<PathBuf> = found.files.into_iter().map(|(path, _)| path).collect();
    let is_named = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.contains(pass.serial.as_str())
    };
    paths.sort_by_cached_key(|path| (!is_named(path), path.clone()));
    let is_of_pass = |path: &PathBuf| {
        let file = ArchiveFile::open(path).ok().flatten();
        file.and_then(|mut file| file.identify())
            .is_some_and(|identified| identified.id == *pass)
    };
    Ok(paths.into_iter().find(is_of_pass))
}
