use std::{collections::HashMap, time::Duration};

use async_trait::async_trait;

use super::MemoryStore;
use crate::store::{Claims, Coordination, StoreError};

#[derive(Clone, Debug, Default)]
pub(super) struct Agreements {
    claims: Claims,
    notes: HashMap<String, String>,
}

#[async_trait]
impl Coordination for MemoryStore {
    async fn claim(&self, name: &str, owner: &str, time: Duration) -> Result<bool, StoreError> {
        Ok(self.tables().coordination.claims.claim(name, owner, time))
    }

    async fn release(&self, name: &str, owner: &str) -> Result<(), StoreError> {
        self.tables().coordination.claims.release(name, owner);
        Ok(())
    }

    async fn note(&self, name: &str) -> Result<Option<String>, StoreError> {
        Ok(self.tables().coordination.notes.get(name).cloned())
    }

    async fn replace_note(
        &self,
        name: &str,
        expected: Option<&str>,
        new: Option<&str>,
    ) -> Result<bool, StoreError> {
        let notes = &mut self.tables_mut().coordination.notes;
        if notes.get(name).map(String::as_str) != expected {
            return Ok(false);
        }
        match new {
            Some(new) => notes.insert(name.to_owned(), new.to_owned()),
            None => notes.remove(name),
        };
        Ok(true)
    }
}
