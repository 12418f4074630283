//! Claims and notes.

use super::*;

#[async_trait]
impl Coordination for Kinds {
    async fn claim(&self, name: &str, owner: &str, time: Duration) -> Result<bool, StoreError> {
        let _turn = self.turn(Call::Claim).await?;
        let owner = self.text(Field::Owner, owner);
        let mut given = true;
        for name in self.found_names(Call::Claim, Field::Claim, name) {
            given &= self.inner.claim(&name, &owner, time).await?;
            if given {
                let before = self.known(|known| known.claims.insert(name.clone(), owner.clone()));
                if self.kind == Kind::ExpiryFinishes && before.is_some_and(|one| one != owner) {
                    self.finish_everything().await;
                }
            }
        }
        self.wrote(Call::Claim);
        Ok(given)
    }

    async fn release(&self, name: &str, owner: &str) -> Result<(), StoreError> {
        let owner = self.text(Field::Owner, owner);
        for name in self.found_names(Call::Release, Field::Claim, name) {
            self.inner.release(&name, &owner).await?;
        }
        match self.kind {
            Kind::ReleaseFinishes => self.finish_everything().await,
            Kind::ReleaseForgetsDeferred => self.remove_deferred(|_| true).await,
            Kind::ReleaseForgetsProgress => {
                for type_id in self.backlog_types().await {
                    let mut progress = ends(self.inner.pending(&type_id, usize::MAX).await?);
                    progress.iter_mut().for_each(|(_, one)| one.version = 0);
                    self.inner.record_progress(&type_id, &progress).await?;
                }
            }
            _ => {}
        }
        self.wrote(Call::Release);
        Ok(())
    }

    async fn note(&self, name: &str) -> Result<Option<String>, StoreError> {
        let mut found = None;
        for name in self.found_names(Call::Note, Field::NoteName, name) {
            found = self.inner.note(&name).await?.or(found);
        }
        Ok(found)
    }

    async fn replace_note(
        &self,
        name: &str,
        expected: Option<&str>,
        new: Option<&str>,
    ) -> Result<bool, StoreError> {
        let _turn = self.turn(Call::ReplaceNote).await?;
        let name = self.text(Field::NoteName, name);
        let text = |note: Option<&str>| note.map(|note| self.text(Field::Note, note));
        let (expected, new) = (text(expected), text(new));
        self.known(|known| known.names.insert(name.clone()));
        let replaced = self
            .inner
            .replace_note(&name, expected.as_deref(), new.as_deref())
            .await?;
        let removes = new.is_none();
        self.wrote(if removes {
            Call::RemoveNote
        } else {
            Call::ReplaceNote
        });
        Ok(replaced)
    }
}
