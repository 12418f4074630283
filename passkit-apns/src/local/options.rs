use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::Arc,
    time::SystemTime,
};

use bytes::Bytes;
use http::HeaderMap;

pub(crate) type Hook =
    Arc<dyn Fn(Received) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// How a [`LocalApns`](super::LocalApns) behaves.
#[derive(Clone)]
pub struct Options {
    pub(crate) max_concurrent_streams: u32,
    pub(crate) provider_tokens: bool,
    pub(crate) record: bool,
    pub(crate) on_push: Option<Hook>,
    pub(crate) lenient: bool,
    pub(crate) address: SocketAddr,
    pub(crate) names: Vec<String>,
    pub(crate) authority: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_concurrent_streams: 500,
            provider_tokens: false,
            record: true,
            on_push: None,
            lenient: false,
            address: (Ipv4Addr::LOCALHOST, 0).into(),
            names: Vec::new(),
            authority: None,
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("max_concurrent_streams", &self.max_concurrent_streams)
            .field("provider_tokens", &self.provider_tokens)
            .field("record", &self.record)
            .field("lenient", &self.lenient)
            .field("address", &self.address)
            .field("names", &self.names)
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

    /// Calls `hook` with each push, and answers after the hook has finished.
    #[must_use]
    pub fn on_push<F, Called>(mut self, hook: F) -> Self
    where
        F: Fn(Received) -> Called + Send + Sync + 'static,
        Called: Future<Output = ()> + Send + 'static,
    {
        self.on_push = Some(Arc::new(move |push| Box::pin(hook(push))));
        self
    }

    /// Accepts clients with any certificate or any provider token, and accepts all their pushes. A
    /// test can then check the pushes itself.
    #[must_use]
    pub fn lenient(mut self) -> Self {
        self.lenient = true;
        self
    }

    /// Listens on this address. Default: a free port of 127.0.0.1.
    #[must_use]
    pub fn address(mut self, address: SocketAddr) -> Self {
        self.address = address;
        self
    }

    /// Adds a host name to the certificate of the service. `localhost` and `127.0.0.1` are always
    /// in it.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.names.push(name.into());
        self
    }

    /// Uses the authority with this private key, from
    /// [`LocalApns::authority_key`](super::LocalApns::authority_key). Clients that trust the root
    /// certificate of an earlier service with the same key then trust this one too.
    #[must_use]
    pub fn authority(mut self, key: impl Into<String>) -> Self {
        self.authority = Some(key.into());
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
    /// The payload. If it is longer than APNs accepts, its end is missing.
    pub payload: Bytes,
    /// The types that the client's certificate names. Empty if the client has no certificate.
    pub certified: Vec<String>,
}
