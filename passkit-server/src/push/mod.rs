//! From "this pass changed" to every phone: what is owed, who sends it, and what comes of it.

mod publisher;
mod queue;
mod recent;
mod report;
mod sender;
#[cfg(test)]
mod tests;
mod topic;

pub use publisher::{Publisher, PushConfig};
pub use queue::{Debt, HeldPage, HeldPush, Owed, Owing, PushQueue, Reached};
pub use report::PushReport;
pub use sender::{PushOutcome, PushSender};
