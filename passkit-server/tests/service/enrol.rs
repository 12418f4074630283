//! Rewards enrolment.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::join_all;
use passkit_server::{
    Changed, PassId, SourceError, async_trait,
    enrolment::{Enroller, Enrolment, Person, PersonalizationToken, TokenSigner},
    identifiers::TypeIdentifier,
    maintenance::purge,
    push::{Publisher, PushQueue as _},
    store::{self, Coordination, MemoryStore, RegistrationStore as _, StoreError, StoreErrorKind},
};
use tokio::sync::Notify;

use crate::app::{
    Answer, App, Content, RequestBuilder, coupon, get, latest_path, order, post, ticket,
};
use crate::test_store::{Fault, TestStore};

/// The enroller and the signer of a shop. Only tickets offer enrolment, until a customer is enrolled.
#[derive(Default)]
struct Shop {
    app: Mutex<Option<Arc<crate::app::Desk>>>,
    enrolled: Mutex<Vec<(PassId, String)>>,
    signed: AtomicUsize,
    fail: AtomicBool,
    fail_signing: AtomicBool,
    /// If set, each call waits for a permission to continue.
    waits: AtomicBool,
    go_on: Notify,
    /// If set, each call waits after it has made the personal version, too.
    waits_at_the_end: AtomicBool,
    /// How often the service asked whether a pass offers enrolment.
    asked: AtomicUsize,
    /// If set, the shop publishes the personal version itself, with this publisher.
    publisher: Mutex<Option<Arc<Publisher>>>,
}

#[async_trait]
impl Enroller for Shop {
    async fn offers(&self, pass: &PassId) -> Result<bool, SourceError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let enrolled = self.enrolled.lock().unwrap();
        let is_enrolled = enrolled.iter().any(|(enrolled, _)| enrolled == pass);
        Ok(pass.type_id == ticket("A-1").type_id && !is_enrolled)
    }

    async fn enrol(&self, pass: &PassId, person: &Person) -> Result<(), SourceError> {
        if self.waits.load(Ordering::SeqCst) {
            self.go_on.notified().await;
        }
        if self.fail.load(Ordering::SeqCst) {
            return Err("no customers today, secret-detail".into());
        }
        let name = person.full_name.clone().unwrap_or_default();
        let content = Content::Shared(format!("pass of {name}").into());
        self.app
            .lock()
            .unwrap()
            .as_ref()
            .unwrap()
            .set_content(pass, content);
        self.enrolled.lock().unwrap().push((pass.clone(), name));
        if self.waits_at_the_end.load(Ordering::SeqCst) {
            self.go_on.notified().await;
        }
        let publisher = self.publisher.lock().unwrap().clone();
        if let Some(publisher) = publisher {
            let content = store::Content {
                serial: pass.serial.clone(),
                digest: Some([1; 32]),
                tokens: Vec::new(),
            };
            publisher
                .publish(&pass.type_id, Changed::Contents(&[content]))
                .await?;
        }
        Ok(())
    }
}

#[async_trait]
impl TokenSigner for Shop {
    async fn sign(
        &self,
        _: &TypeIdentifier,
        token: &PersonalizationToken,
    ) -> Result<Option<Vec<u8>>, SourceError> {
        if self.fail_signing.load(Ordering::SeqCst) {
            return Ok(None);
        }
        self.signed.fetch_add(1, Ordering::SeqCst);
        Ok(Some(format!("signed {}", token.as_str()).into()))
    }
}

fn app() -> (App, Arc<Shop>) {
    let mut app = App::new();
    let shop = Arc::new(Shop::default());
    *shop.app.lock().unwrap() = Some(app.desk.clone());
    let publisher = Arc::new(Publisher::recording(app.store.clone()));
    let enrolment = Enrolment::new(app.store.clone(), publisher, shop.clone(), shop.clone());
    app.service = app.service.enrolment(enrolment);
    (app, shop)
}

/// Returns another instance, whose enrolment uses this store.
fn over(store: Arc<dyn Coordination>, app: &App, shop: &Arc<Shop>) -> App {
    let mut other = App::over(app.store.clone());
    let publisher = Arc::new(Publisher::recording(app.store.clone()));
    let enrolment = Enrolment::new(store, publisher, shop.clone(), shop.clone());
    other.service = other.service.enrolment(enrolment);
    other
}

/// A store that counts claims.
#[derive(Default)]
struct Claims {
    inner: MemoryStore,
    count: AtomicUsize,
    /// If set, a claim takes this long after it was made.
    slow: Mutex<Option<Duration>>,
    /// If set, no note can be read after a claim.
    fails: AtomicBool,
}

#[async_trait]
impl Coordination for Claims {
    async fn claim(&self, name: &str, owner: &str, time: Duration) -> Result<bool, StoreError> {
        self.count.fetch_add(1, Ordering::SeqCst);
        let is_claimed = self.inner.claim(name, owner, time).await?;
        let slow = *self.slow.lock().unwrap();
        if let Some(slow) = slow {
            tokio::time::sleep(slow).await;
        }
        Ok(is_claimed)
    }

    async fn release(&self, name: &str, owner: &str) -> Result<(), StoreError> {
        self.inner.release(name, owner).await
    }

    async fn note(&self, name: &str) -> Result<Option<String>, StoreError> {
        if self.fails.load(Ordering::SeqCst) && self.count.load(Ordering::SeqCst) > 0 {
            return Err(StoreError::new(StoreErrorKind::Unavailable, "down"));
        }
        self.inner.note(name).await
    }

    async fn replace_note(
        &self,
        name: &str,
        expected: Option<&str>,
        new: Option<&str>,
    ) -> Result<bool, StoreError> {
        self.inner.replace_note(name, expected, new).await
    }
}

fn body(token: &str, name: &str) -> String {
    let info = serde_json::json!({ "fullName": name });
    serde_json::json!({ "personalizationToken": token, "requiredPersonalizationInfo": info })
        .to_string()
}

fn call(app: &App, pass: &PassId, body: impl Into<Bytes>) -> RequestBuilder {
    post(format!("{}/personalize", latest_path(pass)))
        .authorization(app.authorization(pass))
        .body(body)
}

fn note_name(pass: &PassId) -> String {
    format!("enrolled {pass}")
}

impl Shop {
    fn names(&self) -> Vec<String> {
        let enrolled = self.enrolled.lock().unwrap();
        enrolled.iter().map(|(_, name)| name.clone()).collect()
    }

    fn signed(&self) -> usize {
        self.signed.load(Ordering::SeqCst)
    }
}

#[tokio::test]
async fn a_customer_is_enrolled_once() {
    let (app, shop) = app();
    let pass = ticket("A-1");
    let before = app.store.pass_state(&pass).await.unwrap();
    let answer = app.send(call(&app, &pass, body("abc", "Ada"))).await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.header("content-type"),
        Some("application/octet-stream")
    );
    assert_eq!(answer.body, "signed abc");
    let after = app.store.pass_state(&pass).await.unwrap();
    assert!(after.version > before.version && after.last_modified > before.last_modified);
    let backlog = app.store.backlog().await.unwrap();
    assert!(backlog.len() == 1 && backlog[0].pending == 1);
    assert_eq!(app.send(app.get_call(&pass)).await.body, "pass of Ada");

    // A repeated request is signed, and the first data stay.
    let answer = app.send(call(&app, &pass, body("def", "Eve"))).await;
    assert_eq!((answer.status, &*answer.body), (200, &b"signed def"[..]));
    assert_eq!(shop.names(), ["Ada"]);
    assert_eq!(app.store.pass_state(&pass).await.unwrap(), after);

    // After a day, a repeated request is refused.
    let name = note_name(&pass);
    let time = app.store.note(&name).await.unwrap().unwrap();
    let day = 24 * 3_600 * 1_000_000;
    let earlier = (time.parse::<u64>().unwrap() - day - 1).to_string();
    assert!(
        app.store
            .replace_note(&name, Some(&time), Some(&earlier))
            .await
            .unwrap()
    );
    assert_eq!(app.status(call(&app, &pass, body("ghi", "Ada"))).await, 404);
    assert_eq!((shop.signed(), shop.names().len()), (2, 1));
}

#[tokio::test]
async fn a_request_needs_the_token_of_its_pass() {
    let plain = App::new();
    let (app, shop) = app();
    let pass = ticket("A-1");
    assert_eq!(
        plain.status(call(&plain, &pass, body("abc", "Ada"))).await,
        404
    );

    let mut answers: Vec<Answer> = Vec::new();
    for app in [&plain, &app] {
        let path = |pass: &PassId| {
            post(format!("{}/personalize", latest_path(pass))).body(body("abc", "Eve"))
        };
        answers.push(app.send(path(&pass)).await);
        answers.push(
            app.send(path(&pass).authorization(app.authorization(&ticket("A-2"))))
                .await,
        );
        answers.push(
            app.send(path(&pass).authorization(app.authorization(&coupon("A-1"))))
                .await,
        );
        let unknown = ticket("unknown");
        answers.push(
            app.send(path(&unknown).authorization(app.authorization(&pass)))
                .await,
        );
        let bearer = app.authorization(&pass).replace("ApplePass", "Bearer");
        answers.push(app.send(path(&pass).authorization(bearer)).await);
    }
    assert!(
        answers
            .iter()
            .all(|answer| *answer == answers[0] && answer.status == 401)
    );
    assert_eq!((shop.signed(), shop.names().len()), (0, 0));
}

#[tokio::test]
async fn nothing_is_signed_for_a_bad_request() {
    let (app, shop) = app();
    let pass = ticket("A-1");
    let manifest = r#"{"icon.png":"da39a3ee5e6b4b0d3255bfef95601890afd80709"}"#;
    let large = body("abc", &"x".repeat(16 * 1024));
    for (body, status) in [
        (String::new(), 400),
        ("{}".to_owned(), 400),
        (body("", "Ada"), 400),
        (body(manifest, "Ada"), 400),
        (body("123", "Ada"), 400),
        (body("abc", "Ada\0"), 400),
        (body("abc", &"x".repeat(257)), 400),
        (large, 413),
    ] {
        let answer = app.send(call(&app, &pass, body.clone())).await;
        assert_eq!(answer.status, status, "{body:.80}");
        assert!(!String::from_utf8_lossy(&answer.body).contains("Ada"));
    }
    // A pass that offers no enrolment, a path for orders, and other methods.
    let path = format!("{}/personalize", latest_path(&pass));
    assert_eq!(
        app.status(call(&app, &coupon("A-1"), body("abc", "Ada")))
            .await,
        404
    );
    assert_eq!(
        app.status(call(&app, &order("O1"), body("abc", "Ada")))
            .await,
        405
    );
    assert_eq!(app.status(post(latest_path(&pass))).await, 405);
    assert_eq!(
        app.status(get(&path).authorization(app.authorization(&pass)))
            .await,
        401
    );
    assert_eq!((shop.signed(), shop.names().len()), (0, 0));
    assert_eq!(app.status(call(&app, &pass, body("abc", "Ada"))).await, 200);
}

#[tokio::test]
async fn serials_with_slashes_can_be_enrolled() {
    let (app, shop) = app();
    let pass = ticket("H8JP44-ORD07/09/25-MARTINEZ/LANI-UA987-en");
    let token = app.authorization(&pass);
    let raw = format!("/v1/passes/{}/{}/personalize/", pass.type_id, pass.serial);
    let answer = app
        .send(post(raw).authorization(token).body(body("abc", "Ada")))
        .await;
    assert_eq!((answer.status, shop.names().len()), (200, 1));
    assert_eq!(
        app.status(call(&app, &ticket("trail/"), body("abc", "Ada")))
            .await,
        200
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn of_twenty_requests_one_enrols() {
    let (app, shop) = app();
    let (app, pass) = (&app, ticket("A-1"));
    let calls = (0..20).map(|number| app.send(call(app, &pass, body("abc", &number.to_string()))));
    for answer in join_all(calls).await {
        assert_eq!((answer.status, &*answer.body), (200, &b"signed abc"[..]));
    }
    assert_eq!(shop.names().len(), 1);
}

/// The second request comes to another instance, when the personal version is served, but its
/// enrolment is not over.
#[tokio::test]
async fn a_request_during_the_end_of_another_one_is_answered_alike() {
    let (app, shop) = app();
    let other = over(app.store.clone(), &app, &shop);
    let pass = ticket("A-1");
    shop.waits_at_the_end.store(true, Ordering::SeqCst);
    let first = app.send(call(&app, &pass, body("abc", "Ada")));
    let second = async {
        while shop.names().is_empty() {
            tokio::task::yield_now().await;
        }
        other.send(call(&other, &pass, body("abc", "Eve"))).await
    };
    let go_on = async {
        while shop.asked.load(Ordering::SeqCst) < 2 {
            tokio::task::yield_now().await;
        }
        shop.go_on.notify_one();
    };
    let (first, second, ()) = tokio::join!(first, second, go_on);
    assert_eq!((first.status, second.status), (200, 200));
    assert_eq!(shop.names(), ["Ada"]);
}

#[tokio::test]
async fn a_failure_leaves_nothing_half_done() {
    let (app, shop) = app();
    let pass = ticket("A-1");
    let before = app.store.pass_state(&pass).await.unwrap();
    shop.fail_signing.store(true, Ordering::SeqCst);
    assert_eq!(app.status(call(&app, &pass, body("abc", "Ada"))).await, 503);
    shop.fail_signing.store(false, Ordering::SeqCst);
    shop.fail.store(true, Ordering::SeqCst);
    assert_eq!(app.status(call(&app, &pass, body("abc", "Ada"))).await, 503);
    assert_eq!(app.store.pass_state(&pass).await.unwrap(), before);
    assert_eq!(app.store.note(&note_name(&pass)).await.unwrap(), None);
    assert!(shop.names().is_empty() && app.store.backlog().await.unwrap().is_empty());

    shop.fail.store(false, Ordering::SeqCst);
    assert_eq!(app.status(call(&app, &pass, body("abc", "Eve"))).await, 200);
    assert_eq!(shop.names(), ["Eve"]);
}

/// The customer is stored and the personal version is there, but the pass could not be marked.
#[tokio::test]
async fn a_repeat_marks_a_pass_that_could_not_be_marked() {
    let (mut app, shop) = app();
    let pass = ticket("A-1");
    let marked = Arc::new(TestStore::default());
    let publisher = Arc::new(Publisher::marking(marked.clone()));
    let enrolment = Enrolment::new(app.store.clone(), publisher, shop.clone(), shop.clone());
    app.service = app.service.enrolment(enrolment);

    shop.waits_at_the_end.store(true, Ordering::SeqCst);
    let failed = app.status(call(&app, &pass, body("abc", "Ada")));
    let fail = async {
        while shop.names().is_empty() {
            tokio::task::yield_now().await;
        }
        marked.set_fault(Some(Fault::Before(StoreErrorKind::Unavailable)));
        shop.go_on.notify_one();
    };
    let (failed, ()) = tokio::join!(failed, fail);
    assert_eq!((failed, shop.names()), (503, vec!["Ada".to_owned()]));
    shop.waits_at_the_end.store(false, Ordering::SeqCst);
    marked.set_fault(None);
    assert_eq!(marked.pass_state(&pass).await.unwrap().version, 0);
    assert_eq!(app.status(call(&app, &pass, body("abc", "Ada"))).await, 200);
    assert!(marked.pass_state(&pass).await.unwrap().version > 0);
    assert_eq!(
        app.store.note(&format!("enrolling {pass}")).await.unwrap(),
        None
    );
    assert_eq!(
        app.status(call(&app, &coupon("A-1"), body("abc", "Ada")))
            .await,
        404
    );
}

#[tokio::test(start_paused = true)]
async fn a_slow_enrolment_is_given_up_and_can_be_repeated() {
    let (app, shop) = app();
    let pass = ticket("A-1");
    shop.waits.store(true, Ordering::SeqCst);
    assert_eq!(app.status(call(&app, &pass, body("abc", "Ada"))).await, 503);
    assert!(shop.names().is_empty());
    shop.waits.store(false, Ordering::SeqCst);
    assert_eq!(app.status(call(&app, &pass, body("abc", "Eve"))).await, 200);
    assert_eq!(shop.names(), ["Eve"]);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_waits_for_another_instance_claims_rarely() {
    let (app, shop) = app();
    let (pass, claims) = (ticket("A-1"), Arc::new(Claims::default()));
    let app = over(claims.clone(), &app, &shop);
    let minute = Duration::from_secs(60);
    let name = note_name(&pass);
    claims.inner.claim(&name, "other", minute).await.unwrap();
    let answers = join_all((0..5).map(|_| app.send(call(&app, &pass, body("abc", "Ada")))));
    for answer in answers.await {
        assert_eq!(answer.status, 503);
        assert!(answer.header("retry-after").is_some());
    }
    // Only one of the five has claimed, and less often from time to time.
    let count = claims.count.load(Ordering::SeqCst);
    assert!((10..30).contains(&count), "{count}");
    assert!(shop.names().is_empty());
    claims.inner.release(&name, "other").await.unwrap();
    assert_eq!(app.status(call(&app, &pass, body("abc", "Ada"))).await, 200);
}

#[tokio::test(start_paused = true)]
async fn no_failure_keeps_the_claim() {
    let (app, shop) = app();
    let (pass, claims) = (ticket("A-1"), Arc::new(Claims::default()));
    let app = over(claims.clone(), &app, &shop);
    let is_free = async || {
        let name = note_name(&pass);
        let is_free = claims.inner.claim(&name, "test", Duration::from_secs(1));
        let is_free = is_free.await.unwrap();
        claims.inner.release(&name, "test").await.unwrap();
        is_free
    };
    claims.fails.store(true, Ordering::SeqCst);
    assert_eq!(app.status(call(&app, &pass, body("abc", "Ada"))).await, 503);
    assert!(claims.count.load(Ordering::SeqCst) == 1 && is_free().await);
    claims.fails.store(false, Ordering::SeqCst);

    *claims.slow.lock().unwrap() = Some(Duration::from_secs(21));
    assert_eq!(app.status(call(&app, &pass, body("abc", "Ada"))).await, 503);
    assert!(claims.count.load(Ordering::SeqCst) == 2 && is_free().await);
    *claims.slow.lock().unwrap() = None;
    assert!(shop.names().is_empty());
    assert_eq!(app.status(call(&app, &pass, body("abc", "Ada"))).await, 200);
}

#[tokio::test]
async fn one_pass_does_not_take_all_places() {
    let (app, shop) = app();
    let pass = ticket("A-1");
    shop.waits.store(true, Ordering::SeqCst);
    let refused = AtomicUsize::new(0);
    let calls = (0..30).map(|_| async {
        let answer = app.send(call(&app, &pass, body("abc", "Ada"))).await;
        if answer.status == 503 {
            assert!(answer.header("retry-after").is_some());
            refused.fetch_add(1, Ordering::SeqCst);
        }
        answer.status
    });
    let go_on = async {
        while refused.load(Ordering::SeqCst) < 6 || shop.asked.load(Ordering::SeqCst) < 1 {
            tokio::task::yield_now().await;
        }
        shop.go_on.notify_one();
        shop.waits.store(false, Ordering::SeqCst);
        // Another pass has a place.
        let other = ticket("A-2");
        assert_eq!(
            app.status(call(&app, &other, body("abc", "Eve"))).await,
            200
        );
    };
    let (answers, ()) = tokio::join!(join_all(calls), go_on);
    let answered = answers.iter().filter(|status| **status == 200).count();
    assert_eq!((answered, refused.into_inner()), (24, 6));
}

#[tokio::test]
async fn a_version_that_the_enroller_published_is_marked_once() {
    let (app, shop) = app();
    let pass = ticket("A-1");
    let marked = Arc::new(TestStore::default());
    let publisher = Arc::new(Publisher::marking(marked.clone()));
    *shop.publisher.lock().unwrap() = Some(publisher.clone());
    let mut app = app;
    let enrolment = Enrolment::new(app.store.clone(), publisher, shop.clone(), shop.clone());
    app.service = app.service.enrolment(enrolment);
    assert_eq!(app.status(call(&app, &pass, body("abc", "Ada"))).await, 200);
    let state = marked.pass_state(&pass).await.unwrap();
    assert_eq!(state.published, Some([1; 32]));
    assert_eq!(marked.marks(), 1);
}

#[tokio::test]
async fn an_enrolment_goes_on_without_its_phone() {
    let (app, shop) = app();
    let pass = ticket("A-1");
    shop.waits.store(true, Ordering::SeqCst);
    let request = call(&app, &pass, body("abc", "Ada")).request();
    let gone = tokio::time::timeout(Duration::from_millis(50), app.open(request)).await;
    assert!(gone.is_err() && shop.names().is_empty());
    shop.go_on.notify_one();
    let note = note_name(&pass);
    while app.store.note(&note).await.unwrap().is_none() {
        tokio::task::yield_now().await;
    }
    assert_eq!(shop.names(), ["Ada"]);
    shop.waits.store(false, Ordering::SeqCst);
    assert_eq!(app.status(call(&app, &pass, body("abc", "Ada"))).await, 200);
}

#[tokio::test]
async fn a_purged_pass_was_never_enrolled() {
    let (app, _) = app();
    let pass = ticket("A-1");
    assert_eq!(app.status(call(&app, &pass, body("abc", "Ada"))).await, 200);
    assert!(app.store.note(&note_name(&pass)).await.unwrap().is_some());
    purge(&*app.store, std::slice::from_ref(&pass))
        .await
        .unwrap();
    assert_eq!(app.store.note(&note_name(&pass)).await.unwrap(), None);
}

#[tokio::test]
async fn no_stored_value_has_the_data() {
    let (app, _) = app();
    let pass = ticket("A-1");
    app.status(call(&app, &pass, body("abc", "Ada-Lovelace")))
        .await;
    let store: &MemoryStore = &app.store;
    assert!(!format!("{store:?}").contains("Ada-Lovelace"));
}
