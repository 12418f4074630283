//! Claims and notes.

use std::time::Duration;

use async_trait::async_trait;
use passkit_server::store::{Coordination, StoreError};

use crate::{layout, store::SledStore};

/// Claims are in memory, because no other process uses the store.
#[async_trait]
impl Coordination for SledStore {
    async fn claim(&self, name: &str, owner: &str, time: Duration) -> Result<bool, StoreError> {
        Ok(self.claims.claim(name, owner, time))
    }

    async fn release(&self, name: &str, owner: &str) -> Result<(), StoreError> {
        self.claims.release(name, owner);
        Ok(())
    }

    async fn note(&self, name: &str) -> Result<Option<String>, StoreError> {
        let key = layout::note(name);
        self.read(move |view| {
            Ok(view
                .get(&key)?
                .map(|row| layout::decode_note(&row))
                .transpose()?)
        })
        .await
    }

    async fn replace_note(
        &self,
        name: &str,
        expected: Option<&str>,
        new: Option<&str>,
    ) -> Result<bool, StoreError> {
        let key = layout::note(name);
        let [expected, new] = [expected, new].map(|text| text.map(|text| text.as_bytes().to_vec()));
        self.write(move |group| {
            let before = group.get(&key)?;
            if before.as_deref() != expected.as_deref() {
                return Ok(false);
            }
            group.put(key.clone(), before, new.clone());
            Ok(true)
        })
        .await
    }
}
