use std::{collections::HashMap, time::Duration};

use async_trait::async_trait;
use tokio::time::Instant;

use super::MemoryStore;
use crate::{Coordination, StoreError};

/// The longest claim.
const YEAR: Duration = Duration::from_secs(365 * 86_400);

#[derive(Debug, Default)]
pub(super) struct Agreements {
    claims: HashMap<String, Claim>,
    notes: HashMap<String, String>,
}

#[derive(Debug)]
struct Claim {
    owner: String,
    until: Instant,
}

#[async_trait]
impl Coordination for MemoryStore {
    async fn claim(&self, name: &str, owner: &str, time: Duration) -> Result<bool, StoreError> {
        let claims = &mut self.tables_mut().coordination.claims;
        let now = Instant::now();
        claims.retain(|_, claim| claim.until > now);
        if claims.get(name).is_some_and(|claim| claim.owner != owner) {
            return Ok(false);
        }
        claims.insert(name.to_owned(), Claim { owner: owner.to_owned(), until: now + time.min(YEAR) });
        Ok(true)
    }

    async fn release(&self, name: &str, owner: &str) -> Result<(), StoreError> {
        self.tables_mut().coordination.claims.retain(|of, claim| of != name || claim.owner != owner);
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
