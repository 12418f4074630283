//! What the benches share: the data, the stores with a floor beside each, and measuring the two by turns. Besides, it
//! holds the project's README, so that the example there is compiled, in a crate that is not published.

// A bench that can't go on has nobody to give an error to.
#![allow(clippy::expect_used, clippy::missing_panics_doc)]
// Only the benches use it.
#![allow(missing_debug_implementations)]

pub mod data;
pub mod floor;
pub mod http;
pub mod memory;
mod plot;
pub mod statistics;
pub mod stores;
pub mod turns;
pub mod writes;

#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
