//! From "this pass changed" to every phone: what is owed, who sends it, and what comes of it.

mod judging;
mod publisher;
mod queue;
mod recent;
mod report;
mod sender;
#[cfg(test)]
mod tests;
mod topic;
mod worker;

pub use publisher::Publisher;
pub use queue::{Backlog, DeferredPush, PendingChange, Progress, PushQueue, Scope};
pub use report::{PushReport, Stopped};
pub use sender::{PushOutcome, PushSender};
pub use worker::PushConfig;
