use std::{
    fmt,
    path::Path,
    sync::Mutex,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use http::HeaderValue;
use passkit_identity::pem;
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
};
use serde_json::json;

use crate::{ApnsError, lock::lock};

/// A key from Apple (`AuthKey_….p8`) that signs provider tokens. One key replaces the certificates
/// of many types.
///
/// Apple does not document such keys for passes. They are reported to work for the types of the
/// key's own team.
pub struct TokenKey {
    key: EcdsaKeyPair,
    key_id: String,
    team_id: String,
    refresh: Duration,
    keep: Duration,
    made: Mutex<Option<(SystemTime, HeaderValue)>>,
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenKey")
            .field("key_id", &self.key_id)
            .finish_non_exhaustive()
    }
}

/// The error does not repeat the text, because it may be the key.
fn check_ids(key_id: &str, team_id: &str) -> Result<(), ApnsError> {
    for (what, id) in [("key id", key_id), ("team id", team_id)] {
        if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(ApnsError::new(format!(
                "the {what} must be letters and digits"
            )));
        }
    }
    Ok(())
}

impl TokenKey {
    /// Reads a key in PEM, as Apple provides it. The ids of the key and of the team have 10 letters
    /// and digits each.
    ///
    /// # Errors
    /// Fails if there is no key on the curve P-256, or if an id is empty or has other characters.
    pub fn from_pem(key: &[u8], key_id: &str, team_id: &str) -> Result<Self, ApnsError> {
        Self::load(key, None, key_id, team_id)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// Fails like [`from_pem`](Self::from_pem), or if the file can't be read.
    pub fn from_file(
        file: impl AsRef<Path>,
        key_id: &str,
        team_id: &str,
    ) -> Result<Self, ApnsError> {
        let file = file.as_ref();
        check_ids(key_id, team_id)?;
        let key = pem::read_file(file)
            .map_err(|error| ApnsError::about(&name(key_id), Some(file), error))?;
        Self::load(&key, Some(file), key_id, team_id)
    }

    fn load(
        key: &[u8],
        file: Option<&Path>,
        key_id: &str,
        team_id: &str,
    ) -> Result<Self, ApnsError> {
        check_ids(key_id, team_id)?;
        let bad = |problem: &str| ApnsError::about(&name(key_id), file, problem);
        let key = pem::private_key(key).map_err(|error| bad(&error.to_string()))?;
        let key = EcdsaKeyPair::from_pkcs8(
            &ECDSA_P256_SHA256_FIXED_SIGNING,
            key.secret_der(),
            &SystemRandom::new(),
        )
        .map_err(|_| bad("its private key is not on the curve P-256"))?;
        Ok(Self {
            key,
            key_id: key_id.into(),
            team_id: team_id.into(),
            refresh: Duration::from_secs(40 * 60),
            keep: Duration::from_secs(20 * 60),
            made: Mutex::default(),
        })
    }

    /// Returns the ids of the key and of the team.
    pub(crate) fn name(&self) -> String {
        format!("{}.{}", self.key_id, self.team_id)
    }

    /// Sets the age at which a provider token is replaced, and the age below which it is kept even
    /// if APNs answers that it has expired. The defaults are 40 and 20 minutes.
    ///
    /// Apple refuses tokens that are older than an hour. It also refuses senders that make more
    /// than one token in 20 minutes.
    #[must_use]
    pub fn token_ages(mut self, refresh: Duration, keep: Duration) -> Self {
        self.refresh = refresh;
        self.keep = keep;
        self
    }

    /// Returns the header `authorization`, with a new token if the last one is too old.
    pub(crate) fn header(&self) -> Result<HeaderValue, ApnsError> {
        let mut made = lock(&self.made);
        if let Some((at, header)) = &*made
            && age(*at).is_some_and(|age| age < self.refresh)
        {
            return Ok(header.clone());
        }
        let (at, header) = self.make()?;
        *made = Some((at, header.clone()));
        Ok(header)
    }

    /// Call this when APNs answers that the token in `used` has expired. Returns whether the next
    /// header has another token.
    pub(crate) fn expired(&self, used: &HeaderValue) -> bool {
        let mut made = lock(&self.made);
        match &*made {
            Some((at, header)) if header == used => {
                if age(*at).is_some_and(|age| age < self.keep) {
                    return false;
                }
                *made = None;
                true
            }
            _ => true,
        }
    }

    fn make(&self) -> Result<(SystemTime, HeaderValue), ApnsError> {
        let now = SystemTime::now();
        let issued = now
            .duration_since(UNIX_EPOCH)
            .map_or(0, |time| time.as_secs());
        let part = |json: serde_json::Value| BASE64.encode(json.to_string());
        let signed = format!(
            "{}.{}",
            part(json!({ "alg": "ES256", "kid": self.key_id })),
            part(json!({ "iss": self.team_id, "iat": issued })),
        );
        let failed = || ApnsError::about(&name(&self.key_id), None, "could not sign a token");
        let signature = self
            .key
            .sign(&SystemRandom::new(), signed.as_bytes())
            .map_err(|_| failed())?;
        let mut header =
            HeaderValue::try_from(format!("bearer {signed}.{}", BASE64.encode(signature)))
                .map_err(|_| failed())?;
        // This keeps the token out of logs and out of the header table.
        header.set_sensitive(true);
        Ok((now, header))
    }
}

fn name(key_id: &str) -> String {
    format!("token key {key_id}")
}

/// Returns the age by the wall clock, which Apple uses too. This clock does not stop while the
/// machine sleeps. Returns `None` if the clock was set back.
fn age(of: SystemTime) -> Option<Duration> {
    of.elapsed().ok()
}
