//! Decides what to do after an answer from the push service.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    hash::{BuildHasher as _, RandomState},
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use super::{
    queue::DeferredPush,
    recent::{Pushed, Recent, TokenKey},
    report::{PushReport, Stopped},
    sender::PushOutcome,
};
use crate::{
    delivery::PushFailure,
    identifiers::{DeviceIdentifier, PushToken, TypeIdentifier},
};

/// How long a token must be reported as bad before its device is removed.
const BAD_FOR: Duration = Duration::from_secs(24 * 3_600);
/// If APNs has never accepted a push with these credentials, and calls this many tokens bad, then
/// the credentials may be wrong.
const SUSPICIOUS: u32 = 5;
/// If a type has this many deferred pushes, none is added for a bad token. Anyone can register bad
/// tokens.
const MOST_DEFERRED: usize = 100_000;
/// This many 5xx answers in a row count as an outage.
const OUTAGE: u32 = 20;
/// A deferred push is dropped after this many tries. For 5xx answers, that is after about a day.
const ATTEMPTS: u32 = 8;

/// The actions that the answers of a round require.
#[derive(Debug, Default)]
pub(super) struct Actions {
    /// Devices to forget, with the time when their push tokens went out of use.
    pub(super) forget: Vec<(DeviceIdentifier, SystemTime)>,
    /// Deferred pushes to set or to remove.
    pub(super) defer: Vec<(DeviceIdentifier, Option<DeferredPush>)>,
    pub(super) unreachable: Vec<(TokenKey, Delivery)>,
    /// Why the last push in `unreachable` got no answer.
    pub(super) unreachable_because: String,
    /// The tokens without an answer.
    pub(super) open: HashSet<TokenKey>,
    /// The tokens that were reported as bad.
    pub(super) bad: HashSet<TokenKey>,
}

/// Why all pushes of a type must wait.
#[derive(Debug)]
pub(super) enum Stop {
    Misconfigured(String),
    /// Every token is bad, and APNs has never accepted a push with these credentials.
    AllRefused(String),
    Outage(String),
    Unreachable(String),
    ClaimLost,
}

impl Stop {
    /// Returns the failure that stopped the pushes, and its reason.
    pub(super) fn failure(&self) -> Option<(PushFailure, &str)> {
        match self {
            Self::Misconfigured(reason) => Some((PushFailure::Misconfigured, reason)),
            Self::AllRefused(reason) => Some((PushFailure::BadToken, reason)),
            Self::Outage(reason) => Some((PushFailure::Unavailable, reason)),
            Self::Unreachable(reason) => Some((PushFailure::Unreachable, reason)),
            Self::ClaimLost => None,
        }
    }
}

/// What is known about the tokens of a type and about the push service.
#[derive(Debug, Default)]
pub(super) struct Feedback {
    pub(super) recent: Recent,
    pub(super) deferred: HashMap<DeviceIdentifier, DeferredPush>,
    /// How often the type paused since the last accepted push.
    pauses: u32,
    /// How many tokens were bad since the last accepted push.
    refused: u32,
    pub(super) refused_because: String,
    /// The last reason of each kind of failure.
    pub(super) reasons: HashMap<PushFailure, String>,
    /// How many 5xx answers came in a row.
    unavailable: u32,
    /// When a push was last accepted.
    sent_at: Option<SystemTime>,
    /// How many pushes the service will never accept, by reason. The counts are logged and then set
    /// to 0.
    rejected: BTreeMap<String, u64>,
    rejected_logged: Option<Instant>,
    /// Devices whose token has been reported as bad for at least [`BAD_FOR`], with the time of the
    /// first report.
    suspects: Vec<(DeviceIdentifier, SystemTime)>,
}

/// A push to send, and the devices that it is for.
#[derive(Debug)]
pub(super) struct Delivery {
    pub(super) token: PushToken,
    pub(super) devices: Vec<DeviceIdentifier>,
    /// The newest change that the push covers. `None` for a deferred push alone.
    pub(super) version: Option<u64>,
}

impl Feedback {
    /// Adds the actions that an answer requires to `actions`. Returns a reason if the type must
    /// wait.
    pub(super) fn take(
        &mut self,
        key: TokenKey,
        delivery: Delivery,
        at: Instant,
        outcome: PushOutcome,
        actions: &mut Actions,
        report: &mut PushReport,
    ) -> Option<Stop> {
        let failure = outcome.failure();
        let mut pushed = Pushed {
            at,
            gone: None,
            failure: failure.map(|(failure, _)| failure),
        };
        if let Some((failure, reason)) = failure
            && self
                .reasons
                .get(&failure)
                .is_none_or(|known| known != reason)
        {
            self.reasons.insert(failure, reason.to_owned());
        }
        self.unavailable = if matches!(outcome, PushOutcome::Unavailable(_)) {
            self.unavailable + 1
        } else {
            0
        };
        let stop = match outcome {
            PushOutcome::Sent => {
                report.sent += 1;
                self.pauses = 0;
                self.refused = 0;
                self.sent_at = Some(SystemTime::now());
                self.end_deferral(&delivery, actions);
                None
            }
            PushOutcome::Gone(since) => {
                // With a date in the future, a device that registers before that date would be
                // removed.
                let since = since.min(SystemTime::now());
                pushed.gone = Some(since);
                self.end_deferral(&delivery, actions);
                actions
                    .forget
                    .extend(delivery.devices.into_iter().map(|device| (device, since)));
                None
            }
            PushOutcome::BadToken(reason) => {
                report.fail(&reason);
                actions.bad.insert(key);
                self.quarantine(delivery, actions);
                self.refused = self.refused.saturating_add(1);
                self.refused_because = reason;
                None
            }
            PushOutcome::Rejected(reason) => {
                report.fail(&reason);
                *self.rejected.entry(reason).or_default() += 1;
                None
            }
            PushOutcome::Unsupported => {
                report.unsupported += delivery.devices.len() as u64;
                self.end_deferral(&delivery, actions);
                None
            }
            PushOutcome::TooMany(reason) => {
                self.defer(delivery, Duration::from_secs(60), &reason, actions, report);
                None
            }
            PushOutcome::Unavailable(reason) => {
                self.defer(
                    delivery,
                    Duration::from_secs(15 * 60),
                    &reason,
                    actions,
                    report,
                );
                (self.unavailable >= OUTAGE).then_some(Stop::Outage(reason))
            }
            PushOutcome::Misconfigured(reason) => return Some(Stop::Misconfigured(reason)),
            PushOutcome::Unreachable(reason) => {
                actions.unreachable_because = reason;
                actions.unreachable.push((key, delivery));
                return None;
            }
        };
        self.recent.insert(key, pushed);
        actions.open.remove(&key);
        stop
    }

    fn end_deferral(&mut self, delivery: &Delivery, actions: &mut Actions) {
        let deferred = delivery
            .devices
            .iter()
            .filter(|device| self.deferred.remove(*device).is_some());
        actions
            .defer
            .extend(deferred.map(|device| (device.clone(), None)));
    }

    /// Defers the push. The pause gets longer each time, and the push is dropped after the last
    /// try.
    pub(super) fn defer(
        &mut self,
        delivery: Delivery,
        first: Duration,
        reason: &str,
        actions: &mut Actions,
        report: &mut PushReport,
    ) {
        for device in delivery.devices {
            let before = self.deferred.remove(&device);
            let attempts = before.as_ref().map_or(0, |push| push.attempts) + 1;
            let bad_since = before.and_then(|push| push.bad_since);
            if attempts >= ATTEMPTS {
                report.fail(reason);
                actions.defer.push((device, None));
                continue;
            }
            report.deferred += 1;
            let pause =
                jittered((first * 2_u32.pow(attempts - 1)).min(Duration::from_secs(6 * 3_600)));
            let due = Some(SystemTime::now() + pause);
            let push = DeferredPush {
                push_token: delivery.token.clone(),
                due,
                attempts,
                bad_since,
            };
            self.deferred.insert(device.clone(), push.clone());
            actions.defer.push((device, Some(push)));
        }
    }

    /// Notes that the token is reported as bad. APNs also reports this if the fault is ours. So a
    /// device is removed only if its token stays bad for a long time.
    fn quarantine(&mut self, delivery: Delivery, actions: &mut Actions) {
        let now = SystemTime::now();
        for device in delivery.devices {
            let before = self
                .deferred
                .get(&device)
                .filter(|push| push.push_token == delivery.token);
            if before.is_none() && self.deferred.len() >= MOST_DEFERRED {
                continue;
            }
            let bad_since = before.and_then(|push| push.bad_since).unwrap_or(now);
            if now
                .duration_since(bad_since)
                .is_ok_and(|time| time >= BAD_FOR)
            {
                self.suspects.push((device.clone(), bad_since));
            }
            let push = DeferredPush {
                push_token: delivery.token.clone(),
                due: None,
                attempts: 0,
                bad_since: Some(bad_since),
            };
            self.deferred.insert(device.clone(), push.clone());
            actions.defer.push((device, Some(push)));
        }
    }

    /// Empties the list of devices whose token has been bad for a long time, and returns the
    /// devices to remove. A device is removed only if another push was accepted after its token was
    /// first reported as bad, because then our credentials are not at fault.
    pub(super) fn suspects(&mut self) -> Vec<(DeviceIdentifier, SystemTime)> {
        let sent_at = self.sent_at;
        let mut suspects = std::mem::take(&mut self.suspects);
        suspects.retain(|(_, bad_since)| sent_at.is_some_and(|sent_at| sent_at > *bad_since));
        suspects
    }

    /// Returns a reason to stop if these answers suggest that the credentials are wrong. Call this
    /// method only while APNs has never accepted a push with the credentials. Otherwise, a stranger
    /// who registers bad tokens could stop the pushes of a type.
    pub(super) fn all_refused(&self, actions: &Actions) -> Option<Stop> {
        (self.refused >= SUSPICIOUS && !actions.bad.is_empty())
            .then(|| Stop::AllRefused(self.refused_because.clone()))
    }

    /// Logs how many pushes were rejected. It logs at most once a minute, or at once if `now` is
    /// set.
    pub(super) fn log_rejected(&mut self, type_id: &TypeIdentifier, now: bool) {
        let due = self
            .rejected_logged
            .is_none_or(|logged| logged.elapsed() >= Duration::from_secs(60));
        if self.rejected.is_empty() || !(now || due) {
            return;
        }
        self.rejected_logged = Some(Instant::now());
        for (reason, count) in std::mem::take(&mut self.rejected) {
            tracing::error!(%type_id, reason, count, "the push service rejects pushes like these");
        }
    }

    /// Returns how long the type waits, and what to report.
    pub(super) fn pause(&mut self, why: Stop, type_id: &TypeIdentifier) -> (Duration, Stopped) {
        let doubled =
            |first: u64, most: u64| Duration::from_secs((first << self.pauses.min(16)).min(most));
        let (time, text) = match why {
            Stop::Misconfigured(reason) => {
                tracing::error!(%type_id, reason, "no pushes of this type are sent until this is fixed");
                (Duration::from_secs(60), reason)
            }
            Stop::AllRefused(reason) => {
                tracing::error!(
                    %type_id, reason,
                    "every push token is refused, and APNs has never accepted a push with these credentials: check that the certificate is for this type, and that pushes go to the production service"
                );
                (jittered(doubled(15 * 60, 4 * 3_600)), reason)
            }
            Stop::Outage(reason) => {
                tracing::warn!(%type_id, reason, "the push service failed: pending pushes wait");
                (jittered(doubled(15 * 60, 4 * 3_600)), reason)
            }
            Stop::Unreachable(reason) => {
                tracing::warn!(%type_id, reason, "the push service can't be reached: pending pushes wait");
                (jittered(doubled(1, 60)), reason)
            }
            Stop::ClaimLost => return (Duration::ZERO, Stopped::Elsewhere),
        };
        self.pauses += 1;
        (time, Stopped::Refused(text))
    }
}

/// Adds up to a quarter of the time, so that retries are spread out.
fn jittered(time: Duration) -> Duration {
    let random = RandomState::new().hash_one(0) % 1_000;
    time + time.mul_f64(random as f64 / 4_000.0)
}
