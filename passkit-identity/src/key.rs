//! Computes the public key of a private key, to find the certificate that it belongs to.

use der::{
    Decode as _, Sequence,
    asn1::{AnyRef, BitStringRef, OctetStringRef},
};
use ring::{
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair,
        Ed25519KeyPair, KeyPair as _, RsaKeyPair,
    },
};
use rustls_pki_types::PrivateKeyDer;

/// An elliptic-curve key in its older form, with its own kind of PEM section (RFC 5915).
#[derive(Sequence)]
struct Sec1<'a> {
    version: u8,
    private_key: OctetStringRef<'a>,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    curve: Option<AnyRef<'a>>,
    #[asn1(context_specific = "1", tag_mode = "EXPLICIT", optional = "true")]
    public_key: Option<BitStringRef<'a>>,
}

/// Returns the public key, in the form that certificates use. Returns `None` if the private key
/// can't be used.
pub(crate) fn public_key(key: &PrivateKeyDer<'_>) -> Option<Vec<u8>> {
    match key {
        PrivateKeyDer::Pkcs1(key) => RsaKeyPair::from_der(key.secret_pkcs1_der())
            .ok()
            .map(of_rsa),
        PrivateKeyDer::Sec1(key) => of_sec1(key.secret_sec1_der()),
        PrivateKeyDer::Pkcs8(key) => of_pkcs8(key.secret_pkcs8_der()),
        _ => None,
    }
}

fn of_rsa(key: RsaKeyPair) -> Vec<u8> {
    key.public_key().as_ref().to_vec()
}

fn of_sec1(key: &[u8]) -> Option<Vec<u8>> {
    let Sec1 {
        private_key,
        public_key,
        ..
    } = Sec1::from_der(key).ok()?;
    let (private_key, public_key) = (private_key.as_bytes(), public_key?.as_bytes()?);
    [
        &ECDSA_P256_SHA256_ASN1_SIGNING,
        &ECDSA_P384_SHA384_ASN1_SIGNING,
    ]
    .into_iter()
    .find_map(|curve| {
        let random = SystemRandom::new();
        let key =
            EcdsaKeyPair::from_private_key_and_public_key(curve, private_key, public_key, &random);
        Some(key.ok()?.public_key().as_ref().to_vec())
    })
}

fn of_pkcs8(key: &[u8]) -> Option<Vec<u8>> {
    if let Ok(key) = RsaKeyPair::from_pkcs8(key) {
        return Some(of_rsa(key));
    }
    for curve in [
        &ECDSA_P256_SHA256_ASN1_SIGNING,
        &ECDSA_P384_SHA384_ASN1_SIGNING,
    ] {
        if let Ok(key) = EcdsaKeyPair::from_pkcs8(curve, key, &SystemRandom::new()) {
            return Some(key.public_key().as_ref().to_vec());
        }
    }
    let key = Ed25519KeyPair::from_pkcs8_maybe_unchecked(key).ok()?;
    Some(key.public_key().as_ref().to_vec())
}
