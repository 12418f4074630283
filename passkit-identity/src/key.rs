//! Private keys: reading and signing. The public half of a key is used to find the certificate of
//! the key.

use std::fmt;

use der::{
    Decode as _, Sequence,
    asn1::{AnyRef, BitStringRef, OctetStringRef},
};
use ring::{
    error::Unspecified,
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair,
        Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair,
    },
};
use rustls_pki_types::PrivateKeyDer;

/// The algorithm of a signature. It follows from the kind of the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SignatureAlgorithm {
    /// RSA with PKCS #1 v1.5 padding, and SHA-256. The signature is as long as the modulus.
    RsaSha256,
    /// ECDSA on P-256, and SHA-256. The signature is the DER of the two numbers `r` and `s`.
    EcdsaP256Sha256,
    /// ECDSA on P-384, and SHA-384. The signature is the DER of the two numbers `r` and `s`.
    EcdsaP384Sha384,
    /// Ed25519. Phones do not accept it for passes.
    Ed25519,
}

impl fmt::Display for SignatureAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RsaSha256 => "RSA with SHA-256",
            Self::EcdsaP256Sha256 => "ECDSA on P-256 with SHA-256",
            Self::EcdsaP384Sha384 => "ECDSA on P-384 with SHA-384",
            Self::Ed25519 => "Ed25519",
        })
    }
}

/// The private key could not sign. The library that signs gives no reason. A possible reason is
/// that the system has no random numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the private key could not sign")]
#[non_exhaustive]
pub struct SignError;

impl From<Unspecified> for SignError {
    fn from(_: Unspecified) -> Self {
        Self
    }
}

/// A private key that can sign.
pub(crate) enum SigningKey {
    Rsa(RsaKeyPair),
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

/// An elliptic-curve key in the older form, which has a different kind of PEM section (RFC 5915).
#[derive(Sequence)]
struct Sec1<'a> {
    version: u8,
    private_key: OctetStringRef<'a>,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    curve: Option<AnyRef<'a>>,
    #[asn1(context_specific = "1", tag_mode = "EXPLICIT", optional = "true")]
    public_key: Option<BitStringRef<'a>>,
}

impl SigningKey {
    /// Returns `None` if the key can't be used.
    pub(crate) fn read(key: &PrivateKeyDer<'_>) -> Option<Self> {
        match key {
            PrivateKeyDer::Pkcs1(key) => RsaKeyPair::from_der(key.secret_pkcs1_der())
                .ok()
                .map(Self::Rsa),
            PrivateKeyDer::Sec1(key) => Self::of_sec1(key.secret_sec1_der()),
            PrivateKeyDer::Pkcs8(key) => Self::of_pkcs8(key.secret_pkcs8_der()),
            _ => None,
        }
    }

    fn of_sec1(key: &[u8]) -> Option<Self> {
        let Sec1 {
            private_key,
            public_key,
            ..
        } = Sec1::from_der(key).ok()?;
        let (private_key, public_key) = (private_key.as_bytes(), public_key?.as_bytes()?);
        let on = |curve| {
            let random = SystemRandom::new();
            EcdsaKeyPair::from_private_key_and_public_key(curve, private_key, public_key, &random)
        };
        let p256 = on(&ECDSA_P256_SHA256_ASN1_SIGNING).map(Self::P256);
        p256.or_else(|_| on(&ECDSA_P384_SHA384_ASN1_SIGNING).map(Self::P384))
            .ok()
    }

    fn of_pkcs8(key: &[u8]) -> Option<Self> {
        let on = |curve| EcdsaKeyPair::from_pkcs8(curve, key, &SystemRandom::new());
        if let Ok(key) = RsaKeyPair::from_pkcs8(key) {
            Some(Self::Rsa(key))
        } else if let Ok(key) = on(&ECDSA_P256_SHA256_ASN1_SIGNING) {
            Some(Self::P256(key))
        } else if let Ok(key) = on(&ECDSA_P384_SHA384_ASN1_SIGNING) {
            Some(Self::P384(key))
        } else {
            let key = Ed25519KeyPair::from_pkcs8_maybe_unchecked(key).ok()?;
            Some(Self::Ed25519(key))
        }
    }

    /// Returns the public key, in the form that certificates use.
    pub(crate) fn public_key(&self) -> &[u8] {
        match self {
            Self::Rsa(key) => key.public_key().as_ref(),
            Self::P256(key) | Self::P384(key) => key.public_key().as_ref(),
            Self::Ed25519(key) => key.public_key().as_ref(),
        }
    }

    pub(crate) fn algorithm(&self) -> SignatureAlgorithm {
        match self {
            Self::Rsa(_) => SignatureAlgorithm::RsaSha256,
            Self::P256(_) => SignatureAlgorithm::EcdsaP256Sha256,
            Self::P384(_) => SignatureAlgorithm::EcdsaP384Sha384,
            Self::Ed25519(_) => SignatureAlgorithm::Ed25519,
        }
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        let random = SystemRandom::new();
        match self {
            Self::Rsa(key) => {
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature)?;
                Ok(signature)
            }
            Self::P256(key) | Self::P384(key) => Ok(key.sign(&random, message)?.as_ref().to_vec()),
            Self::Ed25519(key) => Ok(key.sign(message).as_ref().to_vec()),
        }
    }
}
