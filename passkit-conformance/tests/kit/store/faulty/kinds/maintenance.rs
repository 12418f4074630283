//! Import, export, counts and delivery records.

use super::*;

#[async_trait]
impl StoreMaintenance for Kinds {
    async fn register_many(&self, registrations: &[Registration]) -> Result<u64, StoreError> {
        let _turn = self.turn(Call::RegisterMany).await?;
        let same = |one: &Registration, other: &Registration| {
            one.device == other.device && one.pass == other.pass
        };
        let mut registrations = self.batch(Call::RegisterMany, registrations, same)?;
        let known = self.inner.snapshot();
        if matches!(
            self.kind,
            Kind::KnownKeepsItsToken | Kind::KnownIsNotRenewed
        ) {
            let all = known.registrations(None, usize::MAX).await?.items;
            if self.kind == Kind::KnownIsNotRenewed {
                registrations.retain(|one| !all.iter().any(|other| same(one, other)));
            }
            for one in &mut registrations {
                if let Some(other) = all.iter().find(|other| same(one, other)) {
                    one.push_token = other.push_token.clone();
                }
            }
        }
        if self.kind == Kind::WritesBack(Call::RegisterMany) {
            let all = known.registrations(None, usize::MAX).await?.items;
            yield_now().await;
            for one in self.inner.registrations(None, usize::MAX).await?.items {
                let is_in_batch = registrations.iter().any(|other| other.device == one.device);
                if is_in_batch && !all.iter().any(|other| same(other, &one)) {
                    self.inner.unregister(&one.device, &one.pass).await?;
                }
            }
        }
        let created = self.inner.register_many(&registrations).await?;
        self.wrote(Call::RegisterMany);
        Ok(created)
    }

    async fn registrations(
        &self,
        after: Option<&PageCursor>,
        limit: usize,
    ) -> Result<Page<Registration>, StoreError> {
        let page = self.inner.registrations(after, limit).await?;
        Ok(self.ended(Call::Registrations, after, page))
    }

    async fn published_passes(
        &self,
        after: Option<&PageCursor>,
        limit: usize,
    ) -> Result<Page<PassId>, StoreError> {
        let page = self.inner.published_passes(after, limit).await?;
        Ok(self.ended(Call::PublishedPasses, after, page))
    }

    async fn forget_pass(&self, pass: &PassId) -> Result<bool, StoreError> {
        let pass = self.pass(pass);
        if self.kind == Kind::ForgetsNoPass {
            return Ok(true);
        }
        let published = self.inner.published(slice::from_ref(&pass)).await?;
        let pending = self.inner.pending(&pass.type_id, usize::MAX).await?;
        let mut forgotten = true;
        for pass in self.found(Call::ForgetPass, &pass) {
            forgotten &= self.inner.forget_pass(&pass).await?;
        }
        if !forgotten {
            self.known(|known| known.forgotten_early.insert(pass));
            return Ok(self.kind == Kind::ForgetsPassesEarly);
        }
        if self.kind == Kind::ForgetsThePushesOfTheType {
            self.inner
                .record_progress(&pass.type_id, &ends(pending))
                .await?;
        } else {
            let scope = Scope::Pass(pass.serial.clone());
            let mut of_pass = pending.into_iter().filter(|change| change.scope == scope);
            let left = Left {
                published: published.into_iter().flatten().next(),
                pending: of_pass.next(),
            };
            self.known(|known| known.left.insert(pass, left));
        }
        self.wrote(Call::ForgetPass);
        Ok(true)
    }

    async fn stats(&self) -> Result<StoreStats, StoreError> {
        let mut stats = self.inner.stats().await?;
        if let Kind::EndsAt(Call::Stats, most) = self.kind {
            for one in &mut stats.types {
                one.registrations = one.registrations.min(most as u64);
            }
        }
        Ok(stats)
    }
}

/// No fault of this kind is in the delivery records.
#[async_trait]
impl DeliveryLog for Kinds {
    async fn record(&self, records: &[Record]) -> Result<(), StoreError> {
        self.inner.record(records).await
    }

    async fn records(&self, subjects: &[Subject]) -> Result<Vec<Vec<Record>>, StoreError> {
        self.inner.records(subjects).await
    }

    async fn forget(&self, subjects: &[Subject]) -> Result<(), StoreError> {
        self.inner.forget(subjects).await
    }

    async fn discard_before(&self, time: SystemTime, limit: usize) -> Result<bool, StoreError> {
        self.inner.discard_before(time, limit).await
    }
}
