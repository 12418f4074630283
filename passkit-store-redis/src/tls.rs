//! What `rediss` URLs need: certificate authorities, those of the system if no others are given, and perhaps a certificate
//! of our own.
#![cfg_attr(not(feature = "tls"), allow(unused_variables, reason = "there is nothing to do then"))]

use redis::{
    Client, ConnectionInfo, RedisResult, TlsMode, cluster::ClusterClientBuilder,
    sentinel::SentinelClientBuilder,
};

#[cfg(feature = "tls")]
use crate::config::Pem;
use crate::{config::Config, error::Failure};

/// Refuses certificates that can't be used.
#[cfg(feature = "tls")]
pub(crate) fn prepare(is_tls: bool, config: &Config) -> Result<(), Failure> {
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
    // Another part of the program may have chosen already.
    let _chosen = rustls::crypto::ring::default_provider().install_default();
    let (own, roots) = (&config.client_certificate, &config.root_certificates);
    let is_certificate = |pem: &Pem| matches!(CertificateDer::pem_slice_iter(&pem.0).next(), Some(Ok(_)));
    let fault = if !is_tls && (own.is_some() || roots.is_some()) {
        "certificates for Redis are for rediss URLs only"
    } else if roots.as_ref().is_some_and(|pem| !is_certificate(pem)) {
        "the root certificates for Redis hold no certificate in PEM"
    } else if own.as_ref().is_some_and(|pem| !is_certificate(pem)) {
        "the client certificate for Redis holds no certificate in PEM"
    } else if own.as_ref().is_some_and(|pem| PrivateKeyDer::from_pem_slice(&pem.0).is_err()) {
        "the client certificate for Redis holds no private key; append it, as PEM without a password"
    } else {
        return Ok(());
    };
    Err(Failure::configuration(fault))
}

#[cfg(not(feature = "tls"))]
pub(crate) fn prepare(is_tls: bool, config: &Config) -> Result<(), Failure> {
    Ok(())
}

/// `None` where the driver's defaults will do.
#[cfg(feature = "tls")]
fn certificates(config: &Config) -> Option<redis::TlsCertificates> {
    let pem = |pem: &Option<Pem>| pem.as_ref().map(|pem| pem.0.clone());
    let (own, root_cert) = (pem(&config.client_certificate), pem(&config.root_certificates));
    if own.is_none() && root_cert.is_none() {
        return None;
    }
    let client_tls = own.map(|pem| redis::ClientTlsConfig { client_cert: pem.clone(), client_key: pem });
    Some(redis::TlsCertificates { client_tls, root_cert })
}

pub(crate) fn client(node: ConnectionInfo, config: &Config) -> RedisResult<Client> {
    #[cfg(feature = "tls")]
    if let Some(certificates) = certificates(config) {
        return Client::build_with_tls(node, certificates);
    }
    Client::open(node)
}

pub(crate) fn for_cluster(builder: ClusterClientBuilder, config: &Config) -> ClusterClientBuilder {
    #[cfg(feature = "tls")]
    if let Some(certificates) = certificates(config) {
        return builder.certs(certificates);
    }
    builder
}

/// This builder, unlike the others, is not given the URL.
pub(crate) fn for_sentinel(builder: SentinelClientBuilder, config: &Config) -> SentinelClientBuilder {
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

/// Says what to do where the first connection fails and the set-up of TLS may be why.
pub(crate) fn advise(failure: Failure, is_tls: bool) -> Failure {
    let text = failure.to_string();
    let told = |part: &str| text.contains(part);
    let mend = if told("invalid peer certificate") {
        "it must bear the host's name, and be of an authority that this system trusts, or one that is given: \
         PASSKIT_REDIS_ROOT, or Config::root_certificates"
    } else if told("CertificateRequired") {
        "show it a client certificate: PASSKIT_REDIS_CERT, or Config::client_certificate"
    } else if is_tls && (told("timed out") || told("in time")) {
        "if it speaks no TLS, the URL begins with redis instead of rediss"
    } else if !is_tls && (told("reset by peer") || told("roken pipe") || told("closed")) {
        "if it speaks TLS, the URL begins with rediss"
    } else {
        return failure;
    };
    failure.advising(mend)
}
