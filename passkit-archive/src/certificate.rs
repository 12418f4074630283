//! The certificates in a signature: their content, and which certificate issued which.

use std::time::Duration;

use der::{
    Decode, Encode as _, Tag, Tagged,
    asn1::{AnyRef, ObjectIdentifier, OctetStringRef},
};
use ring::signature::UnparsedPublicKey;

use crate::{
    algorithms::{Digest, verification_algorithm},
    asn1::{
        Extension, IssuerAndSerial, NameAttribute, SignedCertificate, context_tag, elements, oid,
        time,
    },
};

/// A certificate. It is read as strictly as OpenSSL reads it.
pub(crate) struct Certificate<'a> {
    parts: SignedCertificate<'a>,
    /// The part of the certificate that the issuer signed.
    signed: Vec<u8>,
    pub(crate) subject: Name,
    pub(crate) issuer: Name,
    /// Since 1970, like all times in this file.
    pub(crate) not_before: Duration,
    pub(crate) not_after: Duration,
}

/// The parts of a name that Apple's certificates use.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Name {
    /// The UID. In Apple's certificates, this is the type identifier.
    pub(crate) user_id: Option<String>,
    pub(crate) common_name: Option<String>,
    /// The OUs. In Apple's certificates, they are the team identifier.
    pub(crate) units: Vec<String>,
}

/// The relation of a certificate to another certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Relation {
    /// This certificate issued the other certificate.
    Issuer,
    /// This certificate has the name of the issuer, but not the issuer's key.
    Namesake,
    /// This certificate has the name and the key of the issuer, but its signature on the other
    /// certificate is wrong.
    Forged,
    Stranger,
}

impl<'a> Certificate<'a> {
    pub(crate) fn read(certificate: AnyRef<'a>) -> der::Result<Self> {
        let parts: SignedCertificate<'a> = certificate.decode_as()?;
        let content = &parts.to_be_signed;
        let wrong = |tag: Tag| Err(tag.value_error());
        let is_minimal = match content.serial.value() {
            [] | [0, 0..0x80, ..] | [0xff, 0x80..=0xff, ..] => false,
            [..] => true,
        };
        if content.serial.tag() != Tag::Integer || !is_minimal {
            return wrong(Tag::Integer);
        }
        if let Some(version) = content.version
            && version.decode_as::<u8>()? > 2
        {
            return wrong(Tag::Integer);
        }
        if content.signature_algorithm.algorithm != parts.signature_algorithm.algorithm {
            return wrong(Tag::ObjectIdentifier);
        }
        content.signature_algorithm.check()?;
        parts.signature_algorithm.check()?;
        content.public_key.algorithm.check()?;
        let signed = match elements::<AnyRef<'_>>(certificate, Tag::Sequence)?.first() {
            Some(signed) => signed.to_der()?,
            None => return wrong(Tag::Sequence),
        };
        Ok(Self {
            signed,
            subject: Name::read(content.subject)?,
            issuer: Name::read(content.issuer)?,
            not_before: time(content.validity.not_before)?,
            not_after: time(content.validity.not_after)?,
            parts,
        })
    }

    pub(crate) fn public_key(&self) -> &crate::asn1::PublicKeyInfo<'a> {
        &self.parts.to_be_signed.public_key
    }

    /// Returns whether the signer identifier of a CMS signature names this certificate.
    pub(crate) fn is_named_by(&self, signer: AnyRef<'_>) -> bool {
        let own = IssuerAndSerial {
            issuer: self.parts.to_be_signed.issuer,
            serial: self.parts.to_be_signed.serial,
        };
        if signer.tag() == context_tag(der::TagNumber::N0) {
            return self.key_identifier() == Some(signer.value());
        }
        signer.decode_as::<IssuerAndSerial<'_>>().ok().as_ref() == Some(&own)
    }

    /// Returns whether both are the same certificate.
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.signed == other.signed
    }

    /// Returns how this certificate is related to `other`.
    pub(crate) fn relation_to(&self, other: &Self) -> Relation {
        if self.parts.to_be_signed.subject != other.parts.to_be_signed.issuer {
            return Relation::Stranger;
        }
        let named = other.authority_key_identifier();
        if named.is_some() && self.key_identifier().is_some() && named != self.key_identifier() {
            return Relation::Namesake;
        }
        let algorithm = other.parts.signature_algorithm;
        let key = self.public_key();
        let verifies = verification_algorithm(key, algorithm, Digest::Sha256).map(|algorithm| {
            UnparsedPublicKey::new(algorithm, key.key.raw_bytes())
                .verify(&other.signed, other.parts.signature.raw_bytes())
                .is_ok()
        });
        match (verifies, named) {
            // If the algorithm of the signature is unknown, the signature counts as valid.
            (Some(true) | None, _) => Relation::Issuer,
            (Some(false), Some(_)) => Relation::Forged,
            // Without key identifiers, two cases look the same. Either the signature is wrong, or
            // an authority has the same name but another key.
            (Some(false), None) => Relation::Namesake,
        }
    }

    /// Returns whether this intermediate names Apple's root as its issuer. The root is not in a
    /// signature, so its signature can't be checked. This check is enough to recognise certificates
    /// for tests.
    pub(crate) fn leads_to_apple(&self) -> bool {
        let name = self.issuer.common_name.as_deref();
        name.is_some_and(|name| name.starts_with("Apple Root CA"))
    }

    /// Returns the value of an extension.
    pub(crate) fn extension(&self, id: ObjectIdentifier) -> Option<&'a [u8]> {
        let extensions: &[Extension<'a>] = self.parts.to_be_signed.extensions.as_deref()?;
        let extension = extensions.iter().find(|extension| extension.id == id)?;
        Some(extension.value.as_bytes())
    }

    /// Returns the text in an extension.
    pub(crate) fn text_extension(&self, id: ObjectIdentifier) -> Option<String> {
        let value = self.extension(id)?;
        let text = AnyRef::from_der(value).map_or(value, |text| text.value());
        Some(String::from_utf8_lossy(text).into_owned())
    }

    fn key_identifier(&self) -> Option<&'a [u8]> {
        let value = self.extension(oid::SUBJECT_KEY_IDENTIFIER)?;
        Some(OctetStringRef::from_der(value).ok()?.as_bytes())
    }

    fn authority_key_identifier(&self) -> Option<&'a [u8]> {
        let list = AnyRef::from_der(self.extension(oid::AUTHORITY_KEY_IDENTIFIER)?).ok()?;
        let parts = elements::<AnyRef<'a>>(list, Tag::Sequence).ok()?;
        let identifier = parts
            .into_iter()
            .find(|part| part.tag() == context_tag(der::TagNumber::N0))?;
        Some(identifier.value())
    }
}

impl Name {
    /// The common name and units, for a message.
    pub(crate) fn shown(&self) -> String {
        let name = self
            .common_name
            .as_deref()
            .unwrap_or("an unnamed authority");
        match &*self.units {
            [] => format!("\"{name}\""),
            units => format!("\"{name}\" ({})", units.join(", ")),
        }
    }

    fn read(name: AnyRef<'_>) -> der::Result<Self> {
        let mut read = Self::default();
        for set in elements::<AnyRef<'_>>(name, Tag::Sequence)? {
            for attribute in elements::<NameAttribute<'_>>(set, Tag::Set)? {
                if !is_text(attribute.value) {
                    return Err(attribute.value.tag().value_error());
                }
                let text = String::from_utf8_lossy(attribute.value.value()).into_owned();
                match attribute.attribute_type {
                    oid::USER_ID => read.user_id = read.user_id.or(Some(text)),
                    oid::COMMON_NAME => read.common_name = read.common_name.or(Some(text)),
                    oid::ORGANIZATIONAL_UNIT => read.units.push(text),
                    _ => {}
                }
            }
        }
        Ok(read)
    }
}

/// Returns whether a name may have this value.
fn is_text(value: AnyRef<'_>) -> bool {
    match value.tag() {
        Tag::Utf8String => std::str::from_utf8(value.value()).is_ok(),
        Tag::BmpString => value.value().len() % 2 == 0,
        tag => matches!(
            tag,
            Tag::PrintableString
                | Tag::TeletexString
                | Tag::Ia5String
                | Tag::NumericString
                | Tag::VisibleString
        ),
    }
}
