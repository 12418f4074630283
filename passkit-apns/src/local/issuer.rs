use std::{
    fmt::Write as _,
    io,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ::ring::digest::{SHA256, digest};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use rustls::{
    DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivatePkcs8KeyDer, UnixTime},
    server::{
        WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};

use super::options::Options;
use crate::request::uuid;

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
}

impl Issuer {
    /// Makes an authority with this private key, or with a new one.
    pub(crate) fn new(key: Option<&str>) -> Result<Self, IssueError> {
        let key = key.map_or_else(KeyPair::generate, KeyPair::from_pem)?;
        let mut params = CertificateParams::new([])?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        // Each key has a different name. With equal names, a certificate of another authority would
        // fail with a confusing error about its signature.
        let mut name = "Local APNs authority ".to_owned();
        for byte in &digest(&SHA256, key.public_key_raw()).as_ref()[..8] {
            // Writing to a string can't fail.
            let _ = write!(name, "{byte:02x}");
        }
        params.distinguished_name.push(DnType::CommonName, name);
        let root = params.self_signed(&key)?;
        Ok(Self {
            root: root.der().clone(),
            root_pem: root.pem(),
            authority: rcgen::Issuer::new(params, key),
        })
    }

    pub(crate) fn root_pem(&self) -> &str {
        &self.root_pem
    }

    pub(crate) fn key_pem(&self) -> String {
        self.authority.key().serialize_pem()
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
        Ok(Issued {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        })
    }

    pub(crate) fn server_config(&self, options: &Options) -> Result<ServerConfig, IssueError> {
        let key = KeyPair::generate()?;
        let names = ["localhost", "127.0.0.1"].map(str::to_owned);
        let names: Vec<_> = names.into_iter().chain(options.names.clone()).collect();
        let mut params = CertificateParams::new(names)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params.signed_by(&key, &self.authority)?;

        let provider = Arc::new(ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone())?;
        let clients: Arc<dyn ClientCertVerifier> = if options.lenient {
            Arc::new(AnyCertificate(provider.signature_verification_algorithms))
        } else {
            let clients =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
            let clients = if options.provider_tokens {
                clients.allow_unauthenticated()
            } else {
                clients
            };
            clients.build().map_err(IssueError::new)?
        };
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(clients)
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
            )?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }
}

/// Accepts every client certificate, and clients without one. Clients must still have the private
/// keys of their certificates.
#[derive(Debug)]
struct AnyCertificate(WebPkiSupportedAlgorithms);

impl ClientCertVerifier for AnyCertificate {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
