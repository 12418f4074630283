//! Verifies the signature over the manifest with the certificate that the signature contains. Also
//! checks that phones accept this certificate.

use std::time::Duration;

use der::{
    Decode, Tag, Tagged,
    asn1::{AnyRef, ObjectIdentifier, OctetStringRef},
};
use passkit_server::identifiers::{Kind, TypeIdentifier};
use ring::signature::UnparsedPublicKey;

use crate::{
    algorithms::{Digest, verification_algorithm},
    asn1::{
        AlgorithmIdentifier, Attribute, ContentInfo, SignedData, SignerInfo, elements, oid, time,
        wrap,
    },
    ber::{self, BerError},
    certificate::{Certificate, Relation},
    dates::{self, RENEWAL, date},
    description::Description,
    finding::{Finding, Findings},
    layout::{Layout, SIGNATURE},
    rules::{self, Rule},
};

/// An error of a signature. Each text fits after "signature: ".
#[derive(Debug, thiserror::Error)]
pub(crate) enum SignatureError {
    #[error("is text; write the bytes (DER) of the CMS signature, not PEM or S/MIME")]
    Text,
    #[error("is empty, because the program that signs failed; sign again")]
    Empty,
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
    #[error("does not list the digest of its signer among its digest algorithms; sign again")]
    DigestAlgorithms,
    #[error("has a certificate that is damaged: {0}")]
    Certificate(der::Error),
    #[error("has signed attributes, but not one content type and one message digest among them")]
    Attributes,
    #[error("was made for another manifest.json; sign after its last change")]
    OtherManifest,
    #[error(
        "was made for manifest.json as a text with other line ends; sign its bytes, as with \
         `openssl smime -sign -binary`"
    )]
    TextManifest,
    #[error(
        "does not verify; the manifest was changed, or the key does not belong to the certificate"
    )]
    Invalid,
}

impl From<der::Error> for SignatureError {
    fn from(error: der::Error) -> Self {
        Self::Structure(error)
    }
}

impl SignatureError {
    fn rule(&self) -> &'static Rule {
        match self {
            Self::Certificate(_) => &rules::CERTIFICATE,
            _ => &rules::SIGNATURE,
        }
    }
}

/// The properties that the certificate must have.
pub(crate) struct Required<'a> {
    pub(crate) kind: Kind,
    pub(crate) description: &'a Description,
    /// Whether the archive uses NFC or rewards enrolment.
    pub(crate) needs_nfc: bool,
    /// The time now, since 1970.
    pub(crate) now: Duration,
}

/// Checks a signature over `manifest`, and the certificates in the signature.
pub(crate) fn check(
    signature: &[u8],
    manifest: Option<&[u8]>,
    required: &Required<'_>,
    findings: &mut Vec<Finding>,
) {
    if let Err(error) = read(signature, manifest, required, findings) {
        findings.push(Finding::in_file(error.rule(), SIGNATURE, error.to_string()));
    }
}

fn read(
    signature: &[u8],
    content: Option<&[u8]>,
    required: &Required<'_>,
    findings: &mut Vec<Finding>,
) -> Result<(), SignatureError> {
    let der = to_der(signature)?;
    let signature = Signature::read(&der)?;
    if let Some(content) = content {
        signature.verify(content)?;
    }
    signature.check_certificates(required, findings);
    Ok(())
}

/// Checks a signature over the token of a rewards enrolment, as a phone does. The signature is the
/// answer to `POST /v1/passes/{type}/{serial}/personalize`. The signature must be detached, over
/// the bytes of the token, and with the certificate of the type and its issuer.
#[must_use]
pub fn check_token_signature(type_id: &TypeIdentifier, token: &str, signature: &[u8]) -> Findings {
    let description = Description {
        type_id: Some(type_id.clone()),
        ..Description::default()
    };
    let required = Required {
        kind: Kind::Pass,
        description: &description,
        needs_nfc: false,
        now: dates::now(),
    };
    let mut findings = Vec::new();
    let result = read(signature, Some(token.as_bytes()), &required, &mut findings);
    if let Err(error) = result {
        let message = match error {
            SignatureError::OtherManifest | SignatureError::TextManifest => {
                "was made for other bytes than the token".to_owned()
            }
            _ => error.to_string(),
        };
        findings.push(Finding::in_file(error.rule(), SIGNATURE, message));
    }
    Findings::new(findings)
}

fn to_der(signature: &[u8]) -> Result<Vec<u8>, SignatureError> {
    if signature.starts_with(b"-----BEGIN") || signature.starts_with(b"MIME-Version:") {
        return Err(SignatureError::Text);
    }
    if signature.is_empty() {
        return Err(SignatureError::Empty);
    }
    Ok(ber::to_der(signature)?)
}

/// A detached CMS signature with one signer.
struct Signature<'a> {
    content_type: ObjectIdentifier,
    signer: SignerInfo<'a>,
    certificate: Certificate<'a>,
    others: Vec<Certificate<'a>>,
}

impl<'a> Signature<'a> {
    fn read(der: &'a [u8]) -> Result<Self, SignatureError> {
        let content_info = ContentInfo::from_der(der)?;
        if content_info.content_type != oid::SIGNED_DATA {
            return Err(SignatureError::NotSignedData);
        }
        let signed_data: SignedData<'_> = content_info.content.decode_as()?;
        if signed_data.content.content.is_some() {
            return Err(SignatureError::NotDetached);
        }
        let mut signers: Vec<SignerInfo<'_>> = elements(signed_data.signers, Tag::Set)?;
        let (Some(signer), true) = (signers.pop(), signers.is_empty()) else {
            return Err(SignatureError::Signers(
                elements::<AnyRef<'_>>(signed_data.signers, Tag::Set)?.len(),
            ));
        };
        let digests: Vec<AlgorithmIdentifier<'_>> =
            elements(signed_data.digest_algorithms, Tag::Set)?;
        for algorithm in [signer.digest_algorithm, signer.signature_algorithm] {
            algorithm.check()?;
        }
        for algorithm in &digests {
            algorithm.check()?;
        }
        let digest = signer.digest_algorithm.algorithm;
        if !digests.iter().any(|one| one.algorithm == digest) {
            return Err(SignatureError::DigestAlgorithms);
        }
        // Certificates of other kinds have other tags. They are ignored.
        let mut others = signed_data
            .certificates
            .unwrap_or_default()
            .into_iter()
            .filter(|certificate| certificate.tag() == Tag::Sequence)
            .map(|certificate| Certificate::read(certificate).map_err(SignatureError::Certificate))
            .collect::<Result<Vec<_>, _>>()?;
        let own = others
            .iter()
            .position(|certificate| certificate.is_named_by(signer.signer))
            .ok_or(SignatureError::NoCertificate)?;
        let certificate = others.swap_remove(own);
        // Some real archives contain the signer's certificate twice.
        others.retain(|other| !other.is(&certificate));
        Ok(Self {
            content_type: signed_data.content.content_type,
            signer,
            certificate,
            others,
        })
    }

    fn verify(&self, manifest: &[u8]) -> Result<(), SignatureError> {
        let algorithm = self.signer.digest_algorithm.algorithm;
        let digest = Digest::of(algorithm).ok_or(SignatureError::Algorithm(algorithm))?;
        let public_key = self.certificate.public_key();
        let algorithm = verification_algorithm(public_key, self.signer.signature_algorithm, digest)
            .ok_or(SignatureError::Algorithm(
                self.signer.signature_algorithm.algorithm,
            ))?;
        let public_key = UnparsedPublicKey::new(algorithm, public_key.key.raw_bytes());
        let verifies = |message: &[u8]| {
            public_key
                .verify(message, self.signer.signature.as_bytes())
                .is_ok()
        };
        let valid = match &self.signer.signed_attributes {
            None => verifies(manifest),
            Some(attributes) => {
                self.check_attributes(attributes, digest, manifest)?;
                verifies_attributes(attributes, verifies)?
            }
        };
        if valid {
            Ok(())
        } else {
            Err(SignatureError::Invalid)
        }
    }

    /// Checks that the attributes belong to this manifest.
    fn check_attributes(
        &self,
        attributes: &[AnyRef<'_>],
        digest: Digest,
        manifest: &[u8],
    ) -> Result<(), SignatureError> {
        let content_type = attribute(attributes, oid::CONTENT_TYPE)?;
        if content_type.decode_as::<ObjectIdentifier>()? != self.content_type {
            return Err(SignatureError::Attributes);
        }
        let signed =
            attribute(attributes, oid::MESSAGE_DIGEST)?.decode_as::<OctetStringRef<'_>>()?;
        let is_of = |content: &[u8]| digest.of_content(content).as_ref() == signed.as_bytes();
        if is_of(manifest) {
            Ok(())
        } else if as_texts(manifest).iter().any(|text| is_of(text)) {
            Err(SignatureError::TextManifest)
        } else {
            Err(SignatureError::OtherManifest)
        }
    }

    /// Returns the time of signing, since 1970.
    fn signing_time(&self) -> Option<Duration> {
        let attributes = self.signer.signed_attributes.as_ref()?;
        time(attribute(attributes, oid::SIGNING_TIME).ok()?).ok()
    }

    /// Checks the certificates as phones do.
    fn check_certificates(&self, required: &Required<'_>, findings: &mut Vec<Finding>) {
        let mut found = |rule: &'static Rule, message: String| {
            findings.push(Finding::in_file(rule, SIGNATURE, message));
        };
        self.check_days(required.now, &mut found);
        self.check_chain(required.now, &mut found);

        let Required {
            kind, description, ..
        } = required;
        let Layout {
            description_file: file,
            type_key,
            ..
        } = Layout::of(*kind);
        let subject = &self.certificate.subject;
        let extension = self.certificate.text_extension(oid::APPLE_TYPE);
        if let Some(type_id) = &description.type_id {
            let type_id = type_id.as_str();
            let certified = subject.user_id.as_deref().unwrap_or_default();
            let certified = match &extension {
                Some(extension) if certified == type_id && extension != type_id => {
                    Some((extension.as_str(), "its Apple extension"))
                }
                _ => (certified != type_id).then_some((certified, "its UID")),
            };
            if let Some((certified, place)) = certified {
                found(
                    &rules::CERTIFICATE_TYPE,
                    format!(
                        "was made with a certificate for \"{certified}\" ({place}), but {type_key} in {file} is \
                         \"{type_id}\"; sign with the certificate of that type"
                    ),
                );
            }
        }
        if extension.is_none() {
            found(
                &rules::CERTIFICATE_PLAIN,
                "was made with a certificate without the extension in which Apple names the type"
                    .into(),
            );
        }
        if let Some(team) = &description.team_identifier
            && !subject.units.contains(team)
        {
            let certified = subject.units.join("\", \"");
            found(
                &rules::CERTIFICATE_TEAM,
                format!(
                    "was made with a certificate of the team \"{certified}\" (its OU), but teamIdentifier in {file} \
                     is \"{team}\"; write the team of the certificate into {file}"
                ),
            );
        }
        if required.needs_nfc && self.certificate.extension(oid::APPLE_NFC).is_none() {
            found(
                &rules::CERTIFICATE_NFC,
                "was made with a certificate that does not allow NFC, but the pass uses NFC or rewards enrolment; \
                 ask Apple for an NFC certificate"
                    .into(),
            );
        }
    }

    fn check_days(&self, now: Duration, found: &mut impl FnMut(&'static Rule, String)) {
        let Certificate {
            not_before,
            not_after,
            ..
        } = self.certificate;
        match self.signing_time() {
            None => found(
                &rules::SIGNING_TIME,
                "does not say when it was made; sign with signed attributes and the signing time"
                    .into(),
            ),
            Some(signed) if signed < not_before || signed > not_after => found(
                &rules::CERTIFICATE_DAYS,
                format!(
                    "was made on {}, but its certificate is valid from {} to {}; sign again with a valid \
                     certificate",
                    date(signed),
                    date(not_before),
                    date(not_after)
                ),
            ),
            Some(_) => {}
        }
        if now > not_after {
            found(
                &rules::CERTIFICATE_EXPIRED,
                format!(
                    "was made with a certificate that expired on {}; sign updates with a new one",
                    date(not_after)
                ),
            );
        } else if now + RENEWAL > not_after {
            found(
                &rules::CERTIFICATE_ENDS,
                format!(
                    "was made with a certificate that expires on {}; renew it before that day",
                    date(not_after)
                ),
            );
        }
    }

    fn check_chain(&self, now: Duration, found: &mut impl FnMut(&'static Rule, String)) {
        let relation = |relation| {
            self.others
                .iter()
                .find(move |other| other.relation_to(&self.certificate) == relation)
        };
        let issuer_name = self.certificate.issuer.shown();
        if self.others.is_empty() {
            found(
                &rules::INTERMEDIATE_MISSING,
                format!(
                    "lacks the certificate that issued the signer's certificate; include {issuer_name}"
                ),
            );
        } else if let Some(issuer) = relation(Relation::Issuer) {
            if now > issuer.not_after {
                found(
                    &rules::INTERMEDIATE_EXPIRED,
                    format!(
                        "has an intermediate certificate that expired on {}; only phones that have a newer \
                         one accept it",
                        date(issuer.not_after)
                    ),
                );
            } else if now + RENEWAL > issuer.not_after {
                found(
                    &rules::INTERMEDIATE_ENDS,
                    format!(
                        "has an intermediate certificate that expires on {}; renew your certificate before that day",
                        date(issuer.not_after)
                    ),
                );
            }
            if !issuer.leads_to_apple() {
                found(
                    &rules::ROOT,
                    format!(
                        "was made with a certificate from {issuer_name}, not from Apple; phones accept it only if \
                         that authority was installed on them"
                    ),
                );
            }
        } else if relation(Relation::Forged).is_some() {
            found(
                &rules::CERTIFICATE,
                "has a certificate that its issuer did not sign; it was changed or damaged".into(),
            );
        } else {
            found(
                &rules::INTERMEDIATE_OTHER,
                format!(
                    "has an intermediate certificate that did not issue the signer's certificate; include {issuer_name}"
                ),
            );
        }
    }
}

/// Returns the two texts that OpenSSL may have signed if it ran without `-binary`.
fn as_texts(manifest: &[u8]) -> [Vec<u8>; 2] {
    let mut text = Vec::with_capacity(manifest.len());
    for &byte in manifest {
        if byte == b'\n' && text.last() != Some(&b'\r') {
            text.push(b'\r');
        }
        text.push(byte);
    }
    let with_header = [b"Content-Type: text/plain\r\n\r\n", &text[..]].concat();
    [text, with_header]
}

/// Returns the one value of an attribute.
fn attribute<'a>(
    attributes: &[AnyRef<'a>],
    attribute_type: ObjectIdentifier,
) -> Result<AnyRef<'a>, SignatureError> {
    let mut values = attributes
        .iter()
        .filter_map(|attribute| attribute.decode_as::<Attribute<'_>>().ok())
        .filter(|attribute| attribute.attribute_type == attribute_type)
        .map(|attribute| attribute.values);
    match (values.next(), values.next()) {
        (Some(values), None) => match *elements::<AnyRef<'_>>(values, Tag::Set)? {
            [value] => Ok(value),
            _ => Err(SignatureError::Attributes),
        },
        _ => Err(SignatureError::Attributes),
    }
}

/// Verifies the signature over the attributes. The signature covers the attributes as a DER set,
/// which is sorted. Some signers don't sort the attributes before they sign. Common verifiers
/// accept these signatures too, and so does this function.
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

#[cfg(test)]
mod tests {
    use passkit_server::identifiers::TypeIdentifier;

    use super::*;
    use crate::{Signer, signer, testing::Random};

    const MANIFEST: &[u8] = br#"{"pass.json":"da39a3ee5e6b4b0d3255bfef95601890afd80709"}"#;

    fn sign(manifest: &[u8]) -> Vec<u8> {
        let type_id = TypeIdentifier::new("pass.com.example.test").unwrap();
        Signer::throwaway(&type_id, "ABCDE12345")
            .unwrap()
            .sign(signer::Purpose::Manifest, manifest)
            .unwrap()
    }

    fn signature() -> Vec<u8> {
        sign(MANIFEST)
    }

    fn verify(signature: &[u8], manifest: &[u8]) -> Result<(), SignatureError> {
        Signature::read(&to_der(signature)?)?.verify(manifest)
    }

    fn refusal(signature: &[u8]) -> String {
        verify(signature, MANIFEST).unwrap_err().to_string()
    }

    #[test]
    fn a_signature_of_our_own_verifies() {
        verify(&signature(), MANIFEST).unwrap();
    }

    #[test]
    fn another_manifest_is_an_error() {
        let error = verify(&signature(), b"{}").unwrap_err();
        assert!(matches!(error, SignatureError::OtherManifest), "{error}");
    }

    #[test]
    fn a_manifest_signed_as_text_is_told_from_another_one() {
        let manifest = b"{\n\"a\":\"b\"\r\n}\n";
        let text = b"{\r\n\"a\":\"b\"\r\n}\r\n";
        for signed in [
            text.to_vec(),
            [b"Content-Type: text/plain\r\n\r\n", &text[..]].concat(),
        ] {
            let error = verify(&sign(&signed), manifest).unwrap_err();
            assert!(matches!(error, SignatureError::TextManifest), "{error}");
        }
    }

    #[test]
    fn other_files_get_their_own_errors() {
        assert!(refusal(b"-----BEGIN PKCS7-----").contains("not PEM"));
        assert!(refusal(b"MIME-Version: 1.0").contains("S/MIME"));
        assert!(refusal(b"").contains("is empty"));
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
