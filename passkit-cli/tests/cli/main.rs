//! The program as its users meet it: started as a process, spoken to over HTTP, signalled, and killed.

#![allow(clippy::expect_used, clippy::unwrap_used)]

mod archives;
mod bench;
mod certificates;
mod check;
mod clone;
mod conformance;
mod crash;
mod disk_full;
mod folder;
mod instances;
mod limits;
mod metrics;
mod moving;
mod phone;
mod postgres;
mod program;
mod push;
mod redis;
mod refusals;
mod tls;
mod traces;
mod wallets;
