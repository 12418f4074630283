//! `passkit serve` as a process, and a plain HTTP client for it.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::PathBuf,
    process::{Child, ChildStderr, Command, ExitStatus, Output, Stdio},
    sync::{Arc, Mutex, mpsc},
    time::{Duration, Instant},
};

use crate::archives::token_of;

pub(crate) fn passkit() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_passkit"));
    // What a command makes by default does not land in the repository.
    command
        .stdin(Stdio::null())
        .current_dir(env!("CARGO_TARGET_TMPDIR"));
    for (name, _) in
        std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PASSKIT_"))
    {
        command.env_remove(name);
    }
    command
}

/// Makes a folder with the mode that the program gives its folders. Another mode would cause a warning.
fn private_folder(path: &std::path::Path) {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().mode(0o700).create(path).unwrap();
}

/// The folders of a service, and its process while it runs.
pub(crate) struct Service {
    pub(crate) folder: Arc<tempfile::TempDir>,
    store: String,
    arguments: Vec<String>,
    /// The value of PASSKIT_LOG.
    log: Option<&'static str>,
    /// More variables of the environment.
    variables: Vec<(&'static str, String)>,
    running: Option<Running>,
}

struct Running {
    process: Child,
    address: String,
    said: Arc<Mutex<String>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// An answer with its complete body.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }
}

impl Service {
    /// Makes a service with empty folders. It is not running yet.
    pub(crate) fn new() -> Self {
        Self::with_arguments(&[])
    }

    pub(crate) fn with_arguments(arguments: &[&str]) -> Self {
        let mut service = Self::over("");
        service.store = format!("sqlite:{}", service.store().join("passkit.db").display());
        private_folder(&service.store());
        service.arguments = arguments.iter().map(ToString::to_string).collect();
        service
    }

    /// Makes a service whose store no other process can use at the same time.
    pub(crate) fn alone() -> Self {
        let mut service = Self::new();
        service.store = format!("sled:{}", service.store().display());
        service
    }

    /// Makes a service with empty folders and this store.
    pub(crate) fn over(store: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["passes", "orders"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        Self {
            folder: Arc::new(folder),
            store: store.to_owned(),
            arguments: Vec::new(),
            log: None,
            variables: Vec::new(),
            running: None,
        }
    }

    /// Makes another instance over the same folders and the same store.
    pub(crate) fn sibling(&self) -> Self {
        let Self {
            folder,
            store,
            arguments,
            log,
            variables,
            ..
        } = self;
        let (folder, store, arguments) = (folder.clone(), store.clone(), arguments.clone());
        Self {
            folder,
            store,
            arguments,
            log: *log,
            variables: variables.clone(),
            running: None,
        }
    }

    /// Adds these arguments.
    pub(crate) fn given(mut self, arguments: &[impl ToString]) -> Self {
        self.arguments
            .extend(arguments.iter().map(ToString::to_string));
        self
    }

    /// Sets the log level.
    pub(crate) fn logging(mut self, level: &'static str) -> Self {
        self.log = Some(level);
        self
    }

    /// Sets a variable of the environment from the next start on.
    pub(crate) fn set_variable(&mut self, name: &'static str, value: &str) {
        self.variables.push((name, value.to_owned()));
    }

    /// Makes another instance over the same store. It has a separate disk and separate folders, and
    /// all of them are empty.
    pub(crate) fn newcomer(&self) -> Self {
        Self::over(&self.store).given(&self.arguments)
    }

    /// Uses another store from the next start on.
    pub(crate) fn set_store(&mut self, store: &str) {
        self.store = store.to_owned();
    }

    /// Makes another instance like [`sibling`](Self::sibling), but with these arguments only.
    pub(crate) fn sibling_with(&self, arguments: &[impl ToString]) -> Self {
        let mut sibling = self.sibling();
        sibling.arguments.clear();
        sibling.given(arguments)
    }

    pub(crate) fn passes(&self) -> PathBuf {
        self.folder.path().join("passes")
    }

    pub(crate) fn orders(&self) -> PathBuf {
        self.folder.path().join("orders")
    }

    /// Returns the folder of the store.
    pub(crate) fn store(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    /// Returns the argument of `--store`.
    pub(crate) fn store_url(&self) -> &str {
        &self.store
    }

    /// Returns the command that serves these folders on a free port.
    pub(crate) fn command(&self) -> Command {
        let mut command = passkit();
        command.arg("serve");
        if !self.arguments.iter().any(|argument| argument == "--listen") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        command
            .arg("--store")
            .arg(&self.store)
            .arg("--copies")
            .arg(self.folder.path().join("copies"))
            .arg("--passes")
            .arg(self.passes())
            .arg("--orders")
            .arg(self.orders())
            .args(&self.arguments)
            .envs(self.log.map(|level| ("PASSKIT_LOG", level)))
            .envs(self.variables.clone());
        command
    }

    /// Starts the service and waits until it prints that it listens.
    pub(crate) fn start(&mut self) {
        let mut process = self
            .command()
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = collect(process.stderr.take().unwrap());
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let address = line
            .trim()
            .strip_prefix("listening on ")
            .map(|url| {
                url.trim_start_matches("https://")
                    .trim_start_matches("http://")
            })
            .unwrap_or_else(|| {
                let _ = process.wait();
                panic!("said {line:?}, and {}", said.lock().unwrap())
            });
        let address = address.to_owned();
        self.running = Some(Running {
            process,
            address,
            said,
        });
    }

    /// Returns what the service says if it refuses to start. If it starts, it is killed, and this returns `None`.
    pub(crate) fn refusal(&self) -> Option<String> {
        let mut process = self
            .command()
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let started = !line.is_empty();
        if started {
            process.kill().unwrap();
        }
        let output = process.wait_with_output().unwrap();
        (!started).then(|| String::from_utf8(output.stderr).unwrap())
    }

    /// Starts the service. Does not wait until it listens, so its address is not known.
    pub(crate) fn launch(&mut self) {
        let mut process = self
            .command()
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = collect(process.stderr.take().unwrap());
        self.running = Some(Running {
            process,
            address: String::new(),
            said,
        });
    }

    /// Launches the service, and kills it when the condition becomes true.
    pub(crate) fn kill_when(&mut self, mut condition: impl FnMut(&Self) -> bool) {
        self.launch();
        eventually("it may be killed", || condition(self));
        self.kill();
    }

    pub(crate) fn address(&self) -> String {
        self.running.as_ref().unwrap().address.clone()
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// Returns its stderr so far.
    pub(crate) fn said(&self) -> String {
        self.running.as_ref().unwrap().said.lock().unwrap().clone()
    }

    pub(crate) fn kill(&mut self) {
        self.running = None;
    }

    pub(crate) fn id(&self) -> u32 {
        self.running.as_ref().unwrap().process.id()
    }

    /// Sends a signal by name, and waits until the process ends.
    pub(crate) fn stop(&mut self, signal: &str) -> ExitStatus {
        let mut running = self.running.take().unwrap();
        let id = running.process.id().to_string();
        assert!(
            Command::new("kill")
                .args([&format!("-{signal}"), &id])
                .status()
                .unwrap()
                .success()
        );
        running.process.wait().unwrap()
    }

    /// Ends the service with SIGTERM. Returns everything that it wrote to stderr.
    pub(crate) fn stop_and_hear(&mut self) -> String {
        let said = self.running.as_ref().unwrap().said.clone();
        assert!(self.stop("TERM").success());
        // The collector holds the other reference until the end of stderr.
        eventually("its stderr has ended", || Arc::strong_count(&said) == 1);
        let said = said.lock().unwrap();
        said.clone()
    }

    pub(crate) fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        send(&self.address(), method, path, headers, body).unwrap_or_else(|error| {
            panic!("{method} {path}: {error}; the service said {}", self.said())
        })
    }

    /// Returns the statuses of register, get and unregister with this token.
    pub(crate) fn statuses(
        &self,
        device: &str,
        type_id: &str,
        serial: &str,
        token: &str,
    ) -> [u16; 3] {
        let registration = registration(device, type_id, serial);
        let latest = format!("/v1/passes/{type_id}/{}", encoded(serial));
        let headers = [("Authorization", &*format!("ApplePass {token}"))];
        [
            ("POST", &registration),
            ("GET", &latest),
            ("DELETE", &registration),
        ]
        .map(|(method, path)| {
            let body: &[u8] = if method == "POST" {
                br#"{"pushToken":"c0ffee"}"#
            } else {
                b""
            };
            self.send(method, path, &headers, body).status
        })
    }

    pub(crate) fn register(&self, device: &str, type_id: &str, serial: &str) -> u16 {
        let path = registration(device, type_id, serial);
        let body = br#"{"pushToken":"c0ffee"}"#;
        self.send(
            "POST",
            &path,
            &[("Authorization", &authorization(type_id, serial))],
            body,
        )
        .status
    }

    pub(crate) fn unregister(&self, device: &str, type_id: &str, serial: &str) -> u16 {
        let path = registration(device, type_id, serial);
        self.send(
            "DELETE",
            &path,
            &[("Authorization", &authorization(type_id, serial))],
            b"",
        )
        .status
    }

    /// Returns the serial numbers that changed since the tag, and the new tag. Returns `None` for
    /// 204.
    pub(crate) fn list(
        &self,
        device: &str,
        type_id: &str,
        tag: Option<&str>,
    ) -> Option<(Vec<String>, String)> {
        let (parameter, serials, tag_key) = if type_id.starts_with("order.") {
            ("ordersModifiedSince", "orderIdentifiers", "lastModified")
        } else {
            ("passesUpdatedSince", "serialNumbers", "lastUpdated")
        };
        let query = tag
            .map(|tag| format!("?{parameter}={tag}"))
            .unwrap_or_default();
        let answer = self.send(
            "GET",
            &format!("/v1/devices/{device}/registrations/{type_id}{query}"),
            &[],
            b"",
        );
        match answer.status {
            204 => None,
            200 => {
                let json = answer.json();
                let mut listed: Vec<String> =
                    serde_json::from_value(json[serials].clone()).unwrap();
                listed.sort();
                Some((listed, json[tag_key].as_str().unwrap().to_owned()))
            }
            status => panic!("list answered {status}; the service said {}", self.said()),
        }
    }

    pub(crate) fn get(&self, type_id: &str, serial: &str, since: Option<&str>) -> Answer {
        let collection = if type_id.starts_with("order.") {
            "orders"
        } else {
            "passes"
        };
        let authorization = authorization(type_id, serial);
        let mut headers = vec![("Authorization", &*authorization)];
        headers.extend(since.map(|since| ("If-Modified-Since", since)));
        self.send(
            "GET",
            &format!("/v1/{collection}/{type_id}/{}", encoded(serial)),
            &headers,
            b"",
        )
    }
}

pub(crate) fn authorization(type_id: &str, serial: &str) -> String {
    let scheme = if type_id.starts_with("order.") {
        "AppleOrder"
    } else {
        "ApplePass"
    };
    format!("{scheme} {}", token_of(type_id, serial))
}

pub(crate) fn registration(device: &str, type_id: &str, serial: &str) -> String {
    format!(
        "/v1/devices/{device}/registrations/{type_id}/{}",
        encoded(serial)
    )
}

fn encoded(serial: &str) -> String {
    serial
        .bytes()
        .map(|b| {
            if b.is_ascii_alphanumeric() {
                char::from(b).to_string()
            } else {
                format!("%{b:02X}")
            }
        })
        .collect()
}

pub(crate) fn send(
    address: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> std::io::Result<Answer> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    if !body.is_empty() {
        head += &format!("Content-Length: {}\r\n", body.len());
    }
    stream.write_all(format!("{head}\r\n").as_bytes())?;
    stream.write_all(body)?;
    answer_of(&mut stream, method)
}

/// Reads an answer until the service closes the connection.
pub(crate) fn answer_of(stream: &mut TcpStream, method: &str) -> std::io::Result<Answer> {
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let broken = || std::io::Error::other("the answer broke off");
    let end = answer
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .ok_or_else(broken)?;
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let status = head
        .get(9..12)
        .and_then(|status| status.parse().ok())
        .ok_or_else(broken)?;
    let answer = Answer {
        status,
        head,
        body: answer[end + 4..].to_vec(),
    };
    let length = answer
        .header("content-length")
        .map_or(0, |length| length.parse().unwrap());
    if method != "HEAD" && answer.body.len() != length {
        return Err(broken());
    }
    Ok(answer)
}

/// Runs a command to its end. Returns its exit code, stdout and stderr. If the command runs for 10 minutes, all tests end,
/// because it can't be stopped from here.
#[expect(
    clippy::exit,
    reason = "a panic would end only the thread that watches the time"
)]
pub(crate) fn run(command: &mut Command) -> (Option<i32>, String, String) {
    let shown = format!("{command:?}");
    let (ended, end) = mpsc::channel::<()>();
    std::thread::spawn(move || {
        if end.recv_timeout(Duration::from_secs(600)) == Err(mpsc::RecvTimeoutError::Timeout) {
            eprintln!("has not ended after 10 minutes: {shown}");
            std::process::exit(101);
        }
    });
    let output = command.output();
    drop(ended);
    let Output {
        status,
        stdout,
        stderr,
    } = output.unwrap();
    (
        status.code(),
        String::from_utf8(stdout).unwrap(),
        String::from_utf8(stderr).unwrap(),
    )
}

/// Waits for a condition, for at most a minute.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "not within a minute: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn collect(stderr: ChildStderr) -> Arc<Mutex<String>> {
    let said = Arc::new(Mutex::new(String::new()));
    let to = said.clone();
    std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            let mut said = to.lock().unwrap();
            said.push_str(&line);
            said.push('\n');
        }
    });
    said
}
