//! The algorithms of signatures and digests that archives may use.

use der::asn1::ObjectIdentifier;
use ring::{
    digest,
    signature::{self, VerificationAlgorithm},
};

use crate::asn1::{AlgorithmIdentifier, PublicKeyInfo, oid};

#[derive(Clone, Copy)]
pub(crate) enum Digest {
    Sha1,
    Sha256,
    Sha384,
    Sha512,
}

impl Digest {
    pub(crate) fn of(algorithm: ObjectIdentifier) -> Option<Self> {
        match algorithm {
            oid::SHA_1 => Some(Self::Sha1),
            oid::SHA_256 => Some(Self::Sha256),
            oid::SHA_384 => Some(Self::Sha384),
            oid::SHA_512 => Some(Self::Sha512),
            _ => None,
        }
    }

    pub(crate) fn of_content(self, content: &[u8]) -> digest::Digest {
        let algorithm = match self {
            Self::Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha256 => &digest::SHA256,
            Self::Sha384 => &digest::SHA384,
            Self::Sha512 => &digest::SHA512,
        };
        digest::digest(algorithm, content)
    }
}

/// Returns the algorithm for this key. Some signers write the identifier of the key as the
/// signature algorithm. In that case, the digest algorithm decides.
pub(crate) fn verification_algorithm(
    key: &PublicKeyInfo<'_>,
    signature_algorithm: AlgorithmIdentifier<'_>,
    digest: Digest,
) -> Option<&'static dyn VerificationAlgorithm> {
    let signature_algorithm = signature_algorithm.algorithm;
    match key.algorithm.algorithm {
        oid::RSA_ENCRYPTION => {
            let digest = match signature_algorithm {
                oid::RSA_ENCRYPTION => digest,
                oid::SHA_1_WITH_RSA => Digest::Sha1,
                oid::SHA_256_WITH_RSA => Digest::Sha256,
                oid::SHA_384_WITH_RSA => Digest::Sha384,
                oid::SHA_512_WITH_RSA => Digest::Sha512,
                _ => return None,
            };
            Some(match digest {
                Digest::Sha1 => &signature::RSA_PKCS1_1024_8192_SHA1_FOR_LEGACY_USE_ONLY,
                Digest::Sha256 => &signature::RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY,
                Digest::Sha384 => &signature::RSA_PKCS1_2048_8192_SHA384,
                Digest::Sha512 => &signature::RSA_PKCS1_1024_8192_SHA512_FOR_LEGACY_USE_ONLY,
            })
        }
        oid::EC_PUBLIC_KEY => {
            let digest = match signature_algorithm {
                oid::EC_PUBLIC_KEY => digest,
                oid::ECDSA_WITH_SHA_1 => Digest::Sha1,
                oid::ECDSA_WITH_SHA_256 => Digest::Sha256,
                oid::ECDSA_WITH_SHA_384 => Digest::Sha384,
                oid::ECDSA_WITH_SHA_512 => Digest::Sha512,
                _ => return None,
            };
            let curve = key
                .algorithm
                .parameters?
                .decode_as::<ObjectIdentifier>()
                .ok()?;
            match (curve, digest) {
                (oid::P_256, Digest::Sha256) => Some(&signature::ECDSA_P256_SHA256_ASN1),
                (oid::P_256, Digest::Sha384) => Some(&signature::ECDSA_P256_SHA384_ASN1),
                (oid::P_384, Digest::Sha256) => Some(&signature::ECDSA_P384_SHA256_ASN1),
                (oid::P_384, Digest::Sha384) => Some(&signature::ECDSA_P384_SHA384_ASN1),
                _ => None,
            }
        }
        _ => None,
    }
}
