use std::{io, time::Duration};

use super::{
    gate::Gate,
    network::Network,
    node::{Node, addresses},
};
use crate::wait::{TIME_LIMIT, for_condition};

/// If a Sentinel gets no processor time for two seconds, it does nothing for thirty seconds (`TILT`).
const SENTINEL_TIME_LIMIT: Duration = Duration::from_secs(90);

/// A master with two replicas, and three Sentinels that know it as `main`.
#[derive(Debug)]
pub struct SentinelSet {
    /// The node that was the master at the start, and its two replicas.
    pub nodes: Vec<Node>,
    /// The Sentinels.
    pub sentinels: Vec<Node>,
}

impl SentinelSet {
    /// Starts a set that treats a master as dead after a second.
    ///
    /// # Errors
    /// Fails if there is no `redis-server`, or it does not start.
    pub fn start() -> io::Result<Self> {
        Self::start_own(&[])
    }

    /// Starts a set with these options on each node and Sentinel.
    ///
    /// # Errors
    /// Fails if there is no `redis-server`, or it does not start.
    pub fn start_own(options: &[&str]) -> io::Result<Self> {
        let master = Node::start(options)?;
        let port = master.port();
        Self::follow(None, options, master, port)
    }

    /// Starts a set with each node and Sentinel on a separate host.
    ///
    /// # Errors
    /// Fails if there is no `redis-server`, or it does not start.
    pub fn start_in(network: &Network) -> io::Result<Self> {
        let master = Node::start_in(Some(network), &[])?;
        let port = master.port();
        Self::follow(Some(network), &[], master, port)
    }

    /// Starts a set whose replicas and Sentinels reach the master through a gate.
    ///
    /// # Errors
    /// Fails if there is no `redis-server`, or it does not start.
    pub fn start_gated() -> io::Result<(Self, Gate)> {
        let master = Node::start(&[])?;
        let gate = Gate::to(master.port)?;
        Ok((Self::follow(None, &[], master, gate.port)?, gate))
    }

    /// Adds replicas and Sentinels. They find the master at this port.
    fn follow(
        network: Option<&Network>,
        options: &[&str],
        master: Node,
        port: u16,
    ) -> io::Result<Self> {
        let (host, port) = (master.host.address.to_string(), port.to_string());
        let mut nodes = vec![master];
        for _ in 0..2 {
            let replica = [options, &["--replicaof", &host, &port]].concat();
            nodes.push(Node::start_in(network, &replica)?);
        }
        for_condition("the replicas follow the master", TIME_LIMIT, || {
            nodes[1..].iter().all(Node::is_linked)
        })?;
        let mut sentinels = Vec::new();
        for _ in 0..3 {
            let mut sentinel = Node::prepare(network, options)?;
            let file = sentinel.folder.path().join("sentinel.conf");
            let config = format!(
                "sentinel monitor main {host} {port} 2\nsentinel down-after-milliseconds main 1000\n\
                 sentinel failover-timeout main 3000\nsentinel parallel-syncs main 2\n"
            );
            std::fs::write(&file, config)?;
            sentinel
                .args
                .splice(0..0, [file.to_string_lossy().into_owned()]);
            sentinel.args.push("--sentinel".into());
            sentinel.restart()?;
            sentinels.push(sentinel);
        }
        for_condition(
            "the Sentinels know each other and the replicas",
            TIME_LIMIT,
            || {
                sentinels.iter().all(|sentinel| {
                    let info = sentinel.ask(&["INFO", "sentinel"]).unwrap_or_default();
                    info.contains("slaves=2") && info.contains("sentinels=3")
                })
            },
        )?;
        Ok(Self { nodes, sentinels })
    }

    /// Returns the address, `redis+sentinel://host:port,.../main`, or `rediss+sentinel://` with TLS.
    #[must_use]
    pub fn url(&self) -> String {
        format!(
            "{}+sentinel://{}/main",
            self.nodes[0].scheme(),
            addresses(&self.sentinels)
        )
    }

    /// Returns the node that the Sentinels name as the master.
    #[must_use]
    pub fn master(&self) -> Option<&Node> {
        self.sentinels.iter().find_map(|sentinel| {
            let named = sentinel
                .ask(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main"])
                .ok()?;
            let named = named.replace('\n', ":");
            self.nodes
                .iter()
                .find(|node| node.address() == named && node.is_master())
        })
    }

    /// Waits until there is a master and the two other nodes follow it.
    ///
    /// # Errors
    /// Fails if that takes too long.
    pub fn wait_until_whole(&self) -> io::Result<()> {
        for_condition(
            "there is a master with two replicas",
            SENTINEL_TIME_LIMIT,
            || {
                self.master().is_some_and(|master| {
                    master
                        .info(&["INFO", "replication"], "connected_slaves")
                        .as_deref()
                        == Some("2")
                }) && self.nodes.iter().filter(|node| node.is_linked()).count() == 2
            },
        )
    }
}
