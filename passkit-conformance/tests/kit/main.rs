//! The kit: sound implementations pass every case, and each of many wrong ones is caught, under the right rule.

// The exemption for tests does not reach their helpers.
#![allow(clippy::expect_used, clippy::unwrap_used)]

#[cfg(feature = "cli")]
mod example;
mod phone;
mod service;
mod store;
mod table;
