//! Not part of the public API. The crates of this project share it.

mod chain;
mod closest;
mod one_line;

pub use self::{chain::Chain, closest::closest, one_line::OneLine};
