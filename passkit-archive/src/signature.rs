//! Verifies that the signature is over the manifest, and by the certificate in it.

use der::{
    Decode, Tag,
    asn1::{AnyRef, ObjectIdentifier, OctetStringRef},
};
use ring::{
    digest,
    signature::{self, UnparsedPublicKey, VerificationAlgorithm},
};

use crate::{
    asn1::{
        AlgorithmIdentifier, Attribute, Certificate, ContentInfo, Extension, IssuerAndSerial,
        NameAttribute, PublicKeyInfo, SignedData, SignerInfo, context_tag, elements, oid, wrap,
    },
    ber::{self, BerError},
};

/// The signer, according to the certificate.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Subject {
    /// The UID, which has the type identifier in Apple's certificates.
    pub(crate) user_id: Option<String>,
    /// The OUs, which have the team identifier in Apple's certificates.
    pub(crate) units: Vec<String>,
}

/// An error of a signature. Each text fits after "signature: ".
#[derive(Debug, thiserror::Error)]
pub(crate) enum SignatureError {
    #[error("is text; write the bytes (DER) of the CMS signature, not PEM or S/MIME")]
    Text,
    #[error("is not a CMS signature: {0}")]
    Ber(#[from] BerError),
    #[error("is not a CMS signature: {0}")]
    Structure(der::Error),
    #[error("is CMS, but not signed data; sign the manifest without wrapping the signature")]
    NotSignedData,
    #[error("contains a copy of the manifest; make a detached signature")]
    NotDetached,
    #[error("has {0} signers; it must have one")]
    Signers(usize),
    #[error("does not contain the certificate of its signer; sign with the certificate included")]
    NoCertificate,
    #[error("uses an algorithm that is not supported ({0}); sign with RSA or ECDSA, and SHA-256")]
    Algorithm(ObjectIdentifier),
    #[error("has signed attributes, but not one content type and one message digest among them")]
    Attributes,
    #[error("was made for another manifest.json; sign after its last change")]
    OtherManifest,
    #[error(
        "does not verify: the manifest was changed, or the key is not the one of the certificate"
    )]
    Invalid,
}

impl From<der::Error> for SignatureError {
    fn from(error: der::Error) -> Self {
        Self::Structure(error)
    }
}

/// Verifies that `signature` is a detached CMS signature over `manifest`, in DER or BER.
///
/// It checks neither the chain nor the dates of the certificate.
pub(crate) fn verify(signature: &[u8], manifest: &[u8]) -> Result<Subject, SignatureError> {
    if signature.starts_with(b"-----BEGIN") || signature.starts_with(b"MIME-Version:") {
        return Err(SignatureError::Text);
    }
    let der = ber::to_der(signature)?;
    let content_info = ContentInfo::from_der(&der)?;
    if content_info.content_type != oid::SIGNED_DATA {
        return Err(SignatureError::NotSignedData);
    }
    let signed_data: SignedData<'_> = content_info.content.decode_as()?;
    if signed_data.content.content.is_some() {
        return Err(SignatureError::NotDetached);
    }
    let mut signers: Vec<SignerInfo<'_>> = elements(signed_data.signers)?;
    let (Some(signer), true) = (signers.pop(), signers.is_empty()) else {
        return Err(SignatureError::Signers(
            elements::<AnyRef<'_>>(signed_data.signers)?.len(),
        ));
    };

    let certificate = find_certificate(
        signed_data.certificates.as_deref().unwrap_or_default(),
        signer.signer,
    )
    .ok_or(SignatureError::NoCertificate)?;
    let public_key = certificate.to_be_signed.public_key;
    let digest = Digest::of(signer.digest_algorithm.algorithm)
        .ok_or(SignatureError::Algorithm(signer.digest_algorithm.algorithm))?;
    let algorithm = verification_algorithm(&public_key, signer.signature_algorithm, digest).ok_or(
        SignatureError::Algorithm(signer.signature_algorithm.algorithm),
    )?;
    let public_key = UnparsedPublicKey::new(algorithm, public_key.key.raw_bytes());
    let verifies = |message: &[u8]| {
        public_key
            .verify(message, signer.signature.as_bytes())
            .is_ok()
    };

    let valid = match &signer.signed_attributes {
        None => verifies(manifest),
        Some(attributes) => {
            check_attributes(
                attributes,
                signed_data.content.content_type,
                digest.of_content(manifest).as_ref(),
            )?;
            verifies_attributes(attributes, verifies)?
        }
    };
    if valid {
        subject(certificate.to_be_signed.subject)
    } else {
        Err(SignatureError::Invalid)
    }
}

fn find_certificate<'a>(
    certificates: &[AnyRef<'a>],
    signer: AnyRef<'a>,
) -> Option<Certificate<'a>> {
    let issuer_and_serial = signer.decode_as::<IssuerAndSerial<'_>>().ok();
    let key_identifier =
        (der::Tagged::tag(&signer) == context_tag(der::TagNumber::N0)).then(|| signer.value());
    // There may be certificates of other kinds beside the one of the signer.
    certificates
        .iter()
        .filter_map(|certificate| certificate.decode_as::<Certificate<'_>>().ok())
        .find(|certificate| {
            let content = &certificate.to_be_signed;
            let own = IssuerAndSerial {
                issuer: content.issuer,
                serial: content.serial,
            };
            issuer_and_serial.as_ref() == Some(&own)
                || key_identifier.is_some() && key_identifier == subject_key_identifier(certificate)
        })
}

fn subject_key_identifier<'a>(certificate: &Certificate<'a>) -> Option<&'a [u8]> {
    let extensions = certificate.to_be_signed.extensions.as_ref()?;
    let extension = extensions
        .iter()
        .filter_map(|extension| extension.decode_as::<Extension<'_>>().ok())
        .find(|extension| extension.id == oid::SUBJECT_KEY_IDENTIFIER)?;
    Some(
        OctetStringRef::from_der(extension.value.as_bytes())
            .ok()?
            .as_bytes(),
    )
}

/// Checks that the attributes belong to this manifest.
fn check_attributes(
    attributes: &[AnyRef<'_>],
    content_type: ObjectIdentifier,
    manifest_digest: &[u8],
) -> Result<(), SignatureError> {
    let value = |attribute_type| {
        let mut values = attributes
            .iter()
            .filter_map(|attribute| attribute.decode_as::<Attribute<'_>>().ok())
            .filter(|attribute| attribute.attribute_type == attribute_type)
            .map(|attribute| attribute.values);
        match (values.next(), values.next()) {
            (Some(values), None) => match *elements::<AnyRef<'_>>(values)? {
                [value] => Ok(value),
                _ => Err(SignatureError::Attributes),
            },
            _ => Err(SignatureError::Attributes),
        }
    };
    if value(oid::CONTENT_TYPE)?.decode_as::<ObjectIdentifier>()? != content_type {
        return Err(SignatureError::Attributes);
    }
    if value(oid::MESSAGE_DIGEST)?
        .decode_as::<OctetStringRef<'_>>()?
        .as_bytes()
        != manifest_digest
    {
        return Err(SignatureError::OtherManifest);
    }
    Ok(())
}

/// The signature is over the DER of the attributes as a set, which is sorted. Some signers do not
/// sort before they sign, and common verifiers accept that. So does this.
fn verifies_attributes(
    attributes: &[AnyRef<'_>],
    verifies: impl Fn(&[u8]) -> bool,
) -> Result<bool, SignatureError> {
    let mut encoded = attributes
        .iter()
        .map(der::Encode::to_der)
        .collect::<der::Result<Vec<_>>>()?;
    if verifies(&wrap(Tag::Set, &encoded)?) {
        return Ok(true);
    }
    if encoded.is_sorted() {
        return Ok(false);
    }
    encoded.sort_unstable();
    Ok(verifies(&wrap(Tag::Set, &encoded)?))
}

#[derive(Clone, Copy)]
enum Digest {
    Sha1,
    Sha256,
    Sha384,
    Sha512,
}

impl Digest {
    fn of(algorithm: ObjectIdentifier) -> Option<Self> {
        match algorithm {
            oid::SHA_1 => Some(Self::Sha1),
            oid::SHA_256 => Some(Self::Sha256),
            oid::SHA_384 => Some(Self::Sha384),
            oid::SHA_512 => Some(Self::Sha512),
            _ => None,
        }
    }

    fn of_content(self, content: &[u8]) -> digest::Digest {
        let algorithm = match self {
            Self::Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha256 => &digest::SHA256,
            Self::Sha384 => &digest::SHA384,
            Self::Sha512 => &digest::SHA512,
        };
        digest::digest(algorithm, content)
    }
}

/// Returns the algorithm for this key. If the signature algorithm is the key's own identifier, the
/// digest algorithm gives the digest.
fn verification_algorithm(
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

fn subject(name: AnyRef<'_>) -> Result<Subject, SignatureError> {
    let mut subject = Subject {
        user_id: None,
        units: Vec::new(),
    };
    for set in elements::<AnyRef<'_>>(name)? {
        for attribute in elements::<NameAttribute<'_>>(set)? {
            let text = String::from_utf8_lossy(attribute.value.value());
            match attribute.attribute_type {
                oid::USER_ID => {
                    subject.user_id = subject.user_id.or_else(|| Some(text.into_owned()))
                }
                oid::ORGANIZATIONAL_UNIT => subject.units.push(text.into_owned()),
                _ => {}
            }
        }
    }
    Ok(subject)
}

#[cfg(test)]
mod tests {
    use passkit_server::identifiers::TypeIdentifier;

    use super::*;
    use crate::{Signer, testing::Random};

    const MANIFEST: &[u8] = br#"{"pass.json":"da39a3ee5e6b4b0d3255bfef95601890afd80709"}"#;

    fn signature() -> Vec<u8> {
        let type_id = TypeIdentifier::new("pass.com.example.test").unwrap();
        Signer::throwaway(&type_id, "ABCDE12345")
            .unwrap()
            .sign(MANIFEST)
            .unwrap()
    }

    fn refusal(signature: &[u8]) -> String {
        verify(signature, MANIFEST).unwrap_err().to_string()
    }

    #[test]
    fn a_signature_of_our_own_verifies() {
        assert_eq!(
            verify(&signature(), MANIFEST).unwrap(),
            Subject {
                user_id: Some("pass.com.example.test".into()),
                units: vec!["ABCDE12345".into()]
            }
        );
    }

    #[test]
    fn another_manifest_is_an_error() {
        let error = verify(&signature(), b"{}").unwrap_err();
        assert!(matches!(error, SignatureError::OtherManifest), "{error}");
    }

    #[test]
    fn other_files_get_their_own_errors() {
        assert!(refusal(b"-----BEGIN PKCS7-----").contains("not PEM"));
        assert!(refusal(b"MIME-Version: 1.0").contains("S/MIME"));
        assert!(refusal(b"").contains("ends in the middle"));
        assert!(refusal(&[0x30, 0x03, 0x02, 0x01, 0x05]).contains("is not a CMS signature: "));
        let data = [
            0x30, 13, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 1, 0xa0, 0,
        ];
        assert!(refusal(&data).contains("is not a CMS signature: "));
        let mut trailing = signature();
        trailing.push(b'\n');
        assert!(refusal(&trailing).contains("follows after its end"));
    }

    #[test]
    fn changed_signatures_never_panic() {
        let good = signature();
        let mut random = Random::new(3);
        for round in 0..20_000 {
            let mut changed = good.clone();
            for _ in 0..=random.below(3) {
                let at = random.below(changed.len());
                match random.below(4) {
                    0 if at > 0 => drop(changed.remove(at)),
                    1 => changed.insert(at, random.byte()),
                    2 if at > 0 => changed.truncate(at),
                    _ => changed[at] ^= 1 << random.below(8),
                }
            }
            drop(verify(&changed, MANIFEST));
            if round % 100 == 0 {
                drop(verify(&random.bytes(300), MANIFEST));
            }
        }
    }

    #[test]
    fn attributes_signed_unsorted_verify_too() {
        let value = |byte: u8| [0x30, 0x03, 0x02, 0x01, byte];
        let (first, second) = (value(1), value(2));
        let attributes = [
            AnyRef::from_der(&second).unwrap(),
            AnyRef::from_der(&first).unwrap(),
        ];
        let sorted = [&[0x31, 10][..], &first, &second].concat();
        let received = [&[0x31, 10][..], &second, &first].concat();
        for signed in [&sorted, &received] {
            assert!(verifies_attributes(&attributes, |message| message == signed).unwrap());
        }
        assert!(!verifies_attributes(&attributes, |_| false).unwrap());
    }
}
