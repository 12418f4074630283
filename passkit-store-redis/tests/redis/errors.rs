//! Errors keep the error of the driver as their source.

use std::error::Error as _;

use passkit_server::store::{RegistrationStore as _, StoreError, StoreErrorKind};
use passkit_store_redis::{
    Config, Error, RedisStore,
    redis::{self, RedisError},
};
use passkit_test_servers::redis::{Cluster, Node, Single};

use crate::support::{connection, device, pass, prefix, token, type_id};

/// Finds the error of the driver at the place that the documentation names.
#[track_caller]
fn driver(error: &StoreError) -> &RedisError {
    let ours: &Error = error
        .source()
        .unwrap()
        .downcast_ref()
        .expect("an error of the store");
    assert_eq!(ours.kind(), error.kind());
    ours.source()
        .unwrap()
        .downcast_ref()
        .expect("an error of the driver")
}

async fn errors_of_the_server_are_kept(url: &str) {
    let prefix = prefix();
    let config = Config::new().prefix(prefix.clone()).buckets(1);
    let store = RedisStore::connect(url, config).await.unwrap();
    store
        .register(&device("d"), &pass("1"), &token())
        .await
        .unwrap();
    let node = url
        .trim_start_matches("redis+cluster://")
        .split([',', '/'])
        .next()
        .unwrap();
    let url = if url.starts_with("redis+cluster") {
        format!("redis://{node}/")
    } else {
        url.to_owned()
    };
    let mut c = connection(&url).await;
    // The key becomes a Redis string. On a Cluster, only one node accepts this command, and the
    // others refuse it.
    let key = format!("{prefix}b{{{}:0}}", type_id());
    let set = redis::cmd("SET")
        .arg(&key)
        .arg("x")
        .query_async::<()>(&mut c)
        .await;
    if let Err(moved) = set {
        let (node, _) = moved.redirect_node().unwrap();
        let mut c = connection(&format!("redis://{node}/")).await;
        let _: () = redis::cmd("SET")
            .arg(&key)
            .arg("x")
            .query_async(&mut c)
            .await
            .unwrap();
    }
    for error in [
        store.pass_state(&pass("1")).await.map(drop).unwrap_err(),
        store
            .changes_since(&device("d"), &type_id(), None)
            .await
            .map(drop)
            .unwrap_err(),
    ] {
        assert_eq!(error.kind(), StoreErrorKind::Corrupt);
        assert_eq!(driver(&error).code(), Some("WRONGTYPE"));
    }
}

#[tokio::test]
async fn one_node_keeps_errors_of_the_server() {
    let server = Single::start().unwrap();
    errors_of_the_server_are_kept(server.url()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cluster_keeps_errors_of_the_server() {
    let servers = Cluster::start().unwrap();
    errors_of_the_server_are_kept(&servers.url()).await;
}

#[tokio::test]
async fn errors_of_the_connection_are_kept() {
    let server = Node::start(&[]).unwrap();
    let config = Config::new().call_timeout(std::time::Duration::from_millis(300));
    let store = RedisStore::connect(&server.url(), config.clone())
        .await
        .unwrap();
    server.kill().unwrap();
    let error = store.pass_state(&pass("1")).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unavailable);
    assert!(driver(&error).is_io_error());
    for url in [
        server.url(),
        format!("redis+cluster://127.0.0.1:{}", server.port()),
    ] {
        let error = RedisStore::connect(&url, config.clone())
            .await
            .map(drop)
            .unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Unavailable);
        assert!(driver(&error).is_io_error());
    }
}

#[tokio::test]
async fn errors_of_the_store_itself_have_no_driver_error() {
    let error = RedisStore::connect("http://h", Config::new())
        .await
        .map(drop)
        .unwrap_err();
    let ours: &Error = error.source().unwrap().downcast_ref().unwrap();
    assert_eq!(ours.kind(), StoreErrorKind::Configuration);
    assert!(ours.source().is_none());
}
