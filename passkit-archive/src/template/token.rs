use std::fmt;

use passkit_server::{AuthToken, PassId, identifiers::InvalidIdentifier};
use ring::hmac;

use crate::base64;

/// A secret from which the authentication tokens of passes are derived.
///
/// The token of a pass is `base64url(HMAC-SHA-256(secret, type ‖ 0 ‖ serial))`. If a pass is made
/// again, anywhere and at any time, it therefore has the token that phones already have. If the
/// secret is lost, the passes can't be made again, because phones keep the token of the pass that
/// they have.
///
/// ```
/// use passkit_archive::template::TokenSecret;
/// # use passkit_server::{PassId, identifiers::{SerialNumber, TypeIdentifier}};
/// # let pass = PassId { type_id: TypeIdentifier::new("pass.com.example.card")?, serial: SerialNumber::new("A-1")? };
/// let secret = TokenSecret::new(&[7; 32]);
/// assert_eq!(secret.token(&pass)?.as_str(), TokenSecret::new(&[7; 32]).token(&pass)?.as_str());
/// # Ok::<(), passkit_server::identifiers::InvalidIdentifier>(())
/// ```
pub struct TokenSecret(hmac::Key);

impl TokenSecret {
    /// Makes the value from the secret: random bytes, at least 32 of them.
    #[must_use]
    pub fn new(secret: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    /// Returns the token of a pass: 43 letters, digits, `-` and `_`.
    ///
    /// # Errors
    /// Never fails in practice, because such a token is always valid.
    pub fn token(&self, pass: &PassId) -> Result<AuthToken, InvalidIdentifier> {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(pass.type_id.as_str().as_bytes());
        context.update(&[0]);
        context.update(pass.serial.as_str().as_bytes());
        AuthToken::new(&base64::for_url(context.sign().as_ref()))
    }
}

impl fmt::Debug for TokenSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenSecret(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use passkit_server::identifiers::{SerialNumber, TypeIdentifier};

    use super::*;

    #[test]
    fn a_token_is_the_hmac_of_type_and_serial() {
        // printf 'pass.com.example.card\0A-1' | openssl dgst -sha256 -hmac key -binary | basenc
        // --base64url
        let pass = PassId {
            type_id: TypeIdentifier::new("pass.com.example.card").unwrap(),
            serial: SerialNumber::new("A-1").unwrap(),
        };
        let token = TokenSecret::new(b"key").token(&pass).unwrap();
        assert_eq!(
            token.as_str(),
            "2tQiMjg2McaQGCNy6Uw4GO_H9croeKlj3ORg5t1ro7M"
        );
    }
}
