//! What an archive says about updates, and what changed since another version of it.

use std::path::Path;

use passkit_archive::{ArchiveFile, ChangeSummary, Changes, PassFiles, Report, Rules};
use passkit_server::PassId;

const DAMAGED: &str = "is not a pass or an order, or is damaged";

/// What the archive of a pass says about updates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) digest: [u8; 32],
    pub(crate) web_service_url: Option<String>,
    pub(crate) has_token: bool,
    /// The keys of the fields that have a `changeMessage`.
    pub(crate) messages: Vec<String>,
    /// What changed since the previous version, if that version is known.
    pub(crate) changes: Option<ChangeSummary>,
}

/// A version of a pass, in a file.
pub(crate) struct Version {
    pub(crate) id: PassId,
    bytes: Vec<u8>,
    content: Content,
}

impl Version {
    /// Reads an archive file, whether or not it is signed.
    pub(crate) fn open(path: &Path) -> Result<Self, String> {
        let cannot_read = |error: std::io::Error| format!("can't be read: {error}");
        // A file that is too large is not read.
        ArchiveFile::open(path)
            .map_err(cannot_read)?
            .ok_or(DAMAGED)?;
        Self::read(std::fs::read(path).map_err(cannot_read)?)
    }

    /// Reads an archive, whether or not it is signed.
    pub(crate) fn read(bytes: Vec<u8>) -> Result<Self, String> {
        let archive = Report::of(&bytes, Rules::development()).archive;
        let archive = archive.ok_or(DAMAGED)?;
        let files = PassFiles::of_archive(&bytes).map_err(|_| DAMAGED)?;
        let messages = files.fields_with_messages().ok_or(DAMAGED)?;
        Ok(Self {
            id: archive.id,
            bytes,
            content: Content {
                digest: archive.content_digest,
                web_service_url: archive.web_service_url,
                has_token: archive.auth_token.is_some(),
                messages,
                changes: None,
            },
        })
    }

    /// Returns what the version says. If the previous version is known, compares the two.
    pub(crate) fn content(self, previous: Option<&Self>) -> Content {
        let changes = previous.and_then(|previous| Changes::between(&previous.bytes, &self.bytes));
        Content {
            changes: changes.map(|changes| changes.summary()),
            ..self.content
        }
    }
}

impl Content {
    /// Returns whether phones that have the archive register at a web service.
    pub(crate) fn has_service(&self) -> bool {
        self.web_service_url.is_some() && self.has_token
    }
}
