//! Tests the sender against a local push service, over real TLS.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod answers;
mod certificates;
mod connections;
mod silence;
mod tokens;

use std::time::{Duration, Instant};

use passkit_apns::{
    ApnsSender, Config, Identity,
    local::{LocalApns, Options},
};
use passkit_server::{
    identifiers::{PushToken, TypeIdentifier},
    push::{PushOutcome, PushSender},
};

const TOPIC: &str = "pass.com.example.ticket";

fn topic() -> TypeIdentifier {
    TypeIdentifier::new(TOPIC).unwrap()
}

fn token(text: &str) -> PushToken {
    PushToken::new(text).unwrap()
}

async fn apns() -> LocalApns {
    LocalApns::start(Options::new()).await.unwrap()
}

/// A configuration for this service, without a certificate.
fn config(apns: &LocalApns) -> Config {
    Config::new()
        .endpoint(apns.host(), apns.port())
        .root_certificates(apns.root_pem())
}

fn identity(apns: &LocalApns) -> Identity {
    let issued = apns.issue(TOPIC).unwrap();
    Identity::from_pem(
        &topic(),
        issued.certificate.as_bytes(),
        issued.key.as_bytes(),
    )
    .unwrap()
}

fn sender(apns: &LocalApns) -> ApnsSender {
    ApnsSender::new(config(apns).identity(identity(apns))).unwrap()
}

/// Waits until the condition is true. Fails after a minute.
async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !condition().await {
        assert!(Instant::now() < end, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn push(sender: &ApnsSender, to: &str) -> PushOutcome {
    sender.push(&topic(), &token(to)).await
}

#[track_caller]
fn assert_no_violations(apns: &LocalApns) {
    assert!(apns.violations().is_empty(), "{:?}", apns.violations());
}
