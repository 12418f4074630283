use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use tower_service::Service;

use crate::{
    Exchange,
    connections::Connections,
    message::{Response, SendError, read},
    secrets::Secrets,
};

/// The limits of a [`Client`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// The greatest length of an answer's body, in bytes. Default: 20 MiB.
    pub response_bytes: usize,
    /// The longest time from the start of the request to the end of the answer. Default: 10 s.
    pub time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            response_bytes: 20 * 1024 * 1024,
            time: Duration::from_secs(10),
        }
    }
}

/// Sends requests to a web service, for one phone or for many. Clones share the connections.
///
/// The client speaks HTTP/1.1 over the network. TLS trusts the certificates of the system. An
/// `http://` URL means plain HTTP. The client follows no redirects. It repeats a request only if a
/// connection that was kept open ends before the first byte of the answer.
#[derive(Clone)]
pub struct Client {
    transport: Transport,
    limits: Limits,
}

type Answering = Pin<Box<dyn Future<Output = Result<Response, SendError>> + Send>>;

#[derive(Clone)]
enum Transport {
    Network(Arc<Connections>),
    InProcess(Arc<dyn Fn(Request<Full<Bytes>>, usize) -> Answering + Send + Sync>),
}

impl Default for Client {
    fn default() -> Self {
        Self::new(Limits::default())
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// Makes a client for the network. If the system trusts no certificates, only plain HTTP works.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            transport: Transport::Network(Arc::default()),
            limits,
        }
    }

    /// Returns a client like this one, with its own connections. They close when the client is
    /// dropped.
    pub(crate) fn afresh(&self) -> Self {
        let transport = match &self.transport {
            Transport::Network(connections) => Transport::Network(Arc::new(connections.afresh())),
            Transport::InProcess(call) => Transport::InProcess(call.clone()),
        };
        Self {
            transport,
            limits: self.limits,
        }
    }

    /// Makes a client that sends all requests to `service` in this process. The host of the URL
    /// does not matter.
    ///
    /// Headers that an HTTP server adds to answers, such as `Date`, are absent.
    #[must_use]
    pub fn in_process<S, B>(service: S, limits: Limits) -> Self
    where
        S: Service<Request<Full<Bytes>>, Response = http::Response<B>>
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send,
        S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let call = move |request, limit| -> Answering {
            let mut service = service.clone();
            Box::pin(async move {
                let broken = |error: S::Error| SendError::NoAnswer(error.into().to_string());
                std::future::poll_fn(|context| service.poll_ready(context))
                    .await
                    .map_err(broken)?;
                let answer = service.call(request).await.map_err(broken)?;
                let (head, body) = answer.into_parts();
                read(head, body, limit).await
            })
        };
        Self {
            transport: Transport::InProcess(Arc::new(call)),
            limits,
        }
    }

    /// Returns whether requests go over the network.
    pub(crate) fn is_network(&self) -> bool {
        matches!(self.transport, Transport::Network(_))
    }

    /// Sends a request and reads the complete answer. Also returns a record of the exchange, in
    /// which other texts replace the `secrets`.
    pub(crate) async fn send(
        &self,
        request: Request<Full<Bytes>>,
        secrets: &Secrets,
    ) -> (Result<Response, SendError>, Exchange) {
        let Limits { time, .. } = self.limits;
        let body = request
            .body()
            .clone()
            .collect()
            .await
            .map(|body| body.to_bytes())
            .unwrap_or_default();
        let mut exchange = secrets.asked(&request, &body);
        let start = Instant::now();
        let answer = match tokio::time::timeout(time, self.exchange(request)).await {
            Ok(result) => result,
            Err(_) => Err(SendError::TooSlow(format!(
                "no complete answer within {time:?}"
            ))),
        };
        secrets.answered(&mut exchange, &answer, start.elapsed());
        (answer, exchange)
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Response, SendError> {
        let limit = self.limits.response_bytes;
        match &self.transport {
            Transport::InProcess(call) => call(request, limit).await,
            Transport::Network(connections) => connections.exchange(request, limit).await,
        }
    }
}
