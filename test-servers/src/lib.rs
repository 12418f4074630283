//! Real database servers for tests and benches.
//!
//! A server is looked for in this order: an address in the environment; the server's programs on this machine, which
//! then run as a throw-away on a free port; a container, where a Docker engine answers. Where there is none of these,
//! the error's one line names all three.

#[cfg(feature = "containers")]
mod container;
pub mod postgres;
mod process;
pub mod redis;
