//! The store on a real PostgreSQL: under load, cut off, killed, and set up wrongly.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on should panic")]

mod crash;
mod disk_full;
mod examples;
mod faults;
mod maintenance;
mod plans;
mod pooler;
mod published;
mod schema;
mod sharing;
mod support;
mod transactions;
