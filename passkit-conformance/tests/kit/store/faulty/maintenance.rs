use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use passkit_conformance::store::{BoxError, Stores};
use passkit_server::{
    MemoryStore, PageCursor, PushQueue, Registered, Registration, RegistrationPage, RegistrationStore,
    StoreError, StoreMaintenance, StoreStats,
};

use super::{Fault, Faulty};

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
        for Registration { device, push_token, pass } in &registrations {
            if self.is(Fault::ManySkipsExisting) && self.is_known(device).await? {
                continue;
            }
            created += u64::from(self.register(device, pass, push_token).await? == Registered::Created);
        }
        Ok(if self.is(Fault::ManyCountsAll) { registrations.len() as u64 } else { created })
    }

    async fn registrations(
        &self,
        after: Option<&PageCursor>,
        limit: usize,
    ) -> Result<RegistrationPage, StoreError> {
        match self.fault {
            Fault::RegistrationPagesSkip => {
                let mut page = self.inner.registrations(after, limit).await?;
                if page.next.is_some() {
                    page.registrations.pop();
                }
                Ok(page)
            }
            Fault::RegistrationPagesByOffset => {
                let all = self.inner.registrations(None, usize::MAX).await?.registrations;
                let start = after.and_then(|cursor| cursor.as_str().parse().ok()).unwrap_or(0);
                let end = limit.max(1).saturating_add(start);
                let next = (end < all.len()).then(|| PageCursor::new(end.to_string()));
                Ok(RegistrationPage { registrations: all.into_iter().take(end).skip(start).collect(), next })
            }
            _ => self.inner.registrations(after, limit).await,
        }
    }

    async fn stats(&self) -> Result<StoreStats, StoreError> {
        let mut stats = self.inner.stats().await?;
        match self.fault {
            Fault::StatsCountGoneDevices => stats.devices = self.memory(|memory| memory.devices.len() as u64),
            Fault::StatsCountMarks => {
                for of_type in &mut stats.types {
                    let marked = |pass: &&_| *pass == &of_type.type_id;
                    let marks = self.memory(|memory| {
                        memory.marked.keys().map(|pass| &pass.type_id).filter(marked).count()
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
    async fn is_known(&self, device: &passkit_server::DeviceIdentifier) -> Result<bool, StoreError> {
        let all = self.inner.registrations(None, usize::MAX).await?;
        Ok(all.registrations.iter().any(|one| one.device == *device))
    }
}

/// Gives out stores that are wrong in this way.
pub(crate) struct FaultyStores {
    fault: Fault,
    last: Mutex<Option<Arc<Faulty>>>,
}

impl FaultyStores {
    pub(crate) fn new(fault: Fault) -> Self {
        Self { fault, last: Mutex::default() }
    }
}

#[async_trait]
impl Stores for FaultyStores {
    async fn open(&self) -> Result<Arc<dyn RegistrationStore>, BoxError> {
        let store = Arc::new(Faulty::new(self.fault));
        *self.last.lock().unwrap() = Some(store.clone());
        Ok(store)
    }

    async fn reopen(
        &self,
        store: Arc<dyn RegistrationStore>,
    ) -> Option<Result<Arc<dyn RegistrationStore>, BoxError>> {
        let last = self.last.lock().unwrap().clone()?;
        let all = last.inner.registrations(None, usize::MAX).await.unwrap().registrations;
        Some(Ok(match self.fault {
            Fault::LosesARegistration => {
                last.inner.unregister(&all[0].device, &all[0].pass).await.unwrap();
                store
            }
            Fault::OpensEmpty => Arc::new(MemoryStore::new()),
            Fault::ClocksStartAnew => {
                let new = MemoryStore::new();
                new.register_many(&all).await.unwrap();
                Arc::new(new)
            }
            // As it is: nothing is lost.
            _ => store,
        }))
    }

    async fn maintained(&self) -> Option<Result<Arc<dyn StoreMaintenance>, BoxError>> {
        Some(Ok(Arc::new(Faulty::new(self.fault))))
    }

    async fn queued(&self) -> Option<Result<Arc<dyn PushQueue>, BoxError>> {
        let store = Arc::new(Faulty::new(self.fault));
        *self.last.lock().unwrap() = Some(store.clone());
        Some(Ok(store))
    }

    async fn reopen_queued(&self, store: Arc<dyn PushQueue>) -> Option<Result<Arc<dyn PushQueue>, BoxError>> {
        let last = self.last.lock().unwrap().clone()?;
        last.queue_anew().await;
        Some(Ok(store))
    }
}
