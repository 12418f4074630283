//! `passkit bench`, against `passkit serve` and against services that stall, fail and die.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    archives::{order, token_of, unsigned},
    program::{Service, eventually, passkit, run},
};

const TYPE: &str = "pass.com.example.load";
const ORDERS: &str = "order.com.example.load";

fn bench(url: &str, arguments: &[&str]) -> Command {
    let mut command = passkit();
    command.args(["bench", "--url", url]).args(arguments);
    command
}

/// Runs the command. Returns its exit code, its JSON and its stderr.
fn result(command: &mut Command) -> (Option<i32>, Value, String) {
    let (code, stdout, stderr) = run(command);
    let json =
        serde_json::from_str(&stdout).unwrap_or_else(|_| panic!("no JSON: {stdout}\n{stderr}"));
    (code, json, stderr)
}

fn refused(command: &mut Command, mention: &[&str]) {
    let (code, stdout, stderr) = run(command);
    assert_eq!(
        (code, &*stdout, stderr.lines().count()),
        (Some(2), "", 1),
        "{stderr}"
    );
    for word in mention {
        assert!(stderr.contains(word), "{word:?} is not in {stderr}");
    }
}

/// Starts a service with five passes and an order.
fn service() -> Service {
    let mut service = Service::with_arguments(&["--allow-unsigned"]).logging("debug");
    for number in 0..5 {
        let archive = unsigned(TYPE, &format!("A/{number}"), "one");
        fs::write(service.passes().join(format!("{number}.pkpass")), archive).unwrap();
    }
    fs::write(service.orders().join("o.order"), order(ORDERS, "O", "one")).unwrap();
    service.start();
    service
}

fn with_folders(mut command: Command, service: &Service) -> Command {
    command
        .arg("--passes")
        .arg(service.passes())
        .arg("--orders")
        .arg(service.orders());
    command
}

/// Returns how many registrations the store of a service has. The service must not be running.
pub(crate) fn registrations(service: &Service) -> Value {
    let store = service.store_url().to_owned();
    let (code, stdout, stderr) = run(passkit().args(["stats", "--json", "--store", &store]));
    assert_eq!(code, Some(0), "{stderr}");
    serde_json::from_str::<Value>(&stdout).unwrap()["registrations"].clone()
}

/// Writes a target file with one pass.
fn target_file(folder: &Path) -> String {
    let path = folder.join("target.toml");
    let token = token_of(TYPE, "A");
    fs::write(
        &path,
        format!("[[passes]]\ntype = {TYPE:?}\nserial = \"A\"\ntoken = {token:?}\n"),
    )
    .unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn every_call_occurs_and_nothing_is_left() {
    let mut service = service();
    let command = bench(
        &service.url(),
        &["--devices", "100", "--duration", "2", "--rate", "200"],
    );
    let mut command = with_folders(command, &service);
    let (code, json, said) = result(&mut command);
    assert_eq!(code, Some(0), "{json:#}\n{said}");
    assert_eq!(json["url"], service.url());
    for (key, expected) in [
        ("devices", 100),
        ("passes", 6),
        ("connections", 64),
        ("rate", 200),
    ] {
        assert_eq!(
            json[key].as_f64(),
            Some(f64::from(expected)),
            "{key}: {json:#}"
        );
    }
    // Every second phone holds the order. The others hold three passes each.
    assert_eq!(
        (
            &json["registering"]["phones"],
            &json["registering"]["registrations"]
        ),
        (&100.into(), &200.into())
    );
    assert!(json["registering"]["latency_ms"]["p50"].as_f64().unwrap() > 0.0);

    let visits = &json["visits"];
    assert_eq!(
        (&visits["due"], &visits["failed"], &visits["corrected"]),
        (&400.into(), &0.into(), &true.into())
    );
    let number = |value: &Value| {
        value
            .as_f64()
            .unwrap_or_else(|| panic!("no number in {json:#}"))
    };
    assert_eq!(
        number(&visits["done"]) + number(&visits["not_begun"]),
        400.0,
        "{json:#}"
    );
    assert!(
        (1.9..10.0).contains(&number(&json["duration_seconds"])),
        "{json:#}"
    );
    let calls = json["calls"].as_object().unwrap();
    let kinds: Vec<&str> = calls.keys().map(String::as_str).collect();
    let all = [
        "get 200",
        "get 304",
        "list 200",
        "list 204",
        "register 200",
        "register 201",
        "unregister 200",
    ];
    assert_eq!(kinds, all, "{json:#}");
    for latency in calls
        .values()
        .map(|call| &call["latency_ms"])
        .chain([&visits["latency_ms"]])
    {
        let times: Vec<f64> = ["p50", "p90", "p99", "p99_9", "max"]
            .iter()
            .map(|key| number(&latency[*key]))
            .collect();
        assert!(times[0] > 0.0 && times.is_sorted(), "{json:#}");
    }
    // Of twenty visits, one removes a pass and adds it again, and five are quiet. All others have
    // something to fetch. After a new push token, this service lists the passes again, because
    // registering lists them.
    if visits["done"] == 400 {
        assert_eq!(calls["unregister 200"]["count"], 20, "{json:#}");
        assert_eq!(calls["register 201"]["count"], 20, "{json:#}");
        assert_eq!(
            number(&calls["list 200"]["count"]) + number(&calls["list 204"]["count"]),
            400.0
        );
        assert_eq!(calls["list 204"]["count"], 100, "{json:#}");
    }
    assert!(number(&json["bytes_received"]) > 10_000.0);
    assert_eq!(
        (&json["errors"], &json["left_registered"]),
        (&serde_json::json!({}), &0.into())
    );
    assert!(
        said.contains("visits, from when due") && said.contains("no errors"),
        "{said}"
    );
    service.kill();
    assert_eq!(registrations(&service), 0);
}

#[test]
fn phones_can_stay_registered_and_throughput_can_be_measured() {
    let mut service = service();
    fs::write(service.passes().join("broken.pkpass"), "broken").unwrap();
    let mut command = bench(
        &service.url(),
        &[
            "--devices",
            "10",
            "--duration",
            "0.5",
            "--rate",
            "max",
            "--keep",
        ],
    );
    // Without an option, the folder is ./passes.
    command.current_dir(service.folder.path());
    let (code, json, said) = result(&mut command);
    assert_eq!(code, Some(0), "{json:#}\n{said}");
    assert_eq!(
        (&json["rate"], &json["visits"]["corrected"]),
        (&"max".into(), &false.into())
    );
    assert_eq!(
        (&json["visits"]["not_begun"], &json["visits"]["done"]),
        (&0.into(), &json["visits"]["due"])
    );
    assert_eq!(
        (&json["connections"], &json["left_registered"]),
        (&10.into(), &30.into())
    );
    assert!(
        said.contains("broken.pkpass: ") && said.contains("; left out"),
        "{said}"
    );
    assert!(said.contains("visits, not corrected"), "{said}");
    service.kill();
    assert_eq!(registrations(&service), 30);
}

#[test]
fn a_bench_that_cannot_run_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let target = target_file(folder.path());
    let here = "http://127.0.0.1:9";
    refused(
        &mut bench("http://192.0.2.1:8080", &["--target", &target]),
        &[
            "http://192.0.2.1:8080",
            "not this machine",
            "--yes-i-own-this",
        ],
    );
    refused(
        bench(here, &[]).current_dir(folder.path()),
        &["./passes", "--passes DIR", "--target FILE.toml"],
    );
    refused(
        bench(here, &["--passes", "."]).current_dir(folder.path()),
        &["--passes DIR"],
    );
    refused(
        &mut bench(here, &["--passes", "/no/such/folder"]),
        &["/no/such/folder"],
    );
    refused(
        &mut bench(here, &["--target", "/no/such/file.toml"]),
        &["/no/such/file.toml"],
    );
    // Nothing listens on port 1, and no other test gets this port by chance.
    let closed = "http://127.0.0.1:1";
    refused(
        &mut bench(closed, &["--target", &target]),
        &[closed, "connection refused", "running?"],
    );
    refused(
        &mut bench("here", &["--target", &target]),
        &["--url", "here"],
    );
    refused(
        &mut bench(here, &["--target", &target, "--rate", "fast"]),
        &["--rate"],
    );
}

/// A service in this process that answers as phones expect, for one pass. A test can make it slower
/// or faulty.
struct Pretender {
    address: String,
    requests: Arc<AtomicUsize>,
}

/// What a [`Pretender`] does with a request. It gets the request's number, and the correct answer.
type Twist = dyn Fn(usize, String) -> Option<String> + Send + Sync;

impl Pretender {
    fn start(twist: impl Fn(usize, String) -> Option<String> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let requests = Arc::new(AtomicUsize::new(0));
        let (twist, counter): (Arc<Twist>, _) = (Arc::new(twist), requests.clone());
        thread::spawn(move || {
            let registered = Arc::new(Mutex::new(Vec::new()));
            for stream in listener.incoming().map_while(Result::ok) {
                let (twist, counter, registered) =
                    (twist.clone(), counter.clone(), registered.clone());
                thread::spawn(move || answer_all(stream, &*twist, &counter, &registered));
            }
        });
        Self { address, requests }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

fn answer_all(
    stream: TcpStream,
    twist: &Twist,
    counter: &AtomicUsize,
    registered: &Mutex<Vec<String>>,
) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut writer = stream;
    loop {
        let (mut lines, mut length) = (Vec::new(), 0);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            let line = line.trim().to_ascii_lowercase();
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            if line.is_empty() {
                break;
            }
            lines.push(line);
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let path = lines[0].split(' ').nth(1).unwrap().to_owned();
        let answer = if lines[0].starts_with("post") {
            let mut registered = registered.lock().unwrap();
            if registered.contains(&path) {
                "200 OK\r\ncontent-length: 0\r\n\r\n"
            } else {
                registered.push(path);
                "201 Created\r\ncontent-length: 0\r\n\r\n"
            }
        } else if lines[0].starts_with("delete") {
            registered.lock().unwrap().retain(|one| *one != path);
            "200 OK\r\ncontent-length: 0\r\n\r\n"
        } else if path.contains("/devices/") && path.contains('?') {
            "204 No Content\r\n\r\n"
        } else if path.contains("/devices/") {
            "200 OK\r\ncontent-length: 42\r\n\r\n{\"serialNumbers\":[\"A\"],\"lastUpdated\":\"1\"}  "
        } else if lines
            .iter()
            .any(|line| line.starts_with("if-modified-since: ") && !line.contains("2000"))
        {
            "304 Not Modified\r\n\r\n"
        } else {
            "200 OK\r\nlast-modified: Fri, 18 Sep 2026 08:00:41 GMT\r\ncontent-length: 4\r\n\r\npass"
        };
        let number = counter.fetch_add(1, Ordering::Relaxed);
        let Some(answer) = twist(number, answer.to_owned()) else {
            return;
        };
        if writer
            .write_all(format!("HTTP/1.1 {answer}").as_bytes())
            .is_err()
        {
            return;
        }
    }
}

#[test]
fn a_stall_is_seen_in_all_visits_that_it_delays() {
    let folder = tempfile::tempdir().unwrap();
    let target = target_file(folder.path());
    let stall: Arc<Mutex<Option<Instant>>> = Arc::default();
    // The first 60 requests are for registering. Then there are some visits, then nothing for a
    // second.
    let service = Pretender::start(move |number, answer| {
        let mut stall = stall.lock().unwrap();
        if number == 90 {
            *stall = Some(Instant::now() + Duration::from_secs(1));
        }
        let wait = stall.map(|end| end.saturating_duration_since(Instant::now()));
        drop(stall);
        thread::sleep(wait.unwrap_or_default());
        Some(answer)
    });
    let arguments = [
        "--devices",
        "20",
        "--connections",
        "2",
        "--duration",
        "3",
        "--rate",
        "40",
        "--target",
        &target,
    ];
    let (code, json, said) = result(&mut bench(&service.url(), &arguments));
    assert_eq!(code, Some(0), "{json:#}\n{said}");
    let visits = &json["visits"];
    assert_eq!(visits["due"], 120);
    // A third of the visits were due during the stall, but only two calls were in progress.
    let latency = |key: &str| visits["latency_ms"][key].as_f64().unwrap();
    assert!(latency("p90") > 400.0 && latency("max") > 900.0, "{json:#}");
    let calls = &json["calls"];
    for kind in ["list 200", "get 200"] {
        let p90 = calls[kind]["latency_ms"]["p90"].as_f64().unwrap();
        assert!(p90 < latency("p90") / 2.0, "{kind}: {json:#}");
    }
}

#[test]
fn errors_are_counted_by_kind() {
    const NOTHING: &str = "500 Internal Server Error\r\ncontent-length: 0\r\n\r\n";
    let folder = tempfile::tempdir().unwrap();
    let target = target_file(folder.path());
    let run = |twist: fn(usize, String) -> Option<String>, more: &[&str]| {
        let service = Pretender::start(twist);
        let arguments = [
            "--devices",
            "4",
            "--duration",
            "0.4",
            "--rate",
            "100",
            "--target",
            &target,
        ];
        let (code, json, said) = result(bench(&service.url(), &arguments).args(more));
        assert_eq!(code, Some(1), "{json:#}\n{said}");
        assert!(service.requests.load(Ordering::Relaxed) > 0);
        let counts: Vec<String> = json["errors"]
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect();
        (counts, json, said)
    };
    // The first 12 requests are for registering: each phone registers, lists and fetches.
    let (kinds, json, said) = run(|_, _| Some(NOTHING.to_owned()), &[]);
    assert_eq!(
        kinds,
        ["status 500 on register", "status 500 on unregister"]
    );
    assert_eq!(
        (&json["visits"], &json["errors"][&kinds[0]]),
        (&Value::Null, &4.into()),
        "{json:#}"
    );
    assert!(said.contains("no phone could register"), "{said}");

    let (kinds, json, _) = run(
        |number, answer| {
            Some(if number < 12 {
                answer
            } else {
                NOTHING.to_owned()
            })
        },
        &[],
    );
    assert!(
        kinds.contains(&"status 500 on list".to_owned()),
        "{kinds:?}"
    );
    let [done, failed, not_begun] =
        ["done", "failed", "not_begun"].map(|visits| json["visits"][visits].as_u64().unwrap());
    // If the machine stands still at the end, some visits never start.
    assert_eq!((done, failed + not_begun), (0, 40), "{json:#}");
    assert!(
        failed > 0 && (json["visits"]["latency_ms"]["max"] == Value::Null || not_begun > 0),
        "{json:#}"
    );

    let (kinds, ..) = run(|_, answer| Some(answer.replace("\"1\"", "1  ")), &[]);
    assert!(kinds.contains(&"malformed list".to_owned()), "{kinds:?}");
    let (kinds, ..) = run(
        |_, answer| Some(answer.replace("last-modified", "modified")),
        &[],
    );
    assert!(
        kinds.contains(&"get answer without Last-Modified".to_owned()),
        "{kinds:?}"
    );
    let (kinds, ..) = run(
        |_, answer| Some(answer.replace("201 Created", "200 OK")),
        &[],
    );
    assert_eq!(
        kinds,
        ["status 200 on register although it is not registered yet"]
    );
    let (kinds, ..) = run(|_, answer| Some(answer.replace("[\"A\"]", "[\"B\"]")), &[]);
    assert!(
        kinds.contains(&"list of a pass that the phone does not have".to_owned()),
        "{kinds:?}"
    );
    let (kinds, ..) = run(|number, answer| (number < 12).then_some(answer), &[]);
    assert!(
        kinds.contains(&"connection closed on list".to_owned()),
        "{kinds:?}"
    );
    let slow = |number, answer| {
        thread::sleep(Duration::from_secs(if number < 12 { 0 } else { 10 }));
        Some(answer)
    };
    let (kinds, ..) = run(slow, &["--timeout", "2"]);
    assert!(kinds.contains(&"timeout on list".to_owned()), "{kinds:?}");
}

/// Runs the command, and does something when phones have begun to make visits.
fn during_visits(
    command: &mut Command,
    service: &mut Service,
    action: impl FnOnce(u32, &mut Service),
) -> (Option<i32>, Value) {
    let mut process = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(process.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("registered in") {
        assert_ne!(said.read_line(&mut line).unwrap(), 0, "{line}");
    }
    // The log may show list calls of registering a little later, so 20 more are awaited.
    let lists = |service: &Service| service.said().matches(" list{").count();
    let before = lists(service);
    eventually("phones make visits", || lists(service) > before + 20);
    action(process.id(), service);
    said.read_to_string(&mut line).unwrap();
    let output = process.wait_with_output().unwrap();
    (
        output.status.code(),
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("no JSON: {line}")),
    )
}

#[test]
fn a_service_that_dies_is_reported_at_the_end() {
    let mut service = service();
    let arguments = ["--devices", "20", "--duration", "5", "--rate", "100"];
    let mut command = with_folders(bench(&service.url(), &arguments), &service);
    let (code, json) = during_visits(&mut command, &mut service, |_, service| service.kill());
    assert_eq!(code, Some(1), "{json:#}");
    let visits = &json["visits"];
    assert!(
        visits["due"] == 500 && visits["done"].as_u64() > Some(0),
        "{json:#}"
    );
    assert!(
        json["errors"]["connection refused"].as_u64() > Some(0),
        "{json:#}"
    );
    assert!(
        json["left_registered"].as_u64() > Some(0) && json["interrupted"] == false,
        "{json:#}"
    );
}

#[test]
fn an_interrupt_ends_it_early_with_a_report() {
    let mut service = service();
    let arguments = ["--devices", "20", "--duration", "3600", "--rate", "100"];
    let mut command = with_folders(bench(&service.url(), &arguments), &service);
    let (code, json) = during_visits(&mut command, &mut service, |id, _| {
        assert!(
            Command::new("kill")
                .args(["-INT", &id.to_string()])
                .status()
                .unwrap()
                .success()
        );
    });
    assert_eq!(code, Some(0), "{json:#}");
    assert_eq!(
        (&json["interrupted"], &json["left_registered"]),
        (&true.into(), &0.into()),
        "{json:#}"
    );
    assert!(json["visits"]["done"].as_u64() > Some(0), "{json:#}");
    service.kill();
    assert_eq!(registrations(&service), 0);
}
