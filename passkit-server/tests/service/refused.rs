//! What the log says about refused requests, and the path below which the service answers.

use std::{
    fmt::Debug,
    sync::{Arc, Mutex},
    time::Duration,
};

use passkit_server::service::Prefix;
use tower::ServiceExt as _;
use tracing::{Level, Subscriber, field::Visit, span};

use crate::app::{
    App, DEVICE, PUSH, RequestBuilder, TICKET, get, latest_path, list_path, post, push_body,
    registration_path, ticket,
};

/// A subscriber that keeps the events with their levels.
#[derive(Clone, Default)]
struct Events(Arc<Mutex<Vec<(Level, String)>>>);

impl Events {
    /// Returns the events of a level so far, and forgets them.
    fn take(&self, level: Level) -> Vec<String> {
        let mut events = self.0.lock().unwrap();
        let taken = events.extract_if(.., |(of, _)| *of == level);
        taken.map(|(_, text)| text).collect()
    }
}

struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}

impl Subscriber for Events {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut message = Message(String::new());
        event.record(&mut message);
        let level = *event.metadata().level();
        self.0.lock().unwrap().push((level, message.0));
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

#[tokio::test]
async fn each_refused_request_has_a_line_with_its_reason() {
    let events = Events::default();
    let _guard = tracing::subscriber::set_default(events.clone());
    let app = App::new();
    app.desk.withdraw(&ticket("A-2"));
    let pass = ticket("A-1");
    let token = app.desk.token(&pass);
    let fetch = |serial: &str, authorization: String| {
        get(latest_path(&ticket(serial))).authorization(authorization)
    };
    let register = |body: String| {
        let authorization = app.authorization(&pass);
        let call = post(registration_path(DEVICE, &pass));
        call.authorization(authorization).body(body)
    };
    let wrong = "a-secret-token-of-nothing";
    let cases = [
        (get(latest_path(&pass)), "401", "no Authorization"),
        (
            fetch("A-1", format!("Bearer {token}")),
            "401",
            "a scheme that phones do not use",
        ),
        (
            fetch("A-1", token.clone()),
            "401",
            "a scheme that phones do not use",
        ),
        (
            fetch("A-1", format!("WalletPass {token}")),
            "401",
            "another wallet",
        ),
        (
            fetch("A-1", format!("ApplePass {wrong}")),
            "401",
            "wrong token",
        ),
        (
            fetch("nobody", format!("ApplePass {token}")),
            "401",
            "unknown pass",
        ),
        (
            fetch(
                "A-2",
                format!("ApplePass {}", app.desk.token(&ticket("A-2"))),
            ),
            "401",
            "was removed",
        ),
        (
            get("/v1/passes/coupon.x/A-1").authorization(format!("ApplePass {token}")),
            "401",
            "no such type",
        ),
        (get("/v2/log"), "404", "unknown path"),
        (
            get(format!("/api/wallet{}", list_path(DEVICE, TICKET))),
            "404",
            "set its prefix",
        ),
        (RequestBuilder::new("PUT", "/v1/log"), "405", "method"),
        (get(list_path("%zz", TICKET)), "400", "malformed path"),
        (get(list_path("%00", TICKET)), "400", "malformed identifier"),
        (register("not json".into()), "400", "malformed body"),
        (
            register(push_body("5EC2E7 no hex")),
            "400",
            "bad push token",
        ),
        (register("x".repeat(20_000)), "413", "too large"),
    ];
    for (call, status, reason) in cases {
        let answer = app.service.clone().oneshot(call.request()).await.unwrap();
        assert_eq!(answer.status().as_str(), status, "{reason}");
        let lines = events.take(Level::DEBUG);
        let [line] = &lines[..] else {
            panic!("{reason}: {lines:?}")
        };
        assert!(
            line.starts_with(&format!("refused with {status}: ")) && line.contains(reason),
            "{line}"
        );
        for secret in [&token, wrong, DEVICE, "5EC2E7"] {
            assert!(!line.contains(secret), "{line}");
        }
    }
    assert_eq!(events.take(Level::WARN), [""; 0]);
    assert_eq!(events.take(Level::INFO), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn refused_requests_are_counted_for_each_minute_and_reason() {
    let events = Events::default();
    let _guard = tracing::subscriber::set_default(events.clone());
    let app = App::new();
    let ask = async |call: RequestBuilder| app.service.clone().oneshot(call.request()).await;
    let wrong = || get(latest_path(&ticket("A-1"))).authorization("ApplePass some-other-token");
    for _ in 0..3 {
        ask(wrong()).await.unwrap();
    }
    ask(get("/nothing")).await.unwrap();
    tokio::time::sleep(Duration::from_secs(59)).await;
    assert_eq!(events.take(Level::INFO), [""; 0]);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let summary = [
        "3 requests refused with 401 within a minute: wrong token",
        "1 request refused with 404 within a minute: unknown path",
    ];
    assert_eq!(events.take(Level::INFO), summary);

    // A minute without refused requests has no summary. The next refused request starts a new
    // count.
    tokio::time::sleep(Duration::from_secs(200)).await;
    ask(wrong()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(61)).await;
    let summary = ["1 request refused with 401 within a minute: wrong token"];
    assert_eq!(events.take(Level::INFO), summary);

    // When the service is dropped, the log counts the remaining requests.
    ask(wrong()).await.unwrap();
    assert_eq!(events.take(Level::INFO), [""; 0]);
    drop(app);
    assert_eq!(events.take(Level::INFO), summary);
}

#[tokio::test]
async fn a_refused_answer_is_the_same_with_and_without_a_log() {
    let app = App::new();
    let ask = async || {
        let call = get(latest_path(&ticket("A-1"))).authorization("ApplePass some-other-token");
        let answer = app.service.clone().oneshot(call.request()).await.unwrap();
        (answer.status(), answer.headers().clone())
    };
    let quiet = ask().await;
    let _guard = tracing::subscriber::set_default(Events::default());
    assert_eq!(ask().await, quiet);
}

#[tokio::test]
async fn the_service_answers_below_its_prefix_and_at_the_root() {
    let app = App::new();
    let prefix = Prefix::new("/api/wallet").unwrap();
    let service = app.service.clone().prefix(prefix);
    let status = async |call: RequestBuilder| {
        let answer = service.clone().oneshot(call.request()).await.unwrap();
        answer.status().as_u16()
    };
    let pass = ticket("A-1");
    let authorization = app.authorization(&pass);
    for base in ["/api/wallet", "/api/wallet/", "//api/wallet", ""] {
        let at = |path: String| format!("{base}{path}");
        let register = post(at(registration_path(DEVICE, &pass)))
            .authorization(&authorization)
            .body(push_body(PUSH));
        assert_eq!(status(register).await, 201, "{base}");
        assert_eq!(
            status(get(at(list_path(DEVICE, TICKET)))).await,
            200,
            "{base}"
        );
        let fetch = get(at(latest_path(&pass))).authorization(&authorization);
        assert_eq!(status(fetch).await, 200, "{base}");
        assert_eq!(
            status(post(at("/v1/log".into())).body("{}")).await,
            200,
            "{base}"
        );
        let unregister = RequestBuilder::new("DELETE", at(registration_path(DEVICE, &pass)));
        assert_eq!(
            status(unregister.authorization(&authorization)).await,
            200,
            "{base}"
        );
    }
    for path in [
        "/api/walletv1/log",
        "/api/v1/log",
        "/wallet/v1/log",
        "/api/wallet/api/wallet/v1/log",
    ] {
        assert_eq!(status(post(path).body("{}")).await, 404, "{path}");
    }
}
