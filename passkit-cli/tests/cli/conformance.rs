//! `passkit conformance run`, against `passkit serve`, and against services that hardly work.

use std::{
    collections::HashMap,
    fmt::Write as _,
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use passkit_test_servers::redis::Cluster;
use serde_json::Value;

use crate::{
    archives::{order, pass, replace, token_of},
    bench::registrations,
    postgres,
    program::{Service, eventually, passkit, run},
};

const SUBJECTS: &[(&str, &str)] = &[
    ("pass.com.example.kit.a", "A-1"),
    ("pass.com.example.kit.a", "A-2"),
    ("pass.com.example.kit.a", "A-3"),
    ("pass.com.example.kit.a", "H8JP44-ORD07/09/25-MARTINEZ/LANI"),
    ("pass.com.example.kit.b", "A-1"),
    ("order.com.example.kit.c", "O-1"),
    ("order.com.example.kit.c", "O-2"),
    ("order.com.example.kit.d", "O-1"),
];

fn kit() -> Command {
    let mut command = passkit();
    command.args(["conformance", "run"]);
    command
}

/// Returns a target file with everything that is served.
fn target_file(change: &str) -> String {
    let mut text = format!("{change}\n");
    for (type_id, serial) in SUBJECTS {
        let key = if type_id.starts_with("order.") {
            "orders"
        } else {
            "passes"
        };
        let token = token_of(type_id, serial);
        let _ = writeln!(
            text,
            "[[{key}]]\ntype = {type_id:?}\nserial = {serial:?}\ntoken = {token:?}"
        );
    }
    text
}

fn archive(type_id: &str, serial: &str, version: &str) -> Vec<u8> {
    if type_id.starts_with("order.") {
        order(type_id, serial, version)
    } else {
        pass(type_id, serial, version)
    }
}

/// Prepares a service with one file for each subject. It is not running yet.
fn with_files(service: Service) -> (Service, HashMap<(String, String), PathBuf>) {
    let mut files = HashMap::new();
    for (number, (type_id, serial)) in SUBJECTS.iter().enumerate() {
        let file = if type_id.starts_with("order.") {
            service.orders().join(format!("{number}.order"))
        } else {
            service.passes().join(format!("{number}.pkpass"))
        };
        fs::write(&file, archive(type_id, serial, "0")).unwrap();
        files.insert(((*type_id).to_owned(), (*serial).to_owned()), file);
    }
    (service, files)
}

/// Passes requests to some services in turn. Returns the address.
fn spread(addresses: Vec<String>) -> String {
    let turn = AtomicUsize::new(0);
    listen(move |mut client| {
        let mut reader = BufReader::new(client.try_clone().unwrap());
        let (mut head, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            if line.trim().is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().unwrap();
            }
            head += &line;
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let next = &addresses[turn.fetch_add(1, Ordering::Relaxed) % addresses.len()];
        let mut service = TcpStream::connect(next).unwrap();
        service
            .write_all(format!("{head}Connection: close\r\n\r\n").as_bytes())
            .unwrap();
        let _ = service
            .write_all(&body)
            .and_then(|()| std::io::copy(&mut service, &mut client).map(drop));
    })
}

/// Answers each connection in its own thread. Returns the address.
fn listen(answer: impl Fn(TcpStream) + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let answer = answer.clone();
            std::thread::spawn(move || answer(stream));
        }
    });
    address
}

fn decoded(segment: &str) -> String {
    let bytes = segment.as_bytes();
    let mut text = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'%' => {
                text.push(u8::from_str_radix(&segment[at + 1..at + 3], 16).unwrap());
                at += 3;
            }
            byte => {
                text.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8(text).unwrap()
}

#[test]
fn the_service_conforms() {
    let (mut service, files) = with_files(Service::new());
    service.start();
    let url = service.url();
    conforms(service, files, &url);
}

#[test]
fn two_instances_over_one_database_conform_as_one() {
    let (mut service, files) = with_files(Service::over(&postgres::migrated()));
    let mut other = service.sibling();
    service.start();
    other.start();
    let url = format!(
        "http://{}",
        spread(vec![service.address(), other.address()])
    );
    conforms(service, files, &url);
}

#[test]
fn two_instances_over_a_cluster_conform_while_a_master_is_away() {
    let cluster = Cluster::start_own(&[]).unwrap();
    let (mut service, files) = with_files(Service::over(&cluster.url()));
    let mut other = service.sibling();
    service.start();
    other.start();
    let url = format!(
        "http://{}",
        spread(vec![service.address(), other.address()])
    );
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let master = cluster.masters().next().unwrap();
            std::thread::sleep(Duration::from_secs(3));
            master.kill().unwrap();
            std::thread::sleep(Duration::from_secs(6));
            master.restart().unwrap();
        });
        conforms(service, files, &url);
    });
}

/// Runs all cases against `url`. The URL leads to `service`, or to several services of which it is
/// one.
fn conforms(service: Service, files: HashMap<(String, String), PathBuf>, url: &str) {
    let service = Arc::new(service);
    // A weak reference, so that the service ends with the test although the listening thread goes
    // on.
    let changing = Arc::downgrade(&service);
    // `change_url` writes a new version of the file, and answers when the service has it.
    // `save_url` writes the same version, and answers when the service has certainly checked it.
    let address = listen(move |mut stream| {
        let Some(changing) = changing.upgrade() else {
            return;
        };
        let mut request = String::new();
        BufReader::new(&stream).read_line(&mut request).unwrap();
        let path = request
            .strip_prefix("POST /")
            .unwrap()
            .split(' ')
            .next()
            .unwrap();
        let [call, type_id, serial] = path.splitn(3, '/').collect::<Vec<_>>().try_into().unwrap();
        let (type_id, serial) = (decoded(type_id), decoded(serial));
        let file = &files[&(type_id.clone(), serial.clone())];
        // The store determines the date, so the change is published when the date has advanced.
        let date = || {
            changing
                .get(&type_id, &serial, None)
                .header("last-modified")
                .unwrap()
                .to_owned()
        };
        let before = date();
        if call == "save" {
            replace(file, &fs::read(file).unwrap());
            std::thread::sleep(Duration::from_secs(2));
        } else {
            let version = format!("{:?}", Instant::now());
            replace(file, &archive(&type_id, &serial, &version));
            eventually("the change is served", || date() != before);
        }
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            .unwrap();
    });
    let folder = service.folder.path();
    let target = folder.join("target.toml");
    let url_of =
        |call: &str| format!("{call}_url = \"http://{address}/{call}/{{type}}/{{serial}}\"\n");
    let change = url_of("change") + &url_of("save");
    fs::write(&target, target_file(&change)).unwrap();
    let [json, junit, html] =
        ["json", "xml", "html"].map(|name| folder.join(format!("report.{name}")));
    let (code, stdout, stderr) = run(kit()
        .args(["--url", url, "--url", &format!("{url}/")])
        .args(["--for", "2s", "--seed", "5"])
        .args(["--level", "advisory", "--target"])
        .arg(&target)
        .arg("--json")
        .arg(&json)
        .arg("--junit")
        .arg(&junit)
        .arg("--html")
        .arg(&html));
    assert_eq!(
        (code, &*stderr),
        (Some(0), ""),
        "{stdout}\n{}",
        service.said()
    );

    let report: Value = serde_json::from_slice(&fs::read(json).unwrap()).unwrap();
    assert_eq!(report["seed"], 5);
    assert!(
        stdout.contains("history/long-history-adds-up has the seed 5"),
        "{stdout}"
    );
    let cases = report["cases"].as_array().unwrap();
    let (_, listed, _) = run(kit().args(["--list", "--level", "advisory"]));
    assert_eq!(cases.len(), listed.lines().count());
    let mut skipped = 0;
    for case in cases {
        let id = case["id"].as_str().unwrap();
        assert!(listed.contains(id), "{case}");
        if id.starts_with("push/") || id.starts_with("enrol/") {
            // The target file does not make the kit the push service, and names no passes that offer enrolment.
            skipped += 1;
            assert_eq!(case["outcome"], "skip", "{case}");
        } else {
            assert!(case["outcome"] == "pass" && case["message"] == "", "{case}");
        }
    }
    assert_eq!(
        report["summary"]["pass"].as_u64().unwrap() + skipped,
        cases.len() as u64,
        "{stdout}"
    );
    let counts = format!("failures=\"0\" errors=\"0\" skipped=\"{skipped}\"");
    assert!(fs::read_to_string(junit).unwrap().contains(&counts));
    assert!(
        fs::read_to_string(html)
            .unwrap()
            .contains("<h1>Conforms</h1>")
    );
}

#[test]
fn init_writes_a_target_file_to_start_from() {
    let folder = tempfile::tempdir().unwrap();
    let (type_id, serial) = SUBJECTS[3];
    let (archive, target) = (
        folder.path().join("a.pkpass"),
        folder.path().join("target.toml"),
    );
    fs::write(&archive, pass(type_id, serial, "0")).unwrap();
    let init = |url: &str| {
        run(passkit()
            .args(["conformance", "init", "--url", url, "--target"])
            .arg(&target)
            .arg(&archive))
    };
    let (code, _, stderr) = init("https://wallet.example.com/v1");
    assert_eq!((code, stderr.lines().count()), (Some(2), 1), "{stderr}");
    let (code, stdout, stderr) = init("https://wallet.example.com/");
    assert_eq!((code, &*stderr), (Some(0), ""), "{stdout}");
    let text = fs::read_to_string(&target).unwrap();
    for expected in [
        type_id,
        serial,
        &*token_of(type_id, serial),
        "https://wallet.example.com/",
    ] {
        assert!(text.contains(expected), "{text}");
    }
    let (code, _, stderr) = init("https://wallet.example.com/");
    assert_eq!(code, Some(2));
    assert!(stderr.contains("exists already"), "{stderr}");
}

/// Returns the exit code, stdout, the line on stderr if there is one, and the JSON report.
fn run_against(url: &str, arguments: &[&str]) -> (Option<i32>, String, String, Value) {
    let folder = tempfile::tempdir().unwrap();
    let (target, json) = (
        folder.path().join("target.toml"),
        folder.path().join("report.json"),
    );
    fs::write(&target, target_file("change = \"true\"")).unwrap();
    let mut kit = kit();
    kit.args(["--url", url, "--target"])
        .arg(target)
        .arg("--json")
        .arg(&json)
        .args(arguments);
    let (code, stdout, stderr) = run(&mut kit);
    assert!(stderr.lines().count() <= 1, "{stderr}");
    (
        code,
        stdout,
        stderr,
        serde_json::from_slice(&fs::read(json).unwrap()).unwrap(),
    )
}

#[test]
fn an_interrupted_run_leaves_nothing_registered() {
    let (mut service, _) = with_files(Service::new());
    service.start();
    let folder = tempfile::tempdir().unwrap();
    let (target, json) = (
        folder.path().join("target.toml"),
        folder.path().join("report.json"),
    );
    // When the case asks for the change, it has registered.
    fs::write(folder.path().join("change.sh"), "touch asked; sleep 300").unwrap();
    fs::write(&target, target_file("change = \"sh change.sh\"")).unwrap();
    let kit = kit()
        .args([
            "--url",
            &service.url(),
            "list/tag-lists-only-newer",
            "--target",
        ])
        .arg(target)
        .arg("--json")
        .arg(&json)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    eventually("the case waits for the change", || {
        folder.path().join("asked").exists()
    });
    assert!(
        Command::new("kill")
            .args(["-INT", &kit.id().to_string()])
            .status()
            .unwrap()
            .success()
    );
    let output = kit.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        (output.status.code(), said.lines().count()),
        (Some(2), 1),
        "{said}"
    );
    assert!(said.contains("it was interrupted"), "{said}");
    let report: Value = serde_json::from_slice(&fs::read(json).unwrap()).unwrap();
    assert_eq!(report["summary"]["error"], 1, "{report}");
    assert!(service.stop("TERM").success());
    assert_eq!(registrations(&service), 0);
}

#[test]
fn an_unreachable_service_ends_the_run_with_one_line() {
    let plain = listen(|mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
    });
    for url in [
        // Nothing listens on port 1, and no other test gets this port by chance.
        "http://127.0.0.1:1".to_owned(),
        format!("https://{plain}"),
        "http://no-such-host.invalid".to_owned(),
    ] {
        let (code, stdout, stderr, report) = run_against(&url, &[]);
        assert_eq!(code, Some(2), "{url}: {stdout}");
        assert!(
            stderr.contains(&format!("the service at {url} can't be reached: ")),
            "{stderr}"
        );
        assert_eq!(
            report["summary"]["error"].as_u64().unwrap(),
            report["cases"].as_array().unwrap().len() as u64
        );
        assert_eq!(stdout.lines().count(), 1, "{stdout}");
    }
}

#[test]
fn a_server_of_another_kind_ends_the_run_in_time() {
    let silent = listen(|mut stream| {
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let garbage = listen(|mut stream| {
        let _ = stream.write_all(&[0xff; 1000]);
    });
    let endless = listen(|mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
        while stream.write_all(&[b'x'; 65536]).is_ok() {}
    });
    for address in [silent, garbage, endless] {
        let start = Instant::now();
        let (code, stdout, _, report) =
            run_against(&format!("http://{address}"), &["--timeout", "1"]);
        assert_eq!(code, Some(1), "{stdout}");
        assert!(start.elapsed() < Duration::from_secs(60));
        assert!(
            stdout.contains("HTTP-2: every request gets one complete, well-formed answer"),
            "{stdout}"
        );
        assert!(report["summary"]["fail"].as_u64().unwrap() >= 1, "{stdout}");
        assert_eq!(report["summary"]["pass"], 0, "{stdout}");
    }
}

#[test]
fn a_failure_says_what_to_fix() {
    // The service serves passes that change all the time, and accepts no registrations.
    let not_found = listen(|mut stream| {
        let mut lines = BufReader::new(stream.try_clone().unwrap())
            .lines()
            .map_while(Result::ok);
        let Some(request) = lines.next() else { return };
        lines.find(String::is_empty);
        let (status, body) = match request.starts_with("GET ") {
            true => ("200 OK", format!("{:?}", Instant::now())),
            false => ("404 Not Found", String::new()),
        };
        let length = body.len();
        let _ = stream.write_all(
            format!(
                "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
            )
            .as_bytes(),
        );
    });
    let url = format!("http://{not_found}");
    let (code, stdout, stderr, report) = run_against(&url, &["register/new-pass-is-201"]);
    assert_eq!((code, &*stderr), (Some(1), ""), "{stdout}");
    for expected in [
        "REG-1: ",
        "status 201",
        "status 404",
        "on a phone",
        "> authorization: ApplePass <token>",
        "1 failed",
    ] {
        assert!(stdout.contains(expected), "{expected:?} is not in {stdout}");
    }
    assert!(!stdout.contains("token-of-"), "{stdout}");
    let case = &report["cases"][0];
    assert_eq!(
        (&case["outcome"], &case["broken_rule"]),
        (&"fail".into(), &"REG-1".into())
    );
    assert!(
        case["message"]
            .as_str()
            .unwrap()
            .starts_with("breaks REG-1 "),
        "{case}"
    );
}

#[test]
fn wrong_arguments_and_files_are_reported_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("target.toml");
    fs::write(&target, target_file("").replacen("serial", "serail", 1)).unwrap();
    let url = ["--url", "http://127.0.0.1:1"];
    let refused = |command: &mut Command| {
        let (code, stdout, stderr) = run(command);
        assert_eq!(
            (code, stderr.lines().count()),
            (Some(2), 1),
            "{stdout}{stderr}"
        );
        stderr
    };
    let said = refused(kit().args(url).arg("--target").arg(&target));
    assert!(
        said.contains("target.toml, line 4, column 1: \"serail\" is not a key")
            && said.contains("\"serial\"?"),
        "{said}"
    );
    fs::write(&target, target_file("")).unwrap();
    let complete = || {
        let mut kit = kit();
        kit.arg("--target").arg(&target);
        kit
    };
    assert!(
        refused(complete().args(url).arg("register/new-pass-is-200"))
            .contains("did you mean register/new-pass-is-201")
    );
    assert!(
        refused(complete().args(url).args(["--level", "most"]))
            .contains("must, should or advisory")
    );
    assert!(
        refused(complete().args(url).args(["--html", "no/such/folder/x"]))
            .contains("can't write no/such/folder/x")
    );
    assert!(
        refused(complete().args(url).args(["--for", "10m", "register/"])).contains("add its id")
    );
    assert!(refused(complete().args(url).args(["--for", "10"])).contains("90s, 10m or 2h"));
    assert!(refused(complete().args(["--url", "wallet"])).contains("the url \"wallet\""));
    assert!(refused(&mut complete()).contains("--url"));
    assert!(
        refused(kit().args(url).args(["--target", "no/such.toml"]))
            .contains("can't read no/such.toml")
    );
}
