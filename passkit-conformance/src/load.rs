//! The calls of a phone for load tests: one after another on a connection, as cheap as possible.
//!
//! Nothing is kept for a report, and only the completeness of answers is checked.

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

use crate::{Limits, client::tls};
pub use crate::{service_url::ServiceUrl, wire::ListAnswer};

/// How many bytes of an answer's body are kept.
const KEPT: usize = 64 * 1024;

/// A persistent connection to a web service, made again when it has ended. It speaks HTTP/1.1. TLS
/// trusts the certificates of the system. It follows no redirects.
///
/// A request is repeated only if the connection was closed before any of the request was sent.
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
    /// The first 64 KiB of the body, which is enough for any usual list.
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
    /// There is no connection, for another reason. The text is that reason in one line. Nothing was
    /// sent.
    #[error("no connection: {0}")]
    Unreachable(String),
    /// The answer was not complete within the limit of time.
    #[error("no complete answer in time")]
    TooSlow,
    /// The service hung up before the answer was complete.
    #[error("the connection was closed")]
    Closed,
    /// What came is no HTTP/1.1.
    #[error("the answer is no HTTP/1.1")]
    Malformed,
    /// The body is longer than the limit.
    #[error("the answer is too long")]
    TooLong,
}

impl Connection {
    /// A connection to the service at `url`. It is made at the first use, to one of `addresses`;
    /// the host of the URL is not looked up.
    ///
    /// # Errors
    ///
    /// What is wrong with the URL, as the end of a sentence that begins with the URL.
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

    /// Another connection to the same service.
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

    /// Connects if there is no connection yet.
    ///
    /// # Errors
    ///
    /// [`NoAnswer`] if no connection can be made.
    pub async fn connect(&mut self) -> Result<(), NoAnswer> {
        if self.open.is_none() {
            let limit = self.limits.time;
            let open = tokio::time::timeout(limit, connect(&mut self.connector, &self.base));
            self.open = Some(open.await.map_err(|_| NoAnswer::TooSlow)??);
        }
        Ok(())
    }

    /// Sends a request and reads the complete answer. The connection's host and port replace those
    /// of the request's URL. If this future is dropped before it is ready, the connection is
    /// closed.
    ///
    /// # Errors
    ///
    /// [`NoAnswer`] if there is no complete answer.
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
        // Taken out while an answer is outstanding, so that a dropped call leaves no half-used
        // connection.
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

/// The future that reads and writes while it is polled.
type Wire = Pin<Box<http1::Connection<MaybeHttpsStream<TokioIo<TcpStream>>, Full<Bytes>>>>;

/// The two ends of an open connection.
struct Open {
    sender: SendRequest<Full<Bytes>>,
    /// `None` once it has ended.
    wire: Option<Wire>,
}

/// A failed exchange. It has the request if nothing of it was sent.
struct Broken {
    why: NoAnswer,
    unsent: Option<Box<Request<Full<Bytes>>>>,
}

async fn connect(connector: &mut HttpsConnector<Addresses>, base: &Uri) -> Result<Open, NoAnswer> {
    let stream = connector.call(base.clone()).await.map_err(|error| {
        match error.downcast_ref::<io::Error>().map(io::Error::kind) {
            Some(io::ErrorKind::ConnectionRefused) => NoAnswer::Refused,
            _ => NoAnswer::Unreachable(error.to_string().replace('\n', " ")),
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

/// Awaits `future` while it drives the connection in this task. A separate task for the connection
/// would cost two task switches a call.
async fn drive<F: Future>(wire: &mut Option<Wire>, future: F) -> F::Output {
    let mut future = pin!(future);
    poll_fn(|context| {
        if wire
            .as_mut()
            .is_some_and(|wire| wire.as_mut().poll(context).is_ready())
        {
            *wire = None; // what it had to say, the future has heard
        }
        future.as_mut().poll(context)
    })
    .await
}

/// Reads a body: its beginning, and its length.
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

/// Connects to one of these addresses, whatever host is asked for.
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

    /// Answers each request of a connection with the next of these texts, and closes the connection
    /// after the last.
    async fn service(answers: &'static [&'static str]) -> (Connection, Arc<AtomicUsize>) {
        service_within(Duration::from_secs(60), answers).await
    }

    /// The same with a limit on the time for an answer.
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
                "what is outstanding is not awaited again"
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
