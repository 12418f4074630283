//! Certificates and keys as text (PEM) or bytes (DER). Other programs may have changed the text.
//!
//! In environment variables, line ends may be blanks or the two characters `\n`. Editors may put a
//! byte order mark in front, and `cat` may join two files. All of these forms can be read.
//!
//! Errors repeat no part of the text, because the text may contain a private key.

use std::{
    fmt,
    fs::File,
    io::{self, Read as _},
    path::Path,
};

use rustls_pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer,
};

use crate::{certificate::Facts, key::SigningKey};

/// The reason why a certificate or a key can't be read. The message continues a line that
/// starts with the file name, such as `key.pem has no private key in PEM or DER`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PemError {
    /// There is no certificate.
    #[error("has no certificate in PEM or DER")]
    NoCertificate,
    /// There is no private key.
    #[error("has no private key in PEM or DER")]
    NoKey,
    /// A section begins but does not end.
    #[error("is not complete PEM, because the end of a section is missing; copy the file again")]
    NoEnd,
    /// The text of a section is not base64.
    #[error("is not PEM, because a section is not base64; copy the file again")]
    Base64,
    /// The private key has a password.
    #[error(
        "its private key is encrypted: give its password where one can be given, or decrypt it with \
         `openssl pkey -in OLD -out NEW`"
    )]
    Encrypted,
    /// The private key has a password, in the form that OpenSSL wrote before PKCS #8.
    #[error(
        "its private key is encrypted in an old form that is not read: write it again with \
         `openssl pkcs8 -topk8 -in OLD -out NEW`"
    )]
    OldEncryption,
    /// The file is PKCS #12.
    #[error("is PKCS #12, not PEM; read it as a .p12 file")]
    Pkcs12,
    /// The file is something else, such as `a JPEG image`.
    #[error("is {0}, not a certificate or a key: name another file")]
    Other(&'static str),
}

/// Reads all certificates of a text in PEM, or the single certificate of DER.
///
/// # Errors
/// Fails if there is no certificate, or if the text is damaged.
pub fn certificates(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let certificates: Vec<_> = sections(text)?
        .into_iter()
        .filter(|section| {
            matches!(
                &*section.label,
                "CERTIFICATE" | "X509 CERTIFICATE" | "TRUSTED CERTIFICATE"
            )
        })
        .map(|section| section.decode().map(CertificateDer::from))
        .collect::<Result<_, _>>()?;
    if !certificates.is_empty() {
        Ok(certificates)
    } else if Facts::read(text).is_ok() {
        Ok(vec![CertificateDer::from(text.to_vec())])
    } else {
        Err(other_kind(text).unwrap_or(PemError::NoCertificate))
    }
}

/// Returns the error for a file of a kind that people mistake for a certificate or a key.
fn other_kind(file: &[u8]) -> Option<PemError> {
    if is_pkcs12(file) {
        return Some(PemError::Pkcs12);
    }
    let is_text = |part: &str| text_of(file).contains(part);
    let starts = |start: &[u8]| file.starts_with(start);
    Some(PemError::Other(match file {
        _ if starts(b"\xff\xd8\xff") => "a JPEG image",
        _ if starts(b"\x89PNG") => "a PNG image",
        _ if starts(b"PK\x03\x04") => "a zip archive, such as a pass",
        _ if starts(b"%PDF") => "a PDF document",
        _ if starts(b"<") => "a web page or XML",
        _ if is_text("CERTIFICATE REQUEST-----") => {
            "the signing request from which Apple makes a certificate"
        }
        _ => return None,
    }))
}

/// Reads the first private key of a text in PEM, or the single key of DER.
///
/// # Errors
/// Fails if there is no key, if the key is encrypted, or if the text is damaged.
pub fn private_key(text: &[u8]) -> Result<PrivateKeyDer<'static>, PemError> {
    match find_key(text)? {
        FoundKey::Plain(key) => Ok(key),
        FoundKey::Encrypted(_) => Err(PemError::Encrypted),
    }
}

/// A private key as it is in a file.
pub(crate) enum FoundKey {
    Plain(PrivateKeyDer<'static>),
    /// An `EncryptedPrivateKeyInfo` of PKCS #8, in DER.
    #[cfg_attr(not(feature = "pkcs12"), allow(dead_code))]
    Encrypted(Vec<u8>),
}

/// Finds the key that [`private_key`] reads, or an encrypted one.
pub(crate) fn find_key(text: &[u8]) -> Result<FoundKey, PemError> {
    for section in sections(text)? {
        if section.label.ends_with("PRIVATE KEY") && section.has_old_encryption() {
            return Err(PemError::OldEncryption);
        }
        return Ok(FoundKey::Plain(match &*section.label {
            "PRIVATE KEY" => PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(section.decode()?)),
            "RSA PRIVATE KEY" => PrivateKeyDer::Pkcs1(PrivatePkcs1KeyDer::from(section.decode()?)),
            "EC PRIVATE KEY" => PrivateKeyDer::Sec1(PrivateSec1KeyDer::from(section.decode()?)),
            "ENCRYPTED PRIVATE KEY" => return Ok(FoundKey::Encrypted(section.decode()?)),
            _ => continue,
        }));
    }
    let der = || text.to_vec();
    [
        PrivateKeyDer::Pkcs8(der().into()),
        PrivateKeyDer::Pkcs1(der().into()),
        PrivateKeyDer::Sec1(der().into()),
    ]
    .into_iter()
    .find(|key| SigningKey::read(key).is_some())
    .map(FoundKey::Plain)
    .ok_or_else(|| other_kind(text).unwrap_or(PemError::NoKey))
}

/// The maximum size of a file with certificates or keys. A real file has a few thousand bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Reads a file with certificates or keys.
///
/// # Errors
/// Fails if the file can't be read, or has more than 1 MiB.
pub fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let limit = MAX_FILE_BYTES + 1;
    File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    if bytes.len() as u64 >= limit {
        return Err(io::Error::other(
            "has more than 1 MiB, so it is neither a certificate nor a key",
        ));
    }
    Ok(bytes)
}

/// Returns PEM with line ends in the places where other programs need them. A text with damaged
/// sections, or with headers in a section, stays unchanged.
#[must_use]
pub fn tidy(text: &[u8]) -> Vec<u8> {
    let Ok(sections) = sections(text) else {
        return text.to_vec();
    };
    if sections.is_empty() || sections.iter().any(|section| section.body.contains(':')) {
        return text.to_vec();
    }
    let mut tidy = String::new();
    for Section { label, body } in sections {
        tidy.push_str(&format!("-----BEGIN {label}-----\n"));
        let characters: Vec<char> = body.chars().filter(|c| !c.is_whitespace()).collect();
        for line in characters.chunks(64) {
            tidy.extend(line);
            tidy.push('\n');
        }
        tidy.push_str(&format!("-----END {label}-----\n"));
    }
    tidy.into_bytes()
}

/// Returns whether a text is PEM, and not the name of a file with PEM.
#[must_use]
pub fn is_text(text: &str) -> bool {
    text.contains("-----BEGIN") || text.contains("PRIVATE KEY")
}

/// Shows a path in a message. If the path looks like the text of a PEM file, it may be a key, and
/// is therefore not shown.
#[must_use]
pub fn shown(path: &Path) -> impl fmt::Display {
    struct Shown<'a>(&'a Path);

    impl fmt::Display for Shown<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            if is_text(&self.0.to_string_lossy()) {
                f.write_str("(the text of a PEM file where the name of a file belongs)")
            } else {
                self.0.display().fmt(f)
            }
        }
    }

    Shown(path)
}

/// Returns whether a file begins like PKCS #12: with a sequence whose first element is the number
/// 3. The first 16 bytes of the file are enough.
#[must_use]
pub fn is_pkcs12(start: &[u8]) -> bool {
    let content = match start {
        [0x30, length @ 0..=0x80, content @ ..] if *length > 2 => content,
        [0x30, long @ 0x81..=0x84, rest @ ..] => {
            rest.get(usize::from(long & 0x7f)..).unwrap_or_default()
        }
        _ => return false,
    };
    content.starts_with(&[2, 1, 3])
}

/// A part between `BEGIN` and `END`.
struct Section {
    label: String,
    body: String,
}

fn sections(text: &[u8]) -> Result<Vec<Section>, PemError> {
    const BEGIN: &str = "-----BEGIN ";
    const END: &str = "-----END ";

    let text = text_of(text);
    let mut rest = &*text;
    let mut sections = Vec::new();
    while let Some((_, after)) = rest.split_once(BEGIN) {
        let (label, after) = after.split_once("-----").ok_or(PemError::NoEnd)?;
        let (body, after) = after.split_once(END).ok_or(PemError::NoEnd)?;
        if body.contains(BEGIN) {
            return Err(PemError::NoEnd);
        }
        sections.push(Section {
            label: label.trim().to_owned(),
            body: body.to_owned(),
        });
        rest = after;
    }
    Ok(sections)
}

/// Returns the text of the bytes, with real line ends.
fn text_of(bytes: &[u8]) -> String {
    let utf16 = |from: fn([u8; 2]) -> u16| {
        let units = bytes.as_chunks().0.iter().skip(1).map(|unit| from(*unit));
        char::decode_utf16(units)
            .map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER))
            .collect()
    };
    let text: String = match bytes {
        [0xff, 0xfe, ..] => utf16(u16::from_le_bytes),
        [0xfe, 0xff, ..] => utf16(u16::from_be_bytes),
        _ => String::from_utf8_lossy(bytes).into_owned(),
    };
    text.replace("\\r", "\n").replace("\\n", "\n")
}

impl Section {
    /// Returns whether header lines say that the key has a password.
    fn has_old_encryption(&self) -> bool {
        self.body.contains("ENCRYPTED")
    }

    fn decode(&self) -> Result<Vec<u8>, PemError> {
        let lines = self.body.lines().filter(|line| !line.contains(':'));
        let characters = lines
            .flat_map(str::bytes)
            .filter(|b| !b.is_ascii_whitespace());
        base64(characters).ok_or(PemError::Base64)
    }
}

/// Decodes base64 (RFC 4648), with or without padding.
fn base64(characters: impl Iterator<Item = u8>) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let (mut bits, mut count) = (0_u32, 0);
    let mut padding = 0;
    for character in characters {
        let value = match character {
            b'A'..=b'Z' => character - b'A',
            b'a'..=b'z' => character - b'a' + 26,
            b'0'..=b'9' => character - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            b'=' if padding < 2 => {
                padding += 1;
                continue;
            }
            _ => return None,
        };
        if padding > 0 {
            return None;
        }
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            // The lowest byte of the remaining bits.
            bytes.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    (count < 6 && bits == 0 && !bytes.is_empty()).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_decoded() {
        let decoded = |text: &str| base64(text.bytes());
        assert_eq!(decoded("Zm9vYmFy"), Some(b"foobar".to_vec()));
        assert_eq!(decoded("Zm9vYg=="), Some(b"foob".to_vec()));
        assert_eq!(decoded("Zm9vYmE"), Some(b"fooba".to_vec()));
        for wrong in ["", "Z", "Zm9v!", "Zg=x", "Zh==", "===="] {
            assert_eq!(decoded(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn bent_pem_is_tidied() {
        let line = "A".repeat(64);
        let good = format!(
            "-----BEGIN CERTIFICATE-----\n{line}\nBBBB\n-----END CERTIFICATE-----\n\
             -----BEGIN PRIVATE KEY-----\nCCCC\n-----END PRIVATE KEY-----\n"
        );
        for bent in [
            good.clone(),
            good.replace('\n', "\\n"),
            good.replace('\n', " "),
            good.replace('\n', "\r"),
            good.replace('\n', "\r\n"),
            format!("\u{feff}{good}"),
        ] {
            assert_eq!(
                String::from_utf8(tidy(bent.as_bytes())).unwrap(),
                good,
                "{bent}"
            );
        }
        for other in [
            "",
            "nothing",
            "-----BEGIN A-----\nAAAA",
            "-----BEGIN A-----\nB: C\n\nAA\n-----END A-----\n",
        ] {
            assert_eq!(tidy(other.as_bytes()), other.as_bytes());
        }
    }

    #[test]
    fn pem_in_place_of_a_path_is_not_shown() {
        assert_eq!(shown(Path::new("/a/b.pem")).to_string(), "/a/b.pem");
        let text = shown(Path::new("-----BEGIN RSA PRIVATE KEY-----\nSECRET")).to_string();
        assert!(!text.contains("SECRET"), "{text}");
    }

    #[test]
    fn pkcs12_is_told_from_other_der() {
        assert!(is_pkcs12(&[0x30, 0x82, 9, 9, 2, 1, 3, 0x30]));
        assert!(is_pkcs12(&[0x30, 0x80, 2, 1, 3]));
        // The start of a certificate, and the start of a key.
        assert!(!is_pkcs12(&[0x30, 0x82, 9, 9, 0x30, 0x82]));
        assert!(!is_pkcs12(&[0x30, 0x82, 9, 9, 2, 1, 0, 0x30]));
        assert!(!is_pkcs12(b"-----BEGIN") && !is_pkcs12(&[]) && !is_pkcs12(&[0x30]));
    }
}
