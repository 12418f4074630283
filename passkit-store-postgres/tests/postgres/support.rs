use std::sync::LazyLock;

use passkit_server::{identifiers::TokenDigest, store::Content};
use passkit_store_postgres::{Config, PostgresStore};
pub(crate) use passkit_test_servers::fixtures::{device, pass, registered, serial, token, type_id};
use passkit_test_servers::postgres::Server;

/// One server for all tests. Each test has its own database.
pub(crate) static SERVER: LazyLock<Server> = LazyLock::new(|| Server::find().unwrap());

/// Makes a new, empty database and returns its address.
pub(crate) async fn new_database() -> String {
    SERVER.url(&SERVER.new_database().await.unwrap())
}

/// Makes a new database, migrates it, and opens a store over it.
pub(crate) async fn new_store() -> PostgresStore {
    let store = PostgresStore::connect(&new_database().await, Config::new())
        .await
        .unwrap();
    store.migrate().await.unwrap();
    store
}

pub(crate) fn auth_tokens(bytes: &[u8]) -> Vec<TokenDigest> {
    bytes
        .iter()
        .map(|byte| TokenDigest::from_bytes([*byte; 32]))
        .collect()
}

/// Returns content, or a removal if there is no digest.
pub(crate) fn content(name: impl AsRef<str>, digest: Option<u8>, tokens: &[u8]) -> Content {
    Content {
        serial: serial(name),
        digest: digest.map(|byte| [byte; 32]),
        tokens: auth_tokens(tokens),
    }
}

/// Returns the number of deadlocks that PostgreSQL found in the store's database.
pub(crate) async fn deadlocks(store: &PostgresStore) -> i64 {
    let count = "select deadlocks from pg_stat_database where datname = current_database()";
    sqlx::query_scalar(count)
        .fetch_one(store.pool())
        .await
        .unwrap()
}

/// Returns the text of an error and of its sources.
pub(crate) fn text_of(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", text_of(source)),
        None => error.to_string(),
    }
}
