//! Not part of the public API. The crates of this project share it.

mod chain;
mod one_line;

pub use self::{chain::Chain, one_line::OneLine};
