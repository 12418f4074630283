//! The virtual phone, and the demonstration.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
};

use crate::{
    archives::{order, pass, replace},
    metrics::{scrape, value},
    program::{Service, authorization, eventually, passkit, run},
    push::{METRICS, quiet},
};

const TYPE: &str = "pass.com.example.phone";
const ORDERS: &str = "order.com.example.phone";

#[test]
fn a_phone_adds_syncs_lists_and_removes() {
    let mut service = Service::new();
    let (file, order_file) = (
        service.passes().join("a.pkpass"),
        service.orders().join("a.order"),
    );
    fs::write(&file, pass(TYPE, "A/1", "one")).unwrap();
    fs::write(&order_file, order(ORDERS, "O-1", "one")).unwrap();
    service.start();
    let (url, state) = (service.url(), service.folder.path().join("phone.json"));
    let device = |arguments: &[&str]| {
        run(passkit()
            .arg("device")
            .args(arguments)
            .arg("--state")
            .arg(&state))
    };
    let (pass_path, order_path) = (file.to_str().unwrap(), order_file.to_str().unwrap());

    for (path, id) in [
        (pass_path, format!("{TYPE} A/1")),
        (order_path, format!("{ORDERS} O-1")),
    ] {
        let (code, stdout, stderr) = device(&["add", path, "--url", &url]);
        assert_eq!((code, &*stderr), (Some(0), ""), "{stdout}");
        assert!(stdout.contains(&format!("registered: {id}")), "{stdout}");
        for word in ["POST", "201", "GET", "200"] {
            assert!(stdout.contains(word), "{word} is not in {stdout}");
        }
        assert!(!stdout.contains("token-of-"), "a token is in {stdout}");
    }
    let (code, stdout, _) = device(&["sync"]);
    assert_eq!(code, Some(0), "{stdout}");
    assert!(stdout.contains("nothing changed"), "{stdout}");

    replace(&file, &pass(TYPE, "A/1", "two"));
    let mut stdout = String::new();
    eventually("the phone gets the change", || {
        stdout = device(&["sync"]).1;
        stdout.contains("updated")
    });
    assert!(stdout.contains(&format!("updated: {TYPE} A/1")), "{stdout}");

    let (code, stdout, _) = device(&["list"]);
    assert_eq!((code, stdout.lines().count()), (Some(0), 2), "{stdout}");
    let (code, _, stderr) = device(&["remove"]);
    assert_eq!((code, stderr.lines().count()), (Some(2), 1), "{stderr}");
    for words in [vec!["remove", ORDERS, "O-1"], vec!["remove", pass_path]] {
        let (code, stdout, stderr) = device(&words);
        assert_eq!(code, Some(0), "{stdout}{stderr}");
        assert!(
            stdout.contains("DELETE") && stdout.contains("removed:"),
            "{stdout}"
        );
    }
    assert!(device(&["list"]).1.contains("no passes"));
}

#[test]
fn a_phone_reports_what_a_service_does_wrong() {
    let mut service = Service::new();
    fs::write(service.passes().join("a.pkpass"), pass(TYPE, "A", "one")).unwrap();
    service.start();
    let unknown = service.folder.path().join("unknown.pkpass");
    fs::write(&unknown, pass(TYPE, "UNKNOWN", "one")).unwrap();
    let state = service.folder.path().join("phone.json");
    let mut add = passkit();
    add.args(["device", "add"])
        .arg(&unknown)
        .args(["--url", &service.url(), "--state"])
        .arg(&state);
    let (code, stdout, _) = run(&mut add);
    assert_eq!(code, Some(1), "{stdout}");
    assert!(
        stdout.contains("wrong: ") && stdout.contains("Authentication failure"),
        "{stdout}"
    );
    eventually("the phone's log is understood", || {
        service.said().contains("device log") && service.said().contains("401")
    });
}

#[test]
fn the_demonstration_goes_on_serving_until_it_is_stopped() {
    let mut demo = passkit()
        .arg("demo")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(demo.stdout.take().unwrap()).lines();
    let mut said = Vec::new();
    let mut commands = Vec::new();
    for line in lines.map(Result::unwrap) {
        if line.starts_with(env!("CARGO_BIN_EXE_passkit")) || line.starts_with("cp ") {
            commands.push(line.clone());
        }
        let last = line.contains(" remove ");
        said.push(line);
        if last {
            break;
        }
    }
    let said = said.join("\n");
    for expected in [
        "updated: pass.com.example.coffee CARD-0001",
        "registered: order.com.example.beans ORDER-0001",
    ] {
        assert!(said.contains(expected), "{expected:?} is not in:\n{said}");
    }
    assert_eq!(commands.len(), 5, "{said}");
    let folder = commands[1]
        .split_whitespace()
        .nth(1)
        .unwrap()
        .rsplit_once('/')
        .unwrap()
        .0
        .to_owned();
    for command in &commands {
        if command.contains(" sync") {
            eventually("the phone gets the change", || {
                let output = Command::new("sh").args(["-c", command]).output().unwrap();
                String::from_utf8_lossy(&output.stdout).contains("updated: ")
            });
        } else {
            let output = Command::new("sh").args(["-c", command]).output().unwrap();
            assert!(output.status.success(), "{command}: {output:?}");
        }
    }
    assert!(
        Command::new("kill")
            .args(["-INT", &demo.id().to_string()])
            .status()
            .unwrap()
            .success()
    );
    assert!(demo.wait().unwrap().success());
    assert!(
        !std::path::Path::new(&folder).exists(),
        "{folder} was left behind"
    );
}

/// A process that is killed even if the test fails.
pub(crate) struct Ended(pub(crate) Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `passkit device listen` as a process.
pub(crate) struct Listening {
    process: Ended,
    /// The options with which a service sends its pushes there.
    pub(crate) options: Vec<String>,
    said: Arc<Mutex<String>>,
}

impl Listening {
    /// Adds `listen` to the command of a device, and starts it.
    pub(crate) fn start(mut device: Command) -> Self {
        let mut process = Ended(device.arg("listen").stdout(Stdio::piped()).spawn().unwrap());
        let mut lines = BufReader::new(process.0.stdout.take().unwrap())
            .lines()
            .map(Result::unwrap);
        let options = lines
            .find(|line| line.starts_with("--apns-config"))
            .unwrap();
        let said = Arc::new(Mutex::new(String::new()));
        let hears = said.clone();
        std::thread::spawn(move || lines.for_each(|line| *hears.lock().unwrap() += &(line + "\n")));
        Self {
            process,
            options: options.split(' ').map(str::to_owned).collect(),
            said,
        }
    }

    /// Returns everything that was printed after the options.
    pub(crate) fn shown(&self) -> String {
        self.said.lock().unwrap().clone()
    }
}

#[test]
fn a_phone_that_listens_shows_what_a_push_brings() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("phone.json");
    let device = || {
        let mut command = passkit();
        command.args(["device", "--state"]).arg(&state);
        command
    };
    let mut listening = Listening::start(device());
    let mut service = Service::new()
        .given(&listening.options)
        .given(&METRICS)
        .logging("debug");
    let file = service.passes().join("a.pkpass");
    fs::write(&file, pass(TYPE, "A/1", "one")).unwrap();
    service.start();
    quiet(&service);
    let (code, stdout, _) = run(device()
        .arg("add")
        .arg(&file)
        .args(["--url", &service.url()]));
    assert_eq!(code, Some(0), "{stdout}");
    assert_eq!(service.register("ANOTHER-DEVICE", TYPE, "A/1"), 201);

    replace(&file, &pass(TYPE, "A/1", "two"));
    let shown = || listening.shown();
    eventually("the change is shown", || {
        shown().contains(&format!("updated: {TYPE} A/1"))
    });
    assert!(
        shown().contains(&format!("push of {TYPE} to the phone")),
        "{}",
        shown()
    );
    eventually("the other push is recognised", || {
        shown().contains(&format!("push of {TYPE} to another phone"))
    });
    assert_eq!(shown().matches("updated: ").count(), 1, "{}", shown());

    // The log of the service shows the same: the phone that got the push came back.
    let log = service.said();
    let step = |name: &str, of: &str| {
        let found = log
            .lines()
            .rfind(|line| line.contains(&format!(" {name}{{type_id={TYPE}")) && line.contains(of));
        found
            .unwrap_or_else(|| panic!("no {name} with {of} in {log}"))
            .to_owned()
    };
    let list = step("list", "serials=1 tag=");
    let (_, phone) = list.split_once("device=").unwrap();
    step("publish", "passes=1");
    step("push", &format!("devices={}", &phone[..16]));
    step("fetch", "status=200");
    let kept: serde_json::Value = serde_json::from_slice(&fs::read(&state).unwrap()).unwrap();
    for secret in [&kept["pushToken"], &kept["services"][0]["device"]] {
        let secret = secret.as_str().unwrap();
        assert!(
            !log.to_lowercase().contains(&secret.to_lowercase()),
            "{secret} in {log}"
        );
    }
    assert!(!log.contains("ANOTHER-DEVICE"), "{log}");
    let fetched = || value(&scrape(&service), "passkit_fetched_after_seconds_count");
    let before = fetched();
    assert!(before.is_some_and(|fetched| fetched >= 2.0), "{before:?}");
    let token = authorization(TYPE, "A/1");
    let path = format!("/v1/passes/{TYPE}/A%2F1");
    let head = service.send("HEAD", &path, &[("Authorization", &token)], b"");
    assert_eq!(
        (head.status, fetched()),
        (200, before),
        "a HEAD request counts as no fetch"
    );

    assert!(
        Command::new("kill")
            .args(["-INT", &listening.process.0.id().to_string()])
            .status()
            .unwrap()
            .success()
    );
    assert!(listening.process.0.wait().unwrap().success());
}
