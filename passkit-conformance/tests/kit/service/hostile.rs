//! Services that try to keep the kit busy, to fill its memory, or to send it elsewhere.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use passkit_conformance::{
    CaseReport, Limits, Outcome,
    service::{PushService, PushSettings, Target, cases, run},
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
};

use super::sound::Sound;

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";

/// The answer of a service: a beginning, and then a text again and again with pauses.
#[derive(Clone)]
struct Sends {
    first: String,
    forever: Option<(String, Duration)>,
}

async fn send(mut client: TcpStream, sends: Sends) -> std::io::Result<()> {
    let mut lines = BufReader::new(&mut client);
    let mut line = String::new();
    while lines.read_line(&mut line).await? > 2 {
        line.clear();
    }
    client.write_all(sends.first.as_bytes()).await?;
    if let Some((text, pause)) = sends.forever {
        loop {
            client.write_all(text.as_bytes()).await?;
            tokio::time::sleep(pause).await;
        }
    }
    client.shutdown().await
}

/// Starts a service that answers every request in the same way. Returns its URL and the counter of
/// its connections.
async fn service(sends: Sends) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = connections.clone();
    tokio::spawn(async move {
        loop {
            let (client, _) = listener.accept().await.unwrap();
            counted.fetch_add(1, SeqCst);
            tokio::spawn(send(client, sends.clone()));
        }
    });
    (url, connections)
}

fn target(url: &str) -> Target {
    let mut limits = Limits::default();
    (limits.time, limits.response_bytes) = (Duration::from_secs(1), 4_000_000);
    Sound::new().known(Target::at(url, limits).unwrap())
}

/// Runs a case that lists, and a case that fetches. Neither may pass. Returns their results as
/// text.
async fn results(url: &str) -> Vec<(CaseReport, String)> {
    let mut results = Vec::new();
    for one in cases() {
        if ![
            "list/no-tag-lists-all",
            "get/is-a-pkpass",
            "list/unknown-device-is-204",
        ]
        .contains(&one.case.id)
        {
            continue;
        }
        let target = target(url);
        let run = tokio::time::timeout(Duration::from_secs(60), one.run(&target));
        let report = run.await.expect("the case goes on forever");
        assert!(
            !matches!(report.outcome, Outcome::Pass | Outcome::Skip(_)),
            "{report}"
        );
        let text = match &report.outcome {
            Outcome::Fail(violation) | Outcome::Blocked(violation) => violation.to_string(),
            other => format!("{other:?}"),
        };
        assert!(text.len() < 5_000, "{} bytes", text.len());
        results.push((report, text));
    }
    assert_eq!(results.len(), 3);
    results
}

async fn all_say(sends: Sends, expected: &str) {
    let (url, _) = service(sends).await;
    for (_, text) in results(&url).await {
        assert!(text.contains(expected), "{text} does not say {expected}");
    }
}

fn once(text: String) -> Sends {
    Sends {
        first: text,
        forever: None,
    }
}

fn forever(first: &str, text: String, pause: u64) -> Sends {
    Sends {
        first: first.to_owned(),
        forever: Some((text, Duration::from_millis(pause))),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endless_body_is_cut() {
    let sends = forever(&format!("{OK}\r\n"), "x".repeat(100_000), 0);
    all_say(sends, "longer than 4000000 bytes").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endless_head_is_cut() {
    let sends = forever(OK, format!("x-{}: y\r\n", "x".repeat(10_000)), 0);
    all_say(sends, "message head is too large").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_headers_are_refused() {
    let headers: String = (0..1_000)
        .map(|number| format!("x-{number}: y\r\n"))
        .collect();
    all_say(
        once(format!("{OK}{headers}content-length: 0\r\n\r\n")),
        "message head is too large",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_bytes_are_not_waited_for() {
    let head = forever("HTTP/1.1 200 OK\r\nx-slow: ", "x".into(), 50);
    all_say(head, "no complete answer within 1s").await;
    let body = forever(
        &format!("{OK}content-length: 1000000\r\n\r\n"),
        "x".into(),
        50,
    );
    all_say(body, "no complete answer within 1s").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_is_not_followed() {
    let (elsewhere, connections) = service(once(format!("{OK}content-length: 0\r\n\r\n"))).await;
    for status in [301, 302, 303, 307, 308] {
        let moved = format!(
            "HTTP/1.1 {status} Moved\r\nlocation: {elsewhere}/v1/\r\nrefresh: 0;url={elsewhere}\r\n\
             link: <{elsewhere}>; rel=preload\r\ncontent-length: 0\r\n\r\n"
        );
        all_say(once(moved), &format!("status {status}")).await;
    }
    assert_eq!(connections.load(SeqCst), 0);
}

fn body(text: &str) -> Sends {
    once(format!(
        "{OK}content-length: {}\r\nconnection: close\r\n\r\n{text}",
        text.len()
    ))
}

#[tokio::test(flavor = "multi_thread")]
async fn deep_json_is_malformed() {
    let deep = format!(
        "{{\"lastUpdated\":\"1\",\"serialNumbers\":{}",
        "[".repeat(1_000_000)
    );
    let (url, _) = service(body(&deep)).await;
    results(&url).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_serial_numbers_are_read_and_shown_shortened() {
    let names: Vec<String> = (0..100_000)
        .map(|number| format!("serial-{number}"))
        .collect();
    let list = serde_json::json!({ "serialNumbers": names, "lastUpdated": "1" });
    let (url, _) = service(body(&list.to_string())).await;
    let shown = results(&url).await;
    assert!(
        shown
            .iter()
            .any(|(_, text)| text.contains("and 99990 more")),
        "{shown:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_tls_ends_the_run() {
    let (plain, _) = service(once(format!("{OK}content-length: 0\r\n\r\n"))).await;
    // A certificate that the system does not trust.
    let push = PushService::start(PushSettings::default()).await.unwrap();
    for (url, cause) in [
        (plain.replace("http://", "https://"), "tls"),
        (format!("https://127.0.0.1:{}", push.port()), "certificate"),
    ] {
        let report = run(&cases(), &target(&url)).await;
        let reason = report.stopped().unwrap();
        assert!(
            reason.contains("can't be reached") && reason.contains(cause),
            "{reason}"
        );
        assert_eq!(report.counts().error, cases().len());
    }
}
