//! The options of the service, and the pointer types that it accepts.

use std::{
    fmt::Write,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::HeaderValue;
use http_body_util::BodyExt;
use passkit_server::{
    ArchiveBody, AuthToken, Credentials, PassId, PassSource, PassState, SourceError, WalletService,
    async_trait,
    device_log::{DeviceLog, LogEntry, TracingLog},
    store::{MemoryStore, RegistrationStore, StoreErrorKind},
};
use tower::ServiceExt;
use tracing::{Subscriber, field::Visit, span};

use crate::{
    app::{
        App, DEVICE, PUSH, RequestBuilder, TICKET, get, latest_path, list_path, order, post,
        push_body, registration_path, ticket,
    },
    test_store::{Fault, TestStore},
};

async fn status<S: RegistrationStore + 'static, P: PassSource + 'static>(
    service: &WalletService<S, P>,
    call: RequestBuilder,
) -> u16 {
    service
        .clone()
        .oneshot(call.request())
        .await
        .unwrap()
        .status()
        .as_u16()
}

#[tokio::test]
async fn other_wallets_are_accepted_only_if_enabled() {
    let app = App::new();
    let pass = |scheme: &str| {
        get(latest_path(&ticket("A-1")))
            .authorization(format!("{scheme} {}", app.desk.token(&ticket("A-1"))))
    };
    let shop = |scheme: &str| {
        get(latest_path(&order("O1")))
            .authorization(format!("{scheme} {}", app.desk.token(&order("O1"))))
    };
    for (service, expected) in [
        (app.service.clone(), 401),
        (app.service.clone().other_wallets(false), 401),
        (app.service.clone().other_wallets(true), 200),
    ] {
        for scheme in [
            "AndroidPass",
            "androidpass",
            "WalletPass",
            "WalletUnionPass",
        ] {
            assert_eq!(status(&service, pass(scheme)).await, expected, "{scheme}");
        }
        assert_eq!(status(&service, pass("ApplePass")).await, 200);
        assert_eq!(status(&service, shop("AppleOrder")).await, 200);
        for scheme in ["AndroidOrder", "AndroidPass"] {
            assert_eq!(status(&service, shop(scheme)).await, 401, "{scheme}");
        }
        let wrong =
            get(latest_path(&ticket("A-1"))).authorization("AndroidPass some-other-token-01");
        assert_eq!(status(&service, wrong).await, 401);
    }
}

#[tokio::test]
async fn orders_may_have_another_media_type() {
    let app = App::new();
    let other = app
        .service
        .clone()
        .order_media_type(HeaderValue::from_static("application/vnd.apple.order"));
    for (pass, expected) in [
        (order("O1"), "application/vnd.apple.order"),
        (ticket("A-1"), "application/vnd.apple.pkpass"),
    ] {
        let answer = other
            .clone()
            .oneshot(app.get_call(&pass).request())
            .await
            .unwrap();
        assert_eq!(answer.headers()["content-type"], expected);
    }
}

#[tokio::test]
async fn options_of_a_clone_leave_the_original_alone() {
    let app = App::new();
    let _ = app.service.clone().other_wallets(true);
    let token = app.desk.token(&ticket("A-1"));
    let call = get(latest_path(&ticket("A-1"))).authorization(format!("AndroidPass {token}"));
    assert_eq!(app.status(call).await, 401);
}

struct One;

const ONE_TOKEN: &str = "the-token-of-every-pass";

#[async_trait]
impl PassSource for One {
    async fn credentials(&self, _: &PassId) -> Result<Option<Credentials>, SourceError> {
        Ok(Some(Credentials::from(&AuthToken::new(ONE_TOKEN)?)))
    }

    async fn archive(&self, _: &PassId, _: &PassState) -> Result<Option<ArchiveBody>, SourceError> {
        Ok(Some(ArchiveBody::from(Bytes::from_static(b"archive"))))
    }
}

/// A source without any credentials.
struct Unconfigured;

#[async_trait]
impl PassSource for Unconfigured {
    async fn credentials(&self, _: &PassId) -> Result<Option<Credentials>, SourceError> {
        Ok(Some(Credentials::default()))
    }

    async fn archive(&self, _: &PassId, _: &PassState) -> Result<Option<ArchiveBody>, SourceError> {
        Ok(Some(ArchiveBody::from(Bytes::from_static(b"archive"))))
    }
}

async fn works<S: RegistrationStore + 'static, P: PassSource + 'static>(
    service: WalletService<S, P>,
) {
    let opened = format!("ApplePass {ONE_TOKEN}");
    let register = post(registration_path(DEVICE, &ticket("A-1")))
        .authorization(&opened)
        .body(push_body(PUSH));
    assert_eq!(status(&service, register).await, 201);
    assert_eq!(status(&service, get(list_path(DEVICE, TICKET))).await, 200);
    let latest = get(latest_path(&ticket("A-1"))).authorization(&opened);
    let answer = service.clone().oneshot(latest.request()).await.unwrap();
    assert_eq!(
        answer.into_body().collect().await.unwrap().to_bytes(),
        "archive"
    );
}

#[tokio::test]
async fn stores_and_sources_may_be_behind_any_pointer() {
    let store: Arc<dyn RegistrationStore> = Arc::new(MemoryStore::new());
    let source: Arc<dyn PassSource> = Arc::new(One);
    works(WalletService::new(store, source)).await;
    let store: Box<dyn RegistrationStore> = Box::new(MemoryStore::new());
    let source: Box<dyn PassSource> = Box::new(One);
    works(WalletService::new(store, source)).await;
    works(WalletService::new(Arc::new(MemoryStore::new()), One)).await;
    works(WalletService::new(MemoryStore::new(), Arc::new(One))).await;
    static SOURCE: One = One;
    works(WalletService::new(
        Arc::new(Box::new(MemoryStore::new())),
        &SOURCE,
    ))
    .await;
}

#[tokio::test]
async fn a_source_without_credentials_refuses_all_requests() {
    let service = WalletService::new(MemoryStore::new(), Unconfigured);
    for authorization in [
        "",
        "ApplePass",
        "ApplePass ",
        "ApplePass x",
        "ApplePass null",
        "AppleOrder x",
        "Bearer x",
    ] {
        for (method, path) in [
            ("POST", registration_path(DEVICE, &ticket("A-1"))),
            ("DELETE", registration_path(DEVICE, &ticket("A-1"))),
            ("GET", latest_path(&ticket("A-1"))),
            ("HEAD", latest_path(&order("O1"))),
        ] {
            let call = RequestBuilder::new(method, path)
                .authorization(authorization)
                .body(push_body(PUSH));
            assert_eq!(status(&service, call).await, 401, "{authorization}");
        }
    }
}

/// A subscriber that stores all log output as text.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<String>>);

impl Visit for Kept {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        writeln!(self.0.lock().unwrap(), "{field}={value:?}").unwrap();
    }
}

impl Subscriber for Kept {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, attributes: &span::Attributes<'_>) -> span::Id {
        attributes.record(&mut self.clone());
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, values: &span::Record<'_>) {
        values.record(&mut self.clone());
    }

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        event.record(&mut self.clone());
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

#[tokio::test]
async fn nothing_secret_is_logged() {
    let kept = Kept::default();
    let _guard = tracing::subscriber::set_default(kept.clone());
    let app = App::over(Arc::new(TestStore::default()));
    let service = WalletService::new(app.store.clone(), app.desk.clone());
    let secret_serial = "S3CRET-serial-0001";
    let token = app.desk.token(&ticket("A-1"));
    let messages = [
        format!(
            "[2026-11-22 10:00:00 +0100] Register task (for device {DEVICE}, pass type {TICKET}, serial \
                number {secret_serial}; with web service url https://a.example/) encountered error: \
                Unexpected response code 500"
        ),
        format!(
            "[2026-11-22 10:00:00 +0100] Web service error for {TICKET} (https://a.example/): Device \
                received spurious push. Request for passesUpdatedSince 'T' returned no serial numbers. \
                (Device = {DEVICE})"
        ),
        format!(
            "[2026-11-22 10:00:00 +0100] Web service error for {TICKET} (https://a.example/): Update \
                requested for unregistered serial number {secret_serial}"
        ),
        format!(
            "something new about {DEVICE} and {secret_serial} with {token} and {PUSH}\r\nfake line\u{1b}[31m"
        ),
    ];
    let log = || post("/v1/log").body(serde_json::json!({ "logs": messages }).to_string());
    assert_eq!(status(&service, log()).await, 200);
    for fault in [
        None,
        Some(Fault::Before(StoreErrorKind::Unavailable)),
        Some(Fault::Before(StoreErrorKind::Corrupt)),
    ] {
        app.store.set_fault(fault);
        for call in [
            app.register_call(DEVICE, &ticket("A-1"), PUSH),
            get(list_path(DEVICE, TICKET)),
            app.get_call(&ticket("A-1")),
            app.unregister_call(DEVICE, &ticket("A-1")),
            app.get_call(&ticket("A-1"))
                .header("if-modified-since", "x"),
            app.register_call(DEVICE, &ticket("A-1"), "not hex"),
        ] {
            status(&service, call).await;
        }
    }
    let text = kept.0.lock().unwrap().clone();
    assert!(
        text.contains("secret-detail"),
        "the cause of a fault is logged: {text}"
    );
    // A complaint of a known form names the pass. No other text does.
    let naming = text.matches(secret_serial).count();
    assert_eq!(
        naming,
        text.matches(&format!("serial=\"{secret_serial}\"")).count(),
        "{text}"
    );
    assert!(naming > 0, "{text}");
    for secret in [DEVICE, &token, PUSH, "\u{1b}", "\nfake"] {
        assert!(!text.contains(secret), "{secret:?} in {text}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_devices_report_is_logged_and_a_flood_is_counted() {
    let kept = Kept::default();
    let _guard = tracing::subscriber::set_default(kept.clone());
    let take = || std::mem::take(&mut *kept.0.lock().unwrap());
    let log = TracingLog::default();

    log.record(&LogEntry::parse(&format!(
        "Register task (for device {DEVICE}, pass type {TICKET}, serial number A-1; with web service url \
         https://a.example/) encountered error: Unexpected response code 500"
    )));
    let text = take();
    for part in [
        "status=500",
        "task=Register",
        TICKET,
        "answered with a status",
    ] {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
    assert!(!text.contains("dropped"), "{text}");

    log.record(&LogEntry::parse("something new"));
    let text = take();
    assert!(text.contains("text=\"something new\""), "{text}");
    assert!(!text.contains("dropped"), "{text}");

    for _ in 0..23 {
        log.record(&LogEntry::parse("more of it"));
    }
    assert_eq!(take().matches("more of it").count(), 18, "twenty in all");
    tokio::time::advance(Duration::from_secs(1)).await;
    log.record(&LogEntry::parse("later"));
    let text = take();
    assert!(
        text.contains("dropped=5") && text.contains("later"),
        "{text}"
    );
}
