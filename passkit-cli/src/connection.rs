//! The answers on a connection: HTTP/1.1 or HTTP/2, with limits, and with or without TLS.

use std::{
    convert::Infallible,
    future::poll_fn,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::{HeaderValue, Request, Response, header::CONNECTION};
use hyper::{
    body::{Body as _, Incoming},
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use passkit_server::service::ResponseBody;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::watch,
    time::{Instant, sleep_until},
};
use tracing::Instrument as _;

use crate::{
    listen::Stream,
    request_id::{RequestId, X_REQUEST_ID},
    telemetry,
    tls::Tls,
};

/// How long the head of a request may take to arrive, and how long an idle connection is kept.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How many bytes are read from a client after its request was refused, and for how long.
const LINGER_BYTES: usize = 8 * 1024 * 1024;
const LINGER_TIME: Duration = Duration::from_secs(5);
/// How many bytes and how many headers the head of a request may have.
const HEAD_LIMIT: usize = 32 * 1024;
const HEADERS_LIMIT: usize = 64;
/// How many requests a client may have in flight on a connection with HTTP/2, and how many bytes of an answer may wait there
/// for a slow client.
const STREAMS: u32 = 32;
const SEND_LIMIT: usize = 64 * 1024;
/// How long a connection with HTTP/2 is kept open without a new request.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the last answers may take once a connection with HTTP/2 is closing. A phone that receives 20 KB a second needs
/// 13 minutes for the largest pass.
const CLOSING_TIMEOUT: Duration = Duration::from_secs(900);

/// The stages of a listener, from its start to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Serving,
    /// New connections are still accepted. Each answer over HTTP/1.1 is the last one of its connection.
    Draining,
    /// Idle connections are closed.
    Closing,
}

/// Waits until idle connections are closed.
async fn closing(stage: &mut watch::Receiver<Stage>) {
    // This fails if the listener is gone.
    let _ = stage.wait_for(|stage| *stage == Stage::Closing).await;
}

/// Why a connection ended.
type Ended = Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// Both versions of HTTP, with their limits.
#[derive(Clone)]
pub(crate) struct Http {
    one: http1::Builder,
    two: http2::Builder<TokioExecutor>,
}

impl Http {
    pub(crate) fn new() -> Self {
        let mut one = http1::Builder::new();
        one.timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(HEAD_LIMIT)
            .max_headers(HEADERS_LIMIT);
        let mut two = http2::Builder::new(TokioExecutor::new());
        two.timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS)
            .max_header_list_size(HEAD_LIMIT as u32)
            .max_send_buf_size(SEND_LIMIT)
            .keep_alive_interval(HEAD_TIMEOUT)
            .keep_alive_timeout(HEAD_TIMEOUT);
        Self { one, two }
    }

    /// Makes the handshake. Then answers the requests of the connection.
    pub(crate) async fn answer_tls(
        &self,
        tls: &Tls,
        stream: impl Stream + 'static,
        service: impl Answers,
        mut stage: watch::Receiver<Stage>,
    ) -> Ended {
        let stream = tokio::select! {
            accepted = tls.accept(stream) => accepted?,
            () = closing(&mut stage) => return Ok(()),
        };
        if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
            self.answer_two(stream, service, stage).await
        } else {
            self.answer(stream, service, stage).await
        }
    }

    /// Answers the requests of a connection with HTTP/2.
    async fn answer_two(
        &self,
        stream: impl Stream + 'static,
        service: impl Answers,
        mut stage: watch::Receiver<Stage>,
    ) -> Ended {
        let mut end = stage.clone();
        let last_request = Arc::new(Mutex::new(None::<Instant>));
        let requested = last_request.clone();
        let service = service_fn(move |request| {
            *requested.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
            named_answer(&service, request)
        });
        let connection = self.two.serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let mut is_closing = false;
        let mut check_at = Instant::now() + IDLE_TIMEOUT;
        loop {
            let last = *last_request.lock().unwrap_or_else(PoisonError::into_inner);
            let is_stopping = tokio::select! {
                ended = connection.as_mut() => return Ok(ended?),
                // The client opens another connection, perhaps to another instance.
                _ = stage.changed(), if !is_closing => true,
                // No answer is lost.
                () = closing(&mut end), if is_closing && last.is_none() => return Ok(()),
                () = sleep_until(check_at) => false,
            };
            let last = *last_request.lock().unwrap_or_else(PoisonError::into_inner);
            if is_closing || !is_stopping && last.is_none() {
                // The client reads its last answers too slowly, or made no request. If it has not even begun with HTTP/2, it
                // would not learn that the connection ends.
                return Ok(());
            }
            if let Some(last) = last.filter(|_| !is_stopping)
                && last + IDLE_TIMEOUT > Instant::now()
            {
                check_at = last + IDLE_TIMEOUT;
                continue;
            }
            is_closing = true;
            check_at = Instant::now() + CLOSING_TIMEOUT;
            connection.as_mut().graceful_shutdown();
        }
    }

    /// Answers the requests of a connection with HTTP/1.1.
    pub(crate) async fn answer(
        &self,
        stream: impl Stream + 'static,
        service: impl Answers,
        mut stage: watch::Receiver<Stage>,
    ) -> Ended {
        let refused = Arc::new(AtomicBool::new(false));
        let refusing = refused.clone();
        let current = stage.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let has_body = !request.body().is_end_stream();
            let (refusing, current) = (refusing.clone(), current.clone());
            let answer = named_answer(&service, request);
            Box::pin(async move {
                let mut answer = answer.await;
                if let Ok(answer) = &mut answer
                    && *current.borrow() != Stage::Serving
                {
                    let close = HeaderValue::from_static("close");
                    answer.headers_mut().insert(CONNECTION, close);
                }
                let is_refusal = answer
                    .as_ref()
                    .is_ok_and(|answer| !answer.status().is_success());
                refusing.store(has_body && is_refusal, Ordering::Relaxed);
                answer
            })
        });
        let mut connection = self.one.serve_connection(TokioIo::new(stream), service);
        let mut is_stopping = false;
        let ended = loop {
            tokio::select! {
                ended = poll_fn(|cx| connection.poll_without_shutdown(cx)) => break ended,
                () = closing(&mut stage), if !is_stopping => {
                    is_stopping = true;
                    std::pin::Pin::new(&mut connection).graceful_shutdown();
                }
            }
        };
        let is_refused = match &ended {
            Ok(()) => refused.load(Ordering::Relaxed),
            // hyper refused the head with 400 or 431.
            Err(error) => error.is_parse(),
        };
        let mut stream = connection.into_parts().io.into_inner();
        // This fails if the client is gone.
        if stream.shutdown().await.is_ok() && is_refused && !is_stopping {
            linger(stream).await;
        }
        Ok(ended?)
    }
}

/// A service that never fails.
pub(crate) trait Answers:
    hyper::service::Service<
        Request<Incoming>,
        Response = Response<ResponseBody>,
        Error = Infallible,
        Future: Send + 'static,
    > + Send
    + Unpin
    + 'static
{
}

impl<S> Answers for S where
    S: hyper::service::Service<
            Request<Incoming>,
            Response = Response<ResponseBody>,
            Error = Infallible,
            Future: Send + 'static,
        > + Send
        + Unpin
        + 'static
{
}

/// Answers a request under its identifier.
fn named_answer<S: Answers>(
    service: &S,
    request: Request<Incoming>,
) -> impl Future<Output = Result<Response<ResponseBody>, Infallible>> + use<S> {
    let id = RequestId::of(&request);
    let span = telemetry::request_span(&request, &id);
    let answer = span.in_scope(|| id.during(|| service.call(request)));
    async move {
        let mut answer = id.over(answer).instrument(span.clone()).await;
        if let Ok(answer) = &mut answer {
            telemetry::answered(&span, answer.status());
            name_failure(answer, &id);
        }
        answer
    }
}

/// Adds the identifier of the request to an answer that reports a failure. With the identifier, the log lines can be found.
fn name_failure(answer: &mut Response<ResponseBody>, id: &RequestId) {
    let status = answer.status();
    if (status.is_client_error() || status.is_server_error())
        && let Some(id) = id.header()
    {
        answer.headers_mut().insert(X_REQUEST_ID, id);
    }
}

/// Reads the bytes that a refused client still sends. If the connection were closed earlier, the client would get a reset,
/// and would often lose the answer.
async fn linger(mut stream: impl Stream) {
    let reading = async {
        let mut buffer = [0; 4096];
        let mut left = LINGER_BYTES;
        while left > 0 {
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(read) => left = left.saturating_sub(read),
            }
        }
    };
    // After this time, the connection is closed anyway.
    let _ = tokio::time::timeout(LINGER_TIME, reading).await;
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body_util::{BodyExt as _, Empty};
    use hyper::client::conn::http2 as client;
    use tokio::{
        io::{DuplexStream, duplex},
        task::JoinHandle,
        time::sleep,
    };

    use super::*;

    /// As many bytes as the largest pass may have.
    const PASS: usize = 15 * 1024 * 1024;

    /// A connection with HTTP/2 and its client. The time is the paused time of tokio.
    struct Served {
        client: DuplexStream,
        stage: watch::Sender<Stage>,
        ended: JoinHandle<Ended>,
    }

    /// Answers each request with a large pass.
    fn serve() -> Served {
        let (client, server) = duplex(64 * 1024);
        let (stage, stages) = watch::channel(Stage::Serving);
        let pass = Bytes::from(vec![b'x'; PASS]);
        let service = service_fn(move |_| {
            let pass = pass.clone();
            async move { Ok(Response::new(ResponseBody::from(pass))) }
        });
        let ended = tokio::spawn(async move {
            let http = Http::new();
            http.answer_two(server, service, stages).await
        });
        Served {
            client,
            stage,
            ended,
        }
    }

    type Sender = client::SendRequest<Empty<Bytes>>;

    async fn connect(client: DuplexStream) -> Sender {
        let (sender, connection) = client::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(64 * 1024)
            .handshake(TokioIo::new(client))
            .await
            .unwrap();
        tokio::spawn(connection);
        sender
    }

    async fn request(client: DuplexStream) -> (Sender, Incoming) {
        let mut sender = connect(client).await;
        let answer = sender.send_request(Request::new(Empty::new())).await;
        (sender, answer.unwrap().into_body())
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_without_a_request_is_disconnected_when_it_is_idle() {
        for preface in [
            &b""[..],
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
        ] {
            let mut served = serve();
            let start = Instant::now();
            served.client.write_all(preface).await.unwrap();
            // A client that answers no ping may be disconnected because of that, which is an error.
            let _ = served.ended.await.unwrap();
            assert!(start.elapsed() < 2 * IDLE_TIMEOUT);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_without_a_request_does_not_delay_a_stop() {
        let served = serve();
        let start = Instant::now();
        served.stage.send(Stage::Draining).unwrap();
        tokio::task::yield_now().await;
        served.stage.send(Stage::Closing).unwrap();
        served.ended.await.unwrap().unwrap();
        assert_eq!(start.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_is_closed_after_its_answer() {
        let served = serve();
        let start = Instant::now();
        let (_sender, pass) = request(served.client).await;
        assert!(pass.collect().await.unwrap().to_bytes().len() == PASS);
        // The client may close the connection first, which is an error of the connection.
        let _ = served.ended.await.unwrap();
        assert!((IDLE_TIMEOUT..2 * IDLE_TIMEOUT).contains(&start.elapsed()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_phone_gets_its_whole_pass() {
        let served = serve();
        let start = Instant::now();
        let (_sender, mut pass) = request(served.client).await;
        let mut received = 0;
        while let Some(frame) = pass.frame().await {
            let length = frame.unwrap().into_data().unwrap().len();
            received += length;
            // The phone receives 20 KB a second.
            sleep(Duration::from_secs(1).mul_f64(length as f64 / 20_000.0)).await;
        }
        assert_eq!(received, PASS);
        assert!(start.elapsed() > 10 * IDLE_TIMEOUT);
    }

    #[tokio::test(start_paused = true)]
    async fn a_phone_that_stops_reading_is_disconnected() {
        let served = serve();
        let start = Instant::now();
        let (_sender, _pass) = request(served.client).await;
        served.ended.await.unwrap().unwrap();
        assert!(start.elapsed() < 2 * IDLE_TIMEOUT + CLOSING_TIMEOUT);
    }
}
