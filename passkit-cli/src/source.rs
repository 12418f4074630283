//! The passes that an instance serves: from its folders, and from the store.

use std::{collections::BTreeSet, path::PathBuf, sync::Arc};

use passkit_folder::Folder;
use passkit_server::{
    ArchiveBody, Credentials, PassId, PassSource, PassState, SourceError, async_trait,
    identifiers::TypeIdentifier, source::StoredArchives, store::ArchiveStore,
};

/// The source of a service. If a pass is in a folder, the folder takes precedence.
#[derive(Clone)]
pub(crate) struct Source {
    pub(crate) folder: Option<Folder>,
    /// `None` if the instance runs without --archives-in-store.
    pub(crate) archives: Option<Arc<StoredArchives<Arc<dyn ArchiveStore>>>>,
}

impl Source {
    /// Returns how many passes and orders the folders have.
    pub(crate) fn len(&self) -> usize {
        self.folder.as_ref().map_or(0, Folder::len)
    }

    /// Returns the types of the passes and orders in the folders.
    pub(crate) fn types(&self) -> BTreeSet<TypeIdentifier> {
        self.folder
            .as_ref()
            .map_or_else(BTreeSet::new, Folder::types)
    }

    /// Returns the folders that are absent.
    pub(crate) fn absent(&self) -> BTreeSet<PathBuf> {
        self.folder
            .as_ref()
            .map_or_else(BTreeSet::new, Folder::absent)
    }

    pub(crate) async fn close(&self) {
        if let Some(folder) = &self.folder {
            folder.close().await;
        }
    }

    /// Returns the folder if the pass is in it.
    pub(crate) async fn folder_of(&self, pass: &PassId) -> Result<Option<&Folder>, SourceError> {
        let Some(folder) = &self.folder else {
            return Ok(None);
        };
        let credentials = folder.credentials(pass).await?;
        let is_served = credentials.is_some_and(|credentials| !credentials.is_withdrawn());
        Ok(is_served.then_some(folder))
    }

    /// Returns whether the file of a pass was removed from the folders, and the store does not know that yet.
    pub(crate) fn has_unpublished_removal(&self, pass: &PassId) -> bool {
        let folder = self.folder.as_ref();
        folder.is_some_and(|folder| folder.has_unpublished_removal(pass))
    }
}

#[async_trait]
impl PassSource for Source {
    async fn credentials(&self, pass: &PassId) -> Result<Option<Credentials>, SourceError> {
        let in_folder = match &self.folder {
            Some(folder) => folder.credentials(pass).await?,
            None => None,
        };
        let is_served = |credentials: &Credentials| !credentials.is_withdrawn();
        if in_folder.as_ref().is_some_and(is_served) {
            return Ok(in_folder);
        }
        let in_store = match &self.archives {
            Some(archives) => archives.credentials(pass).await?,
            None => None,
        };
        Ok(in_store.or(in_folder))
    }

    async fn archive(
        &self,
        pass: &PassId,
        state: &PassState,
    ) -> Result<Option<ArchiveBody>, SourceError> {
        // The file may be withdrawn while the folder is asked. The store may have the pass then.
        if let Some(folder) = self.folder_of(pass).await?
            && let Some(archive) = folder.archive(pass, state).await?
        {
            return Ok(Some(archive));
        }
        match &self.archives {
            Some(archives) => archives.archive(pass, state).await,
            None => Ok(None),
        }
    }

    async fn archive_length(
        &self,
        pass: &PassId,
        state: &PassState,
    ) -> Result<Option<u64>, SourceError> {
        if let Some(folder) = self.folder_of(pass).await?
            && let Some(length) = folder.archive_length(pass, state).await?
        {
            return Ok(Some(length));
        }
        let archive = self.archive(pass, state).await?;
        Ok(archive.map(|archive| archive.length()))
    }
}
