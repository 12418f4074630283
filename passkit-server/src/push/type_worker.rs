//! All that one worker does for one type: rounds of a page for each debt.
//!
//! What a push covers is told by when it was begun: it covers each change that was seen to be committed before. So a
//! debt's page is done when to each of its tokens a push was begun after the debt was seen at its present version.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, SystemTime},
};

use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream};
use tokio::time::Instant;
use tracing::Instrument as _;

use super::{
    judging::{Consequences, Judge, Stop, Wanted},
    queue::{Debt, HeldPush, Owed, Reached},
    recent::TokenKey,
    report::{PushReport, Stopped},
    worker::{PushConfig, Worker},
};
use crate::{DeviceIdentifier, PassId, RegisteredDevice, StoreError, TypeIdentifier, traced};

/// The most debts of a round.
const DEBTS: usize = 256;
/// About the most devices of a round, and the fewest and most of a page.
const DEVICES: usize = 20_000;
const PAGE: (usize, usize) = (100, 5_000);
/// The first page of a debt is short, so that its first push goes out soon.
const FIRST_PAGE: usize = 500;
/// How many calls of the store a round makes at a time.
const STORE_CALLS: usize = 16;

/// After how long without a push it is forgotten that a token was called bad.
const BAD_UNTIL: Duration = Duration::from_secs(180 * 24 * 3_600);

/// What a worker knows of a type.
#[derive(Debug, Default)]
pub(super) struct Topic {
    seen: HashMap<Owed, Seen>,
    judge: Judge,
    /// Until then nobody else can have the lease.
    leased_until: Option<Instant>,
    paused_until: Option<Instant>,
    /// A round was begun and not brought to its end: the store failed, or the caller gave up.
    in_round: bool,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    version: u64,
    at: Instant,
    /// Its devices were pushed so lately that it has to wait until then.
    waits_until: Option<Instant>,
}

/// The devices of a debt that a round is about.
struct Page {
    debt: Debt,
    devices: Vec<RegisteredDevice>,
    reached: Reached,
}

impl Topic {
    /// Sends what is owed and due; returns when it may go on, if anything is left.
    pub(super) async fn work_off(
        &mut self,
        worker: &Worker,
        type_id: &TypeIdentifier,
        report: &mut PushReport,
    ) -> Result<Option<Instant>, StoreError> {
        if !worker.sender.covers(type_id) {
            report.stopped = Some(Stopped::NoCredentials);
            return Ok(Some(Instant::now() + worker.config.poll));
        }
        if let Some(until) = self.paused_until {
            if until > Instant::now() {
                return Ok(Some(until));
            }
            self.paused_until = None;
        }
        if self.in_round {
            // What is remembered of its pushes may not stand in the store, so it is not to be relied on.
            *self = Self::default();
        }
        if self.seen.is_empty()
            && let Some(then) = Instant::now().checked_sub(worker.config.spacing)
        {
            self.judge.recent.clear_if_older(then);
        }
        if !self.lease(worker, type_id).await? {
            report.stopped = Some(Stopped::Elsewhere);
            return Ok(Some(Instant::now() + worker.config.poll));
        }
        let stopped = loop {
            if !self.lease(worker, type_id).await? {
                break Some(Stop::LeaseLost);
            }
            let mut this = PushReport::default();
            let round = self.round(worker, type_id, &mut this).await;
            worker.count(&this);
            report.add(&this);
            match round? {
                Round::Went => {}
                Round::Over => break None,
                Round::Stopped(why) => break Some(why),
            }
        };
        self.forget_suspects(worker, type_id, report).await?;
        if let Some(why) = stopped {
            if !matches!(why, Stop::LeaseLost) {
                // Another worker may have a better certificate, or network.
                self.set_lease(worker, type_id, Duration::ZERO).await?;
            }
            let (time, reason) = self.judge.pause(why, type_id);
            self.paused_until = Some(Instant::now() + time);
            report.stopped = Some(reason);
        } else if self.seen.is_empty() {
            // What is pushed in other processes keeps its distance from what was pushed here.
            self.set_lease(worker, type_id, worker.config.spacing).await?;
        }
        Ok(self.next())
    }

    /// When there is something to do again, as far as is known here.
    fn next(&self) -> Option<Instant> {
        let waiting = self.seen.values().filter_map(|seen| seen.waits_until).min();
        let held = self.judge.held.values().filter_map(|push| push.due).min();
        let held =
            held.map(|due| Instant::now() + due.duration_since(SystemTime::now()).unwrap_or(Duration::ZERO));
        let next = waiting.into_iter().chain(held).min();
        self.paused_until.or(next)
    }

    /// Takes the lease, or keeps it when some of its time has gone.
    async fn lease(&mut self, worker: &Worker, type_id: &TypeIdentifier) -> Result<bool, StoreError> {
        let time = worker.config.lease;
        let now = Instant::now();
        if self.leased_until.is_some_and(|until| until > now + time * 2 / 3) {
            return Ok(true);
        }
        let is_new = self.leased_until.is_none_or(|until| until <= now);
        if !self.set_lease(worker, type_id, time).await? {
            return Ok(false);
        }
        if is_new {
            self.judge.held = held(worker, type_id).await?;
        }
        Ok(true)
    }

    async fn set_lease(
        &mut self,
        worker: &Worker,
        type_id: &TypeIdentifier,
        time: Duration,
    ) -> Result<bool, StoreError> {
        let now = Instant::now();
        self.leased_until = None;
        if time.is_zero() {
            worker.queue.release(type_id, &worker.name).await?;
            return Ok(true);
        }
        let has_it = worker.queue.lease(type_id, &worker.name, time).await?;
        // A little less, as clocks run at different speeds.
        self.leased_until = has_it.then(|| now + time * 9 / 10);
        Ok(has_it)
    }

    /// Lets others have the type at once.
    pub(super) async fn let_go(
        &mut self,
        worker: &Worker,
        type_id: &TypeIdentifier,
    ) -> Result<(), StoreError> {
        if self.leased_until.is_some() {
            self.set_lease(worker, type_id, Duration::ZERO).await?;
        }
        Ok(())
    }

    async fn round(
        &mut self,
        worker: &Worker,
        type_id: &TypeIdentifier,
        report: &mut PushReport,
    ) -> Result<Round, StoreError> {
        let debts = worker.queue.debts(type_id, DEBTS).await?;
        let now = Instant::now();
        self.see(&debts, now);
        let ready: Vec<Debt> = debts
            .into_iter()
            .filter(|debt| self.seen[&debt.owed].waits_until.is_none_or(|until| until <= now))
            .collect();
        let due: Vec<HeldPush> = {
            let time = SystemTime::now();
            self.judge.held.values().filter(|push| push.due.is_some_and(|due| due <= time)).cloned().collect()
        };
        if ready.is_empty() && due.is_empty() {
            return Ok(Round::Over);
        }

        self.in_round = true;
        let limit = (DEVICES / ready.len().max(1)).clamp(PAGE.0, PAGE.1);
        let pages: Vec<Page> = stream::iter(ready)
            .map(|debt| read_page(worker, type_id, debt, limit).boxed())
            .buffered(STORE_CALLS)
            .try_collect()
            .await?;
        let mut consequences = Consequences::default();
        let wanted = self.wanted(&pages, due, &worker.config, &mut consequences, report);
        let stop = self.push(worker, type_id, wanted, &mut consequences, report).await?;

        // First what a debt's end rests upon, then its end.
        self.carry_out(worker, type_id, &mut consequences, report).await?;
        let done: Vec<(Owed, Reached)> = pages
            .into_iter()
            .filter(|page| self.seen.get(&page.debt.owed).is_none_or(|seen| seen.waits_until.is_none()))
            .filter(|page| {
                let mut keys = page.devices.iter().map(|device| self.judge.recent.key(&device.push_token));
                keys.all(|key| !consequences.open.contains(&key))
            })
            .map(|page| (page.debt.owed, page.reached))
            .collect();
        worker.queue.advance(type_id, &done).await?;
        self.in_round = false;
        Ok(stop.map_or(Round::Went, Round::Stopped))
    }

    /// Notes when each debt was first seen with the version that it has.
    fn see(&mut self, debts: &[Debt], now: Instant) {
        let owed: HashSet<&Owed> = debts.iter().map(|debt| &debt.owed).collect();
        self.seen.retain(|known, _| owed.contains(known));
        for debt in debts {
            let fresh = Seen { version: debt.version, at: now, waits_until: None };
            let seen = self.seen.entry(debt.owed.clone()).or_insert(fresh);
            if seen.version != debt.version {
                *seen = Seen { waits_until: seen.waits_until, ..fresh };
            }
        }
    }

    /// The pushes to be sent: one for each token that no push covers, unless it was pushed too lately.
    fn wanted(
        &mut self,
        pages: &[Page],
        due: Vec<HeldPush>,
        config: &PushConfig,
        consequences: &mut Consequences,
        report: &mut PushReport,
    ) -> HashMap<TokenKey, Wanted> {
        let now = Instant::now();
        let time = SystemTime::now();
        let mut wanted: HashMap<TokenKey, Wanted> = HashMap::new();
        for HeldPush { device, push_token, .. } in due {
            let wanted = wanted.entry(self.judge.recent.key(&push_token));
            wanted
                .or_insert(Wanted { token: push_token, devices: Vec::new(), version: None })
                .devices
                .push(device);
        }
        for Page { debt, devices, .. } in pages {
            let Some(seen) = self.seen.get_mut(&debt.owed) else { continue };
            seen.waits_until = None;
            for RegisteredDevice { device, push_token } in devices {
                let key = self.judge.recent.key(push_token);
                if let Some(wanted) = wanted.get_mut(&key) {
                    report.coalesced += 1;
                    wanted.devices.push(device.clone());
                    wanted.version = wanted.version.max(Some(debt.version));
                    continue;
                }
                let held = self.judge.held.get(device).filter(|push| push.push_token == *push_token);
                let waits = held.is_some_and(|push| push.due.is_some_and(|due| due > time));
                match self.judge.recent.get(key) {
                    Some(pushed) if pushed.at >= seen.at => {
                        report.coalesced += 1;
                        consequences.forget.extend(pushed.gone.map(|gone| (device.clone(), gone)));
                    }
                    _ if waits => report.coalesced += 1,
                    Some(pushed) if pushed.at + config.spacing > now => {
                        seen.waits_until = seen.waits_until.max(Some(pushed.at + config.spacing));
                    }
                    _ => {
                        let (token, devices) = (push_token.clone(), vec![device.clone()]);
                        wanted.insert(key, Wanted { token, devices, version: Some(debt.version) });
                    }
                }
            }
        }
        wanted
    }

    async fn push(
        &mut self,
        worker: &Worker,
        type_id: &TypeIdentifier,
        wanted: HashMap<TokenKey, Wanted>,
        consequences: &mut Consequences,
        report: &mut PushReport,
    ) -> Result<Option<Stop>, StoreError> {
        consequences.open = wanted.keys().copied().collect();
        let mut answers = stream::iter(wanted)
            .map(|(key, wanted)| {
                async move {
                    let at = Instant::now();
                    let Wanted { token, devices, version } = &wanted;
                    let span = traced::push(type_id, token, devices, *version);
                    let outcome = worker.sender.push(type_id, token).instrument(span.clone()).await;
                    traced::pushed(&span, &outcome);
                    (key, wanted, at, outcome)
                }
                .boxed()
            })
            .buffer_unordered(worker.config.concurrency.max(1));
        let (mut sent, mut stop) = (0_u64, None);
        loop {
            // Beside the pushes, which may take long, the lease is kept.
            let keep = self.leased_until.map_or(Duration::ZERO, |until| {
                until.saturating_duration_since(Instant::now()).saturating_sub(worker.config.lease / 2)
            });
            let next = tokio::select! {
                next = answers.next() => next,
                () = tokio::time::sleep(keep) => {
                    if self.lease(worker, type_id).await? {
                        continue;
                    }
                    stop = Some(Stop::LeaseLost);
                    break;
                }
            };
            let Some((key, wanted, at, outcome)) = next else { break };
            let before = report.sent;
            stop = self.judge.judge(key, wanted, at, outcome, consequences, report);
            sent += report.sent - before;
            if stop.is_some() {
                break;
            }
        }
        drop(answers);
        if sent == 0 && stop.is_none() && !consequences.unreachable.is_empty() {
            return Ok(Some(Stop::Unreachable("no answer".to_owned())));
        }
        // Others were answered: it is these alone.
        if stop.is_none() {
            for (key, wanted) in std::mem::take(&mut consequences.unreachable) {
                consequences.open.remove(&key);
                self.judge.hold(wanted, Duration::from_secs(30), "no answer", consequences, report);
            }
        }
        Ok(stop)
    }

    async fn carry_out(
        &mut self,
        worker: &Worker,
        type_id: &TypeIdentifier,
        consequences: &mut Consequences,
        report: &mut PushReport,
    ) -> Result<(), StoreError> {
        report.forgotten += forget(worker, &consequences.forget).await?;
        worker.queue.hold(type_id, &consequences.hold).await?;
        worker.queue.unhold(type_id, &consequences.unhold).await
    }

    async fn forget_suspects(
        &mut self,
        worker: &Worker,
        type_id: &TypeIdentifier,
        report: &mut PushReport,
    ) -> Result<(), StoreError> {
        let suspects = self.judge.suspects();
        if suspects.is_empty() {
            return Ok(());
        }
        let forgotten = forget(worker, &suspects).await?;
        report.forgotten += forgotten;
        worker.count(&PushReport { forgotten, ..PushReport::default() });
        let devices: Vec<DeviceIdentifier> = suspects.into_iter().map(|(device, _)| device).collect();
        self.judge.held.retain(|device, _| !devices.contains(device));
        worker.queue.unhold(type_id, &devices).await
    }
}

#[derive(Debug)]
enum Round {
    Went,
    Over,
    Stopped(Stop),
}

async fn held(
    worker: &Worker,
    type_id: &TypeIdentifier,
) -> Result<HashMap<DeviceIdentifier, HeldPush>, StoreError> {
    let mut all = HashMap::new();
    let mut after = None;
    loop {
        let page = worker.queue.held(type_id, after.as_ref(), 1_000).await?;
        let (kept, old): (Vec<_>, Vec<_>) = page.pushes.into_iter().partition(|push| {
            let bad_for = push.bad_since.and_then(|since| SystemTime::now().duration_since(since).ok());
            push.due.is_some() || bad_for.is_some_and(|time| time < BAD_UNTIL)
        });
        all.extend(kept.into_iter().map(|push| (push.device.clone(), push)));
        let old: Vec<DeviceIdentifier> = old.into_iter().map(|push| push.device).collect();
        worker.queue.unhold(type_id, &old).await?;
        after = page.next;
        if after.is_none() {
            return Ok(all);
        }
    }
}

async fn read_page(
    worker: &Worker,
    type_id: &TypeIdentifier,
    debt: Debt,
    limit: usize,
) -> Result<Page, StoreError> {
    let (version, after) = match &debt.reached {
        Some(reached) => (reached.version, reached.next.clone()),
        None => (debt.version, None),
    };
    let limit = if after.is_none() { limit.min(FIRST_PAGE) } else { limit };
    let (devices, next) = match &debt.owed {
        Owed::Pass(serial) => {
            let pass = PassId { type_id: type_id.clone(), serial: serial.clone() };
            let page = worker.queue.devices_of(&pass, after.as_ref(), limit).await?;
            (page.devices, page.next)
        }
        Owed::Type => {
            let page = worker.queue.registrations(after.as_ref(), limit).await?;
            let of_type = page.registrations.into_iter().filter(|one| one.pass.type_id == *type_id);
            let devices =
                of_type.map(|one| RegisteredDevice { device: one.device, push_token: one.push_token });
            (devices.collect(), page.next)
        }
    };
    Ok(Page { debt, devices, reached: Reached { version, next } })
}

/// How many were there and are removed.
async fn forget(worker: &Worker, devices: &[(DeviceIdentifier, SystemTime)]) -> Result<u64, StoreError> {
    let mut calls = stream::iter(devices.to_vec())
        .map(|(device, since)| async move { worker.queue.forget_device(&device, since).await }.boxed())
        .buffer_unordered(STORE_CALLS);
    let mut count = 0;
    while let Some(removed) = calls.next().await {
        count += u64::from(removed?);
    }
    Ok(count)
}
