//! Compares a Redis Cluster of three masters with a single node. 64 callers make the same calls to
//! both. The floor is the single node.

#![allow(clippy::expect_used)]

use std::{cell::LazyCell, sync::Arc};

use passkit_benches::{
    data::{device, pass, serial, token, type_id},
    stores::{Case, Servers, Subject},
    turns::{Bench, Side, called, runtime},
};
use passkit_server::Changed;

const CALLERS: usize = 64;
const REGISTRATIONS: usize = 10_000;

fn main() {
    let mut bench = Bench::new("masters");
    let servers = Servers::empty();
    let stores = servers.stores();
    if ["redis", "cluster"]
        .iter()
        .all(|store| stores.contains(store))
    {
        let opened = LazyCell::new(|| {
            ["redis", "cluster"].map(|store| {
                let subject = runtime().block_on(Subject::open(&servers, store, REGISTRATIONS));
                Arc::new(subject.expect("loaded"))
            })
        });
        for (case, side) in [
            (Case::OneOfThree.name(), asked as fn(&Arc<Subject>) -> Side),
            ("registration", registered),
            ("mark of one pass", marked),
        ] {
            bench.compare("cluster", case, CALLERS, || {
                let [one, three] = &*opened;
                (side(one), side(three))
            });
        }
    }
    bench.finish();
}

fn asked(subject: &Arc<Subject>) -> Side {
    let subject = subject.clone();
    called(CALLERS, move |i| {
        let subject = subject.clone();
        async move { subject.ask(Case::OneOfThree, i).await }
    })
}

/// Registers new devices, each with a different pass.
fn registered(subject: &Arc<Subject>) -> Side {
    let store = subject.store.clone();
    called(CALLERS, move |i| {
        let store = store.clone();
        async move {
            let number = 10 * REGISTRATIONS + i;
            store
                .register(&device(number), &pass(number), &token())
                .await
                .expect("registered");
        }
    })
}

/// Marks passes that no device has.
fn marked(subject: &Arc<Subject>) -> Side {
    let store = subject.store.clone();
    called(CALLERS, move |i| {
        let store = store.clone();
        async move {
            let serials = [serial(5 * REGISTRATIONS + i % REGISTRATIONS)];
            store
                .mark(&type_id(), Changed::Passes(&serials))
                .await
                .expect("marked");
        }
    })
}
