//! Runs each example as a separate program, with a virtual phone.

#![allow(clippy::unwrap_used)]

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
};

use passkit_conformance::{
    Client,
    phone::{Outcome, Phone, Rules, State},
};
use passkit_test_servers::postgres::Server;

/// A running example.
struct Example {
    process: Child,
    output: BufReader<ChildStdout>,
    address: String,
}

impl Example {
    fn start(program: &str, folder: &Path, arguments: &[&str]) -> Self {
        let mut process = Command::new(program)
            .arg("0")
            .args(arguments)
            .current_dir(folder)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("http://").unwrap().to_owned();
        Self {
            process,
            output,
            address,
        }
    }

    /// Sends a request, and returns the body of the answer. The answer must have the status 200.
    fn call(&self, method: &str, path: &str, body: &str) -> Vec<u8> {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            self.address,
            body.len()
        )
        .unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let end = answer
            .windows(4)
            .position(|part| part == b"\r\n\r\n")
            .unwrap();
        let head = String::from_utf8_lossy(&answer[..end]).to_lowercase();
        assert!(head.starts_with("http/1.1 200 "), "{method} {path}: {head}");
        let body = &answer[end + 4..];
        if head.contains("transfer-encoding: chunked") {
            unchunked(body)
        } else {
            body.to_vec()
        }
    }

    /// A phone gets the ticket, and then its new seat. Returns the phone.
    async fn try_with_a_phone(&self, ticket: &str, seat: &str) -> Phone {
        let mut phone = Phone::new(State::new().unwrap(), Client::default());
        phone.set_rules(Rules::strict());
        let added = phone
            .add(&self.call("GET", ticket, ""), None)
            .await
            .unwrap();
        assert_eq!((added.registered.len(), faults(&added)), (1, vec![]));
        let nothing = phone.sync().await.unwrap();
        assert_eq!((nothing.listed.len(), faults(&nothing)), (0, vec![]));

        self.call("POST", seat, "7");
        let changed = phone.sync().await.unwrap();
        assert_eq!((changed.updated.len(), faults(&changed)), (1, vec![]));
        phone
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

fn faults(outcome: &Outcome) -> Vec<String> {
    let complaints = outcome.complaints.iter();
    complaints.map(ToString::to_string).collect()
}

fn unchunked(mut body: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    loop {
        let end = body.windows(2).position(|part| part == b"\r\n").unwrap();
        let size = usize::from_str_radix(str::from_utf8(&body[..end]).unwrap(), 16).unwrap();
        if size == 0 {
            return whole;
        }
        whole.extend_from_slice(&body[end + 2..][..size]);
        body = &body[end + 2 + size + 2..];
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn memory() {
    let folder = tempfile::tempdir().unwrap();
    let example = Example::start(env!("CARGO_BIN_EXE_memory"), folder.path(), &[]);
    example.try_with_a_phone("/ticket", "/seat").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn database() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::find().unwrap();
    let url = server.url(&server.new_database().await.unwrap());
    let example = Example::start(env!("CARGO_BIN_EXE_database"), folder.path(), &[&url]);
    example.call("POST", "/tickets/A-1", "1");
    example
        .try_with_a_phone("/tickets/A-1", "/tickets/A-1")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pushes() {
    let folder = tempfile::tempdir().unwrap();
    let mut example = Example::start(env!("CARGO_BIN_EXE_pushes"), folder.path(), &[]);
    let phone = example.try_with_a_phone("/ticket", "/seat").await;
    let mut line = String::new();
    example.output.read_line(&mut line).unwrap();
    let token = phone.state().push_token().as_str();
    assert_eq!(
        line.trim(),
        format!("a push for pass.com.example.ticket to the phone {token}")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn device_log() {
    let folder = tempfile::tempdir().unwrap();
    let example = Example::start(env!("CARGO_BIN_EXE_device_log"), folder.path(), &[]);
    example.try_with_a_phone("/ticket", "/seat").await;
    let message = "Get pass task (pass type pass.com.example.ticket, serial number A-1, if-modified-since (null); with web \
                   service url http://localhost) encountered error: Authentication failure";
    let body = serde_json::json!({ "logs": [message] }).to_string();
    example.call("POST", "/v1/log", &body);

    let table = rusqlite::Connection::open(folder.path().join("messages.db")).unwrap();
    let read = || {
        let mut select = table
            .prepare("select serial, meaning from message")
            .unwrap();
        let rows = select
            .query_map((), |row| Ok((row.get(0)?, row.get(1)?)))
            .unwrap();
        rows.collect::<Result<Vec<(String, String)>, _>>().unwrap()
    };
    while read().is_empty() {
        std::thread::yield_now();
    }
    assert!(
        read()[0].0 == "A-1" && read()[0].1.contains("401"),
        "{:?}",
        read()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn below_a_path() {
    let folder = tempfile::tempdir().unwrap();
    let example = Example::start(env!("CARGO_BIN_EXE_below_a_path"), folder.path(), &[]);
    assert!(example.call("GET", "/", "").starts_with(b"The shop."));
    let phone = example.try_with_a_phone("/ticket", "/seat").await;
    assert!(phone.state().services()[0].url().ends_with("/wallet"));
}

#[tokio::test(flavor = "multi_thread")]
async fn object_storage() {
    let folder = tempfile::tempdir().unwrap();
    let example = Example::start(env!("CARGO_BIN_EXE_object_storage"), folder.path(), &["."]);
    example.call("POST", "/tickets/A-1", "1");
    example
        .try_with_a_phone("/tickets/A-1", "/tickets/A-1")
        .await;
}
