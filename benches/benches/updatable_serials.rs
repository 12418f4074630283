//! Asks each store and its floor what changed for a device, by one caller and by 64.

#![allow(clippy::expect_used)]

use std::{cell::OnceCell, sync::Arc};

use passkit_benches::{
    data,
    stores::{Case, SLED_COLD, Servers, Subject},
    turns::{Bench, Side, called, runtime},
};

const CALLERS: usize = 64;

fn main() {
    let mut bench = Bench::new("updatable_serials");
    let servers = Servers::kept();
    let stores = servers.stores().into_iter();
    for store in stores
        .flat_map(|store| [Some(store), (store == "sled").then_some(SLED_COLD)])
        .flatten()
    {
        let sizes: Vec<_> = data::sizes()
            .into_iter()
            .map(|size| (size, OnceCell::new()))
            .collect();
        let opened = |(size, subject): &(usize, OnceCell<Arc<Subject>>)| {
            let open = || {
                Arc::new(
                    runtime()
                        .block_on(Subject::open(&servers, store, *size))
                        .expect("loaded"),
                )
            };
            subject.get_or_init(open).clone()
        };
        for case in Case::ALL {
            // All sizes of a case are measured one after the other, so that their growth is
            // measured within a minute.
            for size in &sizes {
                bench.compare(store, case.name(), size.0, || sides(case, &opened(size), 1));
            }
        }
        if let Some(size) = sizes.last() {
            let case = format!("{}, {CALLERS} callers", Case::OneOfThree.name());
            bench.compare(store, &case, size.0, || {
                sides(Case::OneOfThree, &opened(size), CALLERS)
            });
        }
        for (size, subject) in &sizes {
            if let Some(bytes) = subject.get().and_then(|subject| subject.bytes_each) {
                let size = data::grouped(*size);
                bench.note(
                    format!("{store}, bytes of memory per registration, with {size}"),
                    bytes,
                );
            }
        }
    }
    bench.finish();
}

/// The difference between the device number of the floor and the device number of the store. If
/// both asked for the same device in the same database, the second caller would find the rows in
/// memory.
const APART: usize = 15_000;

/// Returns the floor and the store, with this number of callers.
fn sides(case: Case, subject: &Arc<Subject>, callers: usize) -> (Side, Side) {
    let (floor, own) = (subject.clone(), subject.clone());
    let on_floor = move |i| {
        let floor = floor.clone();
        async move { floor.ask_floor(case, i + APART).await }
    };
    let on_own = move |i| {
        let own = own.clone();
        async move { own.ask(case, i).await }
    };
    (called(callers, on_floor), called(callers, on_own))
}
