use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::SystemTime,
};

use tokio::{net::TcpListener, task::JoinHandle};
use tokio_rustls::TlsAcceptor;

use super::{
    answer::{Answer, Script},
    check::KnownTokens,
    connection,
    issuer::{self, IssueError, Issued, Issuer},
    options::{Options, Received},
    provider_token::{IssuedTokenKey, TokenKeys},
    shared::Shared,
};
use crate::lock::lock;

/// A push service on 127.0.0.1. When it is dropped, it stops.
#[derive(Debug)]
pub struct LocalApns {
    shared: Arc<Shared>,
    port: u16,
    accepting: JoinHandle<()>,
}

impl LocalApns {
    /// Starts a service. Call it within a Tokio runtime.
    ///
    /// # Errors
    /// Fails if the port is not free, or if certificates can't be made.
    pub async fn start(options: Options) -> Result<Self, IssueError> {
        let issuer = Issuer::new(options.authority.as_deref())?;
        let tls = TlsAcceptor::from(Arc::new(issuer.server_config(&options)?));
        let listener = TcpListener::bind(options.address).await?;
        let port = listener.local_addr()?.port();
        let shared = Arc::new(Shared {
            options,
            issuer,
            token_keys: TokenKeys::default(),
            script: Script::default(),
            known: KnownTokens::default(),
            received: Mutex::default(),
            violations: Mutex::default(),
            connections: AtomicUsize::new(0),
            troubles: Mutex::default(),
        });
        let accepting = tokio::spawn(connection::accept(listener, tls, Arc::clone(&shared)));
        Ok(Self {
            shared,
            port,
            accepting,
        })
    }

    /// Returns the host for clients on this machine, which is always `127.0.0.1`.
    #[must_use]
    pub fn host(&self) -> &'static str {
        "127.0.0.1"
    }

    /// Returns the port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the certificate, in PEM, of the authority that signed the certificates of the
    /// service and of its clients.
    #[must_use]
    pub fn root_pem(&self) -> &str {
        self.shared.issuer.root_pem()
    }

    /// Returns the private key, in PEM, of the authority: see
    /// [`Options::authority`](Options::authority).
    #[must_use]
    pub fn authority_key(&self) -> String {
        self.shared.issuer.key_pem()
    }

    /// Issues a client certificate for pushes of `topic`, valid from yesterday for a year.
    ///
    /// # Errors
    /// Fails if the topic can't be part of a certificate.
    pub fn issue(&self, topic: &str) -> Result<Issued, IssueError> {
        let now = SystemTime::now();
        self.issue_for(topic, now - issuer::DAY, now + 365 * issuer::DAY)
    }

    /// Issues a client certificate for pushes of `topic`, valid between two times. Both may be in
    /// the past.
    ///
    /// # Errors
    /// Fails if the topic can't be part of a certificate.
    pub fn issue_for(
        &self,
        topic: &str,
        not_before: SystemTime,
        not_after: SystemTime,
    ) -> Result<Issued, IssueError> {
        self.shared.issuer.issue(topic, not_before, not_after)
    }

    /// Issues a key for provider tokens of all topics.
    ///
    /// # Errors
    /// Fails if the system has no random numbers.
    pub fn issue_token_key(&self) -> Result<IssuedTokenKey, IssueError> {
        self.shared.token_keys.issue()
    }

    /// Adds a known device token. Once a token is known, a push to an unknown token gets
    /// `BadDeviceToken`. If a token differs from a known one only in upper and lower case, that is
    /// a violation.
    pub fn know(&self, token: &str) {
        self.shared.known.add(token);
    }

    /// Gives this answer to all further pushes to the token.
    pub fn answer_token(&self, token: &str, answer: Answer) {
        self.shared.script.token(token, answer);
    }

    /// Gives this answer to the next `pushes` pushes, whatever their tokens are. Another call sets
    /// the answer for the pushes after those.
    pub fn answer_next(&self, pushes: usize, answer: Answer) {
        self.shared.script.next(pushes, answer);
    }

    /// Removes all answers that were set. Pushes without a fault are accepted again.
    pub fn answer_normally(&self) {
        self.shared.script.clear();
    }

    /// Returns all pushes that were received, valid or not, in the order of their times.
    #[must_use]
    pub fn pushes(&self) -> Vec<Received> {
        let lists = lock(&self.shared.received).clone();
        let mut all: Vec<_> = lists.iter().flat_map(|list| lock(list).clone()).collect();
        all.sort_by_key(|push| push.at);
        all
    }

    /// Returns the faults of the requests, one line each. No line contains a token.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        lock(&self.shared.violations).clone()
    }

    /// Returns why the last few connections failed before their first push, one line each.
    #[must_use]
    pub fn failed_connections(&self) -> Vec<String> {
        lock(&self.shared.troubles).iter().cloned().collect()
    }

    /// Returns how many connections completed their TLS handshake.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }
}

impl Drop for LocalApns {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}
