//! What the answer to a push asks for.

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasher as _, RandomState},
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use super::{
    queue::HeldPush,
    recent::{Pushed, Recent, TokenKey},
    report::{PushReport, Stopped},
    sender::PushOutcome,
};
use crate::{DeviceIdentifier, PushToken, TypeIdentifier};

/// How long a token must be called bad before the device is given up.
const BAD_FOR: Duration = Duration::from_secs(24 * 3_600);
/// So many bad tokens in a row, and no good one, are taken for a fault of ours.
const STORM: u32 = 5;
/// The answers that the share of bad tokens is taken of.
const WINDOW: u32 = 1_000;
/// So many 5xx in a row are taken for an outage.
const OUTAGE: u32 = 20;
/// After so many attempts a held push is given up: about a day for 5xx.
const ATTEMPTS: u32 = 8;

/// The latest answers.
#[derive(Debug, Default)]
struct Answers {
    all: u32,
    sent: u32,
    bad: u32,
    /// 5xx in a row.
    unavailable: u32,
}

/// What the answers of a round ask for, and which tokens have none yet.
#[derive(Debug, Default)]
pub(super) struct Consequences {
    pub(super) forget: Vec<(DeviceIdentifier, SystemTime)>,
    pub(super) hold: Vec<HeldPush>,
    pub(super) unhold: Vec<DeviceIdentifier>,
    pub(super) unreachable: Vec<(TokenKey, Wanted)>,
    pub(super) open: HashSet<TokenKey>,
}

/// Why a type has to wait as a whole.
#[derive(Debug)]
pub(super) enum Stop {
    Misconfigured(String),
    Storm(String),
    Outage(String),
    Unreachable(String),
    LeaseLost,
}

/// What is known of the tokens of a type, and of the service that they are pushed through.
#[derive(Debug, Default)]
pub(super) struct Judge {
    pub(super) recent: Recent,
    pub(super) held: HashMap<DeviceIdentifier, HeldPush>,
    /// Pauses since the last push that was accepted.
    pauses: u32,
    answers: Answers,
    /// Devices whose token was called bad now and long ago.
    suspects: Vec<(DeviceIdentifier, SystemTime)>,
}

/// A push to be sent, and the devices that it is for.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) token: PushToken,
    pub(super) devices: Vec<DeviceIdentifier>,
    /// The newest of the changes that it is owed for; `None` if it was held back.
    pub(super) version: Option<u64>,
}

impl Judge {
    /// Notes what an answer asks for.
    pub(super) fn judge(
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
    pub(super) fn hold(
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

    /// Devices whose token was called bad now and long ago, if that is to be believed.
    pub(super) fn suspects(&mut self) -> Vec<(DeviceIdentifier, SystemTime)> {
        let suspects = std::mem::take(&mut self.suspects);
        if suspects.is_empty() || self.answers.are_trusted() { suspects } else { Vec::new() }
    }

    /// For how long, and why.
    pub(super) fn pause(&mut self, why: Stop, type_id: &TypeIdentifier) -> (Duration, Stopped) {
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
            Stop::LeaseLost => return (Duration::ZERO, Stopped::Elsewhere),
        };
        self.pauses += 1;
        (time, Stopped::Refused(text))
    }
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

/// Up to a quarter longer, so that not all come again at once.
fn jittered(time: Duration) -> Duration {
    let random = RandomState::new().hash_one(0) % 1_000;
    time + time.mul_f64(random as f64 / 4_000.0)
}
