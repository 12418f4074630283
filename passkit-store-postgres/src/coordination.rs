//! Claims and notes.

use std::time::Duration;

use async_trait::async_trait;
use passkit_server::store::{Coordination, StoreError};

use crate::{
    engine::{
        connections::Statement,
        rows::{column, only},
    },
    layout,
    store::PostgresStore,
};

/// The longest claim.
const YEAR: Duration = Duration::from_secs(365 * 86_400);

/// The clock of the database decides when a claim expires.
#[async_trait]
impl Coordination for PostgresStore {
    async fn claim(&self, name: &str, owner: &str, time: Duration) -> Result<bool, StoreError> {
        let micros = i64::try_from(time.min(YEAR).as_micros()).unwrap_or(i64::MAX);
        let statement = Statement::new(layout::CLAIM)
            .bind(name)
            .bind(owner)
            .bind(micros);
        Ok(!self.connections().fetch(statement).await?.is_empty())
    }

    async fn release(&self, name: &str, owner: &str) -> Result<(), StoreError> {
        Ok(self
            .execute(Statement::new(layout::RELEASE).bind(name).bind(owner))
            .await?)
    }

    async fn note(&self, name: &str) -> Result<Option<String>, StoreError> {
        let rows = self
            .connections()
            .fetch(Statement::new(layout::NOTE).bind(name))
            .await?;
        Ok(rows.first().map(|row| column(row, 0)).transpose()?)
    }

    async fn replace_note(
        &self,
        name: &str,
        expected: Option<&str>,
        new: Option<&str>,
    ) -> Result<bool, StoreError> {
        // If the statement ran twice, the second run would return false, although the first one had replaced the note.
        let statement = Statement::new(layout::REPLACE_NOTE)
            .bind(name)
            .bind(expected)
            .bind(new)
            .once();
        Ok(only(&self.connections().fetch(statement).await?)?)
    }
}
