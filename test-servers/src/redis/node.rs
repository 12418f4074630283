use std::{
    env,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    sync::Mutex,
    time::Duration,
};

use tempfile::TempDir;

use super::network::{Host, Network};
use crate::{
    process::{self, Process, free_port},
    wait::{TIME_LIMIT, for_condition, lock},
};

/// The longest time for a server to read its data file.
const LOADING: Duration = Duration::from_secs(300);

/// A `redis-server` or Sentinel on the loopback interface or on a host of a [`Network`]. It ends when this value is dropped.
#[derive(Debug)]
pub struct Node {
    pub(super) args: Vec<String>,
    pub(super) folder: TempDir,
    pub(super) host: Host,
    /// The port without TLS.
    pub(super) port: u16,
    tls_port: Option<u16>,
    process: Mutex<Option<Process>>,
}

/// Returns the program that `PASSKIT_TEST_REDIS_SERVER` names, or else the first `redis-server` on the `PATH`.
fn program() -> io::Result<PathBuf> {
    if let Some(named) = env::var_os("PASSKIT_TEST_REDIS_SERVER") {
        return Ok(named.into());
    }
    let found = process::find("redis-server", []).or_else(|| process::find("valkey-server", []));
    found.ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::NotFound,
            "no Redis to test with: set PASSKIT_TEST_REDIS_URL (and PASSKIT_TEST_REDIS_CLUSTER_URLS=host:port,... for a \
             Cluster), install redis-server (Debian: apt-get install redis-server) or name a program that does the same \
             with PASSKIT_TEST_REDIS_SERVER, or start Docker and build with --features passkit-test-servers/containers",
        )
    })
}

impl Node {
    /// Starts a server with these options of the command line of `redis-server`, and waits until it answers.
    ///
    /// # Errors
    /// Fails if there is no such program, or it does not start.
    pub fn start(options: &[&str]) -> io::Result<Self> {
        Self::start_in(None, options)
    }

    /// Starts a server like [`start`](Self::start). If there is a network, the server gets a separate host.
    pub(super) fn start_in(network: Option<&Network>, options: &[&str]) -> io::Result<Self> {
        // Another process may have taken the port.
        for _ in 0..4 {
            let node = Self::prepare(network, options)?;
            if node.restart().is_ok() {
                return Ok(node);
            }
        }
        let node = Self::prepare(network, options)?;
        node.restart()?;
        Ok(node)
    }

    /// Starts a server like [`start`](Self::start), with the data in this folder. `SAVE` writes new data there.
    ///
    /// # Errors
    /// Same errors as [`start`](Self::start).
    pub fn kept(folder: &Path, options: &[&str]) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let folder = folder.canonicalize()?;
        let mut all = vec![
            "--dir",
            folder
                .to_str()
                .ok_or_else(|| io::Error::other("the path of the folder is not UTF-8"))?,
        ];
        all.extend(options);
        let node = Self::prepare(None, &all)?;
        node.restart_within(LOADING)?;
        Ok(node)
    }

    /// Prepares a server that [`restart`](Self::restart) starts. With options for TLS, the server has another port for TLS.
    pub(super) fn prepare(network: Option<&Network>, options: &[&str]) -> io::Result<Self> {
        let host = network.map_or_else(|| Ok(Host::local()), Network::join)?;
        let port = free_port()?;
        let mut args = format!(
            "--port {port} --bind {} --repl-diskless-sync-delay 0",
            host.address
        );
        if network.is_some() {
            args.push_str(" --protected-mode no");
        }
        let tls_port = options
            .contains(&"--tls-cert-file")
            .then(free_port)
            .transpose()?;
        if let Some(port) = tls_port {
            args.push_str(&format!(" --tls-port {port}"));
        }
        if !options.contains(&"--save") {
            args.push_str(" --save ");
        }
        let mut args: Vec<String> = args.split(' ').map(String::from).collect();
        args.extend(options.iter().map(|option| (*option).to_owned()));
        Ok(Self {
            args,
            folder: tempfile::tempdir()?,
            host,
            port,
            tls_port,
            process: Mutex::new(None),
        })
    }

    /// Starts the server again, with the files that it left.
    ///
    /// # Errors
    /// Fails if the server does not answer.
    pub fn restart(&self) -> io::Result<()> {
        self.restart_within(TIME_LIMIT)
    }

    fn restart_within(&self, limit: Duration) -> io::Result<()> {
        let (program, args) = self.host.run(program()?, &self.args);
        let process = Process::start(&program, &args, self.folder.path())?;
        let is_up = || {
            self.ask(&["PING"])
                .is_ok_and(|answer| !answer.starts_with("-LOADING"))
        };
        // The server ends at once if its port is taken.
        let is_decided = || is_up() || process.has_ended();
        for_condition(
            &format!("redis-server on port {} answers", self.port),
            limit,
            is_decided,
        )?;
        let has_ended = process.has_ended();
        *lock(&self.process) = Some(process);
        if has_ended {
            return Err(io::Error::other(format!(
                "redis-server on port {} has ended",
                self.port
            )));
        }
        Ok(())
    }

    /// Kills the server.
    ///
    /// # Errors
    /// Fails if there is no `kill`.
    pub fn kill(&self) -> io::Result<()> {
        if let Some(process) = lock(&self.process).take() {
            process.signal("KILL")?;
        }
        Ok(())
    }

    /// Suspends the server until [`resume`](Self::resume). Its connections stay open.
    ///
    /// # Errors
    /// Fails if there is no `kill`.
    pub fn pause(&self) -> io::Result<()> {
        self.signal("STOP")
    }

    /// Lets a suspended server continue.
    ///
    /// # Errors
    /// Fails if there is no `kill`.
    pub fn resume(&self) -> io::Result<()> {
        self.signal("CONT")
    }

    fn signal(&self, name: &str) -> io::Result<()> {
        lock(&self.process)
            .as_ref()
            .map_or(Ok(()), |process| process.signal(name))
    }

    /// Returns the port for TLS if there is one, else the port without TLS.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.tls_port.unwrap_or(self.port)
    }

    /// Returns the address, `redis://host:port/`, or `rediss://` with TLS.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}://{}/", self.scheme(), self.address())
    }

    pub(super) fn scheme(&self) -> &'static str {
        if self.tls_port.is_some() {
            "rediss"
        } else {
            "redis"
        }
    }

    pub(super) fn address(&self) -> String {
        format!("{}:{}", self.host.address, self.port())
    }

    /// Sends a command over a new connection, and returns the answer. An error starts with `-`. An array has one line for
    /// each element.
    ///
    /// # Errors
    /// Fails if the server does not answer.
    pub fn ask(&self, words: &[&str]) -> io::Result<String> {
        let address = SocketAddr::from((self.host.address, self.port));
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let mut command = format!("*{}\r\n", words.len());
        for word in words {
            command.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        (&stream).write_all(command.as_bytes())?;
        answer(&mut BufReader::new(&stream))
    }

    /// Returns the value of a line `name:value` in the answer to a command.
    pub(super) fn info(&self, words: &[&str], name: &str) -> Option<String> {
        let answer = self.ask(words).ok()?;
        let value = answer
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        Some(value.to_owned())
    }

    /// Returns whether the server is a master.
    #[must_use]
    pub fn is_master(&self) -> bool {
        self.info(&["INFO", "replication"], "role").as_deref() == Some("master")
    }

    pub(super) fn is_linked(&self) -> bool {
        self.info(&["INFO", "replication"], "master_link_status")
            .as_deref()
            == Some("up")
    }
}

/// Returns the addresses of several nodes, as a list with commas.
pub(super) fn addresses(nodes: &[Node]) -> String {
    nodes
        .iter()
        .map(Node::address)
        .collect::<Vec<_>>()
        .join(",")
}

impl Network {
    /// Drops everything that this node and other hosts send to each other. The clients, which run in this process, can still
    /// reach the node.
    ///
    /// # Errors
    /// Fails if there is no such node.
    pub fn cut_off(&self, node: &Node) -> io::Result<()> {
        node.host.cut_off()
    }
}

fn answer(reader: &mut BufReader<&TcpStream>) -> io::Result<String> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let line = line.trim_end().to_owned();
    let length = |text: &str| text.parse::<i64>().map_err(io::Error::other);
    match line.split_at(1) {
        ("$", text) => {
            let Ok(length) = usize::try_from(length(text)?) else {
                return Ok(String::new());
            };
            let mut bytes = vec![0; length + 2];
            reader.read_exact(&mut bytes)?;
            bytes.truncate(length);
            String::from_utf8(bytes).map_err(io::Error::other)
        }
        ("*", text) => {
            let mut elements = Vec::new();
            for _ in 0..length(text)? {
                elements.push(answer(reader)?);
            }
            Ok(elements.join("\n"))
        }
        ("-", _) => Ok(line),
        (_, text) => Ok(text.to_owned()),
    }
}
