use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use passkit_server::identifiers::TypeIdentifier;
use rustls::sign::CertifiedKey;

use crate::{
    ApnsError,
    parts::{Fault, Part, Parts},
};

/// The certificate, with its key, by which pushes of one topic are sent: the same that signs its passes.
///
/// Checked when it is made: the key fits the certificate, which is for the topic and was not expired.
#[derive(Clone)]
pub struct Identity {
    topic: TypeIdentifier,
    source: Source,
    stamp: Stamp,
    certified: Arc<CertifiedKey>,
    not_after: SystemTime,
}

#[derive(Clone)]
enum Source {
    Memory,
    Pem {
        certificate: PathBuf,
        key: PathBuf,
    },
    #[cfg(feature = "pkcs12")]
    Pkcs12 {
        file: PathBuf,
        password: String,
    },
}

/// When each file was changed last, and how long it is. Other values mean other contents.
pub(crate) type Stamp = [Option<(SystemTime, u64)>; 2];

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("topic", &self.topic)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

impl Identity {
    /// From PEM: the certificate, with others of its chain in any order, and the private key, unencrypted. Both may be
    /// the same bytes. Without a topic, for the one that the certificate names.
    ///
    /// # Errors
    /// If one of them is missing, they do not fit, or the certificate is expired or not for `topic`.
    pub fn from_pem<'a>(
        topic: impl Into<Option<&'a TypeIdentifier>>,
        certificate: &[u8],
        key: &[u8],
    ) -> Result<Self, ApnsError> {
        Self::new(topic.into(), Source::Memory, Stamp::default(), Parts::of_pem(certificate, key))
    }

    /// From files with PEM, which may be one file. They are looked at again while the sender runs: renewed ones are
    /// taken, broken ones are not.
    ///
    /// # Errors
    /// As of [`from_pem`](Self::from_pem), and if a file can't be read.
    pub fn from_files<'a>(
        topic: impl Into<Option<&'a TypeIdentifier>>,
        certificate: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> Result<Self, ApnsError> {
        Self::from_source(topic.into(), Source::Pem { certificate: certificate.into(), key: key.into() })
    }

    /// From PKCS #12 with certificate and key, as Keychain Access exports them (`.p12`).
    ///
    /// # Errors
    /// As of [`from_pem`](Self::from_pem), and if the password is wrong or the file is protected in an unknown way.
    #[cfg(feature = "pkcs12")]
    pub fn from_pkcs12<'a>(
        topic: impl Into<Option<&'a TypeIdentifier>>,
        pkcs12: &[u8],
        password: &str,
    ) -> Result<Self, ApnsError> {
        Self::new(topic.into(), Source::Memory, Stamp::default(), Parts::of_pkcs12(pkcs12, password))
    }

    /// From a file with PKCS #12. It is looked at again as [those with PEM](Self::from_files) are, with the same
    /// password.
    ///
    /// # Errors
    /// As of [`from_pkcs12`](Self::from_pkcs12), and if the file can't be read.
    #[cfg(feature = "pkcs12")]
    pub fn from_pkcs12_file<'a>(
        topic: impl Into<Option<&'a TypeIdentifier>>,
        file: impl Into<PathBuf>,
        password: &str,
    ) -> Result<Self, ApnsError> {
        Self::from_source(topic.into(), Source::Pkcs12 { file: file.into(), password: password.into() })
    }

    /// What its pushes are about.
    #[must_use]
    pub fn topic(&self) -> &TypeIdentifier {
        &self.topic
    }

    /// When it expires.
    #[must_use]
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    pub(crate) fn certified(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.certified)
    }

    /// What its files were like when it was read.
    pub(crate) fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// What its files are like now. Waits for the disk.
    pub(crate) fn stamp_now(&self) -> Stamp {
        match &self.source {
            Source::Memory => self.stamp,
            source => source.stamp(),
        }
    }

    /// Reads it again. Waits for the disk.
    pub(crate) fn read_again(&self) -> Result<Self, ApnsError> {
        match &self.source {
            Source::Memory => Ok(self.clone()),
            source => Self::from_source(Some(&self.topic), source.clone()),
        }
    }

    fn from_source(topic: Option<&TypeIdentifier>, source: Source) -> Result<Self, ApnsError> {
        // Before they are read: a change in between shows as one later.
        let stamp = source.stamp();
        let parts = source.read();
        Self::new(topic, source, stamp, parts)
    }

    fn new(
        topic: Option<&TypeIdentifier>,
        source: Source,
        stamp: Stamp,
        parts: Result<Parts, Fault>,
    ) -> Result<Self, ApnsError> {
        let named = |topic: Option<&TypeIdentifier>, Fault(part, problem): Fault| {
            let file = source.file(part).map(|file| format!("{}: ", file.display())).unwrap_or_default();
            ApnsError::new(match topic {
                Some(topic) => format!("certificate for {topic}: {file}{problem}"),
                None => format!("{file}{problem}"),
            })
        };
        let parts = parts.map_err(|fault| named(topic, fault))?;
        let topic = match topic {
            Some(topic) => topic.clone(),
            None => parts.topic().map_err(|fault| named(None, fault))?,
        };
        let (certified, not_after) = parts.check(&topic).map_err(|fault| named(Some(&topic), fault))?;
        Ok(Self { topic, source, stamp, certified: Arc::new(certified), not_after })
    }
}

impl Source {
    /// Where a part of it lies.
    fn file(&self, part: Part) -> Option<&Path> {
        match (self, part) {
            (Self::Memory, _) => None,
            (Self::Pem { certificate, .. }, Part::Certificate) => Some(certificate),
            (Self::Pem { key, .. }, Part::Key) => Some(key),
            #[cfg(feature = "pkcs12")]
            (Self::Pkcs12 { file, .. }, _) => Some(file),
        }
    }

    fn stamp(&self) -> Stamp {
        [Part::Certificate, Part::Key].map(|part| {
            let metadata = self.file(part)?.metadata().ok()?;
            Some((metadata.modified().ok()?, metadata.len()))
        })
    }

    fn read(&self) -> Result<Parts, Fault> {
        let read = |part| {
            let file = self.file(part).unwrap_or(Path::new(""));
            std::fs::read(file).map_err(|error| Fault(part, error.to_string()))
        };
        let certificate = read(Part::Certificate)?;
        match self {
            #[cfg(feature = "pkcs12")]
            Self::Pkcs12 { password, .. } => Parts::of_pkcs12(&certificate, password),
            _ => Parts::of_pem(&certificate, &read(Part::Key)?),
        }
    }
}
