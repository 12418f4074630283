//! The registrations of an Apple Wallet web service in PostgreSQL, for any number of instances.
//!
//! [`PostgresStore`] implements all traits of a store: [`RegistrationStore`](passkit_server::store::RegistrationStore),
//! [`Coordination`](passkit_server::store::Coordination), [`ArchiveStore`](passkit_server::store::ArchiveStore),
//! [`PushQueue`](passkit_server::push::PushQueue), [`DeliveryLog`](passkit_server::delivery::DeliveryLog) and
//! [`StoreMaintenance`](passkit_server::maintenance::StoreMaintenance). It uses the pool that you have, or makes one.
//!
//! ```no_run
//! use passkit_server::maintenance::StoreMaintenance;
//! use passkit_store_postgres::{Config, PostgresStore};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let store = PostgresStore::connect("postgres://localhost/tickets", Config::new().connections(4)).await?;
//! store.migrate().await?;
//! assert_eq!(store.stats().await?.devices, 0);
//! # Ok(())
//! # }
//! ```
//!
//! # Your own transaction
//! [`mark_in`] and [`mark_and_push_in`] mark passes in your transaction, so that the new content and its mark commit together:
//!
//! ```no_run
//! use passkit_server::{Changed, identifiers::{SerialNumber, TypeIdentifier}};
//! use passkit_store_postgres::{mark_and_push_in, sqlx};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let pool = sqlx::PgPool::connect("postgres://localhost/tickets").await?;
//! let ticket = TypeIdentifier::new("pass.com.example.ticket")?;
//! let mut transaction = pool.begin().await?;
//! sqlx::query("update seat set row = 7 where ticket = 'A-0001'").execute(&mut *transaction).await?;
//! mark_and_push_in(&mut transaction, &ticket, Changed::Passes(&[SerialNumber::new("A-0001")?])).await?;
//! transaction.commit().await?;
//! // Then call `Publisher::wake`, so that the pushes go out at once.
//! # Ok(())
//! # }
//! ```
//!
//! [`mark_in`] says which locks your transaction then holds.
//!
//! # How it works
//! All data is in the schema `passkit`, apart from your own tables. A call is one statement, and mostly one function of that
//! schema. Callers that wait at the same time share a statement. If no other caller waits, a call is sent at once. If a
//! shared statement fails because of one caller, the store sends a statement for each caller.
//!
//! A mark locks the row of its type, and advances the clock in that row. So if a version can be read, its mark and all marks
//! with lower versions are committed. A registration locks the row of its device. All calls lock rows in the same order, so
//! that they can't deadlock.
//!
//! # The pool
//! The store uses up to [`Config::connections`] connections of its pool. It returns a connection to the pool when the
//! connection has been idle for a quarter of a second. [`PostgresStore::connect`] sets `statement_timeout` and switches JIT
//! off. Do the same for a pool of your own. `test_before_acquire(false)` saves a round trip there. It is safe, because the
//! store retries.
//!
//! Behind PgBouncer with `pool_mode = transaction`, set [`Config::transaction_pooler`], and `statement_cache_capacity(0)` for
//! a pool of your own. A call is then four round trips. PgBouncer 1.21 or later needs neither setting if its
//! `max_prepared_statements` is set. Behind PgBouncer, don't drop the future of your own `begin` before it is ready, because
//! sqlx 0.9 then leaves the transaction open.
//!
//! # Migrations
//! [`PostgresStore::migrate`] runs in one transaction under an advisory lock ([`Config::migration_lock`]), and records each
//! migration in the table `passkit.migration`. You can also run the files in `migrations/` with another tool, as they are.
//! [`PostgresStore::check`] reports a missing or wrong schema when a program starts. Each migration says which programs can
//! use the schema after it. If these include the previous version, migrate first, and then replace your instances one by one.

// Each file uses only those before it: config, error, layout, engine, batches, store, changes, registrations, coordination,
// archives, delivery, queue, maintenance.
mod archives;
mod batches;
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

pub use changes::{mark_and_push_in, mark_in};
pub use config::Config;
pub use sqlx;
pub use store::PostgresStore;

#[doc(hidden)]
pub use layout::STATEMENTS;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
