use std::time::Duration;

use passkit_apns::{
    ApnsSender, TokenKey,
    local::{Answer, LocalApns, Options},
};
use passkit_server::{
    identifiers::TypeIdentifier,
    push::{PushOutcome, PushSender},
};

use crate::{assert_no_violations, config, identity, push, token};

async fn apns() -> LocalApns {
    LocalApns::start(Options::new().provider_tokens())
        .await
        .unwrap()
}

fn key(apns: &LocalApns) -> TokenKey {
    let key = apns.issue_token_key().unwrap();
    TokenKey::from_pem(key.key.as_bytes(), &key.key_id, &key.team_id).unwrap()
}

fn authorizations(apns: &LocalApns) -> Vec<String> {
    apns.pushes()
        .iter()
        .map(|push| push.headers["authorization"].to_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn one_token_serves_all_topics_over_the_same_connections() {
    let apns = apns().await;
    let sender = ApnsSender::new(config(&apns).token_key(key(&apns))).unwrap();
    for number in 0..10 {
        let topic = TypeIdentifier::new(&format!("pass.com.example.number{number}")).unwrap();
        assert_eq!(
            sender.push(&topic, &token("c0ffee")).await,
            PushOutcome::Sent
        );
    }
    assert_eq!(apns.connections(), 2);
    let mut used = authorizations(&apns);
    used.dedup();
    assert_eq!(used.len(), 1);
    assert_no_violations(&apns);
}

#[tokio::test]
async fn a_certificate_is_preferred_to_a_token() {
    let apns = apns().await;
    let sender = ApnsSender::new(
        config(&apns)
            .token_key(key(&apns))
            .identity(identity(&apns)),
    )
    .unwrap();
    assert_eq!(push(&sender, "c0ffee").await, PushOutcome::Sent);
    assert!(!apns.pushes()[0].headers.contains_key("authorization"));
}

#[tokio::test]
async fn an_expired_token_is_replaced_and_the_push_sent_again() {
    let apns = apns().await;
    let hour = Duration::from_secs(3600);
    let key = key(&apns).token_ages(hour, Duration::ZERO);
    let sender = ApnsSender::new(config(&apns).token_key(key)).unwrap();
    assert_eq!(push(&sender, "c0ffee").await, PushOutcome::Sent);
    apns.answer_next(1, Answer::refuse(403, "ExpiredProviderToken"));
    assert_eq!(push(&sender, "c0ffee").await, PushOutcome::Sent);
    let used = authorizations(&apns);
    assert_eq!(used.len(), 3);
    assert_eq!(used[0], used[1]);
    assert_ne!(used[1], used[2]);

    // The push is sent again only once.
    apns.answer_next(2, Answer::refuse(403, "ExpiredProviderToken"));
    assert_eq!(
        push(&sender, "c0ffee").await,
        PushOutcome::Misconfigured("ExpiredProviderToken".into())
    );
    assert_eq!(apns.pushes().len(), 5);
}

#[tokio::test]
async fn a_young_token_is_kept_even_if_apns_calls_it_expired() {
    let apns = apns().await;
    let sender = ApnsSender::new(config(&apns).token_key(key(&apns))).unwrap();
    apns.answer_next(1, Answer::refuse(403, "ExpiredProviderToken"));
    assert_eq!(
        push(&sender, "c0ffee").await,
        PushOutcome::Misconfigured("ExpiredProviderToken".into())
    );
    apns.answer_next(1, Answer::refuse(429, "TooManyProviderTokenUpdates"));
    assert_eq!(
        push(&sender, "c0ffee").await,
        PushOutcome::TooMany("TooManyProviderTokenUpdates".into())
    );
    assert_eq!(push(&sender, "c0ffee").await, PushOutcome::Sent);
    let mut used = authorizations(&apns);
    used.dedup();
    assert_eq!(used.len(), 1);
}

#[tokio::test]
async fn an_old_token_is_replaced_before_it_is_refused() {
    let apns = apns().await;
    let key = key(&apns).token_ages(Duration::from_millis(50), Duration::ZERO);
    let sender = ApnsSender::new(config(&apns).token_key(key)).unwrap();
    assert_eq!(push(&sender, "c0ffee").await, PushOutcome::Sent);
    tokio::time::sleep(Duration::from_millis(60)).await;
    assert_eq!(push(&sender, "c0ffee").await, PushOutcome::Sent);
    let used = authorizations(&apns);
    assert_ne!(used[0], used[1]);
}

#[tokio::test]
async fn a_token_of_a_foreign_key_is_refused() {
    let apns = apns().await;
    let foreign = key(&self::apns().await);
    let sender = ApnsSender::new(config(&apns).token_key(foreign)).unwrap();
    assert_eq!(
        push(&sender, "c0ffee").await,
        PushOutcome::Misconfigured("InvalidProviderToken".into())
    );
}

#[tokio::test]
async fn faults_of_a_key_are_one_line() {
    let apns = apns().await;
    let text = |key: &str, id: &str, team: &str| {
        TokenKey::from_pem(key.as_bytes(), id, team)
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        text("", "KEY", "TEAM"),
        "token key KEY: has no private key in PEM or DER"
    );
    let garbage = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    assert_eq!(
        text(garbage, "KEY", "TEAM"),
        "token key KEY: its private key is not on the curve P-256"
    );
    let good = apns.issue_token_key().unwrap().key;
    assert_eq!(
        text(&good, "K\n", "TEAM"),
        "the key id must be letters and digits"
    );
    assert_eq!(
        text(&good, "KEY", ""),
        "the team id must be letters and digits"
    );
    let missing = TokenKey::from_file("/no/such.p8", "KEY", "TEAM")
        .unwrap_err()
        .to_string();
    assert!(
        missing.starts_with("token key KEY: /no/such.p8: No such file"),
        "{missing}"
    );
}
