//! The fixture: the service over a store in memory and a desk of passes, and helpers for requests.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, header};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use passkit_server::{
    ArchiveBody, AuthToken, Changed, Credentials, PassId, PassSource, PassState, SourceError,
    WalletService, async_trait,
    device_log::{DeviceLog, DeviceTask, LogEntry},
    identifiers::{DeviceIdentifier, TypeIdentifier},
    service::ResponseBody,
    store::{Audience, MemoryStore, RegistrationStore},
};
use tower::ServiceExt;

pub(crate) const TICKET: &str = "pass.com.example.ticket";
pub(crate) const COUPON: &str = "pass.com.example.coupon";
pub(crate) const SHOP: &str = "order.com.example.shop";

/// The serial numbers of the desk, which is the source. Both pass types have them, with different
/// tokens.
pub(crate) const SERIALS: [&str; 24] = [
    "A-1",
    "A-2",
    "A-3",
    "ABC.123_x~1",
    "H8JP44-ORD07/09/25-MARTINEZ/LANI-UA987-en",
    "two words",
    "zwölf/Stück",
    "列車 12",
    "100%",
    "50%20off",
    "50 off",
    "AN%2bg8",
    "AN%2Bg8",
    "AN+g8",
    "a+b",
    "a&b=c;d:e@f,g",
    "q?x=1",
    "hash#tag",
    "/lead",
    "trail/",
    "a//b",
    "..",
    "registrations",
    "log",
];

/// The order identifiers of the desk.
pub(crate) const ORDERS: [&str; 3] = ["O1", "O2", "2026/10 früh"];

pub(crate) const DEVICE: &str = "0123456789abcdef0123456789abcdef";
pub(crate) const OTHER_DEVICE: &str = "fedcba9876543210fedcba9876543210";
pub(crate) const PUSH: &str = "00fc13adff785122b4ad28809a3420982341241421348097878e577c991de8f0";
pub(crate) const OTHER_PUSH: &str =
    "8f0e199c775e878790843124142143289024a9082da4b221587ffda31cf00a1b";

pub(crate) fn ticket(serial: &str) -> PassId {
    PassId::new(TICKET, serial).unwrap()
}

pub(crate) fn coupon(serial: &str) -> PassId {
    PassId::new(COUPON, serial).unwrap()
}

pub(crate) fn order(identifier: &str) -> PassId {
    PassId::new(SHOP, identifier).unwrap()
}

pub(crate) fn device(text: &str) -> DeviceIdentifier {
    DeviceIdentifier::new(text).unwrap()
}

pub(crate) fn type_id(text: &str) -> TypeIdentifier {
    TypeIdentifier::new(text).unwrap()
}

pub(crate) fn now_seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

/// Percent-encodes everything that may change in a URL.
pub(crate) fn encode(text: &str) -> String {
    text.bytes()
        .map(|b| match b {
            b'-' | b'.' | b'_' | b'~' => char::from(b).to_string(),
            b if b.is_ascii_alphanumeric() => char::from(b).to_string(),
            b => format!("%{b:02X}"),
        })
        .collect()
}

pub(crate) fn registration_path(device: &str, pass: &PassId) -> String {
    format!(
        "/v1/devices/{device}/registrations/{}/{}",
        pass.type_id,
        encode(pass.serial.as_str())
    )
}

pub(crate) fn list_path(device: &str, type_id: &str) -> String {
    format!("/v1/devices/{device}/registrations/{type_id}")
}

pub(crate) fn latest_path(pass: &PassId) -> String {
    let collection = pass.type_id.kind().collection();
    format!(
        "/v1/{collection}/{}/{}",
        pass.type_id,
        encode(pass.serial.as_str())
    )
}

pub(crate) fn push_body(push_token: &str) -> String {
    format!(r#"{{"pushToken":"{push_token}"}}"#)
}

/// What the desk serves as the archive of a pass.
#[derive(Clone)]
pub(crate) enum Content {
    Shared(Bytes),
    /// Chunks and their declared length. `None` is a read error.
    Stream(u64, Vec<Option<Bytes>>),
    /// The pass was removed after `credentials` was called.
    Gone,
}

struct Entry {
    tokens: Vec<AuthToken>,
    withdrawn: bool,
    content: Content,
}

/// The source: passes with their tokens. It counts the `archive` calls.
pub(crate) struct Desk {
    entries: Mutex<HashMap<PassId, Entry>>,
    archives_asked: AtomicUsize,
    fail_credentials: AtomicBool,
    fail_archive: AtomicBool,
}

impl Desk {
    fn new() -> Self {
        let passes = SERIALS
            .iter()
            .flat_map(|serial| [ticket(serial), coupon(serial)]);
        let entries = passes
            .chain(ORDERS.map(order))
            .enumerate()
            .map(|(number, pass)| {
                let token = AuthToken::new(&format!("key-of-entry-{number:04}")).unwrap();
                let content = Content::Shared(format!("first version of {pass}").into());
                (
                    pass,
                    Entry {
                        tokens: vec![token],
                        withdrawn: false,
                        content,
                    },
                )
            });
        Self {
            entries: Mutex::new(entries.collect()),
            archives_asked: AtomicUsize::new(0),
            fail_credentials: AtomicBool::new(false),
            fail_archive: AtomicBool::new(false),
        }
    }

    fn change<T>(&self, pass: &PassId, change: impl FnOnce(&mut Entry) -> T) -> T {
        change(
            self.entries
                .lock()
                .unwrap()
                .get_mut(pass)
                .expect("the desk has this pass"),
        )
    }

    /// The first token of a pass.
    pub(crate) fn token(&self, pass: &PassId) -> String {
        self.change(pass, |entry| entry.tokens[0].as_str().to_owned())
    }

    pub(crate) fn set_tokens(&self, pass: &PassId, tokens: &[&str]) {
        let tokens = tokens
            .iter()
            .map(|token| AuthToken::new(token).unwrap())
            .collect();
        self.change(pass, |entry| entry.tokens = tokens);
    }

    pub(crate) fn withdraw(&self, pass: &PassId) {
        self.change(pass, |entry| entry.withdrawn = true);
    }

    pub(crate) fn set_content(&self, pass: &PassId, content: Content) {
        self.change(pass, |entry| entry.content = content);
    }

    pub(crate) fn remove(&self, pass: &PassId) {
        self.entries
            .lock()
            .unwrap()
            .remove(pass)
            .expect("the desk has this pass");
    }

    pub(crate) fn archives_asked(&self) -> usize {
        self.archives_asked.load(Ordering::SeqCst)
    }

    pub(crate) fn fail_credentials(&self, fail: bool) {
        self.fail_credentials.store(fail, Ordering::SeqCst);
    }

    pub(crate) fn fail_archive(&self, fail: bool) {
        self.fail_archive.store(fail, Ordering::SeqCst);
    }
}

#[async_trait]
impl PassSource for Desk {
    async fn credentials(&self, pass: &PassId) -> Result<Option<Credentials>, SourceError> {
        if self.fail_credentials.load(Ordering::SeqCst) {
            return Err("the desk is closed, secret-detail".into());
        }
        Ok(self.entries.lock().unwrap().get(pass).map(|entry| {
            let credentials: Credentials = entry.tokens.iter().map(AuthToken::digest).collect();
            if entry.withdrawn {
                credentials.withdrawn()
            } else {
                credentials
            }
        }))
    }

    async fn archive(
        &self,
        pass: &PassId,
        _: &PassState,
    ) -> Result<Option<ArchiveBody>, SourceError> {
        self.archives_asked.fetch_add(1, Ordering::SeqCst);
        if self.fail_archive.load(Ordering::SeqCst) {
            return Err("the printer is on fire, secret-detail".into());
        }
        Ok(match self.change(pass, |entry| entry.content.clone()) {
            Content::Shared(bytes) => Some(ArchiveBody::from(bytes)),
            Content::Stream(length, chunks) => {
                Some(ArchiveBody::stream(length, Chunks(chunks.into())))
            }
            Content::Gone => None,
        })
    }

    async fn archive_length(
        &self,
        pass: &PassId,
        _: &PassState,
    ) -> Result<Option<u64>, SourceError> {
        Ok(match self.change(pass, |entry| entry.content.clone()) {
            Content::Shared(bytes) => Some(bytes.len() as u64),
            Content::Stream(length, _) => Some(length),
            Content::Gone => None,
        })
    }
}

/// A stream of chunks that are all ready. `None` is a read error.
pub(crate) struct Chunks(std::collections::VecDeque<Option<Bytes>>);

impl futures_core::Stream for Chunks {
    type Item = std::io::Result<Bytes>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        let next = self.0.pop_front();
        std::task::Poll::Ready(
            next.map(|chunk| chunk.ok_or_else(|| std::io::Error::other("disk broken"))),
        )
    }
}

/// The entries that the device-log hook received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Logged {
    pub(crate) text: String,
    pub(crate) time: Option<String>,
    pub(crate) task: Option<DeviceTask>,
    pub(crate) type_id: Option<String>,
    pub(crate) serial: Option<String>,
    /// The `Debug` text of the report.
    pub(crate) report: String,
}

#[derive(Clone, Default)]
pub(crate) struct Recorder(Arc<Mutex<Vec<Logged>>>);

impl Recorder {
    pub(crate) fn take(&self) -> Vec<Logged> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    pub(crate) fn texts(&self) -> Vec<String> {
        self.take().into_iter().map(|logged| logged.text).collect()
    }
}

impl DeviceLog for Recorder {
    fn record(&self, entry: &LogEntry<'_>) {
        self.0.lock().unwrap().push(Logged {
            text: entry.text.to_owned(),
            time: entry.time.map(str::to_owned),
            task: entry.task,
            type_id: entry.type_id.map(str::to_owned),
            serial: entry.serial.map(str::to_owned),
            report: format!("{:?}", entry.report),
        });
    }
}

/// Builds a request.
#[derive(Clone, Debug)]
pub(crate) struct RequestBuilder {
    method: Method,
    uri: String,
    headers: HeaderMap,
    body: Bytes,
}

impl RequestBuilder {
    pub(crate) fn new(method: &str, uri: impl Into<String>) -> Self {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        Self {
            method,
            uri: uri.into(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
        }
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl AsRef<[u8]>) -> Self {
        let value = HeaderValue::from_bytes(value.as_ref()).unwrap();
        self.headers.append(HeaderName::from_static(name), value);
        self
    }

    pub(crate) fn authorization(self, value: impl AsRef<[u8]>) -> Self {
        self.header("authorization", value)
    }

    pub(crate) fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    pub(crate) fn request_with<B>(self, body: B) -> Request<B> {
        let mut request = Request::new(body);
        *request.method_mut() = self.method;
        *request.uri_mut() = self
            .uri
            .parse()
            .unwrap_or_else(|e| panic!("{}: {e}", self.uri));
        *request.headers_mut() = self.headers;
        request
    }

    pub(crate) fn request(self) -> Request<Full<Bytes>> {
        let body = Full::new(self.body.clone());
        self.request_with(body)
    }
}

pub(crate) fn get(uri: impl Into<String>) -> RequestBuilder {
    RequestBuilder::new("GET", uri)
}

pub(crate) fn head(uri: impl Into<String>) -> RequestBuilder {
    RequestBuilder::new("HEAD", uri)
}

pub(crate) fn post(uri: impl Into<String>) -> RequestBuilder {
    RequestBuilder::new("POST", uri)
}

pub(crate) fn delete(uri: impl Into<String>) -> RequestBuilder {
    RequestBuilder::new("DELETE", uri)
}

/// A response whose body was read to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Checks the rules that hold for every response.
    fn check(&self, method: &Method) {
        let context = || format!("{method}: {self:?}");
        let documented = [200, 201, 204, 304, 400, 401, 404, 405, 408, 413, 500, 503];
        assert!(
            documented.contains(&self.status),
            "undocumented status: {}",
            context()
        );
        if matches!(self.status, 201 | 204 | 304 | 401 | 500 | 503) || method == Method::HEAD {
            assert!(self.body.is_empty(), "has a body: {}", context());
        }
        if let Some(length) = self.header("content-length") {
            let length: usize = length.parse().unwrap();
            assert!(
                method == Method::HEAD || length == self.body.len(),
                "wrong length: {}",
                context()
            );
            assert!(self.status != 204, "204 has no length: {}", context());
        }
        let challenge = self.headers.get(header::WWW_AUTHENTICATE);
        if self.status == 401 {
            let known =
                challenge.is_some_and(|scheme| scheme == "ApplePass" || scheme == "AppleOrder");
            assert!(
                known,
                "clients handle this challenge themselves: {}",
                context()
            );
        } else {
            assert_eq!(challenge, None, "{}", context());
        }
        assert_eq!(
            self.headers.contains_key(header::ALLOW),
            self.status == 405,
            "{}",
            context()
        );
        assert_eq!(
            self.headers.contains_key(header::RETRY_AFTER),
            self.status == 503,
            "{}",
            context()
        );
        for unwanted in [
            header::LOCATION,
            header::SET_COOKIE,
            header::CONTENT_ENCODING,
        ] {
            assert!(
                !self.headers.contains_key(&unwanted),
                "{unwanted}: {}",
                context()
            );
        }
    }
}

/// The answer to a list call that found changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    /// Sorted.
    pub(crate) serials: Vec<String>,
    pub(crate) tag: String,
}

/// The service with its store, its source and its log hook.
pub(crate) struct App<S: ?Sized = MemoryStore> {
    pub(crate) store: Arc<S>,
    pub(crate) desk: Arc<Desk>,
    pub(crate) log: Recorder,
    pub(crate) service: WalletService<Arc<S>, Arc<Desk>>,
}

impl App {
    pub(crate) fn new() -> Self {
        Self::over(Arc::new(MemoryStore::new()))
    }
}

impl<S: RegistrationStore + ?Sized + 'static> App<S> {
    pub(crate) fn over(store: Arc<S>) -> Self {
        let desk = Arc::new(Desk::new());
        let log = Recorder::default();
        let service = WalletService::new(store.clone(), desk.clone()).device_log(log.clone());
        Self {
            store,
            desk,
            log,
            service,
        }
    }

    /// Sends a request with any body. Does not read the body of the answer.
    pub(crate) async fn open<B>(&self, request: Request<B>) -> Response<ResponseBody>
    where
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.service
            .clone()
            .oneshot(request)
            .await
            .unwrap_or_else(|never| match never {})
    }

    pub(crate) async fn send_request<B>(&self, request: Request<B>) -> Answer
    where
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let method = request.method().clone();
        let (head, body) = self.open(request).await.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let answer = Answer {
            status: head.status.as_u16(),
            headers: head.headers,
            body,
        };
        answer.check(&method);
        answer
    }

    pub(crate) async fn send(&self, call: RequestBuilder) -> Answer {
        self.send_request(call.request()).await
    }

    pub(crate) async fn status(&self, call: RequestBuilder) -> u16 {
        self.send(call).await.status
    }

    /// The `Authorization` that opens `pass`.
    pub(crate) fn authorization(&self, pass: &PassId) -> String {
        format!(
            "{} {}",
            pass.type_id.kind().auth_scheme(),
            self.desk.token(pass)
        )
    }

    pub(crate) fn register_call(
        &self,
        device: &str,
        pass: &PassId,
        push_token: &str,
    ) -> RequestBuilder {
        post(registration_path(device, pass))
            .authorization(self.authorization(pass))
            .header("content-type", "application/json")
            .body(push_body(push_token))
    }

    pub(crate) async fn register(&self, device: &str, pass: &PassId) -> u16 {
        self.status(self.register_call(device, pass, PUSH)).await
    }

    pub(crate) fn unregister_call(&self, device: &str, pass: &PassId) -> RequestBuilder {
        delete(registration_path(device, pass)).authorization(self.authorization(pass))
    }

    pub(crate) async fn unregister(&self, device: &str, pass: &PassId) -> u16 {
        self.status(self.unregister_call(device, pass)).await
    }

    pub(crate) fn get_call(&self, pass: &PassId) -> RequestBuilder {
        get(latest_path(pass)).authorization(self.authorization(pass))
    }

    /// Lists with a raw query, and checks the form of the answer. Returns `None` for 204.
    pub(crate) async fn list_with(
        &self,
        device: &str,
        type_id: &str,
        query: &str,
    ) -> Option<Listed> {
        let answer = self
            .send(get(format!("{}{query}", list_path(device, type_id))))
            .await;
        if answer.status == 204 {
            return None;
        }
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.header("content-type"), Some("application/json"));
        let (serials_key, tag_key) = if type_id.starts_with("order.") {
            ("orderIdentifiers", "lastModified")
        } else {
            ("serialNumbers", "lastUpdated")
        };
        let json = answer.json();
        let object = json.as_object().expect("an object");
        assert_eq!(object.len(), 2, "{json}");
        let tag = object[tag_key].as_str().expect("a string").to_owned();
        assert!((1..=128).contains(&tag.len()), "{tag}");
        assert_eq!(
            encode(&tag),
            tag,
            "the tag must pass through a URL unchanged"
        );
        let serials = object[serials_key].as_array().expect("an array");
        let mut serials: Vec<String> = serials
            .iter()
            .map(|serial| serial.as_str().expect("strings").to_owned())
            .collect();
        assert!(!serials.is_empty(), "nothing new is 204");
        serials.sort();
        let listed = serials.len();
        serials.dedup();
        assert_eq!(serials.len(), listed, "no serial occurs twice");
        Some(Listed { serials, tag })
    }

    pub(crate) async fn list(
        &self,
        device: &str,
        type_id: &str,
        since: Option<&str>,
    ) -> Option<Listed> {
        let parameter = if type_id.starts_with("order.") {
            "ordersModifiedSince"
        } else {
            "passesUpdatedSince"
        };
        let query = since
            .map(|tag| format!("?{parameter}={tag}"))
            .unwrap_or_default();
        let listed = self.list_with(device, type_id, &query).await;
        if let Some(listed) = &listed {
            assert_ne!(
                Some(listed.tag.as_str()),
                since,
                "serials never come with the tag that was sent"
            );
        }
        listed
    }

    pub(crate) async fn serials(
        &self,
        device: &str,
        type_id: &str,
        since: Option<&str>,
    ) -> Vec<String> {
        self.list(device, type_id, since)
            .await
            .map(|listed| listed.serials)
            .unwrap_or_default()
    }

    /// Changes the content of a pass, then marks it.
    pub(crate) async fn publish(&self, pass: &PassId, content: &str) {
        self.desk
            .set_content(pass, Content::Shared(Bytes::from(content.to_owned())));
        self.mark(pass).await;
    }

    pub(crate) async fn mark(&self, pass: &PassId) {
        let serials = std::slice::from_ref(&pass.serial);
        self.store
            .mark(&pass.type_id, Changed::Passes(serials))
            .await
            .unwrap();
    }

    pub(crate) async fn mark_all(&self, type_id: &str) {
        self.store
            .mark(&TypeIdentifier::new(type_id).unwrap(), Changed::All)
            .await
            .unwrap();
    }

    /// Waits until the wall clock has reached the date of the pass. If a pass is updated several
    /// times within a second, its date is in the future, and no answer may have such a date.
    pub(crate) async fn wait_for_date(&self, pass: &PassId) {
        let date = self.store.pass_state(pass).await.unwrap().last_modified;
        while now_seconds() < date {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Returns the devices registered for a pass, each with its push token as stored.
    pub(crate) async fn devices_of(&self, pass: &PassId) -> Vec<(String, String)> {
        let mut found = Vec::new();
        let mut after = None;
        loop {
            let page = self
                .store
                .devices(Audience::Pass(pass), after.as_ref(), 100)
                .await
                .unwrap();
            found.extend(page.items.iter().map(|d| {
                (
                    d.device.as_str().to_owned(),
                    d.push_token.as_str().to_owned(),
                )
            }));
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        found.sort();
        found
    }
}
