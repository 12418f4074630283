//! What `rediss` URLs need: the system's certificate authorities, which the driver reads, and perhaps a certificate of our
//! own.
#![cfg_attr(not(feature = "tls"), allow(unused_variables, reason = "there is nothing to do then"))]

use redis::{
    Client, ConnectionInfo, RedisResult, TlsMode, cluster::ClusterClientBuilder,
    sentinel::SentinelClientBuilder,
};

use crate::{config::Config, error::Failure};

/// Refuses a certificate that can't be used.
pub(crate) fn prepare(is_tls: bool, config: &Config) -> Result<(), Failure> {
    #[cfg(feature = "tls")]
    {
        // Another part of the program may have chosen already.
        let _chosen = rustls::crypto::ring::default_provider().install_default();
        if let Some(pem) = &config.client_certificate {
            let why = pem.fault().or((!is_tls).then_some("is for rediss URLs only"));
            if let Some(why) = why {
                return Err(Failure::configuration(format!("the client certificate for Redis {why}")));
            }
        }
    }
    Ok(())
}

#[cfg(feature = "tls")]
impl crate::config::Pem {
    fn fault(&self) -> Option<&'static str> {
        use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
        if !matches!(CertificateDer::pem_slice_iter(&self.0).next(), Some(Ok(_))) {
            return Some("holds no certificate; it must be PEM, with the key in the same file");
        }
        let key = PrivateKeyDer::from_pem_slice(&self.0);
        key.is_err().then_some("holds no private key; append it, as PEM without a password")
    }
}

#[cfg(feature = "tls")]
fn certificates(config: &Config) -> Option<redis::TlsCertificates> {
    let pem = &config.client_certificate.as_ref()?.0;
    let client_tls = redis::ClientTlsConfig { client_cert: pem.clone(), client_key: pem.clone() };
    Some(redis::TlsCertificates { client_tls: Some(client_tls), root_cert: None })
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
        "it must bear the host's name, and be of an authority that this system trusts or SSL_CERT_FILE names"
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
