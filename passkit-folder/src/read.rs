use std::{fs, io, path::Path};

use passkit_archive::{Archive, Rules};
use passkit_server::identifiers::Kind;

use crate::{
    check::{Checked, check_all},
    files::{Found, find},
};

/// How many archives are in memory at once.
const GROUP: usize = 16;

/// Reads the archives below a folder, in the order of their paths, until `each` returns `false`.
///
/// `each` gets the path of a file, and its archive or what is wrong with it. Development archives count as good: those
/// without a signature, and those with a `webServiceURL` of `http://`. At most 16 archives are in memory at once.
///
/// # Errors
/// Those of the operating system if the folder can't be listed.
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
    for group in found.files.chunks(GROUP) {
        for ((path, _), checked) in group.iter().zip(check_all(group, Rules::development())) {
            let content = match checked {
                Checked::Good(archive, _) if archive.kind() == kind => Ok(*archive),
                Checked::Good(archive, _) => Err(format!("holds {}", archive.id)),
                Checked::Refused(problem) => Err(problem),
            };
            if !each(path, content) {
                return Ok(());
            }
        }
    }
    Ok(())
}
