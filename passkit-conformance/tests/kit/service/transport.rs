//! Services that break HTTP's rules.

use http::{Method, header};
use passkit_conformance::{
    Limits, Outcome, Rule,
    service::{Target, cases, run},
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, copy},
    net::{TcpListener, TcpStream},
};

use super::{
    Fault, Sound,
    wrong::{answered_otherwise, logs, refusing, registers},
};

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        name: "only passd gets answers",
        rule: Rule::HTTP_3,
        caught_by: &["http/any-user-agent"],
        wrong: |sound| {
            refusing(sound, |asked| {
                let agent = asked.headers().get(header::USER_AGENT);
                let phone = agent.is_some_and(|agent| agent.as_bytes().starts_with(b"passd/"));
                (!phone).then_some(403)
            })
        },
    },
    Fault {
        name: "a request without User-Agent fails",
        rule: Rule::HTTP_3,
        caught_by: &["http/any-user-agent"],
        wrong: |sound| {
            refusing(sound, |asked| {
                (!asked.headers().contains_key(header::USER_AGENT)).then_some(500)
            })
        },
    },
    Fault {
        name: "a wrong method is answered 404",
        rule: Rule::HTTP_11,
        caught_by: &["http/wrong-method-is-405"],
        wrong: |sound| {
            refusing(sound, |asked| {
                (*asked.method() == Method::GET && logs(asked)).then_some(404)
            })
        },
    },
    Fault {
        name: "a 405 does not name the allowed methods",
        rule: Rule::HTTP_11,
        caught_by: &["http/wrong-method-is-405"],
        wrong: |sound| {
            answered_otherwise(sound, |_, answer| {
                answer.headers_mut().remove(header::ALLOW);
            })
        },
    },
    Fault {
        name: "an unknown path is answered 200 with a page",
        rule: Rule::HTTP_11,
        caught_by: &["http/unknown-path-is-404"],
        wrong: |sound| {
            answered_otherwise(sound, |_, answer| {
                if answer.status() == 404 {
                    *answer.status_mut() = http::StatusCode::OK;
                }
            })
        },
    },
    Fault {
        name: "bodies of any length are accepted",
        rule: Rule::HTTP_13,
        caught_by: &["http/long-registration-is-413", "http/long-log-is-413"],
        wrong: |sound| {
            refusing(sound, |asked| {
                (asked.body().len() > 100_000).then_some(if registers(asked) { 201 } else { 200 })
            })
        },
    },
    Fault {
        name: "a long path fails",
        rule: Rule::HTTP_2,
        caught_by: &["http/long-path-or-header-is-refused"],
        wrong: |sound| {
            refusing(sound, |asked| {
                (asked.uri().path().len() > 10_000).then_some(500)
            })
        },
    },
    Fault {
        name: "a long header fails",
        rule: Rule::HTTP_2,
        caught_by: &["http/long-path-or-header-is-refused"],
        wrong: |sound| {
            refusing(sound, |asked| {
                let long = asked.headers().values().any(|value| value.len() > 10_000);
                long.then_some(500)
            })
        },
    },
];

/// The case that needs a real connection. It skips services in this process.
pub(super) const ON_THE_WIRE: &str = "http/header-names-in-any-case";

/// Makes a server in front of the sound service. The server accepts only one spelling of a header
/// name, and serves one request on each connection.
async fn only_spelt(name: &'static str) -> Target {
    let sound = Sound::new();
    let behind = sound.listen().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (client, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut client = BufReader::new(client);
                let mut behind = TcpStream::connect(behind).await.unwrap();
                behind
                    .write_all(head(&mut client, name).await.as_bytes())
                    .await
                    .unwrap();
                let (mut from_client, mut to_client) = tokio::io::split(client);
                let (mut from_behind, mut to_behind) = behind.split();
                // If one direction ends, both directions end.
                tokio::select! {
                    _ = copy(&mut from_client, &mut to_behind) => {}
                    _ = copy(&mut from_behind, &mut to_client) => {}
                }
            });
        }
    });
    sound.known(Target::at(&url, Limits::default()).unwrap())
}

/// Reads the head of a request. Removes the header if its name has another spelling.
async fn head(client: &mut BufReader<TcpStream>, name: &str) -> String {
    let mut head = String::new();
    loop {
        let mut line = String::new();
        if client.read_line(&mut line).await.unwrap() == 0 {
            return head;
        }
        if line == "\r\n" {
            return head + "connection: close\r\n\r\n";
        }
        let (spelt, _) = line.split_once(':').unwrap_or((&line, ""));
        if spelt == name || !spelt.eq_ignore_ascii_case(name) {
            head.push_str(&line);
        }
    }
}

#[tokio::test]
async fn a_service_that_knows_one_spelling_of_a_header_is_found() {
    let all = cases();
    let case: Vec<_> = all
        .iter()
        .filter(|one| one.case.id == ON_THE_WIRE)
        .collect();
    for name in [
        "Authorization",
        "authorization",
        "If-Modified-Since",
        "if-modified-since",
    ] {
        let report = run(case.clone(), &only_spelt(name).await).await;
        match &report.results[..] {
            [result] => match &result.outcome {
                Outcome::Fail(violation) if violation.rule() == Rule::HTTP_1 => {}
                other => panic!("{name}: {other:?}"),
            },
            other => panic!("{name}: {other:?}"),
        }
    }
}
