//! Redis: one node, with Sentinels, or a Cluster.
//!
//! Everything here blocks.

use std::{
    env,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex},
    thread,
    time::Duration,
};

use tempfile::TempDir;

use crate::process::{self, Process, free_port};

const PATIENCE: Duration = Duration::from_secs(30);

/// A Sentinel that found no time for two seconds does nothing for thirty (`TILT`).
const SENTINELS_PATIENCE: Duration = Duration::from_secs(90);
/// How long reading a data file may take.
const LOADING: Duration = Duration::from_secs(300);

/// Asks until it is so.
fn wait_until(what: &str, limit: Duration, is_so: impl FnMut() -> bool) -> io::Result<()> {
    if process::wait_until(limit, is_so) {
        return Ok(());
    }
    Err(io::Error::other(format!("{what}: not so after {limit:?}")))
}

/// A Redis to test with: one that runs already, or one of our own.
#[derive(Debug)]
pub struct Single {
    url: String,
    node: Option<Node>,
    #[cfg(feature = "containers")]
    _container: Option<testcontainers::Container<testcontainers::GenericImage>>,
}

impl Single {
    /// The one that `PASSKIT_TEST_REDIS_URL` names; else a `redis-server` of our own; else a container.
    ///
    /// # Errors
    /// If there is none of these.
    pub fn start() -> io::Result<Self> {
        if let Ok(url) = env::var("PASSKIT_TEST_REDIS_URL") {
            return Ok(Self {
                url,
                node: None,
                #[cfg(feature = "containers")]
                _container: None,
            });
        }
        match Node::start(&[]) {
            Ok(node) => Ok(Self {
                url: node.url(),
                node: Some(node),
                #[cfg(feature = "containers")]
                _container: None,
            }),
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Err(missing) => Self::in_container(missing),
        }
    }

    #[cfg(feature = "containers")]
    fn in_container(missing: io::Error) -> io::Result<Self> {
        use testcontainers::{
            GenericImage, core::IntoContainerPort as _, core::WaitFor, runners::SyncRunner as _,
        };
        let image = env::var("PASSKIT_TEST_REDIS_IMAGE").unwrap_or_else(|_| "redis:7".into());
        let (name, tag) = image.rsplit_once(':').unwrap_or((&image, "latest"));
        let container = GenericImage::new(name, tag)
            .with_exposed_port(6379.tcp())
            .with_wait_for(WaitFor::message_on_stdout("Ready to accept connections"))
            .start()
            .map_err(|error| io::Error::other(format!("{missing}; the container says: {error}")))?;
        let port = container.get_host_port_ipv4(6379).map_err(io::Error::other)?;
        Ok(Self { url: format!("redis://127.0.0.1:{port}/"), node: None, _container: Some(container) })
    }

    #[cfg(not(feature = "containers"))]
    fn in_container(missing: io::Error) -> io::Result<Self> {
        Err(missing)
    }

    /// Its address, as `redis://host:port/`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The process, if it is our own.
    #[must_use]
    pub fn node(&self) -> Option<&Node> {
        self.node.as_ref()
    }
}

/// A `redis-server`, or a Sentinel, of our own, on the loopback interface. Ends when dropped.
#[derive(Debug)]
pub struct Node {
    program: PathBuf,
    args: Vec<String>,
    folder: TempDir,
    port: u16,
    process: Mutex<Option<Process>>,
}

fn missing(program: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::NotFound,
        format!(
            "no Redis to test with: set PASSKIT_TEST_REDIS_URL (and PASSKIT_TEST_REDIS_CLUSTER_URLS=host:port,... for a \
             Cluster), install {program} (Debian: apt-get install redis-server), or start Docker and build with \
             --features passkit-test-servers/containers"
        ),
    )
}

impl Node {
    /// Starts one with these options beside its own, as on the command line of `redis-server`, and waits until it
    /// answers.
    ///
    /// # Errors
    /// If there is no such program, or it does not start.
    pub fn start(options: &[&str]) -> io::Result<Self> {
        // Another process may take the port in between.
        for _ in 0..4 {
            let node = Self::prepare(options)?;
            if node.restart().is_ok() {
                return Ok(node);
            }
        }
        let node = Self::prepare(options)?;
        node.restart()?;
        Ok(node)
    }

    /// As [`start`](Self::start), with the data of this folder, which it leaves there when it was told to `SAVE`.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn kept(folder: &Path, options: &[&str]) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let folder = folder.canonicalize()?;
        let mut all =
            vec!["--dir", folder.to_str().ok_or_else(|| io::Error::other("a folder that is no text"))?];
        all.extend(options);
        let node = Self::prepare(&all)?;
        node.restart_within(LOADING)?;
        Ok(node)
    }

    fn prepare(options: &[&str]) -> io::Result<Self> {
        let program = process::find("redis-server", [])
            .or_else(|| process::find("valkey-server", []))
            .ok_or_else(|| missing("redis-server"))?;
        let port = free_port()?;
        let mut args = format!("--port {port} --bind 127.0.0.1 --repl-diskless-sync-delay 0");
        if !options.contains(&"--save") {
            args.push_str(" --save ");
        }
        let mut args: Vec<String> = args.split(' ').map(String::from).collect();
        args.extend(options.iter().map(|option| (*option).to_owned()));
        Ok(Self { program, args, folder: tempfile::tempdir()?, port, process: Mutex::new(None) })
    }

    /// Starts it again, with the files that it left.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn restart(&self) -> io::Result<()> {
        self.restart_within(Duration::from_secs(5))
    }

    fn restart_within(&self, patience: Duration) -> io::Result<()> {
        let process = Process::start(&self.program, &self.args, self.folder.path())?;
        *lock(&self.process) = Some(process);
        wait_until(&format!("redis-server on port {} answers", self.port), patience, || {
            self.ask(&["PING"]).is_ok_and(|answer| !answer.starts_with("-LOADING"))
        })
    }

    /// Ends it as a power cut would.
    ///
    /// # Errors
    /// If there is no `kill`.
    pub fn kill(&self) -> io::Result<()> {
        if let Some(process) = lock(&self.process).take() {
            process.signal("KILL")?;
        }
        Ok(())
    }

    /// Stops it in its tracks, connections and all, until [`resume`](Self::resume).
    ///
    /// # Errors
    /// If there is no `kill`.
    pub fn pause(&self) -> io::Result<()> {
        self.signal("STOP")
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// If there is no `kill`.
    pub fn resume(&self) -> io::Result<()> {
        self.signal("CONT")
    }

    fn signal(&self, name: &str) -> io::Result<()> {
        lock(&self.process).as_ref().map_or(Ok(()), |process| process.signal(name))
    }

    /// The port it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its address, as `redis://host:port/`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    /// Sends one command over a new connection and returns the answer: errors with their `-`, of arrays the elements,
    /// a line for each.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn ask(&self, words: &[&str]) -> io::Result<String> {
        let stream = TcpStream::connect_timeout(&([127, 0, 0, 1], self.port).into(), Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let mut command = format!("*{}\r\n", words.len());
        for word in words {
            command.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        (&stream).write_all(command.as_bytes())?;
        answer(&mut BufReader::new(&stream))
    }

    /// The value of a line `name:value` in the answer to a command.
    fn told(&self, words: &[&str], name: &str) -> Option<String> {
        let answer = self.ask(words).ok()?;
        let value = answer.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        Some(value.to_owned())
    }

    /// Whether it is a master.
    #[must_use]
    pub fn is_master(&self) -> bool {
        self.told(&["INFO", "replication"], "role").as_deref() == Some("master")
    }

    fn is_linked(&self) -> bool {
        self.told(&["INFO", "replication"], "master_link_status").as_deref() == Some("up")
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
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
            let Ok(length) = usize::try_from(length(text)?) else { return Ok(String::new()) };
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

/// A way to a server that can be shut. Connections then stay, and what is sent waits, as where a cable was cut.
#[derive(Debug)]
pub struct Gate {
    port: u16,
    is_open: Arc<(Mutex<bool>, Condvar)>,
}

impl Gate {
    fn to(server: u16) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let gate =
            Self { port: listener.local_addr()?.port(), is_open: Arc::new((true.into(), Condvar::new())) };
        let is_open = Arc::clone(&gate.is_open);
        thread::spawn(move || {
            for caller in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, server)) else { continue };
                for (from, to) in [(&caller, &server), (&server, &caller)] {
                    if let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) {
                        let is_open = Arc::clone(&is_open);
                        thread::spawn(move || pass_on(&from, &to, &is_open));
                    }
                }
            }
        });
        Ok(gate)
    }

    /// Lets nothing through until it is opened.
    pub fn shut(&self) {
        *lock(&self.is_open.0) = false;
    }

    /// Lets everything through, what was sent meanwhile first.
    pub fn open(&self) {
        *lock(&self.is_open.0) = true;
        self.is_open.1.notify_all();
    }
}

impl Drop for Gate {
    /// Or its threads would wait for ever.
    fn drop(&mut self) {
        self.open();
    }
}

fn pass_on(mut from: &TcpStream, mut to: &TcpStream, (is_open, opened): &(Mutex<bool>, Condvar)) {
    let mut bytes = [0; 4_096];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        drop(opened.wait_while(lock(is_open), |is_open| !*is_open));
        if to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    for stream in [from, to] {
        let _ = stream.shutdown(Shutdown::Both);
    }
}

/// A master with two replicas, and three Sentinels that call it `main`.
#[derive(Debug)]
pub struct SentinelSet {
    /// The master at the start, and its replicas.
    pub nodes: Vec<Node>,
    /// The Sentinels.
    pub sentinels: Vec<Node>,
}

impl SentinelSet {
    /// Starts one in which a master is taken for dead after a second.
    ///
    /// # Errors
    /// If there is no `redis-server`, or it does not start.
    pub fn start() -> io::Result<Self> {
        let master = Node::start(&[])?;
        let port = master.port;
        Self::follow(master, port)
    }

    /// The same, but replicas and Sentinels reach the master through a gate.
    ///
    /// # Errors
    /// If there is no `redis-server`, or it does not start.
    pub fn start_gated() -> io::Result<(Self, Gate)> {
        let master = Node::start(&[])?;
        let gate = Gate::to(master.port)?;
        Ok((Self::follow(master, gate.port)?, gate))
    }

    /// With a master that the others find on this port.
    fn follow(master: Node, port: u16) -> io::Result<Self> {
        let port = port.to_string();
        let mut nodes = vec![master];
        for _ in 0..2 {
            nodes.push(Node::start(&["--replicaof", "127.0.0.1", &port])?);
        }
        wait_until("replicas in step", PATIENCE, || nodes[1..].iter().all(Node::is_linked))?;
        let mut sentinels = Vec::new();
        for _ in 0..3 {
            let mut sentinel = Node::prepare(&[])?;
            let file = sentinel.folder.path().join("sentinel.conf");
            let config = format!(
                "port {}\nbind 127.0.0.1\nsentinel monitor main 127.0.0.1 {port} 2\n\
                 sentinel down-after-milliseconds main 1000\nsentinel failover-timeout main 3000\n\
                 sentinel parallel-syncs main 2\n",
                sentinel.port
            );
            std::fs::write(&file, config)?;
            sentinel.args = vec![file.to_string_lossy().into_owned(), "--sentinel".into()];
            sentinel.restart()?;
            sentinels.push(sentinel);
        }
        wait_until("Sentinels know each other and the replicas", PATIENCE, || {
            sentinels.iter().all(|sentinel| {
                let told = sentinel.ask(&["INFO", "sentinel"]).unwrap_or_default();
                told.contains("slaves=2") && told.contains("sentinels=3")
            })
        })?;
        Ok(Self { nodes, sentinels })
    }

    /// Its address, as `redis+sentinel://host:port,.../main`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis+sentinel://{}/main", addresses(&self.sentinels))
    }

    /// The node that the Sentinels name.
    #[must_use]
    pub fn master(&self) -> Option<&Node> {
        self.sentinels.iter().find_map(|sentinel| {
            let named = sentinel.ask(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main"]).ok()?;
            let port: u16 = named.lines().nth(1)?.parse().ok()?;
            self.nodes.iter().find(|node| node.port == port && node.is_master())
        })
    }

    /// Waits until there is a master and the two others follow it.
    ///
    /// # Errors
    /// If that takes too long.
    pub fn wait_until_whole(&self) -> io::Result<()> {
        wait_until("a master with two replicas", SENTINELS_PATIENCE, || {
            self.master().is_some_and(|master| {
                master.told(&["INFO", "replication"], "connected_slaves").as_deref() == Some("2")
            }) && self.nodes.iter().filter(|node| node.is_linked()).count() == 2
        })
    }
}

fn addresses(nodes: &[Node]) -> String {
    nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect::<Vec<_>>().join(",")
}

/// A Cluster: one that runs already, or one of our own with three masters and three replicas.
#[derive(Debug)]
pub struct Cluster {
    addresses: String,
    /// Its nodes, if they are our own.
    pub nodes: Vec<Node>,
}

const SLOTS: u16 = 16_384;

impl Cluster {
    /// The one that `PASSKIT_TEST_REDIS_CLUSTER_URLS` names (`host:port,...`); else one of our own.
    ///
    /// # Errors
    /// If there is none of these.
    pub fn start() -> io::Result<Self> {
        match env::var("PASSKIT_TEST_REDIS_CLUSTER_URLS") {
            Ok(addresses) => Ok(Self { addresses, nodes: Vec::new() }),
            Err(_) => Self::start_own(&[]),
        }
    }

    /// One of our own, in which a master is taken for dead after a second, with these options on each node.
    ///
    /// # Errors
    /// If there is no `redis-server`, or it does not start.
    pub fn start_own(options: &[&str]) -> io::Result<Self> {
        let mut options = options.to_vec();
        options.extend(["--cluster-enabled", "yes", "--cluster-node-timeout", "1000"]);
        let nodes = (0..6).map(|_| Node::start(&options)).collect::<io::Result<Vec<_>>>()?;
        let first = nodes[0].port.to_string();
        for (i, node) in nodes.iter().enumerate() {
            node.ask(&["CLUSTER", "SET-CONFIG-EPOCH", &(i + 1).to_string()])?;
            node.ask(&["CLUSTER", "MEET", "127.0.0.1", &first])?;
        }
        let known = |node: &Node| node.told(&["CLUSTER", "INFO"], "cluster_known_nodes");
        wait_until("all nodes know each other", PATIENCE, || {
            nodes.iter().all(|node| known(node).as_deref() == Some("6"))
        })?;
        for (i, node) in nodes[..3].iter().enumerate() {
            let start = SLOTS / 3 * i as u16;
            let end = if i == 2 { SLOTS } else { start + SLOTS / 3 };
            node.ask(&["CLUSTER", "ADDSLOTSRANGE", &start.to_string(), &(end - 1).to_string()])?;
            let id = node.ask(&["CLUSTER", "MYID"])?;
            wait_until("a replica takes its master", PATIENCE, || {
                nodes[i + 3].ask(&["CLUSTER", "REPLICATE", &id]).is_ok_and(|answer| answer == "OK")
            })?;
        }
        let cluster = Self { addresses: addresses(&nodes), nodes };
        cluster.wait_until_whole()?;
        Ok(cluster)
    }

    /// Its address, as `redis+cluster://host:port,...`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis+cluster://{}", self.addresses)
    }

    /// The nodes that are masters now.
    pub fn masters(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| node.is_master())
    }

    /// Waits until all slots are served, and each of three masters has a replica.
    ///
    /// # Errors
    /// If that takes too long.
    pub fn wait_until_whole(&self) -> io::Result<()> {
        wait_until("a Cluster of three masters and three replicas", PATIENCE, || {
            let is_well = |node: &Node| {
                node.told(&["CLUSTER", "INFO"], "cluster_state").as_deref() == Some("ok")
                    && node.ask(&["CLUSTER", "NODES"]).is_ok_and(|nodes| !nodes.contains("fail"))
            };
            self.nodes.iter().all(is_well)
                && self.nodes.iter().filter(|node| node.is_linked()).count() == 3
                && self.masters().all(|node| {
                    node.told(&["INFO", "replication"], "connected_slaves").as_deref() == Some("1")
                })
        })
    }

    /// Moves a slot, key by key, to another master.
    ///
    /// # Errors
    /// If a node does not answer, or refuses.
    pub fn move_slot(&self, slot: u16, from: &Node, to: &Node) -> io::Result<()> {
        let slot = slot.to_string();
        let (from_id, to_id) = (from.ask(&["CLUSTER", "MYID"])?, to.ask(&["CLUSTER", "MYID"])?);
        let told = |node: &Node, words: &[&str]| match node.ask(words)? {
            answer if answer.starts_with('-') => Err(io::Error::other(answer)),
            answer => Ok(answer),
        };
        told(to, &["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from_id])?;
        told(from, &["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to_id])?;
        let port = to.port.to_string();
        loop {
            let keys = told(from, &["CLUSTER", "GETKEYSINSLOT", &slot, "10"])?;
            if keys.is_empty() {
                break;
            }
            for key in keys.lines() {
                told(from, &["MIGRATE", "127.0.0.1", &port, key, "0", "5000"])?;
            }
        }
        for node in [to, from] {
            told(node, &["CLUSTER", "SETSLOT", &slot, "NODE", &to_id])?;
        }
        Ok(())
    }
}
