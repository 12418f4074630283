#![doc = include_str!("../README.md")]

mod answer;
mod backoff;
mod config;
mod connection;
mod endpoint;
mod error;
#[cfg(feature = "local")]
pub mod local;
mod pool;
mod request;
mod sender;
mod token;
mod watch;

pub use config::{Config, Profile};
pub use error::ApnsError;
pub use passkit_identity::Identity;
pub use sender::ApnsSender;
pub use token::TokenKey;
