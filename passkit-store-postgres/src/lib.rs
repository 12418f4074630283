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

pub use changes::{mark_and_push_in, mark_in};
pub use config::Config;
pub use sqlx;
pub use store::PostgresStore;

#[doc(hidden)]
pub use layout::STATEMENTS;
