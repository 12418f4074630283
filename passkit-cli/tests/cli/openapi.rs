//! Compares `docs/openapi.yaml` with a running service. A request reaches each listed status, and each answer has the listed
//! status, headers and body.

mod document;

use std::{
    collections::BTreeSet,
    fs,
    io::Write as _,
    net::TcpStream,
    process::Command,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use passkit_test_servers::redis::Node;
use serde_json::{Value, json};

use self::document::{Document, Documented};
use crate::{
    archives::{order, pass},
    enrolling::{self, Desk, Receiver},
    making::Workshop,
    metrics,
    program::{Answer, Service, answer_of, authorization, eventually, send},
    push::METRICS,
    serve_making,
};

const PASS: &str = "pass.com.example.openapi";
const ORDER: &str = "order.com.example.openapi";
const SERIAL: &str = "ORD07/09";
const ENCODED: &str = "ORD07%2F09";
const ADMIN: &str = "an-admin-token-for-tests";
const PUSH_TOKEN: &[u8] = br#"{"pushToken":"c0ffee"}"#;

/// Sends requests, and compares their answers with the document.
struct Tested {
    document: Document,
    seen: Mutex<BTreeSet<Documented>>,
}

/// A request without its address.
#[derive(Clone, Copy)]
struct Request<'a> {
    method: &'a str,
    path: &'a str,
    authorization: &'a str,
    body: &'a [u8],
}

impl<'a> Request<'a> {
    fn new(method: &'a str, path: &'a str, authorization: &'a str, body: &'a [u8]) -> Self {
        Self {
            method,
            path,
            authorization,
            body,
        }
    }
}

impl Tested {
    fn new() -> Self {
        Self {
            document: Document::open(),
            seen: Mutex::default(),
        }
    }

    /// Sends a request, and fails unless its answer has this status and is as documented.
    fn expect(&self, address: &str, status: u16, request: Request<'_>) -> Answer {
        self.expect_with(address, status, request, &[])
    }

    fn expect_with(
        &self,
        address: &str,
        status: u16,
        request: Request<'_>,
        headers: &[(&str, &str)],
    ) -> Answer {
        let Request {
            method, path, body, ..
        } = request;
        let mut headers = headers.to_vec();
        headers.extend(
            (!request.authorization.is_empty()).then_some(("Authorization", request.authorization)),
        );
        let answer = send(address, method, path, &headers, body).unwrap();
        self.compare(status, request, &answer);
        answer
    }

    /// Sends the head of a request and a part of its body. Waits until the service answers.
    fn expect_unfinished(&self, address: &str, status: u16, request: Request<'_>, rest: &str) {
        let mut stream = TcpStream::connect(address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        let Request {
            method,
            path,
            authorization,
            ..
        } = request;
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: test\r\nAuthorization: {authorization}\r\n{rest}"
        );
        stream.write_all(head.as_bytes()).unwrap();
        let answer = answer_of(&mut stream, method).unwrap();
        self.compare(status, request, &answer);
    }

    fn compare(&self, status: u16, request: Request<'_>, answer: &Answer) {
        let Request {
            method, path, body, ..
        } = request;
        let template = self.document.template(path);
        let template = template.unwrap_or_else(|| panic!("{path} is not documented"));
        let method = method.to_ascii_lowercase();
        let problems = self.document.problems((template, &method), body, answer);
        let shown = String::from_utf8_lossy(&answer.body[..answer.body.len().min(300)]);
        assert!(
            answer.status == status && problems.is_empty(),
            "{method} {path} should be answered {status}: {problems:?}\n{}\n{shown}",
            answer.head
        );
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.insert((template.clone(), method, status));
    }
}

/// The paths of a pass or of an order.
struct Paths {
    registration: String,
    list: String,
    latest: String,
    personalize: String,
    authorization: String,
}

impl Paths {
    fn of(type_id: &str) -> Self {
        let collection = if type_id == PASS { "passes" } else { "orders" };
        let list = format!("/v1/devices/D-1/registrations/{type_id}");
        let latest = format!("/v1/{collection}/{type_id}/{ENCODED}");
        Self {
            registration: format!("{list}/{ENCODED}"),
            list,
            personalize: format!("{latest}/personalize"),
            latest,
            authorization: authorization(type_id, SERIAL),
        }
    }

    fn register<'a>(&'a self, body: &'a [u8]) -> Request<'a> {
        Request::new("POST", &self.registration, &self.authorization, body)
    }

    fn unregister(&self) -> Request<'_> {
        Request::new("DELETE", &self.registration, &self.authorization, b"")
    }

    fn list<'a>(&'a self, method: &'a str) -> Request<'a> {
        Request::new(method, &self.list, "", b"")
    }

    fn personalize<'a>(&'a self, body: &'a [u8]) -> Request<'a> {
        Request::new("POST", &self.personalize, &self.authorization, body)
    }

    fn latest<'a>(&'a self, method: &'a str) -> Request<'a> {
        Request::new(method, &self.latest, &self.authorization, b"")
    }
}

fn write_archives(service: &Service) {
    fs::write(service.passes().join("a.pkpass"), pass(PASS, SERIAL, "one")).unwrap();
    fs::write(
        service.orders().join("a.order"),
        order(ORDER, SERIAL, "one"),
    )
    .unwrap();
}

#[test]
fn the_service_answers_as_documented() {
    let tested = Tested::new();
    // Some answers come after 10 s.
    std::thread::scope(|scope| {
        for part in [
            phones,
            programs,
            without_a_store,
            with_a_damaged_store,
            customers,
            operators,
        ] {
            let tested = &tested;
            scope.spawn(move || part(tested));
        }
    });
    let listed = tested.document.statuses();
    let seen = tested.seen.into_inner().unwrap();
    let missing: Vec<_> = listed.difference(&seen).collect();
    assert!(
        missing.is_empty(),
        "no request was answered so: {missing:#?}"
    );
}

fn phones(tested: &Tested) {
    let mut service = Service::new().given(&["--max-body-bytes", "65536"]);
    write_archives(&service);
    service.start();
    let address = &service.address();
    for type_id in [PASS, ORDER] {
        let paths = Paths::of(type_id);
        tested.expect(address, 204, paths.list("GET"));
        tested.expect(address, 204, paths.list("HEAD"));
        tested.expect(address, 201, paths.register(PUSH_TOKEN));
        tested.expect(address, 200, paths.register(PUSH_TOKEN));
        tested.expect(address, 400, paths.register(b"{}"));
        tested.expect(address, 413, paths.register(&[b' '; 16 * 1024 + 1]));
        let wrong = Paths {
            authorization: "ApplePass wrong".to_owned(),
            ..Paths::of(type_id)
        };
        tested.expect(address, 401, wrong.register(PUSH_TOKEN));
        tested.expect(address, 401, wrong.unregister());
        let bad_device = Paths {
            registration: paths.registration.replace("D-1", "D%20"),
            list: paths.list.replace("D-1", "D%20"),
            latest: paths.latest.replace(ENCODED, "%zz"),
            ..Paths::of(type_id)
        };
        tested.expect(address, 400, bad_device.unregister());
        for method in ["GET", "HEAD"] {
            let listed = tested.expect(address, 200, paths.list(method));
            if method == "GET" {
                let (serials, tag) = listed_of(type_id, &listed.json());
                assert_eq!(serials, json!([SERIAL]));
                let name = if type_id == PASS {
                    "passesUpdatedSince"
                } else {
                    "ordersModifiedSince"
                };
                let since = format!("{}?{name}={tag}", paths.list);
                tested.expect(address, 204, Request::new(method, &since, "", b""));
            }
            tested.expect(address, 400, bad_device.list(method));
            tested.expect(address, 401, wrong.latest(method));
            tested.expect(address, 400, bad_device.latest(method));
            let latest = tested.expect(address, 200, paths.latest(method));
            let since = [("If-Modified-Since", latest.header("last-modified").unwrap())];
            tested.expect_with(address, 304, paths.latest(method), &since);
            let etag = [("If-None-Match", latest.header("etag").unwrap())];
            tested.expect_with(address, 304, paths.latest(method), &etag);
        }
        tested.expect(address, 200, paths.unregister());
        tested.expect(address, 200, paths.unregister());
    }
    let log = |body| Request::new("POST", "/v1/log", "", body);
    tested.expect(address, 200, log(br#"{"logs":["one"]}"#));
    tested.expect(address, 200, log(b"not JSON"));
    tested.expect(address, 413, log(&[b' '; 256 * 1024 + 1]));
    tested.expect(address, 503, log(&[b' '; 40 * 1024]));
    let paths = Paths::of(PASS);
    tested.expect(address, 404, paths.personalize(b"{}"));
    let (stalled, broken) = (
        "Content-Length: 9\r\n\r\n{",
        "Transfer-Encoding: chunked\r\n\r\nnot a length\r\n",
    );
    tested.expect_unfinished(address, 400, log(b""), broken);
    std::thread::scope(|scope| {
        for request in [log(b""), paths.register(b"")] {
            scope.spawn(move || tested.expect_unfinished(address, 408, request, stalled));
        }
    });
    methods(tested, address, "/v1/");
}

fn listed_of(type_id: &str, json: &Value) -> (Value, String) {
    let (serials, tag) = if type_id == PASS {
        ("serialNumbers", "lastUpdated")
    } else {
        ("orderIdentifiers", "lastModified")
    };
    (
        json[serials].clone(),
        json[tag].as_str().unwrap().to_owned(),
    )
}

/// Each path refuses other methods, and names the methods in the document.
fn methods(tested: &Tested, address: &str, below: &str) {
    let bearer = format!("Bearer {ADMIN}");
    for path in tested
        .document
        .paths()
        .filter(|path| path.starts_with(below))
    {
        let concrete = path.replace("{device}", "D-1").replace("{serial}", ENCODED);
        let concrete =
            concrete.replace("{type}", if path.contains("orders") { ORDER } else { PASS });
        let answer = send(
            address,
            "PATCH",
            &concrete,
            &[("Authorization", &bearer)],
            b"",
        )
        .unwrap();
        assert_eq!(answer.status, 405, "{path}");
        let allowed: BTreeSet<_> = answer
            .header("allow")
            .unwrap()
            .split(", ")
            .map(str::to_ascii_lowercase)
            .collect();
        let mut documented: BTreeSet<_> = tested.document.methods(path).cloned().collect();
        if path.ends_with("/personalize") {
            // A serial number may have this end.
            documented.extend(["get".to_owned(), "head".to_owned()]);
        }
        assert_eq!(allowed, documented, "{path}");
    }
}

fn programs(tested: &Tested) {
    let bearer = &*format!("Bearer {ADMIN}");
    let publish = |body| Request::new("POST", "/admin/v1/publish", bearer, body);
    let make = |body| Request::new("POST", "/admin/v1/passes", bearer, body);
    let put = |body| Request::new("PUT", "/admin/v1/archives", bearer, body);
    let workshop = Workshop::new();
    let service = serve_making::service(&workshop, None);
    let mut service = service.given(&["--archives-in-store"]);
    service.start();
    let address = &service.address();
    tested.expect(
        address,
        202,
        publish(br#"{"passes":[{"type":"pass.a","serial":"A"}]}"#),
    );
    tested.expect(address, 202, publish(br#"{"type":"pass.a","all":true}"#));
    tested.expect(address, 400, publish(b"{}"));
    tested.expect(address, 413, publish(&[b' '; 1024 * 1024 + 1]));
    let row = serve_making::row("A-1", 1).to_string();
    let made = tested.expect(address, 201, make(row.as_bytes()));
    tested.expect(address, 200, make(row.as_bytes()));
    tested.expect(address, 400, make(b"[]"));
    tested.expect(address, 413, make(&[b' '; 256 * 1024 + 1]));
    tested.expect(address, 422, make(b"{}"));
    let archive = pass(PASS, SERIAL, "one");
    tested.expect(address, 201, put(&archive));
    tested.expect(address, 200, put(&archive));
    tested.expect(address, 409, put(&made.body));
    let large = vec![0; (15 << 20) + 1];
    tested.expect(address, 413, put(&large));
    tested.expect(address, 422, put(b"not a zip"));
    let broken = "Transfer-Encoding: chunked\r\n\r\nnot a length\r\n";
    tested.expect_unfinished(address, 400, put(b""), broken);
    for request in [publish(b"{}"), make(b"{}"), put(b"{}")] {
        let authorization = "";
        tested.expect(
            address,
            401,
            Request {
                authorization,
                ..request
            },
        );
    }
    std::thread::scope(|scope| {
        for request in [publish(b""), make(b""), put(b"")] {
            scope.spawn(move || {
                tested.expect_unfinished(address, 408, request, "Content-Length: 9\r\n\r\n{");
            });
        }
    });
    methods(tested, address, "/admin/");
    let folder = workshop.path("passes");
    fs::remove_dir_all(&folder).unwrap();
    fs::write(&folder, "not a folder").unwrap();
    tested.expect(address, 500, make(row.as_bytes()));

    let mut service = Service::new().given(&["--admin-token", ADMIN]);
    service.start();
    tested.expect(&service.address(), 404, make(row.as_bytes()));
    tested.expect(&service.address(), 404, put(&archive));
}

fn without_a_store(tested: &Tested) {
    let node = Node::start(&[]).unwrap();
    let workshop = Workshop::new();
    let mut service = serve_making::service(&workshop, None);
    service.set_store(&node.url());
    write_archives(&service);
    let mut service = service.given(&METRICS);
    service.start();
    node.kill().unwrap();
    let address = &service.address();
    let (passes, orders) = (Paths::of(PASS), Paths::of(ORDER));
    let mut requests = Vec::new();
    for paths in [&passes, &orders] {
        requests.extend([paths.register(PUSH_TOKEN), paths.unregister()]);
        for method in ["GET", "HEAD"] {
            requests.extend([paths.list(method), paths.latest(method)]);
        }
    }
    let bearer = &*format!("Bearer {ADMIN}");
    let all = br#"{"type":"pass.a","all":true}"#;
    let row = serve_making::row("A-1", 1).to_string();
    for (path, body) in [
        ("/admin/v1/publish", &all[..]),
        ("/admin/v1/passes", row.as_bytes()),
    ] {
        requests.push(Request::new("POST", path, bearer, body));
    }
    std::thread::scope(|scope| {
        for request in requests {
            scope.spawn(move || tested.expect(address, 503, request));
        }
    });
    let address = &metrics::address(&service);
    for method in ["GET", "HEAD"] {
        let ready = Request::new(method, "/readyz", "", b"");
        let status = || send(address, method, "/readyz", &[], b"").unwrap().status;
        eventually("the instance is not ready", || status() == 503);
        tested.expect(address, 503, ready);
    }
}

fn with_a_damaged_store(tested: &Tested) {
    let mut service = Service::new().given(&["--archives-in-store", "--admin-token", ADMIN]);
    write_archives(&service);
    service.start();
    let address = &service.address();
    damage(&service);
    let archive = pass(PASS, "another", "one");
    let bearer = &*format!("Bearer {ADMIN}");
    let put = Request::new("PUT", "/admin/v1/archives", bearer, &archive);
    tested.expect(address, 503, put);
    for type_id in [PASS, ORDER] {
        let paths = Paths::of(type_id);
        tested.expect(address, 500, paths.register(PUSH_TOKEN));
        tested.expect(address, 500, paths.unregister());
        for method in ["GET", "HEAD"] {
            tested.expect(address, 500, paths.list(method));
            tested.expect(address, 500, paths.latest(method));
        }
    }
}

/// Removes all tables of the service's store.
fn damage(service: &Service) {
    let script = "import sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
for kind in ['view', 'table']:
    for name, in database.execute('select name from sqlite_master where type = ? and name not like \"sqlite_%\"', [kind]).fetchall():
        database.execute(f'drop {kind} \"{name}\"')";
    let database = service.store().join("passkit.db");
    let dropped = Command::new("python3")
        .args(["-c", script])
        .arg(database)
        .status();
    assert!(dropped.unwrap().success());
}

/// Enrols in a rewards programme.
fn customers(tested: &Tested) {
    let (desk, receiver) = (Desk::new(), Receiver::start());
    let service = desk.service(&receiver);
    let address = &service.address();
    let path = format!("/v1/passes/{}/A-1/personalize", enrolling::TYPE);
    let authorization = format!("ApplePass {}", desk.token("A-1~8.pkpass"));
    let enrol = |body| Request::new("POST", &path, &authorization, body);
    let stranger = |body| Request::new("POST", &path, "ApplePass wrong", body);
    let body = enrolling::body("Ada").to_string();
    tested.expect(address, 400, enrol(b"{}"));
    tested.expect(address, 401, stranger(body.as_bytes()));
    tested.expect(address, 413, enrol(&[b' '; 16 * 1024 + 1]));
    tested.expect_unfinished(address, 408, enrol(b""), "Content-Length: 9\r\n\r\n{");
    receiver.answers(500, &json!({}));
    tested.expect(address, 503, enrol(body.as_bytes()));
    receiver.answers(200, &json!({ "id": "A-1", "customer": "7", "name": "Ada" }));
    tested.expect(address, 200, enrol(body.as_bytes()));
    tested.expect(address, 200, enrol(body.as_bytes()));
    damage(&service);
    tested.expect(address, 500, enrol(body.as_bytes()));
}

fn operators(tested: &Tested) {
    let mut service = Service::new().given(&METRICS);
    service.start();
    let address = &metrics::address(&service);
    for path in ["/healthz", "/readyz", "/metrics"] {
        for method in ["GET", "HEAD"] {
            tested.expect(address, 200, Request::new(method, path, "", b""));
        }
    }
    for path in ["/healthz", "/readyz", "/metrics"] {
        methods(tested, address, path);
    }
}

#[test]
fn the_examples_fit_their_schemas() {
    let document = Document::open();
    assert_eq!(document.wrong_examples(), Vec::<String>::new());
}

/// Answers that each differ from the document in one point.
#[test]
fn a_difference_is_noticed() {
    let document = Document::open();
    let list = "/v1/devices/{device}/registrations/{type}";
    let problems = |status: u16, head: &str, body: &str| {
        let answer = Answer {
            status,
            head: format!(
                "HTTP/1.1 {status} -\r\ncontent-length: {}{head}",
                body.len()
            ),
            body: body.into(),
        };
        document.problems((list, "get"), b"", &answer)
    };
    let head = "\r\ncontent-type: application/json\r\ncache-control: no-store";
    let body = r#"{"serialNumbers":["A"],"lastUpdated":"1-1"}"#;
    assert_eq!(problems(200, head, body), Vec::<String>::new());
    for (status, head, body) in [
        (201, head, body),
        (
            200,
            "\r\ncontent-type: text/plain\r\ncache-control: no-store",
            body,
        ),
        (200, "\r\ncontent-type: application/json", body),
        (
            200,
            "\r\ncontent-type: application/json\r\ncache-control: public",
            body,
        ),
        (200, &*format!("{head}\r\nx-new: 1"), body),
        (200, head, r#"{"serialNumbers":[1],"lastUpdated":"1-1"}"#),
        (200, head, r#"{"serialNumbers":[],"lastUpdated":"1-1"}"#),
        (200, head, r#"{"serialNumbers":["A"],"lastUpdated":1}"#),
        (
            200,
            head,
            r#"{"serialNumbers":["A"],"lastUpdated":"1-1","more":1}"#,
        ),
        (200, head, r#"{"serialNumbers":["A"]}"#),
        (204, head, body),
    ] {
        assert!(
            !problems(status, head, body).is_empty(),
            "{status} {head} {body}"
        );
    }
}
