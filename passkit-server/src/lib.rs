#![doc = include_str!("../README.md")]

mod authorization;
mod body;
pub mod clock;
mod conditional;
mod coordination;
mod device_log;
mod endpoints;
mod identifiers;
mod kind;
mod maintenance;
#[cfg(feature = "metrics")]
mod measured;
mod memory;
mod published;
mod push;
mod refusal;
mod request_body;
mod response;
mod route;
mod service;
mod source;
mod store;
mod tag;
mod traced;

pub use async_trait::async_trait;
pub use body::ResponseBody;
pub use coordination::{Claims, Coordination};
pub use device_log::{DeviceLog, DeviceReport, DeviceTask, LogEntry, TracingLog};
pub use identifiers::{
    AuthToken, DeviceIdentifier, InvalidIdentifier, PassId, PushToken, SerialNumber, TokenDigest,
    TypeIdentifier,
};
pub use kind::Kind;
pub use maintenance::{Registration, StoreMaintenance, StoreStats, TypeStats};
#[cfg(feature = "metrics")]
pub use measured::{Measured, describe_metrics};
pub use memory::MemoryStore;
pub use published::{Content, ContentDigest, Published, unite_tokens};
pub use push::{
    Backlog, DeferredPush, PendingChange, Progress, Publisher, PushConfig, PushOutcome, PushQueue,
    PushReport, PushSender, Scope, Stopped,
};
pub use service::WalletService;
pub use source::{Archive, Credentials, PassSource, SourceError};
pub use store::{
    Audience, Changed, Changes, Page, PageCursor, PassState, Registered, RegisteredDevice, RegistrationStore,
    StoreError, StoreErrorKind,
};
pub use tag::UpdateTag;
