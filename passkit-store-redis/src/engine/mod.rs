//! Runs commands on a node, behind Sentinels or on a Cluster.
//!
//! Each file uses only the files that come before it in this list: `scripts`, `command`, `connection` (the kinds of servers),
//! `runner` (retries), `answers`, `pages`, `tls`, `connect` (addresses).

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
