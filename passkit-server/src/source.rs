//! The source of passes, which your program implements.

use std::{io, pin::Pin};

use async_trait::async_trait;
use bytes::Bytes;
use futures_core::Stream;

pub use crate::stored_archives::StoredArchives;
use crate::{AuthToken, PassId, PassState, identifiers::TokenDigest};

/// An error of a source, of any type. The service logs it and answers 503.
pub type SourceError = Box<dyn std::error::Error + Send + Sync>;

/// The source of passes. It knows which tokens open a pass, and gives the current archive of the
/// pass.
///
/// # Contract
/// * [`credentials`](Self::credentials) is called for every register, unregister and get request,
///   so it should be fast. The service compares tokens itself, in constant time.
/// * [`archive`](Self::archive) is called only if the archive will be sent. It is not called for a
///   304 or for wrong credentials.
/// * Change the pass first, so that `archive` gives the new content. Then
///   [`publish`](crate::push::Publisher::publish) it. In the other order, a device could fetch the
///   old content under the new date and never ask again.
/// * Until a pass is marked again, the files that its manifest lists keep the same bytes. Only the
///   signature may change.
/// * The archive has the type and the serial number that were requested.
/// * A pass can't be removed from a phone. To end it, publish a last version with `"voided": true`.
///
/// # Errors
/// Methods may return any error. The service logs it, and the answer (503) asks the device to try
/// again later.
///
/// # Implementing
/// ```
/// use std::collections::HashMap;
/// use passkit_server::{ArchiveBody, AuthToken, Credentials, PassId, PassSource, PassState, SourceError, async_trait};
///
/// /// Passes in memory, each with its token.
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
    /// Returns the authentication tokens that open `pass`. `None` if there is no such pass. A
    /// device gets the same answer as for a wrong token.
    ///
    /// The result need not include tokens that were published with
    /// [`Changed::Contents`](crate::Changed::Contents), because the store has them.
    async fn credentials(&self, pass: &PassId) -> Result<Option<Credentials>, SourceError>;

    /// Returns the newest archive of `pass`. `None` means that the pass was removed after
    /// `credentials` was called.
    ///
    /// `state` was read from the store for this request, up to a second ago. A source that serves
    /// copies compares the digest of its copy with [`PassState::published`]. Other sources ignore
    /// the state.
    ///
    /// If the source serves content with a digest other than the published one, that content gets
    /// the date of the published content. When the source serves the published content later, it
    /// must therefore [mark](crate::Changed::Passes) the pass, even if the store already knows the
    /// digest.
    async fn archive(
        &self,
        pass: &PassId,
        state: &PassState,
    ) -> Result<Option<ArchiveBody>, SourceError>;

    /// Returns the size in bytes of the archive that [`archive`](Self::archive) would return, for a
    /// `HEAD` request.
    ///
    /// The default implementation asks for the archive. Write your own if reading the archive is
    /// expensive.
    async fn archive_length(
        &self,
        pass: &PassId,
        state: &PassState,
    ) -> Result<Option<u64>, SourceError> {
        let archive = self.archive(pass, state).await?;
        Ok(archive.map(|archive| archive.length()))
    }
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

            async fn archive_length(
                &self,
                pass: &PassId,
                state: &PassState,
            ) -> Result<Option<u64>, SourceError> {
                (**self).archive_length(pass, state).await
            }
        }
    };
}

forward!(&T, T);
forward!(Box<T>, T);
forward!(std::sync::Arc<T>, T);

/// The authentication tokens that open a pass. Usually there is one. If the token of a pass
/// changed, there are more, because old copies of the pass have the old token.
///
/// Without any token, every request is refused.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    first: Option<TokenDigest>,
    others: Vec<TokenDigest>,
    withdrawn: bool,
}

impl Credentials {
    /// Marks the pass as no longer offered. Devices may then unregister the pass, and nothing else.
    #[must_use]
    pub fn withdrawn(self) -> Self {
        Self {
            withdrawn: true,
            ..self
        }
    }

    /// Returns whether the pass is no longer offered.
    #[must_use]
    pub fn is_withdrawn(&self) -> bool {
        self.withdrawn
    }

    /// Compares `token` with all tokens, in constant time.
    pub(crate) fn accept(&self, token: &TokenDigest) -> bool {
        self.first
            .iter()
            .chain(&self.others)
            .fold(false, |found, digest| found | (digest == token))
    }
}

impl From<&AuthToken> for Credentials {
    fn from(token: &AuthToken) -> Self {
        Self::from(token.digest())
    }
}

impl From<TokenDigest> for Credentials {
    fn from(digest: TokenDigest) -> Self {
        Self {
            first: Some(digest),
            ..Self::default()
        }
    }
}

impl FromIterator<TokenDigest> for Credentials {
    fn from_iter<I: IntoIterator<Item = TokenDigest>>(digests: I) -> Self {
        let mut digests = digests.into_iter();
        Self {
            first: digests.next(),
            others: digests.collect(),
            withdrawn: false,
        }
    }
}

/// The content of a `.pkpass` or `.order` archive, shared or streamed.
pub struct ArchiveBody {
    pub(crate) length: u64,
    pub(crate) content: ArchiveContent,
}

pub(crate) enum ArchiveContent {
    Shared(Bytes),
    Stream(Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>),
}

impl ArchiveBody {
    /// Makes an archive of `length` bytes that is read while it is sent. If the stream fails or has
    /// another length, the connection is closed, and the device discards what it received.
    pub fn stream(
        length: u64,
        chunks: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    ) -> Self {
        Self {
            length,
            content: ArchiveContent::Stream(Box::pin(chunks)),
        }
    }

    /// Returns the size in bytes.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }
}

/// Makes an archive from memory. Clones of [`Bytes`] share their memory, so keep the bytes and pass
/// clones.
impl From<Bytes> for ArchiveBody {
    fn from(bytes: Bytes) -> Self {
        Self {
            length: bytes.len() as u64,
            content: ArchiveContent::Shared(bytes),
        }
    }
}

impl std::fmt::Debug for ArchiveBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ArchiveBody")
            .field("length", &self.length)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listed_tokens_are_accepted() {
        let token = |text| AuthToken::new(text).unwrap();
        let [a, b, c] = [
            "a-token-of-16-chars",
            "b-token-of-16-chars",
            "c-token-of-16-chars",
        ]
        .map(token);
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
