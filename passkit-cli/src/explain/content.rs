//! What an archive says about updates, and what changed since another version of the pass.

use std::path::Path;

use passkit_archive::{
    ChangeSummary, Changes, MAX_ARCHIVE_BYTES, Report, Rules, fields_with_messages,
};
use passkit_server::PassId;

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
        let size = std::fs::metadata(path).map_err(cannot_read)?.len();
        if size > MAX_ARCHIVE_BYTES as u64 {
            return Err("is too large for a pass or an order".to_owned());
        }
        Self::of_bytes(std::fs::read(path).map_err(cannot_read)?)
            .ok_or_else(|| "is not a pass or an order, or is damaged".to_owned())
    }

    /// Reads an archive, whether or not it is signed. Returns `None` if it is damaged.
    pub(crate) fn of_bytes(bytes: Vec<u8>) -> Option<Self> {
        let messages = fields_with_messages(&bytes)?;
        let archive = Report::of(&bytes, Rules::development()).archive?;
        Some(Self {
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
