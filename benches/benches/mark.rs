//! Measures marks of one pass, marks of a hundred passes in one call, and marks of one pass by each of 512 callers.

#![allow(clippy::expect_used)]

use std::sync::Arc;

use passkit_benches::{
    data::{serial, type_id},
    stores::Servers,
    turns::{Bench, called, runtime},
};
use passkit_server::{Changed, identifiers::SerialNumber};

const PASSES: usize = 10_000;

fn main() {
    let mut bench = Bench::new("mark");
    let servers = Servers::empty();
    for store in servers.stores() {
        for (case, passes, callers) in [
            ("one pass", 1, 1),
            ("100 passes", 100, 1),
            ("one pass, 512 callers", 1, 512),
        ] {
            bench.compare(store, case, callers, || {
                let opened =
                    runtime().block_on(servers.open(store, &format!("mark_{passes}_{callers}")));
                let (own, floor) = opened.expect("an empty store");
                let floor = Arc::new(floor);
                let serials = move |i: usize| -> Vec<SerialNumber> {
                    (0..passes)
                        .map(|k| serial((i * passes + k) % PASSES))
                        .collect()
                };
                let on_floor = move |i| {
                    let (floor, serials) = (floor.clone(), serials(i));
                    async move { floor.mark_durably(i, &serials).await }
                };
                let on_own = move |i| {
                    let (own, serials) = (own.clone(), serials(i));
                    async move {
                        own.mark(&type_id(), Changed::Passes(&serials))
                            .await
                            .expect("marked")
                    }
                };
                (called(callers, on_floor), called(callers, on_own))
            });
        }
    }
    bench.finish();
}
