//! The Unix socket of the service, and the service behind nginx with the file in the documents.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    os::unix::{
        fs::{FileTypeExt as _, PermissionsExt as _},
        net::UnixStream,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use crate::{
    archives::pass,
    https::Certificates,
    program::{Service, authorization, eventually, run},
    push::TYPE,
};

const SERIAL: &str = "A/1 ä";
const ENCODED: &str = "A%2F1%20%C3%A4";

fn on_socket(service: Service, options: &[&str]) -> (Service, PathBuf) {
    fs::write(service.passes().join("a.pkpass"), pass(TYPE, SERIAL, "one")).unwrap();
    let path = service.folder.path().join("passkit.sock");
    let address = format!("unix:{}", path.display());
    (service.given(&["--listen", &address]).given(options), path)
}

/// Sends a request for the pass over a Unix socket. Returns the first line of the answer.
fn ask(socket: &Path) -> std::io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    let authorization = authorization(TYPE, SERIAL);
    write!(
        stream,
        "GET /v1/passes/{TYPE}/{ENCODED} HTTP/1.1\r\nHost: test\r\nAuthorization: {authorization}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    Ok(answer.lines().next().unwrap_or_default().to_owned())
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_socket_is_made_replaced_and_removed() {
    let (mut service, path) = on_socket(Service::new(), &[]);
    service.start();
    assert_eq!(service.address(), format!("unix:{}", path.display()));
    assert_eq!(mode(&path), 0o660);
    assert_eq!(ask(&path).unwrap(), "HTTP/1.1 200 OK");

    // A second instance does not take the socket of the first.
    let said = service.sibling().refusal().unwrap();
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(
        said.contains("passkit.sock") && said.contains("another process listens there"),
        "{said}"
    );
    assert_eq!(ask(&path).unwrap(), "HTTP/1.1 200 OK");

    // A killed process leaves its socket behind.
    service.kill();
    assert!(fs::symlink_metadata(&path).unwrap().file_type().is_socket());
    service.start();
    assert_eq!(ask(&path).unwrap(), "HTTP/1.1 200 OK");
    assert!(service.stop("TERM").success());
    assert!(!path.exists());

    // Other files stay.
    fs::write(&path, "mine").unwrap();
    let said = service.refusal().unwrap();
    assert!(said.contains("not a socket"), "{said}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
}

#[test]
fn the_rights_on_the_socket_can_be_chosen() {
    let (mut service, path) = on_socket(Service::new(), &["--socket-mode", "600"]);
    service.start();
    assert_eq!(mode(&path), 0o600);
    for wrong in ["rw", "1777", "8"] {
        let (other, _) = on_socket(Service::new(), &["--socket-mode", wrong]);
        let said = other.refusal().unwrap();
        assert!(
            said.contains("--socket-mode") && said.lines().count() == 1,
            "{said}"
        );
    }
}

/// nginx with the file in the documents.
pub(crate) struct Nginx {
    process: Child,
    pub(crate) port: u16,
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // The master process of nginx ends its workers.
        let _ = Command::new("kill")
            .arg(self.process.id().to_string())
            .status();
        let _ = self.process.wait();
    }
}

/// Returns a port that was free a moment ago.
pub(crate) fn free_port(address: &str) -> u16 {
    let listener = TcpListener::bind((address, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

/// Starts nginx with the file in the documents, in front of these instances. `changes` are texts of the file, and what
/// replaces them.
pub(crate) fn nginx(
    folder: &Path,
    certificates: &Certificates,
    instances: &[String],
    changes: &[(&str, &str)],
) -> Nginx {
    // Another test may take the port before nginx does. Then nginx ends.
    let start = || try_nginx(folder, certificates, instances, changes);
    std::iter::repeat_with(start)
        .take(5)
        .find_map(|started| started)
        .expect("nginx ended each time")
}

fn try_nginx(
    folder: &Path,
    certificates: &Certificates,
    instances: &[String],
    changes: &[(&str, &str)],
) -> Option<Nginx> {
    let port = free_port("127.0.0.1");
    let site = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/proxies/nginx.conf");
    let mut site = fs::read_to_string(site).unwrap();
    let live = "/etc/letsencrypt/live/wallet.example.com";
    let path = |name: &str| certificates.file(name).to_str().unwrap().to_owned();
    let servers: String = instances
        .iter()
        .map(|instance| format!("server {instance} max_fails=0;\n"))
        .collect();
    let own = [
        (
            "server unix:/run/passkit/passkit.sock max_fails=0;",
            servers,
        ),
        ("listen 443 ", format!("listen 127.0.0.1:{port} ")),
        (&*format!("{live}/fullchain.pem"), path("a.pem")),
        (&format!("{live}/privkey.pem"), path("a.key")),
    ];
    for (here, there) in changes
        .iter()
        .copied()
        .chain(own.iter().map(|(here, there)| (*here, &**there)))
    {
        assert!(site.contains(here), "{here}");
        site = site.replace(here, there);
    }
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {}/{kind};", folder.display()))
        .join("\n");
    // If root starts nginx, its workers would run as a user who can't open the files of this test.
    let user = if rustix::process::geteuid().is_root() {
        "user root root;"
    } else {
        ""
    };
    let main = format!(
        "daemon off;\n{user}\npid {0}/pid;\nerror_log stderr emerg;\nevents {{}}\nhttp {{\naccess_log off;\n{temporary}\n{site}\n}}\n",
        folder.display()
    );
    let file = folder.join("nginx.conf");
    fs::write(&file, main).unwrap();
    let program = ["/usr/sbin/nginx", "/usr/local/sbin/nginx"]
        .into_iter()
        .find(|path| Path::new(path).exists())
        .unwrap_or("nginx");
    let started = Command::new(program)
        .arg("-p")
        .arg(folder)
        .arg("-c")
        .arg(&file)
        .args(["-e", "stderr"])
        .stderr(Stdio::inherit())
        .spawn();
    let process = started.expect("nginx can't be started; install it: apt-get install nginx");
    let mut nginx = Nginx { process, port };
    let mut has_ended = false;
    eventually("nginx listens or ends", || {
        has_ended = nginx.process.try_wait().unwrap().is_some();
        has_ended || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
    (!has_ended).then_some(nginx)
}

#[test]
fn what_phones_send_reaches_the_service_behind_nginx() {
    let certificates = Certificates::new();
    certificates.make("a", &[]);
    for is_socket in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let service = Service::new().given(&["--log", "debug"]);
        let (mut service, upstream) = if is_socket {
            let (service, path) = on_socket(service, &[]);
            (service, format!("unix:{}", path.display()))
        } else {
            fs::write(service.passes().join("a.pkpass"), pass(TYPE, SERIAL, "one")).unwrap();
            (service, String::new())
        };
        service.start();
        let upstream = if is_socket {
            upstream
        } else {
            service.address()
        };
        let nginx = nginx(
            folder.path(),
            &certificates,
            std::slice::from_ref(&upstream),
            &[],
        );
        let port = nginx.port;
        let archive = fs::read(service.passes().join("a.pkpass")).unwrap();

        let body = folder.path().join("body");
        let ask = |path: &str, options: &[&str]| {
            let (_, out, _) = run(Command::new("curl")
                .args([
                    "--silent",
                    "--max-time",
                    "60",
                    "--path-as-is",
                    "--http2",
                    "--cacert",
                ])
                .arg(certificates.file("a.pem"))
                .args(["-w", "%{http_code} %header{x-request-id}", "-o"])
                .arg(&body)
                .args(options)
                .arg(format!("https://127.0.0.1:{port}{path}")));
            out.trim().to_owned()
        };
        let authorization = format!("Authorization: {}", authorization(TYPE, SERIAL));
        let header = ["-H", &*authorization];
        let latest = format!("/v1/passes/{TYPE}/{ENCODED}");
        let head = folder.path().join("head");
        let with_head = ["-H", &*authorization, "-D", head.to_str().unwrap()];
        assert_eq!(ask(&latest, &with_head), "200", "{upstream}");
        let head = fs::read_to_string(head).unwrap();
        let date = head
            .lines()
            .find_map(|line| line.strip_prefix("last-modified: "));
        let since = format!("If-Modified-Since: {}", date.unwrap());
        assert!(fs::read(&body).unwrap() == archive);
        assert!(ask(&latest, &[]).starts_with("401 "));
        // A webServiceURL with a slash at its end makes phones send two slashes.
        assert_eq!(ask(&format!("/{latest}"), &header), "200", "{upstream}");
        let registration = format!("/v1/devices/D-1/registrations/{TYPE}/{ENCODED}");
        let register = ["-H", &authorization, "-d", r#"{"pushToken":"c0ffee"}"#];
        assert_eq!(ask(&registration, &register), "201");
        assert_eq!(ask(&format!("/{registration}"), &register), "200");
        let listed = format!("/v1/devices/D-1/registrations/{TYPE}");
        assert_eq!(ask(&listed, &[]), "200");
        let tag: serde_json::Value = serde_json::from_slice(&fs::read(&body).unwrap()).unwrap();
        let tag = tag["lastUpdated"].as_str().unwrap();
        assert_eq!(
            ask(&format!("{listed}?passesUpdatedSince={tag}"), &[]),
            "204"
        );
        assert_eq!(ask(&latest, &["-H", &authorization, "-H", &since]), "304");
        let delete = ["-H", &authorization, "-X", "DELETE"];
        assert_eq!(ask(&registration, &delete), "200");
        assert_eq!(ask("/admin/v1/publish", &["-d", "{}"]), "404");
        let large = "x".repeat(300_000);
        let file = folder.path().join("large");
        fs::write(&file, large).unwrap();
        let log = format!("@{}", file.display());
        assert_eq!(ask("/v1/log", &["--data-binary", &log]), "413");
        // The log has the identifier that nginx chose.
        let refused = ask("/v1/nothing", &[]);
        let (status, id) = refused.split_once(' ').unwrap();
        assert_eq!((status, id.len()), ("404", 32), "{refused}");
        eventually("the request is logged", || {
            service.said().contains(&format!("request={id}"))
        });
    }
}
