//! Small file systems that tests fill. Only root can mount them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

use std::{
    fs::File,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

/// A small file system. It is unmounted when this is dropped.
#[derive(Debug)]
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts a file system in memory over this folder. Returns `None` if this user is not root, or if `PASSKIT_NO_MOUNT` is
    /// set.
    ///
    /// # Panics
    /// Panics if root can't mount it.
    #[must_use]
    pub fn mount(folder: &Path, megabytes: u32) -> Option<Self> {
        let size = format!("size={megabytes}m");
        Self::with(folder, |folder| {
            run("mount", &["-t", "tmpfs", "-o", &size, "tmpfs", folder])
        })
    }

    /// Mounts an ext4 file system over this folder, and keeps its content in the file `image`. Otherwise, it does the same as
    /// [`mount`](Self::mount).
    ///
    /// # Panics
    /// Panics if root can't mount it.
    #[must_use]
    pub fn mount_ext4(folder: &Path, image: &Path, megabytes: u32) -> Option<Self> {
        let image_name = image.to_str().unwrap();
        Self::with(folder, |folder| {
            let bytes = u64::from(megabytes) << 20;
            File::create(image).unwrap().set_len(bytes).unwrap();
            run("mkfs.ext4", &["-q", "-F", "-m", "0", image_name])
                && run("mount", &["-o", "loop", image_name, folder])
        })
    }

    fn with(folder: &Path, mount: impl FnOnce(&str) -> bool) -> Option<Self> {
        let id = Command::new("id").arg("-u").output().unwrap();
        if id.stdout != b"0\n" || std::env::var_os("PASSKIT_NO_MOUNT").is_some() {
            eprintln!("left out: only root may mount the small file system that this test fills");
            return None;
        }
        assert!(
            mount(folder.to_str().unwrap()),
            "root can't mount a small file system; allow it, for example with \"docker run --privileged\", or set PASSKIT_NO_MOUNT=1"
        );
        Some(Self(folder.to_owned()))
    }

    /// Mounts it again with these options. Returns whether that worked.
    #[must_use]
    pub fn remount(&self, options: &str) -> bool {
        let options = format!("remount,{options}");
        run("mount", &["-o", &options, self.0.to_str().unwrap()])
    }

    /// Makes room.
    ///
    /// # Panics
    /// Panics if that fails.
    pub fn grow(&self) {
        assert!(self.remount("size=200m"));
    }

    /// Fills the rest of the disk with a file. Returns its path and length. Remove it to make room.
    #[must_use]
    pub fn fill(&self) -> (PathBuf, usize) {
        let path = self.0.join("ballast");
        let mut file = File::create(&path).unwrap();
        let mut written = 0;
        for size in [1 << 16, 1 << 10, 1] {
            let block = vec![b'x'; size];
            while file
                .write_all(&block)
                .and_then(|()| file.sync_data())
                .is_ok()
            {
                written += size;
            }
        }
        (path, written)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // A process that still runs may have files open.
        let _ = run("umount", &["--lazy", self.0.to_str().unwrap_or_default()]);
    }
}

fn run(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    let ended = command.args(arguments).output();
    ended.is_ok_and(|ended| ended.status.success())
}
