//! The operator's page, over HTTP.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
};

use passkit_test_servers::redis::Node;
use serde_json::json;

use crate::{
    archives::{order, pass, token_of, with_json},
    postgres,
    program::{Answer, Service, answer_of, eventually, send},
};

const TYPE: &str = "pass.com.example.paged";
const OTHER: &str = "pass.com.example.other";
const TOKEN: &str = "the-page-token-1234";
/// The client of these tests calls the host `test`.
const ORIGIN: (&str, &str) = ("Origin", "http://test");

/// A service with its page, and a session.
struct Page {
    service: Service,
    address: String,
    cookie: String,
}

impl Page {
    fn of(mut service: Service) -> Self {
        service.start();
        let said = service.said();
        let address = said
            .split("the operator's page is at http://")
            .nth(1)
            .unwrap();
        let address = address.split('/').next().unwrap().to_owned();
        let mut page = Self {
            service,
            address,
            cookie: String::new(),
        };
        let answer = page.sign_in(TOKEN, &[ORIGIN]);
        assert_eq!((answer.status, answer.header("location")), (303, Some("/")));
        page.cookie = cookie(&answer);
        page
    }

    /// Starts a service with a pass.
    fn start() -> Self {
        let service = service();
        fs::write(service.passes().join("a.pkpass"), pass(TYPE, "A-1", "one")).unwrap();
        Self::of(service)
    }

    fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        send(&self.address, method, path, headers, body.as_bytes()).unwrap()
    }

    fn sign_in(&self, token: &str, headers: &[(&str, &str)]) -> Answer {
        self.send("POST", "/sign-in", headers, &format!("token={token}"))
    }

    fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[("Cookie", &self.cookie)], "")
    }

    fn post(&self, path: &str) -> Answer {
        self.send("POST", path, &[("Cookie", &self.cookie), ORIGIN], "")
    }

    /// Returns a page that must exist.
    fn html(&self, path: &str) -> String {
        let answer = self.get(path);
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        text(&answer)
    }
}

fn service() -> Service {
    with_page(Service::new())
}

fn with_page(service: Service) -> Service {
    service.given(&["--page", "127.0.0.1:0", "--admin-token", TOKEN])
}

fn text(answer: &Answer) -> String {
    String::from_utf8(answer.body.clone()).unwrap()
}

fn cookie(answer: &Answer) -> String {
    let cookie = answer.header("set-cookie").unwrap();
    cookie.split(';').next().unwrap().to_owned()
}

fn address_of(type_id: &str, serial: &str) -> String {
    format!("type={type_id}&serial={serial}")
}

#[test]
fn nothing_is_shown_and_nothing_happens_without_a_session() {
    let page = Page::start();
    let pass = address_of(TYPE, "A-1");
    let forged = format!("passkit={}", "0".repeat(64));
    for cookie in ["", "passkit=", "passkit=x", &forged] {
        for (method, path) in [
            ("GET", "/".to_owned()),
            ("GET", "/nowhere".to_owned()),
            ("GET", "/search?q=A-1".to_owned()),
            ("GET", format!("/pass?{pass}")),
            ("GET", format!("/picture?{pass}&side=front")),
            ("GET", format!("/push?{pass}")),
            ("POST", format!("/push?{pass}")),
            ("POST", format!("/download?{pass}")),
            ("POST", "/sign-out".to_owned()),
        ] {
            let answer = page.send(method, &path, &[("Cookie", cookie), ORIGIN], "");
            let seen = (answer.status, answer.header("location"), answer.body.len());
            assert_eq!(seen, (303, Some("/sign-in"), 0), "{method} {path}");
        }
    }
    // The address for phones has no such page.
    assert_eq!(page.service.send("GET", "/sign-in", &[], b"").status, 404);
}

#[test]
fn a_session_begins_with_the_token_and_ends_with_sign_out() {
    let page = Page::start();
    let answer = page.sign_in(TOKEN, &[ORIGIN]);
    let set = answer.header("set-cookie").unwrap();
    assert!(
        set.starts_with("passkit=") && set.ends_with("; Path=/; HttpOnly; SameSite=Strict"),
        "{set}"
    );
    // Behind a proxy with HTTPS, the browser must never send the cookie without it.
    let answer = page.sign_in(TOKEN, &[ORIGIN, ("X-Forwarded-Proto", "https")]);
    let set = answer.header("set-cookie").unwrap();
    assert!(
        set.starts_with("__Host-passkit=") && set.ends_with("; SameSite=Strict; Secure"),
        "{set}"
    );

    assert!(page.html("/").contains("Sign out"));
    let answer = page.post("/sign-out");
    assert_eq!(
        (answer.status, answer.header("location")),
        (303, Some("/sign-in"))
    );
    assert!(answer.header("set-cookie").unwrap().contains("Max-Age=0"));
    assert_eq!(page.get("/").status, 303);
}

#[test]
fn wrong_tokens_are_refused_and_then_all_tokens_for_a_minute() {
    let page = Page::start();
    for wrong in [
        "",
        "the-page-token-1235",
        "the-page-token",
        "x",
        "the-page-token-12345",
    ] {
        let answer = page.sign_in(wrong, &[ORIGIN]);
        assert_eq!(answer.status, 403, "{wrong}");
        assert!(answer.header("set-cookie").is_none(), "{wrong}");
        assert!(text(&answer).contains("not the admin token"), "{wrong}");
    }
    for token in ["x", TOKEN] {
        let answer = page.sign_in(token, &[ORIGIN]);
        assert_eq!(
            (answer.status, answer.header("retry-after")),
            (429, Some("60"))
        );
    }
    // An open session stays open.
    assert_eq!(page.get("/").status, 200);
    let said = page.service.said();
    assert!(
        said.contains("a wrong admin token") && said.contains("127.0.0.1"),
        "{said}"
    );
    assert!(!said.contains("the-page-token"), "{said}");
}

#[test]
fn tokens_that_arrive_at_the_same_moment_are_limited_too() {
    let page = Page::start();
    let body = format!("token={}", "x".repeat(TOKEN.len()));
    let head = format!(
        "POST /sign-in HTTP/1.1\r\nHost: test\r\nOrigin: {}\r\nConnection: close\r\nExpect: 100-continue\r\n\
         Content-Length: {}\r\n\r\n",
        ORIGIN.1,
        body.len()
    );
    // The service asks for a body when it waits for it.
    let asked = "HTTP/1.1 100 Continue\r\n\r\n";
    let mut waiting: Vec<TcpStream> = (0..30)
        .map(|_| {
            let mut stream = TcpStream::connect(&page.address).unwrap();
            stream.write_all(head.as_bytes()).unwrap();
            let mut said = vec![0; asked.len()];
            stream.read_exact(&mut said).unwrap();
            assert_eq!(String::from_utf8_lossy(&said), asked);
            stream
        })
        .collect();
    for stream in &mut waiting {
        stream.write_all(body.as_bytes()).unwrap();
    }
    let statuses: Vec<u16> = waiting
        .iter_mut()
        .map(|stream| answer_of(stream, "POST").unwrap().status)
        .collect();
    let judged = statuses.iter().filter(|status| **status == 403).count();
    let refused = statuses.iter().filter(|status| **status == 429).count();
    assert_eq!((judged, refused), (5, 25), "{statuses:?}");
    let said = page.service.said();
    assert_eq!(said.matches("a wrong admin token").count(), 1, "{said}");
}

#[test]
fn a_change_must_come_from_the_page_itself() {
    let page = Page::start();
    page.service.register("d1", TYPE, "A-1");
    let (_, tag) = page.service.list("d1", TYPE, None).unwrap();
    let path = format!("/push?{}", address_of(TYPE, "A-1"));
    let evil = [
        ("Origin", "http://evil.example"),
        ("Origin", "null"),
        ("Origin", "http://test:81"),
        ("Referer", "http://test/"),
    ];
    for header in evil {
        let answer = page.send("POST", &path, &[("Cookie", &page.cookie), header], "");
        assert_eq!(answer.status, 403, "{header:?}");
        assert_eq!(page.sign_in(TOKEN, &[header]).status, 403, "{header:?}");
    }
    let site = [
        ("Cookie", &*page.cookie),
        ORIGIN,
        ("Sec-Fetch-Site", "cross-site"),
    ];
    assert_eq!(page.send("POST", &path, &site, "").status, 403);
    assert_eq!(page.service.list("d1", TYPE, Some(&tag)), None);
}

#[test]
fn a_browser_may_load_only_what_the_page_itself_has() {
    let page = Page::start();
    let pass = address_of(TYPE, "A-1");
    for path in [
        "/",
        "/sign-in",
        "/nowhere",
        "/style.css",
        "/live.js",
        "/search?q=x",
        "/search?q=A-1",
        "/pass",
        &format!("/pass?{pass}"),
        &format!("/picture?{pass}"),
        &format!("/push?{pass}"),
        &format!("/download?{pass}"),
    ] {
        let answer = page.get(path);
        let policy = answer.header("content-security-policy").unwrap();
        assert!(
            policy.starts_with("default-src 'none'") && policy.contains("frame-ancestors 'none'"),
            "{path}: {policy}"
        );
        assert!(!policy.contains("unsafe"), "{path}: {policy}");
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("cache-control", "no-store"),
            ("referrer-policy", "same-origin"),
            ("cross-origin-resource-policy", "same-origin"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{path}: {name}");
        }
        if answer
            .header("content-type")
            .unwrap()
            .starts_with("text/html")
        {
            let html = text(&answer);
            for inline in [
                "<script>",
                "<style",
                " style=",
                " onclick=",
                "javascript:",
                "http://",
                "//",
            ] {
                assert!(
                    !without_texts(&html).contains(inline),
                    "{path}: {inline} in {html}"
                );
            }
        }
    }
}

/// Returns only the tags of a page, with their attributes.
fn without_texts(html: &str) -> String {
    html.split('<')
        .skip(1)
        .map(|part| format!("<{}>", part.split('>').next().unwrap()))
        .collect()
}

#[test]
fn a_pass_is_found_by_its_serial_its_type_or_its_url() {
    let service = service();
    let files = [(TYPE, "A-1"), (TYPE, "B/ü 2"), (OTHER, "A-1")];
    for (index, (type_id, serial)) in files.iter().enumerate() {
        fs::write(
            service.passes().join(format!("{index}.pkpass")),
            pass(type_id, serial, "one"),
        )
        .unwrap();
    }
    let page = Page::of(service);
    let second = "/pass?type=pass.com.example.paged&serial=B%2F%C3%BC+2";
    for (typed, found) in [
        ("B%2F%C3%BC+2", second),
        ("+B%2F%C3%BC+2++", second),
        ("pass.com.example.paged+B%2F%C3%BC+2", second),
        (
            "https%3A%2F%2Fwallet.example.com%2Fv1%2Fpasses%2Fpass.com.example.paged%2FB%252F%25C3%25BC%25202",
            second,
        ),
        (
            "https://wallet.example.com/v1/devices/5ec2e7/registrations/pass.com.example.paged/A-1",
            "/pass?type=pass.com.example.paged&serial=A-1",
        ),
    ] {
        let answer = page.get(&format!("/search?q={typed}"));
        assert_eq!(
            (answer.status, answer.header("location")),
            (303, Some(found)),
            "{typed}"
        );
        page.html(found);
    }
    // Two types have the serial number.
    let html = page.html("/search?q=A-1");
    for type_id in [TYPE, OTHER] {
        assert!(
            html.contains(&format!("/pass?type={type_id}&#38;serial=A-1")),
            "{html}"
        );
    }
    for unknown in ["C-3", "", "%00", &"x".repeat(3000)] {
        assert!(
            page.html(&format!("/search?q={unknown}"))
                .contains("No pass is found"),
            "{unknown}"
        );
    }
    // A pass that nobody knows has a page that says so.
    assert!(
        page.html(&format!("/pass?{}", address_of(TYPE, "C-3")))
            .contains("knows neither")
    );
    for malformed in [
        "/pass",
        "/pass?type=x",
        "/push?serial=A",
        "/picture?type=pass.a&serial=",
    ] {
        assert_eq!(page.get(malformed).status, 400, "{malformed}");
    }
}

#[test]
fn a_pass_that_only_the_store_has_is_found_and_counts() {
    finds_in_store(service());
    finds_in_store(with_page(Service::over(&postgres::migrated())));
}

/// The folders of the service are empty.
fn finds_in_store(service: Service) {
    let page = Page::of(service.given(&["--archives-in-store"]));
    let headers = [("Authorization", &*format!("Bearer {TOKEN}"))];
    let archive = pass(TYPE, "S-1", "one");
    let put = page
        .service
        .send("PUT", "/admin/v1/archives", &headers, &archive);
    assert_eq!(put.status, 201);
    // No phone has the pass, so only its publication has its type.
    let address = address_of(TYPE, "S-1");
    let found = page.get("/search?q=S-1");
    assert_eq!(
        (found.status, found.header("location")),
        (303, Some(&*format!("/pass?{address}")))
    );
    page.html(&format!("/pass?{address}"));
    let picture = page.get(&format!("/picture?{address}&side=front"));
    assert!(picture.status == 200 && text(&picture).contains("one"));
    assert_eq!(page.post(&format!("/download?{address}")).body, archive);

    let wrong = [("Authorization", "ApplePass another-token-0123")];
    let path = format!("/v1/passes/{TYPE}/S-1");
    assert_eq!(page.service.send("GET", &path, &wrong, b"").status, 401);
    eventually("the overview shows the refusal", || {
        !page.html("/").contains("No request was refused.")
    });
}

#[test]
fn phones_are_in_pages_without_anything_secret() {
    let page = Page::start();
    let device = |number: usize| format!("5ec2e7de71ce{number:020}");
    for number in 0..60 {
        page.service.register(&device(number), TYPE, "A-1");
    }
    let mut names = BTreeSet::new();
    let mut path = format!("/pass?{}", address_of(TYPE, "A-1"));
    let mut pages = 0;
    loop {
        pages += 1;
        let html = page.html(&path);
        for secret in ["5ec2e7de71ce", "c0ffee", &token_of(TYPE, "A-1"), TOKEN] {
            assert!(
                !html.contains(secret) && !path.contains(secret),
                "{secret} in {path}: {html}"
            );
        }
        let phones: Vec<&str> = html
            .split("<h3>Phone ")
            .skip(1)
            .map(|part| &part[..8])
            .collect();
        assert!(phones.len() <= 50, "{}", phones.len());
        names.extend(phones.into_iter().map(str::to_owned));
        let next = html
            .split("\" rel=\"next\"")
            .next()
            .filter(|before| before.len() < html.len());
        let Some(next) = next.and_then(|before| before.rsplit('"').next()) else {
            break;
        };
        path = next.replace("&#38;", "&");
    }
    assert_eq!((names.len(), pages), (60, 2));
    let overview = page.html("/");
    assert!(
        !overview.contains("5ec2e7de71ce") && !overview.contains("c0ffee"),
        "{overview}"
    );
}

#[test]
fn push_again_asks_first_and_then_reaches_the_phones_and_the_log() {
    let page = Page::start();
    page.service.register("d1", TYPE, "A-1");
    let (_, tag) = page.service.list("d1", TYPE, None).unwrap();
    let path = format!("/push?{}", address_of(TYPE, "A-1"));
    let asked = page.html(&path);
    assert!(
        asked.contains("One phone gets a push") && asked.contains("method=\"post\""),
        "{asked}"
    );
    assert_eq!(page.service.list("d1", TYPE, Some(&tag)), None);

    let answer = page.post(&path);
    assert_eq!(answer.status, 303);
    let (serials, _) = page.service.list("d1", TYPE, Some(&tag)).unwrap();
    assert_eq!(serials, ["A-1"]);
    let shown = page.html(answer.header("location").unwrap());
    assert!(shown.contains("The pass is marked as changed."), "{shown}");
    let said = page.service.said();
    let line = said
        .lines()
        .find(|line| line.contains("push pass.com.example.paged A-1 again"));
    let line = line.unwrap_or_else(|| panic!("{said}"));
    assert!(line.contains("client=127.0.0.1"), "{line}");
}

#[test]
fn a_download_asks_first_and_is_logged() {
    let page = Page::start();
    let path = format!("/download?{}", address_of(TYPE, "A-1"));
    assert!(page.html(&path).contains("authentication token"));
    assert!(!page.service.said().contains("download"));
    let answer = page.post(&path);
    let archive = fs::read(page.service.passes().join("a.pkpass")).unwrap();
    assert!(answer.status == 200 && answer.body == archive);
    assert_eq!(
        answer.header("content-type"),
        Some("application/vnd.apple.pkpass")
    );
    assert_eq!(
        answer.header("content-disposition"),
        Some("attachment; filename=\"A-1.pkpass\"")
    );
    assert!(
        page.service
            .said()
            .contains("download pass.com.example.paged A-1")
    );
    assert_eq!(
        page.post(&format!("/download?{}", address_of(TYPE, "B")))
            .status,
        404
    );
}

#[test]
fn a_pass_has_pictures_and_an_order_does_not() {
    let service = service();
    fs::write(
        service.passes().join("a.pkpass"),
        pass(TYPE, "A-1", "<one>"),
    )
    .unwrap();
    fs::write(
        service.orders().join("a.order"),
        order("order.com.example.paged", "O-1", "one"),
    )
    .unwrap();
    let page = Page::of(service);
    for (side, part) in [("front", "&lt;one&gt;"), ("back", "An example")] {
        let answer = page.get(&format!("/picture?{}&side={side}", address_of(TYPE, "A-1")));
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (200, Some("image/svg+xml"))
        );
        assert!(text(&answer).contains(part), "{side}");
    }
    let order = address_of("order.com.example.paged", "O-1");
    assert!(
        page.html(&format!("/pass?{order}"))
            .contains("Orders have no picture.")
    );
    assert_eq!(page.get(&format!("/picture?{order}")).status, 404);
}

#[test]
fn hostile_passes_stay_text() {
    let hostile = "<script>alert(1)</script>\"'>&\u{202e}";
    let service = service().given(&["--allow-unsigned"]);
    let archive = with_json(
        TYPE,
        &json!({
            "serialNumber": hostile, "description": hostile, "organizationName": hostile, "logoText": hostile,
            "webServiceURL": format!("https://wallet.example.com/{hostile}"),
            "generic": { "primaryFields": [{ "key": "a", "label": hostile, "value": hostile }] },
        }),
    );
    fs::write(service.passes().join("a.pkpass"), archive).unwrap();
    let page = Page::of(service);
    let found = page.get("/search?q=%3Cscript%3Ealert(1)%3C/script%3E%22'%3E%26%E2%80%AE");
    let location = found.header("location").unwrap().to_owned();
    let query = location.strip_prefix("/pass?").unwrap();
    let (_, encoded) = query.split_once("serial=").unwrap();
    for path in [
        location.clone(),
        format!("/push?{query}"),
        format!("/download?{query}"),
        format!("/picture?{query}"),
        format!("/picture?{query}&side=back"),
        format!("/search?q={encoded}"),
        format!("/pass?{query}&done={encoded}&after={encoded}"),
    ] {
        let answer = page.get(&path);
        let expected = if path.starts_with("/search") {
            303
        } else {
            200
        };
        assert_eq!(answer.status, expected, "{path}");
        let html = text(&answer);
        assert!(
            !html.contains("<script>alert") && !html.contains("\"'>&"),
            "{path}: {html}"
        );
    }
    // The log has the pass in one line, without the mark that turns text around.
    assert_eq!(page.post(&format!("/push?{query}")).status, 303);
    assert!(!page.service.said().contains('\u{202e}'));
}

#[test]
fn a_store_that_is_down_is_reported_and_the_page_stays_up() {
    let node = Node::start(&[]).unwrap();
    let service = with_page(Service::over(&node.url()));
    fs::write(service.passes().join("a.pkpass"), pass(TYPE, "A-1", "one")).unwrap();
    let page = Page::of(service);
    let pass = address_of(TYPE, "A-1");
    page.html(&format!("/pass?{pass}"));
    node.kill().unwrap();
    for path in [
        format!("/pass?{pass}"),
        format!("/push?{pass}"),
        "/search?q=unknown".into(),
        "/".into(),
    ] {
        let answer = page.get(&path);
        assert_eq!(answer.status, 503, "{path}");
        let html = text(&answer);
        assert!(
            html.contains("The store does not answer") || html.contains("the store"),
            "{path}: {html}"
        );
        assert!(
            !html.contains("redis") && !html.contains("127.0.0.1"),
            "{path}: {html}"
        );
    }
    assert_eq!(page.post(&format!("/push?{pass}")).status, 503);
    // Pages that need no store still work.
    assert_eq!(page.sign_in(TOKEN, &[ORIGIN]).status, 303);
    let said = page.service.said();
    assert_eq!(
        said.matches("the operator's page can't read the store")
            .count(),
        1,
        "{said}"
    );
    node.restart().unwrap();
    eventually("the page shows the pass again", || {
        page.get(&format!("/pass?{pass}")).status == 200
    });
}

#[test]
fn other_methods_and_paths_are_refused() {
    let page = Page::start();
    let cookie = ("Cookie", &*page.cookie);
    for method in ["PUT", "DELETE", "OPTIONS"] {
        assert_eq!(
            page.send(method, "/", &[cookie, ORIGIN], "").status,
            405,
            "{method}"
        );
    }
    for (method, path) in [
        ("GET", "/nowhere"),
        ("POST", "/"),
        ("POST", "/pass"),
        ("GET", "/sign-out"),
    ] {
        assert_eq!(
            page.send(method, path, &[cookie, ORIGIN], "").status,
            404,
            "{method} {path}"
        );
    }
    let long = format!("token={}", "x".repeat(20_000));
    assert_eq!(page.send("POST", "/sign-in", &[ORIGIN], &long).status, 400);
    assert_eq!(page.send("HEAD", "/", &[cookie], "").status, 200);
}

#[test]
fn the_page_needs_a_token_and_warns_of_a_plain_address() {
    let refused = Service::new()
        .given(&["--page", "127.0.0.1:0"])
        .refusal()
        .unwrap();
    assert!(refused.contains("--page needs --admin-token"), "{refused}");
    let mut service = Service::new().given(&["--page", "0.0.0.0:0", "--admin-token", TOKEN]);
    service.start();
    assert!(
        service
            .said()
            .contains("--page sends the admin token without encryption")
    );
    let mut service = Service::new().given(&["--admin-token", TOKEN]);
    service.start();
    assert!(!service.said().contains("page"), "{}", service.said());
}
