//! The worker of one type. It works in rounds. In each round, the worker reads a page of devices
//! for each pending change.
//!
//! A push covers every change that was seen before the push started. A page of a change is done
//! when each of its tokens has a push that started after the current version of the change was
//! seen.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, SystemTime},
};

use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream};
use tokio::time::Instant;
use tracing::Instrument as _;

use super::{
    context::{Context, PushConfig},
    deliveries,
    feedback::{Actions, Delivery, Feedback, Stop},
    queue::{DeferredPush, PendingChange, Progress, Scope},
    recent::{Recent, TokenKey},
    report::{PushReport, Stopped},
    sender::PushOutcome,
};
use crate::{
    PassId,
    delivery::DeliveryRecorder,
    identifiers::{DeviceIdentifier, TypeIdentifier},
    store::{Audience, RegisteredDevice, StoreError},
    traced,
};

/// The maximum number of pending changes that a round handles.
const CHANGES: usize = 256;
/// The approximate maximum of devices that a round handles.
const DEVICES: usize = 20_000;
/// The smallest and the largest limit of a page of devices.
const PAGE: (usize, usize) = (100, 5_000);
/// The first page of a change is short, so that its first push is sent soon.
const FIRST_PAGE: usize = 500;
/// Until APNs has accepted a push with the credentials, this many devices of each change get a push
/// per round.
const PROBE: usize = 5;
/// While every push token is refused, other changes are tried after this pause.
const PROBE_PAUSE: Duration = Duration::from_secs(10);
/// How many store calls a round makes at the same time.
const STORE_CALLS: usize = 16;

/// A bad token is forgotten after this time without a push.
const BAD_UNTIL: Duration = Duration::from_secs(180 * 24 * 3_600);

/// What the worker knows about its type between two calls.
#[derive(Debug, Default)]
pub(super) struct TypeWorker {
    seen: HashMap<Scope, Seen>,
    feedback: Feedback,
    /// Until then, no other publisher can claim the type.
    claimed_until: Option<Instant>,
    paused_until: Option<Instant>,
    /// The credentials with which a push of this type is known to have been accepted.
    proven: Option<String>,
    /// The changes in `refused` wait until this time. It is set if every token was refused, and
    /// APNs has never accepted a push with these credentials.
    suspect_until: Option<Instant>,
    /// Changes whose tokens were all refused, with their versions. Other changes are still tried,
    /// because strangers can register bad tokens for their own passes.
    refused: HashMap<Scope, u64>,
    /// A round started and did not end, because the store failed or the caller dropped the future.
    in_round: bool,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    version: u64,
    at: Instant,
    /// The change waits until then, because some of its devices got a push a moment ago.
    waits_until: Option<Instant>,
}

/// A page of the devices that a pending change covers.
struct DevicesOfChange {
    change: PendingChange,
    devices: Vec<RegisteredDevice>,
    progress: Progress,
}

impl TypeWorker {
    /// Sends all due pushes. Returns when to continue, if pushes are left.
    pub(super) async fn send_due(
        &mut self,
        context: &Context,
        type_id: &TypeIdentifier,
        report: &mut PushReport,
    ) -> Result<Option<Instant>, StoreError> {
        if !context.sender.covers(type_id) {
            report.stopped = Some(Stopped::NoCredentials);
            return Ok(Some(Instant::now() + context.config.poll));
        }
        if let Some(until) = self.paused_until {
            if until > Instant::now() {
                return Ok(Some(until));
            }
            self.paused_until = None;
        }
        if self
            .suspect_until
            .is_some_and(|until| until <= Instant::now())
        {
            self.end_suspicion();
        }
        if self.in_round {
            // The last round may not have stored the deferred pushes that are in memory.
            *self = Self::default();
        }
        if self.seen.is_empty()
            && let Some(then) = Instant::now().checked_sub(context.config.spacing)
        {
            self.feedback.recent.clear_if_older(then);
        }
        if !self.claim(context, type_id).await? {
            report.stopped = Some(Stopped::Elsewhere);
            return Ok(Some(Instant::now() + context.config.poll));
        }
        let stopped = loop {
            if !self.claim(context, type_id).await? {
                break Some(Stop::ClaimLost);
            }
            let mut this = PushReport::default();
            let round = self.round(context, type_id, &mut this).await;
            context.count(&this);
            report.add(&this);
            match round? {
                Round::Continued => {}
                Round::Done => break None,
                Round::Stopped(why) => break Some(why),
            }
        };
        self.feedback.log_rejected(type_id, true);
        self.forget_suspects(context, type_id, report).await?;
        if let Some(why) = stopped {
            if !matches!(why, Stop::ClaimLost) {
                // Another worker may have a better certificate or network.
                self.set_claim(context, type_id, Duration::ZERO).await?;
            }
            self.stop(why, type_id, report);
        } else if self.suspect_until.is_some() {
            // Another worker may have better credentials.
            self.set_claim(context, type_id, Duration::ZERO).await?;
            self.paused_until = Some(Instant::now() + PROBE_PAUSE);
        } else if self.seen.is_empty() {
            // The claim keeps other processes from sending pushes too soon after the pushes of this
            // process.
            self.set_claim(context, type_id, context.config.spacing)
                .await?;
        }
        Ok(self.next())
    }

    /// Returns when this worker has its next known work.
    fn next(&self) -> Option<Instant> {
        let waiting = self.seen.values().filter_map(|seen| seen.waits_until).min();
        let deferred = self
            .feedback
            .deferred
            .values()
            .filter_map(|push| push.due)
            .min();
        let deferred = deferred.map(|due| {
            Instant::now()
                + due
                    .duration_since(SystemTime::now())
                    .unwrap_or(Duration::ZERO)
        });
        let next = waiting.into_iter().chain(deferred).min();
        self.paused_until.or(next)
    }

    /// Claims the type. Renews the claim after a third of its time.
    async fn claim(
        &mut self,
        context: &Context,
        type_id: &TypeIdentifier,
    ) -> Result<bool, StoreError> {
        let time = context.config.lease;
        let now = Instant::now();
        if self
            .claimed_until
            .is_some_and(|until| until > now + time * 2 / 3)
        {
            return Ok(true);
        }
        let is_new = self.claimed_until.is_none_or(|until| until <= now);
        if !self.set_claim(context, type_id, time).await? {
            return Ok(false);
        }
        if is_new {
            self.feedback.deferred = deferred(context, type_id).await?;
        }
        Ok(true)
    }

    async fn set_claim(
        &mut self,
        context: &Context,
        type_id: &TypeIdentifier,
        time: Duration,
    ) -> Result<bool, StoreError> {
        let now = Instant::now();
        self.claimed_until = None;
        if time.is_zero() {
            context
                .queue
                .release(&claim_name(type_id), &context.name)
                .await?;
            return Ok(true);
        }
        let is_ours = context
            .queue
            .claim(&claim_name(type_id), &context.name, time)
            .await?;
        // This time is a little shorter than the store granted, because clocks run at different
        // speeds.
        self.claimed_until = is_ours.then(|| now + time * 9 / 10);
        Ok(is_ours)
    }

    /// Releases the type, so that other publishers can claim it at once.
    pub(super) async fn release(
        &mut self,
        context: &Context,
        type_id: &TypeIdentifier,
    ) -> Result<(), StoreError> {
        if self.claimed_until.is_some() {
            self.set_claim(context, type_id, Duration::ZERO).await?;
        }
        Ok(())
    }

    async fn round(
        &mut self,
        context: &Context,
        type_id: &TypeIdentifier,
        report: &mut PushReport,
    ) -> Result<Round, StoreError> {
        let changes = context.queue.pending(type_id, CHANGES).await?;
        let now = Instant::now();
        self.see(&changes, now);
        let ready: Vec<PendingChange> = changes
            .into_iter()
            .filter(|change| {
                self.seen[&change.scope]
                    .waits_until
                    .is_none_or(|until| until <= now)
            })
            .filter(|change| {
                // While the credentials are suspect, a change whose tokens were all refused waits.
                self.refused.get(&change.scope) != Some(&change.version)
            })
            .collect();
        let due: Vec<(DeviceIdentifier, DeferredPush)> = {
            let time = SystemTime::now();
            let deferred = self.feedback.deferred.iter();
            let due = deferred.filter(|(_, push)| push.due.is_some_and(|due| due <= time));
            due.map(|(device, push)| (device.clone(), push.clone()))
                .collect()
        };
        if ready.is_empty() && due.is_empty() {
            return Ok(Round::Done);
        }

        self.in_round = true;
        let credentials = context.sender.credentials(type_id);
        let is_proven = self.is_proven(context, type_id, &credentials).await?;
        let limit = if is_proven {
            (DEVICES / ready.len().max(1)).clamp(PAGE.0, PAGE.1)
        } else {
            PROBE
        };
        let pages: Vec<DevicesOfChange> = stream::iter(ready)
            .map(|change| read_page(context, type_id, change, limit).boxed())
            .buffered(STORE_CALLS)
            .try_collect()
            .await?;
        let mut actions = Actions::default();
        let deliveries = self.deliveries(&pages, due, &context.config, &mut actions, report);
        let stop = self
            .push(context, type_id, deliveries, &mut actions, report)
            .await?;
        let may_be_wrong = !is_proven && report.sent == 0;
        let stop = stop.or_else(|| self.feedback.all_refused(&actions).filter(|_| may_be_wrong));

        // A change is done only after its actions are stored, so the actions come first.
        self.carry_out(context, type_id, &mut actions, report)
            .await?;
        if report.sent > 0 && !is_proven {
            self.prove(context, type_id, credentials).await?;
        }
        if matches!(stop, Some(Stop::AllRefused(_))) {
            // These devices get another push after the fault is fixed.
            actions.open.extend(actions.bad.drain());
        }
        let is_open = |page: &DevicesOfChange| {
            let mut keys = page
                .devices
                .iter()
                .map(|device| self.feedback.recent.key(&device.push_token));
            keys.any(|key| actions.open.contains(&key))
        };
        let unfinished: HashMap<Scope, u64> = pages
            .iter()
            .filter(|page| is_open(page))
            .map(|page| (page.change.scope.clone(), page.change.version))
            .collect();
        if let (Some(recorder), Some(stop)) = (&context.recorder, &stop) {
            let changes = pages
                .iter()
                .map(|page| (&page.change.scope, page.progress.version));
            deliveries::record_stop(recorder, type_id, changes, stop);
        }
        let done: Vec<DevicesOfChange> = pages
            .into_iter()
            .filter(|page| {
                self.seen
                    .get(&page.change.scope)
                    .is_none_or(|seen| seen.waits_until.is_none())
            })
            .filter(|page| !unfinished.contains_key(&page.change.scope))
            .collect();
        let progress: Vec<(Scope, Progress)> = done
            .iter()
            .map(|page| (page.change.scope.clone(), page.progress.clone()))
            .collect();
        context.queue.record_progress(type_id, &progress).await?;
        if let Some(recorder) = &context.recorder {
            done.iter()
                .for_each(|page| self.record_page(recorder, type_id, page));
        }
        if matches!(stop, Some(Stop::AllRefused(_))) {
            self.refused.extend(unfinished);
            // Nothing was accepted, so no earlier push covers a later change.
            self.feedback.recent = Recent::default();
        }
        self.in_round = false;
        Ok(stop.map_or(Round::Continued, Round::Stopped))
    }

    /// Records the pushes to the devices of a page that is done.
    fn record_page(
        &self,
        recorder: &DeliveryRecorder,
        type_id: &TypeIdentifier,
        page: &DevicesOfChange,
    ) {
        let scope = &page.change.scope;
        let seen = self.seen.get(scope).map(|seen| seen.at);
        let recent = &self.feedback.recent;
        let pushes = page
            .devices
            .iter()
            .filter_map(|device| recent.get(recent.key(&device.push_token)))
            .filter(|push| seen.is_none_or(|seen| push.at >= seen));
        let Progress { version, next } = &page.progress;
        let change = (scope, *version, next.is_none());
        deliveries::record_page(recorder, type_id, change, pushes, &self.feedback.reasons);
    }

    /// Returns whether a push of the type was ever accepted with these credentials, from any
    /// instance.
    async fn is_proven(
        &mut self,
        context: &Context,
        type_id: &TypeIdentifier,
        credentials: &str,
    ) -> Result<bool, StoreError> {
        if self.proven.as_deref() == Some(credentials) {
            return Ok(true);
        }
        let note = context.queue.note(&note_name(type_id, credentials)).await?;
        if note.is_some() {
            self.proven = Some(credentials.to_owned());
            self.end_suspicion();
        }
        Ok(note.is_some())
    }

    /// Notes that a push was accepted with these credentials.
    async fn prove(
        &mut self,
        context: &Context,
        type_id: &TypeIdentifier,
        credentials: String,
    ) -> Result<(), StoreError> {
        if context.sender.credentials(type_id) != credentials {
            // The credentials changed meanwhile, so it is unknown with which ones the push was
            // accepted.
            return Ok(());
        }
        let name = note_name(type_id, &credentials);
        // If another instance was faster, it set the same note.
        context.queue.replace_note(&name, None, Some("yes")).await?;
        self.proven = Some(credentials);
        self.end_suspicion();
        Ok(())
    }

    fn end_suspicion(&mut self) {
        self.suspect_until = None;
        self.refused.clear();
    }

    /// Pauses the type.
    fn stop(&mut self, why: Stop, type_id: &TypeIdentifier, report: &mut PushReport) {
        let now = Instant::now();
        let all_refused = matches!(why, Stop::AllRefused(_));
        if all_refused && self.suspect_until.is_some() {
            report.stopped = Some(Stopped::Refused(self.feedback.refused_because.clone()));
        } else {
            let (time, reason) = self.feedback.pause(why, type_id);
            report.stopped = Some(reason);
            self.paused_until = Some(now + time);
            self.suspect_until = all_refused.then_some(now + time);
        }
        if all_refused {
            self.paused_until = Some(now + PROBE_PAUSE);
        }
    }

    /// Records when each change was first seen with its current version.
    fn see(&mut self, changes: &[PendingChange], now: Instant) {
        let pending: HashSet<&Scope> = changes.iter().map(|change| &change.scope).collect();
        self.seen.retain(|known, _| pending.contains(known));
        for change in changes {
            let fresh = Seen {
                version: change.version,
                at: now,
                waits_until: None,
            };
            let seen = self.seen.entry(change.scope.clone()).or_insert(fresh);
            if seen.version != change.version {
                *seen = Seen {
                    waits_until: seen.waits_until,
                    ..fresh
                };
            }
        }
    }

    /// Returns the pushes to send: one for each token that no earlier push covers. Tokens whose
    /// spacing is not over are left out.
    fn deliveries(
        &mut self,
        pages: &[DevicesOfChange],
        due: Vec<(DeviceIdentifier, DeferredPush)>,
        config: &PushConfig,
        actions: &mut Actions,
        report: &mut PushReport,
    ) -> HashMap<TokenKey, Delivery> {
        let now = Instant::now();
        let time = SystemTime::now();
        let mut deliveries: HashMap<TokenKey, Delivery> = HashMap::new();
        for (device, DeferredPush { push_token, .. }) in due {
            let delivery = deliveries.entry(self.feedback.recent.key(&push_token));
            delivery
                .or_insert(Delivery {
                    token: push_token,
                    devices: Vec::new(),
                    version: None,
                })
                .devices
                .push(device);
        }
        for DevicesOfChange {
            change, devices, ..
        } in pages
        {
            let Some(seen) = self.seen.get_mut(&change.scope) else {
                continue;
            };
            seen.waits_until = None;
            for RegisteredDevice { device, push_token } in devices {
                let key = self.feedback.recent.key(push_token);
                if let Some(delivery) = deliveries.get_mut(&key) {
                    report.coalesced += 1;
                    delivery.devices.push(device.clone());
                    delivery.version = delivery.version.max(Some(change.version));
                    continue;
                }
                let deferred = self
                    .feedback
                    .deferred
                    .get(device)
                    .filter(|push| push.push_token == *push_token);
                let waits = deferred.is_some_and(|push| push.due.is_some_and(|due| due > time));
                match self.feedback.recent.get(key) {
                    Some(pushed) if pushed.at >= seen.at => {
                        report.coalesced += 1;
                        actions
                            .forget
                            .extend(pushed.gone.map(|gone| (device.clone(), gone)));
                    }
                    _ if waits => report.coalesced += 1,
                    Some(pushed) if pushed.at + config.spacing > now => {
                        seen.waits_until = seen.waits_until.max(Some(pushed.at + config.spacing));
                    }
                    _ => {
                        let (token, devices) = (push_token.clone(), vec![device.clone()]);
                        deliveries.insert(
                            key,
                            Delivery {
                                token,
                                devices,
                                version: Some(change.version),
                            },
                        );
                    }
                }
            }
        }
        deliveries
    }

    async fn push(
        &mut self,
        context: &Context,
        type_id: &TypeIdentifier,
        deliveries: HashMap<TokenKey, Delivery>,
        actions: &mut Actions,
        report: &mut PushReport,
    ) -> Result<Option<Stop>, StoreError> {
        actions.open = deliveries.keys().copied().collect();
        let mut answers = stream::iter(deliveries)
            .map(|(key, delivery)| {
                async move {
                    let at = Instant::now();
                    let Delivery {
                        token,
                        devices,
                        version,
                    } = &delivery;
                    let span = traced::push(type_id, token, devices, *version);
                    let outcome = context
                        .sender
                        .push(type_id, token)
                        .instrument(span.clone())
                        .await;
                    traced::pushed(&span, &outcome);
                    (key, delivery, at, outcome)
                }
                .boxed()
            })
            .buffer_unordered(context.config.concurrency.max(1));
        let (mut answered, mut stop) = (false, None);
        loop {
            // The claim is renewed while pushes are sent, because they may take long.
            let keep = self.claimed_until.map_or(Duration::ZERO, |until| {
                until
                    .saturating_duration_since(Instant::now())
                    .saturating_sub(context.config.lease / 2)
            });
            let next = tokio::select! {
                next = answers.next() => next,
                () = tokio::time::sleep(keep) => {
                    if self.claim(context, type_id).await? {
                        continue;
                    }
                    stop = Some(Stop::ClaimLost);
                    break;
                }
            };
            let Some((key, delivery, at, outcome)) = next else {
                break;
            };
            if let Some(recorder) = &context.recorder
                && let Some((failure, reason)) = outcome.failure()
            {
                let version = delivery.version.unwrap_or_default();
                let devices = &delivery.devices;
                recorder.push_failed(type_id, devices, failure, version, reason);
            }
            answered |= !matches!(
                outcome,
                PushOutcome::Unreachable(_) | PushOutcome::Unsupported
            );
            stop = self
                .feedback
                .take(key, delivery, at, outcome, actions, report);
            if stop.is_some() {
                break;
            }
        }
        drop(answers);
        if !answered && stop.is_none() && !actions.unreachable.is_empty() {
            return Ok(Some(Stop::Unreachable(std::mem::take(
                &mut actions.unreachable_because,
            ))));
        }
        // The service answered other pushes, so the fault is with these pushes alone.
        if stop.is_none() {
            for (key, delivery) in std::mem::take(&mut actions.unreachable) {
                actions.open.remove(&key);
                self.feedback.defer(
                    delivery,
                    Duration::from_secs(30),
                    "no answer",
                    actions,
                    report,
                );
            }
        }
        Ok(stop)
    }

    async fn carry_out(
        &mut self,
        context: &Context,
        type_id: &TypeIdentifier,
        actions: &mut Actions,
        report: &mut PushReport,
    ) -> Result<(), StoreError> {
        report.forgotten += forget(context, type_id, &actions.forget).await?;
        context.queue.defer(type_id, &actions.defer).await
    }

    async fn forget_suspects(
        &mut self,
        context: &Context,
        type_id: &TypeIdentifier,
        report: &mut PushReport,
    ) -> Result<(), StoreError> {
        let suspects = self.feedback.suspects();
        if suspects.is_empty() {
            return Ok(());
        }
        let forgotten = forget(context, type_id, &suspects).await?;
        report.forgotten += forgotten;
        context.count(&PushReport {
            forgotten,
            ..PushReport::default()
        });
        let ended: Vec<_> = suspects
            .into_iter()
            .map(|(device, _)| (device, None))
            .collect();
        for (device, _) in &ended {
            self.feedback.deferred.remove(device);
        }
        context.queue.defer(type_id, &ended).await
    }
}

#[derive(Debug)]
enum Round {
    /// The round did some work, and more may be left.
    Continued,
    Done,
    Stopped(Stop),
}

/// Returns the name of a note. The note exists if a push of the type was accepted with these
/// credentials.
fn note_name(type_id: &TypeIdentifier, credentials: &str) -> String {
    format!("delivered:{type_id}:{credentials}")
}

/// The name of the claim on the pushes of a type.
fn claim_name(type_id: &TypeIdentifier) -> String {
    format!("pushes:{type_id}")
}

async fn deferred(
    context: &Context,
    type_id: &TypeIdentifier,
) -> Result<HashMap<DeviceIdentifier, DeferredPush>, StoreError> {
    let mut all = HashMap::new();
    let mut after = None;
    loop {
        let page = context
            .queue
            .deferred(type_id, after.as_ref(), 1_000)
            .await?;
        let (current, old): (Vec<_>, Vec<_>) = page.items.into_iter().partition(|(_, push)| {
            let bad_for = push
                .bad_since
                .and_then(|since| SystemTime::now().duration_since(since).ok());
            push.due.is_some() || bad_for.is_some_and(|time| time < BAD_UNTIL)
        });
        all.extend(current);
        let old: Vec<_> = old.into_iter().map(|(device, _)| (device, None)).collect();
        context.queue.defer(type_id, &old).await?;
        after = page.next;
        if after.is_none() {
            return Ok(all);
        }
    }
}

async fn read_page(
    context: &Context,
    type_id: &TypeIdentifier,
    change: PendingChange,
    limit: usize,
) -> Result<DevicesOfChange, StoreError> {
    let (version, after) = match &change.progress {
        Some(progress) => (progress.version, progress.next.clone()),
        None => (change.version, None),
    };
    let limit = if after.is_none() {
        limit.min(FIRST_PAGE)
    } else {
        limit
    };
    let page = match &change.scope {
        Scope::Pass(serial) => {
            let pass = PassId {
                type_id: type_id.clone(),
                serial: serial.clone(),
            };
            context
                .queue
                .devices(Audience::Pass(&pass), after.as_ref(), limit)
                .await?
        }
        Scope::Type => {
            context
                .queue
                .devices(Audience::Type(type_id), after.as_ref(), limit)
                .await?
        }
    };
    Ok(DevicesOfChange {
        change,
        devices: page.items,
        progress: Progress {
            version,
            next: page.next,
        },
    })
}

/// Removes devices. Returns how many were removed.
async fn forget(
    context: &Context,
    type_id: &TypeIdentifier,
    devices: &[(DeviceIdentifier, SystemTime)],
) -> Result<u64, StoreError> {
    let mut calls = stream::iter(devices.to_vec())
        .map(|(device, since)| {
            async move {
                let removed = context.queue.forget_device(&device, since).await?;
                if let (true, Some(recorder)) = (removed, &context.recorder) {
                    recorder.left(type_id, &device);
                }
                Ok::<_, StoreError>(removed)
            }
            .boxed()
        })
        .buffer_unordered(STORE_CALLS);
    let mut count = 0;
    while let Some(removed) = calls.next().await {
        count += u64::from(removed?);
    }
    Ok(count)
}
