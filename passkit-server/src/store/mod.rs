//! Stores: the contract of [`RegistrationStore`] and [`Coordination`], and a store in memory.

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

pub use coordination::{Claims, Coordination};
pub use memory::MemoryStore;
pub use published::{Content, ContentDigest, Published, unite_tokens};
pub use tag::UpdateTag;

/// Where devices, their registrations and the update tags of passes are kept.
///
/// # Contract
/// No update is ever lost, whatever writes at the same time, and nothing is sent again forever. Every type has a *clock*
/// and every device has a *clock*. A clock counts microseconds since the Unix epoch; each step is `max(last + 1, now)`
/// ([`clock::next_version`](crate::store::clock::next_version)), serialised by the store. A mark writes the type's new clock
/// reading into the pass. A registration holds the device's.
///
/// * **C1, complete.** If [`mark`](Self::mark) returned `Ok` before [`changes_since`](Self::changes_since) began, the pass
///   is registered on the device, and the tag does not cover the mark, then the pass is in the answer. What one answer
///   misses is in the next one, asked with the tag that the first one carried.
/// * **C2, quiet.** With no mark and no registration in between, asking with the returned tag gives nothing.
/// * **C3, a new registration counts.** A pass that was registered after a tag was issued is in the next answer for that
///   tag, even if the pass itself is older. A change between download and registration is not missed.
/// * **C4, monotone.** Tags given to one device for one type never go backwards, in either part. An answer that has
///   serial numbers never carries the tag it was asked with.
/// * **C5, no tag is an error.** A tag ahead of the store's clocks ([`UpdateTag::unless_ahead_of`]) is answered as if
///   there were none: with all registered passes of the type.
/// * **C6, durable.** `register`, `unregister`, `mark` and `forget_device` return after the change is as durable as the
///   store is configured to make it. The default is durable.
/// * **C7, over-reporting is allowed.** Reporting a pass too often costs a conditional GET. Leaving one out is never
///   allowed.
/// * **C8, order at the source.** Callers change the pass first, then mark it, then push.
/// * **C9, marking a type is cheap.** [`Changed::All`] takes the same time for any number of passes, and reports every
///   registration of the type once to each device.
/// * **C10, idempotent and free of races.** Of any number of parallel identical `register` calls exactly one returns
///   [`Registered::Created`], the others [`Registered::Existing`], and none an error. Parallel `register` and `unregister`
///   of one registration end as one of the two orders would. Every `register` stores the push token.
/// * **C11, paged.** [`devices`](Self::devices) are read in pages. One that is registered while the pages are read may be
///   missing; one that was registered throughout may not.
/// * **C12, cancel-safe.** See below.
/// * **C13, forget with a time.** See [`forget_device`](Self::forget_device).
/// * **C14, dates.** [`PassState::last_modified`] is strictly greater after every mark of the pass, [`Changed::All`]
///   included, and never moves otherwise. A pass that was never marked has the time of the store's creation.
///
/// Sources that serve copies publish contents, with [`Changed::Contents`]:
///
/// * **P1, marked once.** However many callers publish one content, also in parallel, the pass is marked once.
/// * **P2, an equal digest marks nothing.** A pass is marked if and only if its digest is not the one published last.
/// * **P3, one step.** Of each pass, digest, tokens, mark and, in a [`PushQueue`](crate::push::PushQueue), the pending push become visible and
///   durable together.
/// * **P4, other marks keep the digest.** [`Changed::Passes`] and [`Changed::All`] leave it alone.
/// * **P5, tokens stay.** New tokens join those known; the last [`Published::MAX_TOKENS`] are kept
///   ([`unite_tokens`](crate::store::unite_tokens)). A removal marks nothing and keeps digest and tokens.
///   Content that comes back is published again, also with the same digest: that ends the removal.
/// * **P6, durable.** As C6 says of marks.
///
/// # Cancel safety
/// A future that is dropped half way leaves the store as before or as after the call, never in between. A call for many
/// passes may be made in steps. The rule then holds for each pass.
///
/// # Errors
/// Every method fails with a [`StoreError`] whose [kind](StoreErrorKind) says whether trying again may help. After an
/// error of a call that writes, the change may or may not have happened. Repeating the call is always right.
///
/// # Implementing
/// [`MemoryStore`](crate::store::MemoryStore) is the whole contract in one short file: start from it. Mind the order inside
/// `changes_since`: read the clocks that make the new tag in the same snapshot as the passes, or before them.
///
/// C9 and C14 together take a *floor* of each type: the version and date of its last mark as a whole, which count for every
/// pass whose own are older. The date of a floor must be greater than that of any pass, so keep the latest date that a pass
/// of the type ever got. Read the time of a new clock reading while you hold what serialises the clock, and never before.
/// Processes whose wall clocks differ may share a clock, because `max(last + 1, now)` keeps their order.
///
/// `&T`, `Box<T>` and `Arc<T>` implement the trait where `T` does, so `Arc<dyn RegistrationStore>` is a store.
#[async_trait]
pub trait RegistrationStore: Send + Sync {
    /// Registers `device` for `pass`, and stores `push_token` for the device and so for all of its registrations.
    ///
    /// Advances the device's clock and gives the registration its reading, also when it existed (C3).
    async fn register(
        &self,
        device: &DeviceIdentifier,
        pass: &PassId,
        push_token: &PushToken,
    ) -> Result<Registered, StoreError>;

    /// Removes the registration, and the device with its last one. Returns whether there was a registration. It is no
    /// error if there was none.
    async fn unregister(&self, device: &DeviceIdentifier, pass: &PassId) -> Result<bool, StoreError>;

    /// The serial numbers of type `type_id` registered on `device` that changed, or were registered, after `since`; all of
    /// them if `since` is `None`. Each serial number occurs once.
    ///
    /// A device that is unknown, or has nothing of the type, has no changes. That is no error.
    async fn changes_since(
        &self,
        device: &DeviceIdentifier,
        type_id: &TypeIdentifier,
        since: Option<UpdateTag>,
    ) -> Result<Changes, StoreError>;

    /// The version and date of a pass, and the content published last. A pass that is not known has a state as well: that
    /// of one never marked.
    async fn pass_state(&self, pass: &PassId) -> Result<PassState, StoreError>;

    /// Marks passes of a type as changed. They need not be known, nor registered anywhere.
    ///
    /// Call it after the new content can be fetched, never before (C8).
    async fn mark(&self, type_id: &TypeIdentifier, changed: Changed<'_>) -> Result<(), StoreError>;

    /// What is remembered of these passes, one entry each, in their order. `None` for a pass that was never published.
    ///
    /// The service asks for the few passes that one path may name, and only if the source accepts no token.
    async fn published(&self, passes: &[PassId]) -> Result<Vec<Option<Published>>, StoreError>;

    /// A page of the devices registered for a pass, or for any pass of a type: about `limit` of them, or fewer, from the
    /// start or `after` a page.
    ///
    /// A device may occur more than once, also in two pages. A page may be empty and yet have a [`next`](Page::next). A
    /// cursor that can't be one of the store's reads from the start; no cursor is an error. A limit of 0 counts as 1, here
    /// and in every other list.
    async fn devices(
        &self,
        audience: Audience<'_>,
        after: Option<&PageCursor>,
        limit: usize,
    ) -> Result<Page<RegisteredDevice>, StoreError>;

    /// How many devices are registered for `pass`. A store may stop counting at `at_most`, and reads no more than about
    /// that many.
    async fn count_devices(&self, pass: &PassId, at_most: u64) -> Result<u64, StoreError>;

    /// Removes `device` and its registrations if it last registered at or before `unregistered_at`, the time at which APNs
    /// says that its push token went out of use. Returns whether it was removed. A device that is unknown, or registered
    /// since, is left alone.
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

            async fn unregister(&self, device: &DeviceIdentifier, pass: &PassId) -> Result<bool, StoreError> {
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

            async fn mark(&self, type_id: &TypeIdentifier, changed: Changed<'_>) -> Result<(), StoreError> {
                (**self).mark(type_id, changed).await
            }

            async fn published(&self, passes: &[PassId]) -> Result<Vec<Option<Published>>, StoreError> {
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
    /// These. A serial number may occur twice. An empty slice does nothing.
    Passes(&'a [SerialNumber]),
    /// Those of these whose content is not the one published last (P1 to P6). Each serial number occurs once; if it does
    /// not, the store may take any of its contents. An empty slice does nothing.
    Contents(&'a [Content]),
    /// All of them (C9): their design changed, or a backup was restored.
    All,
}

/// Whose devices to read.
#[derive(Clone, Copy, Debug)]
pub enum Audience<'a> {
    /// The devices that are registered for this pass.
    Pass(&'a PassId),
    /// The devices that are registered for at least one pass of this type.
    Type(&'a TypeIdentifier),
}

/// Whether a registration is new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registered {
    /// The device was not registered for the pass before: HTTP 201.
    Created,
    /// It was: HTTP 200.
    Existing,
}

/// The answer to "what changed?".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes {
    /// The serial numbers to fetch, each once, in no particular order.
    pub serials: Vec<SerialNumber>,
    /// The tag that covers them. Of no meaning to a device when there are no serials: it then keeps the one it has.
    pub tag: UpdateTag,
}

/// The version and date of a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PassState {
    /// The type's clock at the last change, in microseconds since the Unix epoch; 0 if there was none.
    pub version: u64,
    /// The date of the last change in whole seconds since the Unix epoch, which may lie ahead of the wall clock when
    /// a pass changes more than once a second (C14).
    pub last_modified: u64,
    /// The digest of the content that was published last; `None` if none ever was.
    pub published: Option<ContentDigest>,
}

/// A part of a long list.
#[derive(Clone, Debug)]
pub struct Page<T> {
    /// What is on the page.
    pub items: Vec<T>,
    /// Where the next page starts; `None` after the last.
    pub next: Option<PageCursor>,
}

impl<T> Page<T> {
    /// A page of a list that was read up to `limit` items: if it is full, another one starts at the position of its last
    /// item.
    pub fn up_to(limit: usize, items: Vec<T>, position: impl FnOnce(&T) -> PageCursor) -> Self {
        let next = items.last().filter(|_| items.len() >= limit.max(1)).map(position);
        Self { items, next }
    }
}

/// An empty page, with none behind it.
impl<T> Default for Page<T> {
    fn default() -> Self {
        Self { items: Vec::new(), next: None }
    }
}

/// A device, and where its pushes go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisteredDevice {
    /// The device.
    pub device: DeviceIdentifier,
    /// The push token of its last registration.
    pub push_token: PushToken,
}

/// Where a page ends. Opaque: only the store that made it can read it.
#[derive(Clone, PartialEq, Eq)]
pub struct PageCursor(String);

impl PageCursor {
    /// Takes what the store will want to find again.
    #[must_use]
    pub fn new(position: impl Into<String>) -> Self {
        Self(position.into())
    }

    /// What the store put in.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Shows nothing: a position may be a device identifier.
impl fmt::Debug for PageCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PageCursor(redacted)")
    }
}

/// Why a store could not do what it was asked.
///
/// Its [`source`](Error::source) is the store's own error, with that of the driver as its source in turn: walk the chain
/// and downcast to get at it.
///
/// The service answers a [transient](Self::is_transient) error with 503 and `Retry-After`, any other with 500, both
/// with an empty body; the details go to the log.
#[derive(Debug)]
pub struct StoreError {
    kind: StoreErrorKind,
    source: Box<dyn Error + Send + Sync>,
}

/// What sort of failure a [`StoreError`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreErrorKind {
    /// The storage cannot be reached or written just now: connection lost, time-out, disk full.
    Unavailable,
    /// The storage refused because others wrote at the same time.
    Conflict,
    /// What is stored cannot be read.
    Corrupt,
    /// The storage is not set up as it must be: no rights, no schema, in use by another process.
    Configuration,
    /// Anything else.
    Other,
}

impl StoreError {
    /// An error of this kind. `source` may be a text.
    pub fn new(kind: StoreErrorKind, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { kind, source: source.into() }
    }

    /// What sort of failure it is.
    #[must_use]
    pub fn kind(&self) -> StoreErrorKind {
        self.kind
    }

    /// Whether the same call may succeed a little later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self.kind, StoreErrorKind::Unavailable | StoreErrorKind::Conflict)
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
    fn a_cursor_gives_back_what_was_put_in_and_shows_none_of_it() {
        let cursor = PageCursor::new("device-1");
        assert_eq!(cursor.as_str(), "device-1");
        assert_eq!(format!("{cursor:?}"), "PageCursor(redacted)");
    }

    #[test]
    fn an_error_says_its_kind_and_leaves_the_detail_to_its_source() {
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
            assert!(text.starts_with("the store ") && !text.contains("detail"), "{text}");
            assert_eq!(error.source().map(ToString::to_string).as_deref(), Some("detail"));
            texts.push(text);
        }
        texts.sort_unstable();
        texts.dedup();
        assert_eq!(texts.len(), 5, "{texts:?}");
    }
}
