/// What is wrong with a certificate or its key. One line that names the type, where it is known, and the file.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct IdentityError(pub(crate) String);
