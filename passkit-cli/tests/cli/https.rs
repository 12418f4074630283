//! HTTPS without a proxy: `--tls-cert` and `--tls-key`.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, SystemTime},
};

use crate::{
    archives::pass,
    configuration::hang_up,
    metrics::{self, scrape, value},
    program::{Service, authorization, eventually, run, send},
    push::{Local, METRICS, TYPE},
};

const SERIAL: &str = "A/1";

/// Self-signed certificates for this machine, with their keys.
pub(crate) struct Certificates(tempfile::TempDir);

impl Certificates {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Makes `NAME.pem` and `NAME.key`.
    pub(crate) fn make(&self, name: &str, options: &[&str]) {
        let mut openssl = Command::new("openssl");
        openssl
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
            ])
            .args([
                "-subj",
                "/CN=localhost",
                "-addext",
                "subjectAltName=IP:127.0.0.1",
            ])
            .args(options)
            .arg("-keyout")
            .arg(self.file(&format!("{name}.key")))
            .arg("-out")
            .arg(self.file(&format!("{name}.pem")));
        let (code, _, said) = run(&mut openssl);
        assert_eq!(code, Some(0), "{said}");
    }

    /// Replaces the files of `to` with the files of `from`.
    fn replace(&self, from: &str, to: &str) {
        for end in ["pem", "key"] {
            fs::rename(
                self.file(&format!("{from}.{end}")),
                self.file(&format!("{to}.{end}")),
            )
            .unwrap();
        }
    }

    fn arguments(&self, certificate: &str, key: &str) -> Vec<String> {
        let path = |name: &str| self.file(name).to_str().unwrap().to_owned();
        vec![
            "--tls-cert".into(),
            path(certificate),
            "--tls-key".into(),
            path(key),
        ]
    }
}

/// Makes a service with one pass that serves over TLS.
fn service(certificates: &Certificates) -> Service {
    let service = Service::new()
        .given(&certificates.arguments("a.pem", "a.key"))
        .given(&METRICS);
    fs::write(service.passes().join("a.pkpass"), pass(TYPE, SERIAL, "one")).unwrap();
    service
}

/// Fetches the pass with curl. Returns the status, the version of HTTP, and the body.
fn fetch(service: &Service, root: &Path, options: &[&str]) -> (String, Vec<u8>) {
    let authorization = format!("Authorization: {}", authorization(TYPE, SERIAL));
    let url = format!("https://{}/v1/passes/{TYPE}/A%2F1", service.address());
    let body = tempfile::NamedTempFile::new().unwrap();
    let (_, out, _) = run(Command::new("curl")
        .args(["--silent", "--max-time", "60", "--cacert"])
        .arg(root)
        .args([
            "-H",
            &authorization,
            "-w",
            "%{http_code} %{http_version}",
            "-o",
        ])
        .arg(body.path())
        .args(options)
        .arg(url));
    (out, fs::read(body.path()).unwrap())
}

#[test]
fn phones_are_served_over_both_versions_of_http() {
    let certificates = Certificates::new();
    certificates.make("a", &[]);
    let mut service = service(&certificates);
    service.start();
    let archive = fs::read(service.passes().join("a.pkpass")).unwrap();
    let root = certificates.file("a.pem");
    for (options, answer) in [
        (&["--http1.1"][..], "200 1.1"),
        (&["--http2"], "200 2"),
        // A client that names no version gets HTTP/1.1.
        (&["--no-alpn"], "200 1.1"),
        (&["--http2", "--tls-max", "1.2"], "200 2"),
        (&["--tlsv1.3"], "200 2"),
    ] {
        let (said, body) = fetch(&service, &root, options);
        assert_eq!(said, answer, "{options:?}");
        assert!(body == archive, "{options:?}");
    }
    // Plain HTTP and old versions of TLS get no answer.
    assert!(send(&service.address(), "GET", "/v1/", &[], b"").is_err());
    for (version, connects) in [("-tls1_1", false), ("-tls1_2", true), ("-tls1_3", true)] {
        let mut client = Command::new("openssl");
        client
            .args(["s_client", "-connect", &service.address(), version])
            .args(["-cipher", "ALL:@SECLEVEL=0"])
            .stdin(Stdio::null());
        assert_eq!(run(&mut client).0 == Some(0), connects, "{version}");
    }
    let address = metrics::address(&service);
    assert_eq!(
        send(&address, "GET", "/readyz", &[], b"").unwrap().status,
        200
    );
    assert!(service.stop("TERM").success());
}

#[test]
fn many_requests_of_one_connection_are_answered() {
    let certificates = Certificates::new();
    certificates.make("a", &[]);
    let mut service = service(&certificates);
    service.start();
    let url = format!(
        "https://{}/v1/passes/{TYPE}/A%2F1?[1-200]",
        service.address()
    );
    let authorization = format!("Authorization: {}", authorization(TYPE, SERIAL));
    let (code, out, said) = run(Command::new("curl")
        .args([
            "--silent",
            "--show-error",
            "--parallel",
            "--parallel-max",
            "100",
            "--cacert",
        ])
        .arg(certificates.file("a.pem"))
        .args(["--http2", "-H", &authorization, "-o", "/dev/null"])
        .args(["-w", "%{http_code} %{http_version}\n"])
        .arg(url));
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(out.matches("200 2").count(), 200, "{out}");
}

#[test]
fn a_pair_that_cannot_work_is_one_line() {
    let certificates = Certificates::new();
    certificates.make("a", &[]);
    certificates.make("b", &[]);
    let day = Duration::from_secs(24 * 3600);
    let now = SystemTime::now();
    let old = Local::start()
        .apns
        .issue_for(TYPE, now - 9 * day, now - day)
        .unwrap();
    fs::write(certificates.file("old.pem"), old.certificate).unwrap();
    fs::write(certificates.file("old.key"), old.key).unwrap();
    let encrypted = fs::read_to_string(certificates.file("a.key")).unwrap();
    let encrypted = encrypted.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
    fs::write(certificates.file("encrypted.key"), encrypted).unwrap();
    fs::write(certificates.file("empty.pem"), "").unwrap();
    for (certificate, key, mentions) in [
        ("old.pem", "old.key", ["old.pem", "expired on"]),
        ("a.pem", "b.key", ["b.key", "does not belong to"]),
        ("a.pem", "missing.key", ["missing.key", "No such file"]),
        ("missing.pem", "a.key", ["missing.pem", "No such file"]),
        ("empty.pem", "a.key", ["empty.pem", "has no certificate"]),
        ("a.pem", "a.pem", ["a.pem", "has no private key"]),
        ("a.key", "a.key", ["a.key", "has no certificate"]),
        ("a.pem", "encrypted.key", ["encrypted.key", "encrypted"]),
    ] {
        let service = Service::new().given(&certificates.arguments(certificate, key));
        let (code, _, said) = run(&mut service.command());
        assert_eq!((code, said.lines().count()), (Some(2), 1), "{said}");
        assert!(
            mentions.iter().all(|mention| said.contains(mention)),
            "{said}"
        );
    }
    let service = Service::new().given(&certificates.arguments("a.pem", "a.key")[..2]);
    let (code, _, said) = run(&mut service.command());
    assert_eq!((code, said.lines().count()), (Some(2), 1), "{said}");
    assert!(said.contains("--tls-key"), "{said}");
}

#[test]
fn a_renewed_certificate_is_used_and_a_broken_one_is_not() {
    let certificates = Certificates::new();
    for name in ["a", "b", "c"] {
        certificates.make(name, &["-days", "3"]);
    }
    let roots = ["a", "b", "c"].map(|name| {
        let root = certificates.file(&format!("{name}.root"));
        fs::copy(certificates.file(&format!("{name}.pem")), &root).unwrap();
        root
    });
    let mut service = service(&certificates);
    service.start();
    let trusts = |root: &Path| fetch(&service, root, &[]).0 == "200 2";
    assert!(trusts(&roots[0]) && !trusts(&roots[1]));
    let address = metrics::address(&service);
    let report = send(&address, "GET", "/readyz", &[], b"").unwrap();
    let warning = report.json()["warnings"][0].as_str().unwrap().to_owned();
    assert!(
        warning.contains("the TLS certificate expires on"),
        "{warning}"
    );
    assert!(
        value(
            &scrape(&service),
            "passkit_tls_certificate_not_after_seconds"
        ) > Some(0.0)
    );

    certificates.replace("b", "a");
    hang_up(&service);
    eventually("the renewed certificate is used", || trusts(&roots[1]));

    // Only the certificate is renewed so far, but not the key.
    fs::rename(certificates.file("c.pem"), certificates.file("a.pem")).unwrap();
    hang_up(&service);
    eventually("it is logged", || {
        service
            .said()
            .contains("the previous TLS certificate stays in use")
    });
    assert!(trusts(&roots[1]));
    // Without a signal, the files are checked from time to time.
    fs::rename(certificates.file("c.key"), certificates.file("a.key")).unwrap();
    eventually("the renewed certificate is used", || trusts(&roots[2]));
}

/// Returns a frame of HTTP/2 that belongs to the whole connection.
fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = [0, 0, u8::try_from(payload.len()).unwrap()];
    [&length[..], &[kind, flags, 0, 0, 0, 0], payload].concat()
}

#[test]
fn a_file_that_cannot_be_read_in_time_stops_no_phone() {
    let certificates = Certificates::new();
    certificates.make("a", &[]);
    let root = certificates.file("root.pem");
    let mut service = service(&certificates);
    service.start();
    fs::rename(certificates.file("a.pem"), &root).unwrap();
    // Nobody writes to this pipe, so reading it takes forever. A file on a network that is gone does the same.
    let mut mkfifo = Command::new("mkfifo");
    let made = mkfifo.arg(certificates.file("a.pem")).status();
    assert!(made.unwrap().success());
    hang_up(&service);
    eventually("the files are read", || {
        service
            .said()
            .contains("SIGHUP: the options are read again")
    });
    for _ in 0..10 {
        assert_eq!(fetch(&service, &root, &[]).0, "200 2");
    }
    assert!(service.stop("TERM").success());
}

#[test]
fn a_client_with_bad_http_2_fills_no_log() {
    const PING: u8 = 6;
    const ACK: u8 = 1;
    let certificates = Certificates::new();
    certificates.make("a", &[]);
    let mut service = service(&certificates).logging("trace");
    service.start();
    let mut client = Command::new("openssl")
        .args(["s_client", "-quiet", "-alpn", "h2"])
        .args(["-connect", &service.address()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let settings = frame(4, 0, b"");
    let unasked = frame(PING, ACK, b"unasked!").repeat(1_000);
    let last = frame(PING, 0, b"the last");
    let sent = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        &*settings,
        &unasked,
        &last,
    ]
    .concat();
    let mut to = client.stdin.take().unwrap();
    to.write_all(&sent).unwrap();
    let answer = frame(PING, ACK, b"the last");
    let mut received = Vec::new();
    let mut from = client.stdout.take().unwrap();
    while !received.ends_with(&answer) {
        let mut byte = [0];
        from.read_exact(&mut byte).unwrap();
        received.push(byte[0]);
    }
    client.kill().unwrap();
    client.wait().unwrap();
    let said = service.stop_and_hear();
    assert!(said.lines().count() < 100, "{said}");
}

#[test]
fn clients_that_never_send_a_request_do_not_delay_a_stop() {
    let certificates = Certificates::new();
    certificates.make("a", &[]);
    let root = certificates.file("a.pem");
    let mut service = service(&certificates);
    service.start();
    let mut partial = TcpStream::connect(service.address()).unwrap();
    // This is the start of a record with a ClientHello.
    partial.write_all(&[22, 3, 1, 2, 0, 1, 0]).unwrap();
    let _silent = TcpStream::connect(service.address()).unwrap();
    let mut idle: Vec<Child> = ["h2", "http/1.1"]
        .map(|version| {
            let mut client = Command::new("openssl");
            client
                .args(["s_client", "-quiet", "-connect", &service.address()])
                .args(["-alpn", version])
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::piped());
            let mut client = client.spawn().unwrap();
            // It says something about the certificate, so the handshake is finished.
            client
                .stderr
                .as_mut()
                .unwrap()
                .read_exact(&mut [0; 1])
                .unwrap();
            client
        })
        .into();
    // All of them are accepted before this connection.
    assert_eq!(fetch(&service, &root, &[]).0, "200 2");
    let said = service.stop_and_hear();
    assert!(!said.contains("still in flight"), "{said}");
    for client in &mut idle {
        client.wait().unwrap();
    }
}

#[test]
fn clients_that_never_finish_a_handshake_keep_no_other_client_out() {
    let certificates = Certificates::new();
    certificates.make("a", &[]);
    let mut service = service(&certificates);
    service.start();
    let silent: Vec<TcpStream> = (0..400)
        .map(|index| {
            let mut stream = TcpStream::connect(service.address()).unwrap();
            if index % 2 == 0 {
                // This is the start of a record with a ClientHello.
                stream.write_all(&[22, 3, 1, 2, 0, 1, 0]).unwrap();
            }
            stream
        })
        .collect();
    assert_eq!(fetch(&service, &certificates.file("a.pem"), &[]).0, "200 2");
    // The oldest connections were closed to make room. The others are closed after their time limit.
    for mut stream in silent {
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        let ended = stream.read_to_end(&mut Vec::new());
        let is_reset = |error: &std::io::Error| error.kind() == std::io::ErrorKind::ConnectionReset;
        assert!(
            ended.is_ok() || ended.as_ref().is_err_and(is_reset),
            "{ended:?}"
        );
    }
    assert_eq!(fetch(&service, &certificates.file("a.pem"), &[]).0, "200 2");
}
