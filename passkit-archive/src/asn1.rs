//! The parts of CMS (RFC 5652) that the signature of an archive needs. They can be read and
//! written. The parts of X.509 are in `passkit-identity`.
//!
//! Parts that are not needed are not parsed. Sets are read as lists, for two reasons. The signature
//! depends on the order of the elements. And real archives contain a certificate twice, which a
//! strict set would refuse.

use der::{
    Encode, Header, Sequence, Tag, TagNumber,
    asn1::{AnyRef, ObjectIdentifier, OctetStringRef},
};
pub(crate) use passkit_identity::x509::{
    AlgorithmIdentifier, Extension, NameAttribute, PublicKeyInfo, SignedCertificate, ToBeSigned,
    Validity, elements, time,
};

/// The object identifiers, named as in their RFCs.
pub(crate) mod oid {
    use der::asn1::ObjectIdentifier;

    macro_rules! oids {
        ($($name:ident = $text:literal;)*) => {
            $(pub(crate) const $name: ObjectIdentifier = ObjectIdentifier::new_unwrap($text);)*
        };
    }

    oids! {
        DATA = "1.2.840.113549.1.7.1";
        SIGNED_DATA = "1.2.840.113549.1.7.2";
        CONTENT_TYPE = "1.2.840.113549.1.9.3";
        MESSAGE_DIGEST = "1.2.840.113549.1.9.4";
        SIGNING_TIME = "1.2.840.113549.1.9.5";

        SHA_1 = "1.3.14.3.2.26";
        SHA_256 = "2.16.840.1.101.3.4.2.1";
        SHA_384 = "2.16.840.1.101.3.4.2.2";
        SHA_512 = "2.16.840.1.101.3.4.2.3";

        RSA_ENCRYPTION = "1.2.840.113549.1.1.1";
        SHA_1_WITH_RSA = "1.2.840.113549.1.1.5";
        SHA_256_WITH_RSA = "1.2.840.113549.1.1.11";
        SHA_384_WITH_RSA = "1.2.840.113549.1.1.12";
        SHA_512_WITH_RSA = "1.2.840.113549.1.1.13";

        EC_PUBLIC_KEY = "1.2.840.10045.2.1";
        ECDSA_WITH_SHA_1 = "1.2.840.10045.4.1";
        ECDSA_WITH_SHA_256 = "1.2.840.10045.4.3.2";
        ECDSA_WITH_SHA_384 = "1.2.840.10045.4.3.3";
        ECDSA_WITH_SHA_512 = "1.2.840.10045.4.3.4";
        P_256 = "1.2.840.10045.3.1.7";
        P_384 = "1.3.132.0.34";

        USER_ID = "0.9.2342.19200300.100.1.1";
        COMMON_NAME = "2.5.4.3";
        ORGANIZATION = "2.5.4.10";
        ORGANIZATIONAL_UNIT = "2.5.4.11";
        SUBJECT_KEY_IDENTIFIER = "2.5.29.14";
        BASIC_CONSTRAINTS = "2.5.29.19";
        AUTHORITY_KEY_IDENTIFIER = "2.5.29.35";

        // Apple's extensions in the certificates of passes and orders: the type, and the right to
        // use NFC.
        APPLE_TYPE = "1.2.840.113635.100.6.1.16";
        APPLE_NFC = "1.2.840.113635.100.6.1.26";
    }
}

#[derive(Sequence)]
pub(crate) struct ContentInfo<'a> {
    pub(crate) content_type: ObjectIdentifier,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    pub(crate) content: AnyRef<'a>,
}

#[derive(Sequence)]
pub(crate) struct SignedData<'a> {
    pub(crate) version: u8,
    pub(crate) digest_algorithms: AnyRef<'a>,
    pub(crate) content: EncapsulatedContent<'a>,
    #[asn1(
        context_specific = "0",
        tag_mode = "IMPLICIT",
        constructed = "true",
        optional = "true"
    )]
    pub(crate) certificates: Option<Vec<AnyRef<'a>>>,
    #[asn1(
        context_specific = "1",
        tag_mode = "IMPLICIT",
        constructed = "true",
        optional = "true"
    )]
    pub(crate) crls: Option<Vec<AnyRef<'a>>>,
    pub(crate) signers: AnyRef<'a>,
}

#[derive(Sequence)]
pub(crate) struct EncapsulatedContent<'a> {
    pub(crate) content_type: ObjectIdentifier,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    pub(crate) content: Option<AnyRef<'a>>,
}

#[derive(Sequence)]
pub(crate) struct SignerInfo<'a> {
    pub(crate) version: u8,
    /// An [`IssuerAndSerial`] or `[0]` with a subject key identifier.
    pub(crate) signer: AnyRef<'a>,
    pub(crate) digest_algorithm: AlgorithmIdentifier<'a>,
    #[asn1(
        context_specific = "0",
        tag_mode = "IMPLICIT",
        constructed = "true",
        optional = "true"
    )]
    pub(crate) signed_attributes: Option<Vec<AnyRef<'a>>>,
    pub(crate) signature_algorithm: AlgorithmIdentifier<'a>,
    pub(crate) signature: OctetStringRef<'a>,
    #[asn1(
        context_specific = "1",
        tag_mode = "IMPLICIT",
        constructed = "true",
        optional = "true"
    )]
    pub(crate) unsigned_attributes: Option<Vec<AnyRef<'a>>>,
}

#[derive(Sequence, PartialEq)]
pub(crate) struct IssuerAndSerial<'a> {
    pub(crate) issuer: AnyRef<'a>,
    pub(crate) serial: AnyRef<'a>,
}

#[derive(Sequence)]
pub(crate) struct Attribute<'a> {
    pub(crate) attribute_type: ObjectIdentifier,
    /// A set.
    pub(crate) values: AnyRef<'a>,
}

/// Writes encoded elements, in this order, after one header.
pub(crate) fn wrap(tag: Tag, elements: &[Vec<u8>]) -> der::Result<Vec<u8>> {
    let contents = elements.concat();
    let mut wrapped = Header::new(tag, contents.len())?.to_der()?;
    wrapped.extend_from_slice(&contents);
    Ok(wrapped)
}

/// Returns the tag `[number]` of a primitive element.
pub(crate) const fn context_tag(number: TagNumber) -> Tag {
    Tag::ContextSpecific {
        constructed: false,
        number,
    }
}
