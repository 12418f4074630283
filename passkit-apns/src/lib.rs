//! Sends the pushes of an Apple Wallet web service through APNs (Apple Push Notification service).
//!
//! [`ApnsSender`] is a [`PushSender`](passkit_server::push::PushSender) over HTTP/2. It
//! authenticates with the certificate of each type, or with a provider token. A push has the
//! payload `{}`, which only says that something changed. The phone then asks the web service what
//! changed.
//!
//! ```no_run
//! use passkit_apns::{ApnsSender, Config, Identity};
//! use passkit_server::identifiers::{PushToken, TypeIdentifier};
//! use passkit_server::push::{PushOutcome, PushSender};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let ticket = TypeIdentifier::new("pass.com.example.ticket")?;
//! let identity = Identity::from_files(&ticket, "/etc/passkit/ticket.pem", "/etc/passkit/ticket.key")?;
//! let sender = ApnsSender::new(Config::new().identity(identity))?;
//!
//! match sender.push(&ticket, &PushToken::new("c0ffee")?).await {
//!     PushOutcome::Sent => println!("APNs accepted the push, but the phone may not have it yet"),
//!     PushOutcome::Gone(since) => println!("the token is out of use since {since:?}"),
//!     other => println!("{other:?}"),
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Certificates and tokens
//!
//! The certificate that signs the passes of a type also sends their pushes. [`Identity`] reads the
//! certificate and its key from PEM. To read `.p12` files, enable the feature `pkcs12` of
//! `passkit-identity`.
//!
//! The files of a certificate are checked when a connection is opened, and once a minute. New pushes
//! use a renewed certificate over new connections. If the new files are broken, a warning is logged
//! and the old certificate stays in use. In the last 30 days of a certificate, a warning is logged
//! once a day.
//!
//! A [`TokenKey`] (`.p8`) is used for the types that have no certificate. Apple documents such keys
//! for apps only. The key signs a provider token. The token is replaced after 40 minutes, or when
//! APNs answers that it has expired, but never earlier than 20 minutes after it was made.
//!
//! # Outcomes
//!
//! | answer from APNs | [`PushOutcome`](passkit_server::push::PushOutcome) |
//! |---|---|
//! | 200 | `Sent` |
//! | 410 with a readable time | `Gone`, with that time |
//! | 410 without one, `BadDeviceToken`, `DeviceTokenNotForTopic` | `BadToken` |
//! | 401, 403, `TopicDisallowed`, `BadTopic`, `MissingTopic`; the server refuses the certificate in the TLS handshake; the certificate is expired; a type has no certificate | `Misconfigured` |
//! | 429 | `TooMany` |
//! | any other 4xx | `Rejected` |
//! | any other status | `Unavailable` |
//! | none: no connection, or no answer in time | `Unreachable` |
//! | none: the push token is not an APNs token | `Unsupported` |
//!
//! The outcome contains the reason in the answer. If the reason is unknown, the status decides.
//!
//! A push that lost its connection is sent once more, over another connection. That happens, for
//! example, to pushes that were not answered before a GOAWAY. A push that timed out is not sent
//! again.
//!
//! # Features
//!
//! | feature | default | effect |
//! |---|---|---|
//! | `local` | off | Adds `local`, a push service on this machine for testing senders. |

mod answer;
mod backoff;
mod config;
mod connection;
mod endpoint;
mod error;
#[cfg(feature = "local")]
pub mod local;
mod lock;
mod pool;
mod request;
mod sender;
mod token;
mod watch;

pub use config::{Config, Profile};
pub use error::ApnsError;
pub use passkit_identity::Identity;
pub use sender::ApnsSender;
pub use token::TokenKey;

/// Compiles the example in the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
