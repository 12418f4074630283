//! Keeps the registrations of an Apple Wallet web service in Redis: on one node, behind Sentinels or on a Cluster.
//!
//! [`RedisStore`] implements all store traits of `passkit-server` except `ArchiveStore`. Any number of processes can share one Redis.
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
//! # What is lost in which failure
//!
//! | failure | no persistence | `appendfsync everysec` | `appendfsync always` |
//! |---|---|---|---|
//! | a node restarts | everything | up to a second of acknowledged changes | nothing |
//! | failover, `min_replicas` 0 | the changes that the replica had not received, usually from the last few milliseconds | the same | the same |
//! | failover, `min_replicas` 1 or more | nothing, if the new master is a replica that has confirmed the changes | the same | the same |
//! | a master is cut off from the other servers but not from the service, `min_replicas` 0 | the changes that it accepts while it is cut off: on a Cluster for up to `cluster-node-timeout`, behind Sentinels for the whole time | the same | the same |
//! | a master is cut off in this way, `min_replicas` 1 or more | nothing, if the new master is a replica that has confirmed the changes | the same | the same |
//! | a master and all its replicas stop at once | everything | up to a second of acknowledged changes | nothing |
//!
//! **With [`min_replicas`](Config::min_replicas)**, every change waits for that many replicas. If they don't confirm in time,
//! the call fails, although the change may have taken effect. The caller can safely repeat the call. Reads of lists and dates
//! wait as well, because a failover must not lose a change or a time that a device has seen. A list waits twice, and causes
//! writes to the replicas and to the append-only file.
//!
//! **How many replicas?** If each master has a single replica, changes and lists fail while the master or the replica is
//! down. To avoid that on a Cluster, use two replicas for each master and `min_replicas(1)`. Behind Sentinels, set
//! `min_replicas` to the number of replicas. Sentinels may choose the replica that has less data, because their information
//! is up to ten seconds old. The replicas of a Cluster compare their data during the election, but the replica with the
//! newest data may be unreachable. So even on a Cluster, only waiting for all replicas is completely safe.
//!
//! **An old master that can still be reached.** Sentinels may choose a new master while the service can still reach the old
//! one. The service changes to the new master with the first change or list that is not confirmed. Until then, for about
//! `replica_timeout`, the service may read the devices of a pass from the old master. A device that has just been registered
//! at the new master may then miss a push. With `min_replicas` 0, the service stays with the old master until the other
//! servers reach the old master again. Set `min-replicas-to-write` in Redis, so that the old master stops accepting changes by
//! itself.
//!
//! **Pushes.** A pending push is lost only together with its mark. If a failover loses the progress of pushes, these pushes
//! are sent again. If a failover loses a claim, two workers may send the same pushes for a while. With `min_replicas` 0, a
//! failover may also lose the list of buckets with pending pushes. These pushes then wait up to five minutes, until a worker
//! reads all buckets. The very first push of a type may wait longer: until the next push of the type, or until
//! [`RedisStore::repair`] runs.
//!
//! **Delivery records** never wait for replicas, so a failover may lose the newest records. If a connection breaks before the
//! answer, a record may be counted twice.
//!
//! **After a loss or a restored backup**, mark each type with `Changed::All`, so that devices fetch what they missed.
//! [`RedisStore::repair`] rebuilds the indexes. A device whose registration was lost registers again only when its user does
//! something. With `min_replicas` 0, the clocks of the service's machines should agree within about a second, which is
//! the time that a failover takes. As long as nothing is lost, the clocks may differ by any amount.
//!
//! # What it needs
//!
//! * `maxmemory-policy noeviction`. A server that may evict keys is refused. The store logs a warning if a server has neither
//!   an append-only file nor replicas.
//! * Redis 6.2 or later, or Valkey. The tests use Redis 7.0.15. They run all cases of the contract on one node, behind
//!   Sentinels and on a Cluster. They also kill, pause and isolate masters, move slots, and try wrong settings. An earlier
//!   version of this crate was also tested with Redis 6.2.14 and 8.0.2, and with Valkey 8.1.1. That version used the same
//!   commands as this one, except `ZSCORE` and `ZREMRANGEBYSCORE`.
//! * If the store has its own Redis user, the user needs these rights: `~passkit:* +@hash +@scripting +@connection +info
//!   +wait +expire +persist +unlink +scan +memory|usage +zadd +zcard +zrange +zrem +zremrangebyscore +zscore +get +set
//!   +time`, and on a Cluster also `+cluster|slots +cluster|countkeysinslot +cluster|getkeysinslot`.
//! * For TLS, the certificate of the server must be for the host name of the URL. The certificate must come from an
//!   authority that the system trusts, or from one in `Config::root_certificates`. Redis asks for a client certificate
//!   unless `tls-auth-clients` is `no`: see `Config::client_certificate`.
//!
//! # What it costs
//!
//! Each number is the time of the call, divided by the time of the bare commands or scripts over the same driver. Redis ran on
//! the same two cores (`cargo bench -p passkit-benches -- 'redis|cluster'`):
//!
//! | call | one node | Cluster |
//! |---|---|---|
//! | list of a device with 3 passes, 1 caller; 64 callers | 1.05; 1.16 | 1.10; 1.12 |
//! | registration without the index of its type, 1 caller; 64 callers | 0.97; 1.24 | 1.02; 1.23 |
//! | mark, 1 caller; 512 callers | 1.13; 1.07 | 1.13; 1.22 |
//!
//! A registration takes about 400 bytes of memory if each device has 3 passes that no other device has. In addition, the index
//! of a type takes about 150 bytes for each device. This index makes registrations slower: Compared with a store without this
//! index, 1 caller makes 0.86 times as many registrations per second, and 64 callers make 0.75 times as many. In return, a push
//! to a whole type reads only the devices of that type.
//!
//! A Cluster of three masters is no faster than one node if the masters, their replicas and the service share two cores
//! (`cargo bench -p passkit-benches --bench masters`).
//!
//! A list of a device with 10,000 passes takes 21 ms, which is 1.1 to 1.25 times as long as the bare commands. If the type
//! has fewer than about 30,000 passes, the list takes 10 ms more, because Redis then stores a bucket as a list and searches
//! it for each pass. The setting `hash-max-listpack-entries 64` (in 6.2 `hash-max-ziplist-entries`) avoids that, but takes
//! some memory.
//!
//! # Features
//!
//! | feature | default | effect |
//! |---|---|---|
//! | `tls` | off | Accepts `rediss://`, `rediss+cluster://` and `rediss+sentinel://` URLs, and the certificates of [`Config`]. |

// Each file uses only the files that come before it in this list: config, error, layout, engine, dirty, store, changes,
// registrations, coordination, delivery, queue, maintenance.
mod changes;
mod config;
mod coordination;
mod delivery;
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

/// Compiles the example in the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
