//! The contract, case by case, each on a database of its own.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use passkit_conformance::store::{BoxError, Stores};
use passkit_server::{PushQueue, RegistrationStore, StoreMaintenance, async_trait};
use passkit_store_postgres::{Config, PostgresStore};
use passkit_test_servers::postgres::Server;

struct PostgresStores {
    server: Server,
    /// The address of each store's database, by the store's own. They are kept, so that no address comes twice.
    opened: Mutex<HashMap<usize, (String, Arc<PostgresStore>)>>,
}

impl PostgresStores {
    fn new() -> Self {
        Self { server: Server::find().unwrap_or_else(|error| panic!("{error}")), opened: Mutex::default() }
    }

    async fn make(&self) -> Result<Arc<PostgresStore>, BoxError> {
        let url = self.server.url(&self.server.new_database().await?);
        let store = Arc::new(PostgresStore::connect(&url, Config::new()).await?);
        store.migrate().await?;
        self.opened.lock().unwrap().insert(Arc::as_ptr(&store).addr(), (url, store.clone()));
        Ok(store)
    }

    async fn connect_anew(&self, address: usize) -> Result<Arc<PostgresStore>, BoxError> {
        let url = self.opened.lock().unwrap()[&address].0.clone();
        Ok(Arc::new(PostgresStore::connect(&url, Config::new()).await?))
    }
}

#[async_trait]
impl Stores for PostgresStores {
    async fn open(&self) -> Result<Arc<dyn RegistrationStore>, BoxError> {
        Ok(self.make().await?)
    }

    /// Connects anew: nothing of the store is left but what the database has. That it has it after a crash of its own
    /// is tried elsewhere.
    async fn reopen(
        &self,
        store: Arc<dyn RegistrationStore>,
    ) -> Option<Result<Arc<dyn RegistrationStore>, BoxError>> {
        Some(
            self.connect_anew(Arc::as_ptr(&store).addr())
                .await
                .map(|store| store as Arc<dyn RegistrationStore>),
        )
    }

    async fn maintained(&self) -> Option<Result<Arc<dyn StoreMaintenance>, BoxError>> {
        Some(self.make().await.map(|store| store as Arc<dyn StoreMaintenance>))
    }

    async fn queued(&self) -> Option<Result<Arc<dyn PushQueue>, BoxError>> {
        Some(self.make().await.map(|store| store as Arc<dyn PushQueue>))
    }

    async fn reopen_queued(&self, store: Arc<dyn PushQueue>) -> Option<Result<Arc<dyn PushQueue>, BoxError>> {
        Some(self.connect_anew(Arc::as_ptr(&store).addr()).await.map(|store| store as Arc<dyn PushQueue>))
    }
}

passkit_conformance::store_tests!(PostgresStores::new());
