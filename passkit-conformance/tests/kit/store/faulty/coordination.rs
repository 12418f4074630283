use std::time::Duration;

use async_trait::async_trait;
use passkit_server::store::{Coordination, StoreError};
use tokio::task::yield_now;

use super::{Fault, Faulty};

#[async_trait]
impl Coordination for Faulty {
    async fn claim(&self, name: &str, owner: &str, time: Duration) -> Result<bool, StoreError> {
        let known = self.memory(|memory| memory.owners.get(name).cloned());
        let remember =
            || self.memory(|memory| memory.owners.insert(name.to_owned(), owner.to_owned()));
        match self.fault {
            Fault::ClaimChecksFirst => {
                if known.is_some_and(|known| known != owner) {
                    return Ok(false);
                }
                yield_now().await;
                remember();
                Ok(true)
            }
            Fault::ClaimNotForItsOwner if known.as_deref() == Some(owner) => Ok(false),
            Fault::ClaimOfAllNames => self.inner.claim("one", owner, time).await,
            Fault::ClaimNeverEnds => {
                self.inner
                    .claim(name, owner, Duration::from_secs(86_400))
                    .await
            }
            Fault::ClaimEndsAtOnce => self.inner.claim(name, owner, time / 10).await,
            Fault::ClaimIsNotProlonged if known.as_deref() == Some(owner) => Ok(true),
            _ => {
                let given = self.inner.claim(name, owner, time).await?;
                if given {
                    remember();
                }
                Ok(given)
            }
        }
    }

    async fn release(&self, name: &str, owner: &str) -> Result<(), StoreError> {
        let known = self.memory(|memory| memory.owners.get(name).cloned());
        match (self.fault, known) {
            (Fault::AnyoneReleases, Some(known)) => self.inner.release(name, &known).await,
            (Fault::NobodyReleases, _) => Ok(()),
            (Fault::ReleaseRemovesTheNote, _) => {
                let note = self.inner.note(name).await?;
                self.inner.replace_note(name, note.as_deref(), None).await?;
                self.inner.release(name, owner).await
            }
            _ => self.inner.release(name, owner).await,
        }
    }

    async fn note(&self, name: &str) -> Result<Option<String>, StoreError> {
        self.inner.note(&self.note_named(name)).await
    }

    async fn replace_note(
        &self,
        name: &str,
        expected: Option<&str>,
        new: Option<&str>,
    ) -> Result<bool, StoreError> {
        let name = &self.note_named(name);
        match self.fault {
            Fault::NoteChecksFirst => {
                if self.inner.note(name).await?.as_deref() != expected {
                    return Ok(false);
                }
                yield_now().await;
                self.set_note(name, new).await
            }
            Fault::NoteIgnoresWhatIsExpected => self.set_note(name, new).await,
            Fault::NoteIsNeverRemoved if new.is_none() => {
                Ok(self.inner.note(name).await?.as_deref() == expected)
            }
            Fault::NoteAnswersTrue => self
                .inner
                .replace_note(name, expected, new)
                .await
                .map(|_| true),
            _ => self.inner.replace_note(name, expected, new).await,
        }
    }
}

impl Faulty {
    fn note_named(&self, name: &str) -> String {
        if self.is(Fault::NotesFolded) {
            name.to_lowercase()
        } else {
            name.to_owned()
        }
    }

    /// Replaces a note without comparing the old note.
    async fn set_note(&self, name: &str, new: Option<&str>) -> Result<bool, StoreError> {
        loop {
            let before = self.inner.note(name).await?;
            if self
                .inner
                .replace_note(name, before.as_deref(), new)
                .await?
            {
                return Ok(true);
            }
        }
    }
}
