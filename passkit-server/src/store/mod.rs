//! The store traits [`RegistrationStore`], [`Coordination`] and [`ArchiveStore`] with their contract,
//! and a store in memory.

mod archives;
pub mod clock;
mod coordination;
mod memory;
mod published;
mod tag;

use std::{error::Error, fmt, time::SystemTime};

use async_trait::async_trait;

use crate::{
    PassId,
    identifiers::{DeviceIdentifier, PushToken, SerialNumber, TypeIdentifier},
};

pub use archives::{ARCHIVE_KEPT, ArchiveStore};
pub use coordination::{Claims, Coordination};
pub use memory::MemoryStore;
pub use published::{Content, ContentDigest, Published, unite_tokens};
pub use tag::UpdateTag;

/// A store for devices, their registrations and the update tags of passes.
///
/// # Contract
/// No update is ever lost, even with concurrent writes, and no device gets the same update again
/// and again. Every type has a *clock* and every device has a *clock*. A clock counts microseconds
/// since the Unix epoch. Each step of a clock is `max(last + 1, now)` ([`clock::next_version`]),
/// and the store serialises the steps. A mark writes the type's new clock reading into the pass. A
/// registration gets the device's new clock reading.
///
/// * **C1, complete.** [`changes_since`](Self::changes_since) returns a pass if the pass is
///   registered on the device, [`mark`](Self::mark) returned `Ok` before the call began, and the
///   tag does not cover the mark. If an answer lacks a change, the next call with the tag of that
///   answer returns it.
/// * **C2, quiet.** If there was no mark and no registration since a tag was returned, a call with
///   that tag returns nothing.
/// * **C3, a new registration counts.** If a pass was registered after a tag was issued, the next
///   answer for that tag has the pass, even if the pass itself is older. So a change between
///   download and registration is not missed.
/// * **C4, monotone.** Tags given to one device for one type never go backwards, in either part. An
///   answer with serial numbers never has the tag that the request had.
/// * **C5, every tag is accepted.** A tag ahead of the store's clocks
///   ([`UpdateTag::unless_ahead_of`]) counts as no tag: the answer has all registered passes of the
///   type.
/// * **C6, durable.** `register`, `unregister`, `mark` and `forget_device` return only when the
///   change is as durable as the store is configured to make it. By default, the change survives a
///   crash.
/// * **C7, over-reporting is allowed.** Each needless report of a pass costs a conditional GET. A
///   changed pass must never be left out.
/// * **C8, order at the source.** Callers change the pass first, then mark it, then push.
/// * **C9, marking a type is cheap.** [`Changed::All`] takes the same time for any number of
///   passes. Each device then gets every registration of the type once in its list.
/// * **C10, idempotent and free of races.** If identical `register` calls run in parallel, exactly
///   one returns [`Registered::Created`], the others return [`Registered::Existing`], and none
///   returns an error. If `register` and `unregister` of one registration run in parallel, the
///   result is as if one of them had run after the other. Every `register` stores the push token.
/// * **C11, paged.** [`devices`](Self::devices) returns pages. A device that registers while the
///   pages are read may be missing. A device that was registered the whole time is never missing.
/// * **C12, cancel-safe.** See below.
/// * **C13, forget with a time.** See [`forget_device`](Self::forget_device).
/// * **C14, dates.** [`PassState::last_modified`] is strictly greater after every mark of the pass,
///   including [`Changed::All`], and never changes otherwise. A pass that was never marked has the
///   time of the store's creation.
///
/// The following rules are for [`Changed::Contents`], which is for sources that serve copies:
///
/// * **P1, marked once.** If several callers publish the same content, even in parallel, the pass
///   is marked once.
/// * **P2, an equal digest does not count as a change.** A pass is marked if and only if its digest
///   is not the one published last.
/// * **P3, one step.** For each pass, digest, tokens and mark become visible and durable in one
///   step. In a [`PushQueue`](crate::push::PushQueue), the pending push is part of the same step.
/// * **P4, other marks keep the digest.** [`Changed::Passes`] and [`Changed::All`] don't change it.
/// * **P5, tokens stay.** New tokens are added to the earlier ones, and the last
///   [`Published::MAX_TOKENS`] are kept ([`unite_tokens`]). Content without a digest says that the
///   pass was removed. It does not mark the pass, and the digest and tokens stay. Publishing
///   content again ends the removal, even if the digest is the same.
/// * **P6, durable.** C6 applies to publishing.
///
/// # Cancel safety
/// If a future is dropped, the store is as before or as after the call, never in between. A call
/// for many passes may take several steps. The rule then holds for each pass.
///
/// # Errors
/// Every method fails with a [`StoreError`] whose [kind](StoreErrorKind) shows whether a retry may
/// help. If a call that writes returns an error, the change may or may not have happened. It is
/// always safe to repeat the call.
///
/// # Implementing
/// [`MemoryStore`] implements the contract in one short file. Start from it. Order matters in
/// `changes_since`: read the clocks for the new tag in the same snapshot as the passes, or before
/// the passes.
///
/// C9 and C14 together need a *floor* for each type: the version and date of its last
/// [`Changed::All`]. The floor applies to every pass whose own version is older. The date of a
/// floor must be greater than the date of any pass, so store the latest date that any pass of the
/// type ever got.
///
/// Read the wall clock for a clock step only while you hold the lock that serialises the clock.
/// Processes may share a clock even if their wall clocks differ: `max(last + 1, now)` never goes
/// back.
///
/// A device's clock must not go back if the device is removed and registers again (C4). A store may
/// delete the clock of a removed device, because a reading that is taken after the removal is
/// greater, unless the wall clock was set back. A reading from before the removal must not be used.
/// For example, a registration that waits for the lock must not keep a reading that it took before.
///
/// `&T`, `Box<T>` and `Arc<T>` implement the trait if `T` does, so `Arc<dyn RegistrationStore>` is
/// a store.
#[async_trait]
pub trait RegistrationStore: Send + Sync {
    /// Registers `device` for `pass`, and stores `push_token` for the device. The token is then
    /// used for all registrations of the device.
    ///
    /// Each call steps the device's clock and gives the registration the new reading, even if the
    /// registration already existed (C3).
    async fn register(
        &self,
        device: &DeviceIdentifier,
        pass: &PassId,
        push_token: &PushToken,
    ) -> Result<Registered, StoreError>;

    /// Removes the registration. If it was the device's last one, removes the device too. Returns
    /// whether there was a registration. A missing registration is not an error.
    async fn unregister(
        &self,
        device: &DeviceIdentifier,
        pass: &PassId,
    ) -> Result<bool, StoreError>;

    /// Returns the serial numbers of type `type_id` on `device` that changed or were registered
    /// after `since`. If `since` is `None`, it returns all of them. Each serial number occurs once.
    ///
    /// An unknown device, or a device without passes of the type, has no changes. That is not an
    /// error.
    async fn changes_since(
        &self,
        device: &DeviceIdentifier,
        type_id: &TypeIdentifier,
        since: Option<UpdateTag>,
    ) -> Result<Changes, StoreError>;

    /// Returns the version and date of a pass, and the digest that was published last. An unknown
    /// pass has the state of a pass that was never marked.
    async fn pass_state(&self, pass: &PassId) -> Result<PassState, StoreError>;

    /// Marks passes of a type as changed. The passes may be unknown to the store.
    ///
    /// Call it only when the new content can be fetched (C8).
    async fn mark(&self, type_id: &TypeIdentifier, changed: Changed<'_>) -> Result<(), StoreError>;

    /// Returns what was published of these passes, with one entry for each, in the same order.
    /// `None` stands for a pass that was never published.
    ///
    /// The service calls this method only if the source does not accept the token of a request.
    /// `passes` are then the few passes that the path may name.
    async fn published(&self, passes: &[PassId]) -> Result<Vec<Option<Published>>, StoreError>;

    /// Returns a page of the devices registered for a pass, or for any pass of a type. The page has
    /// about `limit` devices or fewer. It starts at the beginning, or after the page that ended at
    /// `after`.
    ///
    /// A device may occur more than once, even on two pages. An empty page may have a
    /// [`next`](Page::next). With a cursor that the store never gave, the list starts at the
    /// beginning. No cursor causes an error. A limit of 0 counts as 1, here and in every other
    /// list.
    async fn devices(
        &self,
        audience: Audience<'_>,
        after: Option<&PageCursor>,
        limit: usize,
    ) -> Result<Page<RegisteredDevice>, StoreError>;

    /// Returns how many devices are registered for `pass`. A store may stop counting at `at_most`.
    /// It reads at most about that many entries.
    ///
    /// If a store keeps its index apart from the registrations, it may also count entries that an
    /// interrupted call left behind, until its repair removes them. The result is then too high,
    /// but never too low.
    async fn count_devices(&self, pass: &PassId, at_most: u64) -> Result<u64, StoreError>;

    /// Removes `device` and its registrations if the device last registered at or before
    /// `unregistered_at`. That is the time at which its push token went out of use according to
    /// APNs. Returns whether the device was removed. A device that registered after that time
    /// stays.
    ///
    /// Source: Apple's *Handling notification responses from APNs*, status 410.
    async fn forget_device(
        &self,
        device: &DeviceIdentifier,
        unregistered_at: SystemTime,
    ) -> Result<bool, StoreError>;
}

macro_rules! forward {
    ($pointer:ty, $t:ident) => {
        #[async_trait]
        impl<$t: RegistrationStore + ?Sized> RegistrationStore for $pointer {
            async fn register(
                &self,
                device: &DeviceIdentifier,
                pass: &PassId,
                push_token: &PushToken,
            ) -> Result<Registered, StoreError> {
                (**self).register(device, pass, push_token).await
            }

            async fn unregister(
                &self,
                device: &DeviceIdentifier,
                pass: &PassId,
            ) -> Result<bool, StoreError> {
                (**self).unregister(device, pass).await
            }

            async fn changes_since(
                &self,
                device: &DeviceIdentifier,
                type_id: &TypeIdentifier,
                since: Option<UpdateTag>,
            ) -> Result<Changes, StoreError> {
                (**self).changes_since(device, type_id, since).await
            }

            async fn pass_state(&self, pass: &PassId) -> Result<PassState, StoreError> {
                (**self).pass_state(pass).await
            }

            async fn mark(
                &self,
                type_id: &TypeIdentifier,
                changed: Changed<'_>,
            ) -> Result<(), StoreError> {
                (**self).mark(type_id, changed).await
            }

            async fn published(
                &self,
                passes: &[PassId],
            ) -> Result<Vec<Option<Published>>, StoreError> {
                (**self).published(passes).await
            }

            async fn devices(
                &self,
                audience: Audience<'_>,
                after: Option<&PageCursor>,
                limit: usize,
            ) -> Result<Page<RegisteredDevice>, StoreError> {
                (**self).devices(audience, after, limit).await
            }

            async fn count_devices(&self, pass: &PassId, at_most: u64) -> Result<u64, StoreError> {
                (**self).count_devices(pass, at_most).await
            }

            async fn forget_device(
                &self,
                device: &DeviceIdentifier,
                unregistered_at: SystemTime,
            ) -> Result<bool, StoreError> {
                (**self).forget_device(device, unregistered_at).await
            }
        }
    };
}

forward!(&T, T);
forward!(Box<T>, T);
forward!(std::sync::Arc<T>, T);

/// Which passes of a type have changed.
#[derive(Clone, Copy, Debug)]
pub enum Changed<'a> {
    /// The passes with these serial numbers. A serial number may occur twice. An empty slice does
    /// nothing.
    Passes(&'a [SerialNumber]),
    /// Passes with their current content. The store marks those whose content differs from what was
    /// published last (P1 to P6). Each serial number should occur once. If one occurs more often,
    /// the store may use any of its entries. An empty slice does nothing.
    Contents(&'a [Content]),
    /// All passes of the type (C9), for example because their design changed or a backup was
    /// restored.
    All,
}

/// Which devices to read: the devices of a pass, or of a type.
#[derive(Clone, Copy, Debug)]
pub enum Audience<'a> {
    /// The devices that are registered for this pass.
    Pass(&'a PassId),
    /// The devices that are registered for at least one pass of this type.
    Type(&'a TypeIdentifier),
}

/// Whether a registration is new or already existed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registered {
    /// The device was not registered for the pass before: HTTP 201.
    Created,
    /// The registration existed: HTTP 200.
    Existing,
}

/// The answer to "what changed?".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes {
    /// The serial numbers to fetch, each once, in no particular order.
    pub serials: Vec<SerialNumber>,
    /// The tag that covers these changes. If there are no serial numbers, the device keeps its old
    /// tag.
    pub tag: UpdateTag,
}

/// The version and date of a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PassState {
    /// The type's clock reading at the last change, in microseconds since the Unix epoch. 0 if the
    /// pass never changed.
    pub version: u64,
    /// The date of the last change, in whole seconds since the Unix epoch. It may be later than the
    /// wall clock if a pass changes more than once a second (C14).
    pub last_modified: u64,
    /// The digest of the content that was published last. `None` if none was published.
    pub published: Option<ContentDigest>,
}

/// A page of a long list.
#[derive(Clone, Debug)]
pub struct Page<T> {
    /// The items on the page.
    pub items: Vec<T>,
    /// Where the next page starts. `None` on the last page.
    pub next: Option<PageCursor>,
}

impl<T> Page<T> {
    /// Makes a page of items that were read with this limit. If there are as many items as the
    /// limit, the next page starts after the last item.
    pub fn up_to(limit: usize, items: Vec<T>, position: impl FnOnce(&T) -> PageCursor) -> Self {
        let next = items
            .last()
            .filter(|_| items.len() >= limit.max(1))
            .map(position);
        Self { items, next }
    }
}

/// An empty last page.
impl<T> Default for Page<T> {
    fn default() -> Self {
        Self {
            items: Vec::new(),
            next: None,
        }
    }
}

/// A device with its push token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisteredDevice {
    /// The device.
    pub device: DeviceIdentifier,
    /// The push token of its last registration.
    pub push_token: PushToken,
}

/// The position where a page ends. Only the store that made a cursor can read it.
#[derive(Clone, PartialEq, Eq)]
pub struct PageCursor(String);

impl PageCursor {
    /// Makes a cursor from a position that the store can find again.
    #[must_use]
    pub fn new(position: impl Into<String>) -> Self {
        Self(position.into())
    }

    /// Returns the position.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Shows no position, because a position may be a device identifier.
impl fmt::Debug for PageCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PageCursor(redacted)")
    }
}

/// An error of a store.
///
/// Its [`source`](Error::source) is the store's own error. The source of that error is the error of
/// the driver. To get either, walk the chain and downcast.
///
/// The service answers a [transient](Self::is_transient) error with 503 and `Retry-After`, and any
/// other error with 500. The body is empty, and the details go to the log.
#[derive(Debug)]
pub struct StoreError {
    kind: StoreErrorKind,
    source: Box<dyn Error + Send + Sync>,
}

/// The kind of a [`StoreError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreErrorKind {
    /// The storage can't be reached or written now: lost connection, timeout, full disk.
    Unavailable,
    /// The storage refused the call because of another write at the same time.
    Conflict,
    /// The stored data can't be read.
    Corrupt,
    /// The storage is not set up: missing rights, missing schema, or in use by another process.
    Configuration,
    /// Anything else.
    Other,
}

impl StoreError {
    /// Makes an error of this kind. `source` may be a text.
    pub fn new(kind: StoreErrorKind, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            kind,
            source: source.into(),
        }
    }

    /// Returns the kind.
    #[must_use]
    pub fn kind(&self) -> StoreErrorKind {
        self.kind
    }

    /// Returns whether the same call may succeed a little later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(
            self.kind,
            StoreErrorKind::Unavailable | StoreErrorKind::Conflict
        )
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            StoreErrorKind::Unavailable => "the store is unavailable",
            StoreErrorKind::Conflict => "the store met a conflicting write",
            StoreErrorKind::Corrupt => "the store holds something unreadable",
            StoreErrorKind::Configuration => "the store is not set up",
            StoreErrorKind::Other => "the store failed",
        })
    }
}

impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_returns_its_position_and_debug_hides_it() {
        let cursor = PageCursor::new("device-1");
        assert_eq!(cursor.as_str(), "device-1");
        assert_eq!(format!("{cursor:?}"), "PageCursor(redacted)");
    }

    #[test]
    fn an_error_shows_its_kind_and_its_source_shows_the_detail() {
        let mut texts = Vec::new();
        for kind in [
            StoreErrorKind::Unavailable,
            StoreErrorKind::Conflict,
            StoreErrorKind::Corrupt,
            StoreErrorKind::Configuration,
            StoreErrorKind::Other,
        ] {
            let error = StoreError::new(kind, "detail");
            let text = error.to_string();
            assert!(
                text.starts_with("the store ") && !text.contains("detail"),
                "{text}"
            );
            assert_eq!(
                error.source().map(ToString::to_string).as_deref(),
                Some("detail")
            );
            texts.push(text);
        }
        texts.sort_unstable();
        texts.dedup();
        assert_eq!(texts.len(), 5, "{texts:?}");
    }
}
