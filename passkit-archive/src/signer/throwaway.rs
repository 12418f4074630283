//! Makes a certificate for tests, together with the authority that issues it.

use der::{
    Decode as _, Encode as _, Tag, TagNumber,
    asn1::{AnyRef, BitStringRef, ObjectIdentifier, OctetStringRef},
};
use passkit_server::identifiers::TypeIdentifier;
use ring::{
    pkcs8::Document,
    rand::{SecureRandom as _, SystemRandom},
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _},
};

use super::{SignerError, SignerErrorKind, cms::utc_time, now};
use crate::{
    asn1::{
        AlgorithmIdentifier, Extension, NameAttribute, PublicKeyInfo, SignedCertificate,
        ToBeSigned, Validity, context_tag, oid, wrap,
    },
    dates::DAY,
    layout::{Layout, sha256},
};

/// X.509 counts its versions from zero, so this number means version 3. Only version 3 has
/// extensions.
const VERSION_3: u8 = 2;
/// The value of the basic constraints that says "may issue certificates".
const IS_AUTHORITY: &[u8] = &[0x30, 3, 1, 1, 0xff];
const NULL: &[u8] = &[5, 0];
const ECDSA_WITH_SHA_256: AlgorithmIdentifier<'_> = AlgorithmIdentifier {
    algorithm: oid::ECDSA_WITH_SHA_256,
    parameters: None,
};

/// A certificate and its authority, in DER.
pub(super) struct Throwaway {
    pub(super) certificate: Vec<u8>,
    /// The private key in PKCS #8.
    pub(super) key: Document,
    pub(super) authority: Vec<u8>,
}

impl Throwaway {
    pub(super) fn new(
        type_id: &TypeIdentifier,
        team_identifier: &str,
        allows_nfc: bool,
    ) -> Result<Self, SignerError> {
        let random = SystemRandom::new();
        let (_, authority_key) = key(&random)?;
        let (document, key) = key(&random)?;
        let authority_name = name(&[
            (oid::COMMON_NAME, "Throw-away authority, for tests"),
            (oid::ORGANIZATION, "Throw-away certificate, for tests"),
        ])?;
        let issuer = Issuer {
            key: &authority_key,
            name: &authority_name,
            random: &random,
        };
        let is_authority = [(oid::BASIC_CONSTRAINTS, IS_AUTHORITY)];
        let authority = issuer.issue(&authority_key, &authority_name, &is_authority)?;
        let type_text = AnyRef::new(Tag::Utf8String, type_id.as_str().as_bytes())?.to_der()?;
        let mut extensions = vec![(oid::APPLE_TYPE, &type_text[..])];
        if allows_nfc {
            extensions.push((oid::APPLE_NFC, NULL));
        }
        let certificate = issuer.issue(&key, &subject(type_id, team_identifier)?, &extensions)?;
        Ok(Self {
            certificate,
            key: document,
            authority,
        })
    }
}

/// Makes the subject, in the form and order of Apple's certificates.
fn subject(type_id: &TypeIdentifier, team_identifier: &str) -> der::Result<Vec<u8>> {
    let common_name = format!("{}{type_id}", Layout::of(type_id.kind()).certificate_name);
    let attributes = [
        (oid::USER_ID, type_id.as_str()),
        (oid::COMMON_NAME, &common_name),
        (oid::ORGANIZATIONAL_UNIT, team_identifier),
        (oid::ORGANIZATION, "Throw-away certificate, for tests"),
    ];
    name(&attributes)
}

fn name(attributes: &[(ObjectIdentifier, &str)]) -> der::Result<Vec<u8>> {
    let attributes = attributes.iter().map(|&(attribute_type, text)| {
        let value = AnyRef::new(Tag::Utf8String, text.as_bytes())?;
        wrap(
            Tag::Set,
            &[NameAttribute {
                attribute_type,
                value,
            }
            .to_der()?],
        )
    });
    wrap(Tag::Sequence, &attributes.collect::<der::Result<Vec<_>>>()?)
}

fn key(random: &SystemRandom) -> Result<(Document, EcdsaKeyPair), SignerError> {
    let algorithm = &ECDSA_P256_SHA256_ASN1_SIGNING;
    let document = EcdsaKeyPair::generate_pkcs8(algorithm, random)?;
    let key = EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), random);
    let rejected = |error: ring::error::KeyRejected| {
        SignerError::new(SignerErrorKind::Other, error.to_string())
    };
    Ok((document, key.map_err(rejected)?))
}

struct Issuer<'a> {
    key: &'a EcdsaKeyPair,
    name: &'a [u8],
    random: &'a SystemRandom,
}

impl Issuer<'_> {
    /// Makes a certificate for the owner of `key`.
    fn issue(
        &self,
        key: &EcdsaKeyPair,
        subject: &[u8],
        extensions: &[(ObjectIdentifier, &[u8])],
    ) -> Result<Vec<u8>, SignerError> {
        let mut serial = [0; 16];
        self.random.fill(&mut serial)?;
        // The serial number must be positive and in its shortest form.
        if let Some(first) = serial.first_mut() {
            *first = *first & 0x3f | 0x40;
        }
        let now = now()?;
        let not_before = utc_time(now.saturating_sub(DAY))?.to_der()?;
        let not_after = utc_time(now + DAY * 365)?.to_der()?;
        let curve = oid::P_256.to_der()?;
        let own = key_identifier(key);
        let own = OctetStringRef::new(&own)?.to_der()?;
        let issuer = key_identifier(self.key);
        let issuer = AnyRef::new(context_tag(TagNumber::N0), &issuer)?.to_der()?;
        let issuer = wrap(Tag::Sequence, &[issuer])?;
        let identifiers = [
            (oid::SUBJECT_KEY_IDENTIFIER, &own[..]),
            (oid::AUTHORITY_KEY_IDENTIFIER, &issuer),
        ];
        let extensions = identifiers
            .iter()
            .chain(extensions)
            .map(|&(id, value)| {
                Ok(Extension {
                    id,
                    critical: None,
                    value: OctetStringRef::new(value)?,
                })
            })
            .collect::<der::Result<Vec<_>>>()?;
        let to_be_signed = ToBeSigned {
            version: Some(AnyRef::new(Tag::Integer, &[VERSION_3])?),
            serial: AnyRef::new(Tag::Integer, &serial)?,
            signature_algorithm: ECDSA_WITH_SHA_256,
            issuer: AnyRef::from_der(self.name)?,
            validity: Validity {
                not_before: AnyRef::from_der(&not_before)?,
                not_after: AnyRef::from_der(&not_after)?,
            },
            subject: AnyRef::from_der(subject)?,
            public_key: PublicKeyInfo {
                algorithm: AlgorithmIdentifier {
                    algorithm: oid::EC_PUBLIC_KEY,
                    parameters: Some(AnyRef::from_der(&curve)?),
                },
                key: BitStringRef::from_bytes(key.public_key().as_ref())?,
            },
            issuer_unique_id: None,
            subject_unique_id: None,
            extensions: Some(extensions),
        };
        let signature = self.key.sign(self.random, &to_be_signed.to_der()?)?;
        let certificate = SignedCertificate {
            to_be_signed,
            signature_algorithm: ECDSA_WITH_SHA_256,
            signature: BitStringRef::from_bytes(signature.as_ref())?,
        };
        Ok(certificate.to_der()?)
    }
}

/// Returns 20 bytes that differ from key to key.
fn key_identifier(key: &EcdsaKeyPair) -> Vec<u8> {
    let mut identifier = sha256(key.public_key().as_ref()).to_vec();
    identifier.truncate(20);
    identifier
}
