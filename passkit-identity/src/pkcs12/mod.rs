//! Reads certificates and keys from PKCS #12 (RFC 7292), as Keychain Access and `openssl pkcs12`
//! write it.

mod decrypt;
mod kdf;
mod problem;

use der::{
    Decode, Encode as _, Sequence,
    asn1::{AnyRef, ObjectIdentifier, OctetStringRef},
};
use ring::hmac;

use self::{
    decrypt::{Algorithm, decrypt},
    kdf::Password,
    problem::{Problem, bounded},
};

const DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.1");
const ENCRYPTED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.6");
const KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.12.10.1.1");
const ENCRYPTED_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.12.10.1.2");
const CERTIFICATE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.12.10.1.3");
const X509: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.22.1");

/// The number that selects the key for the MAC of the file when keys are derived.
const MAC_KEY: u8 = 3;

/// The content of a file, in DER.
#[derive(Default)]
pub(crate) struct Contents {
    pub(crate) certificates: Vec<Vec<u8>>,
    /// The keys in PKCS #8.
    pub(crate) keys: Vec<Vec<u8>>,
}

#[derive(Sequence)]
struct Pfx<'a> {
    version: u8,
    contents: ContentInfo<'a>,
    mac: Option<Mac<'a>>,
}

#[derive(Sequence)]
struct ContentInfo<'a> {
    content_type: ObjectIdentifier,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    content: AnyRef<'a>,
}

#[derive(Sequence)]
struct EncryptedData<'a> {
    version: u8,
    content: EncryptedContentInfo<'a>,
}

#[derive(Sequence)]
struct EncryptedContentInfo<'a> {
    content_type: ObjectIdentifier,
    algorithm: Algorithm<'a>,
    #[asn1(context_specific = "0", tag_mode = "IMPLICIT")]
    content: OctetStringRef<'a>,
}

#[derive(Sequence)]
struct EncryptedKey<'a> {
    algorithm: Algorithm<'a>,
    key: OctetStringRef<'a>,
}

#[derive(Sequence)]
struct SafeBag<'a> {
    bag_type: ObjectIdentifier,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    value: AnyRef<'a>,
    attributes: Option<AnyRef<'a>>,
}

#[derive(Sequence)]
struct CertificateBag<'a> {
    certificate_type: ObjectIdentifier,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    certificate: AnyRef<'a>,
}

#[derive(Sequence)]
struct Mac<'a> {
    digest: DigestInfo<'a>,
    salt: OctetStringRef<'a>,
    iterations: Option<u32>,
}

#[derive(Sequence)]
struct DigestInfo<'a> {
    algorithm: Algorithm<'a>,
    digest: OctetStringRef<'a>,
}

/// Reads a file. This may take a second, because the file's many iterations make guessing passwords
/// slow.
pub(crate) fn open(file: &[u8], password: &str) -> Result<Contents, Problem> {
    if file.starts_with(&[0x30, 0x80]) {
        return Err(Problem::OpenLengths);
    }
    match open_with(file, &Password::of(password)) {
        // Some programs write an empty password as no bytes, and others as a final zero.
        Err(Problem::Password) if password.is_empty() => open_with(file, &Password::NO_BYTES),
        opened => opened,
    }
}

/// Decrypts a private key in PKCS #8, as `openssl pkcs8 -topk8` writes it. This may take a second
/// too.
pub(crate) fn decrypt_key(encrypted: &[u8], password: &str) -> Result<Vec<u8>, Problem> {
    let decrypted = EncryptedKey::from_der(encrypted)
        .map_err(Problem::from)
        .and_then(|EncryptedKey { algorithm, key }| {
            decrypt(&algorithm, &Password::of(password), key.as_bytes())
        });
    decrypted.map_err(|problem| match problem {
        Problem::NotPkcs12 => Problem::NotKey,
        Problem::Unknown(scheme) => Problem::UnknownOfKey(scheme),
        other => other,
    })
}

fn open_with(file: &[u8], password: &Password<'_>) -> Result<Contents, Problem> {
    let pfx = Pfx::from_der(file)?;
    let safe = data(&pfx.contents)?;
    if let Some(mac) = &pfx.mac {
        mac.check(safe, password)?;
    }
    let mut contents = Contents::default();
    for info in Vec::<ContentInfo<'_>>::from_der(safe)? {
        if info.content_type == ENCRYPTED_DATA {
            let EncryptedContentInfo {
                algorithm, content, ..
            } = info.content.decode_as::<EncryptedData<'_>>()?.content;
            contents.take(
                &decrypt(&algorithm, password, content.as_bytes())?,
                password,
            )?;
        } else {
            contents.take(data(&info)?, password)?;
        }
    }
    Ok(contents)
}

fn data<'a>(info: &ContentInfo<'a>) -> Result<&'a [u8], Problem> {
    match info.content_type {
        DATA => Ok(info.content.decode_as::<OctetStringRef<'a>>()?.as_bytes()),
        // For example, content protected by a public key.
        other => Err(Problem::Unknown(other)),
    }
}

impl Contents {
    fn take(&mut self, bags: &[u8], password: &Password<'_>) -> Result<(), Problem> {
        for SafeBag {
            bag_type, value, ..
        } in Vec::<SafeBag<'_>>::from_der(bags)?
        {
            match bag_type {
                KEY => self.keys.push(value.to_der()?),
                ENCRYPTED_KEY => {
                    let EncryptedKey { algorithm, key } = value.decode_as()?;
                    self.keys
                        .push(decrypt(&algorithm, password, key.as_bytes())?);
                }
                CERTIFICATE => {
                    let CertificateBag {
                        certificate_type,
                        certificate,
                    } = value.decode_as()?;
                    if certificate_type == X509 {
                        let certificate = certificate.decode_as::<OctetStringRef<'_>>()?;
                        self.certificates.push(certificate.as_bytes().to_vec());
                    }
                }
                // Revocation lists and other secrets are not needed.
                _ => {}
            }
        }
        Ok(())
    }
}

impl Mac<'_> {
    fn check(&self, safe: &[u8], password: &Password<'_>) -> Result<(), Problem> {
        let id = self.digest.algorithm.id;
        let (hmac, digest) = kdf::digest(id).ok_or(Problem::Unknown(id))?;
        let rounds = bounded(self.iterations.unwrap_or(1))?;
        let key = kdf::derive(
            digest,
            MAC_KEY,
            &password.utf16,
            self.salt.as_bytes(),
            rounds,
            digest.output_len(),
        );
        hmac::verify(
            &hmac::Key::new(hmac, &key),
            safe,
            self.digest.digest.as_bytes(),
        )
        .map_err(|_| Problem::Password)
    }
}
