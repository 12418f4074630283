//! Watches the files from which passes are made.

use std::{
    fs::{self, Metadata},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// How often to look.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How many files of a template are watched. No pass may have more.
const MAX_FILES: usize = 10_000;

/// Files and folders. Says when passes must be made again because the files changed.
#[derive(Clone, Debug)]
pub(crate) struct Inputs {
    paths: Vec<PathBuf>,
    /// The state of the files in the last look.
    last: Option<State>,
    /// The state from which passes were made.
    done: Option<State>,
}

/// The state of files at one moment. It differs after a file has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State(u64);

impl Inputs {
    pub(crate) fn new(paths: Vec<PathBuf>) -> Self {
        Self {
            paths,
            last: None,
            done: None,
        }
    }

    /// Looks at the files. Returns whether passes must be made. A change counts once the files are the same in two looks,
    /// because a file may be half-written.
    pub(crate) fn look(&mut self) -> bool {
        let now = State::of(&self.paths);
        let is_stable = self.last.replace(now) == Some(now);
        is_stable && self.done != Some(now)
    }

    /// Passes were made from the files, as they were in the last look or later. Without this call, passes must be made
    /// again.
    pub(crate) fn set_done(&mut self) {
        self.done = self.last;
    }
}

impl State {
    fn of(paths: &[PathBuf]) -> Self {
        let mut hasher = DefaultHasher::new();
        let mut left = MAX_FILES;
        for path in paths {
            add(path, &mut hasher, &mut left);
        }
        Self(hasher.finish())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_due_until_it_is_done() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("table.csv");
        let mut inputs = Inputs::new(vec![file.clone()]);
        assert!(!inputs.look(), "the first look sees no second one");
        assert!(inputs.look() && inputs.look(), "nothing was made yet");
        inputs.set_done();
        assert!(!inputs.look());

        fs::write(&file, "half").unwrap();
        assert!(!inputs.look(), "the file may be half-written");
        fs::write(&file, "whole").unwrap();
        assert!(!inputs.look(), "the file is still changing");
        assert!(inputs.look() && inputs.look(), "the run did not succeed");
        // The file changes during the run.
        fs::write(&file, "whole again").unwrap();
        inputs.set_done();
        assert!(!inputs.look());
        assert!(inputs.look());
        inputs.set_done();
        assert!(!inputs.look() && !inputs.look());
    }
}
