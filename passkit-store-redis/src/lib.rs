//! Keeps the registrations of an Apple Wallet web service in Redis: on one node, behind Sentinels or on a Cluster.
//!
//! [`RedisStore`] implements all store traits of `passkit-server`. Any number of processes can share one Redis. The
//! [README](https://github.com/passkit-rs/passkit/tree/main/passkit-store-redis#readme) says what it guarantees in which
//! failure, what it needs, and what it costs.
//!
//! ```no_run
//! use passkit_server::{Changed, PassId, identifiers::{DeviceIdentifier, PushToken}, store::{Registered, RegistrationStore}};
//! use passkit_store_redis::{Config, RedisStore};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let store = RedisStore::connect("redis+cluster://a:6379,b:6379", Config::new().min_replicas(1)).await?;
//!
//! let phone = DeviceIdentifier::new("0a1b2c3d4e5f60718293a4b5c6d7e8f9")?;
//! let ticket = PassId::new("pass.com.example.ticket", "A-0001")?;
//! let token = PushToken::new("c0ffee")?;
//! assert_eq!(store.register(&phone, &ticket, &token).await?, Registered::Created);
//!
//! let first = store.changes_since(&phone, &ticket.type_id, None).await?;
//! store.mark(&ticket.type_id, Changed::Passes(&[ticket.serial.clone()])).await?;
//! let next = store.changes_since(&phone, &ticket.type_id, Some(first.tag)).await?;
//! assert_eq!(next.serials, [ticket.serial]);
//! # Ok(())
//! # }
//! ```
//!
//! # Features
//!
//! | feature | default | effect |
//! |---|---|---|
//! | `tls` | off | Accepts `rediss://`, `rediss+cluster://` and `rediss+sentinel://` URLs, and the certificates of [`Config`]. |

// Each file uses only those before it: config, error, layout, engine, dirty, store, changes, registrations, coordination, queue,
// maintenance.
mod changes;
mod config;
mod coordination;
mod dirty;
mod engine;
mod error;
mod layout;
mod maintenance;
mod queue;
mod registrations;
mod store;

pub use config::Config;
pub use engine::Connection;
pub use error::Error;
pub use maintenance::Repaired;
pub use redis;
pub use store::RedisStore;

#[doc(hidden)]
pub use engine::scripts::SCRIPTS;
