//! Connections over the network that are kept open between requests.

use std::{
    fmt, io,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Uri, header, uri::PathAndQuery};
use http_body_util::Full;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{client::legacy::connect::HttpConnector, rt::TokioIo};
use passkit_server::text::Chain;
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tower_service::Service;

use crate::message::{Response, SendError, WithCapitals, read};

/// Connections to web services. They close when this value is dropped.
pub(crate) struct Connections {
    connector: HttpsConnector<HttpConnector>,
    idle: Mutex<Vec<Open>>,
}

/// An open connection that has answered all its requests.
struct Open {
    /// Scheme, host and port.
    origin: String,
    sender: SendRequest<Full<Bytes>>,
    /// Whether anything was received since the last request.
    received: Arc<AtomicBool>,
}

impl Default for Connections {
    fn default() -> Self {
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls())
            .https_or_http()
            .enable_http1()
            .build();
        Self {
            connector,
            idle: Mutex::default(),
        }
    }
}

impl Connections {
    /// Returns a value with the same connector and no open connections.
    pub(crate) fn afresh(&self) -> Self {
        Self {
            connector: self.connector.clone(),
            idle: Mutex::default(),
        }
    }

    /// Sends a request and reads the answer. Fails if the body is longer than `limit` bytes.
    ///
    /// A service may close a connection after any answer, without notice. So if a connection that
    /// was kept open ends before the first byte of the answer, the request is sent again on a new
    /// connection. It is safe to repeat any request that phones send (RFC 9110 section 9.2.2).
    pub(crate) async fn exchange(
        &self,
        mut request: Request<Full<Bytes>>,
        limit: usize,
    ) -> Result<Response, SendError> {
        let uri = request.uri().clone();
        let origin = uri
            .authority()
            .map(|authority| format!("{}://{authority}", uri.scheme_str().unwrap_or_default()))
            .unwrap_or_default();
        if let Some(host) = uri
            .authority()
            .and_then(|authority| HeaderValue::from_str(authority.as_str()).ok())
        {
            request.headers_mut().insert(header::HOST, host);
        }
        let path = uri.path_and_query().cloned();
        *request.uri_mut() = path
            .unwrap_or_else(|| PathAndQuery::from_static("/"))
            .into();

        let with_capitals = request.extensions().get::<WithCapitals>().is_some();
        if with_capitals {
            // All other connections are closed first, because a service may allow only one
            // connection.
            self.idle(Vec::clear);
        }
        while let Some(mut open) = self.take(&origin) {
            // If the service answered before it read the entire request, the connection may never
            // be ready for the next request.
            let ready = tokio::time::timeout(Duration::from_secs(1), open.sender.ready());
            if !matches!(ready.await, Ok(Ok(()))) {
                continue;
            }
            open.received.store(false, Ordering::Relaxed);
            match open.sender.send_request(request.clone()).await {
                Ok(answer) => return self.finish(open, answer, limit).await,
                Err(_) if !open.received.load(Ordering::Relaxed) => break,
                Err(error) => return Err(SendError::NoAnswer(Chain(&error).to_string())),
            }
        }
        let mut open = self.connect(&uri, origin, with_capitals).await?;
        let answer = open.sender.send_request(request).await;
        let answer = answer.map_err(|error| SendError::NoAnswer(Chain(&error).to_string()))?;
        if with_capitals {
            let (head, body) = answer.into_parts();
            return read(head, body, limit).await;
        }
        self.finish(open, answer, limit).await
    }

    fn idle<T>(&self, f: impl FnOnce(&mut Vec<Open>) -> T) -> T {
        f(&mut self.idle.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn take(&self, origin: &str) -> Option<Open> {
        self.idle(|idle| {
            let at = idle.iter().rposition(|open| open.origin == origin)?;
            Some(idle.swap_remove(at))
        })
    }

    /// Reads the answer, and keeps the connection open.
    async fn finish(
        &self,
        open: Open,
        answer: http::Response<hyper::body::Incoming>,
        limit: usize,
    ) -> Result<Response, SendError> {
        let (head, body) = answer.into_parts();
        let answer = read(head, body, limit).await?;
        self.idle(|idle| idle.push(open));
        Ok(answer)
    }

    async fn connect(
        &self,
        uri: &Uri,
        origin: String,
        with_capitals: bool,
    ) -> Result<Open, SendError> {
        let mut connector = self.connector.clone();
        let stream = connector
            .call(uri.clone())
            .await
            .map_err(|error| SendError::Unreachable(Chain(&*error).to_string()))?;
        let received = Arc::new(AtomicBool::new(false));
        let noted = Noted {
            stream: TokioIo::new(stream),
            received: received.clone(),
        };
        let (sender, connection) = http1::Builder::new()
            .title_case_headers(with_capitals)
            .handshake(TokioIo::new(noted))
            .await
            .map_err(|error| SendError::Unreachable(Chain(&error).to_string()))?;
        // The task ends when the sender is dropped.
        tokio::spawn(connection);
        Ok(Open {
            origin,
            sender,
            received,
        })
    }
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections").finish_non_exhaustive()
    }
}

pub(crate) fn tls() -> ClientConfig {
    let provider = Arc::new(ring::default_provider());
    let versions = [&rustls::version::TLS13, &rustls::version::TLS12];
    // This can't fail, because the provider supports both versions of TLS.
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&versions)
        .unwrap_or_else(|_| ClientConfig::builder());
    match builder.clone().with_native_roots() {
        Ok(builder) => builder.with_no_client_auth(),
        Err(_) => builder
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth(),
    }
}

/// A stream that records whether anything was received.
struct Noted<T> {
    stream: T,
    received: Arc<AtomicBool>,
}

impl<T: AsyncRead + Unpin> AsyncRead for Noted<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.received.store(true, Ordering::Relaxed);
        }
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Noted<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
