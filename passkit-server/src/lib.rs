//! placeholder
mod identifiers;
mod kind;
pub use identifiers::{
    AuthToken, DeviceIdentifier, InvalidIdentifier, PassId, PushToken, SerialNumber, TokenDigest,
    TypeIdentifier,
};
pub use kind::Kind;
