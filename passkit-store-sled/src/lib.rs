#![doc = include_str!("../README.md")]

mod changes;
mod config;
mod coordination;
mod engine;
mod error;
mod layout;
mod maintenance;
mod queue;
mod registrations;
mod store;

pub use config::Config;
pub use store::SledStore;
