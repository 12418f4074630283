//! Many malformed requests, the same in each run.

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Uri};
use http_body_util::Full;

use crate::{
    app::{
        App, DEVICE, ORDERS, OTHER_DEVICE, PUSH, SERIALS, TICKET, coupon, latest_path, list_path,
        order, push_body, registration_path, ticket,
    },
    phone::Phone,
};

const REQUESTS: usize = 20_000;

/// A small random generator (SplitMix64). It gives the same sequence everywhere.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    /// Changes a few bytes: replaces, inserts hostile pieces, copies, or removes.
    fn mutate(&mut self, bytes: &mut Vec<u8>, pieces: &[&str]) {
        for _ in 0..self.below(4) {
            let at = self.below(bytes.len() + 1);
            let end = (at + self.below(12)).min(bytes.len());
            let replacement: Vec<u8> = match self.below(5) {
                0 => vec![self.next() as u8],
                1 => self.pick(pieces).as_bytes().to_vec(),
                2 => bytes[at..end].repeat(1 + self.below(40)),
                3 => Vec::new(),
                _ => {
                    bytes.insert(at, *self.pick(b"/%?&=.-+ \"\\{}[]0aZ"));
                    continue;
                }
            };
            let end = if self.one_in(2) { at } else { end };
            bytes.splice(at..end, replacement);
        }
    }
}

const PATH_PIECES: [&str; 20] = [
    "%",
    "%zz",
    "%00",
    "%ff",
    "%2F",
    "%252F",
    "..",
    "/",
    "//",
    "/v1/",
    "?",
    "passesUpdatedSince=",
    "%F0%9F%98%80",
    "log",
    "passes/",
    "orders/",
    "registrations/",
    "pass.",
    "order.",
    "\u{e9}",
];

const BODY_PIECES: [&str; 10] = [
    "\"pushToken\"",
    "\"logs\"",
    "null",
    "[[[[[[[[",
    "{\"a\":",
    "\\u0000",
    "\\ud800",
    "1e999",
    "\u{feff}",
    "\u{0}",
];

const HEADER_PIECES: [&str; 8] = [
    "ApplePass ",
    "AppleOrder ",
    "Bearer ",
    "GMT",
    "\"",
    "W/",
    "\t",
    "*",
];

#[tokio::test]
async fn every_request_gets_a_documented_answer_and_opens_nothing() {
    let app = App::new();
    let owned = ticket("A-1");
    let key = app.authorization(&owned);
    let mut phone = Phone::new(&app, OTHER_DEVICE);
    phone.register(&owned).await;
    phone.sync(TICKET).await;
    let etag = app
        .send(app.get_call(&owned))
        .await
        .header("etag")
        .unwrap()
        .to_owned();

    let tag = phone.tag(TICKET).unwrap();
    let mut paths = vec![
        list_path(DEVICE, TICKET),
        format!(
            "{}?passesUpdatedSince={tag}",
            list_path(OTHER_DEVICE, TICKET)
        ),
        format!(
            "{}?ordersModifiedSince={tag}&x=1",
            list_path(DEVICE, "order.com.example.shop")
        ),
        "/v1/log".to_owned(),
        "//v1/log/".to_owned(),
        "/".to_owned(),
    ];
    for pass in SERIALS
        .iter()
        .flat_map(|s| [ticket(s), coupon(s)])
        .chain(ORDERS.map(order))
    {
        paths.extend([registration_path(DEVICE, &pass), latest_path(&pass)]);
    }
    paths.extend((0..20).flat_map(|_| [registration_path(DEVICE, &owned), latest_path(&owned)]));
    let methods = [
        "GET", "GET", "POST", "POST", "DELETE", "HEAD", "PUT", "OPTIONS",
    ];
    let bodies = [
        push_body(PUSH),
        r#"{"logs":["[t] Get pass task (pass type T, serial number S) encountered error: x"]}"#
            .to_owned(),
        r#"{"description":"x"}"#.to_owned(),
        String::new(),
        "x".repeat(17_000),
    ];

    let mut numbers = Numbers(2_026);
    let mut seen = std::collections::BTreeMap::<u16, usize>::new();
    let mut sent = 0;
    while sent < REQUESTS {
        let mut path = numbers.pick(&paths).clone().into_bytes();
        numbers.mutate(&mut path, &PATH_PIECES);
        let Ok(uri) = Uri::try_from(path) else {
            continue;
        };
        let mut body = numbers.pick(&bodies).clone().into_bytes();
        if numbers.one_in(2) {
            numbers.mutate(&mut body, &BODY_PIECES);
        }
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.uri_mut() = uri;
        *request.method_mut() = numbers.pick(&methods).parse::<Method>().unwrap();
        for (name, value, odds) in [
            ("authorization", key.as_str(), 2),
            ("authorization", "", 30),
            ("if-modified-since", phone.date(&owned).unwrap(), 4),
            ("if-none-match", etag.as_str(), 4),
            ("content-type", "application/json", 3),
            ("content-length", "5", 20),
        ] {
            if !numbers.one_in(odds) {
                continue;
            }
            let mut value = value.as_bytes().to_vec();
            if numbers.one_in(4) {
                numbers.mutate(&mut value, &HEADER_PIECES);
            }
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                request.headers_mut().append(name, value);
            }
        }
        let context = format!("{request:?}");
        let method = request.method().clone();
        let answer = app.send_request(request).await;
        let expected: &[u16] = match method.as_str() {
            "POST" => &[200, 201, 400, 401, 404, 405, 413],
            "DELETE" => &[200, 400, 401, 404, 405],
            "GET" | "HEAD" => &[200, 204, 304, 400, 401, 404, 405],
            _ => &[404, 405],
        };
        assert!(expected.contains(&answer.status), "{context}: {answer:?}");
        *seen.entry(answer.status).or_default() += 1;
        sent += 1;
    }

    // The requests reached every kind of answer.
    for status in [200, 201, 204, 304, 400, 401, 404, 405, 413] {
        assert!(
            seen.get(&status).is_some_and(|count| *count > 5),
            "{status}: {seen:?}"
        );
    }
    for pass in SERIALS
        .iter()
        .flat_map(|s| [ticket(s), coupon(s)])
        .chain(ORDERS.map(order))
    {
        if pass != owned {
            assert_eq!(
                app.devices_of(&pass).await,
                [],
                "the key of another pass registered {pass}"
            );
        }
    }
    assert_eq!(
        phone.register(&owned).await,
        200,
        "others could not unregister this device"
    );
    assert_eq!(phone.sync(TICKET).await, [("A-1".to_owned(), 304)]);
}
