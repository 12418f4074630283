//! Correct implementations pass every case. Each of many faulty implementations breaks the expected
//! rule in the expected cases.

// Clippy allows `expect` and `unwrap` in tests, but not in their helpers.
#![allow(clippy::expect_used, clippy::unwrap_used)]

mod example;
mod phone;
mod service;
mod store;
mod table;
