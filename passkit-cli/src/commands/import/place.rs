//! The progress of an import. It is a note in the store that the import fills.
//!
//! The name of the note contains the SHA-256 of the file. The import of a moved file therefore
//! continues, and the import of a changed file starts from the beginning. To get the digest, the
//! command reads the file once more. This takes little time compared with writing the rows into the
//! store.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use passkit_server::store::StoreError;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::store::Store;

/// The progress of an import.
pub(super) struct Place<'a> {
    store: &'a dyn Store,
    /// The name of the note. `None` for input that can be read only once.
    name: Option<String>,
    pub(super) reached: Reached,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Reached {
    /// All lines up to this line are in the store.
    pub(super) lines: u64,
    /// How many registrations were new.
    pub(super) created: u64,
}

/// Returns the name of the note about a file, or `None` if the path is not a regular file.
pub(super) fn note_name(path: &Path) -> io::Result<Option<String>> {
    if !std::fs::metadata(path).is_ok_and(|found| found.is_file()) {
        return Ok(None);
    }
    let (mut file, mut digest) = (File::open(path)?, Sha256::new());
    let mut buffer = vec![0; 1 << 18];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(Some(format!("import sha256:{:x}", digest.finalize()))),
            read => digest.update(&buffer[..read]),
        }
    }
}

impl<'a> Place<'a> {
    /// Finds where the last import of this file into this store stopped. Without a note, this is
    /// the start.
    pub(super) async fn find(
        store: &'a dyn Store,
        name: Option<String>,
    ) -> Result<Self, StoreError> {
        let note = match &name {
            Some(name) => store.note(name).await?,
            None => None,
        };
        let reached = note
            .and_then(|note| serde_json::from_str(&note).ok())
            .unwrap_or_default();
        Ok(Self {
            store,
            name,
            reached,
        })
    }

    /// Stores the progress. If this fails, the next import begins earlier, which is slower but not
    /// wrong. If two imports of the same file run at the same time, the notes of both are true.
    pub(super) async fn remember(&mut self, reached: Reached) {
        if let Ok(note) = serde_json::to_string(&reached)
            && self.replace(Some(&note)).await == Ok(true)
        {
            self.reached = reached;
        }
    }

    /// Removes the note, because the import is done.
    pub(super) async fn forget(&self) {
        // If this fails, the next import checks the note against the store.
        let _ = self.replace(None).await;
    }

    async fn replace(&self, new: Option<&str>) -> Result<bool, ()> {
        let Some(name) = &self.name else {
            return Ok(false);
        };
        let old = self.store.note(name).await.map_err(drop)?;
        let replaced = self.store.replace_note(name, old.as_deref(), new).await;
        replaced.map_err(drop)
    }
}
