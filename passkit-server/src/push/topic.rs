//! All that one worker does for one type: rounds of a page for each debt.
//!
//! What a push covers is told by when it was begun: it covers each change that was seen to be committed before. So a
//! debt's page is done when to each of its tokens a push was begun after the debt was seen at its present version.

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasher as _, RandomState},
    time::{Duration, SystemTime},
};

use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream};
use tokio::time::Instant;

use super::{
    publisher::{PushConfig, Worker},
    queue::{Debt, HeldPush, Owed, Reached},
    recent::{Pushed, Recent, TokenKey},
    report::PushReport,
    sender::PushOutcome,
};
use crate::{DeviceIdentifier, PassId, PushToken, RegisteredDevice, StoreError, TypeIdentifier};

/// The most debts of a round.
const DEBTS: usize = 256;
/// About the most devices of a round, and the fewest and most of a page.
const DEVICES: usize = 20_000;
const PAGE: (usize, usize) = (100, 5_000);
/// The first page of a debt is short, so that its first push goes out soon.
const FIRST_PAGE: usize = 500;
/// How many calls of the store a round makes at a time.
const STORE_CALLS: usize = 16;

/// How long a token must be called bad before the device is given up, and after how long without a push that is forgotten.
const BAD_FOR: Duration = Duration::from_secs(24 * 3_600);
const BAD_UNTIL: Duration = Duration::from_secs(180 * 24 * 3_600);
/// So many bad tokens in a row, and no good one, are taken for a fault of ours.
const STORM: u32 = 5;
/// The answers that the share of bad tokens is taken of.
const WINDOW: u32 = 1_000;
/// So many 5xx in a row are taken for an outage.
const OUTAGE: u32 = 20;
/// After so many attempts a held push is given up: about a day for 5xx.
const ATTEMPTS: u32 = 8;

/// What a worker knows of a type.
#[derive(Debug, Default)]
pub(super) struct Topic {
    recent: Recent,
    seen: HashMap<Owed, Seen>,
    held: HashMap<DeviceIdentifier, HeldPush>,
    /// Until then nobody else can have the lease.
    leased_until: Option<Instant>,
    paused_until: Option<Instant>,
    /// Pauses since the last push that was accepted.
    pauses: u32,
    answers: Answers,
    /// Devices whose token was called bad now and long ago.
    suspects: Vec<(DeviceIdentifier, SystemTime)>,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    version: u64,
    at: Instant,
    /// Its devices were pushed so lately that it has to wait until then.
    waits_until: Option<Instant>,
}

/// The latest answers.
#[derive(Debug, Default)]
struct Answers {
    all: u32,
    sent: u32,
    bad: u32,
    /// 5xx in a row.
    unavailable: u32,
}

/// The devices of a debt that a round is about.
struct Page {
    debt: Debt,
    devices: Vec<RegisteredDevice>,
    reached: Reached,
}

#[derive(Debug)]
struct Wanted {
    token: PushToken,
    devices: Vec<DeviceIdentifier>,
}

/// What the answers of a round ask for, and which tokens have none yet.
#[derive(Debug, Default)]
struct Consequences {
    forget: Vec<(DeviceIdentifier, SystemTime)>,
    hold: Vec<HeldPush>,
    unhold: Vec<DeviceIdentifier>,
    unreachable: Vec<(TokenKey, Wanted)>,
    open: HashSet<TokenKey>,
}

/// Why a type has to wait as a whole.
#[derive(Debug)]
enum Stop {
    Misconfigured(String),
    Storm(String),
    Outage(String),
    Unreachable(String),
    LeaseLost,
}

impl Topic {
    /// Sends what is owed and due; returns when it may go on, if anything is left.
    pub(super) async fn work_off(
        &mut self,
        worker: &Worker,
        type_id: &TypeIdentifier,
        report: &mut PushReport,
    ) -> Result<Option<Instant>, StoreError> {
        if let Some(until) = self.paused_until {
            if until > Instant::now() {
                return Ok(Some(until));
            }
            self.paused_until = None;
        }
        if self.seen.is_empty()
            && let Some(then) = Instant::now().checked_sub(worker.config.spacing)
        {
            self.recent.clear_if_older(then);
        }
        if !self.lease(worker, type_id).await? {
            report.stopped = Some("another worker sends them".to_owned());
            return Ok(Some(Instant::now() + worker.config.poll));
        }
        let stopped = loop {
            if !self.lease(worker, type_id).await? {
                break Some(Stop::LeaseLost);
            }
            match self.round(worker, type_id, report).await? {
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
            report.stopped = Some(self.pause(why, type_id));
        } else if self.seen.is_empty() {
            // What is pushed in other processes keeps its distance from what was pushed here.
            self.set_lease(worker, type_id, worker.config.spacing).await?;
        }
        Ok(self.next())
    }

    /// When there is something to do again, as far as is known here.
    fn next(&self) -> Option<Instant> {
        let waiting = self.seen.values().filter_map(|seen| seen.waits_until).min();
        let held = self.held.values().filter_map(|push| push.due).min();
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
            self.held = held(worker, type_id).await?;
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
            self.held.values().filter(|push| push.due.is_some_and(|due| due <= time)).cloned().collect()
        };
        if ready.is_empty() && due.is_empty() {
            return Ok(Round::Over);
        }

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
                let mut keys = page.devices.iter().map(|device| self.recent.key(&device.push_token));
                keys.all(|key| !consequences.open.contains(&key))
            })
            .map(|page| (page.debt.owed, page.reached))
            .collect();
        worker.queue.advance(type_id, &done).await?;
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
            let wanted = wanted.entry(self.recent.key(&push_token));
            wanted.or_insert(Wanted { token: push_token, devices: Vec::new() }).devices.push(device);
        }
        for Page { debt, devices, .. } in pages {
            let Some(seen) = self.seen.get_mut(&debt.owed) else { continue };
            seen.waits_until = None;
            for RegisteredDevice { device, push_token } in devices {
                let key = self.recent.key(push_token);
                if let Some(wanted) = wanted.get_mut(&key) {
                    report.coalesced += 1;
                    wanted.devices.push(device.clone());
                    continue;
                }
                let held = self.held.get(device).filter(|push| push.push_token == *push_token);
                let waits = held.is_some_and(|push| push.due.is_some_and(|due| due > time));
                match self.recent.get(key) {
                    Some(pushed) if pushed.at >= seen.at => {
                        report.coalesced += 1;
                        consequences.forget.extend(pushed.gone.map(|gone| (device.clone(), gone)));
                    }
                    _ if waits => report.coalesced += 1,
                    Some(pushed) if pushed.at + config.spacing > now => {
                        seen.waits_until = seen.waits_until.max(Some(pushed.at + config.spacing));
                    }
                    _ => {
                        let devices = vec![device.clone()];
                        wanted.insert(key, Wanted { token: push_token.clone(), devices });
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
                    let outcome = worker.sender.push(type_id, &wanted.token).await;
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
            stop = self.judge(key, wanted, at, outcome, consequences, report);
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
                self.hold(wanted, Duration::from_secs(30), "no answer", consequences, report);
            }
        }
        Ok(stop)
    }

    /// Notes what an answer asks for.
    fn judge(
        &mut self,
        key: TokenKey,
        wanted: Wanted,
        at: Instant,
        outcome: PushOutcome,
        consequences: &mut Consequences,
        report: &mut PushReport,
    ) -> Option<Stop> {
        let mut pushed = Pushed { at, gone: None };
        self.answers.note(&outcome);
        let stop = match outcome {
            PushOutcome::Sent => {
                report.sent += 1;
                self.pauses = 0;
                consequences.unhold.extend(self.unheld(&wanted));
                None
            }
            PushOutcome::Gone(since) => {
                pushed.gone = Some(since);
                consequences.unhold.extend(self.unheld(&wanted));
                consequences.forget.extend(wanted.devices.into_iter().map(|device| (device, since)));
                None
            }
            PushOutcome::BadToken(reason) => {
                report.fail(&reason);
                self.quarantine(wanted, consequences);
                self.answers.is_storm().then_some(Stop::Storm(reason))
            }
            PushOutcome::Rejected(reason) => {
                tracing::error!(reason, "APNs will not take pushes like this one");
                report.fail(&reason);
                None
            }
            PushOutcome::TooMany(reason) => {
                self.hold(wanted, Duration::from_secs(60), &reason, consequences, report);
                None
            }
            PushOutcome::Unavailable(reason) => {
                self.hold(wanted, Duration::from_secs(15 * 60), &reason, consequences, report);
                (self.answers.unavailable >= OUTAGE).then_some(Stop::Outage(reason))
            }
            PushOutcome::Misconfigured(reason) => return Some(Stop::Misconfigured(reason)),
            PushOutcome::Unreachable(_) => {
                consequences.unreachable.push((key, wanted));
                return None;
            }
        };
        self.recent.insert(key, pushed);
        consequences.open.remove(&key);
        stop
    }

    /// Those of the devices for which something was held.
    fn unheld(&mut self, wanted: &Wanted) -> Vec<DeviceIdentifier> {
        wanted.devices.iter().filter(|device| self.held.remove(*device).is_some()).cloned().collect()
    }

    /// Holds the push back, for longer each time, and gives it up in the end.
    fn hold(
        &mut self,
        wanted: Wanted,
        first: Duration,
        reason: &str,
        consequences: &mut Consequences,
        report: &mut PushReport,
    ) {
        for device in wanted.devices {
            let before = self.held.remove(&device);
            let attempts = before.as_ref().map_or(0, |push| push.attempts) + 1;
            let bad_since = before.and_then(|push| push.bad_since);
            if attempts >= ATTEMPTS {
                report.fail(reason);
                consequences.unhold.push(device);
                continue;
            }
            report.deferred += 1;
            let pause = jittered((first * 2_u32.pow(attempts - 1)).min(Duration::from_secs(6 * 3_600)));
            let due = Some(SystemTime::now() + pause);
            let push = HeldPush {
                device: device.clone(),
                push_token: wanted.token.clone(),
                due,
                attempts,
                bad_since,
            };
            self.held.insert(device, push.clone());
            consequences.hold.push(push);
        }
    }

    /// A token is called bad also when it is we who are wrong, so a device is given up only when that was so for long.
    fn quarantine(&mut self, wanted: Wanted, consequences: &mut Consequences) {
        let now = SystemTime::now();
        for device in wanted.devices {
            let before = self.held.get(&device).filter(|push| push.push_token == wanted.token);
            let bad_since = before.and_then(|push| push.bad_since).unwrap_or(now);
            if now.duration_since(bad_since).is_ok_and(|time| time >= BAD_FOR) {
                self.suspects.push((device.clone(), bad_since));
            }
            let push_token = wanted.token.clone();
            let push = HeldPush {
                device: device.clone(),
                push_token,
                due: None,
                attempts: 0,
                bad_since: Some(bad_since),
            };
            self.held.insert(device, push.clone());
            consequences.hold.push(push);
        }
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
        let suspects = std::mem::take(&mut self.suspects);
        if suspects.is_empty() || !self.answers.are_trusted() {
            return Ok(());
        }
        report.forgotten += forget(worker, &suspects).await?;
        let devices: Vec<DeviceIdentifier> = suspects.into_iter().map(|(device, _)| device).collect();
        self.held.retain(|device, _| !devices.contains(device));
        worker.queue.unhold(type_id, &devices).await
    }

    /// The reason, in a sentence.
    fn pause(&mut self, why: Stop, type_id: &TypeIdentifier) -> String {
        let doubled = |first: u64, most: u64| Duration::from_secs((first << self.pauses.min(16)).min(most));
        let (time, text) = match why {
            Stop::Misconfigured(reason) => {
                tracing::error!(%type_id, reason, "no push of this type goes out until this is mended");
                (Duration::from_secs(60), reason)
            }
            Stop::Storm(reason) => {
                tracing::error!(
                    %type_id, reason,
                    "every push token is refused: is it the certificate of this type, and the production service?"
                );
                (jittered(doubled(15 * 60, 4 * 3_600)), reason)
            }
            Stop::Outage(reason) => {
                tracing::warn!(%type_id, reason, "the push service has a fault: what is owed waits");
                (jittered(doubled(15 * 60, 4 * 3_600)), reason)
            }
            Stop::Unreachable(reason) => {
                tracing::warn!(%type_id, reason, "the push service can't be reached: what is owed waits");
                (jittered(doubled(1, 60)), reason)
            }
            Stop::LeaseLost => (Duration::ZERO, "another worker sends them".to_owned()),
        };
        self.pauses += 1;
        self.paused_until = Some(Instant::now() + time);
        text
    }
}

#[derive(Debug)]
enum Round {
    Went,
    Over,
    Stopped(Stop),
}

impl Answers {
    fn note(&mut self, outcome: &PushOutcome) {
        if self.all >= WINDOW {
            (self.all, self.sent, self.bad) = (self.all / 2, self.sent / 2, self.bad / 2);
        }
        self.unavailable =
            if matches!(outcome, PushOutcome::Unavailable(_)) { self.unavailable + 1 } else { 0 };
        match outcome {
            PushOutcome::Sent => self.sent += 1,
            PushOutcome::BadToken(_) => self.bad += 1,
            _ => return,
        }
        self.all += 1;
    }

    fn is_storm(&mut self) -> bool {
        let is_storm = self.bad >= STORM && self.sent == 0;
        if is_storm {
            // The next few decide anew.
            *self = Self::default();
        }
        is_storm
    }

    /// Whether tokens that are called bad are so, and it is not all of them.
    fn are_trusted(&self) -> bool {
        let trusted = self.sent > 0 && (self.bad < STORM || self.bad * 5 <= self.all);
        if !trusted {
            tracing::error!(
                bad = self.bad,
                of = self.all,
                "too many push tokens are refused: no device is removed"
            );
        }
        trusted
    }
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

/// Up to a quarter longer, so that not all come again at once.
fn jittered(time: Duration) -> Duration {
    let random = RandomState::new().hash_one(0) % 1_000;
    time + time.mul_f64(random as f64 / 4_000.0)
}
