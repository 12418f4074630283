//! A push service like APNs on this machine, for testing senders of pushes.
//!
//! The service speaks HTTP/2 over TLS, requires client certificates or provider tokens, checks each
//! request, and gives the answers that you set. It sends nothing to any phone.
//!
//! ```
//! # tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(async {
//! use passkit_apns::{ApnsSender, Config, Identity, local::{Answer, LocalApns, Options}};
//! use passkit_server::{push::{PushOutcome, PushSender}, identifiers::{PushToken, TypeIdentifier}};
//!
//! let apns = LocalApns::start(Options::new()).await?;
//! let issued = apns.issue("pass.com.example.ticket")?;
//! let identity = Identity::from_pem(None, issued.certificate.as_bytes(), issued.key.as_bytes())?;
//! let config = Config::new().endpoint(apns.host(), apns.port()).root_certificates(apns.root_pem());
//! let sender = ApnsSender::new(config.identity(identity))?;
//!
//! apns.answer_token("c0ffee", Answer::refuse(400, "BadDeviceToken"));
//! let ticket = TypeIdentifier::new("pass.com.example.ticket")?;
//! let refused = sender.push(&ticket, &PushToken::new("c0ffee")?).await;
//! assert!(matches!(refused, PushOutcome::BadToken(_)));
//! assert_eq!(sender.push(&ticket, &PushToken::new("decaf0")?).await, PushOutcome::Sent);
//! assert_eq!(apns.pushes().len(), 2);
//! assert!(apns.violations().is_empty(), "{:?}", apns.violations());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```

mod answer;
mod check;
mod connection;
mod issuer;
mod options;
mod provider_token;
mod service;
mod shared;

pub use self::{
    answer::Answer,
    issuer::{IssueError, Issued},
    options::{Options, Received},
    provider_token::IssuedTokenKey,
    service::LocalApns,
};
