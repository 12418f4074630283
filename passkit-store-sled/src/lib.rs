//! The registrations of an Apple Wallet web service in a folder of one machine.
//!
//! [`SledStore`] implements all traits of a store: [`RegistrationStore`](passkit_server::store::RegistrationStore),
//! [`Coordination`](passkit_server::store::Coordination), [`PushQueue`](passkit_server::push::PushQueue) and
//! [`StoreMaintenance`](passkit_server::maintenance::StoreMaintenance). Only one process at a time can open a folder.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let folder = folder.path();
//! use passkit_server::maintenance::StoreMaintenance;
//! use passkit_store_sled::{Config, SledStore};
//!
//! let store = SledStore::open_with(&Config::new(folder).cache_bytes(256 << 20))?;
//! assert_eq!(store.stats().await?.devices, 0);
//! # Ok(())
//! # }
//! ```
//!
//! # How it works
//! One thread writes. It takes all changes that wait, applies them as one batch, and syncs the log once. A change that fails
//! is undone alone. Then it answers the callers.
//!
//! Readers see only what is durable. The engine shows a batch before it is synced, so readers get the previous value of each
//! row until then. Rows that were read or written lately are in memory, and a call that needs no others does not wait for the
//! disk. Two threads read everything else.
//!
//! If a write fails, the engine accepts no further call. The store then closes it and opens it again when it is called, at
//! most once a second.

// Each file uses only those before it: config, error, layout, engine, changes, registrations, store, coordination, queue,
// maintenance.
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

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
