use async_trait::async_trait;
use bytes::Bytes;
use passkit_server::{
    PassId,
    store::{ArchiveStore, ContentDigest, StoreError},
};

use super::{Fault, Faulty};

#[async_trait]
impl ArchiveStore for Faulty {
    async fn put_archive(
        &self,
        pass: &PassId,
        content: &ContentDigest,
        archive: Bytes,
    ) -> Result<(), StoreError> {
        let key = (pass.clone(), *content);
        self.memory(|memory| {
            let archives = &mut memory.archives;
            match self.fault {
                Fault::ArchivesKeepTheFirst => {
                    archives.entry(key).or_insert(archive);
                    return;
                }
                Fault::ArchivesKeepOne => archives.retain(|(of, _), _| of != pass),
                _ => {}
            }
            let length = match self.fault {
                Fault::ArchivesCut => archive.len().min(65_536),
                _ => archive.len(),
            };
            archives.insert(key, archive.slice(..length));
        });
        Ok(())
    }

    async fn archive(
        &self,
        pass: &PassId,
        content: &ContentDigest,
    ) -> Result<Option<Bytes>, StoreError> {
        Ok(self.memory(|memory| match self.fault {
            Fault::ArchivesIgnoreTheDigest => {
                let of_pass = memory.archives.iter().find(|((of, _), _)| of == pass);
                of_pass.map(|(_, archive)| archive.clone())
            }
            Fault::ArchivesIgnoreTheType => {
                let is_like = |of: &PassId| of.serial == pass.serial;
                let mut all = memory.archives.iter();
                let found = all.find(|((of, digest), _)| is_like(of) && digest == content);
                found.map(|(_, archive)| archive.clone())
            }
            _ => memory.archives.get(&(pass.clone(), *content)).cloned(),
        }))
    }
}
