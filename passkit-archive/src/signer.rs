use std::time::{Duration, SystemTime};

use der::{
    Decode, Encode, Tag, TagNumber,
    asn1::{AnyRef, BitStringRef, ObjectIdentifier, OctetStringRef, UtcTime},
};
use passkit_server::identifiers::TypeIdentifier;
use ring::{
    rand::{SecureRandom as _, SystemRandom},
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _},
};

use crate::{
    BuildError,
    asn1::{
        AlgorithmIdentifier, Attribute, ContentInfo, EncapsulatedContent, Extension,
        IssuerAndSerial, NameAttribute, PublicKeyInfo, SignedCertificate, SignedData, SignerInfo,
        ToBeSigned, Validity, context_tag, oid, wrap,
    },
    layout::{Layout, sha256},
};

const SHA_256: AlgorithmIdentifier<'_> = AlgorithmIdentifier {
    algorithm: oid::SHA_256,
    parameters: None,
};
/// X.509 counts versions from zero. Only the third has extensions.
const VERSION_3: u8 = 2;
/// The value of the basic constraints that says "may issue certificates".
const IS_AUTHORITY: &[u8] = &[0x30, 3, 1, 1, 0xff];
const NULL: &[u8] = &[5, 0];
const ECDSA_WITH_SHA_256: AlgorithmIdentifier<'_> = AlgorithmIdentifier {
    algorithm: oid::ECDSA_WITH_SHA_256,
    parameters: None,
};

/// Signs archives with a throw-away certificate, for tests, demos and development.
///
/// The certificate has the type identifier and the team, like Apple's certificates. But a
/// throw-away authority issued it. [`Archive::check`](crate::Archive::check) accepts the archives.
/// No phone does.
#[derive(Debug)]
pub struct Signer {
    key: EcdsaKeyPair,
    certificate: Vec<u8>,
    authority: Vec<u8>,
    random: SystemRandom,
}

impl Signer {
    /// Makes a key (ECDSA, P-256), a certificate for archives of this type and team, and the
    /// authority that issues it. Both certificates are valid for a year.
    ///
    /// # Errors
    /// Fails if the system has no random numbers, or if its clock is not between 1970 and 2048.
    pub fn throwaway(type_id: &TypeIdentifier, team_identifier: &str) -> Result<Self, BuildError> {
        Self::new(type_id, team_identifier, &[])
    }

    /// Makes a signer like [`throwaway`](Self::throwaway). Its certificate allows NFC and rewards
    /// enrolment.
    ///
    /// # Errors
    /// Fails like [`throwaway`](Self::throwaway).
    pub fn throwaway_with_nfc(
        type_id: &TypeIdentifier,
        team_identifier: &str,
    ) -> Result<Self, BuildError> {
        Self::new(type_id, team_identifier, &[(oid::APPLE_NFC, NULL)])
    }

    fn new(
        type_id: &TypeIdentifier,
        team_identifier: &str,
        more: &[(ObjectIdentifier, &[u8])],
    ) -> Result<Self, BuildError> {
        let random = SystemRandom::new();
        let authority_key = key(&random)?;
        let key = key(&random)?;
        let authority_name = name(&[
            (oid::COMMON_NAME, "Throw-away authority, for tests"),
            (oid::ORGANIZATION, "Throw-away certificate, for tests"),
        ])?;
        let issuer = Issuer {
            key: &authority_key,
            name: &authority_name,
            random: &random,
        };
        let authority = issuer.issue(
            &authority_key,
            &authority_name,
            &[(oid::BASIC_CONSTRAINTS, IS_AUTHORITY)],
        )?;
        let type_text = AnyRef::new(Tag::Utf8String, type_id.as_str().as_bytes())?.to_der()?;
        let extensions = [&[(oid::APPLE_TYPE, &type_text[..])], more].concat();
        let certificate = issuer.issue(&key, &subject(type_id, team_identifier)?, &extensions)?;
        Ok(Self {
            key,
            certificate,
            authority,
            random,
        })
    }

    /// Returns the certificate in DER.
    #[must_use]
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// Signs the bytes of a `manifest.json`. Returns a detached CMS signature in DER. It contains
    /// both certificates and the time.
    ///
    /// # Errors
    /// Fails like [`throwaway`](Self::throwaway).
    pub fn sign(&self, manifest: &[u8]) -> Result<Vec<u8>, BuildError> {
        let mut attributes = [
            attribute(oid::CONTENT_TYPE, &oid::DATA)?,
            attribute(oid::SIGNING_TIME, &utc_time(now()?)?)?,
            attribute(
                oid::MESSAGE_DIGEST,
                &OctetStringRef::new(&sha256(manifest))?,
            )?,
        ];
        attributes.sort_unstable();
        let signature = self
            .key
            .sign(&self.random, &wrap(Tag::Set, &attributes)?)
            .map_err(BuildError::ring)?;

        let certificate = SignedCertificate::from_der(&self.certificate)?.to_be_signed;
        let signer = IssuerAndSerial {
            issuer: certificate.issuer,
            serial: certificate.serial,
        }
        .to_der()?;
        let signer_info = SignerInfo {
            version: 1,
            signer: AnyRef::from_der(&signer)?,
            digest_algorithm: SHA_256,
            signed_attributes: Some(
                attributes
                    .iter()
                    .map(|attribute| AnyRef::from_der(attribute))
                    .collect::<Result<_, _>>()?,
            ),
            signature_algorithm: ECDSA_WITH_SHA_256,
            signature: OctetStringRef::new(signature.as_ref())?,
            unsigned_attributes: None,
        }
        .to_der()?;
        let signed_data = SignedData {
            version: 1,
            digest_algorithms: AnyRef::new(Tag::Set, &SHA_256.to_der()?)?,
            content: EncapsulatedContent {
                content_type: oid::DATA,
                content: None,
            },
            certificates: Some(vec![
                AnyRef::from_der(&self.certificate)?,
                AnyRef::from_der(&self.authority)?,
            ]),
            crls: None,
            signers: AnyRef::new(Tag::Set, &signer_info)?,
        }
        .to_der()?;
        let content_info = ContentInfo {
            content_type: oid::SIGNED_DATA,
            content: AnyRef::from_der(&signed_data)?,
        };
        Ok(content_info.to_der()?)
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

fn key(random: &SystemRandom) -> Result<EcdsaKeyPair, BuildError> {
    let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, random)
        .map_err(BuildError::ring)?;
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, key.as_ref(), random)
        .map_err(BuildError::ring)
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
    ) -> Result<Vec<u8>, BuildError> {
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);

        let mut serial = [0; 16];
        self.random.fill(&mut serial).map_err(BuildError::ring)?;
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
        let signature = self
            .key
            .sign(self.random, &to_be_signed.to_der()?)
            .map_err(BuildError::ring)?;
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

fn attribute(attribute_type: ObjectIdentifier, value: &impl Encode) -> der::Result<Vec<u8>> {
    Attribute {
        attribute_type,
        values: AnyRef::new(Tag::Set, &value.to_der()?)?,
    }
    .to_der()
}

fn now() -> Result<Duration, BuildError> {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_err(|_| BuildError::Sign("the clock is before 1970".into()))
}

fn utc_time(since_epoch: Duration) -> der::Result<UtcTime> {
    // UTCTime has no fractions of a second.
    UtcTime::from_unix_duration(Duration::from_secs(since_epoch.as_secs()))
}
