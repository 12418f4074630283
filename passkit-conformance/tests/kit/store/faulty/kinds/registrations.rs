//! Registrations, changes and devices.

use super::*;

#[async_trait]
impl RegistrationStore for Kinds {
    async fn register(
        &self,
        device: &DeviceIdentifier,
        pass: &PassId,
        push_token: &PushToken,
    ) -> Result<Registered, StoreError> {
        let (device, pass) = &self.names(device, pass);
        let _turn = self.turn(Call::Register).await?;
        let token = PushToken::new(&self.text(Field::PushToken, push_token.as_str())).unwrap();
        self.known(|known| {
            known.passes.insert(pass.clone());
            known.devices.insert(device.clone());
            known
                .tokens
                .insert((device.clone(), pass.clone()), token.clone());
            known.lost.remove(&(device.clone(), pass.type_id.clone()));
            *known.registers.entry(pass.clone()).or_default() += 1;
        });
        if self.kind == Kind::WritesBack(Call::Register) {
            let before = self.passes_of(device).await;
            yield_now().await;
            for other in self.passes_of(device).await {
                if !before.contains(&other) {
                    self.inner.unregister(device, &other).await?;
                }
            }
        }
        if self.kind == Kind::RegisterReplacesDeferredToken {
            self.remove_deferred(|one| one == device).await;
        }
        let registered = self.inner.register(device, pass, &token).await?;
        self.wrote(Call::Register);
        Ok(registered)
    }

    async fn unregister(
        &self,
        device: &DeviceIdentifier,
        pass: &PassId,
    ) -> Result<bool, StoreError> {
        let (device, pass) = &self.names(device, pass);
        let _turn = self.turn(Call::Unregister).await?;
        let mut existed = false;
        for device in self.found_devices(Call::Unregister, device) {
            for pass in self.found(Call::Unregister, pass) {
                existed |= self.inner.unregister(&device, &pass).await?;
            }
        }
        if self.kind == Kind::UnregisterRemovesDeferred {
            self.remove_deferred(|one| one == device).await;
        }
        if self.kind == Kind::TypeIndexLosesDevices && existed {
            let lost = (device.clone(), pass.type_id.clone());
            self.known(|known| known.lost.insert(lost));
        }
        self.wrote(Call::Unregister);
        Ok(existed)
    }

    async fn changes_since(
        &self,
        device: &DeviceIdentifier,
        type_id: &TypeIdentifier,
        since: Option<UpdateTag>,
    ) -> Result<Changes, StoreError> {
        let any = PassId {
            type_id: type_id.clone(),
            serial: SerialNumber::new("-").unwrap(),
        };
        let (device, type_id) = match self.kind {
            Kind::Joins(Pair::DeviceType | Pair::TypeDevice, _) => {
                let (device, pass) = self.names(device, &any);
                (device, pass.type_id)
            }
            Kind::Joins(..) => (device.clone(), type_id.clone()),
            _ => (self.device(device), self.type_id(type_id)),
        };
        let mut all: Option<Changes> = None;
        for device in self.found_devices(Call::List, &device) {
            for type_id in self.found_types(Call::List, &type_id) {
                let one = self.inner.changes_since(&device, &type_id, since).await?;
                match &mut all {
                    None => all = Some(one),
                    Some(all) => {
                        let new: Vec<_> = one
                            .serials
                            .into_iter()
                            .filter(|serial| !all.serials.contains(serial))
                            .collect();
                        all.serials.extend(new);
                    }
                }
            }
        }
        let mut changes = all.unwrap();
        match self.kind {
            Kind::EndsAt(Call::List, most) => changes.serials.truncate(most),
            Kind::ClocksGoBack if self.is_reopened => {
                changes.tag.type_version = changes.tag.type_version.saturating_sub(1);
            }
            Kind::ShowsTheTagFirst(_) => self.known(|known| {
                changes
                    .serials
                    .retain(|serial| !known.hidden.contains(serial));
            }),
            _ => {}
        }
        Ok(changes)
    }

    async fn pass_state(&self, pass: &PassId) -> Result<PassState, StoreError> {
        let pass = self.pass(pass);
        let mut states = Vec::new();
        for pass in self.found(Call::State, &pass) {
            states.push(self.inner.pass_state(&pass).await?);
        }
        let mut state = states
            .into_iter()
            .max_by_key(|state| state.version)
            .unwrap();
        let is_early = self.known(|known| known.forgotten_early.contains(&pass));
        if self.kind == Kind::ForgetsPassesEarly && is_early {
            state.last_modified = state.last_modified.min(clock::now_micros() / 1_000_000);
        }
        Ok(state)
    }

    async fn mark(&self, type_id: &TypeIdentifier, changed: Changed<'_>) -> Result<(), StoreError> {
        if self.kind == Kind::MarkAllLosesRaces && matches!(changed, Changed::All) {
            let before = self.clock(type_id).await;
            yield_now().await;
            if self.clock(type_id).await != before {
                return Ok(());
            }
        }
        self.change(type_id, changed, false).await
    }

    async fn published(&self, passes: &[PassId]) -> Result<Vec<Option<Published>>, StoreError> {
        let passes = self.batch(Call::Published, passes, |_, _| false)?;
        let mut all = Vec::new();
        for pass in &passes {
            let found = self.found(Call::Published, &self.pass(pass));
            let mut published = self.inner.published(&found).await?;
            let mut published = published.pop().unwrap();
            if self.kind == Kind::ForgottenKeepsItsTokens && published.is_none() {
                published = self.known(|known| known.left.get(pass)?.published.clone());
            }
            all.push(published);
        }
        Ok(all)
    }

    async fn devices(
        &self,
        audience: Audience<'_>,
        after: Option<&PageCursor>,
        limit: usize,
    ) -> Result<Page<RegisteredDevice>, StoreError> {
        match audience {
            Audience::Pass(pass) => {
                let pass = self.pass(pass);
                let joined = matches!(
                    self.kind,
                    Kind::Matches(Call::Devices, ..)
                        | Kind::Joins(..)
                        | Kind::TokenOfEachRegistration
                );
                if !joined {
                    let page = self
                        .inner
                        .devices(Audience::Pass(&pass), after, limit)
                        .await?;
                    return Ok(self.ended(Call::Devices, after, page));
                }
                let mut items = Vec::new();
                for pass in self.found(Call::Devices, &pass) {
                    let page = self
                        .inner
                        .devices(Audience::Pass(&pass), None, usize::MAX)
                        .await?;
                    items.extend(page.items);
                }
                if self.kind == Kind::TokenOfEachRegistration {
                    let tokens = self.known(|known| known.tokens.clone());
                    for one in &mut items {
                        one.push_token = tokens[&(one.device.clone(), pass.clone())].clone();
                    }
                }
                Ok(Page { items, next: None })
            }
            Audience::Type(type_id) => {
                let type_id = self.type_id(type_id);
                if self.pattern(Call::DevicesOfType, Field::Type).is_none() {
                    let mut page = self
                        .inner
                        .devices(Audience::Type(&type_id), after, limit)
                        .await?;
                    let lost = |one: &RegisteredDevice| {
                        let key = (one.device.clone(), type_id.clone());
                        self.known(|known| known.lost.contains(&key))
                    };
                    page.items.retain(|one| !lost(one));
                    return Ok(self.ended(Call::DevicesOfType, after, page));
                }
                let mut items = Vec::new();
                for type_id in self.found_types(Call::DevicesOfType, &type_id) {
                    let audience = Audience::Type(&type_id);
                    items.extend(self.inner.devices(audience, None, usize::MAX).await?.items);
                }
                Ok(Page { items, next: None })
            }
        }
    }

    async fn count_devices(&self, pass: &PassId, at_most: u64) -> Result<u64, StoreError> {
        let pass = self.pass(pass);
        if self.kind == Kind::CountsRegistersTwice {
            return Ok(self.known(|known| known.registers.get(&pass).copied().unwrap_or(0)));
        }
        let mut count = 0;
        for pass in self.found(Call::Count, &pass) {
            count += self.inner.count_devices(&pass, at_most).await?;
        }
        match self.kind {
            Kind::EndsAt(Call::Count, most) => Ok(count.min(most as u64)),
            _ => Ok(count),
        }
    }

    async fn forget_device(
        &self,
        device: &DeviceIdentifier,
        unregistered_at: SystemTime,
    ) -> Result<bool, StoreError> {
        let device = &self.device(device);
        let _turn = self.turn(Call::Forget).await?;
        let mut forgotten = false;
        match self.kind {
            Kind::ForgetChecksFirst => {
                let known = self.inner.snapshot();
                forgotten = known.forget_device(device, unregistered_at).await?;
                yield_now().await;
                if forgotten {
                    let far = SystemTime::now() + Duration::from_secs(86_400);
                    self.inner.forget_device(device, far).await?;
                }
            }
            Kind::ForgetComparesSeconds => {
                let up = Duration::from_millis(999);
                forgotten = self
                    .inner
                    .forget_device(device, unregistered_at + up)
                    .await?;
            }
            _ => {
                for device in self.found_devices(Call::Forget, device) {
                    forgotten |= self.inner.forget_device(&device, unregistered_at).await?;
                }
            }
        }
        if forgotten && self.kind == Kind::ForgetRemovesDeferred {
            self.remove_deferred(|one| one == device).await;
        }
        if forgotten && self.kind == Kind::ForgetFinishes {
            self.finish_everything().await;
        }
        self.wrote(Call::Forget);
        Ok(forgotten)
    }
}

impl Kinds {
    async fn passes_of(&self, device: &DeviceIdentifier) -> Vec<PassId> {
        let all = self.inner.registrations(None, usize::MAX).await.unwrap();
        let of_device = all.items.into_iter().filter(|one| one.device == *device);
        of_device.map(|one| one.pass).collect()
    }

    async fn clock(&self, type_id: &TypeIdentifier) -> u64 {
        let nobody = DeviceIdentifier::new("nobody").unwrap();
        let changes = self
            .inner
            .changes_since(&nobody, type_id, None)
            .await
            .unwrap();
        changes.tag.type_version
    }
}
