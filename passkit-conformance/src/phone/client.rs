use std::{error::Error as _, fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client as HyperClient, connect::HttpConnector},
    rt::TokioExecutor,
};
use rustls::{ClientConfig, RootCertStore, crypto::ring};

/// What a [`Client`] puts up with.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// The longest body of an answer, in bytes: 20 MiB unless told.
    pub response_bytes: usize,
    /// The longest wait from the request to the end of the answer: 10 s unless told.
    pub time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { response_bytes: 20 * 1024 * 1024, time: Duration::from_secs(10) }
    }
}

/// The connections of one phone, or of many: clones share them.
///
/// HTTP/1.1; TLS by the certificates that the system trusts, with plain HTTP where a URL says so; no redirects are
/// followed and no request is repeated.
#[derive(Clone)]
pub struct Client {
    hyper: HyperClient<HttpsConnector<HttpConnector>, Full<Bytes>>,
    limits: Limits,
}

impl Default for Client {
    fn default() -> Self {
        Self::new(Limits::default())
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// An answer, whole.
#[derive(Debug)]
pub(super) struct Response {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Client {
    /// A client within `limits`. Where the system has no certificates to trust, only plain HTTP will work.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let https =
            HttpsConnectorBuilder::new().with_tls_config(tls()).https_or_http().enable_http1().build();
        Self { hyper: HyperClient::builder(TokioExecutor::new()).build(https), limits }
    }

    /// Sends a request, and reads the whole answer; the error is a reason in one line.
    pub(super) async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response, String> {
        match tokio::time::timeout(self.limits.time, self.exchange(request)).await {
            Ok(result) => result,
            Err(_) => Err(format!("no whole answer within {:?}", self.limits.time)),
        }
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Response, String> {
        let answer = self.hyper.request(request).await.map_err(|error| {
            let mut text = error.to_string();
            let mut source = error.source();
            while let Some(cause) = source {
                text = format!("{text}: {cause}");
                source = cause.source();
            }
            text
        })?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, self.limits.response_bytes).collect().await.map_err(|error| {
            if error.is::<LengthLimitError>() {
                format!("the answer is longer than {} bytes", self.limits.response_bytes)
            } else {
                format!("the answer broke off: {error}")
            }
        })?;
        Ok(Response { status: head.status, headers: head.headers, body: body.to_bytes() })
    }
}

fn tls() -> ClientConfig {
    let provider = Arc::new(ring::default_provider());
    let versions = [&rustls::version::TLS13, &rustls::version::TLS12];
    // The provider has both versions; its own default has them as well.
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&versions)
        .unwrap_or_else(|_| ClientConfig::builder());
    match builder.clone().with_native_roots() {
        Ok(builder) => builder.with_no_client_auth(),
        Err(_) => builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth(),
    }
}
