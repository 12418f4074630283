use std::time::Duration;

/// How a [`RedisStore`](crate::RedisStore) uses its server.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// The prefix of every key, so that several services can share a server: letters, digits, and any of `:._-`.
    pub prefix: String,
    /// The number of buckets into which the passes of a type are divided, 1 to 4,096. `None` uses the number of the existing
    /// store, or 64 for a new one. The number can't be changed later: a different number is an error.
    pub buckets: Option<u16>,
    /// How many replicas must have a change before it is acknowledged, and before a device sees it. With 0, the master alone
    /// is enough, and a failover may lose the change.
    pub min_replicas: u16,
    /// How long a call waits for the replicas before it fails.
    pub replica_timeout: Duration,
    /// How long the store waits for the answer to a command before it sends the command again.
    pub response_timeout: Duration,
    /// How long the store retries a call before the call fails, for example during a failover.
    pub call_timeout: Duration,
    #[cfg(feature = "tls")]
    pub(crate) client_certificate: Option<Pem>,
    #[cfg(feature = "tls")]
    pub(crate) root_certificates: Option<Pem>,
}

/// A text that may contain a private key. `Debug` does not show it.
#[cfg(feature = "tls")]
#[derive(Clone)]
pub(crate) struct Pem(pub(crate) Vec<u8>);

#[cfg(feature = "tls")]
impl std::fmt::Debug for Pem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pem(…)")
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            prefix: "passkit:".into(),
            buckets: None,
            min_replicas: 0,
            replica_timeout: Duration::from_secs(1),
            response_timeout: Duration::from_secs(2),
            call_timeout: Duration::from_secs(6),
            #[cfg(feature = "tls")]
            client_certificate: None,
            #[cfg(feature = "tls")]
            root_certificates: None,
        }
    }
}

impl Config {
    /// Returns the defaults: the prefix `passkit:`, and no waiting for replicas.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets [`prefix`](Self::prefix).
    #[must_use]
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Sets [`buckets`](Self::buckets).
    #[must_use]
    pub fn buckets(mut self, buckets: u16) -> Self {
        self.buckets = Some(buckets);
        self
    }

    /// Sets [`min_replicas`](Self::min_replicas).
    #[must_use]
    pub fn min_replicas(mut self, replicas: u16) -> Self {
        self.min_replicas = replicas;
        self
    }

    /// Sets [`replica_timeout`](Self::replica_timeout).
    #[must_use]
    pub fn replica_timeout(mut self, timeout: Duration) -> Self {
        self.replica_timeout = timeout;
        self
    }

    /// Sets [`response_timeout`](Self::response_timeout).
    #[must_use]
    pub fn response_timeout(mut self, timeout: Duration) -> Self {
        self.response_timeout = timeout;
        self
    }

    /// Sets [`call_timeout`](Self::call_timeout).
    #[must_use]
    pub fn call_timeout(mut self, timeout: Duration) -> Self {
        self.call_timeout = timeout;
        self
    }

    /// Sets the client certificate, its chain and its key, in PEM. Redis asks for a client certificate unless its setting
    /// `tls-auth-clients` is `no`. Works only with `rediss` URLs.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn client_certificate(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.client_certificate = Some(Pem(pem.into()));
        self
    }

    /// Trusts these root certificates (PEM) instead of the system's. Works only with `rediss` URLs.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn root_certificates(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.root_certificates = Some(Pem(pem.into()));
        self
    }
}
