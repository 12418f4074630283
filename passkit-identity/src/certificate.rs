//! What a certificate says of itself, as far as pushes need it (RFC 5280).
//!
//! Parts of which nothing is needed are left as they are.

use std::time::{SystemTime, UNIX_EPOCH};

use der::{
    Decode, Reader, Sequence, SliceReader, Tag, Tagged,
    asn1::{AnyRef, BitStringRef, GeneralizedTime, ObjectIdentifier, OctetStringRef, UtcTime},
};

/// The attribute of the subject that names the topic.
const USER_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("0.9.2342.19200300.100.1.1");

/// Apple's extension that names several topics, each followed by a list of the kinds of pushes.
const TOPICS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113635.100.6.3.6");

/// What a certificate is for, and until when.
pub(crate) struct Facts {
    /// The first is that of the subject, if it has one.
    pub(crate) topics: Vec<String>,
    pub(crate) not_after: SystemTime,
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
    public_key: AnyRef<'a>,
    #[asn1(context_specific = "1", tag_mode = "IMPLICIT", optional = "true")]
    issuer_unique_id: Option<BitStringRef<'a>>,
    #[asn1(context_specific = "2", tag_mode = "IMPLICIT", optional = "true")]
    subject_unique_id: Option<BitStringRef<'a>>,
    #[asn1(context_specific = "3", tag_mode = "EXPLICIT", optional = "true")]
    extensions: Option<Vec<Extension<'a>>>,
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
        let mut topics = Vec::new();
        for part in elements::<AnyRef<'_>>(certificate.subject.value())? {
            for attribute in elements::<NameAttribute<'_>>(part.value())? {
                if attribute.attribute_type == USER_ID {
                    topics.extend(text(attribute.value));
                }
            }
        }
        for extension in certificate.extensions.iter().flatten() {
            if extension.id == TOPICS {
                let list = AnyRef::from_der(extension.value.as_bytes())?;
                let names = elements::<AnyRef<'_>>(list.value())?;
                topics.extend(names.into_iter().filter(|name| name.tag() != Tag::Sequence).filter_map(text));
            }
        }
        Ok(Self { topics, not_after: time(certificate.validity.not_after)? })
    }
}

fn time(time: AnyRef<'_>) -> der::Result<SystemTime> {
    let since_epoch = match time.tag() {
        Tag::UtcTime => time.decode_as::<UtcTime>()?.to_unix_duration(),
        _ => time.decode_as::<GeneralizedTime>()?.to_unix_duration(),
    };
    Ok(UNIX_EPOCH + since_epoch)
}

/// Whatever kind of string it is: topics are ASCII.
fn text(of: AnyRef<'_>) -> Option<String> {
    String::from_utf8(of.value().to_vec()).ok()
}

/// The elements of the contents of a set or a sequence.
fn elements<'a, T: Decode<'a>>(contents: &'a [u8]) -> der::Result<Vec<T>> {
    let mut reader = SliceReader::new(contents)?;
    let mut elements = Vec::new();
    while !reader.is_finished() {
        elements.push(T::decode(&mut reader)?);
    }
    Ok(elements)
}
