//! Writes a detached CMS signature (RFC 5652) with signed attributes.

use std::time::Duration;

use der::{
    Decode as _, Encode, Tag,
    asn1::{AnyRef, ObjectIdentifier, OctetStringRef, UtcTime},
};
use passkit_identity::SignatureAlgorithm;

use crate::{
    algorithms::Digest,
    asn1::{
        AlgorithmIdentifier, Attribute, ContentInfo, EncapsulatedContent, IssuerAndSerial,
        PublicKeyInfo, SignedCertificate, SignedData, SignerInfo, oid, wrap,
    },
};

/// The identifiers of an algorithm in a signature.
pub(super) struct Algorithm {
    pub(super) digest: Digest,
    digest_id: AlgorithmIdentifier<'static>,
    pub(super) signature_id: AlgorithmIdentifier<'static>,
    key: ObjectIdentifier,
    curve: Option<ObjectIdentifier>,
}

impl Algorithm {
    /// Returns `None` for an algorithm that phones refuse.
    pub(super) fn of(algorithm: SignatureAlgorithm) -> Option<Self> {
        let plain = |algorithm| AlgorithmIdentifier {
            algorithm,
            parameters: None,
        };
        let sha256 = (Digest::Sha256, oid::SHA_256);
        let sha384 = (Digest::Sha384, oid::SHA_384);
        let ((digest, digest_id), signature_id, key, curve) = match algorithm {
            // The digest algorithm determines which digest is signed. OpenSSL and Apple's tools
            // write this identifier too.
            SignatureAlgorithm::RsaSha256 => {
                let signature_id = AlgorithmIdentifier {
                    algorithm: oid::RSA_ENCRYPTION,
                    parameters: Some(AnyRef::NULL),
                };
                (sha256, signature_id, oid::RSA_ENCRYPTION, None)
            }
            SignatureAlgorithm::EcdsaP256Sha256 => (
                sha256,
                plain(oid::ECDSA_WITH_SHA_256),
                oid::EC_PUBLIC_KEY,
                Some(oid::P_256),
            ),
            SignatureAlgorithm::EcdsaP384Sha384 => (
                sha384,
                plain(oid::ECDSA_WITH_SHA_384),
                oid::EC_PUBLIC_KEY,
                Some(oid::P_384),
            ),
            _ => return None,
        };
        Some(Self {
            digest,
            digest_id: plain(digest_id),
            signature_id,
            key,
            curve,
        })
    }

    /// Returns whether a public key is of the kind that this algorithm needs.
    pub(super) fn fits(&self, key: &PublicKeyInfo<'_>) -> bool {
        let curve = || key.algorithm.parameters?.decode_as().ok();
        key.algorithm.algorithm == self.key && (self.curve.is_none() || self.curve == curve())
    }
}

/// The parts of a signature that are the same in all signatures of a signer.
pub(super) struct Cms {
    pub(super) algorithm: Algorithm,
    /// An [`IssuerAndSerial`] in DER.
    signer: Vec<u8>,
    /// In DER.
    certificates: [Vec<u8>; 2],
}

impl Cms {
    pub(super) fn new(
        algorithm: Algorithm,
        certificate: &[u8],
        intermediate: Vec<u8>,
    ) -> der::Result<Self> {
        let content = SignedCertificate::from_der(certificate)?.to_be_signed;
        let signer = IssuerAndSerial {
            issuer: content.issuer,
            serial: content.serial,
        };
        Ok(Self {
            algorithm,
            signer: signer.to_der()?,
            certificates: [certificate.to_vec(), intermediate],
        })
    }

    /// Returns the certificate of the signer, in DER.
    pub(super) fn certificate(&self) -> &[u8] {
        let [certificate, _] = &self.certificates;
        certificate
    }

    pub(super) fn intermediate(&self) -> &[u8] {
        let [_, intermediate] = &self.certificates;
        intermediate
    }

    /// Returns the signed attributes. `now` is the time since 1970.
    pub(super) fn attributes(&self, content: &[u8], now: Duration) -> der::Result<Attributes> {
        let digest = self.algorithm.digest.of_content(content);
        let mut attributes = [
            attribute(oid::CONTENT_TYPE, &oid::DATA)?,
            attribute(oid::SIGNING_TIME, &utc_time(now)?)?,
            attribute(oid::MESSAGE_DIGEST, &OctetStringRef::new(digest.as_ref())?)?,
        ];
        // A DER set is sorted.
        attributes.sort_unstable();
        Ok(Attributes(attributes))
    }

    /// Writes the signature in DER.
    pub(super) fn write(&self, attributes: &Attributes, signature: &[u8]) -> der::Result<Vec<u8>> {
        let signer_info = SignerInfo {
            version: 1,
            signer: AnyRef::from_der(&self.signer)?,
            digest_algorithm: self.algorithm.digest_id,
            signed_attributes: Some(all(&attributes.0)?),
            signature_algorithm: self.algorithm.signature_id,
            signature: OctetStringRef::new(signature)?,
            unsigned_attributes: None,
        }
        .to_der()?;
        let signed_data = SignedData {
            version: 1,
            digest_algorithms: AnyRef::new(Tag::Set, &self.algorithm.digest_id.to_der()?)?,
            content: EncapsulatedContent {
                content_type: oid::DATA,
                content: None,
            },
            certificates: Some(all(&self.certificates)?),
            crls: None,
            signers: AnyRef::new(Tag::Set, &signer_info)?,
        }
        .to_der()?;
        ContentInfo {
            content_type: oid::SIGNED_DATA,
            content: AnyRef::from_der(&signed_data)?,
        }
        .to_der()
    }
}

/// The signed attributes, each in DER.
pub(super) struct Attributes([Vec<u8>; 3]);

impl Attributes {
    /// Returns the bytes that the key signs.
    pub(super) fn message(&self) -> der::Result<Vec<u8>> {
        wrap(Tag::Set, &self.0)
    }
}

fn all(encoded: &[Vec<u8>]) -> der::Result<Vec<AnyRef<'_>>> {
    encoded.iter().map(|one| AnyRef::from_der(one)).collect()
}

fn attribute(attribute_type: ObjectIdentifier, value: &impl Encode) -> der::Result<Vec<u8>> {
    Attribute {
        attribute_type,
        values: AnyRef::new(Tag::Set, &value.to_der()?)?,
    }
    .to_der()
}

/// Writes a time since 1970. Fails from 2050 on.
pub(super) fn utc_time(since_epoch: Duration) -> der::Result<UtcTime> {
    // UTCTime has no fractions of a second.
    UtcTime::from_unix_duration(Duration::from_secs(since_epoch.as_secs()))
}
