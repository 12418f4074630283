use std::{sync::Arc, time::Duration};

use http::uri::Authority;
use rustls::{ClientConfig, RootCertStore, crypto::ring, pki_types::ServerName};

use passkit_identity::pem;

use crate::{ApnsError, Config, Identity};

/// The server, its timeouts, and the root certificates to verify it with.
pub(crate) struct Endpoint {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) name: ServerName<'static>,
    pub(crate) authority: Authority,
    pub(crate) connect_timeout: Duration,
    pub(crate) request_timeout: Duration,
    roots: Arc<RootCertStore>,
}

impl Endpoint {
    pub(crate) fn new(config: &Config) -> Result<Self, ApnsError> {
        let Config { host, port, .. } = config;
        let bad_host = || ApnsError::new(format!("{host:?} is not a host name"));
        let name = ServerName::try_from(host.clone()).map_err(|_| bad_host())?;
        let written = if host.contains(':') {
            format!("[{host}]")
        } else {
            host.clone()
        };
        let authority = if *port == 443 {
            written
        } else {
            format!("{written}:{port}")
        };
        Ok(Self {
            host: host.clone(),
            port: *port,
            name,
            authority: authority.parse().map_err(|_| bad_host())?,
            connect_timeout: config.connect_timeout,
            request_timeout: config.request_timeout,
            roots: Arc::new(roots(&config.roots)?),
        })
    }

    /// Makes the TLS configuration of connections, with a client certificate if there is one.
    pub(crate) fn tls(&self, identity: Option<&Identity>) -> Result<Arc<ClientConfig>, ApnsError> {
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| ApnsError::new(error.to_string()))?
            .with_root_certificates(Arc::clone(&self.roots));
        let mut tls = match identity {
            Some(identity) => builder
                .with_client_auth_cert(
                    identity.chain().to_vec(),
                    identity.private_key().clone_key(),
                )
                .map_err(|error| {
                    ApnsError::about(
                        &format!("certificate for {}", identity.type_id()),
                        None,
                        error,
                    )
                })?,
            None => builder.with_no_client_auth(),
        };
        tls.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Arc::new(tls))
    }
}

fn roots(extra: &[u8]) -> Result<RootCertStore, ApnsError> {
    let mut roots = RootCertStore::empty();
    // Root certificates that can't be read are skipped.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if !extra.is_empty() {
        let bad =
            |error: &dyn std::fmt::Display| ApnsError::new(format!("root certificates: {error}"));
        for certificate in pem::certificates(extra).map_err(|error| bad(&error))? {
            roots.add(certificate).map_err(|error| bad(&error))?;
        }
    }
    if roots.is_empty() {
        return Err(ApnsError::new(
            "the system trusts no root certificates: install ca-certificates",
        ));
    }
    Ok(roots)
}
