/// A problem with a certificate or its key. Its text is one line with the type and the file, if they
/// are known.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct IdentityError(pub(crate) String);
