use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::SystemTime,
};

use bytes::Bytes;
use http::{HeaderValue, Request};
use http_body_util::Full;
use passkit_server::push::PushOutcome;
use rustls::ClientConfig;

use crate::{
    ApnsError, TokenKey, answer::Answer, backoff::Backoff, connection::Connection,
    endpoint::Endpoint, lock::lock, watch::Watched,
};

/// How the sender authenticates to APNs.
pub(crate) enum Credentials {
    Certificate(Watched),
    Token(TokenKey, Arc<ClientConfig>),
}

/// The connections of one certificate, or of the token key.
pub(crate) struct Pool {
    credentials: Credentials,
    endpoint: Arc<Endpoint>,
    slots: Vec<Slot>,
    next: AtomicUsize,
    backoff: Backoff,
}

/// A place for one connection.
#[derive(Default)]
struct Slot {
    connection: Mutex<Option<Arc<Connection>>>,
    /// Locked while the connection is opened.
    connecting: tokio::sync::Mutex<()>,
}

/// The reason why a push got no answer.
pub(crate) enum NoAnswer {
    /// Trying again now would not help.
    Final(PushOutcome),
    /// The connection or its stream ended. The push may succeed on another connection. It may have
    /// been accepted already, but a second push does no harm.
    Lost(PushOutcome),
}

impl Slot {
    fn get(&self) -> Option<Arc<Connection>> {
        lock(&self.connection).clone()
    }

    fn put(&self, connection: &Arc<Connection>) {
        *lock(&self.connection) = Some(Arc::clone(connection));
    }

    /// Sends no more pushes over `connection`. Pushes that were sent can still be answered.
    fn retire(&self, connection: &Arc<Connection>) {
        let mut current = lock(&self.connection);
        if current
            .as_ref()
            .is_some_and(|current| Arc::ptr_eq(current, connection))
        {
            *current = None;
        }
    }
}

impl Pool {
    pub(crate) fn new(
        credentials: Credentials,
        endpoint: Arc<Endpoint>,
        connections: usize,
    ) -> Self {
        Self {
            credentials,
            endpoint,
            slots: (0..connections).map(|_| Slot::default()).collect(),
            next: AtomicUsize::new(0),
            backoff: Backoff::default(),
        }
    }

    /// Returns the name of the credentials in use, without secrets.
    pub(crate) fn credentials(&self) -> String {
        match &self.credentials {
            Credentials::Certificate(certificate) => certificate.fingerprint(),
            Credentials::Token(key, _) => key.name(),
        }
    }

    /// Reads the certificate again if its files changed. Returns when it expires. A token key does
    /// not expire.
    pub(crate) async fn expires(&self) -> Option<SystemTime> {
        match &self.credentials {
            Credentials::Certificate(certificate) => {
                Some(certificate.expires(&self.endpoint).await)
            }
            Credentials::Token(..) => None,
        }
    }

    /// Returns the header `authorization`. Only pushes with a token key have it.
    pub(crate) fn authorization(&self) -> Result<Option<HeaderValue>, ApnsError> {
        match &self.credentials {
            Credentials::Certificate(_) => Ok(None),
            Credentials::Token(key, _) => key.header().map(Some),
        }
    }

    /// Call this when APNs answers that the token in `authorization` has expired. Returns whether
    /// to try again with another token.
    pub(crate) fn token_expired(&self, authorization: Option<&HeaderValue>) -> bool {
        match (&self.credentials, authorization) {
            (Credentials::Token(key, _), Some(used)) => key.expired(used),
            _ => false,
        }
    }

    /// Sends a request over the next connection. Opens the connection if necessary.
    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Result<Answer, NoAnswer> {
        if let Credentials::Certificate(certificate) = &self.credentials {
            certificate.check_files_if_due(&self.endpoint).await;
        }
        let slot = &self.slots[self.next.fetch_add(1, Ordering::Relaxed) % self.slots.len()];
        let connection = match self.usable(slot) {
            Some(connection) => connection,
            None => self.connect(slot).await?,
        };
        let answers = connection.answers();
        let timeout = self.endpoint.request_timeout;
        match tokio::time::timeout(timeout, connection.send(request)).await {
            Ok(Ok(answer)) => {
                self.backoff.answered();
                // APNs gives these answers before it closes a connection.
                if answer.is(503, "Shutdown") || answer.is(400, "IdleTimeout") {
                    slot.retire(&connection);
                }
                Ok(answer)
            }
            Ok(Err(why)) => {
                self.failed(slot, &connection, &why);
                Err(match outcome(why) {
                    lost @ PushOutcome::Unreachable(_) => NoAnswer::Lost(lost),
                    other => NoAnswer::Final(other),
                })
            }
            Err(_) => {
                let why = format!("no answer within {timeout:?}");
                // If other pushes were answered meanwhile, the connection works.
                if connection.answers() == answers {
                    self.failed(slot, &connection, &why);
                }
                Err(NoAnswer::Final(PushOutcome::Unreachable(why)))
            }
        }
    }

    /// Returns the connection of a slot, if it accepts pushes and uses the newest certificate.
    fn usable(&self, slot: &Slot) -> Option<Arc<Connection>> {
        slot.get().filter(|connection| {
            !connection.is_closed() && connection.generation == self.generation()
        })
    }

    fn generation(&self) -> u64 {
        match &self.credentials {
            Credentials::Certificate(certificate) => certificate.generation(),
            Credentials::Token(..) => 0,
        }
    }

    async fn connect(&self, slot: &Slot) -> Result<Arc<Connection>, NoAnswer> {
        let _turn = slot.connecting.lock().await;
        // Another push may have opened the connection while this one waited.
        if let Some(connection) = self.usable(slot) {
            return Ok(connection);
        }
        if let Some((left, last)) = self.backoff.wait() {
            let why = format!("{last} (next attempt in {} ms)", left.as_millis());
            return Err(NoAnswer::Final(outcome(why)));
        }
        let (tls, generation) = match &self.credentials {
            Credentials::Certificate(certificate) => certificate
                .tls(&self.endpoint)
                .await
                .map_err(|error| NoAnswer::Final(PushOutcome::Misconfigured(error.to_string())))?,
            Credentials::Token(_, tls) => (Arc::clone(tls), 0),
        };
        match Connection::open(&self.endpoint, tls, generation).await {
            Ok(connection) => {
                let connection = Arc::new(connection);
                slot.put(&connection);
                Ok(connection)
            }
            Err(why) => {
                self.backoff.failed(&why, false);
                Err(NoAnswer::Final(outcome(why)))
            }
        }
    }

    fn failed(&self, slot: &Slot, connection: &Arc<Connection>, why: &str) {
        slot.retire(connection);
        if connection.answers() == 0 && connection.mark_failed() {
            self.backoff.failed(why, true);
        }
    }
}

/// Returns the outcome of a push without an answer. A server that refuses the certificate sends a
/// TLS alert, and hyper keeps only the text of the alert.
fn outcome(why: String) -> PushOutcome {
    let refused = why
        .split_once("received fatal alert")
        .is_some_and(|(_, alert)| {
            ["Certificate", "UnknownCA", "AccessDenied", "DecryptError"]
                .iter()
                .any(|name| alert.contains(name))
        });
    if refused {
        PushOutcome::Misconfigured(why)
    } else {
        PushOutcome::Unreachable(why)
    }
}
