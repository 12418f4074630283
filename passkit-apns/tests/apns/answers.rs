use std::time::{Duration, SystemTime, UNIX_EPOCH};

use passkit_apns::{ApnsSender, Config, Profile, local::Answer};
use passkit_server::{
    identifiers::TypeIdentifier,
    push::{PushOutcome, PushSender},
};

use crate::{TOPIC, apns, assert_no_violations, config, identity, push, sender};

#[tokio::test]
async fn a_push_has_the_headers_that_apple_documents() {
    let apns = apns().await;
    apns.know("C0ffee");
    let sender = sender(&apns);
    assert_eq!(push(&sender, "C0ffee").await, PushOutcome::Sent);
    assert_eq!(push(&sender, "C0ffee").await, PushOutcome::Sent);
    assert_no_violations(&apns);

    let [first, second] = apns.pushes().try_into().unwrap();
    assert_eq!(
        (first.topic.as_str(), first.token.as_str()),
        (TOPIC, "C0ffee")
    );
    let header = |name: &str| first.headers.get(name).map(|value| value.to_str().unwrap());
    assert_eq!(header("apns-push-type"), Some("background"));
    assert_eq!(header("apns-priority"), Some("5"));
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let expires: u64 = header("apns-expiration").unwrap().parse().unwrap();
    assert!(
        (now + 604_790..=now + 604_800).contains(&expires),
        "{expires}"
    );
    assert_eq!(header("authorization"), None);
    assert_ne!(first.headers["apns-id"], second.headers["apns-id"]);
}

#[tokio::test]
async fn a_plain_push_has_no_type_and_priority_10() {
    let apns = apns().await;
    let hour = Duration::from_secs(3600);
    let config = config(&apns)
        .identity(identity(&apns))
        .profile(Profile::Plain)
        .expiration(hour);
    let sender = ApnsSender::new(config).unwrap();
    assert_eq!(push(&sender, "c0ffee").await, PushOutcome::Sent);
    assert_no_violations(&apns);
    let headers = &apns.pushes()[0].headers;
    assert_eq!(headers["apns-priority"], "10");
    assert!(!headers.contains_key("apns-push-type"));
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let expires: u64 = headers["apns-expiration"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!((now + 3_590..=now + 3_600).contains(&expires), "{expires}");
}

/// Tests every answer that Apple documents, and some others.
#[tokio::test]
async fn each_answer_has_its_outcome() {
    let apns = apns().await;
    let sender = sender(&apns);
    let bad_token: fn(String) -> PushOutcome = PushOutcome::BadToken;
    let rejected: fn(String) -> PushOutcome = PushOutcome::Rejected;
    let misconfigured: fn(String) -> PushOutcome = PushOutcome::Misconfigured;
    let too_many: fn(String) -> PushOutcome = PushOutcome::TooMany;
    let unavailable: fn(String) -> PushOutcome = PushOutcome::Unavailable;
    let table = [
        (400, "BadDeviceToken", bad_token),
        (400, "DeviceTokenNotForTopic", bad_token),
        (400, "TopicDisallowed", misconfigured),
        (400, "BadTopic", misconfigured),
        (400, "MissingTopic", misconfigured),
        (400, "BadPriority", rejected),
        (400, "InvalidPushType", rejected),
        (400, "BadExpirationDate", rejected),
        (400, "BadMessageId", rejected),
        (400, "BadCollapseId", rejected),
        (400, "DuplicateHeaders", rejected),
        (400, "PayloadEmpty", rejected),
        (400, "MissingDeviceToken", rejected),
        (404, "BadPath", rejected),
        (405, "MethodNotAllowed", rejected),
        (413, "PayloadTooLarge", rejected),
        (403, "BadCertificate", misconfigured),
        (403, "BadCertificateEnvironment", misconfigured),
        (403, "Forbidden", misconfigured),
        (403, "MissingProviderToken", misconfigured),
        (403, "InvalidProviderToken", misconfigured),
        (403, "UnrelatedKeyIdInToken", misconfigured),
        (403, "BadEnvironmentKeyIdInToken", misconfigured),
        (403, "BadEnvironmentKeyInToken", misconfigured),
        // With a certificate there is no token to renew.
        (403, "ExpiredProviderToken", misconfigured),
        (429, "TooManyRequests", too_many),
        (429, "TooManyProviderTokenUpdates", too_many),
        (500, "InternalServerError", unavailable),
        (503, "ServiceUnavailable", unavailable),
        (503, "Shutdown", unavailable),
        // This reason is not documented, so the status decides.
        (400, "SomethingNew", rejected),
        (403, "SomethingNew", misconfigured),
        (422, "SomethingNew", rejected),
        (429, "SomethingNew", too_many),
        (502, "SomethingNew", unavailable),
    ];
    for (status, reason, outcome) in table {
        apns.answer_token("c0ffee", Answer::refuse(status, reason));
        let before = apns.pushes().len();
        assert_eq!(
            push(&sender, "c0ffee").await,
            outcome(reason.into()),
            "{status} {reason}"
        );
        assert_eq!(
            apns.pushes().len(),
            before + 1,
            "{status} {reason}: sent once"
        );
    }
    assert_eq!(push(&sender, "abcd").await, PushOutcome::Sent);
    assert_no_violations(&apns);
}

#[tokio::test]
async fn a_device_is_gone_since_the_time_in_the_answer() {
    let apns = apns().await;
    let sender = sender(&apns);
    let since = UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
    for reason in ["Unregistered", "ExpiredToken", "SomethingNew"] {
        apns.answer_token("c0ffee", Answer::gone(reason, since));
        assert_eq!(push(&sender, "c0ffee").await, PushOutcome::Gone(since));
    }
    apns.answer_token("c0ffee", Answer::refuse(410, "Unregistered"));
    assert_eq!(
        push(&sender, "c0ffee").await,
        PushOutcome::BadToken("Unregistered".into())
    );
}

#[tokio::test]
async fn an_unreadable_answer_counts_by_its_status() {
    let apns = apns().await;
    let sender = sender(&apns);
    for body in ["", "<html>", "{\"reason\"", &"x".repeat(100_000)] {
        apns.answer_token("c0ffee", Answer::body(500, body.to_owned()));
        assert_eq!(
            push(&sender, "c0ffee").await,
            PushOutcome::Unavailable("status 500".into())
        );
    }
    assert_eq!(push(&sender, "abcd").await, PushOutcome::Sent);
}

#[tokio::test]
async fn a_push_without_a_certificate_for_its_type_is_not_sent() {
    let apns = apns().await;
    let other = TypeIdentifier::new("pass.com.example.other").unwrap();
    assert_eq!(
        sender(&apns).push(&other, &crate::token("c0ffee")).await,
        PushOutcome::Misconfigured("no certificate for pass.com.example.other".into())
    );
    assert_eq!(apns.connections(), 0);
}

/// The tokens are a UUID, an FCM token, an odd number of digits, and text that would change the
/// path of the request.
#[tokio::test]
async fn nothing_is_sent_to_a_token_of_another_wallet() {
    let apns = apns().await;
    let sender = sender(&apns);
    for token in [
        "6F9619FF-8B86-D011-B42D-00CF4FC964FF",
        "cMv:APA91bHPRgkF3_x-y",
        "abc",
        "../x?y#z",
        &"%".repeat(400),
    ] {
        assert_eq!(
            push(&sender, token).await,
            PushOutcome::Unsupported,
            "{token}"
        );
    }
    assert_eq!(apns.connections(), 0);
    assert_eq!(push(&sender, &"0a".repeat(200)).await, PushOutcome::Sent);
    assert_no_violations(&apns);
}

#[tokio::test]
async fn settings_that_cannot_work_are_refused() {
    let apns = apns().await;
    let text = |config: Config| ApnsSender::new(config).unwrap_err().to_string();
    let with = || Config::new().identity(identity(&apns));
    assert_eq!(
        text(Config::new()),
        "there is neither a certificate nor a token key for pushes"
    );
    assert_eq!(
        text(with().expiration(Duration::ZERO)),
        "the expiration must not be 0: phones that are off would never learn of a change"
    );
    assert_eq!(
        text(with().connections(0)),
        "there must be at least 1 connection"
    );
    assert_eq!(
        text(with().endpoint("no host", 443)),
        "\"no host\" is not a host name"
    );
    assert!(
        text(
            with().root_certificates(
                "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
            )
        )
        .starts_with("root certificates: ")
    );
}
