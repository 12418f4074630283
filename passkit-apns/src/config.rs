use std::time::Duration;

use crate::{Identity, TokenKey};

/// The type and priority of a push. Apple does not document which ones are right for passes. Both
/// profiles are in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Profile {
    /// Push type `background` with priority 5. Only this pair is documented for an empty payload.
    #[default]
    Background,
    /// No push type, and priority 10. The push may arrive sooner.
    Plain,
}

/// The settings of an [`ApnsSender`](crate::ApnsSender).
#[derive(Debug)]
pub struct Config {
    pub(crate) identities: Vec<Identity>,
    pub(crate) token_key: Option<TokenKey>,
    pub(crate) profile: Profile,
    pub(crate) expiration: Duration,
    pub(crate) connections: usize,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) roots: Vec<u8>,
    pub(crate) connect_timeout: Duration,
    pub(crate) request_timeout: Duration,
    pub(crate) check_interval: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            identities: Vec::new(),
            token_key: None,
            profile: Profile::default(),
            expiration: Duration::from_secs(7 * 24 * 60 * 60),
            connections: 2,
            host: "api.push.apple.com".into(),
            port: 443,
            roots: Vec::new(),
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(20),
            check_interval: Duration::from_secs(60),
        }
    }
}

impl Config {
    /// Makes a configuration with Apple's server and the default settings, without a certificate.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a certificate for the pushes of its type. It replaces an earlier one for the type.
    #[must_use]
    pub fn identity(mut self, identity: Identity) -> Self {
        self.identities.push(identity);
        self
    }

    /// Sets the key for provider tokens. It is used for all types that have no certificate.
    #[must_use]
    pub fn token_key(mut self, key: TokenKey) -> Self {
        self.token_key = Some(key);
        self
    }

    /// Sets the type and priority of pushes. The default is [`Profile::Background`].
    #[must_use]
    pub fn profile(mut self, profile: Profile) -> Self {
        self.profile = profile;
        self
    }

    /// Sets how long APNs keeps a push for a phone that is off. The default is 7 days. 0 is an
    /// error, because such a phone would never learn of the change.
    #[must_use]
    pub fn expiration(mut self, expiration: Duration) -> Self {
        self.expiration = expiration;
        self
    }

    /// Sets how many connections each certificate uses. The default is 2. A connection carries many
    /// pushes at once, and is opened when it is first needed.
    #[must_use]
    pub fn connections(mut self, connections: usize) -> Self {
        self.connections = connections;
        self
    }

    /// Sets the server. The default is `api.push.apple.com` at port 443. Apple also serves port
    /// 2197.
    #[must_use]
    pub fn endpoint(mut self, host: impl Into<String>, port: u16) -> Self {
        self.host = host.into();
        self.port = port;
        self
    }

    /// Trusts these root certificates (PEM) in addition to those of the system.
    #[must_use]
    pub fn root_certificates(mut self, pem: impl AsRef<[u8]>) -> Self {
        self.roots.extend_from_slice(pem.as_ref());
        self.roots.push(b'\n');
        self
    }

    /// Sets how long opening a connection may take. The default is 10 s.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Sets how long to wait for an answer on an open connection. The default is 20 s.
    #[must_use]
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// Sets how often pushes check whether certificate files changed. The default is 60 s. Each new
    /// connection checks too.
    #[must_use]
    pub fn check_interval(mut self, interval: Duration) -> Self {
        self.check_interval = interval;
        self
    }
}
