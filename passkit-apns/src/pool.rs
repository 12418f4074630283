use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use http::{HeaderValue, Request};
use http_body_util::Full;
use passkit_server::push::PushOutcome;
use rustls::ClientConfig;

use crate::{
    ApnsError, TokenKey, answer::Answer, backoff::Backoff, connection::Connection,
    endpoint::Endpoint, watch::Watched,
};

/// By what APNs knows the sender.
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

/// The place of one connection.
#[derive(Default)]
struct Slot {
    connection: Mutex<Option<Arc<Connection>>>,
    /// Locked while the connection is made.
    connecting: tokio::sync::Mutex<()>,
}

/// Why there is no answer.
pub(crate) enum Failure {
    /// To try again now would not help.
    Final(PushOutcome),
    /// The connection ended, or this push alone. On another one it may go through; it may have gone through already,
    /// which does no harm.
    Lost(PushOutcome),
}

impl Slot {
    fn get(&self) -> Option<Arc<Connection>> {
        self.connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn put(&self, connection: &Arc<Connection>) {
        *self
            .connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(connection));
    }

    /// Uses `connection` for no more pushes. Those that are on their way over it go on.
    fn retire(&self, connection: &Arc<Connection>) {
        let mut current = self
            .connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
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

    /// The header `authorization`, where there is one.
    pub(crate) fn authorization(&self) -> Result<Option<HeaderValue>, ApnsError> {
        match &self.credentials {
            Credentials::Certificate(_) => Ok(None),
            Credentials::Token(key, _) => key.header().map(Some),
        }
    }

    /// APNs calls the token in `authorization` expired. Returns whether to try again with another one.
    pub(crate) fn token_expired(&self, authorization: Option<&HeaderValue>) -> bool {
        match (&self.credentials, authorization) {
            (Credentials::Token(key, _), Some(used)) => key.expired(used),
            _ => false,
        }
    }

    /// Sends a request over the next connection, making it if need be.
    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Result<Answer, Failure> {
        if let Credentials::Certificate(certificate) = &self.credentials {
            certificate.look_if_due(&self.endpoint).await;
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
                // APNs says so before it closes a connection.
                if answer.is(503, "Shutdown") || answer.is(400, "IdleTimeout") {
                    slot.retire(&connection);
                }
                Ok(answer)
            }
            Ok(Err(why)) => {
                self.failed(slot, &connection, &why);
                Err(match outcome(why) {
                    lost @ PushOutcome::Unreachable(_) => Failure::Lost(lost),
                    other => Failure::Final(other),
                })
            }
            Err(_) => {
                let why = format!("no answer within {timeout:?}");
                // Where others were answered meanwhile, it is not the connection.
                if connection.answers() == answers {
                    self.failed(slot, &connection, &why);
                }
                Err(Failure::Final(PushOutcome::Unreachable(why)))
            }
        }
    }

    /// The connection of a slot, if it takes pushes and has the newest certificate.
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

    async fn connect(&self, slot: &Slot) -> Result<Arc<Connection>, Failure> {
        let _turn = slot.connecting.lock().await;
        // Perhaps somebody made it while this one waited for its turn.
        if let Some(connection) = self.usable(slot) {
            return Ok(connection);
        }
        if let Some((left, last)) = self.backoff.wait() {
            let why = format!("{last} (tried again in {} ms)", left.as_millis());
            return Err(Failure::Final(outcome(why)));
        }
        let (tls, generation) = match &self.credentials {
            Credentials::Certificate(certificate) => certificate
                .tls(&self.endpoint)
                .await
                .map_err(|error| Failure::Final(PushOutcome::Misconfigured(error.to_string())))?,
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
                Err(Failure::Final(outcome(why)))
            }
        }
    }

    fn failed(&self, slot: &Slot, connection: &Arc<Connection>, why: &str) {
        slot.retire(connection);
        if connection.answers() == 0 && connection.fails_first() {
            self.backoff.failed(why, true);
        }
    }
}

/// What it means that there is no answer. A server that refuses the certificate says so in a TLS alert, of which only
/// the text comes through the layers in between.
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
