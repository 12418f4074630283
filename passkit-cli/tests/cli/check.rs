use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::TcpListener,
    process::{Command, Stdio},
    thread::JoinHandle,
};

use passkit_archive::{Area, RULES};
use serde_json::{Value, json};

use crate::{
    archives::{pass, signed, token_of, unsigned, with_json, with_url},
    program::{Service, passkit, run},
};

const TYPE: &str = "pass.com.example.check";

#[test]
fn good_bad_and_missing_files_each_get_a_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let good = pass(TYPE, "A", "one");
    fs::write(path("good.pkpass"), &good).unwrap();
    fs::write(path("half.pkpass"), &good[..good.len() / 2]).unwrap();
    fs::write(path("unsigned.pkpass"), unsigned(TYPE, "A", "one")).unwrap();
    let check = |names: &[&str]| {
        run(passkit()
            .arg("check")
            .args(names.iter().map(|name| path(name))))
    };

    let (code, stdout, stderr) = check(&["good.pkpass"]);
    assert_eq!((code, &*stderr), (Some(0), ""));
    let name = path("good.pkpass");
    let (first, rest) = stdout.split_once('\n').unwrap();
    assert_eq!(first, format!("{name}: good: pass {TYPE} A, signed"));
    assert!(
        rest.starts_with(&format!("{name}: warning: signature: ")) && rest.ends_with(" [root]\n"),
        "{rest}"
    );

    let (code, stdout, _) = check(&["half.pkpass", "good.pkpass"]);
    assert_eq!(code, Some(1));
    assert_eq!(stdout.lines().count(), 3, "{stdout}");
    assert!(
        stdout.starts_with(&format!(
            "{}: refused: the archive: is a zip archive whose end is missing",
            path("half.pkpass")
        )),
        "{stdout}"
    );

    let (code, stdout, stderr) = check(&["good.pkpass", "none.pkpass"]);
    assert_eq!(
        (code, stdout.lines().count(), stderr.lines().count()),
        (Some(2), 2, 1)
    );
    assert!(stderr.contains(&path("none.pkpass")), "{stderr}");

    let (code, stdout, _) = check(&["unsigned.pkpass"]);
    assert_eq!(code, Some(1));
    assert!(stdout.contains("signature"), "{stdout}");
    let lenient = run(passkit().args(["check", "--allow-unsigned", &path("unsigned.pkpass")]));
    assert_eq!(lenient.0, Some(0), "{lenient:?}");
}

#[test]
fn each_line_has_its_level_and_its_code() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a\n\u{202e}b.pkpass");
    let check = |content: &[u8]| {
        fs::write(&file, content).unwrap();
        let (code, stdout, stderr) = run(passkit().arg("check").arg(&file));
        assert_eq!(stderr, "");
        // The name tries to forge lines.
        let start = format!(r"{}/a\n\u{{202e}}b.pkpass", folder.path().display());
        for line in stdout.lines() {
            assert!(line.starts_with(&start), "{line}");
        }
        (code, stdout.replace(&start, "FILE"))
    };
    let (code, stdout) = check(b"{\"message\":\"could not make the pass\"}");
    assert_eq!(code, Some(1));
    assert!(
        stdout.starts_with("FILE: refused: the archive: is JSON, not a zip archive"),
        "{stdout}"
    );
    assert!(stdout.ends_with(" [not-zip]\n"), "{stdout}");

    let pass = |files: &[(&str, Vec<u8>)]| signed(TYPE, "A", "one", files);
    let (code, stdout) = check(&pass(&[(".DS_Store", Vec::new())]));
    assert_eq!(code, Some(0));
    assert!(
        stdout.contains("\nFILE: warning: .DS_Store: was added by macOS"),
        "{stdout}"
    );
    let (code, stdout) = check(&pass(&[("._icon.png", Vec::new())]));
    assert_eq!(code, Some(1));
    assert!(
        stdout.starts_with("FILE: refused: ._icon.png: was added by macOS"),
        "{stdout}"
    );
}

#[test]
fn every_pass_of_a_bundle_is_checked() {
    let file = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../passkit-archive/tests/fixtures/field/c1-bundle.pkpasses"
    );
    let (code, stdout, _) = run(passkit().args(["check", file]));
    assert_eq!(code, Some(0));
    let lines: Vec<_> = stdout.lines().collect();
    assert!(
        lines[0].starts_with(&format!("{file}: is a bundle of passes (.pkpasses)")),
        "{stdout}"
    );
    assert!(
        lines[1].starts_with(&format!("{file}/a.pkpass: good: pass ")),
        "{stdout}"
    );
}

#[test]
fn codes_are_explained() {
    let explain = |code: &str| run(passkit().args(["check", "--explain", code]));
    let (code, stdout, _) = explain("icon-missing");
    assert_eq!(code, Some(0));
    for part in [
        "icon-missing (refused)\n",
        "How to fix it: Add icon.png",
        "Read more:     https://",
    ] {
        assert!(stdout.contains(part), "{stdout}");
    }
    let (code, stdout, _) = explain("all");
    assert_eq!((code, stdout.lines().count()), (Some(0), RULES.len()));
    let (code, stdout, stderr) = explain("icon-mising");
    assert_eq!((code, &*stdout), (Some(2), ""));
    assert_eq!(
        stderr,
        "passkit: there is no code \"icon-mising\"; did you mean icon-missing?\n"
    );
    let (code, _, stderr) = explain("\u{1b}[2J\u{202e}");
    assert_eq!((code, stderr.lines().count()), (Some(2), 1));
    assert!(
        stderr.contains("--explain all") && !stderr.contains('\u{1b}'),
        "{stderr}"
    );
    let (code, _, stderr) = run(passkit().arg("check"));
    assert_eq!((code, stderr.lines().count()), (Some(2), 1), "{stderr}");
}

#[test]
fn findings_are_written_for_programs() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let good = pass(TYPE, "A", "one");
    fs::write(path("good,1.pkpass"), &good).unwrap();
    let date = with_json(TYPE, &json!({"expirationDate": "100%\n::error::forged"}));
    fs::write(path("date.pkpass"), date).unwrap();
    let check = |format: &str| {
        let names = ["good,1.pkpass", "date.pkpass", "none.pkpass"].map(path);
        run(passkit()
            .args(["check", "--allow-unsigned", "--format", format])
            .args(names))
    };

    let (code, stdout, stderr) = check("json");
    assert_eq!((code, &*stderr), (Some(2), ""));
    let report: Value = serde_json::from_str(&stdout).unwrap();
    let archives = report["archives"].as_array().unwrap();
    assert_eq!(archives.len(), 2);
    assert_eq!(archives[0]["good"], true);
    assert_eq!(
        archives[0]["archive"],
        json!({"kind": "pass", "type": TYPE, "serial": "A", "signed": true})
    );
    assert_eq!(archives[1]["good"], false);
    let finding = &archives[1]["findings"][0];
    assert_eq!(finding["code"], "date");
    assert_eq!(finding["level"], "refused");
    assert_eq!(finding["file"], "pass.json");
    assert!(finding["line"].is_u64() && finding["column"].is_u64());
    assert_eq!(report["unreadable"][0]["file"], path("none.pkpass"));

    let (code, stdout, stderr) = check("github");
    assert_eq!((code, &*stderr), (Some(2), ""));
    for line in stdout.lines() {
        let is_annotation = ["::error file=", "::warning file=", "::notice file="]
            .iter()
            .any(|start| line.starts_with(start));
        assert!(is_annotation, "{line}");
    }
    let date = format!(
        "::error file={},title=date::pass.json:",
        path("date.pkpass")
    );
    let date = stdout.lines().find(|line| line.starts_with(&date)).unwrap();
    assert!(date.contains(r"100%25\n::error::forged"), "{date}");
    let good = path("good,1.pkpass").replace(',', "%2C");
    assert!(
        stdout.contains(&format!("::warning file={good},title=root::")),
        "{stdout}"
    );
    assert!(
        stdout.contains(",title=unreadable::can't read "),
        "{stdout}"
    );
}

/// Answers every request with the next of these texts. Returns the URL, and what was asked.
fn service(answers: &'static [&'static str]) -> (String, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let serving = std::thread::spawn(move || {
        let mut asked = String::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(&stream);
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                if line.trim().is_empty() {
                    break;
                }
                asked += &line;
            }
            stream.write_all(answer.as_bytes()).unwrap();
        }
        asked
    });
    (url, serving)
}

const NO_CONTENT: &str = "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n";
const UNAUTHORIZED: &str =
    "HTTP/1.1 401 Unauthorized\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

const NO_LIST: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}";
const ERROR: &str = "HTTP/1.1 500 Oops\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
const REDIRECT: &str = "HTTP/1.1 301 Moved\r\nConnection: close\r\nContent-Length: 0\r\n\
                        Location: https://elsewhere.example/\x09\u{9b}31m\u{202e}\r\n\r\n";

/// Checks a pass with this URL online. Returns its findings about the service.
fn online(url: &str, change: impl FnOnce(&mut Command)) -> Vec<(String, String)> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.pkpass");
    fs::write(&file, with_url(TYPE, "A", url)).unwrap();
    let mut command = passkit();
    command.args(["check", "--online", "--allow-unsigned", "--format", "json"]);
    command.arg(&file);
    change(&mut command);
    let (code, stdout, stderr) = run(&mut command);
    assert_eq!(stderr, "");
    assert!(!stdout.contains(&token_of(TYPE, "A")), "{stdout}");
    let report: Value = serde_json::from_str(&stdout).unwrap();
    let findings = report["archives"][0]["findings"].as_array().unwrap();
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap().to_owned();
    let found: Vec<_> = findings
        .iter()
        .map(|finding| (text(finding, "code"), text(finding, "message")))
        .filter(|(code, _)| code.starts_with("online-"))
        .collect();
    assert_eq!(code, Some(i32::from(!found.is_empty())), "{stdout}");
    found
}

#[test]
fn a_right_service_is_silent_and_gets_no_token() {
    let mut own = Service::new();
    fs::write(own.passes().join("a.pkpass"), pass(TYPE, "A", "one")).unwrap();
    own.start();
    assert_eq!(online(&own.url(), |_| {}), []);

    let (url, asked) = service(&[NO_CONTENT, UNAUTHORIZED]);
    assert_eq!(online(&url, |_| {}), []);
    let asked = asked.join().unwrap().to_ascii_lowercase();
    assert!(asked.contains("get /v1/devices/"), "{asked}");
    assert!(
        asked.contains(&format!("get /v1/passes/{TYPE}/a http/1.1")),
        "{asked}"
    );
    assert!(asked.contains("authorization: applepass "), "{asked}");
    assert!(
        !asked.contains(&token_of(TYPE, "A").to_ascii_lowercase()),
        "{asked}"
    );
}

#[test]
fn what_a_service_does_wrong_is_found() {
    let mut broken = BTreeSet::new();
    for (answers, codes) in [
        (&[ERROR, UNAUTHORIZED][..], &["online-list"][..]),
        (&[NO_LIST, UNAUTHORIZED], &["online-list"]),
        (&[NO_CONTENT, NO_CONTENT], &["online-token"]),
        (&[ERROR, ERROR], &["online-list", "online-token"]),
        (&[REDIRECT], &["online-redirect"]),
        (&["SMTP ready\r\n\r\n"], &["online-unreachable"]),
        (&[""], &["online-unreachable"]),
    ] {
        let (url, asked) = service(answers);
        let found = online(&url, |_| {});
        asked.join().unwrap();
        let found_codes: Vec<&str> = found.iter().map(|(code, _)| code.as_str()).collect();
        assert_eq!(found_codes, codes, "{found:?}");
        for (_, message) in &found {
            let hostile = |c: char| c.is_control() || c == '\u{202e}';
            assert!(
                !message.contains(hostile) && message.len() < 800,
                "{message}"
            );
        }
        broken.extend(codes.iter().copied());
    }
    for url in [
        "https://host.invalid/",
        "https://user:secret@127.0.0.1/",
        "wallet",
    ] {
        let found = online(url, |_| {});
        assert_eq!(found[0].0, "online-unreachable", "{url}");
        assert!(!found[0].1.contains("secret"), "{found:?}");
    }

    // A service with a certificate that is not trusted.
    let folder = tempfile::tempdir().unwrap();
    let made = Command::new("openssl")
        .current_dir(folder.path())
        .args("req -x509 -newkey rsa:2048 -nodes -keyout key -out certificate".split(' '))
        .args([
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=DNS:localhost",
            "-addext",
            "basicConstraints=critical,CA:FALSE",
        ])
        .output()
        .unwrap();
    assert!(made.status.success());
    let mut server = Command::new("openssl")
        .current_dir(folder.path())
        .args("s_server -accept 127.0.0.1:0 -key key -cert certificate -www".split(' '))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(server.stdout.take().unwrap()).lines();
    let port = lines
        .map_while(Result::ok)
        .find_map(|line| Some(line.strip_prefix("ACCEPT 127.0.0.1:")?.to_owned()))
        .expect("openssl says where it listens");
    let url = format!("https://localhost:{port}/");
    let untrusted = online(&url, |_| {});
    let trusted = online(&url, |command| {
        command.env("SSL_CERT_FILE", folder.path().join("certificate"));
    });
    server.kill().unwrap();
    server.wait().unwrap();
    assert_eq!(untrusted.len(), 1);
    assert_eq!(untrusted[0].0, "online-certificate", "{untrusted:?}");
    broken.insert("online-certificate");
    // It is a web server, but not a wallet's.
    assert!(
        trusted.iter().all(|(code, _)| code != "online-certificate"),
        "{trusted:?}"
    );

    let online = RULES.iter().filter(|rule| rule.area == Area::Online);
    assert_eq!(broken, online.map(|rule| rule.code).collect());
}
