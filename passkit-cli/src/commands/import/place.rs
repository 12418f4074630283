//! The progress of an import, in a file beside the one being read.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use serde::{Deserialize, Serialize};

/// The progress of an import.
pub(super) struct Place {
    /// `None` for standard input.
    file: Option<PathBuf>,
    source: Source,
    /// Everything up to here is in the store.
    pub(super) reached: Reached,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Reached {
    pub(super) lines: u64,
    pub(super) bytes: u64,
    #[serde(default)]
    pub(super) registrations: u64,
    pub(super) created: u64,
    pub(super) left_out: u64,
}

/// What is imported, and where to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Source {
    store: String,
    length: u64,
    modified: u64,
}

#[derive(Serialize, Deserialize)]
struct Note {
    source: Source,
    reached: Reached,
}

impl Place {
    /// Where the last import of exactly this file into this store stopped, or the start.
    pub(super) fn find(path: &Path, store: String) -> Self {
        let Ok(metadata) = fs::metadata(path) else {
            return Self {
                file: None,
                source: Source::default(),
                reached: Reached::default(),
            };
        };
        let modified = metadata
            .modified()
            .ok()
            .and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let source = Source {
            store,
            length: metadata.len(),
            modified: modified.map_or(0, |since| since.as_micros() as u64),
        };
        let mut name = OsString::from(path);
        name.push(".passkit-import");
        let file = PathBuf::from(name);
        let note = fs::read(&file)
            .ok()
            .and_then(|text| serde_json::from_slice::<Note>(&text).ok());
        let reached = note
            .filter(|note| note.source == source)
            .map_or_else(Reached::default, |note| note.reached);
        Self {
            file: Some(file),
            source,
            reached,
        }
    }

    /// Saves the progress. If that fails, the next import begins at the start, which is slower but
    /// not wrong.
    pub(super) fn remember(&self) {
        let Some(file) = &self.file else { return };
        let note = Note {
            source: self.source.clone(),
            reached: self.reached,
        };
        if let Ok(text) = serde_json::to_vec(&note) {
            let _ = fs::write(file, text);
        }
    }

    /// Deletes the progress, because the import is done.
    pub(super) fn forget(&self) {
        if let Some(file) = &self.file {
            let _ = fs::remove_file(file);
        }
    }
}
