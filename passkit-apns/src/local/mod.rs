//! A push service like APNs on this machine, for testing senders of pushes. It speaks HTTP/2 over TLS, wants client
//! certificates or provider tokens, checks each request, and answers as it is told.
//!
//! ```
//! # tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(async {
//! use passkit_apns::{ApnsSender, Config, Identity, local::{Answer, LocalApns, Options}};
//! use passkit_server::{push::{PushOutcome, PushSender}, identifiers::{PushToken, TypeIdentifier}};
//!
//! let apns = LocalApns::start(Options::new()).await?;
//! let issued = apns.issue("pass.com.example.ticket")?;
//! let identity = Identity::from_pem(None, issued.certificate.as_bytes(), issued.key.as_bytes())?;
//! let config = Config::new().endpoint(apns.host(), apns.port()).root_certificates(apns.root_pem());
//! let sender = ApnsSender::new(config.identity(identity))?;
//!
//! apns.answer_token("c0ffee", Answer::refuse(400, "BadDeviceToken"));
//! let ticket = TypeIdentifier::new("pass.com.example.ticket")?;
//! let refused = sender.push(&ticket, &PushToken::new("c0ffee")?).await;
//! assert!(matches!(refused, PushOutcome::BadToken(_)));
//! assert_eq!(sender.push(&ticket, &PushToken::new("decaf0")?).await, PushOutcome::Sent);
//! assert_eq!(apns.pushes().len(), 2);
//! assert!(apns.violations().is_empty(), "{:?}", apns.violations());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```
//!
//! It is no copy of APNs: it knows only the devices it was told about, and delivers nothing.

mod answer;
mod check;
mod connection;
mod issuer;
mod provider_token;

use std::{
    fmt,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::SystemTime,
};

use http::HeaderMap;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_rustls::TlsAcceptor;

pub use self::{
    answer::Answer,
    issuer::{IssueError, Issued},
    provider_token::IssuedTokenKey,
};
use self::{answer::Script, check::KnownTokens, issuer::Issuer, provider_token::TokenKeys};

pub(crate) type Hook =
    Arc<dyn Fn(String, String) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// How a [`LocalApns`] behaves.
#[derive(Clone)]
pub struct Options {
    max_concurrent_streams: u32,
    provider_tokens: bool,
    record: bool,
    on_push: Option<Hook>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_concurrent_streams: 500,
            provider_tokens: false,
            record: true,
            on_push: None,
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("max_concurrent_streams", &self.max_concurrent_streams)
            .field("provider_tokens", &self.provider_tokens)
            .field("record", &self.record)
            .finish_non_exhaustive()
    }
}

impl Options {
    /// Requires client certificates, allows 500 streams on a connection, and records all pushes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Allows this many streams on a connection.
    #[must_use]
    pub fn max_concurrent_streams(mut self, streams: u32) -> Self {
        self.max_concurrent_streams = streams;
        self
    }

    /// Accepts clients without a certificate. They must send provider tokens: see [`LocalApns::issue_token_key`].
    #[must_use]
    pub fn provider_tokens(mut self) -> Self {
        self.provider_tokens = true;
        self
    }

    /// Records no pushes. A record takes memory in long runs.
    #[must_use]
    pub fn without_record(mut self) -> Self {
        self.record = false;
        self
    }

    /// Calls this with topic and token of each push, before it is answered.
    #[must_use]
    pub fn on_push<F, Called>(mut self, hook: F) -> Self
    where
        F: Fn(String, String) -> Called + Send + Sync + 'static,
        Called: Future<Output = ()> + Send + 'static,
    {
        self.on_push = Some(Arc::new(move |topic, token| Box::pin(hook(topic, token))));
        self
    }
}

/// A push that was received.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Received {
    /// The header `apns-topic`.
    pub topic: String,
    /// The device token in the path.
    pub token: String,
    /// All headers.
    pub headers: HeaderMap,
    /// The number of its connection: 0 is the first.
    pub connection: usize,
    /// When it was received.
    pub at: SystemTime,
}

/// A push service on 127.0.0.1. It stops when it is dropped.
#[derive(Debug)]
pub struct LocalApns {
    shared: Arc<Shared>,
    port: u16,
    accepting: JoinHandle<()>,
}

/// What all connections share. A push that is answered normally waits for no lock of another connection.
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) issuer: Issuer,
    pub(crate) token_keys: TokenKeys,
    pub(crate) script: Script,
    pub(crate) known: KnownTokens,
    /// One list for each connection, so that they do not wait for each other.
    received: Mutex<Vec<Arc<Mutex<Vec<Received>>>>>,
    violations: Mutex<Vec<String>>,
    connections: AtomicUsize,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// No code panics under these locks.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn connected(&self) -> (usize, Arc<Mutex<Vec<Received>>>) {
        let list = Arc::new(Mutex::new(Vec::new()));
        let mut lists = lock(&self.received);
        lists.push(Arc::clone(&list));
        self.connections.fetch_add(1, Ordering::Relaxed);
        (lists.len() - 1, list)
    }

    pub(crate) fn violation(&self, text: impl Into<String>) {
        lock(&self.violations).push(text.into());
    }
}

impl LocalApns {
    /// Starts one on a free port. Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// If there is no free port, or certificates can't be made.
    pub async fn start(options: Options) -> Result<Self, IssueError> {
        let issuer = Issuer::new()?;
        let tls = TlsAcceptor::from(Arc::new(issuer.server_config(options.provider_tokens)?));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
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
        });
        let accepting = tokio::spawn(connection::accept(listener, tls, Arc::clone(&shared)));
        Ok(Self {
            shared,
            port,
            accepting,
        })
    }

    /// Where it listens: `127.0.0.1`.
    #[must_use]
    pub fn host(&self) -> &'static str {
        "127.0.0.1"
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The certificate, in PEM, of the authority that signed the certificates of the service and of its clients.
    #[must_use]
    pub fn root_pem(&self) -> &str {
        self.shared.issuer.root_pem()
    }

    /// Issues a client certificate for pushes of `topic`, valid from yesterday for a year.
    ///
    /// # Errors
    /// If the topic can't be part of a certificate.
    pub fn issue(&self, topic: &str) -> Result<Issued, IssueError> {
        let now = SystemTime::now();
        self.issue_for(topic, now - issuer::DAY, now + 365 * issuer::DAY)
    }

    /// Issues a client certificate for pushes of `topic`, valid between two times. Both may lie in the past.
    ///
    /// # Errors
    /// If the topic can't be part of a certificate.
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
    /// If the system has no random numbers.
    pub fn issue_token_key(&self) -> Result<IssuedTokenKey, IssueError> {
        self.shared.token_keys.issue()
    }

    /// Adds a device token that exists. After the first one, all unknown tokens are answered `BadDeviceToken`. A token that
    /// differs from a known one in upper and lower case is a violation.
    pub fn know(&self, token: &str) {
        self.shared.known.add(token);
    }

    /// Gives this answer to all further pushes to the token.
    pub fn answer_token(&self, token: &str, answer: Answer) {
        self.shared.script.token(token, answer);
    }

    /// Gives this answer to the next pushes, whatever their token. Several calls queue up.
    pub fn answer_next(&self, pushes: usize, answer: Answer) {
        self.shared.script.next(pushes, answer);
    }

    /// Removes all answers that were set. Pushes without a fault are accepted again.
    pub fn answer_normally(&self) {
        self.shared.script.clear();
    }

    /// All pushes that were received, with or without a fault, in the order of their times.
    #[must_use]
    pub fn pushes(&self) -> Vec<Received> {
        let lists = lock(&self.shared.received).clone();
        let mut all: Vec<_> = lists.iter().flat_map(|list| lock(list).clone()).collect();
        all.sort_by_key(|push| push.at);
        all
    }

    /// What was wrong with requests, one line each. No line contains a token.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        lock(&self.shared.violations).clone()
    }

    /// How many connections were made, up to the end of the TLS handshake.
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
