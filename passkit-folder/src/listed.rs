use std::sync::Arc;

use passkit_server::{identifiers::TokenDigest, service::Prefix, store::ContentDigest};

/// What is known about a pass without reading its archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    /// The last tokens of the pass, the newest at the end. Copies on phones may have an old one.
    pub(crate) tokens: Box<[TokenDigest]>,
    /// The digest of the files in the archive, without the signature. The pass has changed if this
    /// digest has.
    pub(crate) content: ContentDigest,
    /// Whether the store lacks the last change.
    pub(crate) unmarked: bool,
    /// Whether phones may have fetched this content with the `Last-Modified` of other content. The
    /// section "Several instances" of the crate docs says how.
    pub(crate) misdated: bool,
    /// The file that the pass was last read from.
    pub(crate) path: Arc<str>,
    pub(crate) withdrawn: bool,
    /// The path of its `webServiceURL`. `None` if it has none.
    pub(crate) prefix: Option<Arc<Prefix>>,
}

impl Listed {
    /// Records that the store has the last change.
    pub(crate) fn set_marked(&mut self) {
        self.unmarked = false;
        self.misdated = false;
    }
}
