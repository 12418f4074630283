use std::{error::Error, fmt, time::SystemTime};

use async_trait::async_trait;

use crate::{DeviceIdentifier, PassId, PushToken, SerialNumber, TypeIdentifier, UpdateTag};

/// Where devices, their registrations and the passes' update tags are kept.
///
/// # Contract
/// The promise to a user is: no update is ever lost, whatever writes at the same time, and nothing is sent again for
/// ever. Every type has a *clock* and every device has a *clock*, in microseconds since the Unix epoch, each step
/// being `max(last + 1, now)` ([`clock::next_version`](crate::clock::next_version)) under the store's own
/// serialisation. A mark writes the type's new clock reading into the pass; a registration holds the device's.
///
/// * **C1, complete.** If [`mark_updated`](Self::mark_updated) returned `Ok` before
///   [`updated_since`](Self::updated_since) began, the pass is registered on the device, and the mark is not covered
///   by the tag, then the pass is in the answer. What one answer misses, the next one, asked with the tag that it
///   carried, has.
/// * **C2, quiet.** With no mark and no registration in between, asking with the returned tag gives nothing.
/// * **C3, a new registration counts.** A pass that was registered after a tag was issued is in the next answer for
///   that tag, even if the pass itself is older: a change between download and registration is not missed.
/// * **C4, monotone.** Tags given to one device for one type never go backwards, in either part. An answer that has
///   serials never carries the very tag it was asked with.
/// * **C5, no tag is an error.** A tag ahead of the store's clocks
///   ([`UpdateTag::unless_ahead_of`]) is answered as if there were none: with all registered passes of the type.
/// * **C6, durable.** `register`, `unregister`, `mark_updated`, `mark_all_updated` and `forget_device` return after
///   the change is as durable as the store is configured to make it, and the default is durable.
/// * **C7.** Over-reporting a pass is allowed (it costs a conditional GET), under-reporting never.
/// * **C8, order at the source.** Callers change the pass first, then mark it, then push.
/// * **C9.** [`mark_all_updated`](Self::mark_all_updated) takes the same time for any number of passes, and reports
///   every registration of the type once to each device.
/// * **C10, idempotent and free of races.** Of any number of parallel identical `register` calls exactly one returns
///   [`Registered::Created`], the others [`Registered::Existing`], and none an error. Parallel `register` and
///   `unregister` of one registration end as one of the two orders would. Every `register` stores the push token.
/// * **C11, paged.** [`devices_of`](Self::devices_of) reads a pass's devices in pages; one that is registered while
///   the pages are read may be missing, one that was registered throughout may not.
/// * **C12, cancel-safe.** See below.
/// * **C13, forget with a time.** See [`forget_device`](Self::forget_device).
/// * **C14, dates.** [`PassState::last_modified`] is strictly greater after every mark of the pass
///   (`mark_all_updated` included) and never moves otherwise. A pass that was never marked has the time of the
///   store's creation.
///
/// # Cancel safety
/// A future that is dropped half way leaves the store as before or as after the call, never in between.
///
/// # Errors
/// Every method fails with a [`StoreError`] whose [kind](StoreErrorKind) says whether trying again may help. After an
/// error of a call that writes, the change may or may not have happened; repeating the call is always right.
///
/// # Implementing
/// [`MemoryStore`](crate::MemoryStore) is the whole contract in one short file: start from it. Mind the order inside
/// `updated_since`: the clocks that make the new tag must be read in the same snapshot as the passes, or before them.
/// An implementation for `&T`, `Box<T>` and `Arc<T>` comes for free, so `Arc<dyn RegistrationStore>` is a store.
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

    /// Removes the registration, and the device with its last one. Returns whether there was a registration; that
    /// there was none is no error.
    async fn unregister(&self, device: &DeviceIdentifier, pass: &PassId) -> Result<bool, StoreError>;

    /// The serial numbers of type `type_id` registered on `device` that changed, or were registered, after `since`;
    /// all of them when `since` is `None`. No serial number stands twice.
    ///
    /// A device that is unknown, or has nothing of the type, has no changes; that is no error.
    async fn updated_since(
        &self,
        device: &DeviceIdentifier,
        type_id: &TypeIdentifier,
        since: Option<UpdateTag>,
    ) -> Result<Changes, StoreError>;

    /// Says that these passes have changed. They need not be known, nor registered anywhere; a serial number may
    /// stand twice. An empty slice does nothing.
    ///
    /// Call it after the new content can be fetched, never before (C8).
    async fn mark_updated(
        &self,
        type_id: &TypeIdentifier,
        serials: &[SerialNumber],
    ) -> Result<(), StoreError>;

    /// Says that every pass of the type has changed (C9): after its design changed, or a backup was restored.
    async fn mark_all_updated(&self, type_id: &TypeIdentifier) -> Result<(), StoreError>;

    /// The version and date of a pass. A pass that is not known has a state as well: that of one never marked.
    async fn pass_state(&self, pass: &PassId) -> Result<PassState, StoreError>;

    /// A page of the devices registered for `pass`, at most about `limit` of them, from the start or `after` a page.
    ///
    /// A device may stand in two pages. A page may be empty and yet have a [`next`](DevicePage::next). A cursor that
    /// can't be one of the store's reads from the start; no cursor is an error.
    async fn devices_of(
        &self,
        pass: &PassId,
        after: Option<&PageCursor>,
        limit: usize,
    ) -> Result<DevicePage, StoreError>;

    /// Removes `device` and its registrations if it last registered at or before `unregistered_at`, the time at which
    /// APNs says that its push token went out of use. Returns whether it was removed; a device that is unknown, or
    /// registered since, is left alone.
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

            async fn updated_since(
                &self,
                device: &DeviceIdentifier,
                type_id: &TypeIdentifier,
                since: Option<UpdateTag>,
            ) -> Result<Changes, StoreError> {
                (**self).updated_since(device, type_id, since).await
            }

            async fn mark_updated(
                &self,
                type_id: &TypeIdentifier,
                serials: &[SerialNumber],
            ) -> Result<(), StoreError> {
                (**self).mark_updated(type_id, serials).await
            }

            async fn mark_all_updated(&self, type_id: &TypeIdentifier) -> Result<(), StoreError> {
                (**self).mark_all_updated(type_id).await
            }

            async fn pass_state(&self, pass: &PassId) -> Result<PassState, StoreError> {
                (**self).pass_state(pass).await
            }

            async fn devices_of(
                &self,
                pass: &PassId,
                after: Option<&PageCursor>,
                limit: usize,
            ) -> Result<DevicePage, StoreError> {
                (**self).devices_of(pass, after, limit).await
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
}

/// Some of the devices that are registered for a pass.
#[derive(Clone, Debug, Default)]
pub struct DevicePage {
    /// The devices, each with its push token.
    pub devices: Vec<RegisteredDevice>,
    /// Where the next page starts; `None` after the last.
    pub next: Option<PageCursor>,
}

/// A device, and where its pushes go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisteredDevice {
    /// The device.
    pub device: DeviceIdentifier,
    /// The push token of its last registration.
    pub push_token: PushToken,
}

/// Where a page of devices ends. Opaque: only the store that made it can read it.
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
