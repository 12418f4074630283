//! Refuses network file systems. SQLite's locks and shared memory don't work across machines. On some network file systems,
//! they don't even work on one machine.

use std::path::Path;

use crate::error::SqliteError;

/// The names of network file systems on Linux.
const NETWORK: &[&str] = &[
    "afs",
    "ceph",
    "cifs",
    "fuse.ceph",
    "fuse.glusterfs",
    "fuse.s3fs",
    "fuse.sshfs",
    "glusterfs",
    "lustre",
    "ncpfs",
    "nfs",
    "nfs4",
    "smb3",
    "smbfs",
];

/// Refuses a file on a network file system. Accepts every file if the operating system does not list its mounts like Linux.
pub(crate) fn refuse(path: &Path) -> Result<(), SqliteError> {
    let Ok(mounts) = std::fs::read_to_string("/proc/self/mountinfo") else {
        return Ok(());
    };
    match file_system(&mounts, path) {
        Some(name) if NETWORK.contains(&name) => Err(SqliteError::configuration(format!(
            "{} is on a network file system ({name}), where SQLite can lose data; move it to a local disk",
            path.display()
        ))),
        _ => Ok(()),
    }
}

/// Returns the name of the file system of `path`.
///
/// A line is `36 35 98:0 /root /mount/point options - type source options`, with any number of options before the dash.
fn file_system<'a>(mounts: &'a str, path: &Path) -> Option<&'a str> {
    let mounts = mounts.lines().filter_map(|line| {
        let (mount, file_system) = line.split_once(" - ")?;
        let point = mount.split(' ').nth(4)?.replace("\\040", " ");
        path.starts_with(&point)
            .then_some((point.len(), file_system.split(' ').next()?))
    });
    // If two mounts have the same point, the later one hides the earlier one.
    mounts
        .max_by_key(|(length, _)| *length)
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_mount_decides() {
        let mounts = "\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:26 / /srv rw shared:5 master:1 - nfs4 host:/srv rw
31 30 0:27 / /srv/my\\040disk rw - xfs /dev/vdb rw
32 22 0:28 / /mnt rw - xfs /dev/vdc rw
33 22 0:29 / /mnt rw - cifs //host/share rw";
        let of = |path: &str| file_system(mounts, Path::new(path));
        assert_eq!(of("/home/passkit.db"), Some("ext4"));
        assert_eq!(of("/srv/passkit.db"), Some("nfs4"));
        assert_eq!(of("/srvs/passkit.db"), Some("ext4"));
        assert_eq!(of("/srv/my disk/passkit.db"), Some("xfs"));
        assert_eq!(of("/mnt/passkit.db"), Some("cifs"));
        assert_eq!(file_system("", Path::new("/a")), None);
    }
}
