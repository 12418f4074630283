//! Uses the folder as a Rust program does. The tests of the program `passkit` check how it serves
//! files.

#![allow(clippy::expect_used, clippy::unwrap_used)]

mod copies;
mod instances;
mod levels;
mod opening;
mod purged;
mod world;
