use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::{
    PassId,
    store::{ContentDigest, RegistrationStore, StoreError},
};

/// The minimum time for which an archive is kept after it was put.
pub const ARCHIVE_KEPT: Duration = Duration::from_secs(3600);

/// Keeps archives for all instances that share the store.
///
/// [`StoredArchives`](crate::source::StoredArchives) serves them. To add an archive, put it, and then publish its digest with
/// [`Changed::Contents`](crate::Changed::Contents). Publish within [`ARCHIVE_KEPT`] after the call of `put_archive`, or put
/// the archive again. Then the archive that was published last is always in the store. If two archives of a pass are added at
/// the same time, all instances serve the one that is published later.
///
/// # Contract
/// * **A1, as it was put.** [`archive`](Self::archive) returns the bytes that were last put for this pass and this digest. It
///   returns `None` if there are none.
/// * **A2, kept.** An archive is kept for at least [`ARCHIVE_KEPT`] after it was put. The archive whose digest was published
///   last is kept for as long as the pass. When another archive of the pass is put, the store removes all archives of the
///   pass that it need not keep.
/// * **A3, durable.** C6 applies to [`put_archive`](Self::put_archive).
/// * **A4, forgotten.** [`forget_pass`](crate::maintenance::StoreMaintenance::forget_pass) removes all archives of the pass.
///
/// # Cancel safety
/// A dropped call took effect completely or not at all.
///
/// # Errors
/// The errors are the same as for [`RegistrationStore`]. It is always safe to repeat a call.
///
/// # Implementing
/// `put_archive` may read the published digest first, in another transaction. Remove the archives with another digest that
/// were put more than [`ARCHIVE_KEPT`] ago. Compare their time and remove them in one step, because the same archive may be
/// put again in between. Measure the time with the clock of the database, if several machines use it.
#[async_trait]
pub trait ArchiveStore: RegistrationStore {
    /// Keeps an archive of `pass`. `content` is the digest that will be published. Replaces an archive of the pass with the
    /// same digest.
    async fn put_archive(
        &self,
        pass: &PassId,
        content: &ContentDigest,
        archive: Bytes,
    ) -> Result<(), StoreError>;

    /// Returns the archive of `pass` with this content.
    async fn archive(
        &self,
        pass: &PassId,
        content: &ContentDigest,
    ) -> Result<Option<Bytes>, StoreError>;
}

macro_rules! forward {
    ($pointer:ty, $t:ident) => {
        #[async_trait]
        impl<$t: ArchiveStore + ?Sized> ArchiveStore for $pointer {
            async fn put_archive(
                &self,
                pass: &PassId,
                content: &ContentDigest,
                archive: Bytes,
            ) -> Result<(), StoreError> {
                (**self).put_archive(pass, content, archive).await
            }

            async fn archive(
                &self,
                pass: &PassId,
                content: &ContentDigest,
            ) -> Result<Option<Bytes>, StoreError> {
                (**self).archive(pass, content).await
            }
        }
    };
}

forward!(&T, T);
forward!(Box<T>, T);
forward!(std::sync::Arc<T>, T);
