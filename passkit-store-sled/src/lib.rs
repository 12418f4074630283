//! Keeps the registrations of an Apple Wallet web service in a folder on one machine.
//!
//! [`SledStore`] implements all store traits: [`RegistrationStore`](passkit_server::store::RegistrationStore),
//! [`Coordination`](passkit_server::store::Coordination), [`PushQueue`](passkit_server::push::PushQueue),
//! [`DeliveryLog`](passkit_server::delivery::DeliveryLog) and
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
//! One thread writes. It applies all waiting changes as one batch, syncs the log once, and then answers the callers. If a
//! single change fails, only that change is undone.
//!
//! Readers see only what is durable. The engine would show a batch before it is synced. Until the sync, readers get the
//! previous value of each row instead. Rows that were recently read or written are in memory. A call that needs only such
//! rows does not wait for the disk. Two threads read everything else.
//!
//! If a write fails, the engine accepts no further call. The store then closes the engine. The next call opens the engine
//! again, but at most once a second.

// Each file uses only the files that come before it in this list: config, error, layout, engine, changes, registrations,
// store, coordination, delivery, queue, maintenance.
mod changes;
mod config;
mod coordination;
mod delivery;
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
