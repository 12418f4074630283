use std::time::Duration;

use crate::{Identity, TokenKey};

/// How pushes are marked. Apple does not say which it wants for passes; both are in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Profile {
    /// Push type `background` with priority 5: the one pair whose documentation fits an empty payload.
    #[default]
    Background,
    /// No push type, and priority 10: may come sooner.
    Plain,
}

/// What an [`ApnsSender`](crate::ApnsSender) is made of.
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
    pub(crate) look_interval: Duration,
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
            look_interval: Duration::from_secs(60),
        }
    }
}

impl Config {
    /// Apple's server and the defaults below, without certificates.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With a certificate, for the pushes of its topic. The last one for a topic counts.
    #[must_use]
    pub fn identity(mut self, identity: Identity) -> Self {
        self.identities.push(identity);
        self
    }

    /// With a key for provider tokens, for all topics that have no certificate.
    #[must_use]
    pub fn token_key(mut self, key: TokenKey) -> Self {
        self.token_key = Some(key);
        self
    }

    /// Marked so: as [`Profile::Background`] by default.
    #[must_use]
    pub fn profile(mut self, profile: Profile) -> Self {
        self.profile = profile;
        self
    }

    /// How long APNs keeps a push for a phone that is off: 7 days by default. Zero is refused, as such a phone would
    /// never hear of the change.
    #[must_use]
    pub fn expiration(mut self, expiration: Duration) -> Self {
        self.expiration = expiration;
        self
    }

    /// How many connections are used for each certificate: 2 by default. Each carries many pushes at once, and is made
    /// when it is first needed.
    #[must_use]
    pub fn connections(mut self, connections: usize) -> Self {
        self.connections = connections;
        self
    }

    /// Another server: `api.push.apple.com` at 443 by default. Apple serves the port 2197 too.
    #[must_use]
    pub fn endpoint(mut self, host: impl Into<String>, port: u16) -> Self {
        self.host = host.into();
        self.port = port;
        self
    }

    /// Trusting these root certificates too, in PEM, besides those that the system trusts.
    #[must_use]
    pub fn root_certificates(mut self, pem: impl AsRef<[u8]>) -> Self {
        self.roots.extend_from_slice(pem.as_ref());
        self.roots.push(b'\n');
        self
    }

    /// How long a connection may take to be made: 10 s by default.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long an answer is waited for, once there is a connection: 20 s by default.
    #[must_use]
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// How often, at most, the files of certificates are looked at besides when a connection is made: 60 s by default.
    #[must_use]
    pub fn look_interval(mut self, interval: Duration) -> Self {
        self.look_interval = interval;
        self
    }
}
