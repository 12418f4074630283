//! Takes archives from other programs, for all instances that share the store.

use std::{slice, sync::Arc, time::Duration};

use bytes::Bytes;
use passkit_archive::{Archive, Findings, Level, Report, Rules};
use passkit_server::{
    AuthToken, Changed, PassId, SourceError,
    push::Publisher,
    store::{ArchiveStore, Content, StoreError, StoreErrorKind},
};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::{
    failure::{Chain, Failure},
    source::Source,
};

/// How many archives are read and checked at once. Each may need 40 MB.
const AT_ONCE: usize = 4;
/// How long a request waits for its turn.
const TURN: Duration = Duration::from_secs(10);
/// How long the store may take. An archive must be published long before the store may remove it.
const STORE_TIME: Duration = Duration::from_secs(60);

/// Puts archives into the store.
pub(crate) struct Archives {
    pub(crate) store: Arc<dyn ArchiveStore>,
    pub(crate) source: Source,
    pub(crate) publisher: Arc<Publisher>,
    pub(crate) rules: Rules,
    turns: Semaphore,
}

/// An archive that the store has accepted.
pub(crate) struct Taken {
    pub(crate) pass: PassId,
    pub(crate) is_new: bool,
    /// Whether the content differs from the content that was published last.
    pub(crate) is_changed: bool,
    pub(crate) findings: Findings,
}

/// Why an archive is refused.
pub(crate) enum NotTaken {
    /// Too many other archives are being checked.
    Busy,
    /// Phones would refuse the archive.
    Refused(Findings),
    /// The pass is in a folder of this instance.
    InFolder(PassId),
    /// The file of the pass was removed, but that is not published yet.
    LeavingFolder(PassId),
    Store(StoreError),
    Failed(Failure),
}

impl From<StoreError> for NotTaken {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<SourceError> for NotTaken {
    fn from(error: SourceError) -> Self {
        Self::Failed(Failure::new(Chain(&*error).to_string()))
    }
}

impl Archives {
    pub(crate) fn new(
        store: Arc<dyn ArchiveStore>,
        source: Source,
        publisher: Arc<Publisher>,
        rules: Rules,
    ) -> Self {
        Self {
            store,
            source,
            publisher,
            rules,
            turns: Semaphore::new(AT_ONCE),
        }
    }

    /// Waits until an archive may be read.
    pub(crate) async fn turn(&self) -> Result<SemaphorePermit<'_>, NotTaken> {
        match tokio::time::timeout(TURN, self.turns.acquire()).await {
            Ok(Ok(turn)) => Ok(turn),
            _ => Err(NotTaken::Busy),
        }
    }

    /// Checks an archive, puts it into the store, and then publishes it. All instances serve it when this returns.
    pub(crate) async fn take(&self, bytes: Bytes) -> Result<Taken, NotTaken> {
        let (archive, findings) = self.check(&bytes).await?;
        let pass = archive.id;
        if self.source.folder_of(&pass).await?.is_some() {
            return Err(NotTaken::InFolder(pass));
        }
        // Otherwise the removal of the file could end the pass after it was published here.
        if self.source.has_unpublished_removal(&pass) {
            return Err(NotTaken::LeavingFolder(pass));
        }
        let published = self.store.published(slice::from_ref(&pass)).await?;
        let published = published.into_iter().flatten().next();
        let digest = archive.content_digest;
        let content = Content {
            serial: pass.serial.clone(),
            digest: Some(digest),
            tokens: archive.auth_token.iter().map(AuthToken::digest).collect(),
        };
        let taking = async {
            self.store.put_archive(&pass, &digest, bytes).await?;
            self.publisher
                .publish(&pass.type_id, Changed::Contents(&[content]))
                .await
        };
        tokio::time::timeout(STORE_TIME, taking)
            .await
            .map_err(|_| {
                StoreError::new(StoreErrorKind::Unavailable, "the store took more than 60 s")
            })??;
        let before = published.as_ref().filter(|before| !before.removed);
        Ok(Taken {
            pass,
            is_new: published.is_none(),
            is_changed: before.and_then(|before| before.digest) != Some(digest),
            findings,
        })
    }

    /// Checks an archive like a file in a folder. A fault that the served version also has does not prevent an update,
    /// because phones already have that version.
    async fn check(&self, bytes: &Bytes) -> Result<(Archive, Findings), NotTaken> {
        let report = self.report(bytes.clone()).await?;
        let findings = report.findings.at_least(Level::Error);
        let Some(archive) = report.archive else {
            return Err(NotTaken::Refused(findings));
        };
        if findings.worst() >= Some(Level::Refused) {
            let published = self.store.pass_state(&archive.id).await?.published;
            let before = match published {
                Some(digest) => self.store.archive(&archive.id, &digest).await?,
                None => None,
            };
            let before = match before {
                Some(before) => Some(self.report(before).await?.findings),
                None => None,
            };
            if before.is_none_or(|before| findings.has_new(Level::Refused, &before)) {
                return Err(NotTaken::Refused(findings));
            }
        }
        Ok((archive, findings))
    }

    async fn report(&self, bytes: Bytes) -> Result<Report, NotTaken> {
        let rules = self.rules;
        let checked = tokio::task::spawn_blocking(move || Report::of(&bytes, rules)).await;
        checked.map_err(|error| {
            NotTaken::Failed(Failure::from_error("checking the archive failed", &error))
        })
    }
}
