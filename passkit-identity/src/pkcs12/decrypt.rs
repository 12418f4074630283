//! The schemes that encrypt parts of a file: PBES1 as in PKCS #12, and PBES2 (RFC 8018).

use std::num::NonZeroU32;

use aes::{Aes128, Aes192, Aes256};
use cbc::cipher::{
    BlockCipherDecrypt, BlockModeDecrypt as _, InnerIvInit as _, InvalidLength, KeyInit as _,
    block_padding::Pkcs7,
};
use der::{
    Choice, Decode as _, DecodeValue, Sequence,
    asn1::{AnyRef, ObjectIdentifier, OctetStringRef},
};
use des::{TdesEde2, TdesEde3};
use rc2::Rc2;
use ring::{digest, pbkdf2};

use super::{
    kdf::{self, Password},
    problem::{Problem, bounded},
};

const TRIPLE_DES: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.12.1.3");
const TRIPLE_DES_TWO_KEYS: ObjectIdentifier =
    ObjectIdentifier::new_unwrap("1.2.840.113549.1.12.1.4");
const RC2_128: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.12.1.5");
const RC2_40: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.12.1.6");

const PBES2: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.5.13");
const PBKDF2: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.5.12");
const HMAC_SHA1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.2.7");
const HMAC_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.2.9");
const HMAC_SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.2.10");
const HMAC_SHA512: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.2.11");
const DES_EDE3_CBC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.3.7");
const AES_128_CBC: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.1.2");
const AES_192_CBC: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.1.22");
const AES_256_CBC: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.1.42");

#[derive(Sequence)]
pub(super) struct Algorithm<'a> {
    pub(super) id: ObjectIdentifier,
    parameters: Option<AnyRef<'a>>,
}

#[derive(Sequence)]
struct Pbes1Parameters<'a> {
    salt: OctetStringRef<'a>,
    iterations: u32,
}

#[derive(Sequence)]
struct Pbes2Parameters<'a> {
    derivation: Algorithm<'a>,
    encryption: Algorithm<'a>,
}

#[derive(Sequence)]
struct Pbkdf2Parameters<'a> {
    salt: OctetStringRef<'a>,
    iterations: u32,
    _key_length: Option<u32>,
    function: Option<Algorithm<'a>>,
}

impl<'a> Algorithm<'a> {
    fn parameters<T: Choice<'a> + DecodeValue<'a>>(&self) -> Result<T, Problem> {
        let parameters = self
            .parameters
            .ok_or_else(|| der::Tag::Sequence.value_error())?;
        Ok(parameters.decode_as()?)
    }
}

pub(super) fn decrypt(
    algorithm: &Algorithm<'_>,
    password: &Password<'_>,
    encrypted: &[u8],
) -> Result<Vec<u8>, Problem> {
    if algorithm.id == PBES2 {
        return pbes2(&algorithm.parameters()?, password, encrypted);
    }
    let key_length = match algorithm.id {
        TRIPLE_DES => 24,
        TRIPLE_DES_TWO_KEYS | RC2_128 => 16,
        RC2_40 => 5,
        other => return Err(Problem::Unknown(other)),
    };
    let Pbes1Parameters { salt, iterations } = algorithm.parameters()?;
    let iterations = bounded(iterations)?;
    let derive = |purpose, length| {
        let sha1 = &digest::SHA1_FOR_LEGACY_USE_ONLY;
        kdf::derive(
            sha1,
            purpose,
            &password.utf16,
            salt.as_bytes(),
            iterations,
            length,
        )
    };
    let (key, vector) = (derive(1, key_length), derive(2, 8));
    match algorithm.id {
        TRIPLE_DES => chained(TdesEde3::new_from_slice(&key), &vector, encrypted),
        TRIPLE_DES_TWO_KEYS => chained(TdesEde2::new_from_slice(&key), &vector, encrypted),
        _ => chained(
            Ok(Rc2::new_with_eff_key_len(&key, 8 * key_length)),
            &vector,
            encrypted,
        ),
    }
}

fn pbes2(
    Pbes2Parameters {
        derivation,
        encryption,
    }: &Pbes2Parameters<'_>,
    password: &Password<'_>,
    encrypted: &[u8],
) -> Result<Vec<u8>, Problem> {
    if derivation.id != PBKDF2 {
        return Err(Problem::Unknown(derivation.id));
    }
    let Pbkdf2Parameters {
        salt,
        iterations,
        function,
        ..
    } = derivation.parameters()?;
    let function = match function.map_or(HMAC_SHA1, |function| function.id) {
        HMAC_SHA1 => pbkdf2::PBKDF2_HMAC_SHA1,
        HMAC_SHA256 => pbkdf2::PBKDF2_HMAC_SHA256,
        HMAC_SHA384 => pbkdf2::PBKDF2_HMAC_SHA384,
        HMAC_SHA512 => pbkdf2::PBKDF2_HMAC_SHA512,
        other => return Err(Problem::Unknown(other)),
    };
    let iterations = NonZeroU32::new(bounded(iterations)?).unwrap_or(NonZeroU32::MIN);
    // Each cipher has only one key length, so the length in the file is not needed.
    let key = |length| {
        let mut key = vec![0; length];
        pbkdf2::derive(
            function,
            iterations,
            salt.as_bytes(),
            password.text.as_bytes(),
            &mut key,
        );
        key
    };
    let vector = encryption.parameters::<OctetStringRef<'_>>()?.as_bytes();
    match encryption.id {
        AES_128_CBC => chained(Aes128::new_from_slice(&key(16)), vector, encrypted),
        AES_192_CBC => chained(Aes192::new_from_slice(&key(24)), vector, encrypted),
        AES_256_CBC => chained(Aes256::new_from_slice(&key(32)), vector, encrypted),
        DES_EDE3_CBC => chained(TdesEde3::new_from_slice(&key(24)), vector, encrypted),
        other => Err(Problem::Unknown(other)),
    }
}

/// Decrypts in CBC mode. If the result is not DER, the password was wrong. A file without a MAC
/// offers no other check.
fn chained<C: BlockCipherDecrypt>(
    cipher: Result<C, InvalidLength>,
    vector: &[u8],
    encrypted: &[u8],
) -> Result<Vec<u8>, Problem> {
    let bad = |_| der::Tag::OctetString.length_error();
    let decryptor =
        cbc::Decryptor::inner_iv_slice_init(cipher.map_err(bad)?, vector).map_err(bad)?;
    let plain = decryptor
        .decrypt_padded_vec::<Pkcs7>(encrypted)
        .map_err(|_| Problem::Password)?;
    AnyRef::from_der(&plain).map_err(|_| Problem::Password)?;
    Ok(plain)
}
