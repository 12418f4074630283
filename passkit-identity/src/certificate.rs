//! What a certificate says about passes.

use std::time::{SystemTime, UNIX_EPOCH};

use der::{
    Decode as _, Tag, Tagged as _,
    asn1::{AnyRef, ObjectIdentifier},
};

use crate::x509::{NameAttribute, SignedCertificate, elements, time};

/// The attribute of the subject that names the type.
const USER_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("0.9.2342.19200300.100.1.1");

/// The attribute of the subject that names the team.
const ORGANIZATIONAL_UNIT: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.11");

/// Apple's extension that names several push topics, each followed by a list of kinds of pushes.
const TOPICS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113635.100.6.3.6");

/// The types, team, dates and public key of a certificate.
pub(crate) struct Facts {
    /// The types that the certificate names. The type in the subject comes first, if there is one.
    pub(crate) types: Vec<String>,
    pub(crate) team: Option<String>,
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
    pub(crate) public_key: Vec<u8>,
}

impl Facts {
    pub(crate) fn read(certificate: &[u8]) -> der::Result<Self> {
        let certificate = SignedCertificate::from_der(certificate)?.to_be_signed;
        let mut types = Vec::new();
        let mut team = None;
        for part in elements::<AnyRef<'_>>(certificate.subject, Tag::Sequence)? {
            for attribute in elements::<NameAttribute<'_>>(part, Tag::Set)? {
                match attribute.attribute_type {
                    USER_ID => types.extend(text(attribute.value)),
                    ORGANIZATIONAL_UNIT => team = team.or_else(|| text(attribute.value)),
                    _ => {}
                }
            }
        }
        for extension in certificate.extensions.iter().flatten() {
            if extension.id == TOPICS {
                let list = AnyRef::from_der(extension.value.as_bytes())?;
                let names = elements::<AnyRef<'_>>(list, Tag::Sequence)?;
                types.extend(
                    names
                        .into_iter()
                        .filter(|name| name.tag() != Tag::Sequence)
                        .filter_map(text),
                );
            }
        }
        Ok(Self {
            types,
            team,
            not_before: UNIX_EPOCH + time(certificate.validity.not_before)?,
            not_after: UNIX_EPOCH + time(certificate.validity.not_after)?,
            public_key: certificate.public_key.key.raw_bytes().to_vec(),
        })
    }
}

/// Returns the text of any kind of string. All kinds are accepted, because types and teams are
/// ASCII.
fn text(of: AnyRef<'_>) -> Option<String> {
    String::from_utf8(of.value().to_vec()).ok()
}
