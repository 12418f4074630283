//! Instances that are stopped and started one after the other, while phones use the service.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    process::Command,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use serde_json::json;

use crate::{
    archives::pass,
    health::ready,
    https::Certificates,
    metrics, postgres,
    program::{Service, authorization, eventually, registration, send},
    proxies::{free_port, nginx},
    push::{METRICS, TYPE},
};

const ADMIN_TOKEN: &str = "an-admin-token-of-the-fleet";
const SERIALS: [&str; 4] = ["S0", "S1", "S2", "S3"];
const WORKERS: usize = 4;
/// How often each instance is restarted.
const ROUNDS: usize = 3;

/// Makes two instances over one database and one folder, and their addresses as nginx needs them.
fn two_instances(is_socket: bool) -> [(Service, String); 2] {
    let first = Service::over(&postgres::migrated());
    for serial in SERIALS {
        let file = first.passes().join(format!("{serial}.pkpass"));
        fs::write(file, pass(TYPE, serial, "one")).unwrap();
    }
    [first.sibling(), first].map(|instance| {
        let address = if is_socket {
            // Both share a folder, so the name has the address of this value.
            let name = format!("{}.sock", free_port("127.0.0.1"));
            format!("unix:{}", instance.folder.path().join(name).display())
        } else {
            // No other test listens at this address, so the port is still free after a restart.
            format!("127.0.0.2:{}", free_port("127.0.0.2"))
        };
        let options = ["--listen", &address, "--admin-token", ADMIN_TOKEN];
        (instance.given(&options), address)
    })
}

/// The work of some phones and a shop, and what was acknowledged.
struct Load {
    address: String,
    is_over: AtomicBool,
    /// How many requests each worker has finished.
    finished: [AtomicUsize; WORKERS],
    /// Devices and serial numbers.
    registered: Mutex<BTreeSet<(String, String)>>,
    unregistered: Mutex<BTreeSet<(String, String)>>,
}

impl Load {
    /// Sends a request. Fails on any other status.
    fn send(
        &self,
        worker: usize,
        method: &str,
        path: &str,
        body: &str,
        allowed: &[u16],
    ) -> Vec<u8> {
        let (_, serial) = path.rsplit_once('/').unwrap();
        let wallet = authorization(TYPE, serial);
        let admin = format!("Bearer {ADMIN_TOKEN}");
        let authorization = if path.starts_with("/admin") {
            admin
        } else {
            wallet
        };
        let headers = [("Authorization", &*authorization)];
        let answer = send(&self.address, method, path, &headers, body.as_bytes())
            .unwrap_or_else(|error| panic!("{method} {path}: {error}"));
        assert!(
            allowed.contains(&answer.status),
            "{method} {path}: {answer:?}"
        );
        self.finished[worker].fetch_add(1, Ordering::Relaxed);
        answer.body
    }

    /// The serial numbers of a device that changed since a tag, and the new tag.
    fn list(&self, worker: usize, device: &str, since: &str) -> (Vec<String>, String) {
        let path = format!("/v1/devices/{device}/registrations/{TYPE}{since}");
        let list = self.send(worker, "GET", &path, "", &[200]);
        let list: serde_json::Value = serde_json::from_slice(&list).unwrap();
        let serials = serde_json::from_value(list["serialNumbers"].clone()).unwrap();
        (serials, list["lastUpdated"].as_str().unwrap().to_owned())
    }

    /// Registers devices, publishes changes, fetches, and unregisters every second device, until the load is over.
    fn work(&self, worker: usize) {
        for round in 0.. {
            let serial = SERIALS[round % SERIALS.len()];
            let device = format!("D-{worker}-{round}");
            let path = registration(&device, TYPE, serial);
            // 200 means that nginx sent the request twice.
            self.send(
                worker,
                "POST",
                &path,
                r#"{"pushToken":"c0ffee"}"#,
                &[200, 201],
            );
            let (listed, tag) = self.list(worker, &device, "");
            assert_eq!(listed, [serial]);
            let change = json!({ "passes": [{ "type": TYPE, "serial": serial }] }).to_string();
            self.send(worker, "POST", "/admin/v1/publish", &change, &[202]);
            let since = format!("?passesUpdatedSince={tag}");
            assert_eq!(self.list(worker, &device, &since).0, [serial]);
            let latest = format!("/v1/passes/{TYPE}/{serial}");
            self.send(worker, "GET", &latest, "", &[200]);
            let acknowledged = if round % 2 == 0 {
                self.send(worker, "DELETE", &path, "", &[200]);
                &self.unregistered
            } else {
                &self.registered
            };
            acknowledged
                .lock()
                .unwrap()
                .insert((device, serial.to_owned()));
            if self.is_over.load(Ordering::Relaxed) {
                return;
            }
        }
    }

    /// Waits until each worker has finished more requests.
    fn go_on(&self) {
        for finished in &self.finished {
            let before = finished.load(Ordering::Relaxed);
            eventually("the requests go on", || {
                finished.load(Ordering::Relaxed) >= before + 10
            });
        }
    }
}

/// Ends the load, even if an assertion fails.
struct End<'a>(&'a Load);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::Relaxed);
    }
}

fn restart_in_turn(is_socket: bool) {
    let certificates = Certificates::new();
    certificates.make("a", &[]);
    let folder = tempfile::tempdir().unwrap();
    let mut instances = two_instances(is_socket);
    let addresses = instances.each_ref().map(|(_, address)| address.clone());
    for (instance, _) in &mut instances {
        instance.start();
    }
    let plain = free_port("127.0.0.1");
    let also_plain = format!("listen 127.0.0.1:{plain};\n    listen 443 ");
    let changes = [
        ("listen 443 ", &*also_plain),
        ("rate=20r/s", "rate=10000r/s"),
        ("location /v1/ {", "location ~ ^/(v1|admin)/ {"),
    ];
    let _nginx = nginx(folder.path(), &certificates, &addresses, &changes);
    let load = Load {
        address: format!("127.0.0.1:{plain}"),
        is_over: AtomicBool::new(false),
        finished: Default::default(),
        registered: Mutex::default(),
        unregistered: Mutex::default(),
    };
    std::thread::scope(|scope| {
        let _end = End(&load);
        for worker in 0..WORKERS {
            let load = &load;
            scope.spawn(move || load.work(worker));
        }
        load.go_on();
        for _ in 0..ROUNDS {
            for (instance, _) in &mut instances {
                assert!(instance.stop("TERM").success());
                load.go_on();
                instance.start();
                load.go_on();
            }
        }
    });
    let registered = load.registered.lock().unwrap().clone();
    let unregistered = load.unregistered.lock().unwrap().clone();
    assert!(registered.len() > WORKERS && unregistered.len() > WORKERS);
    for (device, serial) in &registered {
        assert_eq!(load.list(0, device, "").0, [&**serial]);
    }
    for (device, _) in &unregistered {
        let path = format!("/v1/devices/{device}/registrations/{TYPE}");
        load.send(0, "GET", &path, "", &[204]);
    }
}

#[test]
fn phones_notice_no_restart_behind_nginx_over_ports() {
    restart_in_turn(false);
}

#[test]
fn phones_notice_no_restart_behind_nginx_over_sockets() {
    restart_in_turn(true);
}

fn fetch() -> String {
    let authorization = authorization(TYPE, "A-1");
    format!(
        "GET /v1/passes/{TYPE}/A-1 HTTP/1.1\r\nHost: test\r\nAuthorization: {authorization}\r\n\r\n"
    )
}

fn with_a_pass(options: &[&str]) -> Service {
    let mut service = Service::new().given(options);
    let file = service.passes().join("a.pkpass");
    fs::write(file, pass(TYPE, "A-1", "one")).unwrap();
    service.start();
    service
}

fn signal(service: &Service, name: &str) {
    let id = service.id().to_string();
    let sent = Command::new("kill").args([name, &id]).status();
    assert!(sent.unwrap().success());
}

/// Returns an open connection on which a request was already answered.
fn used_connection(service: &Service) -> TcpStream {
    let mut connection = TcpStream::connect(service.address()).unwrap();
    connection.write_all(fetch().as_bytes()).unwrap();
    let length = fs::metadata(service.passes().join("a.pkpass"))
        .unwrap()
        .len();
    let mut answer = Vec::new();
    while !answer.windows(4).any(|window| window == b"\r\n\r\n") {
        let mut byte = [0];
        connection.read_exact(&mut byte).unwrap();
        answer.extend(byte);
    }
    let head = String::from_utf8(answer).unwrap();
    assert!(
        head.starts_with("HTTP/1.1 200") && !head.contains("connection: close"),
        "{head}"
    );
    connection
        .read_exact(&mut vec![0; length as usize])
        .unwrap();
    connection
}

/// Reads the last answer of a connection.
fn last_answer(mut connection: TcpStream) -> String {
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn requests_that_have_arrived_are_answered_after_the_signal_to_stop() {
    let mut service = with_a_pass(&[]);
    let mut connections: Vec<TcpStream> = (0..20).map(|_| used_connection(&service)).collect();
    signal(&service, "-STOP");
    connections.extend((0..60).map(|_| TcpStream::connect(service.address()).unwrap()));
    for connection in &mut connections {
        connection.write_all(fetch().as_bytes()).unwrap();
    }
    // The process sees the signal and the requests at the same time.
    signal(&service, "-TERM");
    signal(&service, "-CONT");
    for connection in connections {
        let answer = last_answer(connection);
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer:.300}");
    }
    assert!(service.stop("0").success());
}

#[test]
fn a_draining_instance_answers_until_it_is_told_again_to_stop() {
    let mut service = with_a_pass(&[&METRICS[..], &["--drain", "3600"]].concat());
    let metrics = metrics::address(&service);
    let mut used = used_connection(&service);
    signal(&service, "-TERM");
    eventually("it is not ready", || ready(&metrics).0 == 503);
    used.write_all(fetch().as_bytes()).unwrap();
    assert!(last_answer(used).contains("connection: close"));
    let mut new = TcpStream::connect(service.address()).unwrap();
    new.write_all(fetch().as_bytes()).unwrap();
    let answer = last_answer(new);
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("connection: close"),
        "{answer:.300}"
    );
    assert!(service.stop("TERM").success());
}
