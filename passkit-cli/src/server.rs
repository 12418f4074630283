//! HTTP/1.1 and HTTP/2 on a socket, with limits, and with or without TLS.

use std::{
    collections::{HashMap, hash_map::Entry},
    convert::Infallible,
    future::poll_fn,
    io::IsTerminal as _,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use http::{Request, Response};
use hyper::{
    body::{Body as _, Incoming},
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use passkit_server::service::ResponseBody;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::{Semaphore, mpsc, watch},
};
use tokio_io_timeout::TimeoutStream;

use crate::{
    failure::Failure,
    listen::{Address, Listener, Stream},
    request_id::{RequestId, X_REQUEST_ID},
    tls::Tls,
};

/// How long the head of a request may take to arrive, and how long an idle connection is kept.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a client may accept nothing of an answer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long requests in flight may take after the signal to stop. Service managers often kill after ten seconds.
const STOP_TIMEOUT: Duration = Duration::from_secs(8);
/// How many bytes are read from a client after it was refused, and for how long.
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

/// Listens on a port. Returns the address with its actual port. `option` is the name of the option, for errors.
pub(crate) async fn bind(
    address: SocketAddr,
    option: &str,
) -> Result<(Listener, Address), Failure> {
    Listener::bind(&Address::Port(address), option, 0).await
}

/// How many connections may be open at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) connections: usize,
    /// How many of the connections may come from one client address. `None` means a quarter, but no
    /// limit for addresses that a proxy may have.
    pub(crate) per_address: Option<usize>,
}

/// Serves connections within the limits until `stop` is ready. Then waits until the requests in flight are finished. With
/// `tls`, each connection begins with a handshake, which chooses HTTP/2 or HTTP/1.1.
pub(crate) async fn serve<S>(
    listener: Listener,
    tls: Option<Arc<Tls>>,
    service: S,
    limits: Limits,
    stop: impl Future<Output = ()>,
) where
    S: Answers + Clone + Sync,
    S::Future: Send + 'static,
{
    serve_each(listener, tls, |_| service.clone(), limits, stop).await;
}

/// Like [`serve`]. Each connection has its own service, which knows the address of the client.
pub(crate) async fn serve_each<S>(
    listener: Listener,
    tls: Option<Arc<Tls>>,
    service_of: impl Fn(Option<IpAddr>) -> S,
    limits: Limits,
    stop: impl Future<Output = ()>,
) where
    S: Answers,
    S::Future: Send + 'static,
{
    let http = Http::new();
    let places = Arc::new(Semaphore::new(limits.connections));
    let shares = Arc::new(Shares::new(limits));
    let (stopping, stopped) = watch::channel(());
    // Each connection has a clone, so the channel closes after the last connection.
    let (open, mut all_closed) = mpsc::channel::<Infallible>(1);
    let mut stop = std::pin::pin!(stop);
    loop {
        let accepted = async {
            let place = places.clone().acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, stream, client) = tokio::select! {
            () = &mut stop => break,
            (place, accepted) = accepted => match accepted {
                Ok((stream, client)) => (place, stream, client),
                Err(error) => {
                    // The process is out of file descriptors, or the client is gone. The service
                    // continues in both cases.
                    tracing::warn!("can't accept a connection: {error}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        // A client of a Unix socket is a proxy.
        let service = service_of(client);
        let share = match client.map(|client| shares.take(client)) {
            Some(None) => continue,
            Some(share) => share,
            None => None,
        };
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(WRITE_TIMEOUT));
        let stream = Box::pin(stream);
        let (http, tls, stopped, open) = (http.clone(), tls.clone(), stopped.clone(), open.clone());
        tokio::spawn(async move {
            let ended = match tls {
                Some(tls) => http.answer_tls(&tls, stream, service, stopped).await,
                None => http.answer(stream, service, stopped).await,
            };
            if let Err(error) = ended {
                tracing::debug!("connection ended: {error}");
            }
            drop((place, share, open));
        });
    }
    drop((listener, open));
    // This fails if no connection is open, because then there is no receiver.
    let _ = stopping.send(());
    if tokio::time::timeout(STOP_TIMEOUT, all_closed.recv())
        .await
        .is_err()
    {
        tracing::warn!(
            "requests were still in flight after {} s",
            STOP_TIMEOUT.as_secs()
        );
    }
}

/// Both versions of HTTP, with their limits.
#[derive(Clone)]
struct Http {
    one: http1::Builder,
    two: http2::Builder<TokioExecutor>,
}

impl Http {
    fn new() -> Self {
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
    async fn answer_tls<S>(
        &self,
        tls: &Tls,
        stream: impl Stream + 'static,
        service: S,
        stopped: watch::Receiver<()>,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>>
    where
        S: Answers,
        S::Future: Send + 'static,
    {
        let stream = tls.accept(stream).await?;
        if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
            self.answer_two(stream, service, stopped).await
        } else {
            self.answer(stream, service, stopped).await
        }
    }

    /// Answers the requests of a connection with HTTP/2.
    async fn answer_two<S>(
        &self,
        stream: impl Stream + 'static,
        service: S,
        mut stopped: watch::Receiver<()>,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>>
    where
        S: Answers,
        S::Future: Send + 'static,
    {
        let last_request = Arc::new(Mutex::new(Instant::now()));
        let requested = last_request.clone();
        let service = service_fn(move |request| {
            *requested.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
            named_answer(&service, request)
        });
        let connection = self.two.serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let mut is_closing = false;
        let mut check_at = Instant::now() + IDLE_TIMEOUT;
        loop {
            tokio::select! {
                ended = connection.as_mut() => return Ok(ended?),
                _ = stopped.changed(), if !is_closing => {
                    is_closing = true;
                    check_at = Instant::now() + CLOSING_TIMEOUT;
                    connection.as_mut().graceful_shutdown();
                }
                () = tokio::time::sleep_until(check_at.into()) => {
                    // The client reads its last answers too slowly.
                    if is_closing {
                        return Ok(());
                    }
                    let last = *last_request.lock().unwrap_or_else(PoisonError::into_inner);
                    check_at = last + IDLE_TIMEOUT;
                    if check_at <= Instant::now() {
                        is_closing = true;
                        check_at = Instant::now() + CLOSING_TIMEOUT;
                        connection.as_mut().graceful_shutdown();
                    }
                }
            }
        }
    }

    /// Answers the requests of a connection with HTTP/1.1.
    async fn answer<S>(
        &self,
        stream: impl Stream + 'static,
        service: S,
        mut stopped: watch::Receiver<()>,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>>
    where
        S: Answers,
        S::Future: Send + 'static,
    {
        let refused = Arc::new(AtomicBool::new(false));
        let refusing = refused.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let has_body = !request.body().is_end_stream();
            let refusing = refusing.clone();
            let answer = named_answer(&service, request);
            Box::pin(async move {
                let answer = answer.await;
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
                _ = stopped.changed(), if !is_stopping => {
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
    let answer = id.during(|| service.call(request));
    async move {
        let mut answer = id.over(answer).await;
        if let Ok(answer) = &mut answer {
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

/// Reads what a refused client still sends. If the connection were closed before that, the client
/// would get a reset, and would often lose the answer.
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

/// Counts the open connections of each client address, so that one client can't use up the limit.
struct Shares {
    limits: Limits,
    open: Mutex<HashMap<IpAddr, usize>>,
    warned: Mutex<Option<Instant>>,
}

/// A connection that counts for its client address until this value is dropped.
struct Share {
    shares: Arc<Shares>,
    address: IpAddr,
}

impl Shares {
    fn new(limits: Limits) -> Self {
        Self {
            limits,
            open: Mutex::default(),
            warned: Mutex::default(),
        }
    }

    /// Returns how many connections an address may have, if there is a limit.
    fn limit(&self, address: IpAddr) -> Option<usize> {
        match self.limits.per_address {
            Some(limit) => Some(limit),
            None if may_be_proxy(address) => None,
            None => Some((self.limits.connections / 4).max(1)),
        }
    }

    /// Counts a connection. Returns `None` if the address already has its share.
    fn take(self: &Arc<Self>, client: IpAddr) -> Option<Share> {
        let client = client.to_canonical();
        let limit = self.limit(client).unwrap_or(usize::MAX);
        let address = network(client);
        let is_free = {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            let count = open.entry(address).or_default();
            let is_free = *count < limit;
            *count += usize::from(is_free);
            is_free
        };
        if !is_free {
            self.warn(client, limit);
            return None;
        }
        Some(Share {
            shares: self.clone(),
            address,
        })
    }

    /// Logs once a minute at most, because one client can cause any number of these lines.
    fn warn(&self, client: IpAddr, limit: usize) {
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.is_none_or(|warned| warned.elapsed() >= Duration::from_secs(60)) {
            *warned = Some(Instant::now());
            tracing::warn!(
                "{client} has {limit} connections open, and gets no more; \
                 if it is a proxy, raise --max-connections-per-address"
            );
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut open = self
            .shares
            .open
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut count) = open.entry(self.address) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

/// Returns the address that connections are counted for. An IPv6 client usually has a whole /64
/// network.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => Ipv6Addr::from(u128::from(address) & !u128::from(u64::MAX)).into(),
    }
}

/// Returns whether a proxy may have this address. Such an address belongs to this machine, to a private
/// network or to a shared network.
fn may_be_proxy(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let [first, second, ..] = address.octets();
            address.is_loopback()
                || address.is_private()
                || address.is_link_local()
                || (first == 100 && second & 0b1100_0000 == 64)
        }
        IpAddr::V6(address) => {
            address.is_loopback() || address.is_unique_local() || address.is_unicast_link_local()
        }
    }
}

/// Returns a future that is ready at the first SIGINT or SIGTERM after the call.
pub(crate) fn stop_signal() -> impl Future<Output = ()> {
    #[cfg(unix)]
    let signals = {
        use tokio::signal::unix::{SignalKind, signal};
        (
            signal(SignalKind::interrupt()),
            signal(SignalKind::terminate()),
        )
    };
    async move {
        #[cfg(unix)]
        if let (Ok(mut interrupt), Ok(mut terminate)) = signals {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            return;
        }
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// The SIGHUPs of this process.
pub(crate) struct Hangups {
    #[cfg(unix)]
    signals: std::io::Result<tokio::signal::unix::Signal>,
    on_terminal: bool,
}

/// Catches SIGHUP from now on.
pub(crate) fn hangups() -> Hangups {
    Hangups {
        #[cfg(unix)]
        signals: tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup()),
        on_terminal: std::io::stderr().is_terminal(),
    }
}

impl Hangups {
    /// Calls `act` at each SIGHUP. Returns if the signal means that the terminal of this process was closed.
    pub(crate) async fn each(self, mut act: impl AsyncFnMut()) {
        #[cfg(unix)]
        if let Ok(mut signals) = self.signals {
            while signals.recv().await.is_some() {
                if self.on_terminal && !std::io::stderr().is_terminal() {
                    return;
                }
                act().await;
            }
        }
        std::future::pending().await
    }
}

/// Raises the limit of open files as far as allowed, because each connection needs an open file.
pub(crate) fn raise_open_file_limit() {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, getrlimit, setrlimit};
        let mut limit = getrlimit(Resource::Nofile);
        limit.current = limit.maximum;
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            tracing::debug!("can't raise the limit of open files: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(per_address: Option<usize>, clients: &[&str]) -> Vec<bool> {
        let limits = Limits {
            connections: 8,
            per_address,
        };
        let shares = Arc::new(Shares::new(limits));
        let taken: Vec<_> = clients
            .iter()
            .map(|client| shares.take(client.parse().unwrap()))
            .collect();
        let result = taken.iter().map(Option::is_some).collect();
        drop(taken);
        assert!(
            shares
                .open
                .lock()
                .unwrap()
                .values()
                .all(|count| *count == 0)
        );
        result
    }

    #[test]
    fn a_client_gets_a_quarter_of_the_places_and_a_proxy_all() {
        let one = "203.0.113.1";
        assert_eq!(
            taken(None, &[one, one, one, "203.0.113.2"]),
            [true, true, false, true]
        );
        let mapped = "::ffff:203.0.113.1";
        assert_eq!(taken(None, &[one, mapped, one]), [true, true, false]);
        let networks = [
            "2001:db8::1",
            "2001:db8::2",
            "2001:db8::3",
            "2001:db8:0:1::3",
        ];
        assert_eq!(taken(None, &networks), [true, true, false, true]);
        for proxy in [
            "127.0.0.1",
            "::1",
            "10.1.2.3",
            "192.168.0.9",
            "100.64.0.1",
            "fd00::1",
            "fe80::1",
        ] {
            assert_eq!(taken(None, &[proxy; 4]), [true; 4], "{proxy}");
            assert_eq!(taken(Some(1), &[proxy; 2]), [true, false], "{proxy}");
        }
    }
}
