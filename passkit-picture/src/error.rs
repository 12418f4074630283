use passkit_archive::Finding;

/// The reason why a pass has no picture. `Display` writes one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DrawError {
    /// `pass.json` can't be read.
    #[error(transparent)]
    Content(#[from] Finding),
    /// The files belong to an order.
    #[error("is an order, and only passes have a picture")]
    Order,
    /// The pass has no known style.
    #[error("has no style that can be drawn; add one such as generic to pass.json")]
    NoStyle,
}
