//! Code that the benches share: the data, the stores with a floor for each, and code that measures
//! both in turns.
//!
//! The example in `docs/getting-started.md` is compiled here, because this crate is not published.

#![allow(
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "a bench that cannot go on should panic"
)]
// Only the benches use this crate.
#![allow(missing_debug_implementations)]

// Each file uses only earlier files of this list: data, memory, results, plot, turns, http,
// statistics, sqlite, floor, writes, stores.
pub mod data;
pub mod floor;
pub mod http;
pub mod memory;
mod plot;
mod results;
pub mod sqlite;
pub mod statistics;
pub mod stores;
pub mod turns;
pub mod writes;

#[cfg(doctest)]
#[doc = include_str!("../../docs/getting-started.md")]
struct GettingStarted;
