use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use passkit_server::TypeIdentifier;
use rustls::{
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};

use crate::{ApnsError, certificate::Facts};

/// The certificate, with its key, by which pushes of one topic are sent: the same that signs its passes.
///
/// Checked when it is made: whoever holds one has a key that fits a certificate which is for the topic and not expired.
#[derive(Clone)]
pub struct Identity {
    topic: TypeIdentifier,
    source: Source,
    loaded: Loaded,
}

#[derive(Clone)]
enum Source {
    Memory,
    Files { certificate: PathBuf, key: PathBuf },
}

#[derive(Clone)]
struct Loaded {
    certified: Arc<CertifiedKey>,
    not_after: SystemTime,
    stamp: Stamp,
}

/// When each file was changed last, and how long it is. Other values mean other contents.
pub(crate) type Stamp = [Option<(SystemTime, u64)>; 2];

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("topic", &self.topic)
            .field("not_after", &self.loaded.not_after)
            .finish_non_exhaustive()
    }
}

impl Identity {
    /// From PEM: the certificate, with others of its chain in any order, and the private key, unencrypted. Both may be
    /// the same bytes.
    ///
    /// # Errors
    /// If one of them is missing, they do not fit, or the certificate is expired or not for `topic`.
    pub fn from_pem(topic: &TypeIdentifier, certificate: &[u8], key: &[u8]) -> Result<Self, ApnsError> {
        let loaded = load(topic, (None, certificate), (None, key), Stamp::default())?;
        Ok(Self { topic: topic.clone(), source: Source::Memory, loaded })
    }

    /// From files with PEM, which may be one file. They are looked at again while the sender runs: renewed ones are
    /// taken, broken ones are not.
    ///
    /// # Errors
    /// As of [`from_pem`](Self::from_pem), and if a file can't be read.
    pub fn from_files(
        topic: &TypeIdentifier,
        certificate: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> Result<Self, ApnsError> {
        let (certificate, key) = (certificate.into(), key.into());
        let loaded = load_files(topic, &certificate, &key)?;
        Ok(Self { topic: topic.clone(), source: Source::Files { certificate, key }, loaded })
    }

    /// What its pushes are about.
    #[must_use]
    pub fn topic(&self) -> &TypeIdentifier {
        &self.topic
    }

    /// When it expires.
    #[must_use]
    pub fn not_after(&self) -> SystemTime {
        self.loaded.not_after
    }

    pub(crate) fn certified(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.loaded.certified)
    }

    /// What its files were like when it was read.
    pub(crate) fn stamp(&self) -> Stamp {
        self.loaded.stamp
    }

    /// What its files are like now. Waits for the disk.
    pub(crate) fn stamp_now(&self) -> Stamp {
        match &self.source {
            Source::Memory => self.loaded.stamp,
            Source::Files { certificate, key } => stamp(certificate, key),
        }
    }

    /// Reads it again. Waits for the disk.
    pub(crate) fn read_again(&self) -> Result<Self, ApnsError> {
        match &self.source {
            Source::Memory => Ok(self.clone()),
            Source::Files { certificate, key } => Self::from_files(&self.topic, certificate, key),
        }
    }
}

fn stamp(certificate: &Path, key: &Path) -> Stamp {
    [certificate, key].map(|file| {
        let metadata = file.metadata().ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    })
}

/// How errors call it.
fn called(topic: &TypeIdentifier) -> String {
    format!("certificate for {topic}")
}

fn load_files(topic: &TypeIdentifier, certificate: &Path, key: &Path) -> Result<Loaded, ApnsError> {
    // Before they are read: a change in between shows as one later.
    let stamp = stamp(certificate, key);
    let read =
        |file: &Path| std::fs::read(file).map_err(|error| ApnsError::of(&called(topic), Some(file), error));
    load(topic, (Some(certificate), &read(certificate)?), (Some(key), &read(key)?), stamp)
}

fn load(
    topic: &TypeIdentifier,
    (certificate_file, certificate): (Option<&Path>, &[u8]),
    (key_file, key): (Option<&Path>, &[u8]),
    stamp: Stamp,
) -> Result<Loaded, ApnsError> {
    let bad_certificate =
        |problem: &dyn fmt::Display| ApnsError::of(&called(topic), certificate_file, problem);
    let bad_key = |problem: &dyn fmt::Display| ApnsError::of(&called(topic), key_file, problem);

    let chain: Vec<_> = CertificateDer::pem_slice_iter(certificate)
        .collect::<Result<_, _>>()
        .map_err(|error| bad_certificate(&format!("is no PEM: {error}")))?;
    if chain.is_empty() {
        return Err(bad_certificate(&"has no certificate in PEM"));
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| {
        let encrypted = key.windows(9).any(|part| part == b"ENCRYPTED");
        bad_key(&if encrypted {
            "its private key is encrypted: decrypt it with `openssl pkey`"
        } else {
            "has no private key in PEM"
        })
    })?;
    let key = ring::default_provider()
        .key_provider
        .load_private_key(key)
        .map_err(|error| bad_key(&format!("its private key can't be used: {error}")))?;

    // The one of the key comes first, whatever the order of the file.
    let certified = (0..chain.len())
        .map(|first| {
            let mut chain = chain.clone();
            chain[..=first].rotate_right(1);
            CertifiedKey::new(chain, Arc::clone(&key))
        })
        .find(|certified| certified.keys_match().is_ok())
        .ok_or_else(|| bad_key(&"its private key does not fit the certificate"))?;

    let facts =
        certified.cert.first().ok_or_else(|| bad_certificate(&"has no certificate in PEM")).and_then(
            |first| {
                Facts::read(first)
                    .map_err(|error| bad_certificate(&format!("its certificate can't be read: {error}")))
            },
        )?;
    if !facts.topics.iter().any(|one| one == topic.as_str()) {
        return Err(bad_certificate(&match facts.topics.first() {
            Some(other) => format!("is a certificate for {other}, not for {topic}"),
            None => "its certificate names no topic (the UID of its subject)".into(),
        }));
    }
    if facts.not_after <= SystemTime::now() {
        return Err(bad_certificate(&format!("expired on {}", httpdate::fmt_http_date(facts.not_after))));
    }
    Ok(Loaded { certified: Arc::new(certified), not_after: facts.not_after, stamp })
}
