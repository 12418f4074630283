use std::time::Duration;

/// How a [`RedisStore`](crate::RedisStore) uses its server.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// What every key starts with, so that several services may share a server: letters, digits, and any of `:._-`.
    pub prefix: String,
    /// How many buckets the passes of a type are spread over, 1 to 4,096. `None` takes the number that the store has, and 64
    /// for a new store. It can't be changed later: another number is refused.
    pub buckets: Option<u16>,
    /// How many replicas must have a change before it is acknowledged, and before a device is told of it. With 0 the
    /// master alone has it, and a failover may lose it.
    pub min_replicas: u16,
    /// How long a call waits for the replicas before it fails.
    pub replica_timeout: Duration,
    /// How long a command waits for its answer before it is sent again.
    pub response_timeout: Duration,
    /// How long a call goes on trying while a server is away, or another takes over, before it fails.
    pub call_timeout: Duration,
    #[cfg(feature = "tls")]
    pub(crate) client_certificate: Option<Pem>,
    #[cfg(feature = "tls")]
    pub(crate) root_certificates: Option<Pem>,
}

/// Text that may hold a private key, which `Debug` does not show.
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
    /// The defaults: the prefix `passkit:`, and no replica waited for.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With this prefix.
    #[must_use]
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// With this many buckets for each type.
    #[must_use]
    pub fn buckets(mut self, buckets: u16) -> Self {
        self.buckets = Some(buckets);
        self
    }

    /// Acknowledging what this many replicas have.
    #[must_use]
    pub fn min_replicas(mut self, replicas: u16) -> Self {
        self.min_replicas = replicas;
        self
    }

    /// Waiting this long for replicas.
    #[must_use]
    pub fn replica_timeout(mut self, timeout: Duration) -> Self {
        self.replica_timeout = timeout;
        self
    }

    /// Waiting this long for one answer.
    #[must_use]
    pub fn response_timeout(mut self, timeout: Duration) -> Self {
        self.response_timeout = timeout;
        self
    }

    /// Trying this long.
    #[must_use]
    pub fn call_timeout(mut self, timeout: Duration) -> Self {
        self.call_timeout = timeout;
        self
    }

    /// Showing this certificate to servers that ask for one, which Redis does unless `tls-auth-clients` is `no`: PEM, with
    /// the chain if it has one, and the key. For `rediss` URLs.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn client_certificate(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.client_certificate = Some(Pem(pem.into()));
        self
    }

    /// Trusting these authorities, in PEM, and not those that the system trusts. For `rediss` URLs.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn root_certificates(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.root_certificates = Some(Pem(pem.into()));
        self
    }
}
