#![doc = include_str!("../README.md")]

mod batch;
mod calls;
mod config;
mod connections;
mod error;
mod maintenance;
mod migrate;
mod published;
mod queue;
mod schema;
mod store;

pub use config::Config;
pub use sqlx;
pub use store::{PostgresStore, mark_and_owe_in, mark_updated_in};

#[doc(hidden)]
pub use schema::STATEMENTS;
