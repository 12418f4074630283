//! Services that send pushes: a correct service that does not use this project's publisher, and
//! faulty services.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    slice::from_ref,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use h2::client::SendRequest;
use http::{Method, Request};
use passkit_conformance::{
    Rule,
    service::{PushService, PushSettings, Target, cases, run},
};
use passkit_server::{PassId, identifiers::TypeIdentifier};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
    },
};

use super::{
    right::assert_accuses_nobody,
    sound::{Sound, types},
    wrong::{answering, device, named},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Right,
    NothingIsPushed,
    OrdersAreNotPushed,
    OnlyTheFirstPhoneIsPushed,
    OnlyTheLastPhoneIsPushed,
    OnlyTheFirstChangeIsPushed,
    OnlyTheFirstPassIsPushed,
    PushedBeforeTheChangeIsListed,
    PushedBeforeTheContentIsNew,
    FirstTokenIsKept,
    TokenBelongsToTheRegistration,
    OldTokensArePushedToo,
    UnregisteredArePushedToo,
    AllPhonesOfTheTypeArePushed,
    SavesArePushed,
    RegistrationsArePushed,
    EveryChangeHasItsPush,
    EveryDeviceHasItsPush,
    GoneTokensArePushedAgain,
    TimeOf410IsIgnored,
    TimeOf410IsComparedWithTheFirstRegistration,
    FirstRefusalEndsTheRound,
    RefusedPhonesAreRemoved,
    TopicIsFixed,
    TopicIsMissing,
    CertificateIsForAnotherType,
    NoPayload,
    PayloadIsText,
    PayloadIsAnAlert,
    PayloadHasAps,
    BackgroundHasPriorityTen,
    PriorityIsUnknown,
    PushTypeIsUnknown,
    PushTypeIsAlert,
    ExpirationIsADate,
    ExpirationIsZero,
    IdIsANumber,
    CollapseIdIsLong,
}

use Fault as F;

/// The fault, the rule that the cases must name, and the cases that must find it.
pub(super) const FAULTS: &[(Fault, Rule, &[&str])] = &[
    (F::NothingIsPushed, Rule::PUSH_1, &["push/change-is-pushed"]),
    (
        F::OrdersAreNotPushed,
        Rule::PUSH_1,
        &["push/order-change-is-pushed"],
    ),
    (
        F::OnlyTheFirstPhoneIsPushed,
        Rule::PUSH_1,
        &["push/every-phone-is-pushed"],
    ),
    (
        F::OnlyTheLastPhoneIsPushed,
        Rule::PUSH_1,
        &[
            "push/every-phone-is-pushed",
            "push/second-device-identifier-is-pushed",
        ],
    ),
    (
        F::OnlyTheFirstChangeIsPushed,
        Rule::PUSH_1,
        &["push/every-change-is-pushed"],
    ),
    (
        F::OnlyTheFirstPassIsPushed,
        Rule::PUSH_1,
        &["push/every-change-is-pushed"],
    ),
    (
        F::PushedBeforeTheChangeIsListed,
        Rule::PUSH_2,
        &["push/change-shows-when-the-push-arrives"],
    ),
    (
        F::PushedBeforeTheContentIsNew,
        Rule::PUSH_2,
        &["push/change-shows-when-the-push-arrives"],
    ),
    (
        F::FirstTokenIsKept,
        Rule::REG_2,
        &[
            "push/new-push-token-is-pushed",
            "push/new-push-token-is-for-all-passes",
        ],
    ),
    (
        F::TokenBelongsToTheRegistration,
        Rule::REG_2,
        &["push/new-push-token-is-for-all-passes"],
    ),
    (
        F::OldTokensArePushedToo,
        Rule::PUSH_3,
        &["push/old-push-token-is-not-pushed"],
    ),
    (
        F::UnregisteredArePushedToo,
        Rule::PUSH_3,
        &["push/unregistered-phone-is-not-pushed"],
    ),
    (
        F::AllPhonesOfTheTypeArePushed,
        Rule::PUSH_3,
        &["push/other-phones-are-not-pushed"],
    ),
    (
        F::SavesArePushed,
        Rule::PUSH_4,
        &["push/unchanged-pass-is-not-pushed"],
    ),
    (
        F::RegistrationsArePushed,
        Rule::PUSH_4,
        &["push/requests-are-not-pushed"],
    ),
    (
        F::EveryChangeHasItsPush,
        Rule::PUSH_5,
        &["push/close-changes-share-a-push"],
    ),
    (
        F::EveryDeviceHasItsPush,
        Rule::PUSH_5,
        &["push/one-push-for-one-token"],
    ),
    (
        F::GoneTokensArePushedAgain,
        Rule::PUSH_6,
        &["push/gone-token-is-not-pushed-again"],
    ),
    (
        F::TimeOf410IsIgnored,
        Rule::PUSH_6,
        &[
            "push/registration-after-410-survives",
            "push/410-of-old-token-keeps-phone",
        ],
    ),
    (
        F::TimeOf410IsComparedWithTheFirstRegistration,
        Rule::PUSH_6,
        &["push/410-of-old-token-keeps-phone"],
    ),
    (
        F::FirstRefusalEndsTheRound,
        Rule::PUSH_7,
        &["push/refused-token-does-not-stop-others"],
    ),
    (
        F::RefusedPhonesAreRemoved,
        Rule::PUSH_7,
        &["push/storm-of-bad-tokens-removes-nobody"],
    ),
    (F::TopicIsFixed, Rule::PUSH_8, &["push/topic-is-the-type"]),
    (F::TopicIsMissing, Rule::PUSH_8, &["push/topic-is-the-type"]),
    (
        F::CertificateIsForAnotherType,
        Rule::PUSH_8,
        &["push/topic-is-the-type"],
    ),
    (
        F::NoPayload,
        Rule::PUSH_9,
        &["push/payload-is-a-dictionary", "push/payload-is-empty"],
    ),
    (
        F::PayloadIsText,
        Rule::PUSH_9,
        &["push/payload-is-a-dictionary"],
    ),
    (
        F::PayloadIsAnAlert,
        Rule::PUSH_9,
        &["push/payload-is-empty"],
    ),
    (F::PayloadHasAps, Rule::PUSH_9, &["push/payload-is-empty"]),
    (
        F::BackgroundHasPriorityTen,
        Rule::PUSH_10,
        &["push/headers-are-valid"],
    ),
    (
        F::PriorityIsUnknown,
        Rule::PUSH_10,
        &["push/headers-are-valid"],
    ),
    (
        F::PushTypeIsUnknown,
        Rule::PUSH_10,
        &["push/headers-are-valid"],
    ),
    (
        F::PushTypeIsAlert,
        Rule::PUSH_10,
        &["push/push-type-fits-the-payload"],
    ),
    (
        F::ExpirationIsADate,
        Rule::PUSH_10,
        &["push/headers-are-valid"],
    ),
    (
        F::ExpirationIsZero,
        Rule::PUSH_11,
        &["push/waits-for-phones-that-are-off"],
    ),
    (F::IdIsANumber, Rule::PUSH_10, &["push/headers-are-valid"]),
    (
        F::CollapseIdIsLong,
        Rule::PUSH_10,
        &["push/headers-are-valid"],
    ),
];

/// A case waits for at most this time for a push that a faulty service does not send. All other
/// pushes arrive within milliseconds.
const WAIT: Duration = Duration::from_secs(5);

/// Makes the target of a service with this fault.
pub(super) async fn target(fault: Fault) -> Target {
    let mut settings = PushSettings::default();
    settings.wait = if fault == F::Right {
        Duration::from_secs(60)
    } else {
        WAIT
    };
    let service = PushService::start(settings).await.unwrap();
    let sound = Sound::new();
    let pushes = Arc::new(Pushes {
        fault,
        client: Client::new(&service),
        phones: Mutex::default(),
        changed: Mutex::default(),
    });
    let noting = pushes.clone();
    let wrong = answering(sound.clone(), move |sound, asked| {
        let pushes = noting.clone();
        async move {
            let answer = sound.answer(asked.clone()).await;
            let is_registration = asked.uri().path().contains("/registrations/");
            if let Some((type_id, serial, _)) = named(&asked).filter(|_| is_registration)
                && answer.status().is_success()
            {
                let pass = PassId::new(type_id, serial).unwrap();
                let id = device(&asked).to_owned();
                match *asked.method() {
                    Method::POST => {
                        let body: Value = serde_json::from_slice(asked.body()).unwrap();
                        let token = body["pushToken"].as_str().unwrap().to_owned();
                        pushes.register(id, pass, token).await;
                    }
                    Method::DELETE => pushes.unregister(&id, &pass),
                    _ => {}
                }
            }
            answer
        }
    });
    let target = sound.target_with(wrong);
    let (changes, saves) = (pushes.clone(), pushes);
    target
        .changed_by(move |pass| {
            let (sound, pushes) = (sound.clone(), changes.clone());
            async move { pushes.change(&sound, pass).await }
        })
        .saved_by(move |pass| {
            let pushes = saves.clone();
            async move {
                if pushes.fault == F::SavesArePushed {
                    pushes.push(&[pass]).await;
                }
                Ok(())
            }
        })
        .pushing_to(service)
}

/// The registrations of a service, and its pushes.
struct Pushes {
    fault: Fault,
    client: Client,
    phones: Mutex<Phones>,
    /// The passes whose pushes are due soon, and all passes that ever caused a push.
    changed: Mutex<(Vec<PassId>, HashSet<PassId>)>,
}

#[derive(Default)]
struct Phones {
    /// Device, pass, and the push token of the registration.
    registered: Vec<(String, PassId, String)>,
    /// The current push token of each device, with the times of its first and last registration.
    tokens: HashMap<String, (String, SystemTime, SystemTime)>,
}

impl Pushes {
    fn phones(&self) -> MutexGuard<'_, Phones> {
        self.phones.lock().unwrap()
    }

    async fn register(&self, id: String, pass: PassId, token: String) {
        {
            let mut phones = self.phones();
            let now = SystemTime::now();
            let device = phones
                .tokens
                .entry(id.clone())
                .or_insert((token.clone(), now, now));
            device.2 = now;
            if self.fault != F::FirstTokenIsKept {
                device.0.clone_from(&token);
            }
            let keeps_old = self.fault == F::OldTokensArePushedToo;
            phones
                .registered
                .retain(|(one, of, _)| keeps_old || *one != id || *of != pass);
            phones.registered.push((id, pass.clone(), token));
        }
        if self.fault == F::RegistrationsArePushed {
            self.push(&[pass]).await;
        }
    }

    fn unregister(&self, id: &str, pass: &PassId) {
        if self.fault != F::UnregisteredArePushedToo {
            let mut phones = self.phones();
            phones
                .registered
                .retain(|(one, of, _)| one != id || of != pass);
        }
    }

    async fn change(self: &Arc<Self>, sound: &Sound, pass: PassId) -> Result<(), String> {
        match self.fault {
            F::Right => {
                sound.change(pass.clone()).await?;
                let is_first = {
                    let mut changed = self.changed.lock().unwrap();
                    changed.0.push(pass);
                    changed.0.len() == 1
                };
                if is_first {
                    let pushes = self.clone();
                    tokio::spawn(async move {
                        tokio::time::sleep(Duration::from_millis(200)).await;
                        let changed = std::mem::take(&mut pushes.changed.lock().unwrap().0);
                        pushes.push(&changed).await;
                    });
                }
                return Ok(());
            }
            F::PushedBeforeTheChangeIsListed => {
                self.push(from_ref(&pass)).await;
                return sound.change(pass).await;
            }
            F::PushedBeforeTheContentIsNew => {
                sound.mark(&pass).await?;
                self.push(from_ref(&pass)).await;
                sound.renew(&pass);
                return Ok(());
            }
            _ => sound.change(pass.clone()).await?,
        }
        let is_new = self.changed.lock().unwrap().1.insert(pass.clone());
        let first = self
            .phones()
            .registered
            .first()
            .map(|(_, pass, _)| pass.clone());
        let is_pushed = match self.fault {
            F::NothingIsPushed => false,
            F::OrdersAreNotPushed => pass.type_id.as_str().starts_with("pass."),
            F::OnlyTheFirstChangeIsPushed => is_new,
            F::OnlyTheFirstPassIsPushed => first.as_ref() == Some(&pass),
            _ => true,
        };
        if is_pushed {
            self.push(&[pass]).await;
        }
        Ok(())
    }

    /// Sends the pushes of changed passes, one after the other.
    async fn push(&self, changed: &[PassId]) {
        let mut sent = BTreeSet::new();
        for (id, type_id, token) in self.audience(changed) {
            let is_first = sent.insert((type_id.clone(), token.clone()));
            if !is_first && self.fault != F::EveryDeviceHasItsPush {
                continue;
            }
            let (status, time) = self.client.push(self.fault, &type_id, &token).await;
            let mut phones = self.phones();
            let is_gone = match (status, time) {
                (410, Some(time)) => match (self.fault, phones.tokens.get(&id)) {
                    (F::GoneTokensArePushedAgain, _) => false,
                    (F::TimeOf410IsIgnored, _) => true,
                    (F::TimeOf410IsComparedWithTheFirstRegistration, Some((_, first, _))) => {
                        *first <= time
                    }
                    (_, Some((_, _, last))) => *last <= time,
                    (_, None) => true,
                },
                (400, _) => self.fault == F::RefusedPhonesAreRemoved,
                _ => false,
            };
            if is_gone {
                phones.registered.retain(|(one, ..)| *one != id);
            }
            if status != 200 && self.fault == F::FirstRefusalEndsTheRound {
                break;
            }
        }
    }

    /// Returns the devices, types and push tokens to push.
    fn audience(&self, changed: &[PassId]) -> Vec<(String, TypeIdentifier, String)> {
        let phones = self.phones();
        let has_changed = |pass: &PassId| match self.fault {
            F::AllPhonesOfTheTypeArePushed => changed.iter().any(|one| one.type_id == pass.type_id),
            _ => changed.contains(pass),
        };
        let with = phones
            .registered
            .iter()
            .filter(|(_, pass, _)| has_changed(pass));
        let all: Vec<_> = with
            .map(|(id, pass, token)| {
                let is_of_registration = matches!(
                    self.fault,
                    F::TokenBelongsToTheRegistration | F::OldTokensArePushedToo
                );
                let current = &phones.tokens[id].0;
                let token = if is_of_registration { token } else { current };
                (id.clone(), pass.type_id.clone(), token.clone())
            })
            .collect();
        match self.fault {
            F::OnlyTheFirstPhoneIsPushed => all.into_iter().take(1).collect(),
            F::OnlyTheLastPhoneIsPushed => all.into_iter().next_back().into_iter().collect(),
            _ => all,
        }
    }
}

/// Sends pushes. Each part of a push may be wrong.
struct Client {
    port: u16,
    roots: Arc<RootCertStore>,
    identities: HashMap<TypeIdentifier, (String, String)>,
    connections: tokio::sync::Mutex<HashMap<TypeIdentifier, SendRequest<Bytes>>>,
}

impl Client {
    fn new(service: &PushService) -> Self {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(service.root_pem().as_bytes()).unwrap())
            .unwrap();
        let issued = |type_id: TypeIdentifier| {
            let issued = service.issue(&type_id).unwrap();
            (type_id, issued)
        };
        Self {
            port: service.port(),
            roots: Arc::new(roots),
            identities: types().into_iter().map(issued).collect(),
            connections: tokio::sync::Mutex::default(),
        }
    }

    /// Returns a connection with the certificate of a type.
    async fn connection(&self, type_id: &TypeIdentifier) -> SendRequest<Bytes> {
        let mut connections = self.connections.lock().await;
        if let Some(open) = connections.get(type_id) {
            return open.clone();
        }
        let (certificate, key) = &self.identities[type_id];
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.roots.clone())
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
            )
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        // Services use this name for the push service.
        let name = ServerName::try_from("api.push.apple.com").unwrap();
        let tcp = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        let tls = TlsConnector::from(Arc::new(config));
        let tls = tls.connect(name, tcp).await.unwrap();
        let (open, running) = h2::client::handshake(tls).await.unwrap();
        tokio::spawn(running);
        connections.insert(type_id.clone(), open.clone());
        open
    }

    /// Sends a push. Returns the status, and the time in the answer.
    async fn push(
        &self,
        fault: Fault,
        type_id: &TypeIdentifier,
        token: &str,
    ) -> (u16, Option<SystemTime>) {
        let other = types().into_iter().find(|one| one != type_id).unwrap();
        let certified = match fault {
            F::CertificateIsForAnotherType => &other,
            _ => type_id,
        };
        let topic = match fault {
            F::TopicIsFixed => Some("com.example.app"),
            F::TopicIsMissing => None,
            _ => Some(type_id.as_str()),
        };
        let collapse = "x".repeat(65);
        let headers = [
            ("apns-topic", topic),
            (
                "apns-push-type",
                match fault {
                    F::PushTypeIsUnknown => Some("wallet"),
                    F::PushTypeIsAlert => Some("alert"),
                    F::PriorityIsUnknown => None,
                    _ => Some("background"),
                },
            ),
            (
                "apns-priority",
                match fault {
                    F::BackgroundHasPriorityTen => Some("10"),
                    F::PriorityIsUnknown => Some("high"),
                    _ => Some("5"),
                },
            ),
            (
                "apns-expiration",
                match fault {
                    F::ExpirationIsADate => Some("2030-01-01"),
                    F::ExpirationIsZero => Some("0"),
                    // A service may leave out `apns-expiration`.
                    F::Right => None,
                    _ => Some("1900000000"),
                },
            ),
            ("apns-id", (fault == F::IdIsANumber).then_some("17")),
            (
                "apns-collapse-id",
                (fault == F::CollapseIdIsLong).then_some(&*collapse),
            ),
        ];
        let payload = match fault {
            F::NoPayload => "",
            F::PayloadIsText => "\"update\"",
            F::PayloadIsAnAlert => r#"{"aps":{"alert":"{}"}}"#,
            F::PayloadHasAps => r#"{"aps":{}}"#,
            F::Right => "{ }",
            _ => "{}",
        };
        let uri = format!("https://api.push.apple.com/3/device/{token}");
        let mut request = Request::post(uri);
        for (name, value) in headers {
            if let Some(value) = value {
                request = request.header(name, value);
            }
        }
        let open = self.connection(certified).await;
        let mut open = open.ready().await.unwrap();
        let is_empty = payload.is_empty();
        let (answer, mut body) = open
            .send_request(request.body(()).unwrap(), is_empty)
            .unwrap();
        if !is_empty {
            body.send_data(Bytes::from_static(payload.as_bytes()), true)
                .unwrap();
        }
        let (head, mut body) = answer.await.unwrap().into_parts();
        // Some clients match answers to pushes by the id.
        assert!(head.headers.contains_key("apns-id"));
        let mut whole = Vec::new();
        while let Some(part) = body.data().await {
            whole.extend_from_slice(&part.unwrap());
        }
        let time = serde_json::from_slice::<Value>(&whole)
            .ok()
            .and_then(|answer| answer["timestamp"].as_u64())
            .map(|time| UNIX_EPOCH + Duration::from_millis(time));
        (head.status.as_u16(), time)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_service_that_pushes_passes_all() {
    let report = run(&cases(), &target(F::Right).await).await;
    assert_accuses_nobody("another pushing service", &report);
}

/// A service that never sends pushes is reported once.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_never_pushes_is_one_failure() {
    let all = cases();
    let about_pushes = all.iter().filter(|one| one.case.endpoint() == "push");
    let report = run(about_pushes, &target(F::NothingIsPushed).await).await;
    let counts = report.counts();
    assert_eq!(
        (counts.pass, counts.fail, counts.error),
        (0, 1, 0),
        "{report}"
    );
    assert!(counts.blocked >= 20, "{report}");
}
