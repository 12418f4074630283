//! Tests over a real connection, byte for byte.

use std::{net::SocketAddr, time::Duration};

use axum::Router;
use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::app::{
    App, Content, DEVICE, PUSH, TICKET, latest_path, list_path, push_body, registration_path,
    ticket,
};

async fn serve(app: &App) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().nest_service("/wallet", app.service.clone());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    address
}

/// What a connection received until it was closed.
struct Reply {
    status: u16,
    /// The names are in lower case.
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// The connection was reset instead of closed.
    reset: bool,
}

impl Reply {
    fn parse(bytes: &[u8], reset: bool) -> Self {
        let end = bytes
            .windows(4)
            .position(|w| w == b"\r\n\r\n")
            .expect("the end of the headers");
        let head = std::str::from_utf8(&bytes[..end]).unwrap();
        let mut lines = head.split("\r\n");
        let status = lines
            .next()
            .unwrap()
            .split(' ')
            .nth(1)
            .unwrap()
            .parse()
            .unwrap();
        let headers = lines
            .map(|line| line.split_once(": ").unwrap())
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        Self {
            status,
            headers,
            body: bytes[end + 4..].to_vec(),
            reset,
        }
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    /// Returns whether an HTTP client would accept the body as complete.
    fn is_complete(&self) -> bool {
        match (
            self.header("content-length"),
            self.header("transfer-encoding"),
        ) {
            (Some(length), _) => length.parse() == Ok(self.body.len()),
            (None, Some(_)) => self.body.ends_with(b"0\r\n\r\n"),
            (None, None) => !self.reset,
        }
    }
}

/// Sends bytes, then reads until the server closes the connection.
async fn exchange(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    exchange_and_end(address, bytes).await.0
}

async fn exchange_and_end(address: SocketAddr, bytes: &[u8]) -> (Vec<u8>, bool) {
    let work = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // A server that has refused the request does not have to read the rest.
        let _ = stream.write_all(bytes).await;
        let mut reply = Vec::new();
        let end = stream.read_to_end(&mut reply).await;
        (reply, end.is_err())
    };
    tokio::time::timeout(Duration::from_secs(60), work)
        .await
        .expect("the connection ends")
}

async fn ask(address: SocketAddr, method: &str, path: &str, headers: &str, body: &str) -> Reply {
    let length = if body.is_empty() {
        String::new()
    } else {
        format!("Content-Length: {}\r\n", body.len())
    };
    let request = format!(
        "{method} /wallet{path} HTTP/1.1\r\nHost: wallet.example\r\n{headers}{length}Connection: \
            close\r\n\r\n{body}"
    );
    let (bytes, reset) = exchange_and_end(address, request.as_bytes()).await;
    Reply::parse(&bytes, reset)
}

fn opened(app: &App, serial: &str) -> String {
    format!("authorization: {}\r\n", app.authorization(&ticket(serial)))
}

#[tokio::test]
async fn a_phone_is_served() {
    let app = App::new();
    let address = serve(&app).await;
    let key = opened(&app, "A-1");
    let registration = registration_path(DEVICE, &ticket("A-1"));
    let reply = ask(address, "POST", &registration, &key, &push_body(PUSH)).await;
    assert_eq!(
        (
            reply.status,
            reply.header("content-length"),
            reply.body.len()
        ),
        (201, Some("0"), 0)
    );
    assert_eq!(
        ask(address, "POST", &registration, &key, &push_body(PUSH))
            .await
            .status,
        200
    );

    let list = ask(address, "GET", &list_path(DEVICE, TICKET), "", "").await;
    assert_eq!(
        (list.status, list.header("content-type")),
        (200, Some("application/json"))
    );
    let json: serde_json::Value = serde_json::from_slice(&list.body).unwrap();
    let tag = json["lastUpdated"].as_str().unwrap();
    let query = format!("{}?passesUpdatedSince={tag}", list_path(DEVICE, TICKET));
    let nothing = ask(address, "GET", &query, "", "").await;
    assert_eq!(
        (
            nothing.status,
            nothing.header("content-length"),
            nothing.body.len()
        ),
        (204, None, 0)
    );

    let latest = ask(address, "GET", &latest_path(&ticket("A-1")), &key, "").await;
    assert_eq!(
        (latest.status, latest.body.as_slice()),
        (200, &b"first version of pass.com.example.ticket A-1"[..])
    );
    let date = latest.header("last-modified").unwrap();
    let key_and_date = format!("{key}if-modified-since: {date}\r\n");
    let again = ask(
        address,
        "GET",
        &latest_path(&ticket("A-1")),
        &key_and_date,
        "",
    )
    .await;
    assert_eq!((again.status, again.body.len()), (304, 0));
    assert!(matches!(again.header("content-length"), None | Some("44")));

    let log = ask(address, "POST", "/v1/log", "", r#"{"logs":["a"]}"#).await;
    assert_eq!((log.status, log.header("content-length")), (200, Some("0")));
    assert_eq!(
        ask(address, "DELETE", &registration, &key, "").await.status,
        200
    );
    assert_eq!(
        ask(address, "GET", &list_path(DEVICE, TICKET), "", "")
            .await
            .status,
        204
    );
}

#[tokio::test]
async fn dates_are_never_later_than_the_date_of_the_answer() {
    let app = App::new();
    for _ in 0..30 {
        app.publish(&ticket("A-1"), "x").await;
    }
    let address = serve(&app).await;
    let reply = ask(
        address,
        "GET",
        &latest_path(&ticket("A-1")),
        &opened(&app, "A-1"),
        "",
    )
    .await;
    let read = |name| httpdate::parse_http_date(reply.header(name).unwrap()).unwrap();
    assert!(read("last-modified") <= read("date"));
}

#[tokio::test]
async fn a_head_has_the_length_and_no_body() {
    let app = App::new();
    app.desk.set_content(
        &ticket("A-2"),
        Content::Stream(6, vec![Some("abc".into()), Some("def".into())]),
    );
    app.desk
        .set_content(&ticket("A-3"), Content::Shared(Bytes::new()));
    let address = serve(&app).await;
    for (serial, length) in [("A-1", "44"), ("A-2", "6"), ("A-3", "0")] {
        let reply = ask(
            address,
            "HEAD",
            &latest_path(&ticket(serial)),
            &opened(&app, serial),
            "",
        )
        .await;
        assert_eq!(
            (reply.status, reply.header("content-length")),
            (200, Some(length))
        );
        assert_eq!(
            reply.header("content-type"),
            Some("application/vnd.apple.pkpass")
        );
        assert!(reply.body.is_empty() && !reply.reset);
    }
}

/// These answers must have no body. Otherwise a client would read the body as the start of the next
/// answer.
#[tokio::test]
async fn a_connection_is_used_again_after_a_head_a_304_and_a_refusal() {
    let app = App::new();
    app.desk.set_content(
        &ticket("A-2"),
        Content::Stream(6, vec![Some("abcdef".into())]),
    );
    let address = serve(&app).await;
    let request = |method: &str, serial: &str, headers: &str| {
        format!(
            "{method} /wallet{} HTTP/1.1\r\nHost: a\r\n{headers}\r\n",
            latest_path(&ticket(serial))
        )
    };
    let not_modified = format!("{}If-None-Match: *\r\n", opened(&app, "A-1"));
    let requests = [
        request("HEAD", "A-1", &opened(&app, "A-1")),
        request("HEAD", "A-2", &opened(&app, "A-2")),
        request("GET", "A-1", &not_modified),
        request("GET", "A-2", &opened(&app, "A-2")),
        request("GET", "A-1", ""),
        request(
            "GET",
            "A-1",
            &format!("{}Connection: close\r\n", opened(&app, "A-1")),
        ),
    ];
    let bytes = exchange(address, requests.concat().as_bytes()).await;
    let text = String::from_utf8(bytes).unwrap();
    let statuses: Vec<&str> = text
        .match_indices("HTTP/1.1 ")
        .map(|(at, found)| &text[at + found.len()..][..3])
        .collect();
    assert_eq!(statuses, ["200", "200", "304", "200", "401", "200"]);
    assert!(text.ends_with("\r\n\r\nfirst version of pass.com.example.ticket A-1"));
    assert_eq!(text.matches("abcdef").count(), 1);
}

#[tokio::test]
async fn a_streamed_archive_has_its_length_and_arrives_complete() {
    let app = App::new();
    let chunk = Bytes::from(vec![7; 10_000]);
    app.desk.set_content(
        &ticket("A-1"),
        Content::Stream(1_000_000, vec![Some(chunk); 100]),
    );
    let address = serve(&app).await;
    let reply = ask(
        address,
        "GET",
        &latest_path(&ticket("A-1")),
        &opened(&app, "A-1"),
        "",
    )
    .await;
    assert_eq!(
        (
            reply.status,
            reply.header("content-length"),
            reply.body.len()
        ),
        (200, Some("1000000"), 1_000_000)
    );
    assert_eq!(reply.header("transfer-encoding"), None);
    assert!(reply.is_complete());
}

async fn arrives_complete(length: u64, chunks: &[Option<&'static str>]) -> bool {
    let app = App::new();
    let chunks = chunks.iter().map(|chunk| chunk.map(Bytes::from)).collect();
    app.desk
        .set_content(&ticket("A-1"), Content::Stream(length, chunks));
    let address = serve(&app).await;
    let request = format!(
        "GET /wallet{} HTTP/1.1\r\nHost: a\r\n{}Connection: close\r\n\r\n",
        latest_path(&ticket("A-1")),
        opened(&app, "A-1")
    );
    let (bytes, reset) = exchange_and_end(address, request.as_bytes()).await;
    // A connection that closes before the first byte is not a complete answer.
    bytes.windows(4).any(|window| window == b"\r\n\r\n")
        && Reply::parse(&bytes, reset).is_complete()
}

#[tokio::test]
async fn a_stream_that_keeps_its_length_arrives_complete() {
    assert!(arrives_complete(6, &[Some("abc"), Some("def")]).await);
    assert!(arrives_complete(6, &[Some("abc"), Some(""), Some("def"), Some("")]).await);
    assert!(arrives_complete(0, &[]).await);
}

#[tokio::test]
async fn a_stream_that_is_too_short_never_looks_complete() {
    assert!(!arrives_complete(6, &[]).await);
    assert!(!arrives_complete(6, &[Some("abc")]).await);
    assert!(!arrives_complete(6, &[Some("abc"), Some("de")]).await);
}

#[tokio::test]
async fn a_stream_that_fails_never_looks_complete() {
    assert!(!arrives_complete(6, &[None]).await);
    assert!(!arrives_complete(6, &[Some("abc"), None]).await);
}

#[tokio::test]
async fn a_stream_whose_last_chunk_is_too_long_never_looks_complete() {
    assert!(!arrives_complete(6, &[Some("abcdefg")]).await);
    assert!(!arrives_complete(6, &[Some("abc"), Some("defg")]).await);
}

/// The archive has more bytes than its declared length, so the part that was sent is not a valid
/// archive.
#[tokio::test]
async fn a_stream_with_a_chunk_too_many_never_looks_complete() {
    assert!(!arrives_complete(6, &[Some("abcdef"), Some("g")]).await);
    assert!(!arrives_complete(6, &[Some("abc"), Some("def"), Some("g")]).await);
}

/// The stream has a read error after the last declared byte.
#[tokio::test]
async fn a_stream_that_fails_after_its_last_byte_never_looks_complete() {
    assert!(!arrives_complete(6, &[Some("abcdef"), None]).await);
}

#[tokio::test]
async fn bodies_are_bounded_with_and_without_a_length() {
    let app = App::new();
    let address = serve(&app).await;
    let register = registration_path(DEVICE, &ticket("A-1"));
    let (push, logs) = (r#"{"pushToken":"00","x":""#, r#"{"logs":["#);
    for (path, start, end, length, expected) in [
        (
            register.as_str(),
            push,
            r#""}"#,
            16 * 1024,
            [200, 201].as_slice(),
        ),
        (register.as_str(), push, r#""}"#, 16 * 1024 + 1, &[413]),
        ("/v1/log", logs, "]}", 256 * 1024, &[200]),
        ("/v1/log", logs, "]}", 256 * 1024 + 1, &[413]),
    ] {
        let filling = if start == logs { " " } else { "x" };
        let body = format!(
            "{start}{}{end}",
            filling.repeat(length - start.len() - end.len())
        );
        let reply = ask(address, "POST", path, &opened(&app, "A-1"), &body).await;
        assert!(
            expected.contains(&reply.status),
            "{path} {length}: {}",
            reply.status
        );

        let (first, second) = body.split_at(length / 3);
        let request = format!(
            "POST /wallet{path} HTTP/1.1\r\nHost: a\r\n{}Transfer-Encoding: chunked\r\nConnection: \
                close\r\n\r\n{:x}\r\n{first}\r\n{:x}\r\n{second}\r\n0\r\n\r\n",
            opened(&app, "A-1"),
            first.len(),
            second.len(),
        );
        let (bytes, reset) = exchange_and_end(address, request.as_bytes()).await;
        let status = Reply::parse(&bytes, reset).status;
        assert!(
            expected.contains(&status),
            "{path} {length} in chunks: {status}"
        );
    }
}

#[tokio::test]
async fn a_large_body_is_refused_before_it_is_sent() {
    let app = App::new();
    let address = serve(&app).await;
    let request = "POST /wallet/v1/log HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\nConnection: close\r\n\r\n";
    let (bytes, reset) = exchange_and_end(address, request.as_bytes()).await;
    assert_eq!(Reply::parse(&bytes, reset).status, 413);
}

#[tokio::test]
async fn odd_request_lines_do_not_stop_the_server() {
    let app = App::new();
    let address = serve(&app).await;
    for target in [
        &b"/wallet/v1/passes/pass.com.example.ticket/%zz"[..],
        b"/wallet/v1/passes/pass.com.example.ticket/%00",
        b"/wallet/v1/passes/pass.com.example.ticket/%ff",
        b"/wallet/v1/passes/pass.com.example.ticket/\xff\xfe",
        b"/wallet/v1/passes/pass.com.example.ticket/z\xc3\xbc",
        b"/wallet/v1/passes/pass.com.example.ticket/a\0b",
        b"/wallet/v1/passes/pass.com.example.ticket/..",
        b"/wallet/../wallet/v1/log",
        b"/wallet//v1//log",
        b"/wallet/v1/devices/D/registrations/pass.com.example.ticket?passesUpdatedSince=\xff\xfe",
        b"/wallet/v1/devices/D/registrations/pass.com.example.ticket?passesUpdatedSince=%ff",
        b"*",
        b"",
    ] {
        let request = [
            b"GET ",
            target,
            b" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        ]
        .concat();
        let (bytes, reset) = exchange_and_end(address, &request).await;
        let status = Reply::parse(&bytes, reset).status;
        assert!(
            matches!(status, 204 | 400 | 401 | 404 | 405),
            "{}: {status}",
            String::from_utf8_lossy(target)
        );
    }
    assert_eq!(ask(address, "POST", "/v1/log", "", "{}").await.status, 200);
}
