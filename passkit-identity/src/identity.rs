use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use passkit_server::identifiers::TypeIdentifier;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::{
    IdentityError, SignError, SignatureAlgorithm,
    certificate::Facts,
    parts::{Fault, Pair, Part, Parts, Password},
    pem,
};

/// The certificate of one type, with its private key and its chain.
///
/// The certificate was checked when it was read: the key fits it, and it is for the type. It may
/// have expired; [`check_expiry`](Self::check_expiry) checks that. Clones share the certificate and
/// the key. `Debug` shows no key.
#[derive(Clone)]
pub struct Identity {
    type_id: TypeIdentifier,
    source: Source,
    stamp: FileStamp,
    pair: Arc<Pair>,
}

#[derive(Clone)]
enum Source {
    Memory,
    Pem {
        certificate: PathBuf,
        key: PathBuf,
        password: Option<Password>,
    },
    #[cfg(feature = "pkcs12")]
    Pkcs12 {
        file: PathBuf,
        password: Password,
    },
}

/// The modification times and the lengths of the files of an [`Identity`]. If two stamps differ, a
/// file has changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileStamp([Option<(SystemTime, u64)>; 2]);

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("type_id", &self.type_id)
            .field("not_after", &self.not_after())
            .finish_non_exhaustive()
    }
}

/// Returns the types that a certificate in DER names. The certificate is not checked: it may have
/// expired, and anyone may have issued it. Returns no types if the certificate can't be read.
#[must_use]
pub fn types_of_certificate(certificate: &[u8]) -> Vec<String> {
    Facts::read(certificate).map_or_else(|_| Vec::new(), |facts| facts.types)
}

/// Returns when a certificate in DER becomes valid, and when it expires. Returns `None` if it can't
/// be read.
#[must_use]
pub fn validity_of_certificate(certificate: &[u8]) -> Option<(SystemTime, SystemTime)> {
    let facts = Facts::read(certificate).ok()?;
    Some((facts.not_before, facts.not_after))
}

impl Identity {
    /// Reads PEM or DER. `certificate` has the certificate and the rest of its chain in any order,
    /// and `key` has the unencrypted private key. Both may be the same bytes. If `type_id` is
    /// `None`, the identity is for the type that the certificate names.
    ///
    /// # Errors
    /// Fails if a part is missing, if the key does not fit, or if the certificate is for another
    /// type.
    pub fn from_pem<'a>(
        type_id: impl Into<Option<&'a TypeIdentifier>>,
        certificate: &[u8],
        key: &[u8],
    ) -> Result<Self, IdentityError> {
        let parts = Parts::of_pem(certificate, key, None);
        Self::new(type_id.into(), Source::Memory, FileStamp::default(), parts)
    }

    /// Reads PEM like [`from_pem`](Self::from_pem), with the password of an encrypted private key
    /// (`ENCRYPTED PRIVATE KEY`). The password does not matter if the key is not encrypted.
    ///
    /// # Errors
    /// Fails like [`from_pem`](Self::from_pem), or if the password is wrong, or if the key is
    /// encrypted in an unknown way.
    #[cfg(feature = "pkcs12")]
    pub fn from_pem_with_password<'a>(
        type_id: impl Into<Option<&'a TypeIdentifier>>,
        certificate: &[u8],
        key: &[u8],
        password: &str,
    ) -> Result<Self, IdentityError> {
        let parts = Parts::of_pem(certificate, key, Some(&Password(password.into())));
        Self::new(type_id.into(), Source::Memory, FileStamp::default(), parts)
    }

    /// Reads two files with PEM. Both may be the same file.
    ///
    /// # Errors
    /// Fails like [`from_pem`](Self::from_pem), or if a file can't be read.
    pub fn from_files<'a>(
        type_id: impl Into<Option<&'a TypeIdentifier>>,
        certificate: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> Result<Self, IdentityError> {
        Self::from_source(
            type_id.into(),
            Source::Pem {
                certificate: certificate.into(),
                key: key.into(),
                password: None,
            },
        )
    }

    /// Reads two files like [`from_files`](Self::from_files), with the password of an encrypted
    /// private key. The identity keeps the password, so that the files can be [read
    /// again](Self::reload).
    ///
    /// # Errors
    /// Fails like [`from_pem_with_password`](Self::from_pem_with_password), or if a file can't be
    /// read.
    #[cfg(feature = "pkcs12")]
    pub fn from_files_with_password<'a>(
        type_id: impl Into<Option<&'a TypeIdentifier>>,
        certificate: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
        password: &str,
    ) -> Result<Self, IdentityError> {
        Self::from_source(
            type_id.into(),
            Source::Pem {
                certificate: certificate.into(),
                key: key.into(),
                password: Some(Password(password.into())),
            },
        )
    }

    /// Reads a certificate and its key from PKCS #12. Keychain Access exports this format (`.p12`).
    ///
    /// # Errors
    /// Fails like [`from_pem`](Self::from_pem), or if the password is wrong, or if the file is
    /// protected in an unknown way.
    #[cfg(feature = "pkcs12")]
    pub fn from_pkcs12<'a>(
        type_id: impl Into<Option<&'a TypeIdentifier>>,
        pkcs12: &[u8],
        password: &str,
    ) -> Result<Self, IdentityError> {
        let parts = Parts::of_pkcs12(pkcs12, password);
        Self::new(type_id.into(), Source::Memory, FileStamp::default(), parts)
    }

    /// Reads a file with PKCS #12. The identity keeps the password, so that the file can be [read
    /// again](Self::reload).
    ///
    /// # Errors
    /// Fails like [`from_pkcs12`](Self::from_pkcs12), or if the file can't be read.
    #[cfg(feature = "pkcs12")]
    pub fn from_pkcs12_file<'a>(
        type_id: impl Into<Option<&'a TypeIdentifier>>,
        file: impl Into<PathBuf>,
        password: &str,
    ) -> Result<Self, IdentityError> {
        Self::from_source(
            type_id.into(),
            Source::Pkcs12 {
                file: file.into(),
                password: Password(password.into()),
            },
        )
    }

    /// Returns the type of the passes or orders that the certificate is for.
    #[must_use]
    pub fn type_id(&self) -> &TypeIdentifier {
        &self.type_id
    }

    /// Returns the team that Apple issued the certificate to: the `OU` of its subject, 10 letters
    /// and digits.
    #[must_use]
    pub fn team(&self) -> Option<&str> {
        self.pair.facts.team.as_deref()
    }

    /// Returns when the certificate becomes valid. This may be in the future.
    #[must_use]
    pub fn not_before(&self) -> SystemTime {
        self.pair.facts.not_before
    }

    /// Returns when the certificate expires.
    #[must_use]
    pub fn not_after(&self) -> SystemTime {
        self.pair.facts.not_after
    }

    /// Checks that the certificate has not expired.
    ///
    /// # Errors
    /// Fails if the certificate has expired. The error names the type and the file.
    pub fn check_expiry(&self) -> Result<(), IdentityError> {
        if SystemTime::now() < self.not_after() {
            return Ok(());
        }
        let date = httpdate::fmt_http_date(self.not_after());
        let fault = Fault(Part::Certificate, format!("expired on {date}"));
        Err(self.source.named(Some(&self.type_id), fault))
    }

    /// Returns the certificate, followed by all other certificates that were read with it.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.pair.chain
    }

    /// Returns the private key of the certificate.
    #[must_use]
    pub fn private_key(&self) -> &PrivateKeyDer<'static> {
        &self.pair.key
    }

    /// Returns the algorithm of [`sign`](Self::sign).
    #[must_use]
    pub fn algorithm(&self) -> SignatureAlgorithm {
        self.pair.signing_key.algorithm()
    }

    /// Signs a message of any length with the private key.
    ///
    /// # Errors
    /// Fails if the library that signs fails, for example because the system has no random numbers.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        self.pair.signing_key.sign(message)
    }

    /// Returns the stamp of the files from just before they were read.
    #[must_use]
    pub fn stamp(&self) -> FileStamp {
        self.stamp
    }

    /// Returns the present stamp of the files. The call blocks on the disk. For an identity without
    /// files, the stamp never changes.
    #[must_use]
    pub fn current_stamp(&self) -> FileStamp {
        self.source.stamp()
    }

    /// Reads the files again, for the same type. The call blocks on the disk. For an identity
    /// without files, it returns a clone.
    ///
    /// # Errors
    /// Fails like the function that made the identity.
    pub fn reload(&self) -> Result<Self, IdentityError> {
        if matches!(self.source, Source::Memory) {
            return Ok(self.clone());
        }
        Self::from_source(Some(&self.type_id), self.source.clone())
    }

    fn from_source(
        type_id: Option<&TypeIdentifier>,
        source: Source,
    ) -> Result<Self, IdentityError> {
        // The stamp is taken before the files are read. If a file changes in between, the next
        // stamp is therefore different.
        let stamp = source.stamp();
        let parts = source.read();
        Self::new(type_id, source, stamp, parts)
    }

    fn new(
        type_id: Option<&TypeIdentifier>,
        source: Source,
        stamp: FileStamp,
        parts: Result<Parts, Fault>,
    ) -> Result<Self, IdentityError> {
        let parts = parts.map_err(|fault| source.named(type_id, fault))?;
        let type_id = match type_id {
            Some(type_id) => type_id.clone(),
            None => parts.type_id().map_err(|fault| source.named(None, fault))?,
        };
        let pair = parts
            .pair_for(&type_id)
            .map_err(|fault| source.named(Some(&type_id), fault))?;
        Ok(Self {
            type_id,
            source,
            stamp,
            pair: Arc::new(pair),
        })
    }
}

impl Source {
    fn file(&self, part: Part) -> Option<&Path> {
        match (self, part) {
            (Self::Memory, _) => None,
            (Self::Pem { certificate, .. }, Part::Certificate) => Some(certificate),
            (Self::Pem { key, .. }, Part::Key) => Some(key),
            #[cfg(feature = "pkcs12")]
            (Self::Pkcs12 { file, .. }, _) => Some(file),
        }
    }

    /// Makes the error for a fault. The error names the type and the file, if they are known.
    fn named(
        &self,
        type_id: Option<&TypeIdentifier>,
        Fault(part, problem): Fault,
    ) -> IdentityError {
        let file = self
            .file(part)
            .map(|file| format!("{}: ", pem::shown(file)))
            .unwrap_or_default();
        IdentityError(match type_id {
            Some(type_id) => format!("certificate for {type_id}: {file}{problem}"),
            None => format!("{file}{problem}"),
        })
    }

    fn stamp(&self) -> FileStamp {
        FileStamp([Part::Certificate, Part::Key].map(|part| {
            let metadata = self.file(part)?.metadata().ok()?;
            Some((metadata.modified().ok()?, metadata.len()))
        }))
    }

    fn read(&self) -> Result<Parts, Fault> {
        let read = |part| {
            let file = self.file(part).unwrap_or(Path::new(""));
            pem::read_file(file).map_err(|error| Fault(part, error.to_string()))
        };
        let certificate = read(Part::Certificate)?;
        match self {
            #[cfg(feature = "pkcs12")]
            Self::Pkcs12 { password, .. } => Parts::of_pkcs12(&certificate, &password.0),
            Self::Pem { password, .. } => {
                Parts::of_pem(&certificate, &read(Part::Key)?, password.as_ref())
            }
            Self::Memory => Parts::of_pem(&certificate, &read(Part::Key)?, None),
        }
    }
}
