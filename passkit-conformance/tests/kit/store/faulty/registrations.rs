use std::{
    collections::{BTreeSet, HashSet},
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use passkit_server::{
    Changed, PassId, PassState,
    identifiers::{DeviceIdentifier, PushToken, SerialNumber, TypeIdentifier},
    maintenance::StoreMaintenance,
    push::PushQueue,
    store::{
        Audience, Changes, Page, PageCursor, Published, Registered, RegisteredDevice,
        RegistrationStore, StoreError, StoreErrorKind, UpdateTag, clock,
    },
};
use tokio::{sync::oneshot, task::yield_now};

use super::{Fault, Faulty};

#[async_trait]
impl RegistrationStore for Faulty {
    async fn register(
        &self,
        device: &DeviceIdentifier,
        pass: &PassId,
        push_token: &PushToken,
    ) -> Result<Registered, StoreError> {
        let (pass, device) = (&self.named(pass), &self.device_named(device));
        let first = self.memory(|memory| {
            memory.devices.insert(device.clone());
            memory.types.insert(pass.type_id.clone());
            memory.passes.insert(pass.clone());
            memory.registered.insert((device.clone(), pass.clone()));
            if memory.gone.remove(device) {
                memory.returned.insert(device.clone());
            }
            memory
                .first_tokens
                .entry(device.clone())
                .or_insert(push_token.clone())
                .clone()
        });
        match self.fault {
            Fault::GroupCommitTakesOthersAlong => {
                self.register_in_a_group(device, pass, push_token).await
            }
            Fault::BlocksThreads => loop {
                std::thread::park();
            },
            Fault::PushTokenNotReplaced => self.inner.register(device, pass, &first).await,
            Fault::AlwaysCreated => self
                .inner
                .register(device, pass, push_token)
                .await
                .map(|_| Registered::Created),
            Fault::AlwaysExisting => self
                .inner
                .register(device, pass, push_token)
                .await
                .map(|_| Registered::Existing),
            Fault::RegisterChecksFirst => {
                let existed = self.is_registered(device, pass).await;
                yield_now().await;
                self.inner.register(device, pass, push_token).await?;
                Ok(if existed {
                    Registered::Existing
                } else {
                    Registered::Created
                })
            }
            Fault::RegisterInTwoSteps => {
                let key = (device.clone(), pass.clone());
                let new = !self.is_registered(device, pass).await;
                if new {
                    self.memory(|memory| memory.hidden.insert(key.clone()));
                }
                let registered = self.inner.register(device, pass, push_token).await?;
                yield_now().await;
                self.memory(|memory| memory.hidden.remove(&key));
                Ok(registered)
            }
            Fault::UnregisterLeavesDevice => {
                self.inner
                    .register(device, &Self::hidden_pass(), push_token)
                    .await?;
                self.inner.register(device, pass, push_token).await
            }
            _ => self.inner.register(device, pass, push_token).await,
        }
    }

    async fn unregister(
        &self,
        device: &DeviceIdentifier,
        pass: &PassId,
    ) -> Result<bool, StoreError> {
        let (pass, device) = (&self.named(pass), &self.device_named(device));
        match self.fault {
            Fault::UnregisterOfAnother => {
                let page = self
                    .inner
                    .devices(Audience::Pass(pass), None, usize::MAX)
                    .await?;
                let Some(one) = page.items.first() else {
                    return Ok(false);
                };
                let existed = self.is_registered(device, pass).await;
                self.inner.unregister(&one.device, pass).await?;
                Ok(existed)
            }
            Fault::UnregisterInTwoSteps => {
                let key = (device.clone(), pass.clone());
                self.memory(|memory| memory.hidden.insert(key.clone()));
                yield_now().await;
                let existed = self.inner.unregister(device, pass).await;
                self.memory(|memory| memory.hidden.remove(&key));
                existed
            }
            Fault::ReturnedDeviceIsOld => {
                let existed = self.inner.unregister(device, pass).await?;
                let page = self.inner.registrations(None, usize::MAX).await?;
                if existed && page.items.iter().all(|one| one.device != *device) {
                    self.memory(|memory| memory.gone.insert(device.clone()));
                }
                Ok(existed)
            }
            Fault::UnregisterLeavesRegistration => Ok(self.is_registered(device, pass).await),
            Fault::UnregisterSaysTrue => self.inner.unregister(device, pass).await.map(|_| true),
            _ => self.inner.unregister(device, pass).await,
        }
    }

    async fn changes_since(
        &self,
        device: &DeviceIdentifier,
        type_id: &TypeIdentifier,
        since: Option<UpdateTag>,
    ) -> Result<Changes, StoreError> {
        let (type_id, device) = (&self.type_named(type_id), &self.device_named(device));
        if self.is(Fault::HangsForUnknownDevices)
            && !self.memory(|memory| memory.devices.contains(device))
        {
            return std::future::pending().await;
        }
        let right = self.inner.changes_since(device, type_id, since).await?;
        let own = |_: &PassId, state: PassState| state.version;
        let second = |version: u64| version / 1_000_000;
        match self.fault {
            Fault::TagsOfWholeSeconds => {
                self.list_by(device, type_id, since, own, |v, s| second(v) > second(s))
                    .await
            }
            Fault::GreaterOrEqual => {
                self.list_by(device, type_id, since, own, |v, s| v >= s)
                    .await
            }
            Fault::FloorIgnoredInLists => {
                let marked = self.memory(|memory| memory.marked.clone());
                let version =
                    move |pass: &PassId, _| marked.get(pass).map_or(0, |state| state.version);
                self.list_by(device, type_id, since, version, |v, s| v > s)
                    .await
            }
            Fault::ListIgnoresType | Fault::ListIgnoresDevice => {
                let (types, devices) =
                    self.memory(|memory| (memory.types.clone(), memory.devices.clone()));
                let mut serials: BTreeSet<_> = right.serials.into_iter().collect();
                if self.is(Fault::ListIgnoresType) {
                    for type_id in &types {
                        serials.extend(
                            self.inner
                                .changes_since(device, type_id, since)
                                .await?
                                .serials,
                        );
                    }
                } else {
                    for device in &devices {
                        serials.extend(
                            self.inner
                                .changes_since(device, type_id, since)
                                .await?
                                .serials,
                        );
                    }
                }
                Ok(Changes {
                    serials: serials.into_iter().collect(),
                    ..right
                })
            }
            Fault::ListRepeatsSerials => {
                let mut serials = right.serials;
                serials.extend(serials.first().cloned());
                Ok(Changes { serials, ..right })
            }
            Fault::ListFailsForUnknownDevice if right.tag.device_version == 0 => {
                Err(StoreError::new(StoreErrorKind::Other, "no such device"))
            }
            Fault::OnlyTheNewestListed => {
                let mut states = Vec::new();
                for serial in &right.serials {
                    let pass = PassId {
                        type_id: type_id.clone(),
                        serial: serial.clone(),
                    };
                    states.push(self.inner.pass_state(&pass).await?.version);
                }
                let newest = states.iter().max().copied();
                let mut states = states.into_iter();
                let mut serials = right.serials;
                serials.retain(|_| states.next() == newest);
                Ok(Changes { serials, ..right })
            }
            Fault::TagNowBesideTheQuery => {
                tokio::time::sleep(Duration::from_millis(1)).await;
                let type_version = clock::now_micros();
                let tag = UpdateTag {
                    type_version,
                    ..right.tag
                };
                // With this fault, no tag counts as ahead of the clocks. The inner store must
                // therefore not get a tag that is ahead.
                let latest = self.inner.changes_since(device, type_id, None).await?.tag;
                let since = since.map(|since| UpdateTag {
                    type_version: since.type_version.min(latest.type_version),
                    ..since
                });
                let serials = self
                    .inner
                    .changes_since(device, type_id, since)
                    .await?
                    .serials;
                tokio::time::sleep(Duration::from_millis(1)).await;
                Ok(Changes {
                    serials,
                    tag: UpdateTag {
                        type_version: clock::now_micros(),
                        ..tag
                    },
                })
            }
            Fault::TagOfTheOldest => {
                let mut oldest = right.tag.type_version;
                for serial in &right.serials {
                    let pass = PassId {
                        type_id: type_id.clone(),
                        serial: serial.clone(),
                    };
                    oldest = oldest.min(self.inner.pass_state(&pass).await?.version);
                }
                Ok(Changes {
                    tag: UpdateTag {
                        type_version: oldest,
                        ..right.tag
                    },
                    ..right
                })
            }
            Fault::TagOfWhatIsRegistered => {
                let mut newest = 0;
                for serial in self
                    .inner
                    .changes_since(device, type_id, None)
                    .await?
                    .serials
                {
                    let pass = PassId {
                        type_id: type_id.clone(),
                        serial,
                    };
                    newest = newest.max(self.inner.pass_state(&pass).await?.version);
                }
                Ok(Changes {
                    tag: UpdateTag {
                        type_version: newest,
                        ..right.tag
                    },
                    ..right
                })
            }
            Fault::TagNeverMoves => Ok(Changes {
                tag: since.unwrap_or(right.tag),
                ..right
            }),
            Fault::TypeTagAheadByOneIsCovered | Fault::DeviceTagAheadByOneIsCovered => {
                let covered =
                    |since: u64, clock: u64| if since == clock + 1 { clock } else { since };
                let since = since.map(|since| match self.fault {
                    Fault::TypeTagAheadByOneIsCovered => UpdateTag {
                        type_version: covered(since.type_version, right.tag.type_version),
                        ..since
                    },
                    _ => UpdateTag {
                        device_version: covered(since.device_version, right.tag.device_version),
                        ..since
                    },
                });
                self.inner.changes_since(device, type_id, since).await
            }
            Fault::TagAheadIsCovered => {
                let since = since.map(|since| UpdateTag {
                    type_version: since.type_version.min(right.tag.type_version),
                    device_version: since.device_version.min(right.tag.device_version),
                });
                self.inner.changes_since(device, type_id, since).await
            }
            Fault::ListsAtMostAThousand => {
                let mut serials = right.serials;
                serials.truncate(1_000);
                Ok(Changes { serials, ..right })
            }
            Fault::ReturnedDeviceIsOld
                if !self.memory(|memory| memory.returned.contains(device)) =>
            {
                Ok(right)
            }
            Fault::RegistrationVersionIgnored | Fault::ReturnedDeviceIsOld => {
                let since = since.map(|since| UpdateTag {
                    device_version: since.device_version.max(right.tag.device_version),
                    ..since
                });
                self.inner.changes_since(device, type_id, since).await
            }
            Fault::NumberTakenBeforeItShows => {
                let marked = self.memory(|memory| memory.marked.clone());
                let all = self.inner.changes_since(device, type_id, None).await?;
                let version = |serial: &SerialNumber| {
                    let pass = PassId {
                        type_id: type_id.clone(),
                        serial: serial.clone(),
                    };
                    marked.get(&pass).map_or(0, |state| state.version)
                };
                let newest = all.serials.iter().map(version).max().unwrap_or(0);
                self.memory(|memory| {
                    memory.newest_listed = memory.newest_listed.max(newest);
                });
                let registered = since.map(|since| UpdateTag {
                    type_version: all.tag.type_version,
                    ..since
                });
                let mut serials: BTreeSet<_> = self
                    .inner
                    .changes_since(device, type_id, registered)
                    .await?
                    .serials
                    .into_iter()
                    .collect();
                serials.extend(
                    all.serials
                        .iter()
                        .filter(|serial| {
                            since.is_none_or(|since| version(serial) > since.type_version)
                        })
                        .cloned(),
                );
                let tag = UpdateTag {
                    type_version: newest,
                    ..all.tag
                };
                Ok(Changes {
                    serials: serials.into_iter().collect(),
                    tag,
                })
            }
            _ => Ok(right),
        }
    }

    async fn mark(&self, type_id: &TypeIdentifier, changed: Changed<'_>) -> Result<(), StoreError> {
        let type_id = &self.type_named(type_id);
        match changed {
            Changed::Passes(serials) => self.mark_passes(type_id, serials).await,
            Changed::Contents(contents) => self.mark_contents(type_id, contents, false).await,
            Changed::All => self.mark_all(type_id).await,
        }
    }

    async fn published(&self, passes: &[PassId]) -> Result<Vec<Option<Published>>, StoreError> {
        self.published_wrongly(passes).await
    }

    async fn pass_state(&self, pass: &PassId) -> Result<PassState, StoreError> {
        let mut state = self.inner.pass_state(&self.named(pass)).await?;
        let now = clock::now_micros() / 1_000_000;
        match self.fault {
            Fault::FloorIgnoredInDates => {
                state = self.memory(|memory| memory.marked.get(pass).copied().unwrap_or(state));
            }
            Fault::DateIsNow if state.version > 0 => {
                state.last_modified = state.version / 1_000_000
            }
            Fault::UnmarkedDateIsNow if state.version == 0 => state.last_modified = now,
            Fault::DateSharedByType | Fault::UnmarkedDateOfItsType
                if self.is(Fault::DateSharedByType) == (state.version > 0) =>
            {
                let shared = self.memory(|memory| {
                    let of_type = memory
                        .marked
                        .iter()
                        .filter(|(other, _)| other.type_id == pass.type_id);
                    of_type.map(|(_, state)| state.last_modified).max()
                });
                state.last_modified = state.last_modified.max(shared.unwrap_or(0));
            }
            Fault::StateWithoutDigest => state.published = None,
            _ => {}
        }
        if self.keeps_contents() {
            state.published =
                self.memory(|memory| memory.contents.get(pass).and_then(|one| one.digest));
        }
        Ok(state)
    }

    async fn devices(
        &self,
        audience: Audience<'_>,
        after: Option<&PageCursor>,
        limit: usize,
    ) -> Result<Page<RegisteredDevice>, StoreError> {
        let mut page = match audience {
            Audience::Pass(pass) => {
                self.devices_of_pass(&self.named(pass), after, limit)
                    .await?
            }
            Audience::Type(type_id) => {
                self.devices_of_type(&self.type_named(type_id), after, limit)
                    .await?
            }
        };
        if matches!(self.fault, Fault::PushTokensFolded | Fault::PushTokensCut) {
            page.items
                .iter_mut()
                .for_each(|one| one.push_token = self.token_kept(&one.push_token));
        }
        Ok(page)
    }

    async fn count_devices(&self, pass: &PassId, at_most: u64) -> Result<u64, StoreError> {
        let pass = &self.named(pass);
        match self.fault {
            Fault::CountsWhoEverRegistered => Ok(self.memory(|memory| {
                memory
                    .registered
                    .iter()
                    .filter(|(_, of)| of == pass)
                    .count() as u64
            })),
            Fault::CountsAllOfTheType => {
                let devices = self
                    .inner
                    .devices(Audience::Type(&pass.type_id), None, usize::MAX)
                    .await?;
                let devices: HashSet<_> = devices.items.into_iter().map(|one| one.device).collect();
                Ok((devices.len() as u64).min(at_most))
            }
            Fault::CountStopsEarly => Ok(self
                .inner
                .count_devices(pass, at_most)
                .await?
                .min(at_most.saturating_sub(1))),
            _ => self.inner.count_devices(pass, at_most).await,
        }
    }

    async fn forget_device(
        &self,
        device: &DeviceIdentifier,
        unregistered_at: SystemTime,
    ) -> Result<bool, StoreError> {
        let device = &self.device_named(device);
        let step = Duration::from_micros(1);
        match self.fault {
            Fault::ForgetIgnoresTime => {
                self.inner
                    .forget_device(device, SystemTime::now() + Duration::from_secs(3_600))
                    .await
            }
            // The time in nanoseconds does not fit into 64 bits.
            Fault::ForgetTimeOverflows
                if clock::micros(unregistered_at) > 9_223_372_036_854_775 =>
            {
                Ok(false)
            }
            Fault::ForgetOneByOne => {
                let mut forgotten = false;
                for pass in self.passes() {
                    if self.is_registered(device, &pass).await {
                        forgotten |= self.inner.unregister(device, &pass).await?;
                    }
                    yield_now().await;
                }
                Ok(forgotten)
            }
            Fault::ForgetNeedsLaterTime => {
                self.inner
                    .forget_device(device, unregistered_at - step)
                    .await
            }
            Fault::ForgetLeavesRegistrations => {
                // The answer is right, but the registrations stay.
                let types = self.memory(|memory| memory.types.clone());
                let mut version = 0;
                for type_id in types {
                    let tag = self.inner.changes_since(device, &type_id, None).await?.tag;
                    version = version.max(tag.device_version);
                }
                Ok(version > 0 && version <= clock::micros(unregistered_at))
            }
            _ => self.inner.forget_device(device, unregistered_at).await,
        }
    }
}

/// Registrations of several callers, which one of the callers writes.
#[derive(Default)]
pub(super) struct Group {
    is_written: bool,
    waiting: Vec<(
        DeviceIdentifier,
        PassId,
        PushToken,
        oneshot::Sender<Registered>,
    )>,
}

/// When this value is dropped, another caller can write. This also works if the writing caller is
/// dropped.
struct Writing<'a>(&'a Faulty);

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        self.0.memory(|memory| memory.group.is_written = false);
    }
}

impl Faulty {
    /// Writes the registrations of all waiting callers. If the writing caller is dropped during
    /// this, these registrations are lost.
    async fn register_in_a_group(
        &self,
        device: &DeviceIdentifier,
        pass: &PassId,
        push_token: &PushToken,
    ) -> Result<Registered, StoreError> {
        let (done, mut answer) = oneshot::channel();
        let one = (device.clone(), pass.clone(), push_token.clone(), done);
        self.memory(|memory| memory.group.waiting.push(one));
        loop {
            match answer.try_recv() {
                Ok(registered) => return Ok(registered),
                Err(oneshot::error::TryRecvError::Closed) => return Ok(Registered::Created),
                Err(oneshot::error::TryRecvError::Empty) => {}
            }
            if self.memory(|memory| std::mem::replace(&mut memory.group.is_written, true)) {
                yield_now().await;
                continue;
            }
            let _writing = Writing(self);
            yield_now().await;
            let group = self.memory(|memory| std::mem::take(&mut memory.group.waiting));
            yield_now().await;
            for (device, pass, push_token, done) in group {
                let _ = done.send(self.inner.register(&device, &pass, &push_token).await?);
            }
        }
    }

    async fn mark_passes(
        &self,
        type_id: &TypeIdentifier,
        serials: &[SerialNumber],
    ) -> Result<(), StoreError> {
        if self.is(Fault::MarksForgetTheDigest) {
            self.forget_digests(|pass| pass.type_id == *type_id && serials.contains(&pass.serial));
        }
        if self.is(Fault::PlainMarksPush) {
            return self
                .inner
                .mark_and_push(type_id, Changed::Passes(serials))
                .await;
        }
        if self.is(Fault::EmptyBatchMarksAll) && serials.is_empty() {
            return self.inner.mark(type_id, Changed::All).await;
        }
        if self.is(Fault::BatchMarkedOneByOne) {
            for serial in serials {
                self.inner
                    .mark(type_id, Changed::Passes(std::slice::from_ref(serial)))
                    .await?;
                yield_now().await;
            }
            return Ok(());
        }
        if self.is(Fault::NumberTakenBeforeItShows) {
            let version = self.memory(|memory| {
                memory.sequence += 1;
                memory.sequence
            });
            // Every third mark becomes visible when a list contains a later mark, if that happens
            // soon.
            for _ in 0..200 {
                if version % 3 != 1 || self.memory(|memory| memory.newest_listed > version) {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            self.memory(|memory| {
                for serial in serials {
                    let pass = PassId {
                        type_id: type_id.clone(),
                        serial: serial.clone(),
                    };
                    let state = memory.marked.entry(pass).or_insert(PassState {
                        version,
                        last_modified: 0,
                        published: None,
                    });
                    state.version = state.version.max(version);
                }
            });
            return Ok(());
        }
        for serial in serials {
            let pass = self.named(&PassId {
                type_id: type_id.clone(),
                serial: serial.clone(),
            });
            self.inner
                .mark(type_id, Changed::Passes(std::slice::from_ref(&pass.serial)))
                .await?;
            let state = self.inner.pass_state(&pass).await?;
            self.memory(|memory| memory.marked.insert(pass, state));
        }
        Ok(())
    }

    async fn mark_all(&self, type_id: &TypeIdentifier) -> Result<(), StoreError> {
        if self.is(Fault::MarksOfAllForgetTheDigest) {
            self.forget_digests(|pass| pass.type_id == *type_id);
        }
        match self.fault {
            Fault::MarkAllOneByOne => {
                for pass in self
                    .passes()
                    .into_iter()
                    .filter(|pass| pass.type_id == *type_id)
                {
                    self.inner
                        .mark(type_id, Changed::Passes(&[pass.serial]))
                        .await?;
                    yield_now().await;
                }
                Ok(())
            }
            Fault::MarkAllDoesNothing | Fault::NumberTakenBeforeItShows => Ok(()),
            Fault::MarkAllPanics => panic!("not yet written"),
            Fault::MarkAllWalks | Fault::MarkAllWalksRegistrations => {
                let of_type = |pass: &&PassId| pass.type_id == *type_id;
                let walked: Vec<_> = self.memory(|memory| match self.fault {
                    Fault::MarkAllWalks => memory.marked.keys().filter(of_type).cloned().collect(),
                    _ => memory.passes.iter().filter(of_type).cloned().collect(),
                });
                for pass in walked {
                    self.inner
                        .mark(type_id, Changed::Passes(std::slice::from_ref(&pass.serial)))
                        .await?;
                    yield_now().await;
                }
                self.inner.mark(type_id, Changed::All).await
            }
            _ => self.inner.mark(type_id, Changed::All).await,
        }
    }

    async fn devices_of_pass(
        &self,
        pass: &PassId,
        after: Option<&PageCursor>,
        limit: usize,
    ) -> Result<Page<RegisteredDevice>, StoreError> {
        let devices =
            async |pass, after, limit| self.inner.devices(Audience::Pass(pass), after, limit).await;
        match self.fault {
            Fault::PagesSkip => {
                let mut page = devices(pass, after, limit.clamp(1, 1 << 40) + 1).await?;
                if page.next.is_some() {
                    page.items.pop();
                }
                Ok(page)
            }
            Fault::PagesByOffset => Ok(by_offset(
                devices(pass, None, usize::MAX).await?.items,
                after,
                limit,
            )),
            Fault::PageLimitIgnored => devices(pass, after, usize::MAX).await,
            Fault::CursorFails
                if after.is_some_and(|after| DeviceIdentifier::new(after.as_str()).is_err()) =>
            {
                Err(StoreError::new(StoreErrorKind::Other, "no such cursor"))
            }
            Fault::PushTokenIsTheKey => {
                let mut page = devices(pass, after, limit).await?;
                let mut tokens = HashSet::new();
                page.items
                    .retain(|one| tokens.insert(one.push_token.as_str().to_owned()));
                Ok(page)
            }
            Fault::PagesForgetThePass => {
                let of_type = self
                    .passes()
                    .into_iter()
                    .find(|other| other.type_id == pass.type_id);
                let page = devices(pass, after, limit).await?;
                match of_type {
                    Some(other) if page.items.is_empty() => devices(&other, after, limit).await,
                    _ => Ok(page),
                }
            }
            Fault::RegisterInTwoSteps | Fault::UnregisterInTwoSteps => {
                let mut page = devices(pass, after, limit).await?;
                self.memory(|memory| {
                    page.items
                        .retain(|one| !memory.hidden.contains(&(one.device.clone(), pass.clone())));
                });
                Ok(page)
            }
            _ => devices(pass, after, limit).await,
        }
    }

    async fn devices_of_type(
        &self,
        type_id: &TypeIdentifier,
        after: Option<&PageCursor>,
        limit: usize,
    ) -> Result<Page<RegisteredDevice>, StoreError> {
        let right = async |after, limit| {
            self.inner
                .devices(Audience::Type(type_id), after, limit)
                .await
        };
        match self.fault {
            Fault::TypePagesSkip => {
                let mut page = right(after, limit).await?;
                if page.next.is_some() && page.items.len() > 1 {
                    page.items.pop();
                }
                Ok(page)
            }
            Fault::TypePagesByOffset => Ok(by_offset(
                right(None, usize::MAX).await?.items,
                after,
                limit,
            )),
            // The devices are sorted by pass and device, but the cursor contains only the device.
            Fault::TypeCursorForgetsThePass => {
                let mut items = right(None, usize::MAX).await?.items;
                items.retain(|one| after.is_none_or(|after| one.device.as_str() > after.as_str()));
                items.truncate(limit.max(1));
                Ok(Page::up_to(limit, items, |last| {
                    PageCursor::new(last.device.as_str())
                }))
            }
            Fault::TypePagesMissSecondPasses => {
                let passes = self.passes().into_iter();
                match passes.filter(|pass| pass.type_id == *type_id).min() {
                    Some(first) => {
                        self.inner
                            .devices(Audience::Pass(&first), after, limit)
                            .await
                    }
                    None => Ok(Page::default()),
                }
            }
            Fault::TypePagesByPrefix => {
                let mut items = Vec::new();
                for other in self.memory(|memory| memory.types.clone()) {
                    if other.as_str().starts_with(type_id.as_str()) {
                        items.extend(
                            self.inner
                                .devices(Audience::Type(&other), None, usize::MAX)
                                .await?
                                .items,
                        );
                    }
                }
                Ok(by_offset(items, after, limit))
            }
            Fault::TypePagesKeepWhoLeft => {
                let mut page = right(after, limit).await?;
                if page.next.is_none() {
                    let known = self.memory(|memory| memory.registered.clone());
                    for (device, pass) in known
                        .into_iter()
                        .filter(|(_, pass)| pass.type_id == *type_id)
                    {
                        if !self.is_registered(&device, &pass).await {
                            let push_token =
                                self.memory(|memory| memory.first_tokens[&device].clone());
                            page.items.push(RegisteredDevice { device, push_token });
                        }
                    }
                }
                Ok(page)
            }
            Fault::TypeCursorFails if after.is_some_and(|after| !after.as_str().contains('\n')) => {
                Err(StoreError::new(StoreErrorKind::Corrupt, "no such cursor"))
            }
            _ => right(after, limit).await,
        }
    }

    /// Returns the push token as the faulty store stores it.
    pub(super) fn token_kept(&self, token: &PushToken) -> PushToken {
        let text = token.as_str();
        match self.fault {
            Fault::PushTokensFolded => PushToken::new(&text.to_lowercase()).unwrap(),
            Fault::PushTokensCut => PushToken::new(&text[..text.len().min(255)]).unwrap(),
            _ => token.clone(),
        }
    }
}

/// Returns a page that starts at an offset. The entire list is read again for each page.
fn by_offset<T>(all: Vec<T>, after: Option<&PageCursor>, limit: usize) -> Page<T> {
    let start = after
        .and_then(|cursor| cursor.as_str().parse().ok())
        .unwrap_or(0);
    let end = limit.max(1).saturating_add(start);
    let next = (end < all.len()).then(|| PageCursor::new(end.to_string()));
    Page {
        items: all.into_iter().take(end).skip(start).collect(),
        next,
    }
}
