//! Watches the files from which passes are made.

use std::{
    collections::BTreeMap,
    fs::{self, Metadata},
    hash::{DefaultHasher, Hash, Hasher as _},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

/// How often to look.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How many files of a template are watched, and how many images. No template may have more files.
const MAX_FILES: usize = 10_000;

/// Files and folders. Says when passes must be made again because the files changed.
#[derive(Debug)]
pub(crate) struct Inputs {
    paths: Vec<PathBuf>,
    /// The images that the last run read.
    images: Vec<PathBuf>,
    /// The state of the files in the last look.
    last: Option<State>,
    /// The state from which passes were made.
    done: Option<State>,
}

/// The state of files at one moment. It differs after a file has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    files: u64,
    images: u64,
}

/// The images that a run reads, each with its state right before. Only the first ones are kept, because a table may
/// name a million.
#[derive(Debug, Default)]
pub(crate) struct Seen(Mutex<BTreeMap<PathBuf, Option<Stamp>>>);

impl Seen {
    /// Adds a file that will be read now. The file may be missing.
    pub(super) fn add(&self, path: &Path) {
        let stamp = stamp_of(path);
        let mut files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if files.len() < MAX_FILES && !files.contains_key(path) {
            files.insert(path.to_owned(), stamp);
        }
    }
}

impl Inputs {
    pub(crate) fn new(paths: Vec<PathBuf>) -> Self {
        Self {
            paths,
            images: Vec::new(),
            last: None,
            done: None,
        }
    }

    /// Looks at the files. Returns whether passes must be made. A change counts once the files are the same in two looks,
    /// because a file may be half-written.
    pub(crate) fn look(&mut self) -> bool {
        let images = self.images.iter().map(|path| (path, stamp_of(path)));
        let now = State {
            files: hash_files(&self.paths),
            images: hash(images),
        };
        let is_stable = self.last.replace(now) == Some(now);
        is_stable && self.done != Some(now)
    }

    /// Passes were made from the files, as they were in the last look or later, and from the images in `seen`. Without
    /// this call, passes must be made again.
    pub(crate) fn set_done(&mut self, seen: Seen) {
        let images = seen.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        self.done = self.last.map(|last| State {
            images: hash(images.iter()),
            ..last
        });
        self.images = images.into_keys().collect();
    }
}

fn hash(items: impl Iterator<Item = impl Hash>) -> u64 {
    let mut hasher = DefaultHasher::new();
    items.for_each(|item| item.hash(&mut hasher));
    hasher.finish()
}

fn hash_files(paths: &[PathBuf]) -> u64 {
    let mut hasher = DefaultHasher::new();
    let mut left = MAX_FILES;
    for path in paths {
        add(path, &mut hasher, &mut left);
    }
    hasher.finish()
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

/// The attributes of a file that change when it is written.
type Stamp = (u64, Option<SystemTime>, (u64, i64, i64));

/// Returns `None` if there is no such file.
fn stamp_of(path: &Path) -> Option<Stamp> {
    fs::metadata(path).ok().map(|found| stamp(&found))
}

fn stamp(found: &Metadata) -> Stamp {
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
        inputs.set_done(Seen::default());
        assert!(!inputs.look());

        fs::write(&file, "half").unwrap();
        assert!(!inputs.look(), "the file may be half-written");
        fs::write(&file, "whole").unwrap();
        assert!(!inputs.look(), "the file is still changing");
        assert!(inputs.look() && inputs.look(), "the run did not succeed");
        // The file changes during the run.
        fs::write(&file, "whole again").unwrap();
        inputs.set_done(Seen::default());
        assert!(!inputs.look());
        assert!(inputs.look());
        inputs.set_done(Seen::default());
        assert!(!inputs.look() && !inputs.look());
    }

    #[test]
    fn images_are_compared_with_their_state_before_they_were_read() {
        let folder = tempfile::tempdir().unwrap();
        let [photo, missing] = ["photo.png", "missing.png"].map(|name| folder.path().join(name));
        fs::write(&photo, "old").unwrap();
        let mut inputs = Inputs::new(Vec::new());
        let run = |inputs: &mut Inputs| {
            let seen = Seen::default();
            seen.add(&photo);
            seen.add(&missing);
            inputs.set_done(seen);
        };
        let looks = |inputs: &mut Inputs| (inputs.look(), inputs.look());
        assert_eq!(looks(&mut inputs), (false, true));
        run(&mut inputs);
        assert_eq!(looks(&mut inputs), (false, false));
        fs::write(&photo, "newer").unwrap();
        assert_eq!(looks(&mut inputs), (false, true));
        run(&mut inputs);
        assert_eq!(looks(&mut inputs), (false, false));
        fs::write(&missing, "here").unwrap();
        assert_eq!(looks(&mut inputs), (false, true));
        // The image changes while the passes are made.
        let seen = Seen::default();
        seen.add(&photo);
        fs::write(&photo, "the newest").unwrap();
        seen.add(&photo);
        inputs.set_done(seen);
        assert_eq!(looks(&mut inputs), (false, true));
    }
}
