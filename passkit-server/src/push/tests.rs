//! Tests of which pushes are sent, and what each answer causes. The tests use the memory store, and
//! a sender whose answers a test chooses.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use tokio::time::{Instant, sleep};

use super::*;
use crate::{
    Changed, PassId,
    delivery::{DeliveryLog as _, DeliveryRecorder, Event, PushFailure, Subject},
    identifiers::{DeviceIdentifier, PushToken, SerialNumber, TypeIdentifier},
    store::{
        Audience, Content, Coordination as _, MemoryStore, RegisteredDevice, RegistrationStore as _,
    },
};

#[derive(Default)]
struct Sender {
    sent: Mutex<Vec<(String, String, Instant)>>,
    /// The answers for each token. The last answer repeats.
    answers: Mutex<HashMap<String, Vec<PushOutcome>>>,
    takes: Mutex<Duration>,
    /// A token whose pushes take an hour.
    stalls: Mutex<Option<String>>,
    credentials: Mutex<Option<String>>,
}

#[async_trait]
impl PushSender for Sender {
    fn covers(&self, topic: &TypeIdentifier) -> bool {
        topic.as_str() != "pass.elsewhere"
    }

    fn credentials(&self, _: &TypeIdentifier) -> String {
        self.credentials
            .lock()
            .unwrap()
            .clone()
            .unwrap_or("first".into())
    }

    async fn push(&self, topic: &TypeIdentifier, token: &PushToken) -> PushOutcome {
        let stalls = self.stalls.lock().unwrap().as_deref() == Some(token.as_str());
        let takes = if stalls {
            Duration::from_secs(3_600)
        } else {
            *self.takes.lock().unwrap()
        };
        sleep(takes).await;
        self.sent.lock().unwrap().push((
            topic.to_string(),
            token.as_str().to_owned(),
            Instant::now(),
        ));
        let mut answers = self.answers.lock().unwrap();
        let Some(answers) = answers.get_mut(token.as_str()) else {
            return PushOutcome::Sent;
        };
        if answers.len() > 1 {
            answers.remove(0)
        } else {
            answers[0].clone()
        }
    }
}

impl Sender {
    fn answer(&self, token: &str, answers: impl IntoIterator<Item = PushOutcome>) {
        self.answers
            .lock()
            .unwrap()
            .insert(token.to_owned(), answers.into_iter().collect());
    }

    /// Returns how many pushes each token got since the last call.
    fn taken(&self) -> BTreeMap<String, u32> {
        let mut counts = BTreeMap::new();
        for (_, token, _) in self.sent.lock().unwrap().drain(..) {
            *counts.entry(token).or_default() += 1;
        }
        counts
    }
}

struct Fixture {
    store: Arc<MemoryStore>,
    sender: Arc<Sender>,
    publisher: Arc<Publisher>,
}

fn fixture() -> Fixture {
    let (store, sender) = (Arc::new(MemoryStore::new()), Arc::new(Sender::default()));
    let publisher = publisher(&store, &sender);
    Fixture {
        store,
        sender,
        publisher,
    }
}

fn publisher(store: &Arc<MemoryStore>, sender: &Arc<Sender>) -> Arc<Publisher> {
    Arc::new(Publisher::new(
        store.clone(),
        sender.clone(),
        PushConfig::new(),
    ))
}

fn type_id() -> TypeIdentifier {
    TypeIdentifier::new("pass.a").unwrap()
}

fn pass(serial: &str) -> PassId {
    PassId::new("pass.a", serial).unwrap()
}

fn device(name: &str) -> DeviceIdentifier {
    DeviceIdentifier::new(name).unwrap()
}

fn counts<const N: usize>(of: [(&str, u32); N]) -> BTreeMap<String, u32> {
    of.into_iter()
        .map(|(token, count)| (token.to_owned(), count))
        .collect()
}

impl Fixture {
    async fn register(&self, name: &str, serial: &str, token: &str) {
        let token = PushToken::new(token).unwrap();
        self.store
            .register(&device(name), &pass(serial), &token)
            .await
            .unwrap();
    }

    async fn change(&self, serials: &[&str]) -> PushReport {
        self.publish(serials).await;
        self.publisher.push_pending().await.unwrap()
    }

    async fn publish(&self, serials: &[&str]) {
        let serials: Vec<SerialNumber> = serials.iter().map(|serial| pass(serial).serial).collect();
        self.publisher
            .publish(&type_id(), Changed::Passes(&serials))
            .await
            .unwrap();
    }

    async fn pending(&self) -> Vec<PendingChange> {
        self.store.pending(&type_id(), 1_000).await.unwrap()
    }

    async fn devices(&self, serial: &str) -> Vec<RegisteredDevice> {
        self.store
            .devices(Audience::Pass(&pass(serial)), None, 1_000)
            .await
            .unwrap()
            .items
    }

    async fn is_registered(&self, name: &str, serial: &str) -> bool {
        self.devices(serial)
            .await
            .iter()
            .any(|one| one.device == device(name))
    }

    async fn deferred(&self) -> Vec<(DeviceIdentifier, DeferredPush)> {
        self.store
            .deferred(&type_id(), None, 1_000)
            .await
            .unwrap()
            .items
    }

    async fn set_deferred(&self, pushes: Vec<(DeviceIdentifier, DeferredPush)>) {
        let pushes: Vec<_> = pushes
            .into_iter()
            .map(|(device, push)| (device, Some(push)))
            .collect();
        self.store.defer(&type_id(), &pushes).await.unwrap();
    }

    async fn can_be_claimed(&self, type_id: &TypeIdentifier) -> bool {
        self.store
            .claim(
                &format!("pushes:{type_id}"),
                "another",
                Duration::from_secs(1),
            )
            .await
            .unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn one_push_for_each_token_however_many_passes_and_devices_share_it() {
    let f = fixture();
    for (name, serial, token) in [
        ("d1", "1", "aa"),
        ("d1", "2", "aa"),
        ("d2", "1", "AA"),
        ("d3", "1", "bb"),
        ("d4", "9", "cc"),
    ] {
        f.register(name, serial, token).await;
    }
    let report = f.change(&["1", "2"]).await;
    let sent = f.sender.taken();
    assert_eq!(sent.values().sum::<u32>(), 2, "{sent:?}");
    assert!(sent.contains_key("bb") && !sent.contains_key("cc"));
    assert_eq!(
        (report.sent, report.coalesced, report.stopped),
        (2, 2, None)
    );
    assert_eq!(f.pending().await, []);
    assert_eq!(f.store.backlog().await.unwrap(), []);

    // No device has this pass.
    assert_eq!(f.change(&["none"]).await, PushReport::default());
    assert_eq!(f.pending().await, []);
}

#[tokio::test(start_paused = true)]
async fn a_change_of_a_type_pushes_each_device_registered_for_it() {
    let f = fixture();
    for n in 0..2_500 {
        f.register(
            &format!("d{n}"),
            &format!("s{}", n % 50),
            &format!("{n:06x}"),
        )
        .await;
    }
    f.publisher.publish(&type_id(), Changed::All).await.unwrap();
    assert_eq!(f.publisher.push_pending().await.unwrap().sent, 2_500);
    assert!(f.sender.taken().values().all(|count| *count == 1));
    assert_eq!(f.pending().await, []);
}

#[tokio::test(start_paused = true)]
async fn changes_within_the_spacing_share_the_next_push() {
    let f = fixture();
    f.register("d1", "1", "aa").await;
    f.register("d1", "2", "aa").await;
    f.register("d2", "2", "bb").await;
    let running = f.publisher.clone();
    let running = tokio::spawn(async move { running.run().await });
    let start = Instant::now();
    for n in 0..10 {
        f.publish(&[if n % 2 == 0 { "1" } else { "2" }]).await;
        sleep(Duration::from_millis(20)).await;
    }
    sleep(Duration::from_secs(5)).await;
    let times: Vec<_> = f
        .sender
        .sent
        .lock()
        .unwrap()
        .iter()
        .map(|(_, token, at)| (token.clone(), *at - start))
        .collect();
    let of = |token: &str| {
        times
            .iter()
            .filter(|(to, _)| to == token)
            .map(|(_, at)| *at)
            .collect::<Vec<_>>()
    };
    assert_eq!((of("aa").len(), of("bb").len()), (2, 2), "{times:?}");
    assert!(
        of("aa")[0] < Duration::from_millis(15) && of("bb")[0] < Duration::from_millis(40),
        "{times:?}"
    );
    assert!(
        of("aa")[1] - of("aa")[0] >= Duration::from_secs(1),
        "{times:?}"
    );
    assert_eq!(f.pending().await, []);
    running.abort();
}

/// The device may have listed changes between the push and the second change.
#[tokio::test(start_paused = true)]
async fn a_change_while_a_push_is_under_way_gets_another_push() {
    let f = fixture();
    f.register("d1", "1", "aa").await;
    *f.sender.takes.lock().unwrap() = Duration::from_millis(300);
    let running = f.publisher.clone();
    let running = tokio::spawn(async move { running.run().await });
    f.publish(&["1"]).await;
    sleep(Duration::from_millis(100)).await;
    f.publish(&["1"]).await;
    sleep(Duration::from_secs(3)).await;
    assert_eq!(f.sender.taken(), counts([("aa", 2)]));
    assert_eq!(f.pending().await, []);
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn devices_of_an_unused_token_are_forgotten_unless_they_registered_since() {
    let f = fixture();
    f.register("old", "1", "aa").await;
    f.register("old2", "1", "aa").await;
    f.register("new", "1", "bb").await;
    f.sender.answer(
        "aa",
        [PushOutcome::Gone(
            SystemTime::now() + Duration::from_secs(60),
        )],
    );
    f.sender.answer(
        "bb",
        [PushOutcome::Gone(
            SystemTime::now() - Duration::from_secs(60),
        )],
    );
    let report = f.change(&["1"]).await;
    assert_eq!((report.sent, report.forgotten), (0, 2));
    assert!(!f.is_registered("old", "1").await && !f.is_registered("old2", "1").await);
    assert!(f.is_registered("new", "1").await);
    assert_eq!(f.pending().await, []);
}

#[tokio::test(start_paused = true)]
async fn one_bad_push_among_a_hundred_stops_nothing_and_is_not_repeated() {
    let f = fixture();
    for n in 0..100 {
        f.register(&format!("d{n}"), "1", &format!("{n:04x}")).await;
    }
    f.sender
        .answer("0001", [PushOutcome::BadToken("BadDeviceToken".into())]);
    f.sender
        .answer("0002", [PushOutcome::Rejected("PayloadEmpty".into())]);
    let report = f.change(&["1"]).await;
    assert_eq!(report.sent, 98);
    assert_eq!(report.failed.values().sum::<u64>(), 2);
    assert!(f.sender.taken().values().all(|count| *count == 1));
    assert!(f.is_registered("d1", "1").await && f.is_registered("d2", "1").await);
    assert_eq!(f.pending().await, []);
    assert_eq!(
        report.to_string(),
        "98 sent, 2 failed (BadDeviceToken, PayloadEmpty)"
    );
}

#[tokio::test(start_paused = true)]
async fn the_device_of_a_token_that_stays_bad_for_a_day_is_forgotten() {
    let f = fixture();
    let hours_ago = |hours: u64| SystemTime::now() - Duration::from_secs(hours * 3_600);
    for (name, token) in [
        ("bad", "aa"),
        ("came", "ab"),
        ("lately", "ac"),
        ("good", "bb"),
    ] {
        f.register(name, "1", token).await;
        f.store.set_registered_at(
            &device(name),
            hours_ago(if name == "came" { 24 } else { 48 }),
        );
        if name != "good" {
            f.sender
                .answer(token, [PushOutcome::BadToken("BadDeviceToken".into())]);
        }
    }
    f.change(&["1"]).await;
    assert!(f.is_registered("bad", "1").await, "it stays at first");
    let mut deferred = f.deferred().await;
    assert!(deferred.len() == 3 && deferred.iter().all(|(_, push)| push.due.is_none()));
    for (name, push) in &mut deferred {
        push.bad_since = Some(hours_ago(if *name == device("lately") { 23 } else { 25 }));
    }
    f.set_deferred(deferred).await;
    let f = Fixture {
        publisher: publisher(&f.store, &f.sender),
        ..f
    };
    sleep(Duration::from_secs(2)).await;
    let report = f.change(&["1"]).await;
    assert_eq!((report.forgotten, report.failed["BadDeviceToken"]), (1, 3));
    assert!(!f.is_registered("bad", "1").await);
    assert!(
        f.is_registered("came", "1").await,
        "it registered after its token was first called bad"
    );
    assert!(f.is_registered("lately", "1").await && f.is_registered("good", "1").await);
}

#[tokio::test(start_paused = true)]
async fn many_bad_tokens_delete_nothing_and_pause_the_type() {
    let f = fixture();
    let long_ago = SystemTime::now() - Duration::from_secs(48 * 3_600);
    for n in 0..200 {
        let (name, token) = (format!("d{n}"), format!("{n:04x}"));
        f.register(&name, "1", &token).await;
        f.sender
            .answer(&token, [PushOutcome::BadToken("BadDeviceToken".into())]);
        let push_token = PushToken::new(&token).unwrap();
        let push = DeferredPush {
            push_token,
            due: None,
            attempts: 0,
            bad_since: Some(long_ago),
        };
        f.set_deferred(vec![(device(&name), push)]).await;
    }
    *f.sender.takes.lock().unwrap() = Duration::from_millis(10);
    let f = Fixture {
        publisher: Arc::new(Publisher::new(
            f.store.clone(),
            f.sender.clone(),
            PushConfig::new().concurrency(2),
        )),
        ..f
    };
    let report = f.change(&["1"]).await;
    assert_eq!(
        (report.forgotten, report.stopped),
        (0, Some(Stopped::Refused("BadDeviceToken".into())))
    );
    assert!(f.sender.taken().len() < 10);
    assert_eq!(f.pending().await.len(), 1, "the others are still pending");
    assert_eq!(f.devices("1").await.len(), 200);
    // After the fault is fixed and the pause is over, all other devices get a push.
    f.sender.answers.lock().unwrap().clear();
    sleep(Duration::from_secs(3_600)).await;
    assert!(f.publisher.push_pending().await.unwrap().sent > 190);
    assert_eq!(f.pending().await, []);
}

#[tokio::test(start_paused = true)]
async fn wrong_credentials_keep_everything_pending_and_every_device() {
    let f = fixture();
    f.register("d1", "1", "aa").await;
    f.sender.answer(
        "aa",
        [
            PushOutcome::Misconfigured("BadCertificate".into()),
            PushOutcome::Sent,
        ],
    );
    let report = f.change(&["1"]).await;
    assert_eq!(
        (report.sent, report.stopped),
        (0, Some(Stopped::Refused("BadCertificate".into())))
    );
    assert_eq!(f.pending().await.len(), 1);
    assert!(f.is_registered("d1", "1").await);
    // The publisher continues by itself after a pause.
    assert_eq!(
        f.publisher.push_pending().await.unwrap(),
        PushReport::default()
    );
    sleep(Duration::from_secs(61)).await;
    assert_eq!(f.publisher.push_pending().await.unwrap().sent, 1);
    assert_eq!(f.pending().await, []);
}

#[tokio::test(start_paused = true)]
async fn pushes_without_an_answer_are_tried_again_soon() {
    let f = fixture();
    for n in 0..20 {
        let token = format!("{n:04x}");
        f.register(&format!("d{n}"), "1", &token).await;
        let away = PushOutcome::Unreachable("connection refused".into());
        f.sender
            .answer(&token, [away.clone(), away, PushOutcome::Sent]);
    }
    let running = f.publisher.clone();
    let running = tokio::spawn(async move { running.run().await });
    f.publish(&["1"]).await;
    sleep(Duration::from_secs(20)).await;
    assert_eq!(f.publisher.totals().sent, 20);
    assert_eq!(f.pending().await, []);
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn deferred_pushes_outlive_the_worker_and_are_dropped_in_the_end() {
    let f = fixture();
    f.register("d1", "1", "aa").await;
    f.register("d2", "1", "bb").await;
    f.sender.answer(
        "aa",
        [
            PushOutcome::TooMany("TooManyRequests".into()),
            PushOutcome::Sent,
        ],
    );
    f.sender.answer(
        "bb",
        [PushOutcome::Unavailable("InternalServerError".into())],
    );
    let before = SystemTime::now();
    let report = f.change(&["1"]).await;
    let after = SystemTime::now();
    assert_eq!((report.deferred, report.stopped), (2, None));
    assert_eq!(f.pending().await, []);
    let mut deferred = f.deferred().await;
    for ((_, push), least, most) in [(&deferred[0], 55, 75), (&deferred[1], 890, 1_125)] {
        let due = push.due.unwrap();
        let [least, most] = [
            before + Duration::from_secs(least),
            after + Duration::from_secs(most),
        ];
        assert!(
            (least..=most).contains(&due),
            "{due:?} is not from {least:?} to {most:?}"
        );
    }
    let backlog = f.store.backlog().await.unwrap();
    assert_eq!(
        (backlog[0].pending, backlog[0].next_deferred),
        (0, deferred[0].1.due)
    );

    deferred[0].1.due = Some(SystemTime::now());
    (deferred[1].1.due, deferred[1].1.attempts) = (deferred[0].1.due, 7);
    f.set_deferred(deferred).await;
    let f = Fixture {
        publisher: publisher(&f.store, &f.sender),
        ..f
    };
    sleep(Duration::from_secs(2)).await;
    let report = f.publisher.push_pending().await.unwrap();
    assert_eq!((report.sent, report.failed["InternalServerError"]), (1, 1));
    assert_eq!(f.deferred().await, []);
    assert_eq!(f.store.backlog().await.unwrap(), []);
}

#[tokio::test(start_paused = true)]
async fn a_deferred_push_does_not_block_a_push_to_a_new_token() {
    let f = fixture();
    f.register("d1", "1", "aa").await;
    f.sender
        .answer("aa", [PushOutcome::TooMany("TooManyRequests".into())]);
    f.change(&["1"]).await;
    f.register("d1", "1", "bb").await;
    sleep(Duration::from_secs(2)).await;
    f.sender.taken();
    f.change(&["1"]).await;
    assert_eq!(f.sender.taken(), counts([("bb", 1)]));
    assert_eq!(f.deferred().await, [], "the device was reached");
}

#[tokio::test(start_paused = true)]
async fn a_push_deferred_in_an_unfinished_round_is_not_lost() {
    let f = fixture();
    f.register("d1", "1", "aa").await;
    f.register("d2", "1", "bb").await;
    f.sender.answer(
        "aa",
        [
            PushOutcome::TooMany("TooManyRequests".into()),
            PushOutcome::Sent,
        ],
    );
    *f.sender.stalls.lock().unwrap() = Some("bb".into());
    f.publish(&["1"]).await;
    assert!(
        tokio::time::timeout(Duration::from_secs(5), f.publisher.push_pending())
            .await
            .is_err()
    );
    assert_eq!(f.sender.taken(), counts([("aa", 1)]));
    assert_eq!(
        f.deferred().await,
        [],
        "the round did not store the deferred push"
    );
    *f.sender.stalls.lock().unwrap() = None;
    assert_eq!(f.publisher.push_pending().await.unwrap().sent, 2);
    assert_eq!(f.sender.taken(), counts([("aa", 1), ("bb", 1)]));
    assert_eq!(f.pending().await, []);
}

#[tokio::test(start_paused = true)]
async fn two_workers_push_once_between_them_and_one_takes_over() {
    let f = fixture();
    for n in 0..600 {
        f.register(
            &format!("d{n}"),
            &format!("s{}", n % 7),
            &format!("{n:04x}"),
        )
        .await;
    }
    *f.sender.takes.lock().unwrap() = Duration::from_millis(50);
    let other = publisher(&f.store, &f.sender);
    let run = |publisher: Arc<Publisher>| tokio::spawn(async move { publisher.run().await });
    let (one, two) = (run(f.publisher.clone()), run(other.clone()));
    let serials: Vec<String> = (0..7).map(|n| format!("s{n}")).collect();
    let serials: Vec<&str> = serials.iter().map(String::as_str).collect();
    f.publish(&serials).await;
    other.wake();
    sleep(Duration::from_secs(5)).await;
    let sent = f.sender.taken();
    assert_eq!((sent.len(), sent.values().max()), (600, Some(&1)));

    // One worker ends in the middle. The other one takes over when the lease expires, and every
    // device gets a push.
    *f.sender.takes.lock().unwrap() = Duration::from_millis(700);
    f.publish(&serials).await;
    sleep(Duration::from_millis(400)).await;
    let first = if f.publisher.totals().sent > 0 {
        &one
    } else {
        &two
    };
    first.abort();
    sleep(Duration::from_secs(40)).await;
    assert_eq!(f.sender.taken().len(), 600);
    assert_eq!(f.pending().await, []);
    one.abort();
    two.abort();
}

/// The start of a long list gets another push, and its end gets one push for both changes.
#[tokio::test(start_paused = true)]
async fn a_change_in_the_middle_of_a_broadcast_reaches_every_device() {
    let f = fixture();
    for n in 0..12_000 {
        f.register(&format!("d{n:05}"), "1", &format!("{n:06x}"))
            .await;
    }
    *f.sender.takes.lock().unwrap() = Duration::from_millis(100);
    let running = f.publisher.clone();
    let running = tokio::spawn(async move { running.run().await });
    f.publish(&["1"]).await;
    sleep(Duration::from_millis(1_050)).await;
    let before = f.sender.taken().len();
    assert!((1_000..11_000).contains(&before), "{before}");
    let second = Instant::now();
    f.publish(&["1"]).await;
    sleep(Duration::from_secs(60)).await;
    let sent = std::mem::take(&mut *f.sender.sent.lock().unwrap());
    let late = sent
        .iter()
        .filter(|(_, _, at)| *at >= second + Duration::from_millis(100));
    assert_eq!(
        late.map(|(_, token, _)| token)
            .collect::<HashSet<_>>()
            .len(),
        12_000
    );
    assert!(sent.len() < 12_000 + 6_000, "{}", sent.len());
    assert_eq!(f.pending().await, []);
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn types_that_the_sender_does_not_cover_are_left_to_others() {
    let f = fixture();
    let elsewhere = PassId::new("pass.elsewhere", "1").unwrap();
    let token = PushToken::new("aa").unwrap();
    f.store
        .register(&device("d1"), &elsewhere, &token)
        .await
        .unwrap();
    let serials = std::slice::from_ref(&elsewhere.serial);
    f.publisher
        .publish(&elsewhere.type_id, Changed::Passes(serials))
        .await
        .unwrap();
    let report = f.publisher.push_pending().await.unwrap();
    assert_eq!(report.stopped, Some(Stopped::NoCredentials));
    assert_eq!(f.sender.taken(), counts([]));
    assert!(f.can_be_claimed(&elsewhere.type_id).await);
}

#[tokio::test(start_paused = true)]
async fn a_publisher_that_closes_lets_others_continue_at_once() {
    let f = fixture();
    f.register("d1", "1", "aa").await;
    *f.sender.takes.lock().unwrap() = Duration::from_secs(10);
    let running = f.publisher.clone();
    let running = tokio::spawn(async move { running.run().await });
    f.publish(&["1"]).await;
    sleep(Duration::from_secs(1)).await;
    assert!(!f.can_be_claimed(&type_id()).await);
    running.abort();
    assert!(running.await.is_err());
    f.publisher.close().await.unwrap();
    assert!(f.can_be_claimed(&type_id()).await);
    assert_eq!(f.pending().await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn types_are_pushed_independently() {
    let f = fixture();
    let order = PassId::new("order.a", "1").unwrap();
    let token = PushToken::new("aa").unwrap();
    f.store
        .register(&device("d1"), &order, &token)
        .await
        .unwrap();
    f.register("d1", "1", "aa").await;
    f.publish(&["1"]).await;
    f.publisher
        .publish(&order.type_id, Changed::Passes(&[order.serial]))
        .await
        .unwrap();
    assert_eq!(f.publisher.push_pending().await.unwrap().sent, 2);
    let mut topics: Vec<_> = f
        .sender
        .sent
        .lock()
        .unwrap()
        .iter()
        .map(|(topic, _, _)| topic.clone())
        .collect();
    topics.sort();
    assert_eq!(topics, ["order.a", "pass.a"]);
}

#[tokio::test(start_paused = true)]
async fn only_new_contents_are_pushed() {
    let f = fixture();
    f.register("d1", "1", "aa").await;
    f.register("d2", "2", "bb").await;
    let content = |serial: &str, digest: Option<u8>| Content {
        serial: pass(serial).serial,
        digest: digest.map(|byte| [byte; 32]),
        tokens: Vec::new(),
    };
    let publish = async |contents: &[Content]| {
        f.publisher
            .publish(&type_id(), Changed::Contents(contents))
            .await
            .unwrap();
        f.publisher.push_pending().await.unwrap();
        sleep(Duration::from_secs(2)).await;
        f.sender.taken()
    };
    assert_eq!(
        publish(&[content("1", Some(1)), content("2", Some(1))]).await,
        counts([("aa", 1), ("bb", 1)])
    );
    assert_eq!(
        publish(&[content("1", Some(1)), content("2", Some(2))]).await,
        counts([("bb", 1)])
    );
    assert_eq!(publish(&[content("1", None)]).await, counts([]));
}

#[tokio::test(start_paused = true)]
async fn a_device_with_an_unsupported_token_stays_registered() {
    let f = fixture();
    f.register("d1", "1", "6F9619FF-8B86-D011-B42D-00CF4FC964FF")
        .await;
    f.register("d2", "1", "aa").await;
    f.sender.answer(
        "6F9619FF-8B86-D011-B42D-00CF4FC964FF",
        [PushOutcome::Unsupported],
    );
    let report = f.change(&["1"]).await;
    assert_eq!(
        (report.sent, report.unsupported, report.failed.len()),
        (1, 1, 0)
    );
    assert_eq!(f.pending().await, []);
    assert!(f.is_registered("d1", "1").await);
}

#[tokio::test]
async fn pushes_are_recorded_if_some_process_may_send_them() {
    let (store, sender) = (Arc::new(MemoryStore::new()), Arc::new(Sender::default()));
    let exclusive = PushConfig::new().exclusive(true);
    let elsewhere = TypeIdentifier::new("pass.elsewhere").unwrap();
    for (publisher, here, there) in [
        (Publisher::marking(store.clone()), false, false),
        (Publisher::recording(store.clone()), true, true),
        (
            Publisher::new(store.clone(), sender.clone(), PushConfig::new()),
            true,
            true,
        ),
        (
            Publisher::new(store.clone(), sender.clone(), exclusive),
            true,
            false,
        ),
    ] {
        for (type_id, expected) in [(&type_id(), here), (&elsewhere, there)] {
            let before = store
                .pass_state(&PassId {
                    type_id: type_id.clone(),
                    ..pass("1")
                })
                .await
                .unwrap();
            publisher
                .publish(type_id, Changed::Passes(&[pass("1").serial]))
                .await
                .unwrap();
            let after = store
                .pass_state(&PassId {
                    type_id: type_id.clone(),
                    ..pass("1")
                })
                .await
                .unwrap();
            assert!(after.version > before.version, "{publisher:?} marks");
            let pending = store.pending(type_id, 10).await.unwrap();
            assert_eq!(
                (!pending.is_empty(), publisher.records(type_id)),
                (expected, expected),
                "{publisher:?}"
            );
            let done: Vec<_> = pending
                .into_iter()
                .map(|change| {
                    (
                        change.scope,
                        Progress {
                            version: change.version,
                            next: None,
                        },
                    )
                })
                .collect();
            store.record_progress(type_id, &done).await.unwrap();
        }
    }
}

/// Helpers for a stranger who registers bad tokens for a pass.
impl Fixture {
    async fn stranger(&self, serial: &str, tokens: u32) {
        for n in 0..tokens {
            let token = format!("bad0{n:04x}");
            self.register(&format!("stranger-{n}"), serial, &token)
                .await;
            self.sender
                .answer(&token, [PushOutcome::BadToken("BadDeviceToken".into())]);
        }
    }

    /// Returns another publisher over the same store, as after a restart or in another process.
    fn restarted(self) -> Self {
        Self {
            publisher: publisher(&self.store, &self.sender),
            ..self
        }
    }
}

#[tokio::test(start_paused = true)]
async fn bad_tokens_of_a_stranger_stop_nothing_where_the_credentials_have_delivered() {
    let f = fixture();
    f.register("first", "first", "aa").await;
    assert_eq!(f.change(&["first"]).await.sent, 1);
    sleep(Duration::from_secs(2)).await;
    let f = f.restarted();
    f.stranger("his", 6_000).await;
    for n in 0..20 {
        f.register(&format!("d{n}"), &format!("s{n}"), &format!("{n:04x}"))
            .await;
    }
    let honest: Vec<String> = (0..20).map(|n| format!("s{n}")).collect();
    let honest: Vec<&str> = honest.iter().map(String::as_str).collect();
    f.publish(&["his"]).await;
    f.publish(&honest).await;
    let report = f.publisher.push_pending().await.unwrap();
    assert_eq!((report.sent, report.stopped), (20, None));
    assert_eq!(f.pending().await, []);
    // The bad tokens stop nothing at the next change of his pass either.
    sleep(Duration::from_secs(2)).await;
    f.publish(&["his", "s0"]).await;
    let report = f.publisher.push_pending().await.unwrap();
    assert_eq!((report.sent, report.stopped), (1, None));
}

#[tokio::test(start_paused = true)]
async fn a_stranger_who_comes_first_delays_his_own_pass_alone() {
    let f = fixture();
    f.stranger("his", 50).await;
    f.register("d1", "1", "aa").await;
    f.register("d2", "2", "bb").await;
    let running = f.publisher.clone();
    let running = tokio::spawn(async move { running.run().await });
    f.publish(&["his"]).await;
    sleep(Duration::from_secs(1)).await;
    let refused = f.publisher.totals().failed["BadDeviceToken"];
    assert!(refused < 50, "{refused}: the credentials may be wrong");
    f.publish(&["1", "2"]).await;
    sleep(Duration::from_secs(20)).await;
    assert_eq!(f.publisher.totals().sent, 2);
    // The credentials are right, so the bad tokens no longer matter.
    assert_eq!(f.pending().await, []);
    assert_eq!(f.publisher.totals().failed["BadDeviceToken"], 50 + refused);
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn wrong_credentials_cost_few_pushes_and_lose_no_change() {
    let f = fixture();
    f.register("first", "first", "aa").await;
    assert_eq!(f.change(&["first"]).await.sent, 1);
    // The renewed certificate is for something else.
    *f.sender.credentials.lock().unwrap() = Some("second".into());
    for n in 0..1_000 {
        let token = format!("{n:04x}");
        f.register(&format!("d{n}"), &format!("s{n}"), &token).await;
        f.sender
            .answer(&token, [PushOutcome::BadToken("BadDeviceToken".into())]);
    }
    f.sender.taken();
    let running = f.publisher.clone();
    let running = tokio::spawn(async move { running.run().await });
    let all: Vec<String> = (0..1_000).map(|n| format!("s{n}")).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    f.publish(&all).await;
    sleep(Duration::from_secs(600)).await;
    let tried: u32 = f.sender.taken().values().sum();
    assert!((5..=256).contains(&tried), "{tried}");
    assert_eq!(f.pending().await.len(), 1_000);
    running.abort();
    f.sender.answers.lock().unwrap().clear();
    *f.sender.credentials.lock().unwrap() = Some("third".into());
    sleep(Duration::from_secs(3_600)).await;
    assert_eq!(f.publisher.push_pending().await.unwrap().sent, 1_000);
    assert_eq!(f.pending().await, []);
}

#[tokio::test(start_paused = true)]
async fn bad_tokens_fill_the_deferred_pushes_up_to_a_bound() {
    let mut feedback = feedback::Feedback::default();
    let (mut actions, mut report) = (feedback::Actions::default(), PushReport::default());
    for n in 0..150_000 {
        let token = PushToken::new(&format!("{n:08x}")).unwrap();
        let key = feedback.recent.key(&token);
        let delivery = feedback::Delivery {
            token,
            devices: vec![device(&format!("d{n}"))],
            version: Some(1),
        };
        let bad = PushOutcome::BadToken("BadDeviceToken".into());
        let stop = feedback.take(
            key,
            delivery,
            Instant::now(),
            bad,
            &mut actions,
            &mut report,
        );
        assert!(stop.is_none());
    }
    assert_eq!(
        (feedback.deferred.len(), actions.defer.len()),
        (100_000, 100_000)
    );
}

#[tokio::test(start_paused = true)]
async fn a_token_gone_in_the_future_does_not_remove_a_later_registration() {
    let f = fixture();
    f.register("d1", "1", "aa").await;
    let later = SystemTime::now() + Duration::from_secs(86_400);
    f.sender.answer("aa", [PushOutcome::Gone(later)]);
    f.store.set_registered_at(
        &device("d1"),
        SystemTime::now() + Duration::from_secs(3_600),
    );
    assert_eq!(f.change(&["1"]).await.forgotten, 0);
    assert!(f.is_registered("d1", "1").await);
}

/// A fixture whose publisher records how far pushes came.
fn recording() -> (Fixture, DeliveryRecorder) {
    let mut f = fixture();
    let recorder = DeliveryRecorder::new(f.store.clone(), f.store.clone());
    let publisher = Publisher::new(f.store.clone(), f.sender.clone(), PushConfig::new());
    f.publisher = Arc::new(publisher.delivery_log(recorder.clone()));
    (f, recorder)
}

/// Writes the waiting entries, and returns the records of the subject: event, count, version and
/// detail.
async fn recorded(
    f: &Fixture,
    recorder: &DeliveryRecorder,
    subject: Subject,
) -> Vec<(Event, u64, u64, String)> {
    recorder.flush().await;
    let mut records = f.store.records(&[subject]).await.unwrap();
    let records = records.pop().unwrap().into_iter();
    records
        .map(|one| (one.event, one.count, one.version, one.detail))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn records_say_how_far_the_pushes_of_each_change_came() {
    let (f, recorder) = recording();
    // Two passes share 1,200 devices, so that a push covers both and each has several pages. Two
    // tokens are bad, one is no longer in use, and one is from another wallet.
    for number in 0..1_200 {
        let (name, token) = (format!("d{number}"), format!("{number:08x}"));
        f.register(&name, "1", &token).await;
        f.register(&name, "2", &token).await;
    }
    let bad = PushOutcome::BadToken("BadDeviceToken".into());
    for token in ["00000001", "00000002"] {
        f.sender.answer(token, [bad.clone()]);
    }
    f.sender
        .answer("00000003", [PushOutcome::Gone(SystemTime::now())]);
    f.sender.answer("00000004", [PushOutcome::Unsupported]);
    let report = f.change(&["1", "2"]).await;
    assert_eq!((report.sent, report.forgotten), (1_196, 1));

    let failed = Event::PushFailed;
    for serial in ["1", "2"] {
        let version = f.store.pass_state(&pass(serial)).await.unwrap().version;
        let of_pass = recorded(&f, &recorder, Subject::Pass(pass(serial))).await;
        let expected = [
            (Event::PushAccepted, 1_196, ""),
            (failed(PushFailure::Gone), 1, ""),
            (failed(PushFailure::BadToken), 2, "BadDeviceToken"),
            (failed(PushFailure::Unsupported), 1, ""),
            (Event::PushEnded, 1, ""),
        ];
        let mut expected: Vec<_> = expected
            .map(|(event, count, detail)| (event, count, version, detail.to_owned()))
            .into();
        expected.sort();
        assert_eq!(of_pass, expected, "{serial}");
    }
    let of_device = |name| Subject::Device(type_id(), device(name));
    let version = f.store.pass_state(&pass("2")).await.unwrap().version;
    let of_bad = recorded(&f, &recorder, of_device("d1")).await;
    let expected = (
        failed(PushFailure::BadToken),
        1,
        version,
        "BadDeviceToken".to_owned(),
    );
    assert_eq!(of_bad, [expected]);
    // Neither a device that got its push nor one that was removed has a record.
    for name in ["d0", "d3"] {
        assert_eq!(recorded(&f, &recorder, of_device(name)).await, [], "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn records_say_why_the_pushes_of_a_type_stopped() {
    let (f, recorder) = recording();
    f.register("d1", "1", "aa").await;
    let misconfigured = PushOutcome::Misconfigured("BadCertificate".into());
    f.sender.answer("aa", [misconfigured, PushOutcome::Sent]);
    f.change(&["1"]).await;
    let version = f.store.pass_state(&pass("1")).await.unwrap().version;
    let stopped = (
        Event::PushFailed(PushFailure::Misconfigured),
        1,
        version,
        "BadCertificate".to_owned(),
    );
    let of_pass = recorded(&f, &recorder, Subject::Pass(pass("1"))).await;
    assert_eq!(of_pass, std::slice::from_ref(&stopped));
    sleep(Duration::from_secs(3_600)).await;
    f.publisher.push_pending().await.unwrap();
    let of_pass = recorded(&f, &recorder, Subject::Pass(pass("1"))).await;
    let accepted = (Event::PushAccepted, 1, version, String::new());
    let ended = (Event::PushEnded, 1, version, String::new());
    assert_eq!(of_pass, [accepted, stopped, ended]);
}

#[tokio::test(start_paused = true)]
async fn a_change_of_a_whole_type_is_recorded_for_the_type() {
    let (f, recorder) = recording();
    f.register("d1", "1", "aa").await;
    f.register("d2", "2", "bb").await;
    f.publisher.publish(&type_id(), Changed::All).await.unwrap();
    f.publisher.push_pending().await.unwrap();
    let version = f.store.pass_state(&pass("1")).await.unwrap().version;
    let of_type = recorded(&f, &recorder, Subject::Type(type_id())).await;
    let accepted = (Event::PushAccepted, 2, version, String::new());
    let ended = (Event::PushEnded, 1, version, String::new());
    assert_eq!(of_type, [accepted, ended]);
    assert_eq!(recorded(&f, &recorder, Subject::Pass(pass("1"))).await, []);
}

#[tokio::test(start_paused = true)]
async fn the_report_says_why_the_push_service_cannot_be_reached() {
    let f = fixture();
    f.register("d1", "1", "aa").await;
    let reason = "localhost:443: invalid peer certificate: UnknownIssuer";
    f.sender
        .answer("aa", [PushOutcome::Unreachable(reason.into())]);
    let report = f.change(&["1"]).await;
    assert_eq!(report.stopped, Some(Stopped::Refused(reason.into())));
}
