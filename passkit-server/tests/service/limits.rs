//! Limits of the memory and the rows that a caller can use up, with one token or without a token.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use passkit_server::{
    WalletService,
    store::{MemoryStore, RegistrationStore as _},
};

use crate::{
    app::{App, PUSH, post, ticket},
    bodies::{End, Pieces},
};

fn with_devices(at_most: u64) -> App<MemoryStore> {
    let app = App::new();
    let service = WalletService::new(app.store.clone(), app.desk.clone());
    App {
        service: service.max_devices_per_pass(at_most),
        ..app
    }
}

#[tokio::test(start_paused = true)]
async fn a_pass_has_no_more_devices_than_allowed() {
    let app = with_devices(3);
    let pass = ticket("A-1");
    for device in ["d1", "d2", "d3"] {
        assert_eq!(app.register(device, &pass).await, 201);
    }
    for _ in 0..2 {
        let refused = app.send(app.register_call("d4", &pass, PUSH)).await;
        assert_eq!(
            (refused.status, refused.header("retry-after")),
            (503, Some("30"))
        );
    }
    assert_eq!(app.store.count_devices(&pass, 10).await.unwrap(), 3);
    assert_eq!(
        app.register("d1", &pass).await,
        200,
        "a known device may register again"
    );
    assert_eq!(
        app.register("d4", &ticket("A-2")).await,
        201,
        "other passes are free"
    );
    assert_eq!(app.unregister("d2", &pass).await, 200);
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert_eq!(
        app.register("d4", &pass).await,
        201,
        "there is a place again"
    );
    assert_eq!(app.register("d5", &pass).await, 503);
}

#[tokio::test]
async fn the_sample_lets_few_more_devices_in() {
    let app = with_devices(6_400);
    let pass = ticket("A-1");
    let mut refused = 0;
    for n in 0..10_000 {
        refused += u64::from(app.register(&format!("d{n}"), &pass).await == 503);
    }
    let registered = app.store.count_devices(&pass, 10_000).await.unwrap();
    assert_eq!(registered + refused, 10_000);
    assert!((6_400..6_600).contains(&registered), "{registered}");
}

#[tokio::test(start_paused = true)]
async fn unfinished_bodies_take_no_more_memory_than_allowed() {
    let app = App::new();
    let service =
        WalletService::new(app.store.clone(), app.desk.clone()).device_log(app.log.clone());
    let app = Arc::new(App {
        service: service.max_body_bytes(1024 * 1024),
        ..app
    });
    let log = || {
        // The pieces of a log without its end.
        let pieces = (0..200).map(|_| Bytes::from_static(&[b' '; 1024]));
        let body = Pieces::new(pieces, Duration::ZERO, End::Never);
        post("/v1/log").request_with(body)
    };
    let mut unfinished = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let app = app.clone();
        let request = log();
        unfinished.spawn(async move { app.open(request).await.status().as_u16() });
    }
    let mut refused = 0;
    // The requests that have memory wait for the rest of their body. The others are refused at
    // once.
    while refused < 98 {
        assert_eq!(unfinished.join_next().await.unwrap().unwrap(), 503);
        refused += 1;
    }
    assert_eq!(
        app.register("d1", &ticket("A-1")).await,
        201,
        "registrations have separate memory"
    );
    while let Some(status) = unfinished.join_next().await {
        assert_eq!(status.unwrap(), 408);
    }
    // All memory is free again.
    let mut waiting = Vec::new();
    for _ in 0..2 {
        waiting.push(app.open(log()));
    }
    for status in futures_util::future::join_all(waiting).await {
        assert_eq!(status.status(), 408);
    }
}
