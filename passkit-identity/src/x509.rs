//! The parts of a certificate (X.509, RFC 5280). They can be read and written. Parts that are not needed
//! are not parsed.
//!
//! `passkit-archive` uses them too. They are not part of the API, and any version may change them.

#![allow(
    missing_docs,
    missing_debug_implementations,
    clippy::missing_errors_doc
)]

use std::time::Duration;

use der::{
    Decode, Reader as _, Sequence, SliceReader, Tag, Tagged,
    asn1::{AnyRef, BitStringRef, GeneralizedTime, ObjectIdentifier, OctetStringRef, UtcTime},
};

#[derive(Clone, Copy, Sequence)]
pub struct AlgorithmIdentifier<'a> {
    pub algorithm: ObjectIdentifier,
    pub parameters: Option<AnyRef<'a>>,
}

/// The outer part of an X.509 certificate.
#[derive(Sequence)]
pub struct SignedCertificate<'a> {
    pub to_be_signed: ToBeSigned<'a>,
    pub signature_algorithm: AlgorithmIdentifier<'a>,
    pub signature: BitStringRef<'a>,
}

#[derive(Sequence)]
pub struct ToBeSigned<'a> {
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    pub version: Option<AnyRef<'a>>,
    pub serial: AnyRef<'a>,
    pub signature_algorithm: AlgorithmIdentifier<'a>,
    pub issuer: AnyRef<'a>,
    pub validity: Validity<'a>,
    pub subject: AnyRef<'a>,
    pub public_key: PublicKeyInfo<'a>,
    #[asn1(context_specific = "1", tag_mode = "IMPLICIT", optional = "true")]
    pub issuer_unique_id: Option<BitStringRef<'a>>,
    #[asn1(context_specific = "2", tag_mode = "IMPLICIT", optional = "true")]
    pub subject_unique_id: Option<BitStringRef<'a>>,
    #[asn1(context_specific = "3", tag_mode = "EXPLICIT", optional = "true")]
    pub extensions: Option<Vec<Extension<'a>>>,
}

impl AlgorithmIdentifier<'_> {
    /// Checks that the parameters have one of the types that are usual for algorithms. OpenSSL
    /// refuses some other types.
    pub fn check(self) -> der::Result<()> {
        match self
            .parameters
            .map(|parameters| (Tagged::tag(&parameters), parameters.value()))
        {
            None | Some((Tag::Null, []) | (Tag::ObjectIdentifier | Tag::Sequence, _)) => Ok(()),
            Some((tag, _)) => Err(tag.value_error()),
        }
    }
}

#[derive(Sequence)]
pub struct Validity<'a> {
    pub not_before: AnyRef<'a>,
    pub not_after: AnyRef<'a>,
}

#[derive(Sequence)]
pub struct PublicKeyInfo<'a> {
    pub algorithm: AlgorithmIdentifier<'a>,
    pub key: BitStringRef<'a>,
}

#[derive(Sequence)]
pub struct Extension<'a> {
    pub id: ObjectIdentifier,
    pub critical: Option<bool>,
    pub value: OctetStringRef<'a>,
}

/// One attribute of a name, such as the common name.
#[derive(Sequence)]
pub struct NameAttribute<'a> {
    pub attribute_type: ObjectIdentifier,
    pub value: AnyRef<'a>,
}

/// Reads a `UTCTime` or `GeneralizedTime`. Returns the time since 1970.
pub fn time(time: AnyRef<'_>) -> der::Result<Duration> {
    match Tagged::tag(&time) {
        Tag::UtcTime => Ok(time.decode_as::<UtcTime>()?.to_unix_duration()),
        _ => Ok(time.decode_as::<GeneralizedTime>()?.to_unix_duration()),
    }
}

/// Reads the elements of a set or of a sequence. `tag` is the tag of the set or sequence.
pub fn elements<'a, T: Decode<'a>>(of: AnyRef<'a>, tag: Tag) -> der::Result<Vec<T>> {
    Tagged::tag(&of).assert_eq(tag)?;
    let mut reader = SliceReader::new(of.value())?;
    let mut elements = Vec::new();
    while !reader.is_finished() {
        elements.push(T::decode(&mut reader)?);
    }
    Ok(elements)
}
