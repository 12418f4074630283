//! Correct implementations pass every case. Each of many faulty ones fails, under the right rule.

// The exemption for tests does not cover their helpers.
#![allow(clippy::expect_used, clippy::unwrap_used)]

mod example;
mod phone;
mod service;
mod store;
mod table;
