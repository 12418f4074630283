//! Reads all 10,000 devices of a type in pages, as a push for an entire type does. The store also has a million
//! registrations of another type. The floor is the same store without the other type.
//!
//! PostgreSQL and Redis also count what they read. A Cluster is left out, because it runs the same code as one node.

#![allow(clippy::expect_used)]

use std::sync::Arc;

use passkit_benches::{
    data::{self, EACH, OTHER_TYPE, type_id},
    statistics,
    stores::Servers,
    turns::{Bench, called, runtime},
};
use passkit_server::{
    PassId,
    identifiers::TypeIdentifier,
    maintenance::{Registration, StoreMaintenance},
    store::Audience,
};
use passkit_store_postgres::{PostgresStore, sqlx::postgres::PgPoolOptions};
use passkit_test_servers::Outcome;

const DEVICES: usize = 10_000;
const PAGE: usize = 1_000;

fn main() {
    let mut bench = Bench::new("devices_of_type");
    let servers = Servers::kept();
    let others = data::sizes().into_iter().max().unwrap_or(0).min(1_000_000);
    let stores = servers
        .stores()
        .into_iter()
        .filter(|store| *store != "cluster");
    for store in stores {
        let mut opened = None;
        bench.compare(store, "all pages of 10,000 devices", others, || {
            let open = |others| {
                runtime()
                    .block_on(open(&servers, store, others))
                    .expect("loaded")
            };
            let (alone, beside) = (open(0), open(others));
            opened = Some([(0, alone.clone()), (others, beside.clone())]);
            let side = |store: Arc<dyn StoreMaintenance>| {
                called(1, move |_| {
                    let store = store.clone();
                    async move { read_all(&*store).await }
                })
            };
            (side(alone), side(beside))
        });
        for (others, own) in opened.into_iter().flatten() {
            let what = format!(
                "{store}, 10,000 devices beside {} registrations",
                data::grouped(others)
            );
            let counted = match store {
                "postgres" => Some(("rows and index entries read", rows_read(&servers, others))),
                "redis" => servers
                    .redis()
                    .map(|node| ("keys looked up", keys_looked_up(node, &*own))),
                _ => None,
            };
            if let Some((unit, counted)) = counted {
                bench.note(format!("{what}, {unit}"), counted);
            }
        }
    }
    bench.finish();
}

fn name(others: usize) -> String {
    format!("type_{others}")
}

/// Returns the registration with this index. The first `others` are of the other type, three on each device. The rest are of
/// the measured type, one on each device, and start again at the first device.
fn registration(others: usize, index: usize) -> Registration {
    let type_id = |text| TypeIdentifier::new(text).expect("a type");
    let (device, type_id, serial) = match index.checked_sub(others) {
        Some(own) => (own, data::type_id(), own),
        None => (index / EACH, type_id(OTHER_TYPE), index),
    };
    let pass = PassId {
        type_id,
        serial: data::serial(serial),
    };
    Registration {
        device: data::device(device),
        push_token: data::token(),
        pass,
    }
}

async fn open(
    servers: &Servers,
    store: &'static str,
    others: usize,
) -> Outcome<Arc<dyn StoreMaintenance>> {
    let name = name(others);
    let own = servers.open_store(store, &name).await?;
    let one = |index| registration(others, index);
    servers
        .load((store, &name), &*own, others + DEVICES, one, |_| ())
        .await?;
    Ok(own)
}

async fn read_all<S: StoreMaintenance + ?Sized>(store: &S) {
    let (mut after, mut found) = (None, 0);
    loop {
        let page = store
            .devices(Audience::Type(&type_id()), after.as_ref(), PAGE)
            .await
            .expect("a page");
        found += page.items.len();
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    // A device may occur twice.
    assert!(found >= DEVICES, "{found}");
}

fn rows_read(servers: &Servers, others: usize) -> f64 {
    let count = async {
        let url = servers.postgres_url(&name(others)).await?;
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .connect(&url)
            .await?;
        let store = PostgresStore::new(pool.clone());
        let before = statistics::rows_read(&pool).await?;
        read_all(&store).await;
        Outcome::Ok(statistics::rows_read(&pool).await? - before)
    };
    runtime().block_on(count).expect("counted") as f64
}

fn keys_looked_up(node: &passkit_test_servers::redis::Node, store: &dyn StoreMaintenance) -> f64 {
    let looked_up = || {
        let info = node.ask(&["INFO", "stats"]).expect("an answer");
        let number = |name| {
            let found = info
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .expect("a number");
            found.trim().parse::<f64>().expect("a number")
        };
        number("keyspace_hits:") + number("keyspace_misses:")
    };
    let before = looked_up();
    runtime().block_on(read_all(store));
    looked_up() - before
}
