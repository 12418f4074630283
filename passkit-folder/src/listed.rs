use std::sync::Arc;

use passkit_server::{identifiers::TokenDigest, service::Prefix, store::ContentDigest};

/// What is known of a pass without reading its archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    /// The last tokens of the pass, the newest at the end: copies on phones may have an old one.
    pub(crate) tokens: Box<[TokenDigest]>,
    /// The digest of what its files hold, whatever the signature: the pass has changed when this has.
    pub(crate) content: ContentDigest,
    /// The store does not have the last change yet.
    pub(crate) unmarked: bool,
    /// Phones may have a copy of this pass under the date of other content.
    pub(crate) misdated: bool,
    /// The file it came from last.
    pub(crate) path: Arc<str>,
    pub(crate) withdrawn: bool,
    /// The path of its `webServiceURL`. `None` if it has none.
    pub(crate) prefix: Option<Arc<Prefix>>,
}

impl Listed {
    /// The store has the last change.
    pub(crate) fn set_marked(&mut self) {
        self.unmarked = false;
        // A removal marks nothing.
        self.misdated &= self.withdrawn;
    }
}
