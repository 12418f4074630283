//! Measures registrations of new devices by one caller and by 64, in stores that start empty.

#![allow(clippy::expect_used)]

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use passkit_benches::{
    data::{device, pass, token},
    stores::Servers,
    turns::{Bench, called, runtime},
};

fn main() {
    let mut bench = Bench::new("register");
    let servers = Servers::empty();
    for store in servers.stores() {
        for (case, callers) in [("one caller", 1), ("64 callers", 64)] {
            bench.compare(store, case, callers, || {
                let opened =
                    runtime().block_on(servers.open(store, &format!("register_{callers}")));
                let (own, floor) = opened.expect("an empty store");
                let floor = Arc::new(floor);
                // The store and its floor may write to the same table, so both take device numbers
                // from the same counter.
                let next = Arc::new(AtomicUsize::new(0));
                let new = move || next.fetch_add(1, Ordering::Relaxed);
                let new_on_floor = new.clone();
                let on_floor = move |i| {
                    let (floor, device) = (floor.clone(), device(new_on_floor()));
                    async move { floor.register_one(i, &device, &pass(i)).await }
                };
                let on_own = move |i| {
                    let (own, device) = (own.clone(), device(new()));
                    async move {
                        own.register(&device, &pass(i), &token())
                            .await
                            .map(drop)
                            .expect("registered")
                    }
                };
                (called(callers, on_floor), called(callers, on_own))
            });
        }
    }
    bench.finish();
}
