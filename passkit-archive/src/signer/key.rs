//! The keys that sign.

use std::error::Error;

use passkit_identity::{Identity, SignatureAlgorithm};

/// What a signature is for.
///
/// Phones check both kinds of signatures in the same way. If a key service signs anything on
/// request, it therefore also signs passes. With the purpose, the service can allow one kind and
/// refuse the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Purpose {
    /// The signature of an archive, over its `manifest.json`.
    Manifest,
    /// The answer to a rewards enrolment, over the token that a phone sent.
    PersonalizationToken,
}

/// A private key that signs. The key may be in this process, in a hardware module, or in a key
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
    /// Returns the algorithm of all signatures of this key. A signer calls this method once, when
    /// it is made.
    fn algorithm(&self) -> SignatureAlgorithm;

    /// Hashes the message and signs the hash, as [`SignatureAlgorithm`] says. The message has about
    /// 100 bytes. It is the DER of the signed attributes, which contain a digest of the content,
    /// but not the content itself.
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
