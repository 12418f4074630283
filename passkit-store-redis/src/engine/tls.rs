//! Sets up TLS for `rediss` URLs: root certificates (by default the system's), and a client certificate if there is one.
#![cfg_attr(
    not(feature = "tls"),
    allow(unused_variables, reason = "without TLS there is nothing to set up")
)]

use std::io;

use passkit_server::store::StoreErrorKind;
use redis::{
    Client, ConnectionInfo, RedisError, RedisResult, TlsMode, cluster::ClusterClientBuilder,
    sentinel::SentinelClientBuilder,
};

#[cfg(feature = "tls")]
use crate::config::Pem;
use crate::{
    config::Config,
    error::{self, Error},
};

/// Checks the certificates.
#[cfg(feature = "tls")]
pub(super) fn prepare(is_tls: bool, config: &Config) -> Result<(), Error> {
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
    // An error means that another part of the program has already chosen a crypto provider. That is fine.
    let _chosen = rustls::crypto::ring::default_provider().install_default();
    let (own, roots) = (&config.client_certificate, &config.root_certificates);
    let is_certificate =
        |pem: &Pem| matches!(CertificateDer::pem_slice_iter(&pem.0).next(), Some(Ok(_)));
    let fault = if !is_tls && (own.is_some() || roots.is_some()) {
        "certificates for Redis need a rediss URL"
    } else if roots.as_ref().is_some_and(|pem| !is_certificate(pem)) {
        "the root certificates for Redis contain no certificate in PEM"
    } else if own.as_ref().is_some_and(|pem| !is_certificate(pem)) {
        "the client certificate for Redis contains no certificate in PEM"
    } else if own
        .as_ref()
        .is_some_and(|pem| PrivateKeyDer::from_pem_slice(&pem.0).is_err())
    {
        "the client certificate for Redis contains no private key; append it in PEM, without a password"
    } else {
        return Ok(());
    };
    Err(Error::configuration(fault))
}

#[cfg(not(feature = "tls"))]
pub(super) fn prepare(is_tls: bool, config: &Config) -> Result<(), Error> {
    Ok(())
}

/// Returns the certificates of `config`, or `None` if the defaults of the driver are enough.
#[cfg(feature = "tls")]
fn certificates(config: &Config) -> Option<redis::TlsCertificates> {
    let pem = |pem: &Option<Pem>| pem.as_ref().map(|pem| pem.0.clone());
    let (own, root_cert) = (
        pem(&config.client_certificate),
        pem(&config.root_certificates),
    );
    if own.is_none() && root_cert.is_none() {
        return None;
    }
    let client_tls = own.map(|pem| redis::ClientTlsConfig {
        client_cert: pem.clone(),
        client_key: pem,
    });
    Some(redis::TlsCertificates {
        client_tls,
        root_cert,
    })
}

pub(super) fn client(node: ConnectionInfo, config: &Config) -> RedisResult<Client> {
    #[cfg(feature = "tls")]
    if let Some(certificates) = certificates(config) {
        return Client::build_with_tls(node, certificates);
    }
    Client::open(node)
}

pub(super) fn for_cluster(builder: ClusterClientBuilder, config: &Config) -> ClusterClientBuilder {
    #[cfg(feature = "tls")]
    if let Some(certificates) = certificates(config) {
        return builder.certs(certificates);
    }
    builder
}

/// Turns TLS on. The other builders take this setting from the URL, but this builder does not get the URL.
pub(super) fn for_sentinel(
    builder: SentinelClientBuilder,
    config: &Config,
) -> SentinelClientBuilder {
    let builder = builder
        .set_client_to_redis_tls_mode(TlsMode::Secure)
        .set_client_to_sentinel_tls_mode(TlsMode::Secure);
    #[cfg(feature = "tls")]
    if let Some(certificates) = certificates(config) {
        return builder
            .set_client_to_redis_certificates(certificates.clone())
            .set_client_to_sentinel_certificates(certificates);
    }
    builder
}

const ROOT: &str = "it must be for this host name and from a trusted authority; to trust another one, set PASSKIT_REDIS_ROOT or \
    Config::root_certificates";
const CERTIFICATE: &str = "the server requires a client certificate; set PASSKIT_REDIS_CERT or Config::client_certificate";

/// Adds advice to the error of the first connection if the cause may be the set-up of TLS.
pub(super) fn advise(error: Error, is_tls: bool) -> Error {
    let fix = if let Some(fix) = certificate_fix(&error) {
        fix
    } else if is_tls && is_silent(&error) {
        "if the server does not use TLS, start the URL with redis instead of rediss"
    } else if !is_tls && is_hung_up(&error) {
        "if the server uses TLS, start the URL with rediss"
    } else {
        return error;
    };
    error.advising(fix)
}

/// Returns whether the text of an error has one of these parts. If no node of a Cluster can be reached, the driver keeps only
/// this text.
fn says(error: &Error, parts: &[&str]) -> bool {
    let detail = error
        .driver()
        .filter(|driver| driver.is_io_error())
        .and_then(RedisError::detail);
    detail.is_some_and(|detail| parts.iter().any(|part| detail.contains(part)))
}

fn certificate_fix(error: &Error) -> Option<&'static str> {
    #[cfg(feature = "tls")]
    match error.driver().and_then(error::tls_error) {
        Some(rustls::Error::InvalidCertificate(_)) => return Some(ROOT),
        Some(rustls::Error::AlertReceived(rustls::AlertDescription::CertificateRequired)) => {
            return Some(CERTIFICATE);
        }
        _ => {}
    }
    if says(error, &["invalid peer certificate"]) {
        return Some(ROOT);
    }
    says(error, &["CertificateRequired"]).then_some(CERTIFICATE)
}

fn is_silent(error: &Error) -> bool {
    let Some(driver) = error.driver() else {
        return error.kind() == StoreErrorKind::Unavailable;
    };
    driver.is_timeout() || says(error, &["timed out"])
}

fn is_hung_up(error: &Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    let io = error
        .driver()
        .and_then(error::io_error)
        .map(io::Error::kind);
    matches!(
        io,
        Some(BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
    ) || says(error, &["reset by peer", "roken pipe", "closed"])
}
