use std::{
    env, fs, io,
    net::Ipv4Addr,
    path::PathBuf,
    process::{Command, Output},
    sync::atomic::{AtomicU8, Ordering},
};

use super::Node;
use crate::process;

/// Hosts that reach one another over wires that can be cut: network namespaces, each with a wire to this process's, which
/// is the router between them and the host of the clients.
///
/// Exists only within [`alone`](Self::alone), and with all that runs in it ends with the process.
#[derive(Debug)]
pub struct Network {
    hosts: AtomicU8,
}

/// Where a node runs: here, or in a namespace of this name.
#[derive(Debug)]
pub(super) struct Host {
    namespace: Option<String>,
    pub(super) address: Ipv4Addr,
}

/// Set in the process that runs a test alone.
const INSIDE: &str = "PASSKIT_TEST_INSIDE_NAMESPACES";

impl Network {
    /// Within the test of this name: runs that test, and no other, once more in a process that has namespaces of its own
    /// for network and mounts. In that process, where this is called again, it gives the network; in this one `None`
    /// when the other has ended well. `None` as well for users who may not make namespaces, which one line says; root
    /// may, or the test fails.
    ///
    /// # Panics
    /// If the test failed.
    ///
    /// # Errors
    /// If the namespaces can't be made.
    pub fn alone(test: &str) -> io::Result<Option<Self>> {
        if env::var_os(INSIDE).is_some() {
            // What `ip netns` keeps in files is so gone with the process.
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
                "left out: a network can be cut only as root, with ip (Debian: apt-get install iproute2)"
            );
            return Ok(None);
        }
        run("unshare", &["-n", "-m", "true"]).map_err(|error| {
            io::Error::other(format!(
                "{error}; allow namespaces, for example with \"docker run --privileged\", or set PASSKIT_NO_NAMESPACES=1"
            ))
        })?;
        let mut inside = Command::new("timeout");
        // Its servers end with it.
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
            "{test} in namespaces of its own: {errors}"
        );
        Ok(None)
    }

    /// Another host.
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

    /// Drops whatever a node sends to other hosts, and they to it; the clients, in this process, still reach it.
    ///
    /// # Errors
    /// If there is no such node.
    pub fn cut_off(&self, node: &Node) -> io::Result<()> {
        let (address, number) = (node.host.address, node.host.address.octets()[2]);
        // What comes from the clients goes on before the others' is dropped.
        ip(&format!(
            "rule add pref 100 iif lo to {address} lookup main"
        ))?;
        ip(&format!("rule add pref 101 to {address} blackhole"))?;
        ip(&format!("rule add pref 101 iif wire{number} blackhole"))
    }

    /// Lets everything through again.
    ///
    /// # Errors
    /// If nothing was cut off.
    pub fn heal(&self) -> io::Result<()> {
        for pref in ["100", "101", "101"] {
            ip(&format!("rule del pref {pref}"))?;
        }
        Ok(())
    }
}

impl Host {
    /// The loopback interface.
    pub(super) fn local() -> Self {
        Self {
            namespace: None,
            address: Ipv4Addr::LOCALHOST,
        }
    }

    /// What to start so that the program runs there, in the same process.
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
