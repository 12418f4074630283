//! What `rediss` URLs need: certificate authorities, and perhaps a certificate of our own. The authorities are those of the
//! system if no others are given.
#![cfg_attr(
    not(feature = "tls"),
    allow(unused_variables, reason = "there is nothing to do then")
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

/// Refuses certificates that can't be used.
#[cfg(feature = "tls")]
pub(super) fn prepare(is_tls: bool, config: &Config) -> Result<(), Error> {
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
    // Another part of the program may have chosen already.
    let _chosen = rustls::crypto::ring::default_provider().install_default();
    let (own, roots) = (&config.client_certificate, &config.root_certificates);
    let is_certificate =
        |pem: &Pem| matches!(CertificateDer::pem_slice_iter(&pem.0).next(), Some(Ok(_)));
    let fault = if !is_tls && (own.is_some() || roots.is_some()) {
        "certificates for Redis are for rediss URLs only"
    } else if roots.as_ref().is_some_and(|pem| !is_certificate(pem)) {
        "the root certificates for Redis hold no certificate in PEM"
    } else if own.as_ref().is_some_and(|pem| !is_certificate(pem)) {
        "the client certificate for Redis holds no certificate in PEM"
    } else if own
        .as_ref()
        .is_some_and(|pem| PrivateKeyDer::from_pem_slice(&pem.0).is_err())
    {
        "the client certificate for Redis holds no private key; append it, as PEM without a password"
    } else {
        return Ok(());
    };
    Err(Error::configuration(fault))
}

#[cfg(not(feature = "tls"))]
pub(super) fn prepare(is_tls: bool, config: &Config) -> Result<(), Error> {
    Ok(())
}

/// `None` where the driver's defaults will do.
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

/// This builder, unlike the others, is not given the URL.
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

const ROOT: &str = "it must bear the host's name, and be of an authority that this system trusts, or one that is given: \
    PASSKIT_REDIS_ROOT, or Config::root_certificates";
const CERTIFICATE: &str =
    "show it a client certificate: PASSKIT_REDIS_CERT, or Config::client_certificate";

/// Adds what to do where the first connection fails and the set-up of TLS may be why.
pub(super) fn advise(error: Error, is_tls: bool) -> Error {
    let fix = if let Some(fix) = certificate_fix(&error) {
        fix
    } else if is_tls && is_silent(&error) {
        "if it speaks no TLS, the URL begins with redis instead of rediss"
    } else if !is_tls && is_hung_up(&error) {
        "if it speaks TLS, the URL begins with rediss"
    } else {
        return error;
    };
    error.advising(fix)
}

/// What the driver reports when no connection to a Cluster can be made: the text of an error, and nothing else of it.
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
