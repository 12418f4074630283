use std::{
    env, fs, io,
    net::Ipv4Addr,
    path::PathBuf,
    process::{Command, Output},
    sync::atomic::{AtomicU8, Ordering},
};

use crate::process;

/// Hosts whose connections to each other can be cut. Each host is a network namespace with a virtual cable to the namespace
/// of this process. The clients run in the namespace of this process, which also routes between the hosts.
///
/// [`alone`](Self::alone) makes a network. The network and everything that runs in it end with the process.
#[derive(Debug)]
pub struct Network {
    hosts: AtomicU8,
}

/// Where a node runs: in a namespace with this name, or in the namespace of this process.
#[derive(Debug)]
pub(super) struct Host {
    namespace: Option<String>,
    pub(super) address: Ipv4Addr,
}

/// The environment variable that is set in the child process, which runs one test alone.
const INSIDE: &str = "PASSKIT_TEST_INSIDE_NAMESPACES";

impl Network {
    /// Runs a test again, in a child process with separate namespaces for network and mounts. The test calls this function
    /// with the name of the test.
    ///
    /// In the child process, the function returns the network. In this process, it returns `None` after the child has
    /// succeeded. If the user is not root or `PASSKIT_NO_NAMESPACES` is set, it prints a line and returns `None`.
    ///
    /// # Panics
    /// Panics if the child failed.
    ///
    /// # Errors
    /// Fails if root can't make namespaces.
    pub fn alone(test: &str) -> io::Result<Option<Self>> {
        if env::var_os(INSIDE).is_some() {
            // `ip netns` keeps files in /run. With a separate mount, the files are gone when the process ends.
            run("mount", &["-t", "tmpfs", "tmpfs", "/run"])?;
            ip("link set lo up")?;
            fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
            return Ok(Some(Self {
                hosts: AtomicU8::new(1),
            }));
        }
        let is_root = Command::new("id").arg("-u").output()?.stdout == b"0\n";
        let has_programs = ["ip", "unshare"]
            .iter()
            .all(|program| process::find(program, []).is_some());
        if !is_root || !has_programs || env::var_os("PASSKIT_NO_NAMESPACES").is_some() {
            eprintln!(
                "left out: only root can cut a network, with ip (Debian: apt-get install iproute2)"
            );
            return Ok(None);
        }
        run("unshare", &["-n", "-m", "true"]).map_err(|error| {
            io::Error::other(format!(
                "{error}; allow namespaces, for example with \"docker run --privileged\", or set PASSKIT_NO_NAMESPACES=1"
            ))
        })?;
        let mut inside = Command::new("timeout");
        // The servers in the child process end together with the child.
        inside
            .args(["-s", "KILL", "900", "unshare", "-n", "-m"])
            .arg(env::current_exe()?);
        let Output {
            status,
            stdout,
            stderr,
        } = inside
            .args([test, "--exact", "--nocapture"])
            .env(INSIDE, "1")
            .output()?;
        let (said, errors) = (
            String::from_utf8_lossy(&stdout),
            String::from_utf8_lossy(&stderr),
        );
        println!("{said}");
        assert!(
            status.success() && said.contains("1 passed"),
            "{test} in separate namespaces: {errors}"
        );
        Ok(None)
    }

    /// Adds a host.
    pub(super) fn join(&self) -> io::Result<Host> {
        let number = self.hosts.fetch_add(1, Ordering::Relaxed);
        let (name, wire) = (format!("host{number}"), format!("wire{number}"));
        let (router, address) = (
            format!("10.77.{number}.1"),
            Ipv4Addr::new(10, 77, number, 2),
        );
        ip(&format!("netns add {name}"))?;
        ip(&format!(
            "link add {wire} type veth peer name eth0 netns {name}"
        ))?;
        ip(&format!("address add {router}/30 dev {wire}"))?;
        ip(&format!("link set {wire} up"))?;
        ip(&format!("-n {name} address add {address}/30 dev eth0"))?;
        ip(&format!("-n {name} link set lo up"))?;
        ip(&format!("-n {name} link set eth0 up"))?;
        ip(&format!("-n {name} route add default via {router}"))?;
        Ok(Host {
            namespace: Some(name),
            address,
        })
    }

    /// Undoes [`cut_off`](Self::cut_off).
    ///
    /// # Errors
    /// Fails if no host is cut off.
    pub fn heal(&self) -> io::Result<()> {
        for pref in ["100", "101", "101"] {
            ip(&format!("rule del pref {pref}"))?;
        }
        Ok(())
    }
}

impl Host {
    pub(super) fn cut_off(&self) -> io::Result<()> {
        let (address, number) = (self.address, self.address.octets()[2]);
        // The rule for the clients, in this process, comes before the rules that drop everything else.
        ip(&format!(
            "rule add pref 100 iif lo to {address} lookup main"
        ))?;
        ip(&format!("rule add pref 101 to {address} blackhole"))?;
        ip(&format!("rule add pref 101 iif wire{number} blackhole"))
    }

    /// Returns the loopback interface of this process.
    pub(super) fn local() -> Self {
        Self {
            namespace: None,
            address: Ipv4Addr::LOCALHOST,
        }
    }

    /// Returns the command that runs `program` with `args` on this simulated host. Inside a
    /// namespace, the command is `ip netns exec`.
    pub(super) fn run(&self, program: PathBuf, args: &[String]) -> (PathBuf, Vec<String>) {
        let Some(namespace) = &self.namespace else {
            return (program, args.to_vec());
        };
        let before = ["netns", "exec", namespace].map(String::from).into_iter();
        let all = before
            .chain([program.to_string_lossy().into_owned()])
            .chain(args.iter().cloned());
        ("ip".into(), all.collect())
    }
}

fn ip(arguments: &str) -> io::Result<()> {
    run("ip", &arguments.split(' ').collect::<Vec<_>>())
}

fn run(program: &str, arguments: &[&str]) -> io::Result<()> {
    let ended = Command::new(program).args(arguments).output()?;
    if ended.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&ended.stderr);
    Err(io::Error::other(format!(
        "{program} {}: {}",
        arguments.join(" "),
        said.trim()
    )))
}
