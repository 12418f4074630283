//! Tests of the program from outside. They start it as a process, use it over HTTP, send it signals
//! and kill it.

#![allow(clippy::expect_used, clippy::unwrap_used)]

mod abuse;
mod archives;
#[allow(
    dead_code,
    unreachable_pub,
    reason = "the tests of passkit-archive use the rest of it"
)]
#[path = "../../../passkit-archive/tests/authority/mod.rs"]
mod authority;
mod backing_up;
mod bench;
mod certificates;
mod check;
mod clone;
mod configuration;
mod conformance;
mod copying;
mod crash;
mod delivery;
mod dependencies;
mod disk_full;
mod enrolling;
mod explain;
mod fleet;
mod folder;
mod health;
mod hostile;
mod https;
mod instances;
mod limits;
mod links;
mod logs;
mod making;
mod making_input;
mod making_pushes;
mod making_stopped;
mod metrics;
mod moving;
mod new;
mod openapi;
#[cfg(feature = "otlp-tests")]
mod otlp;
mod page;
mod phone;
mod postgres;
mod prefix;
mod preview;
mod private;
mod program;
mod proxies;
mod purge;
mod push;
mod redis;
mod refusals;
mod refused;
mod restoring;
mod secrets;
mod serve_making;
mod service_manager;
mod shell;
mod sign;
mod sqlite;
mod stored_archives;
mod tls;
mod traces;
mod wallets;
