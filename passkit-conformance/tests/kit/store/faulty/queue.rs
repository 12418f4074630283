use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use passkit_server::{
    Debt, DeviceIdentifier, HeldPage, HeldPush, MemoryStore, Owed, Owing, PageCursor, PushQueue, Reached,
    RegistrationStore, SerialNumber, StoreError, TypeIdentifier, clock,
};
use tokio::task::yield_now;

use super::{Fault, Faulty};

/// What some faults need to remember.
#[derive(Default)]
pub(super) struct Queue {
    /// Debts as they were first seen, and pages that should be forgotten.
    seen: HashMap<(TypeIdentifier, Owed), u64>,
    begun: HashMap<(TypeIdentifier, Owed), Reached>,
    owed_again: Vec<(TypeIdentifier, Owed)>,
    types: Vec<TypeIdentifier>,
    holders: HashMap<TypeIdentifier, String>,
}

#[async_trait]
impl PushQueue for Faulty {
    async fn mark_and_owe(
        &self,
        type_id: &TypeIdentifier,
        serials: &[SerialNumber],
    ) -> Result<(), StoreError> {
        let type_id = &self.owing_type(type_id);
        self.memory(|memory| {
            memory.queue.types.push(type_id.clone());
            let again = serials.iter().map(|serial| (type_id.clone(), Owed::Pass(serial.clone())));
            memory.queue.owed_again.extend(again);
        });
        match self.fault {
            Fault::OwesNothing => self.inner.mark_updated(type_id, serials).await,
            Fault::OwesTheFirstOnly if !serials.is_empty() => {
                self.inner.mark_and_owe(type_id, &serials[..1]).await?;
                self.inner.mark_updated(type_id, &serials[1..]).await
            }
            Fault::EmptyBatchOwesAll if serials.is_empty() => self.inner.mark_all_and_owe(type_id).await,
            Fault::MarksThenOwes => {
                self.inner.mark_updated(type_id, serials).await?;
                yield_now().await;
                self.inner.mark_and_owe(type_id, serials).await
            }
            _ => self.queue().mark_and_owe(type_id, serials).await,
        }
    }

    async fn mark_all_and_owe(&self, type_id: &TypeIdentifier) -> Result<(), StoreError> {
        let type_id = &self.owing_type(type_id);
        match self.fault {
            Fault::OwesNoTypes => self.inner.mark_all_updated(type_id).await,
            Fault::MarksThenOwes => {
                self.inner.mark_all_updated(type_id).await?;
                yield_now().await;
                self.inner.mark_all_and_owe(type_id).await
            }
            _ => self.queue().mark_all_and_owe(type_id).await,
        }
    }

    async fn owing(&self) -> Result<Vec<Owing>, StoreError> {
        let mut owing = self.queue().owing().await?;
        match self.fault {
            Fault::OwingNamesSettledTypes => {
                for type_id in self.memory(|memory| memory.queue.types.clone()) {
                    if owing.iter().all(|one| one.type_id != type_id) {
                        owing.push(Owing { type_id, debts: 0, since: None, next_held: None });
                    }
                }
            }
            Fault::OwingMissesHeld => owing.retain(|one| one.debts > 0),
            Fault::OwingSinceIsNow => {
                for one in owing.iter_mut().filter(|one| one.debts > 0) {
                    one.since = Some(SystemTime::now());
                }
            }
            Fault::NextHeldIsNowWithoutTimes => {
                for one in &mut owing {
                    one.next_held = one.next_held.or(Some(SystemTime::now()));
                }
            }
            Fault::NextHeldIsAnyOne => {
                for one in &mut owing {
                    let page = self.inner.held(&one.type_id, None, usize::MAX).await?;
                    one.next_held = page.pushes.iter().filter_map(|push| push.due).max();
                }
            }
            _ => {}
        }
        Ok(owing)
    }

    async fn lease(
        &self,
        type_id: &TypeIdentifier,
        worker: &str,
        time: Duration,
    ) -> Result<bool, StoreError> {
        let holder = self.memory(|memory| memory.queue.holders.get(type_id).cloned());
        let note = || self.memory(|memory| memory.queue.holders.insert(type_id.clone(), worker.to_owned()));
        match self.fault {
            Fault::LeaseChecksFirst => {
                if holder.is_some_and(|holder| holder != worker) {
                    return Ok(false);
                }
                yield_now().await;
                note();
                Ok(true)
            }
            Fault::LeaseNotForItsHolder if holder.as_deref() == Some(worker) => Ok(false),
            Fault::LeaseOfAllTypes => {
                let one = TypeIdentifier::new("pass.one").unwrap();
                self.inner.lease(&one, worker, time).await
            }
            Fault::LeaseNeverEnds => self.inner.lease(type_id, worker, Duration::from_secs(86_400)).await,
            Fault::LeaseEndsAtOnce => self.inner.lease(type_id, worker, time / 10).await,
            Fault::LeaseIsNotProlonged if holder.as_deref() == Some(worker) => Ok(true),
            _ => {
                let given = self.inner.lease(type_id, worker, time).await?;
                if given {
                    note();
                }
                Ok(given)
            }
        }
    }

    async fn release(&self, type_id: &TypeIdentifier, worker: &str) -> Result<(), StoreError> {
        let holder = self.memory(|memory| memory.queue.holders.get(type_id).cloned());
        match (self.fault, holder) {
            (Fault::AnyoneReleases, Some(holder)) => self.inner.release(type_id, &holder).await,
            _ => self.inner.release(type_id, worker).await,
        }
    }

    async fn debts(&self, type_id: &TypeIdentifier, limit: usize) -> Result<Vec<Debt>, StoreError> {
        let type_id = &self.owing_type(type_id);
        let mut debts = match self.fault {
            Fault::DebtLimitIgnored => self.inner.debts(type_id, usize::MAX).await?,
            Fault::DebtsByName => {
                let mut all = self.inner.debts(type_id, usize::MAX).await?;
                all.sort_by(|a, b| a.owed.cmp(&b.owed));
                all.truncate(limit);
                all
            }
            _ => self.queue().debts(type_id, limit).await?,
        };
        for debt in &mut debts {
            let key = (type_id.clone(), debt.owed.clone());
            match self.fault {
                Fault::OwedAgainKeepsItsVersion => {
                    debt.version =
                        self.memory(|memory| *memory.queue.seen.entry(key).or_insert(debt.version));
                }
                Fault::OwedAgainForgetsThePage
                    if self.memory(|memory| memory.queue.owed_again.contains(&key)) =>
                {
                    debt.reached = None;
                }
                Fault::OldVersionKeepsThePage => {
                    debt.reached = self.memory(|memory| memory.queue.begun.get(&key).cloned());
                }
                _ => {}
            }
        }
        Ok(debts)
    }

    async fn advance(&self, type_id: &TypeIdentifier, reached: &[(Owed, Reached)]) -> Result<(), StoreError> {
        let type_id = &self.owing_type(type_id);
        let mut reached = reached.to_vec();
        let debts: BTreeMap<_, _> = self
            .queue()
            .debts(type_id, usize::MAX)
            .await?
            .into_iter()
            .map(|debt| (debt.owed, debt.version))
            .collect();
        self.memory(|memory| {
            for (owed, reached) in &reached {
                let key = (type_id.clone(), owed.clone());
                memory.queue.owed_again.retain(|other| *other != key);
                if reached.next.is_some() {
                    memory.queue.begun.insert(key, reached.clone());
                } else if debts.get(owed) == Some(&reached.version) {
                    memory.queue.begun.remove(&key);
                }
            }
        });
        match self.fault {
            Fault::PagesAreNotKept => reached.retain(|(_, reached)| reached.next.is_none()),
            Fault::AnyVersionSettles => {
                for (owed, reached) in &mut reached {
                    if let (Some(version), None) = (debts.get(owed), &reached.next) {
                        reached.version = *version;
                    }
                }
            }
            Fault::NothingSettles => reached.retain(|(_, reached)| reached.next.is_some()),
            Fault::AdvanceOwes => {
                for (owed, _) in &reached {
                    if let (Owed::Pass(serial), None) = (owed, debts.get(owed)) {
                        self.inner.mark_and_owe(type_id, std::slice::from_ref(serial)).await?;
                    }
                }
            }
            _ => {}
        }
        self.queue().advance(type_id, &reached).await
    }

    async fn hold(&self, type_id: &TypeIdentifier, pushes: &[HeldPush]) -> Result<(), StoreError> {
        let mut pushes = pushes.to_vec();
        match self.fault {
            Fault::HoldKeepsTheFirst => {
                let page = self.inner.held(type_id, None, usize::MAX).await?;
                pushes.retain(|push| page.pushes.iter().all(|other| other.device != push.device));
            }
            Fault::HeldTimesAreSeconds => {
                for push in &mut pushes {
                    let whole =
                        |time| SystemTime::UNIX_EPOCH + Duration::from_secs(clock::micros(time) / 1_000_000);
                    push.due = push.due.map(whole);
                }
            }
            _ => {}
        }
        self.inner.hold(type_id, &pushes).await
    }

    async fn unhold(&self, type_id: &TypeIdentifier, devices: &[DeviceIdentifier]) -> Result<(), StoreError> {
        if self.is(Fault::UnholdsOneOnly) {
            return self.inner.unhold(type_id, &devices[..devices.len().min(1)]).await;
        }
        self.inner.unhold(type_id, devices).await
    }

    async fn held(
        &self,
        type_id: &TypeIdentifier,
        after: Option<&PageCursor>,
        limit: usize,
    ) -> Result<HeldPage, StoreError> {
        let mut page = self.inner.held(type_id, after, limit).await?;
        if self.is(Fault::HeldPagesSkip) && page.next.is_some() && limit > 1 {
            page.pushes.pop();
        }
        Ok(page)
    }
}

impl Faulty {
    /// Where what is owed is kept: elsewhere, by a store that owes and does not mark.
    fn queue(&self) -> &MemoryStore {
        if self.is(Fault::OwesWithoutMarking) { &self.beside } else { &self.inner }
    }

    fn owing_type(&self, type_id: &TypeIdentifier) -> TypeIdentifier {
        let text = type_id.as_str();
        if self.is(Fault::DebtsOfTypesThatStartAlike) {
            TypeIdentifier::new(text.strip_suffix(".b").unwrap_or(text)).unwrap()
        } else {
            type_id.clone()
        }
    }

    /// The store as it is when it was opened anew.
    pub(super) async fn queue_anew(&self) {
        for Owing { type_id, .. } in self.inner.owing().await.unwrap() {
            match self.fault {
                Fault::ReopeningForgetsDebts => {
                    let debts = self.inner.debts(&type_id, 1).await.unwrap();
                    let end = debts
                        .into_iter()
                        .map(|debt| (debt.owed, Reached { version: debt.version, next: None }));
                    self.inner.advance(&type_id, &end.collect::<Vec<_>>()).await.unwrap();
                }
                Fault::ReopeningForgetsPages => {
                    let debts = self.inner.debts(&type_id, 100).await.unwrap();
                    let start = debts.into_iter().map(|debt| (debt.owed, Reached { version: 0, next: None }));
                    self.inner.advance(&type_id, &start.collect::<Vec<_>>()).await.unwrap();
                }
                Fault::ReopeningForgetsHeld => {
                    let page = self.inner.held(&type_id, None, 1).await.unwrap();
                    let devices: Vec<_> = page.pushes.into_iter().map(|push| push.device).collect();
                    self.inner.unhold(&type_id, &devices).await.unwrap();
                }
                _ => {}
            }
        }
    }
}
