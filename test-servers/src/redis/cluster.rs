use std::{env, io};

use super::{Network, Node, PATIENCE, addresses, wait_until};

/// A Cluster: one that runs already, or one of our own with three masters and three replicas.
#[derive(Debug)]
pub struct Cluster {
    scheme: &'static str,
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
            Ok(addresses) => Ok(Self {
                scheme: "redis",
                addresses,
                nodes: Vec::new(),
            }),
            Err(_) => Self::start_own(&[]),
        }
    }

    /// One of our own, in which a master is taken for dead after a second, with these options on each node.
    ///
    /// # Errors
    /// If there is no `redis-server`, or it does not start.
    pub fn start_own(options: &[&str]) -> io::Result<Self> {
        Self::make(None, options)
    }

    /// The same, each node on a host of its own.
    ///
    /// # Errors
    /// If there is no `redis-server`, or it does not start.
    pub fn start_in(network: &Network) -> io::Result<Self> {
        Self::make(Some(network), &[])
    }

    fn make(network: Option<&Network>, options: &[&str]) -> io::Result<Self> {
        let mut options = options.to_vec();
        options.extend(["--cluster-enabled", "yes", "--cluster-node-timeout", "1000"]);
        let nodes = (0..6)
            .map(|_| Node::start_in(network, &options))
            .collect::<io::Result<Vec<_>>>()?;
        let (host, port) = (
            nodes[0].host.address.to_string(),
            nodes[0].port().to_string(),
        );
        for (i, node) in nodes.iter().enumerate() {
            node.ask(&["CLUSTER", "SET-CONFIG-EPOCH", &(i + 1).to_string()])?;
            node.ask(&["CLUSTER", "MEET", &host, &port])?;
        }
        let known = |node: &Node| node.told(&["CLUSTER", "INFO"], "cluster_known_nodes");
        wait_until("all nodes know each other", PATIENCE, || {
            nodes.iter().all(|node| known(node).as_deref() == Some("6"))
        })?;
        for (i, node) in nodes[..3].iter().enumerate() {
            let start = SLOTS / 3 * i as u16;
            let end = if i == 2 { SLOTS } else { start + SLOTS / 3 };
            let slots: Vec<String> = (start..end).map(|slot| slot.to_string()).collect();
            let words = ["CLUSTER", "ADDSLOTS"]
                .into_iter()
                .chain(slots.iter().map(String::as_str));
            node.ask(&words.collect::<Vec<_>>())?;
            let id = node.ask(&["CLUSTER", "MYID"])?;
            wait_until("a replica takes its master", PATIENCE, || {
                nodes[i + 3]
                    .ask(&["CLUSTER", "REPLICATE", &id])
                    .is_ok_and(|answer| answer == "OK")
            })?;
        }
        let cluster = Self {
            scheme: nodes[0].scheme(),
            addresses: addresses(&nodes),
            nodes,
        };
        cluster.wait_until_whole()?;
        Ok(cluster)
    }

    /// Its address, as `redis+cluster://host:port,...`, or `rediss+cluster://`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}+cluster://{}", self.scheme, self.addresses)
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
        wait_until(
            "a Cluster of three masters and three replicas",
            PATIENCE,
            || {
                let is_well = |node: &Node| {
                    node.told(&["CLUSTER", "INFO"], "cluster_state").as_deref() == Some("ok")
                        && node
                            .ask(&["CLUSTER", "NODES"])
                            .is_ok_and(|nodes| !nodes.contains("fail"))
                };
                self.nodes.iter().all(is_well)
                    && self.nodes.iter().filter(|node| node.is_linked()).count() == 3
                    && self.masters().all(|node| {
                        node.told(&["INFO", "replication"], "connected_slaves")
                            .as_deref()
                            == Some("1")
                    })
            },
        )
    }

    /// Moves a slot, key by key, to another master.
    ///
    /// # Errors
    /// If a node does not answer, or refuses.
    pub fn move_slot(&self, slot: u16, from: &Node, to: &Node) -> io::Result<()> {
        let slot = slot.to_string();
        let (from_id, to_id) = (
            from.ask(&["CLUSTER", "MYID"])?,
            to.ask(&["CLUSTER", "MYID"])?,
        );
        let told = |node: &Node, words: &[&str]| match node.ask(words)? {
            answer if answer.starts_with('-') => Err(io::Error::other(answer)),
            answer => Ok(answer),
        };
        told(to, &["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from_id])?;
        told(from, &["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to_id])?;
        let (host, port) = (to.host.address.to_string(), to.port.to_string());
        loop {
            let keys = told(from, &["CLUSTER", "GETKEYSINSLOT", &slot, "10"])?;
            if keys.is_empty() {
                break;
            }
            for key in keys.lines() {
                // The Cluster of a busy machine may be down for a moment.
                let migrate = ["MIGRATE", &host, &port, key, "0", "5000"];
                wait_until("a key moves", PATIENCE, || told(from, &migrate).is_ok())?;
            }
        }
        for node in [to, from] {
            told(node, &["CLUSTER", "SETSLOT", &slot, "NODE", &to_id])?;
        }
        Ok(())
    }
}
