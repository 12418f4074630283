use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::Arc,
    time::SystemTime,
};

use async_trait::async_trait;
use passkit_server::{
    identifiers::{PushToken, TypeIdentifier},
    push::{PushOutcome, PushSender},
};

use crate::{
    ApnsError, Config,
    endpoint::Endpoint,
    pool::{Credentials, NoAnswer, Pool},
    request::Requests,
    watch::{Watched, hex},
};

/// Sends pushes through APNs.
///
/// It sends nothing to a push token that is not an [APNs token](PushToken::is_apns). The outcome is
/// then [`Unsupported`](PushOutcome::Unsupported).
///
/// Use the sender within a Tokio runtime with time and I/O. Dropping it closes its connections.
pub struct ApnsSender {
    requests: Requests,
    certificates: HashMap<TypeIdentifier, Pool>,
    token: Option<Pool>,
}

impl fmt::Debug for ApnsSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApnsSender")
            .field("host", &self.requests.authority.as_str())
            .field("certificates", &self.certificates.keys())
            .field("token", &self.token.is_some())
            .finish()
    }
}

impl ApnsSender {
    /// Makes a sender. It reads the root certificates of the system from disk. The connections are
    /// opened later, with the first pushes.
    ///
    /// # Errors
    /// Fails if a setting can't work, if there is neither a certificate nor a token key, or if
    /// there is no root certificate.
    pub fn new(config: Config) -> Result<Self, ApnsError> {
        if config.identities.is_empty() && config.token_key.is_none() {
            return Err(ApnsError::new(
                "there is neither a certificate nor a token key for pushes",
            ));
        }
        if config.expiration.as_secs() == 0 {
            return Err(ApnsError::new(
                "the expiration must not be 0: phones that are off would never learn of a change",
            ));
        }
        if config.connections == 0 {
            return Err(ApnsError::new("there must be at least 1 connection"));
        }
        let endpoint = Arc::new(Endpoint::new(&config)?);
        let pool = |credentials| Pool::new(credentials, Arc::clone(&endpoint), config.connections);
        let mut certificates = HashMap::new();
        for identity in config.identities {
            let topic = identity.type_id().clone();
            let watched = Watched::new(identity, &endpoint, config.check_interval)?;
            certificates.insert(topic, pool(Credentials::Certificate(watched)));
        }
        let token = match config.token_key {
            Some(key) => Some(pool(Credentials::Token(key, endpoint.tls(None)?))),
            None => None,
        };
        let requests = Requests {
            authority: endpoint.authority.clone(),
            profile: config.profile,
            expiration: config.expiration,
        };
        Ok(Self {
            requests,
            certificates,
            token,
        })
    }

    /// Reads the certificates again whose files have changed. Returns the type of each certificate,
    /// in order, and when it expires. A token key does not expire.
    ///
    /// Without this call, the files are checked before a push. With this call, a service notices a
    /// renewed certificate, and warns of a certificate that expires, even while it sends no pushes.
    pub async fn check_certificates(&self) -> BTreeMap<TypeIdentifier, SystemTime> {
        let mut expire = BTreeMap::new();
        for (topic, pool) in &self.certificates {
            if let Some(not_after) = pool.expires().await {
                expire.insert(topic.clone(), not_after);
            }
        }
        expire
    }
}

#[async_trait]
impl PushSender for ApnsSender {
    fn covers(&self, topic: &TypeIdentifier) -> bool {
        self.token.is_some() || self.certificates.contains_key(topic)
    }

    fn credentials(&self, topic: &TypeIdentifier) -> String {
        let pool = self.certificates.get(topic).or(self.token.as_ref());
        let name = pool.map_or_else(|| "none".to_owned(), Pool::credentials);
        // A push token is valid for one APNs environment, so the server is part of the name. The
        // name has only a digest of the server, because the name of a host may be long.
        let server = ring::digest::digest(
            &ring::digest::SHA256,
            self.requests.authority.as_str().as_bytes(),
        );
        format!("{name}@{}", hex(&server.as_ref()[..8]))
    }

    async fn push(&self, topic: &TypeIdentifier, token: &PushToken) -> PushOutcome {
        if !token.is_apns() {
            return PushOutcome::Unsupported;
        }
        let Some(pool) = self.certificates.get(topic).or(self.token.as_ref()) else {
            return PushOutcome::Misconfigured(format!("no certificate for {topic}"));
        };
        let mut first = true;
        loop {
            let authorization = match pool.authorization() {
                Ok(authorization) => authorization,
                Err(error) => return PushOutcome::Misconfigured(error.to_string()),
            };
            let request = match self.requests.push(topic, token, authorization.as_ref()) {
                Ok(request) => request,
                Err(error) => return PushOutcome::Rejected(error.to_string()),
            };
            let outcome = match pool.send(request).await {
                Ok(answer) => {
                    let again = answer.is(400, "IdleTimeout")
                        || answer.is(403, "ExpiredProviderToken")
                            && pool.token_expired(authorization.as_ref());
                    if again && first {
                        first = false;
                        continue;
                    }
                    answer.outcome()
                }
                Err(NoAnswer::Lost(_)) if first => {
                    first = false;
                    continue;
                }
                Err(NoAnswer::Lost(outcome) | NoAnswer::Final(outcome)) => outcome,
            };
            return outcome;
        }
    }
}
