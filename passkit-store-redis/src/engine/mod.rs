//! How the server is asked, whatever stands behind it: a node, Sentinels or a Cluster.
//!
//! Each file uses those above it: `scripts`, `command`, `connection` (the topologies), `runner` (until it is answered),
//! `answers`, `pages`, `tls`, `connect` (addresses).

mod answers;
mod command;
mod connect;
mod connection;
mod pages;
mod runner;
pub(crate) mod scripts;
mod tls;

pub use connection::Connection;
pub(crate) use {
    answers::{length, one, pairs, read, values},
    command::{Command, name_of_call},
    connect::{Address, connect},
    pages::Place,
    runner::Runner,
};
