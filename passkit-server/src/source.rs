//! Sources: where passes come from.

use std::{io, pin::Pin};

use async_trait::async_trait;
use bytes::Bytes;
use futures_core::Stream;

use crate::{AuthToken, PassId, PassState, identifiers::TokenDigest};

/// Why a source could not answer: any error at all. The service answers 503 and logs it.
pub type SourceError = Box<dyn std::error::Error + Send + Sync>;

/// Where passes come from: who may have them, and what they are now. Your own logic.
///
/// # Contract
/// * [`credentials`](Self::credentials) is asked with every register, unregister and get call, so it should be quick. The
///   service compares tokens itself, in constant time.
/// * [`archive`](Self::archive) is asked only when the archive is about to be sent: never for a 304, nor for a request
///   with wrong credentials.
/// * Change the pass first, so that `archive` gives the new content, and then
///   [`publish`](crate::push::Publisher::publish) it. The other way round, a device could fetch the old content under the new
///   date and never ask again.
/// * While a pass is not marked, its archive stays the same to the user: the files that its manifest lists have the same
///   bytes. The signature may be made anew.
/// * The archive is for the very pass that was asked for, type and serial number alike.
/// * A pass can't be taken off a phone. To end it, serve a last version with `"voided": true`, and publish it.
///
/// # Errors
/// Any error: the device is told to come back later (503), and the error is logged.
///
/// # Implementing
/// ```
/// use std::collections::HashMap;
/// use passkit_server::{ArchiveBody, AuthToken, Credentials, PassId, PassSource, PassState, SourceError, async_trait};
///
/// /// Passes held in memory, each with its token.
/// struct Passes(HashMap<PassId, (AuthToken, bytes::Bytes)>);
///
/// #[async_trait]
/// impl PassSource for Passes {
///     async fn credentials(&self, pass: &PassId) -> Result<Option<Credentials>, SourceError> {
///         Ok(self.0.get(pass).map(|(token, _)| Credentials::from(token)))
///     }
///
///     async fn archive(&self, pass: &PassId, _: &PassState) -> Result<Option<ArchiveBody>, SourceError> {
///         Ok(self.0.get(pass).map(|(_, bytes)| ArchiveBody::from(bytes.clone())))
///     }
/// }
/// ```
#[async_trait]
pub trait PassSource: Send + Sync {
    /// The tokens that open `pass`; `None` if there is no such pass. A device can't tell that from a wrong token.
    ///
    /// Tokens that were published with [`Changed::Contents`](crate::Changed::Contents) are in the store, and need not be
    /// here.
    async fn credentials(&self, pass: &PassId) -> Result<Option<Credentials>, SourceError>;

    /// The newest archive of `pass`; `None` if it went away since its credentials were asked for.
    ///
    /// `state` was read from the store for this request, up to a second ago. A source that serves copies compares its
    /// digest with [`PassState::published`]; others ignore it. A source that serves other content than that sends it under
    /// the date of the published one. It must therefore [mark](crate::Changed::Passes) the pass when it serves the published
    /// content later, even if the store then calls its digest known.
    async fn archive(&self, pass: &PassId, state: &PassState) -> Result<Option<ArchiveBody>, SourceError>;
}

macro_rules! forward {
    ($pointer:ty, $t:ident) => {
        #[async_trait]
        impl<$t: PassSource + ?Sized> PassSource for $pointer {
            async fn credentials(&self, pass: &PassId) -> Result<Option<Credentials>, SourceError> {
                (**self).credentials(pass).await
            }

            async fn archive(
                &self,
                pass: &PassId,
                state: &PassState,
            ) -> Result<Option<ArchiveBody>, SourceError> {
                (**self).archive(pass, state).await
            }
        }
    };
}

forward!(&T, T);
forward!(Box<T>, T);
forward!(std::sync::Arc<T>, T);

/// The tokens that open a pass: usually one, and more if its token ever changed, since old copies keep the old one.
///
/// Without any token nobody gets in.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    first: Option<TokenDigest>,
    others: Vec<TokenDigest>,
    withdrawn: bool,
}

impl Credentials {
    /// These credentials for a pass that is no longer offered: devices may unregister it, and nothing else.
    #[must_use]
    pub fn withdrawn(self) -> Self {
        Self { withdrawn: true, ..self }
    }

    /// Whether the pass is no longer offered.
    #[must_use]
    pub fn is_withdrawn(&self) -> bool {
        self.withdrawn
    }

    /// Whether `token` is one of them. Looks at all, in constant time.
    pub(crate) fn accept(&self, token: &TokenDigest) -> bool {
        self.first.iter().chain(&self.others).fold(false, |found, digest| found | (digest == token))
    }
}

impl From<&AuthToken> for Credentials {
    fn from(token: &AuthToken) -> Self {
        Self::from(token.digest())
    }
}

impl From<TokenDigest> for Credentials {
    fn from(digest: TokenDigest) -> Self {
        Self { first: Some(digest), ..Self::default() }
    }
}

impl FromIterator<TokenDigest> for Credentials {
    fn from_iter<I: IntoIterator<Item = TokenDigest>>(digests: I) -> Self {
        let mut digests = digests.into_iter();
        Self { first: digests.next(), others: digests.collect(), withdrawn: false }
    }
}

/// The bytes of a `.pkpass` or `.order` archive, shared or streamed.
pub struct ArchiveBody {
    pub(crate) length: u64,
    pub(crate) content: ArchiveContent,
}

pub(crate) enum ArchiveContent {
    Shared(Bytes),
    Stream(Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>),
}

impl ArchiveBody {
    /// An archive of `length` bytes that is read while it is sent. If the stream ends early, fails, or gives more,
    /// the connection is closed and the device discards what it got.
    pub fn stream(length: u64, chunks: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Self {
        Self { length, content: ArchiveContent::Stream(Box::pin(chunks)) }
    }

    /// Its size in bytes.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }
}

/// An archive in memory. [`Bytes`] are shared, not copied: keep them and hand out clones.
impl From<Bytes> for ArchiveBody {
    fn from(bytes: Bytes) -> Self {
        Self { length: bytes.len() as u64, content: ArchiveContent::Shared(bytes) }
    }
}

impl std::fmt::Debug for ArchiveBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ArchiveBody").field("length", &self.length).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listed_tokens_are_accepted() {
        let token = |text| AuthToken::new(text).unwrap();
        let [a, b, c] = ["a-token-of-16-chars", "b-token-of-16-chars", "c-token-of-16-chars"].map(token);
        let both: Credentials = [a.digest(), b.digest()].into_iter().collect();
        assert!(both.accept(&a.digest()) && both.accept(&b.digest()));
        assert!(!both.accept(&c.digest()));
        assert!(!Credentials::default().accept(&a.digest()));
        let twice: Credentials = [a.digest(), a.digest()].into_iter().collect();
        assert!(twice.accept(&a.digest()) && !twice.accept(&b.digest()));
    }

    #[test]
    fn an_archive_shows_its_length_and_no_more() {
        let archive = ArchiveBody::from(Bytes::from_static(b"secret"));
        assert_eq!(format!("{archive:?}"), "ArchiveBody { length: 6, .. }");
    }
}
