use std::{env, io};

use super::{
    network::Network,
    node::{Node, addresses},
};
use crate::wait::{TIME_LIMIT, for_condition};

/// A Cluster that was already running, or a new Cluster with three masters and three replicas.
#[derive(Debug)]
pub struct Cluster {
    scheme: &'static str,
    addresses: String,
    /// The nodes, if they were started here.
    pub nodes: Vec<Node>,
}

const SLOTS: u16 = 16_384;

impl Cluster {
    /// Returns the Cluster at `PASSKIT_TEST_REDIS_CLUSTER_URLS` (`host:port,...`). If the variable
    /// is not set, starts a new Cluster.
    ///
    /// # Errors
    /// Fails if the variable is not set, and `redis-server` is missing or does not start.
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

    /// Starts a new Cluster with these options on each node. The Cluster treats a master as dead after a second.
    ///
    /// # Errors
    /// Fails if there is no `redis-server`, or it does not start.
    pub fn start_own(options: &[&str]) -> io::Result<Self> {
        Self::make(None, options)
    }

    /// Starts a new Cluster with each node on a separate host.
    ///
    /// # Errors
    /// Fails if there is no `redis-server`, or it does not start.
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
        let known = |node: &Node| node.info(&["CLUSTER", "INFO"], "cluster_known_nodes");
        for_condition(
            "all nodes of the Cluster know each other",
            TIME_LIMIT,
            || nodes.iter().all(|node| known(node).as_deref() == Some("6")),
        )?;
        for (i, node) in nodes[..3].iter().enumerate() {
            let start = SLOTS / 3 * i as u16;
            let end = if i == 2 { SLOTS } else { start + SLOTS / 3 };
            let slots: Vec<String> = (start..end).map(|slot| slot.to_string()).collect();
            let words = ["CLUSTER", "ADDSLOTS"]
                .into_iter()
                .chain(slots.iter().map(String::as_str));
            node.ask(&words.collect::<Vec<_>>())?;
            let id = node.ask(&["CLUSTER", "MYID"])?;
            for_condition("a replica accepts its master", TIME_LIMIT, || {
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

    /// Returns the address, `redis+cluster://host:port,...`, or `rediss+cluster://` with TLS.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}+cluster://{}", self.scheme, self.addresses)
    }

    /// Returns the nodes that are masters now.
    pub fn masters(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| node.is_master())
    }

    /// Waits until all slots are served, and each of the three masters has a replica.
    ///
    /// # Errors
    /// Fails if that takes too long.
    pub fn wait_until_whole(&self) -> io::Result<()> {
        for_condition(
            "the Cluster has three masters with a replica each",
            TIME_LIMIT,
            || {
                let is_well = |node: &Node| {
                    node.info(&["CLUSTER", "INFO"], "cluster_state").as_deref() == Some("ok")
                        && node
                            .ask(&["CLUSTER", "NODES"])
                            .is_ok_and(|nodes| !nodes.contains("fail"))
                };
                self.nodes.iter().all(is_well)
                    && self.nodes.iter().filter(|node| node.is_linked()).count() == 3
                    && self.masters().all(|node| {
                        node.info(&["INFO", "replication"], "connected_slaves")
                            .as_deref()
                            == Some("1")
                    })
            },
        )
    }

    /// Moves a slot to another master, key by key.
    ///
    /// # Errors
    /// Fails if a node does not answer, or refuses.
    pub fn move_slot(&self, slot: u16, from: &Node, to: &Node) -> io::Result<()> {
        let slot = slot.to_string();
        let (from_id, to_id) = (
            from.ask(&["CLUSTER", "MYID"])?,
            to.ask(&["CLUSTER", "MYID"])?,
        );
        let ask = |node: &Node, words: &[&str]| match node.ask(words)? {
            answer if answer.starts_with('-') => Err(io::Error::other(answer)),
            answer => Ok(answer),
        };
        ask(to, &["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from_id])?;
        ask(from, &["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to_id])?;
        let (host, port) = (to.host.address.to_string(), to.port.to_string());
        loop {
            let keys = ask(from, &["CLUSTER", "GETKEYSINSLOT", &slot, "10"])?;
            if keys.is_empty() {
                break;
            }
            for key in keys.lines() {
                // On a busy machine the Cluster may be down for a moment.
                let migrate = ["MIGRATE", &host, &port, key, "0", "5000"];
                for_condition("a key moves to another master", TIME_LIMIT, || {
                    ask(from, &migrate).is_ok()
                })?;
            }
        }
        for node in [to, from] {
            ask(node, &["CLUSTER", "SETSLOT", &slot, "NODE", &to_id])?;
        }
        Ok(())
    }
}
