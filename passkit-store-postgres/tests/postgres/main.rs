//! Tests the store on a real PostgreSQL: under load, with broken connections, killed, and set up wrongly.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on should panic"
)]

mod archives;
mod clocks;
mod coordination;
mod crash;
mod delivery;
mod disk_full;
mod errors;
mod faults;
mod maintenance;
mod paging;
mod plans;
mod pooler;
mod published;
mod queue;
mod schema;
mod sharing;
mod support;
mod transactions;
