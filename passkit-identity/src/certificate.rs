//! The content of a certificate (RFC 5280). Parts that are not needed are not parsed.

use std::time::{SystemTime, UNIX_EPOCH};

use der::{
    Decode, Reader, Sequence, SliceReader, Tag, Tagged,
    asn1::{AnyRef, BitStringRef, GeneralizedTime, ObjectIdentifier, OctetStringRef, UtcTime},
};

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

#[derive(Sequence)]
struct Certificate<'a> {
    to_be_signed: ToBeSigned<'a>,
    signature_algorithm: AnyRef<'a>,
    signature: BitStringRef<'a>,
}

#[derive(Sequence)]
struct ToBeSigned<'a> {
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    version: Option<AnyRef<'a>>,
    serial: AnyRef<'a>,
    signature_algorithm: AnyRef<'a>,
    issuer: AnyRef<'a>,
    validity: Validity<'a>,
    subject: AnyRef<'a>,
    public_key: PublicKeyInfo<'a>,
    #[asn1(context_specific = "1", tag_mode = "IMPLICIT", optional = "true")]
    issuer_unique_id: Option<BitStringRef<'a>>,
    #[asn1(context_specific = "2", tag_mode = "IMPLICIT", optional = "true")]
    subject_unique_id: Option<BitStringRef<'a>>,
    #[asn1(context_specific = "3", tag_mode = "EXPLICIT", optional = "true")]
    extensions: Option<Vec<Extension<'a>>>,
}

#[derive(Sequence)]
struct PublicKeyInfo<'a> {
    algorithm: AnyRef<'a>,
    key: BitStringRef<'a>,
}

#[derive(Sequence)]
struct Validity<'a> {
    not_before: AnyRef<'a>,
    not_after: AnyRef<'a>,
}

#[derive(Sequence)]
struct Extension<'a> {
    id: ObjectIdentifier,
    critical: Option<bool>,
    value: OctetStringRef<'a>,
}

/// One attribute of a name.
#[derive(Sequence)]
struct NameAttribute<'a> {
    attribute_type: ObjectIdentifier,
    value: AnyRef<'a>,
}

impl Facts {
    pub(crate) fn read(certificate: &[u8]) -> der::Result<Self> {
        let certificate = Certificate::from_der(certificate)?.to_be_signed;
        let mut types = Vec::new();
        let mut team = None;
        for part in elements::<AnyRef<'_>>(certificate.subject.value())? {
            for attribute in elements::<NameAttribute<'_>>(part.value())? {
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
                let names = elements::<AnyRef<'_>>(list.value())?;
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
            not_before: time(certificate.validity.not_before)?,
            not_after: time(certificate.validity.not_after)?,
            public_key: certificate.public_key.key.raw_bytes().to_vec(),
        })
    }
}

fn time(time: AnyRef<'_>) -> der::Result<SystemTime> {
    let since_epoch = match time.tag() {
        Tag::UtcTime => time.decode_as::<UtcTime>()?.to_unix_duration(),
        _ => time.decode_as::<GeneralizedTime>()?.to_unix_duration(),
    };
    Ok(UNIX_EPOCH + since_epoch)
}

/// Returns the text of a string of any kind. The bytes are read as UTF-8, whatever the kind,
/// because types and teams are ASCII.
fn text(of: AnyRef<'_>) -> Option<String> {
    String::from_utf8(of.value().to_vec()).ok()
}

/// Returns the elements of a set or a sequence, from its contents.
fn elements<'a, T: Decode<'a>>(contents: &'a [u8]) -> der::Result<Vec<T>> {
    let mut reader = SliceReader::new(contents)?;
    let mut elements = Vec::new();
    while !reader.is_finished() {
        elements.push(T::decode(&mut reader)?);
    }
    Ok(elements)
}
