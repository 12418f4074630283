//! "What changed for this device?", asked of each store and of its floor by one caller.

#![allow(clippy::expect_used)]

use std::{cell::OnceCell, rc::Rc};

use passkit_benches::{
    data,
    stores::{Case, Servers, Subject},
    turns::{Bench, alone, runtime},
};

fn main() {
    let mut bench = Bench::new("updatable_serials");
    let servers = Servers::kept();
    for store in servers.stores() {
        let sizes: Vec<_> = data::sizes().into_iter().map(|size| (size, OnceCell::new())).collect();
        for case in Case::ALL {
            // One size after the other, so that what is said about growth is about the same minute.
            for (size, subject) in &sizes {
                bench.compare(store, case.name(), *size, || {
                    let open = || {
                        Rc::new(runtime().block_on(Subject::open(&servers, store, *size)).expect("loaded"))
                    };
                    let (floor, own) = (subject.get_or_init(open).clone(), subject.get_or_init(open).clone());
                    (
                        alone(move |i| {
                            let floor = floor.clone();
                            async move { floor.ask_floor(case, i).await }
                        }),
                        alone(move |i| {
                            let own = own.clone();
                            async move { own.ask(case, i).await }
                        }),
                    )
                });
            }
        }
        for (size, subject) in &sizes {
            if let Some(bytes) = subject.get().and_then(|subject| subject.bytes_each) {
                bench.note(
                    format!("{store}, bytes of memory a registration, of {}", data::grouped(*size)),
                    bytes,
                );
            }
        }
    }
    bench.finish();
}
