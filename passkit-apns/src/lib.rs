#![doc = include_str!("../README.md")]

mod answer;
mod backoff;
mod certificate;
mod config;
mod connection;
mod endpoint;
mod error;
mod identity;
mod parts;
#[cfg(feature = "pkcs12")]
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
