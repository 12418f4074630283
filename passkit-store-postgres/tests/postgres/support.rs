use std::sync::LazyLock;

use passkit_server::{
    PassId,
    identifiers::{DeviceIdentifier, PushToken, SerialNumber, TokenDigest, TypeIdentifier},
    store::{Content, RegistrationStore},
};
use passkit_store_postgres::{Config, PostgresStore};
use passkit_test_servers::postgres::Server;

/// One for all tests: each has a database of its own.
pub(crate) static SERVER: LazyLock<Server> = LazyLock::new(|| Server::find().unwrap());

/// The address of a new, empty database.
pub(crate) async fn new_database() -> String {
    SERVER.url(&SERVER.new_database().await.unwrap())
}

/// A store on a new database, migrated.
pub(crate) async fn new_store() -> PostgresStore {
    let store = PostgresStore::connect(&new_database().await, Config::new())
        .await
        .unwrap();
    store.migrate().await.unwrap();
    store
}

pub(crate) fn type_id() -> TypeIdentifier {
    TypeIdentifier::new("pass.com.example.ticket").unwrap()
}

pub(crate) fn serial(text: impl AsRef<str>) -> SerialNumber {
    SerialNumber::new(text.as_ref()).unwrap()
}

pub(crate) fn pass(text: impl AsRef<str>) -> PassId {
    PassId {
        type_id: type_id(),
        serial: serial(text),
    }
}

pub(crate) fn device(text: impl AsRef<str>) -> DeviceIdentifier {
    DeviceIdentifier::new(text.as_ref()).unwrap()
}

pub(crate) fn token() -> PushToken {
    PushToken::new("c0ffee").unwrap()
}

pub(crate) fn auth_tokens(bytes: &[u8]) -> Vec<TokenDigest> {
    bytes
        .iter()
        .map(|byte| TokenDigest::from_bytes([*byte; 32]))
        .collect()
}

/// A content, or a removal if there is no digest.
pub(crate) fn content(name: impl AsRef<str>, digest: Option<u8>, tokens: &[u8]) -> Content {
    Content {
        serial: serial(name),
        digest: digest.map(|byte| [byte; 32]),
        tokens: auth_tokens(tokens),
    }
}

/// The serial numbers registered on a device, sorted.
pub(crate) async fn registered(
    store: &dyn RegistrationStore,
    device: &DeviceIdentifier,
) -> Vec<String> {
    let all = store.changes_since(device, &type_id(), None).await.unwrap();
    let mut registered = all
        .serials
        .iter()
        .map(|s| s.as_str().to_owned())
        .collect::<Vec<_>>();
    registered.sort();
    registered
}

/// How often PostgreSQL had to end a deadlock in the store's database.
pub(crate) async fn deadlocks(store: &PostgresStore) -> i64 {
    let count = "select deadlocks from pg_stat_database where datname = current_database()";
    sqlx::query_scalar(count)
        .fetch_one(store.pool())
        .await
        .unwrap()
}

/// An error with its sources.
pub(crate) fn text_of(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", text_of(source)),
        None => error.to_string(),
    }
}
