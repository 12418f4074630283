use async_trait::async_trait;

use crate::{PassId, RegistrationStore, SerialNumber, StoreError, TypeIdentifier};

/// A digest of what a pass holds, whatever its signature: equal for equal content.
pub type ContentDigest = [u8; 32];

/// A store for several processes that each see the content of the same passes for themselves, as in a folder that they
/// share: it remembers which content was published last.
///
/// So a change that all of them notice is marked once, and one that has not seen the new content yet can tell, and does
/// not serve the old one under the new date.
#[async_trait]
pub trait PublishedContent: RegistrationStore {
    /// Marks the passes, as [`mark_updated`](RegistrationStore::mark_updated) does, whose content is not the one
    /// published last, and remembers it, in one step. Serial numbers stand once.
    ///
    /// A store that is a [`PushQueue`](crate::PushQueue) owes the pushes of what it marks in the same step.
    async fn publish(
        &self,
        type_id: &TypeIdentifier,
        contents: &[(SerialNumber, ContentDigest)],
    ) -> Result<(), StoreError>;

    /// The content that was published last; `None` if none ever was. Marks made otherwise don't change it.
    async fn published(&self, pass: &PassId) -> Result<Option<ContentDigest>, StoreError>;
}
