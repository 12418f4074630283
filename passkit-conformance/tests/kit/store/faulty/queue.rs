use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use passkit_server::{
    Changed,
    identifiers::{DeviceIdentifier, PushToken, TypeIdentifier},
    push::{Backlog, DeferredPush, PendingChange, Progress, PushQueue, Scope},
    store::{MemoryStore, Page, PageCursor, RegistrationStore, StoreError, clock},
};
use tokio::task::yield_now;

use super::{Fault, Faulty};

/// Data that some faults of the queue need to remember.
#[derive(Default)]
pub(super) struct Queue {
    /// The first version of each change.
    seen: HashMap<(TypeIdentifier, Scope), u64>,
    begun: HashMap<(TypeIdentifier, Scope), Progress>,
    marked_again: Vec<(TypeIdentifier, Scope)>,
    types: Vec<TypeIdentifier>,
}

#[async_trait]
impl PushQueue for Faulty {
    async fn mark_and_push(
        &self,
        type_id: &TypeIdentifier,
        changed: Changed<'_>,
    ) -> Result<(), StoreError> {
        let type_id = &self.queue_type(type_id);
        self.memory(|memory| {
            memory.queue.types.push(type_id.clone());
            if let Changed::Passes(serials) = changed {
                let again = serials
                    .iter()
                    .map(|serial| (type_id.clone(), Scope::Pass(serial.clone())));
                memory.queue.marked_again.extend(again);
            }
        });
        match (self.fault, changed) {
            (_, Changed::Contents(contents)) if self.keeps_contents() => {
                self.mark_contents(type_id, contents, true).await
            }
            (Fault::PushesNothing, Changed::Passes(_)) | (Fault::PushesNoTypes, Changed::All) => {
                self.inner.mark(type_id, changed).await
            }
            (Fault::PushesTheFirstOnly, Changed::Passes([first, others @ ..])) => {
                self.inner
                    .mark_and_push(type_id, Changed::Passes(std::slice::from_ref(first)))
                    .await?;
                self.inner.mark(type_id, Changed::Passes(others)).await
            }
            (Fault::EmptyBatchPushesAll, Changed::Passes([])) => {
                self.inner.mark_and_push(type_id, Changed::All).await
            }
            (Fault::MarksThenPushes, Changed::Passes(_) | Changed::All) => {
                self.inner.mark(type_id, changed).await?;
                yield_now().await;
                self.inner.mark_and_push(type_id, changed).await
            }
            _ => self.queue().mark_and_push(type_id, changed).await,
        }
    }

    async fn backlog(&self) -> Result<Vec<Backlog>, StoreError> {
        let mut backlog = self.queue().backlog().await?;
        match self.fault {
            Fault::BacklogNamesFinishedTypes => {
                for type_id in self.memory(|memory| memory.queue.types.clone()) {
                    if backlog.iter().all(|one| one.type_id != type_id) {
                        backlog.push(Backlog {
                            type_id,
                            pending: 0,
                            since: None,
                            next_deferred: None,
                        });
                    }
                }
            }
            Fault::BacklogMissesDeferred => backlog.retain(|one| one.pending > 0),
            Fault::BacklogSinceIsNow => {
                for one in backlog.iter_mut().filter(|one| one.pending > 0) {
                    one.since = Some(SystemTime::now());
                }
            }
            Fault::NextDeferredIsNowWithoutTimes => {
                for one in &mut backlog {
                    one.next_deferred = one.next_deferred.or(Some(SystemTime::now()));
                }
            }
            Fault::NextDeferredIsAnyOne => {
                for one in &mut backlog {
                    let page = self.inner.deferred(&one.type_id, None, usize::MAX).await?;
                    one.next_deferred = page.items.iter().filter_map(|(_, push)| push.due).max();
                }
            }
            _ => {}
        }
        Ok(backlog)
    }

    async fn pending(
        &self,
        type_id: &TypeIdentifier,
        limit: usize,
    ) -> Result<Vec<PendingChange>, StoreError> {
        let type_id = &self.queue_type(type_id);
        let mut pending = match self.fault {
            Fault::PendingLimitIgnored => self.inner.pending(type_id, usize::MAX).await?,
            Fault::PendingByName => {
                let mut all = self.inner.pending(type_id, usize::MAX).await?;
                all.sort_by(|a, b| a.scope.cmp(&b.scope));
                all.truncate(limit);
                all
            }
            _ => self.queue().pending(type_id, limit).await?,
        };
        for change in &mut pending {
            let key = (type_id.clone(), change.scope.clone());
            match self.fault {
                Fault::MarkedAgainKeepsItsVersion => {
                    change.version = self
                        .memory(|memory| *memory.queue.seen.entry(key).or_insert(change.version));
                }
                Fault::MarkedAgainForgetsTheProgress
                    if self.memory(|memory| memory.queue.marked_again.contains(&key)) =>
                {
                    change.progress = None;
                }
                Fault::OldVersionKeepsTheProgress => {
                    change.progress = self.memory(|memory| memory.queue.begun.get(&key).cloned());
                }
                _ => {}
            }
        }
        Ok(pending)
    }

    async fn record_progress(
        &self,
        type_id: &TypeIdentifier,
        progress: &[(Scope, Progress)],
    ) -> Result<(), StoreError> {
        let type_id = &self.queue_type(type_id);
        let mut progress = progress.to_vec();
        let pending = self.queue().pending(type_id, usize::MAX).await?;
        let pending: BTreeMap<_, _> = pending
            .into_iter()
            .map(|change| (change.scope, change.version))
            .collect();
        self.memory(|memory| {
            for (scope, progress) in &progress {
                let key = (type_id.clone(), scope.clone());
                memory.queue.marked_again.retain(|other| *other != key);
                if progress.next.is_some() {
                    memory.queue.begun.insert(key, progress.clone());
                } else if pending.get(scope) == Some(&progress.version) {
                    memory.queue.begun.remove(&key);
                }
            }
        });
        match self.fault {
            Fault::ProgressIsNotKept => progress.retain(|(_, progress)| progress.next.is_none()),
            Fault::AnyVersionFinishes => {
                for (scope, progress) in &mut progress {
                    if let (Some(version), None) = (pending.get(scope), &progress.next) {
                        progress.version = *version;
                    }
                }
            }
            Fault::NothingFinishes => progress.retain(|(_, progress)| progress.next.is_some()),
            Fault::ProgressMakesPending => {
                for (scope, _) in &progress {
                    if let (Scope::Pass(serial), None) = (scope, pending.get(scope)) {
                        let changed = Changed::Passes(std::slice::from_ref(serial));
                        self.inner.mark_and_push(type_id, changed).await?;
                    }
                }
            }
            _ => {}
        }
        self.queue().record_progress(type_id, &progress).await
    }

    async fn defer(
        &self,
        type_id: &TypeIdentifier,
        pushes: &[(DeviceIdentifier, Option<DeferredPush>)],
    ) -> Result<(), StoreError> {
        let mut pushes = pushes.to_vec();
        match self.fault {
            Fault::DeferKeepsTheFirst => {
                let page = self.inner.deferred(type_id, None, usize::MAX).await?;
                let known: HashSet<_> = page.items.into_iter().map(|(device, _)| device).collect();
                pushes.retain(|(device, push)| push.is_none() || !known.contains(device));
            }
            Fault::DeferredTimesAreSeconds => {
                for push in pushes.iter_mut().filter_map(|(_, push)| push.as_mut()) {
                    let whole = |time| {
                        SystemTime::UNIX_EPOCH
                            + Duration::from_secs(clock::micros(time) / 1_000_000)
                    };
                    push.due = push.due.map(whole);
                }
            }
            Fault::DeferredTokensFolded => {
                for push in pushes.iter_mut().filter_map(|(_, push)| push.as_mut()) {
                    push.push_token =
                        PushToken::new(&push.push_token.as_str().to_lowercase()).unwrap();
                }
            }
            Fault::RemovesOneDeferredOnly => {
                let mut removed = false;
                pushes.retain(|(_, push)| push.is_some() || !std::mem::replace(&mut removed, true));
            }
            // A store might remove with one statement and defer with another.
            Fault::DeferredRemovedFirst => pushes.sort_by_key(|(_, push)| push.is_some()),
            _ => {}
        }
        self.inner.defer(type_id, &pushes).await
    }

    async fn deferred(
        &self,
        type_id: &TypeIdentifier,
        after: Option<&PageCursor>,
        limit: usize,
    ) -> Result<Page<(DeviceIdentifier, DeferredPush)>, StoreError> {
        let mut page = self.inner.deferred(type_id, after, limit).await?;
        if self.is(Fault::DeferredPagesSkip) && page.next.is_some() && limit > 1 {
            page.items.pop();
        }
        Ok(page)
    }
}

impl Faulty {
    /// The store that keeps pending pushes. It is a separate store if the fault is that passes are
    /// not marked.
    fn queue(&self) -> &MemoryStore {
        if self.is(Fault::PushesWithoutMarking) {
            &self.beside
        } else {
            &self.inner
        }
    }

    fn queue_type(&self, type_id: &TypeIdentifier) -> TypeIdentifier {
        let text = type_id.as_str();
        if self.is(Fault::PendingOfTypesThatStartAlike) {
            TypeIdentifier::new(text.strip_suffix(".b").unwrap_or(text)).unwrap()
        } else {
            type_id.clone()
        }
    }

    /// Applies the fault of the queue that appears when the data are opened again.
    pub(super) async fn reopen_queue(&self) {
        for Backlog { type_id, .. } in self.inner.backlog().await.unwrap() {
            match self.fault {
                Fault::ReopeningForgetsPending => {
                    let pending = self.inner.pending(&type_id, 1).await.unwrap().into_iter();
                    let end = pending.map(|change| {
                        (
                            change.scope,
                            Progress {
                                version: change.version,
                                next: None,
                            },
                        )
                    });
                    self.inner
                        .record_progress(&type_id, &end.collect::<Vec<_>>())
                        .await
                        .unwrap();
                }
                Fault::ReopeningForgetsProgress => {
                    let pending = self.inner.pending(&type_id, 100).await.unwrap().into_iter();
                    let start = pending.map(|change| {
                        (
                            change.scope,
                            Progress {
                                version: 0,
                                next: None,
                            },
                        )
                    });
                    self.inner
                        .record_progress(&type_id, &start.collect::<Vec<_>>())
                        .await
                        .unwrap();
                }
                Fault::ReopeningForgetsDeferred => {
                    let page = self.inner.deferred(&type_id, None, 1).await.unwrap();
                    let removed: Vec<_> = page
                        .items
                        .into_iter()
                        .map(|(device, _)| (device, None))
                        .collect();
                    self.inner.defer(&type_id, &removed).await.unwrap();
                }
                _ => {}
            }
        }
    }
}
