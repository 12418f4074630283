//! Reads the push tokens of a pass on a million devices in pages. Compares a page with its floor. Then reads all pages once,
//! and reports the memory that this takes.

#![allow(clippy::expect_used)]

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use passkit_benches::{
    data::{self, pass, token},
    floor::Floor,
    memory::Memory,
    stores::Servers,
    turns::{Bench, called, runtime},
    writes::Pages,
};
use passkit_server::{
    maintenance::{Registration, StoreMaintenance},
    store::Audience,
};
use passkit_test_servers::Outcome;

const PAGE: usize = 1_000;

fn main() {
    let mut bench = Bench::new("push_targets");
    let servers = Servers::kept();
    // The size is at most 1 M, to save time.
    let devices = data::sizes().into_iter().max().unwrap_or(0).min(1_000_000);
    for store in servers.stores() {
        let mut all = None;
        bench.compare(store, "a page of 1,000", devices, || {
            let opened = runtime()
                .block_on(opened(&servers, store, devices))
                .expect("loaded");
            all = Some(opened.0.clone());
            let (own, place) = (opened.0, Arc::new(Mutex::new(None)));
            let floor = Pages::new(opened.1, pass(0));
            let on_floor = move |_| {
                let floor = floor.clone();
                async move { assert!(floor.next(PAGE).await.len() <= 2 * PAGE) }
            };
            let on_own = move |_| {
                let (own, place) = (own.clone(), place.clone());
                async move {
                    let after = place.lock().unwrap_or_else(PoisonError::into_inner).take();
                    let page = own
                        .devices(Audience::Pass(&pass(0)), after.as_ref(), PAGE)
                        .await
                        .expect("a page");
                    *place.lock().unwrap_or_else(PoisonError::into_inner) = page.next;
                }
            };
            (called(1, on_floor), called(1, on_own))
        });
        if let Some(own) = all {
            let (seconds, kilobytes) = runtime().block_on(read_all(&*own, devices));
            bench.note(
                format!("{store}, all of {}, seconds", data::grouped(devices)),
                seconds,
            );
            bench.note(
                format!("{store}, additional memory at the peak, KB"),
                kilobytes,
            );
        }
    }
    bench.finish();
}

async fn opened(
    servers: &Servers,
    store: &'static str,
    devices: usize,
) -> Outcome<(Arc<dyn StoreMaintenance>, Arc<Floor>)> {
    let one = |i| Registration {
        device: data::device(i),
        push_token: token(),
        pass: pass(0),
    };
    let name = format!("push_{devices}");
    let (own, floor) = servers.open(store, &name).await?;
    let also = |part: &[Registration]| floor.register_by_pass(part);
    servers
        .load((store, &name), &*own, devices, one, also)
        .await?;
    Ok((own, Arc::new(floor)))
}

async fn read_all(store: &dyn StoreMaintenance, devices: usize) -> (f64, f64) {
    let memory = Memory::now();
    let (start, mut after, mut found) = (Instant::now(), None, 0);
    loop {
        let page = store
            .devices(Audience::Pass(&pass(0)), after.as_ref(), PAGE)
            .await
            .expect("a page");
        found += page.items.len();
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert!(found >= devices, "{found}");
    (start.elapsed().as_secs_f64(), memory.more_at_peak())
}
