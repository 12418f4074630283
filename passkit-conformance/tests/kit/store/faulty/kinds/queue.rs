//! Pending pushes.

use super::*;

#[async_trait]
impl PushQueue for Kinds {
    async fn mark_and_push(
        &self,
        type_id: &TypeIdentifier,
        changed: Changed<'_>,
    ) -> Result<(), StoreError> {
        self.change(type_id, changed, true).await
    }

    async fn backlog(&self) -> Result<Vec<Backlog>, StoreError> {
        let mut backlog = self.inner.backlog().await?;
        match self.kind {
            Kind::BacklogRepeatsTypes => {
                let again: Vec<_> = backlog
                    .iter()
                    .filter(|one| one.pending > 0)
                    .cloned()
                    .collect();
                backlog.extend(again);
            }
            Kind::EndsAt(Call::Backlog, most) => {
                for one in &mut backlog {
                    one.pending = one.pending.min(most as u64);
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
        let mut pending = Vec::new();
        for type_id in self.found_types(Call::Pending, type_id) {
            pending.extend(self.inner.pending(&type_id, limit).await?);
        }
        if self.kind == Kind::ForgottenStaysPending {
            self.known(|known| {
                let of_type = known
                    .left
                    .iter()
                    .filter(|(pass, _)| pass.type_id == *type_id);
                pending.extend(of_type.filter_map(|(_, left)| left.pending.clone()));
            });
        }
        if self.kind == Kind::PendingRepeats {
            pending.extend(pending.first().cloned());
        }
        Ok(pending)
    }

    async fn record_progress(
        &self,
        type_id: &TypeIdentifier,
        progress: &[(Scope, Progress)],
    ) -> Result<(), StoreError> {
        let _turn = self.turn(Call::Progress).await?;
        let same = |one: &(Scope, Progress), other: &(Scope, Progress)| one.0 == other.0;
        let mut progress = self.batch(Call::Progress, progress, same)?;
        if self.kind == Kind::ProgressNeedsTheClaim && !self.has_claim(type_id) {
            return Ok(());
        }
        let pending = self.inner.pending(type_id, usize::MAX).await?;
        if self.kind == Kind::ProgressChecksFirst {
            let versions: BTreeMap<_, _> = pending
                .iter()
                .map(|change| (change.scope.clone(), change.version))
                .collect();
            yield_now().await;
            let now: BTreeMap<_, _> = self
                .inner
                .pending(type_id, usize::MAX)
                .await?
                .into_iter()
                .map(|change| (change.scope, change.version))
                .collect();
            for (scope, one) in &mut progress {
                if versions.get(scope) == Some(&one.version) {
                    one.version = now.get(scope).copied().unwrap_or(one.version);
                }
            }
        }
        for (scope, one) in &mut progress {
            if let (Kind::Cuts(Field::Cursor, length), Some(next)) = (self.kind, &mut one.next) {
                *next = PageCursor::new(start(next.as_str(), length));
            }
            if let Scope::Pass(serial) = scope {
                *serial = self.text_of_scope(serial);
            }
        }
        if let Some(pattern) = self.pattern(Call::Progress, Field::Scope) {
            for (scope, one) in progress.clone() {
                let (Scope::Pass(serial), None) = (&scope, &one.next) else {
                    continue;
                };
                for change in &pending {
                    if let Scope::Pass(other) = &change.scope
                        && other != serial
                        && matches(pattern, serial.as_str(), other.as_str())
                    {
                        progress.extend(ends(vec![change.clone()]));
                    }
                }
            }
        }
        let finishes = |of: fn(&Scope) -> bool| {
            progress
                .iter()
                .any(|(scope, one)| of(scope) && one.next.is_none())
        };
        let others = match self.kind {
            Kind::FinishedTypeFinishesPasses => finishes(|scope| *scope == Scope::Type),
            Kind::FinishedPassFinishesType => finishes(|scope| *scope != Scope::Type),
            _ => false,
        };
        if others {
            let is_pass = self.kind == Kind::FinishedTypeFinishesPasses;
            let of = pending
                .into_iter()
                .filter(|one| (one.scope != Scope::Type) == is_pass);
            progress.extend(ends(of.collect()));
        }
        self.inner.record_progress(type_id, &progress).await?;
        let ends = progress.iter().any(|(_, one)| one.next.is_none());
        self.wrote(if ends { Call::Finish } else { Call::Progress });
        Ok(())
    }

    async fn defer(
        &self,
        type_id: &TypeIdentifier,
        pushes: &[(DeviceIdentifier, Option<DeferredPush>)],
    ) -> Result<(), StoreError> {
        type Push = (DeviceIdentifier, Option<DeferredPush>);
        let _turn = self.turn(Call::Defer).await?;
        let mut pushes = self.batch(Call::Defer, pushes, |one: &Push, other| one.0 == other.0)?;
        if self.kind == Kind::DeferNeedsTheClaim && !self.has_claim(type_id) && !pushes.is_empty() {
            return Ok(());
        }
        if self.kind == Kind::Group(Call::Defer) {
            let waiting = Waiting {
                type_id: type_id.clone(),
                serials: Vec::new(),
                pushes,
                push: false,
                done: Arc::default(),
            };
            return self.in_a_group(waiting).await;
        }
        let everything = async || self.inner.deferred(type_id, None, usize::MAX).await;
        if self.kind == Kind::DeferWritesBack {
            let before = everything().await?.items;
            yield_now().await;
            for (device, _) in everything().await?.items {
                if !before.iter().any(|(other, _)| *other == device) {
                    self.inner.defer(type_id, &[(device, None)]).await?;
                }
            }
            let before = before
                .into_iter()
                .map(|(device, push)| (device, Some(push)));
            let before: Vec<_> = before.collect();
            self.inner.defer(type_id, &before).await?;
        }
        if let Some(pattern) = self.pattern(Call::Defer, Field::DeferredDevice) {
            for (device, push) in pushes.clone() {
                for (other, _) in everything().await?.items {
                    if push.is_none() && matches(pattern, device.as_str(), other.as_str()) {
                        pushes.push((other, None));
                    }
                }
            }
        }
        let whole = |time: SystemTime| {
            let millis = time
                .duration_since(SystemTime::UNIX_EPOCH)
                .unwrap()
                .as_millis();
            SystemTime::UNIX_EPOCH + Duration::from_millis(u64::try_from(millis).unwrap())
        };
        for (device, push) in &mut pushes {
            *device =
                DeviceIdentifier::new(&self.text(Field::DeferredDevice, device.as_str())).unwrap();
            let Some(push) = push else { continue };
            let token = self.text(Field::DeferredToken, push.push_token.as_str());
            push.push_token = PushToken::new(&token).unwrap();
            match self.kind {
                Kind::AttemptsAreSigned => push.attempts = push.attempts.min(i32::MAX as u32),
                Kind::BadSinceIsLost => push.bad_since = None,
                Kind::DueIsInMilliseconds => push.due = push.due.map(whole),
                _ => {}
            }
        }
        self.inner.defer(type_id, &pushes).await?;
        let removes = pushes.iter().all(|(_, push)| push.is_none());
        self.wrote(if removes { Call::Undefer } else { Call::Defer });
        Ok(())
    }

    async fn deferred(
        &self,
        type_id: &TypeIdentifier,
        after: Option<&PageCursor>,
        limit: usize,
    ) -> Result<Page<(DeviceIdentifier, DeferredPush)>, StoreError> {
        if let Some(pattern) = self.pattern(Call::Deferred, Field::Type) {
            let mut all = Page::default();
            for other in self.backlog_types().await {
                if other == *type_id || matches(pattern, type_id.as_str(), other.as_str()) {
                    all.items
                        .extend(self.inner.deferred(&other, None, usize::MAX).await?.items);
                }
            }
            return Ok(all);
        }
        let page = self.inner.deferred(type_id, after, limit).await?;
        Ok(self.ended(Call::Deferred, after, page))
    }
}

impl Kinds {
    fn has_claim(&self, type_id: &TypeIdentifier) -> bool {
        self.known(|known| {
            let owner = known.claims.get(type_id.as_str());
            owner.is_none_or(|owner| owner == "me")
        })
    }
}
