//! Tests of the service from a device's view: every rule of the protocol, over a store in memory
//! and a few passes.
//!
//! There is one binary, and each file tests one endpoint or one concern. `app` is the fixture,
//! `phone` is a device that stores tags and dates and sends them back, and `test_store` is a store
//! that fails on demand.

#![allow(clippy::unwrap_used, clippy::expect_used)] // These are tests, and the helpers are outside of `#[test]`.

mod app;
mod phone;
mod test_store;

mod auth;
mod bodies;
mod delivery;
mod faults;
mod fuzz;
mod get;
mod limits;
mod list;
mod log;
mod nesting;
mod options;
mod orders;
mod published;
mod refused;
mod register;
mod steps;
mod traces;
mod unregister;
mod urls;
mod wire;
