use std::{
    path::Path,
    time::{Duration, SystemTime},
};

use passkit_apns::{ApnsSender, Identity, local::Issued};
use passkit_server::push::PushOutcome;

use crate::{TOPIC, apns, assert_no_violations, config, push, topic, until};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn from_pem(certificate: &str, key: &str) -> Result<Identity, String> {
    Identity::from_pem(&topic(), certificate.as_bytes(), key.as_bytes())
        .map_err(|error| error.to_string())
}

fn write(folder: &Path, issued: &Issued) {
    std::fs::write(folder.join("a.pem"), &issued.certificate).unwrap();
    std::fs::write(folder.join("a.key"), &issued.key).unwrap();
}

#[tokio::test]
async fn a_certificate_is_sent_with_its_chain() {
    let apns = apns().await;
    let issued = apns.issue(TOPIC).unwrap();
    for parts in [
        [issued.key.as_str(), &issued.certificate, apns.root_pem()],
        [apns.root_pem(), &issued.certificate, &issued.key],
    ] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("all.pem");
        std::fs::write(
            &file,
            format!("Bag Attributes\n    friendlyName: x\n{}", parts.concat()),
        )
        .unwrap();
        let identity = Identity::from_files(&topic(), &file, &file).unwrap();
        let sender = ApnsSender::new(config(&apns).identity(identity)).unwrap();
        assert_eq!(push(&sender, "c0ffee").await, PushOutcome::Sent);
    }
    assert_no_violations(&apns);
}

#[tokio::test]
async fn a_certificate_that_the_server_refuses_is_misconfigured() {
    let (here, elsewhere) = (apns().await, apns().await);
    let foreign = elsewhere.issue(TOPIC).unwrap();
    let identity = from_pem(&foreign.certificate, &foreign.key).unwrap();
    let sender = ApnsSender::new(config(&here).identity(identity)).unwrap();
    for _ in 0..3 {
        let outcome = push(&sender, "c0ffee").await;
        assert!(
            matches!(&outcome, PushOutcome::Misconfigured(why) if why.contains("fatal alert")),
            "{outcome:?}"
        );
    }
    assert!(here.pushes().is_empty());
}

#[tokio::test]
async fn a_server_with_an_unknown_authority_gets_nothing() {
    let (here, elsewhere) = (apns().await, apns().await);
    let config = config(&elsewhere)
        .identity(crate::identity(&here))
        .endpoint(here.host(), here.port());
    let outcome = push(&ApnsSender::new(config).unwrap(), "c0ffee").await;
    assert!(
        matches!(&outcome, PushOutcome::Unreachable(why) if why.contains("invalid peer certificate")),
        "{outcome:?}"
    );
    assert_eq!(here.connections(), 0);
}

#[tokio::test]
async fn a_certificate_that_has_expired_opens_no_connection() {
    let apns = apns().await;
    let now = SystemTime::now();
    let issued = apns
        .issue_for(TOPIC, now - DAY, now + Duration::from_secs(10))
        .unwrap();
    let sender = ApnsSender::new(
        config(&apns).identity(from_pem(&issued.certificate, &issued.key).unwrap()),
    )
    .unwrap();
    tokio::time::sleep(Duration::from_millis(10_100)).await;
    let outcome = push(&sender, "c0ffee").await;
    let text = "the certificate for pass.com.example.ticket expired on ";
    assert!(
        matches!(&outcome, PushOutcome::Misconfigured(why) if why.starts_with(text)),
        "{outcome:?}"
    );
    assert_eq!(apns.connections(), 0);
}

#[tokio::test]
async fn a_renewed_certificate_is_used_and_a_broken_one_is_not() {
    let (apns, elsewhere) = (apns().await, apns().await);
    let folder = tempfile::tempdir().unwrap();
    // The service refuses this certificate, because another service issued it.
    write(folder.path(), &elsewhere.issue(TOPIC).unwrap());
    let identity = Identity::from_files(
        &topic(),
        folder.path().join("a.pem"),
        folder.path().join("a.key"),
    )
    .unwrap();
    let config = config(&apns)
        .identity(identity)
        .connections(1)
        .check_interval(Duration::from_millis(50));
    let sender = ApnsSender::new(config).unwrap();
    let look = || tokio::time::sleep(Duration::from_millis(400));
    assert!(matches!(
        push(&sender, "c0ffee").await,
        PushOutcome::Misconfigured(_)
    ));

    write(folder.path(), &apns.issue(TOPIC).unwrap());
    until("the renewed one is used", async || {
        push(&sender, "c0ffee").await == PushOutcome::Sent
    })
    .await;
    let connections = apns.connections();

    // The files are half written: the new certificate is there, and its key is not.
    let renewed = apns.issue(TOPIC).unwrap();
    std::fs::write(folder.path().join("a.pem"), &renewed.certificate).unwrap();
    look().await;
    assert_eq!(push(&sender, "c0ffee").await, PushOutcome::Sent);
    assert_eq!(apns.connections(), connections, "the old one stays");

    write(folder.path(), &renewed);
    until("the new one is used", async || {
        assert_eq!(push(&sender, "c0ffee").await, PushOutcome::Sent);
        apns.connections() == connections + 1
    })
    .await;

    std::fs::remove_file(folder.path().join("a.pem")).unwrap();
    look().await;
    assert_eq!(push(&sender, "c0ffee").await, PushOutcome::Sent);
    assert_eq!(apns.connections(), connections + 1);
    assert_no_violations(&apns);
}
