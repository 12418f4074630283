//! Under load, masters are killed, slots move and clocks differ. `PASSKIT_CRASH_ROUNDS` sets how often.

use std::{sync::Arc, thread, time::Duration};

use passkit_server::store::{RegistrationStore as _, StoreErrorKind};
use passkit_store_redis::{Config, RedisStore};
use passkit_test_servers::redis::{Cluster, Node, SentinelSet};

use crate::{
    load::survives,
    support::{chain, device, mark, pass, serial, token, type_id},
};

fn rounds(default: usize) -> usize {
    std::env::var("PASSKIT_CRASH_ROUNDS").map_or(default, |rounds| rounds.parse().unwrap())
}

pub(crate) fn config(replicas: u16) -> Config {
    Config::new()
        .min_replicas(replicas)
        .replica_timeout(Duration::from_millis(300))
        .response_timeout(Duration::from_millis(700))
        .call_timeout(Duration::from_secs(2))
}

/// How long the servers may take, in steps of [`STEP`]. If Sentinels get no processor time for two seconds, they do nothing
/// for thirty seconds.
const STEPS: usize = 4_500;
const STEP: Duration = Duration::from_millis(20);

/// Waits until this many of the nodes are masters.
pub(crate) fn wait_for_masters<'a>(
    nodes: impl IntoIterator<Item = &'a Node> + Clone,
    count: usize,
) {
    for _ in 0..STEPS {
        if nodes
            .clone()
            .into_iter()
            .filter(|node| node.is_master())
            .count()
            == count
        {
            return;
        }
        thread::sleep(STEP);
    }
    panic!("no new master after a long while");
}

/// Returns the current master. On a busy machine, the Sentinels may change masters by themselves.
fn named_master(servers: &SentinelSet) -> &Node {
    for _ in 0..STEPS {
        if let Some(master) = servers.master() {
            return master;
        }
        thread::sleep(STEP);
    }
    panic!("no master named after a long while");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn cluster_loses_nothing_acknowledged_when_masters_are_killed() {
    let servers = Arc::new(Cluster::start_own(&[]).unwrap());
    let store = RedisStore::connect(&servers.url(), config(1))
        .await
        .unwrap();
    survives(store, move || {
        for round in 0..rounds(2) {
            thread::sleep(Duration::from_millis(300));
            let master = servers.masters().nth(round % 3).unwrap();
            master.kill().unwrap();
            wait_for_masters(&servers.nodes, 3);
            master.restart().unwrap();
            servers.wait_until_whole().unwrap();
        }
        servers
    })
    .await;
}

/// All replicas must have a change, because Sentinels may choose the replica that has less data. Their information is a few
/// seconds old.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sentinel_loses_nothing_acknowledged_when_the_master_is_killed() {
    let servers = Arc::new(SentinelSet::start().unwrap());
    let store = RedisStore::connect(&servers.url(), config(2))
        .await
        .unwrap();
    survives(store, move || {
        for _ in 0..rounds(1) {
            thread::sleep(Duration::from_millis(300));
            let master = named_master(&servers);
            master.kill().unwrap();
            wait_for_masters(&servers.nodes, 1);
            master.restart().unwrap();
            servers.wait_until_whole().unwrap();
        }
        servers
    })
    .await;
}

/// A master that is cut off from the others, but not from all clients, must not acknowledge changes or answer devices.
/// Nothing is lost when it comes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinel_loses_nothing_acknowledged_when_the_master_is_cut_off() {
    let (servers, gate) = SentinelSet::start_gated().unwrap();
    // At first, all replicas must confirm, because Sentinels may choose the one that has less data.
    let store = RedisStore::connect(&servers.url(), config(2))
        .await
        .unwrap();
    let (me, one, two) = (device("d"), pass("1"), pass("2"));
    in_time!(store.register(&me, &one, &token()));
    in_time!(mark(&store, &[serial("1"), serial("2")]));
    let before = in_time!(store.changes_since(&me, &type_id(), None)).tag;
    let store = RedisStore::connect(&servers.url(), config(1))
        .await
        .unwrap();
    let cut_off = RedisStore::connect(&servers.nodes[0].url(), config(1))
        .await
        .unwrap();
    in_time!(mark(&cut_off, &[serial("1")]));

    gate.shut();
    let mut rounds_after = 0;
    while rounds_after < 2 {
        let is_replaced = servers.nodes[1..].iter().any(Node::is_master);
        rounds_after += usize::from(is_replaced);
        for error in [
            mark(&cut_off, &[serial("1")]).await.unwrap_err(),
            cut_off
                .register(&device("e"), &one, &token())
                .await
                .map(drop)
                .unwrap_err(),
            cut_off.unregister(&me, &one).await.map(drop).unwrap_err(),
            cut_off
                .changes_since(&me, &type_id(), Some(before))
                .await
                .map(drop)
                .unwrap_err(),
            cut_off.pass_state(&one).await.map(drop).unwrap_err(),
        ] {
            assert_eq!(
                error.kind(),
                StoreErrorKind::Unavailable,
                "{}",
                chain(&error)
            );
        }
    }
    assert!(
        servers.nodes[0].is_master(),
        "the old master still believes that it is the master"
    );
    in_time!(store.register(&me, &two, &token()));
    in_time!(mark(&store, &[serial("2")]));
    let state = in_time!(store.pass_state(&two));
    assert!(cut_off.pass_state(&two).await.is_err());

    gate.open();
    tokio::task::block_in_place(|| servers.wait_until_whole()).unwrap();
    for error in [
        mark(&cut_off, &[serial("1")]).await.unwrap_err(),
        cut_off.pass_state(&two).await.map(drop).unwrap_err(),
    ] {
        assert_eq!(
            error.kind(),
            StoreErrorKind::Unavailable,
            "of a replica: {}",
            chain(&error)
        );
    }
    assert_eq!(in_time!(store.pass_state(&two)), state);
    let mut all = in_time!(store.changes_since(&me, &type_id(), None)).serials;
    all.sort();
    assert_eq!(all, [serial("1"), serial("2")]);
    let mut listed = in_time!(store.changes_since(&me, &type_id(), Some(before))).serials;
    listed.sort();
    assert_eq!(
        listed,
        [serial("1"), serial("2")],
        "acknowledged before, and in between"
    );
}

/// A master hangs, and comes back after another master has taken over. No change that the first master acknowledged may be
/// lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn cluster_loses_nothing_acknowledged_when_a_master_hangs() {
    let servers = Arc::new(Cluster::start_own(&[]).unwrap());
    let store = RedisStore::connect(&servers.url(), config(1))
        .await
        .unwrap();
    survives(store, move || {
        thread::sleep(Duration::from_millis(300));
        let master = servers.masters().next().unwrap();
        master.pause().unwrap();
        let others = servers
            .nodes
            .iter()
            .filter(|node| node.port() != master.port());
        wait_for_masters(others, 3);
        master.resume().unwrap();
        servers.wait_until_whole().unwrap();
        servers
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn cluster_loses_nothing_while_slots_move() {
    let servers = Arc::new(Cluster::start_own(&[]).unwrap());
    let config = Config::new().min_replicas(1);
    let store = RedisStore::connect(&servers.url(), config).await.unwrap();
    survives(store, move || {
        thread::sleep(Duration::from_millis(200));
        let masters: Vec<&Node> = servers.masters().collect();
        // Moves all slots with keys from the first master to the second, and then some of them to the third.
        let mut moved = Vec::new();
        for slot in 0..16_384 / 3 {
            let count = masters[0]
                .ask(&["CLUSTER", "COUNTKEYSINSLOT", &slot.to_string()])
                .unwrap();
            if count != "0" {
                servers.move_slot(slot, masters[0], masters[1]).unwrap();
                moved.push(slot);
            }
        }
        for slot in moved.iter().step_by(3) {
            servers.move_slot(*slot, masters[1], masters[2]).unwrap();
        }
        assert!(moved.len() > 20, "{} slots moved", moved.len());
        servers
    })
    .await;
}

/// The clocks of some hosts are ahead by up to three seconds, so some buckets are ahead of others.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_lost_when_clocks_differ() {
    let server = Node::start(&[]).unwrap();
    let store = RedisStore::connect(&server.url(), Config::new().buckets(16))
        .await
        .unwrap();
    survives(store, move || {
        let advance = include_str!("../../src/engine/scripts/advance_clock.lua");
        for round in 0..300_u64 {
            let ahead = passkit_server::store::clock::now_micros() + round * 7_919 % 3_000 * 1_000;
            let key = format!("passkit:b{{{}:{}}}", type_id(), round * 31 % 16);
            server
                .ask(&["EVAL", advance, "1", &key, &ahead.to_string(), "\tc"])
                .unwrap();
            thread::sleep(Duration::from_millis(5));
        }
        server
    })
    .await;
}
