#![doc = include_str!("../README.md")]

mod config;
mod database;
mod error;
mod group;
mod keys;
mod maintenance;
mod queue;
mod reader;
mod settled;
mod store;
mod writer;

pub use config::Config;
pub use store::SledStore;
