//! The program as its users meet it. The tests start it as a process, use it over HTTP, signal it
//! and kill it.

#![allow(clippy::expect_used, clippy::unwrap_used)]

mod abuse;
mod archives;
mod bench;
mod certificates;
mod check;
mod clone;
mod conformance;
mod copying;
mod crash;
mod disk_full;
mod folder;
mod hostile;
mod instances;
mod limits;
mod links;
mod metrics;
mod moving;
mod phone;
mod postgres;
mod prefix;
mod program;
mod push;
mod redis;
mod refusals;
mod refused;
mod restoring;
mod sqlite;
mod tls;
mod traces;
mod wallets;
