//! `passkit serve --enroll-url`: rewards enrolment through another program.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::Command,
    sync::{Arc, Mutex},
};

use passkit_archive::{PassFiles, check_token_signature};
use ring::hmac;
use serde_json::{Value, json};

use crate::program::{Answer, Service, eventually, passkit, run, send};

pub(crate) const TYPE: &str = "pass.com.example.concert";
const SECRET: &str = "a-secret-of-the-receiver";

/// The program that stores the data of customers.
pub(crate) struct Receiver {
    url: String,
    /// What it got: the bodies of all requests.
    got: Arc<Mutex<Vec<Value>>>,
    /// What it answers next: the status and the body.
    answer: Arc<Mutex<(u16, String)>>,
}

impl Receiver {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/enrol", listener.local_addr().unwrap());
        let (got, answer) = (
            Arc::<Mutex<Vec<Value>>>::default(),
            Arc::new(Mutex::new((200, String::new()))),
        );
        let (all, next) = (got.clone(), answer.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let body = body_of(&stream);
                all.lock().unwrap().push(body);
                let (status, body) = next.lock().unwrap().clone();
                let length = body.len();
                let head = format!(
                    "HTTP/1.1 {status} X\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
                );
                let _ = stream.write_all((head + &body).as_bytes());
            }
        });
        Self { url, got, answer }
    }

    pub(crate) fn answers(&self, status: u16, row: &Value) {
        *self.answer.lock().unwrap() = (status, row.to_string());
    }
}

/// Reads a request, and checks that its signature is over its body.
fn body_of(stream: &TcpStream) -> Value {
    let mut reader = BufReader::new(stream);
    let (mut length, mut signature) = (0, String::new());
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let Some((name, value)) = line.trim().split_once(": ") else {
            if line.trim().is_empty() {
                break;
            }
            assert!(line.starts_with("POST /enrol "), "{line}");
            continue;
        };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().unwrap(),
            "x-passkit-signature" => signature = value.to_owned(),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    let digits = signature.strip_prefix("sha256=").unwrap();
    let bytes: Vec<u8> = (0..digits.len() / 2)
        .map(|at| u8::from_str_radix(&digits[2 * at..][..2], 16).unwrap())
        .collect();
    hmac::verify(&key, &body, &bytes).unwrap();
    serde_json::from_slice(&body).unwrap()
}

/// A folder with a template that offers enrolment.
pub(crate) struct Desk(tempfile::TempDir);

impl Desk {
    pub(crate) fn new() -> Self {
        let desk = Self(tempfile::tempdir().unwrap());
        let made = run(passkit()
            .args(["new", "card.pkpasstemplate", "--style", "posterEventTicket"])
            .args(["--throwaway-cert", "card.pem"])
            .current_dir(desk.0.path()));
        assert_eq!(made.0, Some(0), "{made:?}");
        let form = json!({
            "requiredPersonalizationFields": ["PKPassPersonalizationFieldName", "PKPassPersonalizationFieldEmailAddress"],
            "description": "Join the club",
        });
        desk.write("card.pkpasstemplate/personalization.json", form.to_string());
        for scale in ["", "@2x", "@3x"] {
            let logo =
                fs::read(desk.path(&format!("card.pkpasstemplate/logo{scale}.png"))).unwrap();
            desk.write(
                &format!("card.pkpasstemplate/personalizationLogo{scale}.png"),
                logo,
            );
        }
        desk.write(
            "card.pkpasstemplate/passkit.toml",
            "serial = \"{id}\"\nenrolled = \"{customer}\"\n[fields]\nname = { value = \"{name}\", if-empty = \"keep\" }\n",
        );
        desk.write("card.toml", "template = \"card.pkpasstemplate\"\nout = \"passes\"\ncert = \"card.pem\"\nfrom = \"members.csv\"\n");
        desk.write("members.csv", "id,customer,name\nA-1,,\nA-2,,\n");
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path(name), content).unwrap();
    }

    pub(crate) fn service(&self, receiver: &Receiver) -> Service {
        self.start(Service::new(), receiver)
    }

    fn start(&self, service: Service, receiver: &Receiver) -> Service {
        let make = self.path("card.toml").display().to_string();
        let mut service = service.given(&["--make", &make, "--enroll-url", &receiver.url]);
        service.set_variable("PASSKIT_ENROLL_SECRET", SECRET);
        service.start();
        eventually("the passes of the table are served", || {
            let made = ["A-1", "A-2"]
                .map(|serial| self.path(&format!("passes/{serial}~8.pkpass")).exists());
            made == [true, true]
                && ["A-1", "A-2"].iter().all(|serial| {
                    let token = self.token(&format!("{serial}~8.pkpass"));
                    get(&service, serial, &token).status == 200
                })
        });
        service
    }

    /// Returns the authentication token in a made pass.
    pub(crate) fn token(&self, file: &str) -> String {
        let files = PassFiles::open(self.path("passes").join(file)).unwrap();
        let pass = files.description().unwrap();
        pass["authenticationToken"].as_str().unwrap().to_owned()
    }
}

fn enrol(service: &Service, serial: &str, token: &str, body: &Value) -> Answer {
    let path = format!("/v1/passes/{TYPE}/{serial}/personalize");
    let headers = [
        ("Authorization", &*format!("ApplePass {token}")),
        ("Content-Type", "application/json"),
    ];
    send(
        &service.address(),
        "POST",
        &path,
        &headers,
        body.to_string().as_bytes(),
    )
    .unwrap()
}

fn get(service: &Service, serial: &str, token: &str) -> Answer {
    let path = format!("/v1/passes/{TYPE}/{serial}");
    let headers = [("Authorization", &*format!("ApplePass {token}"))];
    send(&service.address(), "GET", &path, &headers, b"").unwrap()
}

fn fetch(service: &Service, serial: &str, token: &str) -> PassFiles {
    let answer = get(service, serial, token);
    assert_eq!(answer.status, 200, "{answer:?}");
    PassFiles::of_archive(&answer.body).unwrap()
}

pub(crate) fn body(name: &str) -> Value {
    json!({
        "personalizationToken": "abc",
        "requiredPersonalizationInfo": { "fullName": name, "emailAddress": "ada-secret@example.org" },
    })
}

#[test]
fn a_customer_gets_a_pass_with_their_name() {
    let (desk, receiver) = (Desk::new(), Receiver::start());
    let service = desk.service(&receiver);
    let token = desk.token("A-1~8.pkpass");
    assert!(
        fetch(&service, "A-1", &token)
            .get("personalization.json")
            .is_some()
    );

    // Nothing happens while the receiver fails, or while no enrolled pass can be made from its
    // answer.
    let row = |id: &str, customer: &str, name: &str| json!({ "id": id, "customer": customer, "name": name });
    for (status, row) in [
        (500, row("A-1", "7", "Ada")),
        (200, json!("no row")),
        (200, row("A-2", "7", "Ada")),
        (200, row("A-1", "", "Ada")),
        (200, row("A-1", "7", &"x".repeat(70_000))),
    ] {
        receiver.answers(status, &row);
        assert_eq!(
            enrol(&service, "A-1", &token, &body("Ada")).status,
            503,
            "{row:.60}"
        );
        assert!(
            fetch(&service, "A-1", &token)
                .get("personalization.json")
                .is_some()
        );
    }
    let failed = receiver.got.lock().unwrap().len();
    assert_eq!(failed, 5);

    receiver.answers(200, &row("A-1", "7", "Ada <b>Lovelace</b>"));
    let answer = enrol(&service, "A-1", &token, &body("Ada"));
    assert_eq!(answer.status, 200, "{answer:?}");
    let findings = check_token_signature(&TYPE.parse().unwrap(), "abc", &answer.body);
    assert_eq!(
        findings.worst(),
        Some(passkit_archive::Level::Warning),
        "{findings}"
    );
    let files = fetch(&service, "A-1", &token);
    let names: Vec<&str> = files
        .names()
        .filter(|name| name.contains("ersonalization"))
        .collect();
    assert!(names.is_empty(), "{names:?}");
    assert!(
        Value::from(files.description().unwrap())
            .to_string()
            .contains("Ada <b>Lovelace</b>")
    );
    let got = receiver.got.lock().unwrap()[5].clone();
    assert_eq!(
        (&got["type"], &got["serial"]),
        (&json!(TYPE), &json!("A-1"))
    );
    let person = json!({ "fullName": "Ada", "emailAddress": "ada-secret@example.org" });
    assert_eq!(got["person"], person);

    // A repeated request does not reach the receiver. The other pass still offers enrolment.
    assert_eq!(enrol(&service, "A-1", &token, &body("Eve")).status, 200);
    assert_eq!(receiver.got.lock().unwrap().len(), 6);
    assert_eq!(
        enrol(&service, "A-1", "a-token-of-no-pass-at-all", &body("Eve")).status,
        401
    );
    assert!(
        fetch(&service, "A-2", &desk.token("A-2~8.pkpass"))
            .get("personalization.json")
            .is_some()
    );

    // A table that does not have the customer yet does not replace the personal pass.
    desk.write("members.csv", "id,customer,name\nA-1,,Nobody\nA-2,,\n");
    eventually("the row is refused", || {
        service
            .said()
            .contains("column \"customer\": is empty, but the pass was enrolled")
    });
    assert!(
        fetch(&service, "A-1", &token)
            .get("personalization.json")
            .is_none()
    );
    desk.write("members.csv", "id,customer,name\nA-1,7,Ada Byron\nA-2,,\n");
    eventually("the new name is served", || {
        let files = fetch(&service, "A-1", &token);
        Value::from(files.description().unwrap())
            .to_string()
            .contains("Ada Byron")
    });

    // The data are in no file and in no log.
    assert!(!service.said().contains("ada-secret"), "{}", service.said());
    let found = Command::new("grep")
        .args(["-r", "-l", "ada-secret"])
        .arg(service.folder.path())
        .arg(desk.path("passes"))
        .output()
        .unwrap();
    assert!(
        found.stdout.is_empty(),
        "{}",
        String::from_utf8_lossy(&found.stdout)
    );
}

#[test]
fn a_virtual_phone_enrols() {
    let (desk, receiver) = (Desk::new(), Receiver::start());
    let service = desk.service(&receiver);
    let url = service.url();
    let phone = |arguments: &[&str]| {
        let mut command = passkit();
        command
            .arg("device")
            .args(arguments)
            .current_dir(desk.0.path());
        let (code, out, said) = run(&mut command);
        (code, out + &said)
    };
    let form = ["--name", "Ada", "--email", "ada-secret@example.org"];
    let personalize = || phone(&[&["personalize"], &form[..]].concat());
    let (code, said) = phone(&["add", "passes/A-1~8.pkpass", "--url", &url]);
    assert_eq!(code, Some(0), "{said}");

    receiver.answers(500, &json!({}));
    let (code, said) = personalize();
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("wrong: Personalize pass task (pass type")
            && said.contains("encountered error: Unexpected response code 503"),
        "{said}"
    );

    receiver.answers(200, &json!({ "id": "A-1", "customer": "7", "name": "Ada" }));
    let (code, said) = personalize();
    assert_eq!(code, Some(0), "{said}");
    for line in [
        format!("enrolled: {TYPE} A-1\n"),
        format!("updated: {TYPE} A-1\n"),
    ] {
        assert!(said.contains(&line), "{line}{said}");
    }
    let person = json!({ "fullName": "Ada", "emailAddress": "ada-secret@example.org" });
    assert_eq!(receiver.got.lock().unwrap()[1]["person"], person);

    // The personal version has no form.
    let (code, said) = personalize();
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("offers no rewards enrolment"), "{said}");
}

#[test]
fn settings_that_cannot_enrol_are_refused() {
    let (desk, receiver) = (Desk::new(), Receiver::start());
    let make = desk.path("card.toml").display().to_string();
    let serve = |secret: &str, url: &str| {
        let store = format!("sqlite:{}", desk.path("passkit.db").display());
        let mut command = passkit();
        command
            .args([
                "serve",
                "--listen",
                "127.0.0.1:0",
                "--store",
                &store,
                "--make",
                &make,
                "--enroll-url",
                url,
            ])
            .env("PASSKIT_ENROLL_SECRET", secret);
        let (code, _, said) = run(&mut command);
        assert_eq!(code, Some(2), "{said}");
        said
    };
    assert!(
        serve("short", &receiver.url)
            .contains("PASSKIT_ENROLL_SECRET must have at least 16 characters")
    );
    assert!(serve(SECRET, "ftp://example.org").contains("the URL of --enroll-url"));
    desk.write("card.pkpasstemplate/passkit.toml", "serial = \"{id}\"\n");
    assert!(serve(SECRET, &receiver.url).contains("a line such as enrolled = \"{customer}\""));
}

#[test]
fn a_receiver_without_encryption_causes_a_warning() {
    let desk = Desk::new();
    let mut receiver = Receiver::start();
    let warning = "--enroll-url sends personal data without encryption";
    let service = desk.service(&receiver);
    assert!(!service.said().contains(warning), "{}", service.said());
    drop(service);
    receiver.url = "http://receiver.invalid/enrol".into();
    let service = desk.service(&receiver);
    assert_eq!(service.said().matches(warning).count(), 1);
}

#[test]
fn two_instances_enrol_a_customer_once() {
    let (desk, receiver) = (Desk::new(), Receiver::start());
    let url = crate::postgres::migrated();
    let instances = [(); 2].map(|()| desk.start(Service::over(&url), &receiver));
    receiver.answers(200, &json!({ "id": "A-1", "customer": "7", "name": "Ada" }));
    let token = desk.token("A-1~8.pkpass");
    std::thread::scope(|scope| {
        let calls = (0..20).map(|number| {
            let (service, token) = (&instances[number % 2], &token);
            scope.spawn(move || enrol(service, "A-1", token, &body(&number.to_string())))
        });
        for call in calls.collect::<Vec<_>>() {
            let answer = call.join().unwrap();
            assert_eq!(answer.status, 200, "{answer:?}");
        }
    });
    assert_eq!(receiver.got.lock().unwrap().len(), 1);
    for service in &instances {
        eventually("the instance serves the enrolled pass", || {
            let answer = get(service, "A-1", &token);
            answer.status == 200
                && PassFiles::of_archive(&answer.body)
                    .unwrap()
                    .get("personalization.json")
                    .is_none()
        });
    }
}
