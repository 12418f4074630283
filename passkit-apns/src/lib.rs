#![doc = include_str!("../README.md")]

mod answer;
mod backoff;
#[path = "../../passkit-identity/src/certificate.rs"]
mod certificate;
mod config;
mod connection;
mod endpoint;
mod error;
#[path = "../../passkit-identity/src/identity.rs"]
mod identity;
#[path = "../../passkit-identity/src/parts.rs"]
mod parts;
#[cfg(feature = "pkcs12")]
#[path = "../../passkit-identity/src/pkcs12/mod.rs"]
mod pkcs12;
mod pool;
mod request;
mod sender;
mod token;
mod watch;

pub use config::{Config, Profile};
pub use error::ApnsError;
pub use identity::Identity;
pub use sender::ApnsSender;
pub use token::TokenKey;
