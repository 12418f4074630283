//! The web service that keeps Apple Wallet passes and orders up to date.
//!
//! # Overview
//!
//! [`WalletService`] implements Apple's endpoints over a store and a source:
//!
//! * The store, a [`RegistrationStore`](store::RegistrationStore), keeps devices, registrations and
//!   update tags. Use one of the store crates, such as `passkit-store-sqlite` for a single machine,
//!   or write your own.
//! * The source, a [`PassSource`], is your own logic. It knows which authentication token opens a
//!   pass, and gives the current archive of the pass.
//!
//! When a pass has changed, first make the new archive available to the source. Then report the
//! change to a [`Publisher`](push::Publisher), which marks the pass in the store and sends the
//! pushes:
//!
//! ```
//! # use passkit_server::{Changed, PassId, push::Publisher};
//! # async fn changed(publisher: Publisher) -> Result<(), Box<dyn std::error::Error>> {
//! let ticket = PassId::new("pass.com.example.ticket", "A-1")?;
//! publisher.publish(&ticket.type_id, Changed::Passes(&[ticket.serial])).await?;
//! # Ok(())
//! # }
//! ```
//!
//! | module | what it has |
//! |---|---|
//! | [`service`] | [`WalletService`], the endpoints |
//! | [`source`] | [`PassSource`], where passes come from |
//! | [`store`] | the store traits, their contract, and a store in memory |
//! | [`push`] | [`Publisher`](push::Publisher) and the traits of the queue and the sender |
//! | [`delivery`] | delivery records, for "why does my phone not update?" |
//! | [`identifiers`] | identifiers and secrets of the protocol, checked when they are made |
//! | [`device_log`] | the log messages that phones post |
//! | [`enrolment`] | rewards enrolment |
//! | [`maintenance`] | import and export of registrations, and counting them |
//!
//! Public signatures use only `http` and `bytes`. They work with every version of axum, hyper and
//! tower that is built on `http` 1.
//!
//! # How the traits fit together
//!
//! | trait | implemented by | used by |
//! |---|---|---|
//! | [`PassSource`] | your program | [`WalletService`] |
//! | [`RegistrationStore`](store::RegistrationStore) | a store | [`WalletService`], [`Publisher`](push::Publisher) |
//! | [`Coordination`](store::Coordination) | a store | [`Publisher`](push::Publisher), to choose one worker for each type |
//! | [`PushQueue`](push::PushQueue) | a store | [`Publisher`](push::Publisher) |
//! | [`DeliveryLog`](delivery::DeliveryLog) | a store; optional | [`DeliveryRecorder`](delivery::DeliveryRecorder), operators' tools |
//! | [`StoreMaintenance`](maintenance::StoreMaintenance) | a store | operators' tools; the service works without it |
//! | [`PushSender`](push::PushSender) | `passkit-apns`, or your program | [`Publisher`](push::Publisher) |
//! | [`DeviceLog`](device_log::DeviceLog) | your program; optional | [`WalletService`] |
//! | [`Enroller`](enrolment::Enroller), [`TokenSigner`](enrolment::TokenSigner) | your program and `passkit-archive`; optional | [`WalletService`] |
//!
//! A [`PushQueue`](push::PushQueue) is also a `RegistrationStore` and a `Coordination`. All stores
//! of this project are push queues.
//!
//! # Pushes
//!
//! A phone asks for changes when it receives a push. Run [`Publisher::run`](push::Publisher::run)
//! in the same process as the service. [`Publisher::recording`](push::Publisher::recording) makes a
//! publisher that leaves the pushes to other processes.
//! [`Publisher::marking`](push::Publisher::marking) makes one that causes no pushes.
//!
//! * The commit that marks the pass also makes the push pending. No push is sent before the change
//!   is visible, and no push is lost when the process ends in between. Any number of processes may
//!   share a store.
//! * A push token gets one push per type, however many passes, changes and devices share the token.
//!   By default, it gets at most one push of a type per second.
//! * The publisher acts on the answers from APNs. It removes a device whose token is no longer in use, unless the device
//!   registered again since. It removes no device if our certificate is at fault.
//!
//! # Other wallets
//!
//! [Wallet Passes](https://walletpasses.io/developer/) and similar wallets for Android make the
//! same calls as an iPhone, with the scheme `AndroidPass`, `WalletPass` or `WalletUnionPass`.
//! [`WalletService::other_wallets`] accepts these schemes, and push tokens that are not APNs
//! tokens. The store keeps such a push token, and the token is never sent to APNs
//! ([`PushToken::is_apns`](identifiers::PushToken::is_apns)).
//!
//! Wallet Passes has its own push service: a `POST` of
//! `{"passTypeIdentifier":"…","pushTokens":["…"]}` to
//! `https://walletpasses.appspot.com/api/v1/push`, with an API key as `Authorization`. This project
//! has no sender for it. The publisher removes devices because of certain answers, and we found no
//! reliable description of this service's answers.
//!
//! To support such a wallet, write a [`PushSender`](push::PushSender) that sends to tokens of its
//! own kind, and hands all others to the APNs sender. Return `Sent` for 200, `Misconfigured` for
//! 401 and 403, `TooMany` for 429, `Unavailable` for 5xx, `Unreachable` if there is no answer, and
//! `Rejected` for the rest. Return `Gone` and `BadToken` only for answers that you have seen.
//!
//! Some of these wallets register tokens that look like Apple's. APNs reports such tokens as bad,
//! and the publisher then removes their devices. In that case, don't let both kinds of phones
//! register for one type.
//!
//! # Features
//!
//! | feature | default | effect |
//! |---|---|---|
//! | `metrics` | off | Counts and times requests by call and status, and the calls of a store or sender in `metrics::Measured`. Install a recorder for the crate `metrics` to receive them. No label contains anything that a device sent. |
//!
//! # Spans
//!
//! Four spans of [`tracing`](https://docs.rs/tracing), at the level `debug`, show the way of a
//! change to a phone:
//!
//! | span | fields |
//! |---|---|
//! | `publish` | `type_id`; `passes`, how many passes changed (absent if all of the type changed) |
//! | `push` | `type_id`; `token`, `devices`; `version`, the newest change that the push covers; `outcome` |
//! | `list` | `type_id`; `device`; `since`, the tag that the phone sent; `serials`, how many passes changed; `tag`, the new tag |
//! | `fetch` | `type_id`, `serial`; `version`; `status` |
//!
//! A version is written like the first part of a tag. The fields `token`, `device` and `devices`
//! contain digests. The key of the digests is random, and each process has its own. Within one
//! process, equal digests mean the same phone: if a `list` has a `device` from an earlier `push`,
//! that phone came back. The digests reveal nothing else. If a step fails, its span lacks the last
//! fields. If no subscriber listens, nothing is digested or written.
//!
//! # Metrics
//!
//! | metric | labels | what it measures |
//! |---|---|---|
//! | `passkit_requests_total` | `call`, `status` | requests |
//! | `passkit_request_seconds` | `call` | time from the head of a request to the head of its answer |
//! | `passkit_store_seconds` | `method` | time of a store call |
//! | `passkit_store_errors_total` | `method` | store calls that failed |
//! | `passkit_pushes_total` | `outcome` | pushes |
//! | `passkit_push_seconds` | | time until a push was answered |
//! | `passkit_delivery_records_total` | `outcome` | [delivery records](delivery): written or dropped |
//! | `passkit_fetched_after_seconds` | | time from the change of a pass to a fetch of it |
//!
//! In `passkit_fetched_after_seconds`, phones that came because of the change are in the low
//! buckets. Phones that are new or were off are in the high buckets.

mod authorization;
mod body;
mod conditional;
pub mod delivery;
mod device_limit;
pub mod device_log;
mod endpoints;
pub mod enrolment;
pub mod identifiers;
mod kind;
pub mod maintenance;
#[cfg(feature = "metrics")]
pub mod metrics;
mod prefix;
#[doc(hidden)]
pub mod private_files;
pub mod push;
mod refusal;
mod refused;
mod request_body;
mod response;
mod route;
pub mod service;
pub mod source;
pub mod store;
mod stored_archives;
#[doc(hidden)]
pub mod text;
mod traced;

pub use async_trait::async_trait;
pub use identifiers::{AuthToken, PassId};
pub use service::WalletService;
pub use source::{ArchiveBody, Credentials, PassSource, SourceError};
pub use store::{Changed, PassState};

/// Compiles the example in the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
