use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use passkit_server::text::Chain;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::{answer::Answer, endpoint::Endpoint};

/// How often a connection is pinged, and how long the answer to a ping may take.
const PING_INTERVAL: Duration = Duration::from_secs(60);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// An HTTP/2 connection. When this value is dropped, the connection ends after its last push is
/// answered.
pub(crate) struct Connection {
    requests: SendRequest<Full<Bytes>>,
    /// The generation of the certificate that this connection was opened with.
    pub(crate) generation: u64,
    answers: AtomicUsize,
    failed: AtomicBool,
    ended: Arc<OnceLock<String>>,
}

impl Connection {
    pub(crate) async fn open(
        endpoint: &Endpoint,
        tls: Arc<ClientConfig>,
        generation: u64,
    ) -> Result<Self, String> {
        let Endpoint {
            host,
            port,
            connect_timeout,
            ..
        } = endpoint;
        let opened = tokio::time::timeout(*connect_timeout, async {
            let tcp = TcpStream::connect((host.as_str(), *port))
                .await
                .map_err(|error| Chain(&error).to_string())?;
            // A push is one small packet. If the system refuses this option, the push is only sent
            // slightly later.
            let _ = tcp.set_nodelay(true);
            Self::start(tcp, endpoint.name.clone(), tls, generation).await
        })
        .await
        .unwrap_or_else(|_| Err(format!("no connection within {connect_timeout:?}")));
        opened.map_err(|problem| format!("{host}:{port}: {problem}"))
    }

    async fn start(
        tcp: TcpStream,
        name: ServerName<'static>,
        tls: Arc<ClientConfig>,
        generation: u64,
    ) -> Result<Self, String> {
        let tls = TlsConnector::from(tls)
            .connect(name, tcp)
            .await
            .map_err(|error| Chain(&error).to_string())?;
        let (requests, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .keep_alive_while_idle(true)
            // This limit holds until the server sends its own. With a provider token, the server's
            // limit is 1 at first.
            .initial_max_send_streams(1)
            .handshake(TokioIo::new(tls))
            .await
            .map_err(|error| Chain(&error).to_string())?;
        let ended = Arc::new(OnceLock::new());
        let reason = Arc::clone(&ended);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                let why = Chain(&error).to_string();
                tracing::debug!("a connection to APNs ended: {why}");
                let _ = reason.set(why);
            }
        });
        Ok(Self {
            requests,
            generation,
            answers: AtomicUsize::new(0),
            failed: AtomicBool::new(false),
            ended,
        })
    }

    /// Returns whether the connection accepts no more pushes, because it ended or the server sent
    /// GOAWAY.
    pub(crate) fn is_closed(&self) -> bool {
        self.requests.is_closed()
    }

    /// Sends a push and reads its answer. Waits if the server allows no more streams. The error
    /// says why there is no answer.
    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Result<Answer, String> {
        match self.requests.clone().send_request(request).await {
            Ok(response) => {
                let answer = Answer::read(response).await;
                self.answers.fetch_add(1, Ordering::Relaxed);
                Ok(answer)
            }
            // The error of the connection explains more than the error of the push.
            Err(error) => Err(self
                .ended
                .get()
                .cloned()
                .unwrap_or_else(|| Chain(&error).to_string())),
        }
    }

    /// Returns how many answers the connection has received.
    pub(crate) fn answers(&self) -> usize {
        self.answers.load(Ordering::Relaxed)
    }

    /// Marks the connection as failed. Returns whether this is the first time.
    pub(crate) fn mark_failed(&self) -> bool {
        !self.failed.swap(true, Ordering::Relaxed)
    }
}
