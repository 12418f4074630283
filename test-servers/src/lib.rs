//! Real database servers, and processes that tests kill or trace, for tests and benches.
//!
//! The functions look for a server in this order:
//!
//! 1. an address in the environment;
//! 2. the server's programs on this machine, which then run on a free port and keep nothing;
//! 3. a container, if a Docker engine answers.
//!
//! If none of these exists, the error says in one line how to get each of them.

// Each file uses only earlier files of this list: process, wait, container, postgres, redis;
// fixtures, disk, child, crash.
pub mod child;
#[cfg(feature = "containers")]
mod container;
pub mod crash;
pub mod disk;
pub mod fixtures;
pub mod postgres;
mod process;
pub mod redis;
mod wait;

pub use wait::Outcome;
