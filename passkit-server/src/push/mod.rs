//! Pushes: the publisher, the queue of pending pushes, and the sender.

mod context;
mod deliveries;
mod feedback;
mod publisher;
mod queue;
mod recent;
mod report;
mod sender;
#[cfg(test)]
mod tests;
mod type_worker;

pub use context::PushConfig;
pub use publisher::Publisher;
pub use queue::{Backlog, DeferredPush, PendingChange, Progress, PushQueue, Scope};
pub use report::{PushReport, Stopped};
pub use sender::{PushOutcome, PushSender};
