use passkit_server::{
    Changed, PassId,
    identifiers::{SerialNumber, TypeIdentifier},
    push::PushQueue,
    store::{Content, MemoryStore, Published, RegistrationStore, StoreError},
};
use tokio::task::yield_now;

use super::{Fault, Faulty};

impl Faulty {
    /// Returns whether published content is kept outside the inner store. The inner store then
    /// stores only the marks.
    pub(super) fn keeps_contents(&self) -> bool {
        matches!(
            self.fault,
            Fault::ContentsAlwaysMark
                | Fault::ContentsMarkTheWholeBatch
                | Fault::OldContentsDoNotMark
                | Fault::PublishChecksFirst
                | Fault::PublishWritesBack
                | Fault::PublishMarksFirst
                | Fault::PublishRemembersFirst
                | Fault::PublishPushesLater
                | Fault::MarksForgetTheDigest
                | Fault::MarksOfAllForgetTheDigest
                | Fault::TokensReplaced
                | Fault::FirstTokensKept
                | Fault::TokenAgainStaysInPlace
                | Fault::RemovalMarks
                | Fault::RemovalForgetsTheDigest
                | Fault::RemovalForgetsTheTokens
                | Fault::RemovalIsNoContent
                | Fault::FirstRemovalHidesTheContent
                | Fault::RemovedForGood
                | Fault::ContentsOfSerialsFolded
                | Fault::EqualContentsPush
                | Fault::ReopeningForgetsDigests
                | Fault::ReopeningForgetsTokens
        )
    }

    pub(super) async fn mark_contents(
        &self,
        type_id: &TypeIdentifier,
        contents: &[Content],
        push: bool,
    ) -> Result<(), StoreError> {
        if !self.keeps_contents() {
            return self
                .mark_inner(&self.inner, type_id, Changed::Contents(contents), push)
                .await;
        }
        let pass_of = |content: &Content| PassId {
            type_id: type_id.clone(),
            serial: content.serial.clone(),
        };
        let mut new = Vec::new();
        let mut marked: Vec<SerialNumber> = Vec::new();
        self.memory(|memory| {
            for content in contents {
                let pass = self.pass_of_content(&pass_of(content));
                let before = memory.contents.get(&pass).cloned();
                let is_old = content
                    .digest
                    .is_some_and(|digest| !memory.digests.insert((pass.clone(), digest)));
                let (after, is_new) = self.update(before.as_ref(), content, is_old);
                if is_new {
                    marked.push(content.serial.clone());
                }
                if !matches!(
                    self.fault,
                    Fault::PublishChecksFirst | Fault::PublishWritesBack | Fault::PublishMarksFirst
                ) {
                    memory.contents.insert(pass.clone(), after.clone());
                }
                new.push((pass, after));
            }
        });
        if self.is(Fault::ContentsMarkTheWholeBatch) && !marked.is_empty() {
            marked = contents
                .iter()
                .map(|content| content.serial.clone())
                .collect();
        }
        if matches!(
            self.fault,
            Fault::PublishChecksFirst | Fault::PublishWritesBack | Fault::PublishRemembersFirst
        ) {
            yield_now().await;
        }
        if self.is(Fault::PublishPushesLater) && push {
            self.inner.mark(type_id, Changed::Passes(&marked)).await?;
            yield_now().await;
            return self.push_again(type_id, &marked).await;
        }
        let changed = Changed::Passes(&marked);
        self.mark_inner(&self.inner, type_id, changed, push).await?;
        if push && self.is(Fault::EqualContentsPush) {
            let all: Vec<_> = contents
                .iter()
                .map(|content| content.serial.clone())
                .collect();
            self.push_again(type_id, &all).await?;
        }
        if self.is(Fault::PublishMarksFirst) {
            yield_now().await;
        }
        self.memory(|memory| memory.contents.extend(new));
        Ok(())
    }

    async fn mark_inner(
        &self,
        inner: &MemoryStore,
        type_id: &TypeIdentifier,
        changed: Changed<'_>,
        push: bool,
    ) -> Result<(), StoreError> {
        match push {
            true => inner.mark_and_push(type_id, changed).await,
            false => inner.mark(type_id, changed).await,
        }
    }

    /// Makes pushes pending after the passes were marked. This marks the passes again.
    async fn push_again(
        &self,
        type_id: &TypeIdentifier,
        serials: &[SerialNumber],
    ) -> Result<(), StoreError> {
        self.inner
            .mark_and_push(type_id, Changed::Passes(serials))
            .await
    }

    fn pass_of_content(&self, pass: &PassId) -> PassId {
        if self.is(Fault::ContentsOfSerialsFolded) {
            PassId::new(pass.type_id.as_str(), &pass.serial.as_str().to_lowercase()).unwrap()
        } else {
            pass.clone()
        }
    }

    /// Returns what the store remembers after a publication, and whether the publication marks the
    /// pass.
    fn update(
        &self,
        before: Option<&Published>,
        content: &Content,
        is_old: bool,
    ) -> (Published, bool) {
        let known = before.cloned().unwrap_or_default();
        let mut after = known.clone();
        let mut is_new = after.update(content);
        let is_removal = content.digest.is_none();
        match self.fault {
            Fault::ContentsAlwaysMark => is_new |= !is_removal,
            Fault::OldContentsDoNotMark => is_new &= !is_old,
            Fault::TokensReplaced if !content.tokens.is_empty() => {
                after.tokens = content.tokens.clone()
            }
            Fault::FirstTokensKept | Fault::TokenAgainStaysInPlace => {
                after.tokens = known.tokens;
                for token in &content.tokens {
                    if !after.tokens.contains(token) {
                        after.tokens.push(*token);
                    }
                }
                if self.is(Fault::TokenAgainStaysInPlace) {
                    after
                        .tokens
                        .drain(..after.tokens.len().saturating_sub(Published::MAX_TOKENS));
                }
                after.tokens.truncate(Published::MAX_TOKENS);
            }
            Fault::RemovalMarks => is_new |= is_removal,
            Fault::RemovalForgetsTheDigest if is_removal => after.digest = None,
            Fault::RemovalForgetsTheTokens if is_removal => after.tokens = content.tokens.clone(),
            Fault::RemovalIsNoContent if is_removal => after = known,
            Fault::FirstRemovalHidesTheContent if known.digest.is_none() && known.removed => {
                is_new = false
            }
            Fault::RemovedForGood => after.removed |= known.removed,
            _ => {}
        }
        (after, is_new)
    }

    pub(super) fn forget_digests(&self, of: impl Fn(&PassId) -> bool) {
        self.memory(|memory| {
            memory
                .contents
                .iter_mut()
                .filter(|(pass, _)| of(pass))
                .for_each(|(_, one)| one.digest = None);
        });
    }

    pub(super) async fn published_wrongly(
        &self,
        passes: &[PassId],
    ) -> Result<Vec<Option<Published>>, StoreError> {
        let mut passes: Vec<_> = passes.iter().map(|pass| self.named(pass)).collect();
        if self.is(Fault::PublishedInItsOwnOrder) {
            passes.sort();
        }
        let mut all = if self.keeps_contents() {
            let of = |pass: &PassId| {
                self.memory(|memory| memory.contents.get(&self.pass_of_content(pass)).cloned())
            };
            passes.iter().map(of).collect()
        } else {
            self.inner.published(&passes).await?
        };
        match self.fault {
            Fault::PublishedLeavesOutUnknown => all.retain(Option::is_some),
            Fault::PublishedOfUnknownIsEmpty => all.iter_mut().for_each(|one| {
                one.get_or_insert_default();
            }),
            _ => {}
        }
        Ok(all)
    }
}
