use der::asn1::ObjectIdentifier;

/// A file with more iterations than this would block the reader for minutes.
const MAX_ITERATIONS: u32 = 10_000_000;

/// The reason why a file can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Problem {
    #[error("is not a PKCS #12 file, or is damaged")]
    NotPkcs12,
    #[error("is in BER with indefinite lengths: write it again with `openssl pkcs12`")]
    OpenLengths,
    #[error("the password is wrong")]
    Password,
    #[error("is protected by the unknown scheme {0}: write it again with `openssl pkcs12`")]
    Unknown(ObjectIdentifier),
    #[error("its encrypted private key is damaged: copy the file again")]
    NotKey,
    #[error(
        "its private key is encrypted with the unknown scheme {0}: write it again with \
         `openssl pkcs8 -topk8 -in OLD -out NEW`"
    )]
    UnknownOfKey(ObjectIdentifier),
    #[error("needs {0} iterations to check a password, which is too many")]
    Iterations(u32),
}

impl From<der::Error> for Problem {
    fn from(_: der::Error) -> Self {
        Self::NotPkcs12
    }
}

/// Returns the number of iterations if it is not too high.
pub(super) fn bounded(iterations: u32) -> Result<u32, Problem> {
    if iterations <= MAX_ITERATIONS {
        Ok(iterations)
    } else {
        Err(Problem::Iterations(iterations))
    }
}
