//! Watches the files from which passes are made.

use std::{
    fs::{self, Metadata},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    path::{Path, PathBuf},
    thread,
    time::{Duration, SystemTime},
};

/// How often to look. A change counts once the files are the same in two looks, because a file may be
/// half-written.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How many files of a template are watched. No pass may have more.
const MAX_FILES: usize = 10_000;

/// The state of files at one moment. It differs after a file has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Inputs(u64);

impl Inputs {
    /// Looks at files, and at everything in folders.
    pub(crate) fn now<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Self {
        let mut hasher = DefaultHasher::new();
        let mut left = MAX_FILES;
        for path in paths {
            add(path, &mut hasher, &mut left);
        }
        Self(hasher.finish())
    }

    /// Waits until the files differ, and returns their new state.
    pub(crate) fn changed(self, paths: &[&Path]) -> Self {
        let mut last = Self::now(paths.iter().copied());
        loop {
            thread::sleep(LOOK_EVERY);
            let now = Self::now(paths.iter().copied());
            if now == last && now != self {
                return now;
            }
            last = now;
        }
    }
}

/// Adds a file, or everything in a folder.
fn add(path: &Path, hasher: &mut DefaultHasher, left: &mut usize) {
    path.hash(hasher);
    let Ok(found) = fs::metadata(path) else {
        return;
    };
    stamp(&found).hash(hasher);
    if !found.is_dir() {
        return;
    }
    let mut entries: Vec<PathBuf> = fs::read_dir(path)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    entries.sort_unstable();
    for entry in entries {
        if *left == 0 {
            return;
        }
        *left -= 1;
        add(&entry, hasher, left);
    }
}

/// Returns the attributes that change when a file is written.
fn stamp(found: &Metadata) -> (u64, Option<SystemTime>, (u64, i64, i64)) {
    #[cfg(unix)]
    let more = {
        use std::os::unix::fs::MetadataExt as _;
        (found.ino(), found.ctime(), found.ctime_nsec())
    };
    #[cfg(not(unix))]
    let more = (0, 0, 0);
    (found.len(), found.modified().ok(), more)
}
