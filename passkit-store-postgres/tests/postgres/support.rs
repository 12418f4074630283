use std::sync::LazyLock;

use passkit_server::{DeviceIdentifier, PassId, PushToken, RegistrationStore, SerialNumber, TypeIdentifier};
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
    let store = PostgresStore::connect(&new_database().await, Config::new()).await.unwrap();
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
    PassId { type_id: type_id(), serial: serial(text) }
}

pub(crate) fn device(text: impl AsRef<str>) -> DeviceIdentifier {
    DeviceIdentifier::new(text.as_ref()).unwrap()
}

pub(crate) fn token() -> PushToken {
    PushToken::new("c0ffee").unwrap()
}

/// The serial numbers registered on a device, sorted.
pub(crate) async fn held(store: &dyn RegistrationStore, device: &DeviceIdentifier) -> Vec<String> {
    let all = store.updated_since(device, &type_id(), None).await.unwrap();
    let mut held = all.serials.iter().map(|s| s.as_str().to_owned()).collect::<Vec<_>>();
    held.sort();
    held
}

/// An error with its reason.
pub(crate) fn text_of(error: &dyn std::error::Error) -> String {
    format!("{error}: {}", error.source().map(ToString::to_string).unwrap_or_default())
}
