//! Keeps the registrations of an Apple Wallet web service in one SQLite file.
//!
//! [`SqliteStore`] implements all store traits: [`RegistrationStore`](passkit_server::store::RegistrationStore),
//! [`Coordination`](passkit_server::store::Coordination), [`PushQueue`](passkit_server::push::PushQueue),
//! [`DeliveryLog`](passkit_server::delivery::DeliveryLog) and
//! [`StoreMaintenance`](passkit_server::maintenance::StoreMaintenance). Any number of processes of one machine can open the same file.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("passkit.db");
//! use std::sync::Arc;
//!
//! use passkit_server::maintenance::StoreMaintenance;
//! use passkit_store_sqlite::{Config, SqliteStore};
//!
//! let config = Config::new(&path).create(true).cache_bytes(256 << 20);
//! let store = Arc::new(SqliteStore::open_with(&config)?);
//! assert_eq!(store.stats().await?.devices, 0);
//! store.backup(path.with_extension("backup")).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # How it works
//! The database uses write-ahead logging. A commit appends changes to a log, which is a second file in the same folder. A
//! checkpoint copies them into the first file later. A reader sees the database as of the last commit before it started, and
//! never waits for a writer.
//!
//! One thread writes. It makes all waiting changes in one transaction, and syncs the log once for all of them. If a single
//! change fails, only that change is rolled back. Other threads read, each over its own connection. Quick reads that wait at
//! the same time share a snapshot. Long reads, such as pages of devices and backups, have threads of their own.
//!
//! One more thread runs the checkpoints while the writer goes on. The log grows to about 64 MiB. It grows further only during
//! a long read, such as a backup.
//!
//! # Your own tables
//! If your tables are in the same file, [`mark_in`] and [`mark_and_push_in`] mark passes in your own transaction. The content
//! and its mark then commit together:
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("shop.db");
//! use passkit_server::{Changed, identifiers::{SerialNumber, TypeIdentifier}};
//! use passkit_store_sqlite::{SqliteStore, create_in, mark_and_push_in, rusqlite};
//! use rusqlite::{Connection, TransactionBehavior};
//!
//! let mut shop = Connection::open(&path)?;
//! shop.execute("create table ticket (id text primary key, seat text)", [])?;
//! // Do this once, in your migrations.
//! let transaction = shop.transaction_with_behavior(TransactionBehavior::Immediate)?;
//! create_in(&transaction)?;
//! transaction.commit()?;
//! let store = SqliteStore::open(&path)?;
//!
//! let transaction = shop.transaction_with_behavior(TransactionBehavior::Immediate)?;
//! transaction.execute("insert into ticket values ('A-0001', '12 C')", [])?;
//! let ticket = TypeIdentifier::new("pass.com.example.ticket")?;
//! mark_and_push_in(&transaction, &ticket, Changed::Passes(&[SerialNumber::new("A-0001")?]))?;
//! transaction.commit()?;
//! // Then call `Publisher::wake`, so that the pushes go out at once.
//! # drop(store);
//! # Ok(())
//! # }
//! ```

mod backup;
mod changes;
mod config;
mod coordination;
mod delivery;
mod engine;
mod error;
mod layout;
mod maintenance;
mod network;
mod queue;
mod registrations;
mod store;

pub use changes::mark_in;
pub use config::Config;
pub use queue::mark_and_push_in;
pub use rusqlite;
pub use store::{SqliteStore, create_in};

#[doc(hidden)]
pub use layout::STATEMENTS;

/// Compiles the example in the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(doctest)]
#[doc = include_str!("../../docs/writing-a-store.md")]
struct WritingAStore;
