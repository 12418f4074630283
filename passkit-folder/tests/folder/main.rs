//! The folder as a Rust program uses it. How it serves files is tested with the program `passkit`.

#![allow(clippy::expect_used, clippy::unwrap_used)]

mod copies;
mod instances;
mod levels;
mod opening;
mod world;
