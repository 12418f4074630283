#![doc = include_str!("../README.md")]

mod config;
mod connect;
mod connection;
mod error;
mod index;
mod keys;
mod maintenance;
mod published;
mod query;
mod queue;
mod scripts;
mod store;
mod tls;

pub use config::Config;
pub use connection::Connection;
pub use maintenance::Repaired;
pub use redis;
pub use store::RedisStore;
