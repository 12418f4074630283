//! What the service records about the calls of phones.

use std::{
    sync::{Arc, Mutex},
    time::SystemTime,
};

use passkit_server::{
    Changed, PassId, async_trait,
    delivery::{
        Complaint, DeliveryLog, DeliveryRecorder, Denial, Event, ListDetail, Record, Subject,
    },
    store::{MemoryStore, RegistrationStore as _, StoreError, StoreErrorKind, UpdateTag},
};
use tokio::sync::oneshot;

use crate::app::{
    App, COUPON, DEVICE, OTHER_DEVICE, PUSH, TICKET, device, get, latest_path, list_path, post,
    push_body, registration_path, ticket, type_id,
};

struct Fixture {
    app: App,
    recorder: DeliveryRecorder,
}

fn fixture() -> Fixture {
    let mut app = App::new();
    let recorder = DeliveryRecorder::new(app.store.clone(), app.store.clone());
    app.service = app.service.delivery_log(recorder.clone());
    Fixture { app, recorder }
}

impl Fixture {
    /// Writes the waiting entries, and returns the records of the subject.
    async fn records(&self, subject: Subject) -> Vec<Record> {
        self.recorder.flush().await;
        let mut records = self.app.store.records(&[subject]).await.unwrap();
        records.pop().unwrap()
    }

    async fn events(&self, subject: Subject) -> Vec<(Event, u64)> {
        let records = self.records(subject).await.into_iter();
        records.map(|record| (record.event, record.count)).collect()
    }

    async fn of_device(&self, name: &str) -> Vec<(Event, u64)> {
        self.events(Subject::Device(type_id(TICKET), device(name)))
            .await
    }

    async fn of_pass(&self, serial: &str) -> Vec<(Event, u64)> {
        self.events(Subject::Pass(ticket(serial))).await
    }

    async fn of_type(&self) -> Vec<(Event, u64)> {
        self.events(Subject::Type(type_id(TICKET))).await
    }

    async fn fetch(&self, pass: &PassId, authorization: &str) -> u16 {
        let call = get(latest_path(pass)).authorization(authorization);
        self.app.status(call).await
    }
}

#[tokio::test]
async fn the_way_of_a_change_to_a_phone_is_recorded() {
    let f = fixture();
    let pass = ticket("A-1");
    for status in [201, 200] {
        assert_eq!(f.app.register(DEVICE, &pass).await, status);
    }
    let first = f.app.list(DEVICE, TICKET, None).await.unwrap();
    f.app.publish(&pass, "second version").await;
    let second = f.app.list(DEVICE, TICKET, Some(&first.tag)).await.unwrap();
    assert_eq!(f.app.list(DEVICE, TICKET, Some(&second.tag)).await, None);
    let fetched = f.app.send(f.app.get_call(&pass)).await;
    assert_eq!(fetched.status, 200);
    let date = fetched.header("last-modified").unwrap();
    for _ in 0..2 {
        let call = f.app.get_call(&pass).header("if-modified-since", date);
        assert_eq!(f.app.status(call).await, 304);
    }

    let expected = [(Event::Registered, 1), (Event::Asked, 3), (Event::Told, 2)];
    assert_eq!(f.of_device(DEVICE).await, expected);
    let of_pass = f.records(Subject::Pass(pass.clone())).await;
    let version = f.app.store.pass_state(&pass).await.unwrap().version;
    let of_pass: Vec<_> = of_pass
        .iter()
        .map(|record| (record.event, record.count, record.version))
        .collect();
    let expected = [(Event::Fetched, 1, version), (Event::Unchanged, 2, version)];
    assert_eq!(of_pass, expected);

    let of_device = Subject::Device(type_id(TICKET), device(DEVICE));
    let records = f.records(of_device).await;
    let detail = |event| {
        let record = records.iter().find(|record| record.event == event).unwrap();
        ListDetail::parse(&record.detail).unwrap()
    };
    let [first, second] = [first, second].map(|one| UpdateTag::parse(&one.tag));
    let told = ListDetail {
        since: first,
        serials: 1,
        tag: second.unwrap(),
    };
    assert_eq!(detail(Event::Told), told);
    let asked = ListDetail {
        since: second,
        serials: 0,
        tag: second.unwrap(),
    };
    assert_eq!(detail(Event::Asked), asked);
}

#[tokio::test]
async fn a_made_up_device_leaves_no_record() {
    let f = fixture();
    assert_eq!(f.app.list(DEVICE, TICKET, None).await, None);
    let unknown = ticket("never seen");
    let call = post(registration_path(DEVICE, &unknown))
        .authorization("ApplePass 0123456789abcdef")
        .body(push_body(PUSH));
    assert_eq!(f.app.status(call).await, 401);
    assert_eq!(f.of_device(DEVICE).await, []);
    assert_eq!(f.of_pass("never seen").await, []);
    assert_eq!(f.of_type().await, []);
    assert_eq!(f.recorder.totals().written, 0);
}

#[tokio::test]
async fn refused_requests_are_recorded_for_a_known_pass_and_its_type() {
    let f = fixture();
    let pass = ticket("zwölf/Stück");
    f.app.register(DEVICE, &pass).await;
    let secret = "wrong-0123456789abcdef";
    assert_eq!(f.fetch(&pass, &format!("ApplePass {secret}")).await, 401);
    assert_eq!(f.fetch(&pass, &format!("Bearer {secret}")).await, 401);
    assert_eq!(f.fetch(&pass, &format!("AndroidPass {secret}")).await, 401);
    assert_eq!(f.app.status(get(latest_path(&pass))).await, 401);
    let call = post(registration_path(OTHER_DEVICE, &pass)).body(push_body(PUSH));
    assert_eq!(f.app.status(call).await, 401);
    // An enrolment.
    let path = format!("{}/personalize", latest_path(&pass));
    let call = post(path).authorization(format!("ApplePass {secret}"));
    assert_eq!(f.app.status(call.body("{}")).await, 401);
    f.app.desk.withdraw(&pass);
    assert_eq!(f.fetch(&pass, &f.app.authorization(&pass)).await, 401);

    let expected = [
        (Event::Refused(Denial::NoAuthorization), 2),
        (Event::Refused(Denial::Scheme), 2),
        (Event::Refused(Denial::Removed), 1),
        (Event::Refused(Denial::WrongToken), 2),
    ];
    assert_eq!(f.of_pass("zwölf/Stück").await, expected);
    assert_eq!(f.of_type().await, expected);
    // Neither a made-up serial number nor a made-up type leaves a record. A mark of the whole type
    // gives made-up passes a version too.
    f.app.mark_all(TICKET).await;
    for pass in [ticket("made up"), PassId::new("pass.made.up", "1").unwrap()] {
        assert_eq!(f.app.status(get(latest_path(&pass))).await, 401);
        assert_eq!(f.records(Subject::Pass(pass.clone())).await, []);
    }
    assert_eq!(f.records(Subject::Type(type_id("pass.made.up"))).await, []);
    for subject in [Subject::Pass(pass), Subject::Type(type_id(TICKET))] {
        let text = format!("{:?}", f.records(subject).await);
        assert!(!text.contains(secret), "{text}");
    }
}

#[tokio::test]
async fn complaints_are_recorded_without_secrets() {
    let f = fixture();
    f.app.register(DEVICE, &ticket("A-1")).await;
    let secret = "c0ffee0123456789";
    let task = format!(
        "Get pass task (pass type {TICKET}, serial number A-1, if-modified-since (null); with web service url https://a/) encountered error: "
    );
    let messages = [
        format!("[2026-11-22 10:00:00 +0100] {task}Unexpected response code 500"),
        format!("{task}Authentication failure"),
        format!("{task}the \u{1b}[2J server said {secret} to {DEVICE}"),
        format!(
            "Get serial #s task for device {secret}, pass type {TICKET}; with web service url https://a/ encountered error: Unexpected response code 418"
        ),
        format!(
            "Get pass task (pass type {COUPON}, serial number A-1, if-modified-since (null); with web service url https://a/) encountered error: Authentication failure"
        ),
        "nothing that names a pass".to_owned(),
    ];
    let body = serde_json::json!({ "logs": messages }).to_string();
    assert_eq!(f.app.status(post("/v1/log").body(body)).await, 200);

    let of_pass = f.records(Subject::Pass(ticket("A-1"))).await;
    let found: Vec<_> = of_pass
        .iter()
        .map(|record| (record.event, &*record.detail))
        .collect();
    let complaint = Event::Complaint;
    let expected = [
        (complaint(Complaint::AuthenticationFailure), ""),
        (complaint(Complaint::UnexpectedStatus), "status 500"),
        (complaint(Complaint::Other), "the …"),
    ];
    assert_eq!(found.len(), expected.len(), "{found:?}");
    assert_eq!(found[..2], expected[..2]);
    let other = found[2].1;
    assert!(other.starts_with("the "), "{other:?}");
    for secret in [secret, DEVICE, "\u{1b}"] {
        assert!(!other.contains(secret), "{other:?}");
    }
    // The type has the complaints about its passes, and the complaints that name no pass.
    let of_type = f.of_type().await;
    assert!(
        of_type.contains(&(complaint(Complaint::UnexpectedStatus), 2)),
        "{of_type:?}"
    );
    // Nobody has a coupon, so the coupon of this name may be made up.
    assert_eq!(f.records(Subject::Type(type_id(COUPON))).await, []);
}

#[tokio::test]
async fn a_device_that_leaves_takes_its_records_along() {
    let f = fixture();
    for serial in ["A-1", "A-2"] {
        f.app.register(DEVICE, &ticket(serial)).await;
    }
    f.app.register(OTHER_DEVICE, &ticket("A-1")).await;
    for name in [DEVICE, OTHER_DEVICE] {
        f.app.list(name, TICKET, None).await;
    }
    f.app.unregister(DEVICE, &ticket("A-1")).await;
    assert_eq!(f.of_device(DEVICE).await.len(), 3);
    f.app.unregister(DEVICE, &ticket("A-2")).await;
    assert_eq!(f.of_device(DEVICE).await, []);
    assert_eq!(f.of_device(OTHER_DEVICE).await.len(), 3);
}

#[tokio::test]
async fn strangers_do_not_displace_what_phones_do() {
    let f = fixture();
    let pass = ticket("A-1");
    f.app.register(DEVICE, &pass).await;
    for number in 0..1_000 {
        let made_up = ticket(&format!("made up {number}"));
        assert_eq!(f.app.status(get(latest_path(&made_up))).await, 401);
    }
    assert_eq!(f.app.status(f.app.get_call(&pass)).await, 200);
    assert_eq!(f.of_pass("A-1").await, [(Event::Fetched, 1)]);
    assert_eq!(f.recorder.totals().dropped, 1_000 - 256);
}

/// A log whose calls fail until they may succeed.
#[derive(Default)]
struct Failing(MemoryStore, Mutex<bool>);

#[async_trait]
impl DeliveryLog for Failing {
    async fn record(&self, records: &[Record]) -> Result<(), StoreError> {
        if !*self.1.lock().unwrap() {
            return Err(StoreError::new(StoreErrorKind::Unavailable, "down"));
        }
        self.0.record(records).await
    }

    async fn records(&self, subjects: &[Subject]) -> Result<Vec<Vec<Record>>, StoreError> {
        self.0.records(subjects).await
    }

    async fn forget(&self, subjects: &[Subject]) -> Result<(), StoreError> {
        self.0.forget(subjects).await
    }

    async fn discard_before(&self, time: SystemTime, limit: usize) -> Result<bool, StoreError> {
        self.0.discard_before(time, limit).await
    }
}

#[tokio::test]
async fn while_the_log_is_down_phones_are_answered_and_losses_are_counted() {
    let log = Arc::new(Failing::default());
    let mut app = App::new();
    let recorder = DeliveryRecorder::new(log.clone(), app.store.clone());
    app.service = app.service.delivery_log(recorder.clone());
    let pass = ticket("A-1");
    assert_eq!(app.register(DEVICE, &pass).await, 201);
    recorder.flush().await;
    let totals = recorder.totals();
    assert_eq!((totals.written, totals.dropped), (0, 1));
    *log.1.lock().unwrap() = true;
    assert_eq!(app.status(app.get_call(&pass)).await, 200);
    recorder.flush().await;
    let totals = recorder.totals();
    assert_eq!((totals.written, totals.dropped), (1, 1));
}

#[tokio::test]
async fn what_is_left_is_written_at_the_stop() {
    let f = fixture();
    let (stop, stopped) = oneshot::channel::<()>();
    let recorder = f.recorder.clone();
    let running = tokio::spawn(async move {
        recorder.run_until(async { drop(stopped.await) }).await;
    });
    f.app.register(DEVICE, &ticket("A-1")).await;
    drop(stop);
    running.await.unwrap();
    let subject = Subject::Device(type_id(TICKET), device(DEVICE));
    let records = f.app.store.records(&[subject]).await.unwrap();
    assert_eq!(records[0].len(), 1);
}

#[tokio::test]
async fn without_a_recorder_nothing_is_recorded() {
    let app = App::new();
    app.register(DEVICE, &ticket("A-1")).await;
    app.store
        .mark(&type_id(TICKET), Changed::All)
        .await
        .unwrap();
    assert_eq!(app.status(get(list_path(DEVICE, TICKET))).await, 200);
    let subject = Subject::Device(type_id(TICKET), device(DEVICE));
    assert_eq!(app.store.records(&[subject]).await.unwrap(), [vec![]]);
}
