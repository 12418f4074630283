use std::{
    collections::HashMap,
    fmt,
    sync::RwLock,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use http::HeaderValue;
use rcgen::KeyPair;
use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use serde_json::Value;

use super::issuer::{IssueError, random_uuid};

/// Apple refuses tokens that are older.
const MAX_AGE: Duration = Duration::from_secs(60 * 60);

/// A key that signs provider tokens. Pass it to [`TokenKey::from_pem`](crate::TokenKey::from_pem).
#[derive(Clone)]
#[non_exhaustive]
pub struct IssuedTokenKey {
    /// The private key in PKCS #8 and PEM, as in a file `AuthKey_….p8` from Apple.
    pub key: String,
    /// The key id.
    pub key_id: String,
    /// The team id.
    pub team_id: String,
}

impl fmt::Debug for IssuedTokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IssuedTokenKey")
            .field("key_id", &self.key_id)
            .finish_non_exhaustive()
    }
}

/// The public keys, by key id.
#[derive(Default)]
pub(crate) struct TokenKeys(RwLock<HashMap<String, Vec<u8>>>);

const TEAM: &str = "ABCDE12345";

impl TokenKeys {
    pub(crate) fn issue(&self) -> Result<IssuedTokenKey, IssueError> {
        let key = KeyPair::generate()?;
        // Apple's key ids have 10 characters. The last group of a UUID has 12 characters, and the
        // last 10 of them are used here.
        let key_id = random_uuid()?.split_off(26).to_uppercase();
        if let Ok(mut keys) = self.0.write() {
            keys.insert(key_id.clone(), key.public_key_raw().to_vec());
        }
        Ok(IssuedTokenKey {
            key: key.serialize_pem(),
            key_id,
            team_id: TEAM.into(),
        })
    }

    /// Returns the reason why APNs would refuse this header, if there is one.
    pub(crate) fn fault(&self, authorization: Option<&HeaderValue>) -> Option<&'static str> {
        let Some(token) = authorization
            .and_then(|value| value.to_str().ok())
            .and_then(|text| {
                text.strip_prefix("bearer ")
                    .or_else(|| text.strip_prefix("Bearer "))
            })
        else {
            return Some("MissingProviderToken");
        };
        match self.issued_at(token) {
            None => Some("InvalidProviderToken"),
            Some(at)
                if SystemTime::now()
                    .duration_since(at)
                    .is_ok_and(|age| age > MAX_AGE) =>
            {
                Some("ExpiredProviderToken")
            }
            Some(_) => None,
        }
    }

    /// Returns when a token was issued. Returns `None` if none of the keys signed it.
    fn issued_at(&self, token: &str) -> Option<SystemTime> {
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let header = json(header)?;
        let claims = json(claims)?;
        let keys = self.0.read().ok()?;
        let key = keys.get(header.get("kid")?.as_str()?)?;
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key)
            .verify(signed.as_bytes(), &BASE64.decode(signature).ok()?)
            .ok()?;
        let right = header.get("alg")? == "ES256" && claims.get("iss")? == TEAM;
        let issued = UNIX_EPOCH.checked_add(Duration::from_secs(claims.get("iat")?.as_u64()?))?;
        right.then_some(issued)
    }
}

fn json(part: &str) -> Option<Value> {
    serde_json::from_slice(&BASE64.decode(part).ok()?).ok()
}
