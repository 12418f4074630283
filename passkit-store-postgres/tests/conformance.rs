//! Runs the conformance cases. Each case has its own database.

use std::sync::Arc;

use passkit_conformance::store::{BoxError, Stores, TestStore};
use passkit_store_postgres::{Config, PostgresStore};
use passkit_test_servers::postgres::Server;

struct Databases(Result<Server, BoxError>);

#[passkit_server::async_trait]
impl Stores for Databases {
    type Place = String;

    async fn open(&self) -> Result<(TestStore, String), BoxError> {
        let server = self.0.as_ref().map_err(ToString::to_string)?;
        let url = server.url(&server.new_database().await?);
        let store = PostgresStore::connect(&url, Config::new()).await?;
        store.migrate().await?;
        let other = PostgresStore::connect(&url, Config::new()).await?;
        let [one, other] = [store, other].map(with_all_traits);
        Ok((TestStore::spread(one, vec![other]), url))
    }

    async fn reopen(&self, url: &String) -> Option<Result<TestStore, BoxError>> {
        let store = PostgresStore::connect(url, Config::new()).await;
        Some(store.map(with_all_traits).map_err(Into::into))
    }
}

fn with_all_traits(store: PostgresStore) -> TestStore {
    let store = Arc::new(store);
    TestStore::with_all(store.clone()).with_delivery(store)
}

passkit_conformance::store_tests!(Databases(Server::find()));
