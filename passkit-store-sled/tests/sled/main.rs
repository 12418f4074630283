//! Tests the store on a real disk: under load, killed, out of space, and opened wrongly.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on should panic"
)]

mod concurrency;
mod crash;
mod disk_full;
mod durability;
mod faults;
mod maintenance;
mod opening;
mod rows;
mod support;
