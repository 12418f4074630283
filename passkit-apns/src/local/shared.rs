use std::{
    fmt,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::SystemTime,
};

use http::HeaderMap;

use super::{answer::Script, check::KnownTokens, issuer::Issuer, provider_token::TokenKeys};
use crate::lock::lock;

pub(crate) type Hook =
    Arc<dyn Fn(String, String) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// How a [`LocalApns`](super::LocalApns) behaves.
#[derive(Clone)]
pub struct Options {
    pub(crate) max_concurrent_streams: u32,
    pub(crate) provider_tokens: bool,
    pub(crate) record: bool,
    pub(crate) on_push: Option<Hook>,
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
    /// Makes options that require client certificates, allow 500 streams on a connection, and
    /// record all pushes.
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

    /// Accepts clients without a certificate. They must send provider tokens: see
    /// [`LocalApns::issue_token_key`](super::LocalApns::issue_token_key).
    #[must_use]
    pub fn provider_tokens(mut self) -> Self {
        self.provider_tokens = true;
        self
    }

    /// Does not record pushes. In long runs, the records would take much memory.
    #[must_use]
    pub fn without_record(mut self) -> Self {
        self.record = false;
        self
    }

    /// Calls `hook` with the topic and token of each push, and answers after the hook has finished.
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
    /// The number of its connection. The first has the number 0.
    pub connection: usize,
    /// When the push was received.
    pub at: SystemTime,
}

/// The state that all connections share. A push that gets a normal answer takes no lock that other
/// connections hold.
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) issuer: Issuer,
    pub(crate) token_keys: TokenKeys,
    pub(crate) script: Script,
    pub(crate) known: KnownTokens,
    /// There is one list for each connection, so that connections do not wait for each other.
    pub(crate) received: Mutex<Vec<Arc<Mutex<Vec<Received>>>>>,
    pub(crate) violations: Mutex<Vec<String>>,
    pub(crate) connections: AtomicUsize,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl Shared {
    /// Counts a new connection. Returns its number and its list.
    pub(crate) fn connected(&self) -> (usize, Arc<Mutex<Vec<Received>>>) {
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
