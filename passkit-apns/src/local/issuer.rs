use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivatePkcs8KeyDer},
    server::WebPkiClientVerifier,
};

use crate::{lock::lock, request::uuid};

pub(crate) const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The attribute of a certificate's subject that names its topic.
const USER_ID: &[u64] = &[0, 9, 2342, 19200300, 100, 1, 1];

/// The reason why a [`LocalApns`](super::LocalApns) can't start, or can't issue a certificate.
#[derive(Debug, thiserror::Error)]
#[error("the local push service failed: {0}")]
pub struct IssueError(String);

impl IssueError {
    pub(crate) fn new(cause: impl std::fmt::Display) -> Self {
        Self(cause.to_string())
    }
}

impl From<io::Error> for IssueError {
    fn from(error: io::Error) -> Self {
        Self::new(error)
    }
}

impl From<rcgen::Error> for IssueError {
    fn from(error: rcgen::Error) -> Self {
        Self::new(error)
    }
}

impl From<rustls::Error> for IssueError {
    fn from(error: rustls::Error) -> Self {
        Self::new(error)
    }
}

pub(crate) fn random_uuid() -> Result<String, IssueError> {
    uuid().ok_or_else(|| IssueError::new("the system has no random numbers"))
}

/// A client certificate and its key, in PEM.
#[derive(Clone)]
#[non_exhaustive]
pub struct Issued {
    /// The certificate.
    pub certificate: String,
    /// The private key.
    pub key: String,
}

impl std::fmt::Debug for Issued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issued").finish_non_exhaustive()
    }
}

/// The authority that signs the certificates of the server and of its clients.
pub(crate) struct Issuer {
    authority: rcgen::Issuer<'static, KeyPair>,
    root: CertificateDer<'static>,
    root_pem: String,
    /// The topic of each certificate. A connection looks it up once.
    topics: Mutex<HashMap<Vec<u8>, String>>,
}

impl Issuer {
    pub(crate) fn new() -> Result<Self, IssueError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new([])?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        // Each authority has a different name. With equal names, a certificate of another authority
        // would fail with a confusing error about its signature.
        let name = format!("Local APNs authority {}", random_uuid()?);
        params.distinguished_name.push(DnType::CommonName, name);
        let root = params.self_signed(&key)?;
        Ok(Self {
            root: root.der().clone(),
            root_pem: root.pem(),
            authority: rcgen::Issuer::new(params, key),
            topics: Mutex::default(),
        })
    }

    pub(crate) fn root_pem(&self) -> &str {
        &self.root_pem
    }

    /// Returns the topic of a certificate that this authority issued.
    pub(crate) fn topic(&self, certificate: &[u8]) -> Option<String> {
        lock(&self.topics).get(certificate).cloned()
    }

    pub(crate) fn issue(
        &self,
        topic: &str,
        not_before: SystemTime,
        not_after: SystemTime,
    ) -> Result<Issued, IssueError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new([])?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params
            .distinguished_name
            .push(DnType::CustomDnType(USER_ID.into()), topic);
        params
            .distinguished_name
            .push(DnType::CommonName, format!("Pass Type ID: {topic}"));
        let epoch = rcgen::date_time_ymd(1970, 1, 1);
        params.not_before = epoch + not_before.duration_since(UNIX_EPOCH).unwrap_or_default();
        params.not_after = epoch + not_after.duration_since(UNIX_EPOCH).unwrap_or_default();
        let certificate = params.signed_by(&key, &self.authority)?;
        lock(&self.topics).insert(certificate.der().to_vec(), topic.into());
        Ok(Issued {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        })
    }

    /// `allows_no_certificate` sets whether clients without a certificate are accepted.
    pub(crate) fn server_config(
        &self,
        allows_no_certificate: bool,
    ) -> Result<ServerConfig, IssueError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()])?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params.signed_by(&key, &self.authority)?;

        let provider = Arc::new(ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone())?;
        let clients =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        let clients = if allows_no_certificate {
            clients.allow_unauthenticated()
        } else {
            clients
        };
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(clients.build().map_err(IssueError::new)?)
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
            )?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }
}
