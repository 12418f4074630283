use std::sync::Arc;

use async_trait::async_trait;
use passkit_conformance::store::{BoxError, Stores, TestStore};
use passkit_server::{
    PassId,
    maintenance::{Registration, StoreMaintenance, StoreStats},
    store::{MemoryStore, Page, PageCursor, Registered, RegistrationStore, StoreError},
};

use super::{Fault, Faulty, kinds::Kinds};

#[async_trait]
impl StoreMaintenance for Faulty {
    async fn register_many(&self, registrations: &[Registration]) -> Result<u64, StoreError> {
        let mut registrations = registrations.to_vec();
        if self.is(Fault::ManyKeepsTheFirstToken) {
            let all = registrations.clone();
            for one in &mut registrations {
                let first = all.iter().find(|other| other.device == one.device).unwrap();
                one.push_token = first.push_token.clone();
            }
        }
        let mut created = 0;
        for Registration {
            device,
            push_token,
            pass,
        } in &registrations
        {
            if self.is(Fault::ManySkipsExisting) && self.is_known(device).await? {
                continue;
            }
            created +=
                u64::from(self.register(device, pass, push_token).await? == Registered::Created);
        }
        Ok(if self.is(Fault::ManyCountsAll) {
            registrations.len() as u64
        } else {
            created
        })
    }

    async fn registrations(
        &self,
        after: Option<&PageCursor>,
        limit: usize,
    ) -> Result<Page<Registration>, StoreError> {
        match self.fault {
            Fault::RegistrationPagesSkip => {
                let mut page = self.inner.registrations(after, limit).await?;
                if page.next.is_some() {
                    page.items.pop();
                }
                Ok(page)
            }
            Fault::RegistrationPagesByOffset => {
                let all = self.inner.registrations(None, usize::MAX).await?.items;
                let start = after
                    .and_then(|cursor| cursor.as_str().parse().ok())
                    .unwrap_or(0);
                let end = limit.max(1).saturating_add(start);
                let next = (end < all.len()).then(|| PageCursor::new(end.to_string()));
                Ok(Page {
                    items: all.into_iter().take(end).skip(start).collect(),
                    next,
                })
            }
            _ => {
                let mut page = self.inner.registrations(after, limit).await?;
                page.items
                    .iter_mut()
                    .for_each(|one| one.push_token = self.token_kept(&one.push_token));
                Ok(page)
            }
        }
    }

    async fn published_passes(
        &self,
        after: Option<&PageCursor>,
        limit: usize,
    ) -> Result<Page<PassId>, StoreError> {
        let mut page = self.inner.published_passes(after, limit).await?;
        match self.fault {
            Fault::PublishedPagesSkip if page.next.is_some() => drop(page.items.pop()),
            Fault::PublishedPassesLackRemoved => {
                let published = self.inner.published(&page.items).await?;
                let mut removed = published
                    .iter()
                    .map(|one| one.as_ref().is_some_and(|one| one.removed));
                page.items.retain(|_| removed.next() == Some(false));
            }
            _ => {}
        }
        Ok(page)
    }

    async fn forget_pass(&self, pass: &PassId) -> Result<bool, StoreError> {
        let forgotten = self.inner.forget_pass(pass).await?;
        if forgotten {
            self.memory(|memory| {
                memory.contents.remove(pass);
                memory.digests.retain(|(of, _)| of != pass);
            });
        }
        Ok(forgotten)
    }

    async fn stats(&self) -> Result<StoreStats, StoreError> {
        let mut stats = self.inner.stats().await?;
        match self.fault {
            Fault::StatsCountGoneDevices => {
                stats.devices = self.memory(|memory| memory.devices.len() as u64)
            }
            Fault::StatsCountMarks => {
                for of_type in &mut stats.types {
                    let marked = |pass: &&_| *pass == &of_type.type_id;
                    let marks = self.memory(|memory| {
                        memory
                            .marked
                            .keys()
                            .map(|pass| &pass.type_id)
                            .filter(marked)
                            .count()
                    });
                    of_type.passes += marks as u64;
                }
            }
            _ => {}
        }
        Ok(stats)
    }
}

impl Faulty {
    async fn is_known(
        &self,
        device: &passkit_server::identifiers::DeviceIdentifier,
    ) -> Result<bool, StoreError> {
        let all = self.inner.registrations(None, usize::MAX).await?;
        Ok(all.items.iter().any(|one| one.device == *device))
    }
}

/// Opens stores with this fault.
pub(crate) struct FaultyStores(pub(crate) Fault);

/// The place of a store. Reopening either copies the store or returns the same store.
/// Returns the store with all traits.
fn with_all_traits(store: Arc<Faulty>) -> TestStore {
    TestStore::with_all(store.clone()).with_delivery(store)
}

pub(crate) enum Place {
    Faulty(Arc<Faulty>),
    Kinds(Arc<Kinds>),
}

#[async_trait]
impl Stores for FaultyStores {
    type Place = Place;

    async fn open(&self) -> Result<(TestStore, Place), BoxError> {
        if let Fault::Kind(kind) = self.0 {
            let store = Arc::new(Kinds::new(kind));
            return Ok((TestStore::with_all(store.clone()), Place::Kinds(store)));
        }
        let store = Arc::new(Faulty::new(self.0));
        Ok((with_all_traits(store.clone()), Place::Faulty(store)))
    }

    async fn reopen(&self, place: &Place) -> Option<Result<TestStore, BoxError>> {
        let store = match place {
            Place::Faulty(store) => store,
            Place::Kinds(store) => return Some(Ok(store.reopen().await)),
        };
        let all = store
            .inner
            .registrations(None, usize::MAX)
            .await
            .unwrap()
            .items;
        store.reopen_queue().await;
        Some(Ok(match self.0 {
            Fault::LosesARegistration => {
                store
                    .inner
                    .unregister(&all[0].device, &all[0].pass)
                    .await
                    .unwrap();
                with_all_traits(store.clone())
            }
            Fault::OpensEmpty | Fault::ReopeningForgetsNotes => {
                TestStore::with_all(Arc::new(MemoryStore::new()))
            }
            Fault::ClocksStartAnew => {
                let new = MemoryStore::new();
                new.register_many(&all).await.unwrap();
                TestStore::with_all(Arc::new(new))
            }
            Fault::ReopeningForgetsDigests => {
                store.forget_digests(|_| true);
                with_all_traits(store.clone())
            }
            Fault::ReopeningForgetsTokens => {
                store.memory(|memory| {
                    memory
                        .contents
                        .values_mut()
                        .for_each(|one| one.tokens.truncate(1))
                });
                with_all_traits(store.clone())
            }
            // This returns the same store, because nothing is lost.
            _ => with_all_traits(store.clone()),
        }))
    }
}
