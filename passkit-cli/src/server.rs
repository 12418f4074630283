//! Accepts connections, limits their number, and stops them. Catches signals.

use std::{
    collections::{HashMap, hash_map::Entry},
    convert::Infallible,
    io::IsTerminal as _,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::{Semaphore, mpsc, watch};
use tokio_io_timeout::TimeoutStream;

use crate::{
    connection::{Answers, Http, Stage},
    failure::Failure,
    listen::{Address, Listener},
    log_lines::OnceAMinute,
    tls::Tls,
};

/// How long a client may accept nothing of an answer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long requests in flight may take after the signal to stop. Service managers often kill after ten seconds.
const STOP_TIMEOUT: Duration = Duration::from_secs(8);
/// When the service stops, it accepts connections until none has arrived for the first time, but not longer than the second
/// time.
const BACKLOG_PAUSE: Duration = Duration::from_millis(10);
const BACKLOG_TIMEOUT: Duration = Duration::from_secs(1);
/// How long idle connections stay open when the service stops. A request may be on its way to them.
const LAST_REQUESTS: Duration = Duration::from_millis(200);

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

/// Serves connections within the limits until `stop` is ready. After that, continues until `drained` is ready, but answers
/// only one more request on each connection. Then waits until the requests in flight are finished. With `tls`, each
/// connection begins with a handshake, which chooses HTTP/2 or HTTP/1.1.
pub(crate) async fn serve<S: Answers + Clone + Sync>(
    listener: Listener,
    tls: Option<Arc<Tls>>,
    service: S,
    limits: Limits,
    stop: impl Future<Output = ()>,
    drained: impl Future<Output = ()>,
) {
    serve_each(listener, tls, |_| service.clone(), limits, stop, drained).await;
}

/// Like [`serve`]. Each connection has its own service, which knows the address of the client.
pub(crate) async fn serve_each<S: Answers>(
    listener: Listener,
    tls: Option<Arc<Tls>>,
    service_of: impl Fn(Option<IpAddr>) -> S,
    limits: Limits,
    stop: impl Future<Output = ()>,
    drained: impl Future<Output = ()>,
) {
    let (next_stage, stage) = watch::channel(Stage::Serving);
    let acceptor = Acceptor {
        listener,
        tls,
        service_of,
        http: Http::new(),
        places: Arc::new(Semaphore::new(limits.connections)),
        shares: Arc::new(Shares::new(limits)),
        stage,
    };
    // Each connection has a clone, so the channel closes after the last connection.
    let (open, mut all_closed) = mpsc::channel::<Infallible>(1);
    acceptor.accept_until(stop, &open).await;
    next_stage.send_replace(Stage::Draining);
    acceptor.accept_until(drained, &open).await;
    acceptor.accept_backlog(&open).await;
    drop((acceptor, open));
    // This ends early if all connections are closed.
    let _ = tokio::time::timeout(LAST_REQUESTS, all_closed.recv()).await;
    next_stage.send_replace(Stage::Closing);
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

/// A listener, and what its connections need.
struct Acceptor<F> {
    listener: Listener,
    tls: Option<Arc<Tls>>,
    /// Makes the service of a connection.
    service_of: F,
    http: Http,
    places: Arc<Semaphore>,
    shares: Arc<Shares>,
    stage: watch::Receiver<Stage>,
}

impl<S: Answers, F: Fn(Option<IpAddr>) -> S> Acceptor<F> {
    /// Accepts connections until `end` is ready.
    async fn accept_until(&self, end: impl Future<Output = ()>, open: &mpsc::Sender<Infallible>) {
        let mut end = std::pin::pin!(end);
        loop {
            tokio::select! {
                () = &mut end => return,
                () = self.accept(open) => {}
            }
        }
    }

    /// Accepts the connections that wait in the system. They would be reset if the listener were closed.
    async fn accept_backlog(&self, open: &mpsc::Sender<Infallible>) {
        let accepting = async {
            while tokio::time::timeout(BACKLOG_PAUSE, self.accept(open))
                .await
                .is_ok()
            {}
        };
        // The clients whose connections don't fit into the limits must try again.
        let _ = tokio::time::timeout(BACKLOG_TIMEOUT, accepting).await;
    }

    /// Accepts a connection, and answers its requests in a task.
    async fn accept(&self, open: &mpsc::Sender<Infallible>) {
        let place = self.places.clone().acquire_owned().await;
        let (stream, client) = match self.listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // The process is out of file descriptors, or the client is gone. The service
                // continues in both cases.
                tracing::warn!("can't accept a connection: {error}");
                return tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let service = (self.service_of)(client);
        // A client of a Unix socket is a proxy.
        let share = match client.map(|client| self.shares.take(client)) {
            Some(None) => return,
            Some(share) => share,
            None => None,
        };
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(WRITE_TIMEOUT));
        let stream = Box::pin(stream);
        let (http, tls, stage, open) = (
            self.http.clone(),
            self.tls.clone(),
            self.stage.clone(),
            open.clone(),
        );
        tokio::spawn(async move {
            let ended = match tls {
                Some(tls) => http.answer_tls(&tls, stream, service, stage).await,
                None => http.answer(stream, service, stage).await,
            };
            if let Err(error) = ended {
                tracing::debug!("connection ended: {error}");
            }
            drop((place, share, open));
        });
    }
}

/// Counts the open connections of each client address, so that one client can't use up the limit.
struct Shares {
    limits: Limits,
    open: Mutex<HashMap<IpAddr, usize>>,
    refused: OnceAMinute,
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
            refused: OnceAMinute::default(),
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
            self.refused.log(|_| {
                tracing::warn!(
                    "{client} has {limit} connections open, and gets no more; \
                     if it is a proxy, raise --max-connections-per-address"
                );
            });
            return None;
        }
        Some(Share {
            shares: self.clone(),
            address,
        })
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
