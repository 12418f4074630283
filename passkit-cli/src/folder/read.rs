use std::{fs, io, path::Path};

use passkit_archive::{Archive, Rules};
use passkit_server::Kind;

use super::{
    files::{Found, find},
    judge::{Content, read_all},
};

/// So many archives are in memory at once.
const GROUP: usize = 16;

/// Reads the archives below a folder, development ones too, in the order of their paths, for as long as `each` says. It
/// gets what is in a file, or what is wrong with it.
pub(crate) fn read_archives(
    kind: Kind,
    root: &Path,
    mut each: impl FnMut(&Path, Result<Box<Archive>, String>) -> bool,
) -> io::Result<()> {
    fs::read_dir(root)?;
    let mut found = Found::default();
    find(kind, root, &mut found);
    for (path, error) in found.unreadable {
        each(&path, Err(format!("can't be read: {error}")));
    }
    found.files.sort_by(|(one, _), (other, _)| one.cmp(other));
    for group in found.files.chunks(GROUP) {
        for ((path, _), content) in group.iter().zip(read_all(group, Rules::development())) {
            let content = match content {
                Content::Good(archive, _) if archive.kind() == kind => Ok(archive),
                Content::Good(archive, _) => Err(format!("holds {}", archive.id)),
                Content::Refused(problem) => Err(problem),
            };
            if !each(path, content) {
                return Ok(());
            }
        }
    }
    Ok(())
}
