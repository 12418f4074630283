use std::{fs, io, path::Path};

use passkit_archive::{Archive, Level, Rules};
use passkit_server::identifiers::Kind;

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
