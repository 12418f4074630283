//! A master is cut off from the other servers, while clients still reach it. The tests use network namespaces.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use passkit_store_redis::RedisStore;
use passkit_test_servers::redis::{Cluster, Network, Node, SentinelSet};
use tokio::runtime::{Builder, Handle};

use crate::{
    failover::{config, wait_for_masters},
    load::survives,
    support::{chain, mark, serial},
};

/// How long clients can reach two masters.
const BOTH: Duration = Duration::from_secs(1);

/// Runs a test if the machine allows network namespaces.
fn alone(test: &str, body: impl AsyncFnOnce(Network)) {
    if let Some(network) = Network::alone(test).unwrap() {
        let runtime = Builder::new_multi_thread()
            .worker_threads(4)
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(body(network));
    }
}

#[test]
fn cluster_loses_nothing_acknowledged_when_a_master_is_cut_off() {
    alone(
        "partition::cluster_loses_nothing_acknowledged_when_a_master_is_cut_off",
        async |network| {
            let servers = Cluster::start_in(&network).unwrap();
            let store = RedisStore::connect(&servers.url(), config(1))
                .await
                .unwrap();
            survives(store, move || {
                thread::sleep(Duration::from_millis(300));
                let master = servers.masters().next().unwrap();
                network.cut_off(master).unwrap();
                wait_for_masters(others(&servers.nodes, master), 3);
                thread::sleep(BOTH);
                assert!(
                    master.is_master(),
                    "the old master still believes that it is the master"
                );
                network.heal().unwrap();
                servers.wait_until_whole().unwrap();
                servers
            })
            .await;
        },
    );
}

/// All replicas must have a change, because Sentinels may choose the one that has less data. So no change is acknowledged
/// while the master is cut off. A store that waits for only one replica goes on with the new master.
#[test]
fn sentinel_loses_nothing_acknowledged_when_the_master_is_cut_off() {
    alone(
        "partition::sentinel_loses_nothing_acknowledged_when_the_master_is_cut_off",
        async |network| {
            let servers = Arc::new(SentinelSet::start_in(&network).unwrap());
            let store = RedisStore::connect(&servers.url(), config(2))
                .await
                .unwrap();
            let hasty = RedisStore::connect(&servers.url(), config(1).prefix("hasty:"))
                .await
                .unwrap();
            // The store makes more calls than it has connections.
            for _ in 0..20 {
                in_time!(mark(&hasty, &[serial("1")]));
            }
            let runtime = Handle::current();
            survives(store, move || {
                thread::sleep(Duration::from_millis(300));
                let master = servers.master().unwrap();
                network.cut_off(master).unwrap();
                wait_for_masters(others(&servers.nodes, master), 1);
                let elected = Instant::now();
                let mut done_in_a_row = 0;
                while done_in_a_row < 20 {
                    match runtime.block_on(mark(&hasty, &[serial("1")])) {
                        Ok(()) => done_in_a_row += 1,
                        Err(error) => {
                            done_in_a_row = 0;
                            assert!(
                                elected.elapsed() < Duration::from_secs(60),
                                "{}",
                                chain(&error)
                            );
                        }
                    }
                }
                println!(
                    "the new master is used by all after {:?}",
                    elected.elapsed()
                );
                assert!(
                    master.is_master(),
                    "the old master still believes that it is the master"
                );
                network.heal().unwrap();
                servers.wait_until_whole().unwrap();
                servers
            })
            .await;
        },
    );
}

fn others<'a>(nodes: &'a [Node], one: &'a Node) -> impl Iterator<Item = &'a Node> + Clone {
    nodes.iter().filter(|node| node.url() != one.url())
}
