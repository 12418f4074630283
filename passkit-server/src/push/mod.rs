//! From "this pass changed" to every phone: what is owed, who sends it, and what comes of it.

mod queue;
mod sender;

pub use queue::{Debt, HeldPage, HeldPush, Owed, Owing, PushQueue, Reached};
pub use sender::{PushOutcome, PushSender};
