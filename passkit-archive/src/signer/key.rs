//! The keys that sign.

use std::error::Error;

use passkit_identity::{Identity, SignatureAlgorithm};

/// What a signature is for.
///
/// Apple has a phone check both kinds of signatures in the same way. So a key service that signs
/// anything on request also signs passes. The purpose lets it allow one without the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Purpose {
    /// The signature of an archive, over its `manifest.json`.
    Manifest,
    /// The answer to a rewards enrolment, over the token that a phone sent.
    PersonalizationToken,
}

/// A private key that signs, wherever it is: in this process, in a hardware module, or in a key
/// service.
///
/// Give it to [`Signer::with_key`](crate::Signer::with_key). An [`Identity`] is such a key too.
///
/// ```
/// use passkit_archive::{Purpose, SignatureAlgorithm, SigningKey};
///
/// /// A key that never leaves its module.
/// struct Module;
///
/// impl SigningKey for Module {
///     fn algorithm(&self) -> SignatureAlgorithm {
///         SignatureAlgorithm::EcdsaP256Sha256
///     }
///
///     fn sign(
///         &self,
///         purpose: Purpose,
///         message: &[u8],
///     ) -> Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>> {
///         if purpose != Purpose::Manifest {
///             return Err("this key only signs passes".into());
///         }
///         self.hash_and_sign(message)
///     }
/// }
/// # impl Module {
/// #     fn hash_and_sign(&self, _: &[u8]) -> Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>> {
/// #         Err("not connected".into())
/// #     }
/// # }
/// ```
pub trait SigningKey: Send + Sync {
    /// Returns the algorithm of all signatures of this key. It is asked once, when a signer is made.
    fn algorithm(&self) -> SignatureAlgorithm;

    /// Hashes the message and signs the hash, as [`SignatureAlgorithm`] says. The message has about
    /// 100 bytes: it is the DER of the signed attributes, which contain a digest of the content. It
    /// never contains the content itself.
    ///
    /// The call may block. An asynchronous caller runs it on a thread for blocking work.
    ///
    /// # Errors
    /// Fails if the key can't be used, or not for this purpose. The error becomes the source of
    /// the [`SignerError`](crate::SignerError).
    fn sign(
        &self,
        purpose: Purpose,
        message: &[u8],
    ) -> Result<Vec<u8>, Box<dyn Error + Send + Sync>>;
}

/// Signs for each purpose.
impl SigningKey for Identity {
    fn algorithm(&self) -> SignatureAlgorithm {
        Self::algorithm(self)
    }

    fn sign(&self, _: Purpose, message: &[u8]) -> Result<Vec<u8>, Box<dyn Error + Send + Sync>> {
        Ok(Self::sign(self, message)?)
    }
}
