#![doc = include_str!("../README.md")]

mod authorization;
mod body;
mod conditional;
pub mod device_log;
mod endpoints;
pub mod identifiers;
mod kind;
pub mod maintenance;
#[cfg(feature = "metrics")]
pub mod metrics;
pub mod push;
mod refusal;
mod request_body;
mod response;
mod route;
pub mod service;
pub mod source;
pub mod store;
mod traced;

pub use async_trait::async_trait;
pub use identifiers::{AuthToken, PassId};
pub use service::WalletService;
pub use source::{ArchiveBody, Credentials, PassSource, SourceError};
pub use store::{Changed, PassState};
