//! A store in one SQLite file of one machine.
//!
//! TODO crate docs

mod backup;
mod changes;
mod config;
mod coordination;
mod engine;
mod error;
mod layout;
mod maintenance;
mod network;
mod queue;
mod registrations;
mod store;

pub use changes::{mark_and_push_in, mark_in};
pub use config::Config;
pub use rusqlite;
pub use store::{SqliteStore, create_in};
