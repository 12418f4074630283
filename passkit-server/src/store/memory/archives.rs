use std::{
    collections::{BTreeMap, HashMap},
    time::Instant,
};

use async_trait::async_trait;
use bytes::Bytes;

use super::MemoryStore;
use crate::{
    PassId,
    store::{ARCHIVE_KEPT, ArchiveStore, ContentDigest, StoreError},
};

/// The archives of each pass, with the time at which each was put.
pub(super) type Archives = HashMap<PassId, BTreeMap<ContentDigest, (Instant, Bytes)>>;

#[async_trait]
impl ArchiveStore for MemoryStore {
    async fn put_archive(
        &self,
        pass: &PassId,
        content: &ContentDigest,
        archive: Bytes,
    ) -> Result<(), StoreError> {
        let mut tables = self.tables_mut();
        let published = tables.pass_state(pass).published;
        let archives = tables.archives.entry(pass.clone()).or_default();
        archives.insert(*content, (Instant::now(), archive));
        archives.retain(|digest, (put_at, _)| {
            Some(*digest) == published || put_at.elapsed() <= ARCHIVE_KEPT
        });
        Ok(())
    }

    async fn archive(
        &self,
        pass: &PassId,
        content: &ContentDigest,
    ) -> Result<Option<Bytes>, StoreError> {
        let tables = self.tables();
        let archives = tables.archives.get(pass);
        let archive = archives.and_then(|archives| archives.get(content));
        Ok(archive.map(|(_, archive)| archive.clone()))
    }
}
