//! A server in a container, if a Docker engine answers.
#![cfg(feature = "containers")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

use passkit_test_servers::postgres::Server;
use sqlx::{Connection as _, PgConnection};

#[tokio::test(flavor = "multi_thread")]
async fn a_container_serves() {
    let Some(server) = Server::container().unwrap() else {
        println!("left out: no Docker engine answers");
        return;
    };
    for _ in 0..2 {
        let database = server.new_database().await.unwrap();
        let mut connection = PgConnection::connect(&server.url(&database)).await.unwrap();
        let name: String = sqlx::query_scalar("select current_database()::text")
            .fetch_one(&mut connection)
            .await
            .unwrap();
        assert_eq!(name, database);
    }
    // A container must not be dropped inside a runtime.
    tokio::task::spawn_blocking(move || drop(server))
        .await
        .unwrap();
}
