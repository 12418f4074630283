//! Changes reach the phones, through a local push service with real TLS.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, SystemTime},
};

use passkit_apns::local::{Answer, LocalApns, Options};
use passkit_conformance::{
    Client,
    phone::{Phone, State},
};
use passkit_test_servers::{postgres::Server, redis::Single};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::{
    archives::{pass, replace},
    metrics::{scrape, value},
    moving::registrations,
    postgres,
    program::{self, Service, authorization, eventually, passkit, registration, run},
    sqlite,
};

pub(crate) const TYPE: &str = "pass.com.example.pushed";

/// A push service, and the files that a sender needs to use it.
pub(crate) struct Local {
    pub(crate) runtime: Runtime,
    pub(crate) apns: LocalApns,
    pub(crate) folder: tempfile::TempDir,
}

impl Local {
    pub(crate) fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let apns = runtime.block_on(LocalApns::start(Options::new())).unwrap();
        Self {
            runtime,
            apns,
            folder: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, content).unwrap();
        path
    }

    /// Writes a file with a certificate and its key.
    pub(crate) fn certificate(&self, type_id: &str) -> PathBuf {
        let issued = self.apns.issue(type_id).unwrap();
        self.file(
            &format!("{type_id}.pem"),
            &(issued.certificate + &issued.key),
        )
    }

    /// Returns the options with which the program sends its pushes through this service.
    pub(crate) fn arguments(&self) -> Vec<String> {
        self.arguments_with(&self.certificate(TYPE), self.apns.port())
    }

    pub(crate) fn arguments_with(&self, certificate: &Path, port: u16) -> Vec<String> {
        let root = self.file("root.pem", self.apns.root_pem());
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        [
            "--apns-cert".into(),
            text(certificate),
            "--apns-root".into(),
            text(&root),
        ]
        .into_iter()
        .chain(["--apns-endpoint".into(), format!("127.0.0.1:{port}")])
        .chain(["--push-spacing".into(), "0.1".into()])
        .collect()
    }

    /// Returns how many pushes each token got since then.
    pub(crate) fn pushed(&self, since: SystemTime) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for push in self
            .apns
            .pushes()
            .into_iter()
            .filter(|push| push.at >= since)
        {
            assert_eq!(push.topic, TYPE);
            *counts.entry(push.token).or_default() += 1;
        }
        counts
    }

    pub(crate) fn no_violation(&self) {
        assert_eq!(self.apns.violations(), Vec::<String>::new());
    }
}

/// Returns a push token of 64 digits.
pub(crate) fn token(number: usize) -> String {
    format!("{number:064x}")
}

pub(crate) fn register(service: &Service, device: &str, token: &str, serial: &str) {
    let path = registration(device, TYPE, serial);
    let body = json!({ "pushToken": token }).to_string();
    let headers = [("Authorization", &*authorization(TYPE, serial))];
    assert_eq!(
        service
            .send("POST", &path, &headers, body.as_bytes())
            .status,
        201
    );
}

pub(crate) const METRICS: [&str; 2] = ["--metrics", "127.0.0.1:0"];

/// Waits until no push is pending. The first start makes some pending, although no phone is
/// registered.
pub(crate) fn quiet(service: &Service) {
    eventually("no push is pending", || pending(service) == Some(0.0));
}

fn pending(service: &Service) -> Option<f64> {
    value(&scrape(service), "passkit_pending_changes")
}

#[test]
fn a_changed_file_is_pushed_listed_and_fetched() {
    let local = Local::start();
    let mut service = Service::alone().given(&local.arguments()).given(&METRICS);
    let (file, other) = (
        service.passes().join("a.pkpass"),
        service.passes().join("b.pkpass"),
    );
    let (one, two) = (pass(TYPE, "A-1", "one"), pass(TYPE, "A-1", "two"));
    fs::write(&file, &one).unwrap();
    fs::write(&other, pass("pass.com.example.uncertified", "B-1", "one")).unwrap();
    service.start();
    eventually(
        "there is a warning about a type without certificate",
        || service.said().contains("no certificate is for this type"),
    );
    let warned = service.said();
    assert!(
        warned.contains("pass.com.example.uncertified") && !warned.contains(&format!("{TYPE}:")),
        "{warned}"
    );

    quiet(&service);
    let mut phones: Vec<Phone> = (0..3)
        .map(|_| Phone::new(State::new().unwrap(), Client::default()))
        .collect();
    for phone in &mut phones {
        let added = local
            .runtime
            .block_on(phone.add(&one, Some(&service.url())))
            .unwrap();
        assert!(added.complaints.is_empty(), "{:?}", added.complaints);
    }
    let changed = SystemTime::now();
    replace(&file, &two);
    eventually("each phone gets a push", || {
        local.pushed(changed).len() == phones.len()
    });
    // The phone gets the change at once when the push comes.
    for phone in &mut phones {
        assert_eq!(
            local
                .pushed(changed)
                .get(phone.state().push_token().as_str()),
            Some(&1)
        );
        let outcome = local.runtime.block_on(phone.sync()).unwrap();
        assert_eq!(outcome.updated.len(), 1, "{:?}", outcome.complaints);
    }
    assert!(service.get(TYPE, "A-1", None).body == two);
    let text = scrape(&service);
    assert_eq!(
        value(&text, r#"passkit_pushes_total{outcome="sent"}"#),
        Some(3.0),
        "{text}"
    );
    assert!(
        phones
            .iter()
            .all(|phone| !text.contains(phone.state().push_token().as_str()))
    );
    quiet(&service);
    local.no_violation();
}

#[test]
fn pushes_wait_for_a_push_service_that_is_away() {
    let local = Local::start();
    let away = local.arguments_with(&local.certificate(TYPE), 1);
    let mut service = Service::new().given(&away).given(&METRICS);
    let file = service.passes().join("a.pkpass");
    fs::write(&file, pass(TYPE, "A-1", "one")).unwrap();
    service.start();
    register(&service, "D-1", &token(1), "A-1");
    let (_, tag) = service.list("D-1", TYPE, None).unwrap();
    replace(&file, &pass(TYPE, "A-1", "two"));
    eventually("the change is listed", || {
        service.list("D-1", TYPE, Some(&tag)).is_some()
    });
    register(&service, "D-2", &token(2), "A-1");
    eventually("the push is pending", || pending(&service) == Some(1.0));
    assert_eq!(service.stop("TERM").code(), Some(0));

    let mut service = service.sibling_with(&local.arguments());
    service.start();
    eventually("the phone gets a push", || {
        local.pushed(SystemTime::UNIX_EPOCH).contains_key(&token(1))
    });
    local.no_violation();
}

#[test]
fn instances_over_sqlite_share_one_queue() {
    let folder = tempfile::tempdir().unwrap();
    instances_share_one_queue(&sqlite::url(folder.path(), "passkit.db"));
}

#[test]
fn instances_over_postgres_share_one_queue() {
    instances_share_one_queue(&postgres::migrated());
}

#[test]
fn instances_over_redis_share_one_queue() {
    let server = Single::start().unwrap();
    instances_share_one_queue(server.url());
}

fn instances_share_one_queue(store: &str) {
    let local = Local::start();
    let mut one = Service::over(store)
        .given(&local.arguments())
        .given(&METRICS);
    let file = one.passes().join("a.pkpass");
    fs::write(&file, pass(TYPE, "A-1", "0")).unwrap();
    let mut two = one.sibling();
    one.start();
    two.start();
    quiet(&one);
    let devices = 25;
    for device in 0..devices {
        let service = if device % 2 == 0 { &one } else { &two };
        register(service, &format!("D-{device}"), &token(device), "A-1");
    }
    for version in 1..=5 {
        let changed = SystemTime::now();
        replace(&file, &pass(TYPE, "A-1", &version.to_string()));
        eventually("all phones get a push", || {
            local.pushed(changed).len() == devices
        });
        std::thread::sleep(Duration::from_millis(1200));
        let pushed = local.pushed(changed);
        assert!(
            pushed.values().all(|times| *times == 1),
            "pushed more than once: {pushed:?}"
        );
    }
    // One instance is killed, and the other one sends the pushes.
    one.kill();
    let changed = SystemTime::now();
    replace(&file, &pass(TYPE, "A-1", "last"));
    eventually("all phones get a push", || {
        local.pushed(changed).len() == devices
    });
    local.no_violation();
}

fn rounds() -> u64 {
    std::env::var("PASSKIT_CRASH_ROUNDS")
        .map_or(20, |rounds| rounds.parse().expect("PASSKIT_CRASH_ROUNDS"))
}

#[test]
fn a_change_is_pushed_whenever_the_service_is_killed() {
    let local = Local::start();
    let mut service = Service::new().given(&local.arguments());
    let file = service.passes().join("a.pkpass");
    fs::write(&file, pass(TYPE, "A-1", "0")).unwrap();
    service.start();
    let devices = 5;
    let mut tags = Vec::new();
    for device in 0..devices {
        register(&service, &format!("D-{device}"), &token(device), "A-1");
        tags.push(service.list(&format!("D-{device}"), TYPE, None).unwrap().1);
    }
    for round in 1..=rounds() {
        let content = pass(TYPE, "A-1", &round.to_string());
        let changed = SystemTime::now();
        replace(&file, &content);
        // Some kills come before the change is noticed, which takes 100 ms, and some after all
        // pushes are sent.
        std::thread::sleep(Duration::from_millis(60 + round * 53 % 240));
        service.kill();
        service.start();
        eventually("all phones get a push", || {
            local.pushed(changed).len() == devices
        });
        for (device, tag) in tags.iter_mut().enumerate() {
            let listed = service.list(&format!("D-{device}"), TYPE, Some(tag));
            let (serials, newer) =
                listed.unwrap_or_else(|| panic!("round {round}: the change was lost"));
            assert_eq!(serials, ["A-1"]);
            *tag = newer;
        }
        assert!(
            service.get(TYPE, "A-1", None).body == content,
            "round {round}: old content"
        );
    }
    local.no_violation();
}

const ADMIN: &str = "an-admin-token-for-tests";
const PUBLISH: &str = "/admin/v1/publish";

fn publish(address: &str, token: &str, body: &str) -> (u16, Value) {
    let headers = [("Authorization", &*format!("Bearer {token}"))];
    let answer = program::send(address, "POST", PUBLISH, &headers, body.as_bytes()).unwrap();
    (answer.status, answer.json())
}

#[test]
fn another_program_publishes() {
    let local = Local::start();
    let mut service = Service::alone()
        .given(&local.arguments())
        .given(&["--admin-token", ADMIN])
        .given(&METRICS);
    fs::write(service.passes().join("a.pkpass"), pass(TYPE, "A-1", "one")).unwrap();
    fs::write(service.passes().join("b.pkpass"), pass(TYPE, "B-1", "one")).unwrap();
    service.start();
    let address = service.address();
    quiet(&service);
    register(&service, "D-1", &token(1), "A-1");
    register(&service, "D-2", &token(2), "B-1");

    let named =
        json!({ "passes": [{ "type": TYPE, "serial": "A-1" }, { "type": TYPE, "serial": "A-1" }] });
    let since = SystemTime::now();
    assert_eq!(
        publish(&address, ADMIN, &named.to_string()),
        (202, json!({ "pending": 1 }))
    );
    eventually("the one phone gets a push", || {
        local.pushed(since).contains_key(&token(1))
    });
    assert!(!local.pushed(since).contains_key(&token(2)));
    let since = SystemTime::now();
    let all = json!({ "type": TYPE, "all": true }).to_string();
    assert_eq!(
        publish(&address, ADMIN, &all),
        (202, json!({ "pending": 1 }))
    );
    eventually("both phones get a push", || local.pushed(since).len() == 2);

    // The passes have several types, in any order. No instance can send the pushes of the other
    // type.
    let other = "pass.com.example.uncertified";
    let named = [(TYPE, "B-1"), (other, "C-1"), (TYPE, "A-1"), (other, "C-2")];
    let named = named.map(|(type_id, serial)| json!({ "type": type_id, "serial": serial }));
    let since = SystemTime::now();
    let (status, told) = publish(&address, ADMIN, &json!({ "passes": named }).to_string());
    assert_eq!((status, &told["pending"]), (202, &json!(2)), "{told}");
    assert!(
        told["note"].as_str().unwrap().contains("no push is sent"),
        "{told}"
    );
    eventually("both phones get a push", || local.pushed(since).len() == 2);

    let many = vec![json!({ "type": TYPE, "serial": "A" }); 10_001];
    for (token, body, status) in [
        ("", all.as_str(), 401),
        ("an-admin-token-for-testS", &all, 401),
        ("an-admin-token-for-test", &all, 401),
        (ADMIN, "", 400),
        (ADMIN, "{}", 400),
        (ADMIN, r#"{"type":"pass.a","all":false}"#, 400),
        (ADMIN, r#"{"type":"nothing","all":true}"#, 400),
        (
            ADMIN,
            r#"{"passes":[{"type":"pass.a","serial":"A","more":1}]}"#,
            400,
        ),
        (ADMIN, &json!({ "passes": many }).to_string(), 413),
        (ADMIN, &" ".repeat(1024 * 1024 + 1), 413),
    ] {
        let (got, told) = publish(&address, token, body);
        assert_eq!(got, status, "{told}");
        assert!(
            told["error"]
                .as_str()
                .is_some_and(|line| !line.contains('\n')),
            "{told}"
        );
    }
    assert_eq!(service.send("POST", PUBLISH, &[], b"{}").status, 401);
    let bearer = format!("Bearer {ADMIN}");
    assert_eq!(
        service
            .send("GET", PUBLISH, &[("Authorization", &bearer)], b"")
            .status,
        405
    );
    local.no_violation();
}

#[test]
fn publishing_without_a_certificate_marks_passes() {
    let mut service =
        Service::alone().given(&["--admin-token", ADMIN, "--admin-listen", "127.0.0.1:0"]);
    fs::write(service.passes().join("a.pkpass"), pass(TYPE, "A-1", "one")).unwrap();
    service.start();
    register(&service, "D-1", &token(1), "A-1");
    let (_, tag) = service.list("D-1", TYPE, None).unwrap();
    let bearer = format!("Bearer {ADMIN}");
    assert_eq!(
        service
            .send("POST", PUBLISH, &[("Authorization", &bearer)], b"{}")
            .status,
        404
    );
    eventually("the address is logged", || service.said().contains(PUBLISH));
    let said = service.said();
    let (_, address) = said
        .split_once("publish at http://")
        .unwrap_or_else(|| panic!("{said}"));
    let body = json!({ "passes": [{ "type": TYPE, "serial": "A-1" }] }).to_string();
    let (status, told) = publish(address.split('/').next().unwrap(), ADMIN, &body);
    assert_eq!((status, &told["pending"]), (202, &json!(0)));
    assert!(
        told["note"].as_str().unwrap().contains("no push is sent"),
        "{told}"
    );
    assert!(service.list("D-1", TYPE, Some(&tag)).is_some());

    let (code, _, said) = run(service.command().args(["--admin-token", "short"]));
    assert_eq!((code, said.lines().count()), (Some(2), 1), "{said}");
    assert!(
        said.contains("--admin-token") && !said.contains("short"),
        "{said}"
    );
}

#[test]
fn an_unavailable_store_is_reported_to_the_publisher() {
    let server = Server::throwaway(&[]).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let url = server.url(&runtime.block_on(server.new_database()).unwrap());
    assert_eq!(run(passkit().args(["migrate", "--store", &url])).0, Some(0));
    let mut service = Service::over(&url).given(&["--admin-token", ADMIN]);
    service.start();
    let all = json!({ "type": TYPE, "all": true }).to_string();
    let (status, told) = publish(&service.address(), ADMIN, &all);
    assert_eq!((status, &told["pending"]), (202, &json!(1)));
    assert!(
        told["note"]
            .as_str()
            .unwrap()
            .contains("wait for an instance"),
        "{told}"
    );
    server.kill().unwrap();
    let (status, told) = publish(&service.address(), ADMIN, &all);
    assert_eq!(status, 503, "{told}");
}

fn push(store: &str, arguments: &[String], what: &[&str]) -> (Option<i32>, String, String) {
    run(passkit()
        .args(["push", "--store", store])
        .args(arguments)
        .args(what))
}

#[test]
fn a_command_pushes_to_the_phones_of_a_store() {
    const MOVED: &str = "pass.com.example.moved";
    let local = Local::start();
    let store = format!("sled:{}", local.folder.path().join("store").display());
    let file = registrations(local.folder.path().join("a.csv"), 900);
    assert_eq!(
        run(passkit()
            .args(["import", "--store", &store, "--from"])
            .arg(&file))
        .0,
        Some(0)
    );
    let arguments = local.arguments_with(&local.certificate(MOVED), local.apns.port());

    // A phone with three registrations gets one push.
    let (code, out, said) = push(&store, &arguments, &[MOVED, "--all"]);
    assert_eq!(
        (code, out.lines().next()),
        (Some(0), Some("300 sent, 600 coalesced")),
        "{said}"
    );
    assert_eq!(local.apns.pushes().len(), 300);
    let (code, out, said) = push(
        &store,
        &arguments,
        &[MOVED, "M-00000000", "M-00000003", "unknown"],
    );
    assert_eq!((code, &*out), (Some(0), "2 sent\n"), "{said}");

    local
        .apns
        .answer_token(&token(1), Answer::refuse(400, "BadDeviceToken"));
    let (code, out, _) = push(&store, &arguments, &[MOVED, "M-00000000", "M-00000003"]);
    assert_eq!(
        (code, &*out),
        (Some(1), "1 sent, 1 failed (BadDeviceToken)\n")
    );

    // A phone with another wallet can't get a push. The command still succeeds.
    let other = local.file(
        "other.csv",
        &format!("D-OTHER,6F9619FF-8B86-D011,{MOVED},M-00000006\n"),
    );
    assert_eq!(
        run(passkit()
            .args(["import", "--store", &store, "--from"])
            .arg(&other))
        .0,
        Some(0)
    );
    let (code, out, said) = push(&store, &arguments, &[MOVED, "M-00000006"]);
    assert_eq!(
        (code, &*out),
        (Some(0), "1 sent, 1 not reachable by APNs\n"),
        "{said}"
    );

    // The push service can't be reached. The push stays pending, and the next run sends it.
    let away = local.arguments_with(&local.certificate(MOVED), 1);
    let (code, _, said) = push(&store, &away, &[MOVED, "M-00000006"]);
    assert!(
        code == Some(1) && said.contains("the remaining pushes wait"),
        "{said}"
    );
    let since = SystemTime::now();
    let (code, out, said) = push(&store, &arguments, &[MOVED, "unknown"]);
    assert_eq!(
        (code, &*out),
        (Some(0), "1 sent, 1 not reachable by APNs\n"),
        "{said}"
    );
    assert!(
        local
            .apns
            .pushes()
            .iter()
            .any(|push| push.at >= since && push.token == token(2))
    );

    for (arguments, what, mention) in [
        (&[][..], [MOVED, "A"], "--apns-cert"),
        (
            &arguments[..],
            ["pass.com.example.other", "A"],
            "no certificate is for pass.com.example.other, so nothing was marked; name its certificate with --apns-cert",
        ),
        (&arguments[..], ["nothing", "A"], "nothing"),
    ] {
        let (code, _, said) = push(&store, arguments, &what);
        assert_eq!((code, said.lines().count()), (Some(2), 1), "{said}");
        assert!(said.contains(mention), "{said}");
    }
}

#[test]
fn an_interrupted_command_leaves_the_rest_to_the_next() {
    let local = Local::start();
    let store = postgres::migrated();
    let mut service = Service::over(&store);
    fs::write(service.passes().join("a.pkpass"), pass(TYPE, "A-1", "0")).unwrap();
    service.start();
    register(&service, "D-1", &token(1), "A-1");
    local.apns.answer_token(&token(1), Answer::stall());
    let mut command = passkit();
    command
        .args(["push", "--store", &store])
        .args(local.arguments())
        .args([TYPE, "A-1"]);
    let running = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    eventually("a push is on its way", || {
        !local.pushed(SystemTime::UNIX_EPOCH).is_empty()
    });
    assert!(
        Command::new("kill")
            .args(["-INT", &running.id().to_string()])
            .status()
            .unwrap()
            .success()
    );
    let output = running.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        output.status.code() == Some(1)
            && said.contains("the next run, or passkit serve, sends the remaining pushes"),
        "{said}"
    );

    local.apns.answer_normally();
    let since = SystemTime::now();
    let (code, _, said) = push(&store, &local.arguments(), &[TYPE, "unknown"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(local.pushed(since).contains_key(&token(1)));
    local.no_violation();
}

#[test]
fn a_command_waits_for_an_instance_that_sends() {
    let local = Local::start();
    let store = postgres::migrated();
    let mut service = Service::over(&store).given(&local.arguments());
    let file = service.passes().join("a.pkpass");
    fs::write(&file, pass(TYPE, "A-1", "0")).unwrap();
    service.start();
    register(&service, "D-1", &token(1), "A-1");
    local
        .apns
        .answer_next(1, Answer::accept().after(Duration::from_secs(15)));
    replace(&file, &pass(TYPE, "A-1", "1"));
    eventually("a push is on its way", || {
        !local.pushed(SystemTime::UNIX_EPOCH).is_empty()
    });
    let (code, _, said) = push(&store, &local.arguments(), &[TYPE, "A-1"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("another instance sends"), "{said}");
    local.no_violation();
}
