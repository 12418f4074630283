use std::error::Error;

use passkit_server::identifiers::TypeIdentifier;

/// The reason why there is no signer or no signature. `Display` writes one line, which says what is
/// wrong and how to fix it.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct SignerError {
    kind: SignerErrorKind,
    message: String,
    source: Option<Box<dyn Error + Send + Sync>>,
}

/// The kind of problem with a signer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SignerErrorKind {
    /// The certificate can't be read, is damaged, or is not for passes or orders.
    Certificate,
    /// The certificate is not valid yet.
    NotYetValid,
    /// The certificate has expired.
    Expired,
    /// The certificate and the archive are for different types.
    Type,
    /// The certificate and the archive are for different teams.
    Team,
    /// The key does not fit the certificate, or phones refuse its algorithm.
    Key,
    /// The key failed to sign. The error of the key is the source of this error.
    Signing,
    /// The intermediate certificate did not issue the certificate, can't be read, or is unknown.
    Intermediate,
    /// The text is not a personalization token.
    Token,
    /// The system clock is before 1970, or the signature can't be written for another reason.
    Other,
}

impl SignerError {
    pub(super) fn new(kind: SignerErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            source: None,
        }
    }

    pub(super) fn signing(type_id: &TypeIdentifier, source: Box<dyn Error + Send + Sync>) -> Self {
        let message = format!("the key of the certificate for {type_id} failed to sign");
        Self {
            source: Some(source),
            ..Self::new(SignerErrorKind::Signing, message)
        }
    }

    /// Returns the kind of problem.
    #[must_use]
    pub fn kind(&self) -> SignerErrorKind {
        self.kind
    }
}

impl From<der::Error> for SignerError {
    fn from(error: der::Error) -> Self {
        Self::new(
            SignerErrorKind::Other,
            format!("failed to write the signature: {error}"),
        )
    }
}

impl From<ring::error::Unspecified> for SignerError {
    fn from(_: ring::error::Unspecified) -> Self {
        Self::new(SignerErrorKind::Other, "the system has no random numbers")
    }
}
