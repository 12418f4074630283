/// A problem with a certificate or its key. The text is one line. It names the type and the file,
/// if they are known.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct IdentityError(pub(crate) String);
