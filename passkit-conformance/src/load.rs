//! Sends requests like phones, for load tests. A connection sends one request after another, with
//! as little overhead as possible.
//!
//! The module records nothing for a report. It checks only that answers are complete.

use std::{
    future::poll_fn,
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri, header, uri::PathAndQuery};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    body::Incoming,
    client::conn::http1::{self, SendRequest, handshake},
};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tower_service::Service;

use crate::{Limits, connections::tls};
pub use crate::{service_url::ServiceUrl, wire::ListAnswer};

/// The number of bytes of an answer's body that are kept.
const KEPT: usize = 64 * 1024;

/// A persistent HTTP/1.1 connection to a web service. If it was closed, the next request makes a
/// new one. TLS trusts the certificates of the system. Redirects are not followed.
///
/// A request is repeated only if the connection was closed before any part of the request was sent.
#[derive(Debug)]
pub struct Connection {
    connector: HttpsConnector<Addresses>,
    base: Uri,
    host: HeaderValue,
    limits: Limits,
    open: Option<Open>,
}

/// An answer.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The first 64 KiB of the body. That is enough for usual lists.
    pub body: Bytes,
    /// The length of the complete body, in bytes.
    pub body_bytes: usize,
}

/// Why there is no complete answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NoAnswer {
    /// Nothing listens at the address.
    #[error("connection refused")]
    Refused,
    /// No connection could be made for another reason. The text gives the reason in one line.
    /// Nothing was sent.
    #[error("no connection: {0}")]
    Unreachable(String),
    /// The TLS certificate of the service is not trusted. The text gives the reason in one line.
    /// Nothing was sent.
    #[error("the certificate is not trusted: {0}")]
    Untrusted(String),
    /// The answer was not complete within the time limit.
    #[error("no complete answer in time")]
    TooSlow,
    /// The service hung up before the answer was complete.
    #[error("the connection was closed")]
    Closed,
    /// The answer is not HTTP/1.1.
    #[error("the answer is not HTTP/1.1")]
    Malformed,
    /// The body is longer than the limit.
    #[error("the answer is too long")]
    TooLong,
}

impl Connection {
    /// Prepares a connection to the service at `url`. The first use connects to one of `addresses`.
    /// The host of the URL is not looked up.
    ///
    /// # Errors
    ///
    /// Fails if the URL can't be used. The text continues a sentence that begins with the URL.
    pub fn new(
        url: &ServiceUrl,
        addresses: Arc<[SocketAddr]>,
        limits: Limits,
    ) -> Result<Self, &'static str> {
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls())
            .https_or_http()
            .enable_http1()
            .wrap_connector(Addresses(addresses));
        let base: Uri = url.as_str().parse().map_err(|_| "is not a url")?;
        let host = base
            .authority()
            .and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
        Ok(Self {
            connector,
            host: host.ok_or("names no host")?,
            base,
            limits,
            open: None,
        })
    }

    /// Prepares another connection to the same service.
    #[must_use]
    pub fn another(&self) -> Self {
        let Self {
            connector,
            base,
            host,
            limits,
            ..
        } = self;
        let (connector, base, host) = (connector.clone(), base.clone(), host.clone());
        Self {
            connector,
            base,
            host,
            limits: *limits,
            open: None,
        }
    }

    /// Connects if the connection is not open.
    ///
    /// # Errors
    ///
    /// Fails if no connection can be made.
    pub async fn connect(&mut self) -> Result<(), NoAnswer> {
        if self.open.is_none() {
            let limit = self.limits.time;
            let open = tokio::time::timeout(limit, connect(&mut self.connector, &self.base));
            self.open = Some(open.await.map_err(|_| NoAnswer::TooSlow)??);
        }
        Ok(())
    }

    /// Sends a request and reads the complete answer. The host and port of the request's URL are
    /// ignored. If this future is dropped before it is ready, the connection is closed.
    ///
    /// # Errors
    ///
    /// Fails if there is no complete answer.
    pub async fn send(&mut self, mut request: Request<Full<Bytes>>) -> Result<Answer, NoAnswer> {
        let path = request.uri().path_and_query().cloned();
        *request.uri_mut() = path
            .unwrap_or_else(|| PathAndQuery::from_static("/"))
            .into();
        request
            .headers_mut()
            .insert(header::HOST, self.host.clone());
        let limit = self.limits.time;
        tokio::time::timeout(limit, self.exchange(request))
            .await
            .map_err(|_| NoAnswer::TooSlow)?
    }

    async fn exchange(&mut self, mut request: Request<Full<Bytes>>) -> Result<Answer, NoAnswer> {
        // The connection is taken out until the answer is complete. If the call is dropped, the
        // half-used connection is dropped too.
        if let Some(mut open) = self.open.take() {
            match open.exchange(request, self.limits.response_bytes).await {
                Ok(answer) => {
                    self.open = Some(open);
                    return Ok(answer);
                }
                Err(Broken {
                    unsent: Some(unsent),
                    ..
                }) => request = *unsent,
                Err(Broken { why, .. }) => return Err(why),
            }
        }
        let mut open = connect(&mut self.connector, &self.base).await?;
        let answer = open
            .exchange(request, self.limits.response_bytes)
            .await
            .map_err(|broken| broken.why)?;
        self.open = Some(open);
        Ok(answer)
    }
}

/// The future of a connection. It reads and writes only while it is polled.
type Wire = Pin<Box<http1::Connection<MaybeHttpsStream<TokioIo<TcpStream>>, Full<Bytes>>>>;

/// An open connection: the handle that sends requests, and the future that does the input and
/// output.
struct Open {
    sender: SendRequest<Full<Bytes>>,
    /// `None` after the connection has ended.
    wire: Option<Wire>,
}

/// A failed exchange. `unsent` is the request if no part of it was sent.
struct Broken {
    why: NoAnswer,
    unsent: Option<Box<Request<Full<Bytes>>>>,
}

/// Returns the TLS error among the sources of `error`, if there is one.
fn tls_error(mut error: &io::Error) -> Option<&rustls::Error> {
    loop {
        let inner = error.get_ref()?;
        match inner.downcast_ref() {
            Some(nested) => error = nested,
            None => return inner.downcast_ref(),
        }
    }
}

async fn connect(connector: &mut HttpsConnector<Addresses>, base: &Uri) -> Result<Open, NoAnswer> {
    let stream = connector.call(base.clone()).await.map_err(|error| {
        let io_error = error.downcast_ref::<io::Error>();
        let tls_error = io_error.and_then(tls_error);
        let text = error.to_string().replace('\n', " ");
        match (tls_error, io_error.map(io::Error::kind)) {
            (Some(rustls::Error::InvalidCertificate(_)), _) => NoAnswer::Untrusted(text),
            (_, Some(io::ErrorKind::ConnectionRefused)) => NoAnswer::Refused,
            _ => NoAnswer::Unreachable(text),
        }
    })?;
    let (sender, wire) = handshake(stream).await.map_err(|error| no_answer(&error))?;
    Ok(Open {
        sender,
        wire: Some(Box::pin(wire)),
    })
}

impl Open {
    async fn exchange(
        &mut self,
        request: Request<Full<Bytes>>,
        limit: usize,
    ) -> Result<Answer, Broken> {
        let Self { sender, wire } = self;
        if let Err(error) = drive(wire, sender.ready()).await {
            return Err(Broken {
                why: no_answer(&error),
                unsent: Some(Box::new(request)),
            });
        }
        let answer = drive(wire, sender.try_send_request(request))
            .await
            .map_err(|mut error| Broken {
                unsent: error.take_message().map(Box::new),
                why: no_answer(error.error()),
            })?;
        let (head, body) = answer.into_parts();
        let (body, body_bytes) = drive(wire, read(body, limit))
            .await
            .map_err(|why| Broken { why, unsent: None })?;
        Ok(Answer {
            status: head.status,
            headers: head.headers,
            body,
            body_bytes,
        })
    }
}

impl std::fmt::Debug for Open {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Open").finish_non_exhaustive()
    }
}

/// Awaits `future` and drives the connection in the same task. A separate task for the connection
/// would cost two task switches for each call.
async fn drive<F: Future>(wire: &mut Option<Wire>, future: F) -> F::Output {
    let mut future = pin!(future);
    poll_fn(|context| {
        if wire
            .as_mut()
            .is_some_and(|wire| wire.as_mut().poll(context).is_ready())
        {
            *wire = None; // the connection has ended; `future` has all that it read
        }
        future.as_mut().poll(context)
    })
    .await
}

/// Reads a body. Returns its beginning and its length.
async fn read(mut body: Incoming, limit: usize) -> Result<(Bytes, usize), NoAnswer> {
    let mut kept = Bytes::new();
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| no_answer(&error))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        let room = KEPT.saturating_sub(length);
        length += data.len();
        if length > limit {
            return Err(NoAnswer::TooLong);
        }
        if kept.is_empty() {
            kept = data.slice(..data.len().min(room));
        } else if room > 0 {
            let mut longer = BytesMut::from(kept);
            longer.extend_from_slice(&data[..data.len().min(room)]);
            kept = longer.freeze();
        }
    }
    Ok((kept, length))
}

fn no_answer(error: &hyper::Error) -> NoAnswer {
    if error.is_parse() {
        NoAnswer::Malformed
    } else {
        NoAnswer::Closed
    }
}

/// Connects to one of these addresses, and ignores the host of the URL.
#[derive(Clone, Debug)]
struct Addresses(Arc<[SocketAddr]>);

impl Service<Uri> for Addresses {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<TcpStream>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let addresses = self.0.clone();
        Box::pin(async move {
            let stream = TcpStream::connect(&*addresses).await?;
            stream.set_nodelay(true)?;
            Ok(TokioIo::new(stream))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        time::Duration,
    };

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    /// Answers each request of a connection with the next of these texts. Closes the connection
    /// after the last text.
    async fn service(answers: &'static [&'static str]) -> (Connection, Arc<AtomicUsize>) {
        service_within(Duration::from_secs(60), answers).await
    }

    /// Like [`service`], with a time limit for an answer.
    async fn service_within(
        time: Duration,
        answers: &'static [&'static str],
    ) -> (Connection, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let counter = connections.clone();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                counter.fetch_add(1, Ordering::Relaxed);
                for answer in answers {
                    let mut request = [0; 4096];
                    let read = stream.read(&mut request).await.unwrap_or_default();
                    if read == 0 {
                        break; // the client has given up
                    }
                    let request = String::from_utf8_lossy(&request[..read]).to_ascii_lowercase();
                    assert!(request.starts_with("get /v1/log http/1.1\r\n"), "{request}");
                    assert!(
                        request.contains("host: elsewhere.invalid:81\r\n"),
                        "{request}"
                    );
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
            }
        });
        let url = ServiceUrl::new("http://elsewhere.invalid:81/").unwrap();
        let limits = Limits {
            response_bytes: 10,
            time,
        };
        (
            Connection::new(&url, [address].into(), limits).unwrap(),
            connections,
        )
    }

    async fn ask(connection: &mut Connection) -> Result<Answer, NoAnswer> {
        let request = Request::get("http://elsewhere.invalid:81/v1/log")
            .body(Full::default())
            .unwrap();
        connection.send(request).await
    }

    const GOOD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody";

    #[tokio::test]
    async fn a_connection_is_reused_and_made_again_after_it_was_closed() {
        let (mut connection, connections) = service(&[GOOD, GOOD]).await;
        for number in 0..6 {
            let answer = ask(&mut connection).await.unwrap();
            assert_eq!(
                (answer.status.as_u16(), &*answer.body, answer.body_bytes),
                (200, &b"body"[..], 4)
            );
            assert_eq!(connections.load(Ordering::Relaxed), number / 2 + 1);
            // Gives the end of the connection time to arrive.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        ask(&mut connection.another()).await.unwrap();
        assert_eq!(connections.load(Ordering::Relaxed), 4);
    }

    #[tokio::test]
    async fn an_incomplete_answer_has_a_kind() {
        let (mut nothing, _) = service(&[""]).await;
        assert!(matches!(ask(&mut nothing).await, Err(NoAnswer::Closed)));
        let (mut half, _) = service(&["HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nbody"]).await;
        assert!(matches!(ask(&mut half).await, Err(NoAnswer::Closed)));
        let (mut slow, connections) = service_within(
            Duration::from_secs(1),
            &["HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nbody", ""],
        )
        .await;
        for number in 1..3 {
            assert!(matches!(ask(&mut slow).await, Err(NoAnswer::TooSlow)));
            assert_eq!(
                connections.load(Ordering::Relaxed),
                number,
                "an unfinished answer is not awaited again"
            );
        }
        let (mut long, _) = service(&[
            "HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nlong enough",
            "",
        ])
        .await;
        assert!(matches!(ask(&mut long).await, Err(NoAnswer::TooLong)));
        let (mut odd, _) = service(&["SMTP ready\r\n\r\n", ""]).await;
        assert!(matches!(ask(&mut odd).await, Err(NoAnswer::Malformed)));
        let free = TcpListener::bind("127.0.0.1:0")
            .await
            .unwrap()
            .local_addr()
            .unwrap();
        let url = ServiceUrl::new("http://elsewhere.invalid").unwrap();
        let mut unreachable = Connection::new(&url, [free].into(), Limits::default()).unwrap();
        assert!(matches!(
            unreachable.connect().await,
            Err(NoAnswer::Refused)
        ));
    }
}
