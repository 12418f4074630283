//! What is known about a pass, its phones and its pushes.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use jiff::Timestamp;
use passkit_archive::ChangeSummary;
use passkit_server::{
    PassId,
    delivery::{Complaint, Denial, PushFailure},
    identifiers::{DeviceIdentifier, TypeIdentifier},
    store::clock,
};
use sha2::{Digest as _, Sha256};

use super::content::Content;

/// The clocks of instances and of the store may differ by this much.
pub(super) const SKEW: Duration = Duration::from_secs(2);

/// A moment, in microseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Time(pub(crate) u64);

impl Time {
    pub(crate) fn now() -> Self {
        Self(clock::now_micros())
    }

    pub(crate) fn of(time: SystemTime) -> Self {
        Self(clock::micros(time))
    }

    pub(crate) fn plus(self, time: Duration) -> Self {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(micros))
    }

    /// Returns how long before `later` this moment was.
    pub(crate) fn until(self, later: Self) -> Duration {
        Duration::from_micros(later.0.saturating_sub(self.0))
    }
}

/// Writes a time such as `2026-11-28 09:41:00 UTC`.
impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = i64::try_from(self.0 / 1_000_000).unwrap_or(i64::MAX);
        match Timestamp::from_second(time) {
            Ok(time) => write!(f, "{}", time.strftime("%Y-%m-%d %H:%M:%S UTC")),
            Err(_) => f.write_str("an impossible time"),
        }
    }
}

/// How often something happened, and when it last happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) at: Time,
    pub(crate) count: u64,
    /// The version of the pass that the event was about. 0 if the event was not about a version.
    pub(crate) version: u64,
    /// More about the last time. The text may come from a stranger, and must be escaped.
    pub(crate) detail: String,
}

/// The number of phones that are registered for the pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Registrations {
    pub(crate) count: usize,
    /// Whether there may be more, because counting stopped at a limit.
    pub(crate) or_more: bool,
}

impl fmt::Display for Registrations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let more = if self.or_more { " or more" } else { "" };
        write!(f, "{}{more}", self.count)
    }
}

/// What is known about a pass.
#[derive(Clone, Debug)]
pub(crate) struct PassFacts {
    pub(crate) id: PassId,
    /// When the facts were read.
    pub(crate) now: Time,
    /// The version that the pass got at its last change. 0 if the store knows of no change. A
    /// version is also the time of the change.
    pub(crate) version: u64,
    /// The digest of the content that was published last, if the source publishes contents.
    pub(crate) published: Option<[u8; 32]>,
    /// Whether the pass is no longer offered.
    pub(crate) removed: bool,
    pub(crate) registrations: Registrations,
    /// The fetches of the newest version that was fetched.
    pub(crate) fetched: Option<Seen>,
    /// The fetches that were answered 304, for the newest version with such an answer.
    pub(crate) unchanged: Option<Seen>,
    pub(crate) refused: Vec<(Denial, Seen)>,
    pub(crate) complaints: Vec<(Complaint, Seen)>,
    pub(crate) pushes: Pushes,
    /// What the archive says, if it was given.
    pub(crate) content: Option<Content>,
    /// When the content last changed. The detail says what changed.
    pub(crate) content_changed: Option<Seen>,
    /// What changed with the newest version, if that is recorded.
    pub(crate) recorded_changes: Option<ChangeSummary>,
}

impl PassFacts {
    /// Returns when the pass last changed, if it ever did.
    pub(crate) fn changed_at(&self) -> Option<Time> {
        (self.version > 0).then_some(Time(self.version))
    }

    /// Returns the last refused request.
    pub(crate) fn last_refused(&self) -> Option<&(Denial, Seen)> {
        self.refused.iter().max_by_key(|(_, seen)| seen.at)
    }

    /// Returns the fetches of the newest version, and the answers 304 about it.
    pub(crate) fn of_newest(&self) -> [Option<&Seen>; 2] {
        [&self.fetched, &self.unchanged]
            .map(|seen| seen.as_ref().filter(|seen| seen.version >= self.version))
    }

    /// Returns what changed with the newest version, if that is known.
    pub(crate) fn changes(&self) -> Option<&ChangeSummary> {
        let compared = self
            .content
            .as_ref()
            .and_then(|content| content.changes.as_ref());
        compared.or(self.recorded_changes.as_ref())
    }

    /// Returns whether anything is recorded about the pass since its last change.
    pub(crate) fn has_records(&self) -> bool {
        let since = |seen: &Seen| seen.at.0 >= self.version;
        let pushes = &self.pushes;
        self.refused.iter().any(|(_, seen)| since(seen))
            || pushes.failed.iter().any(|(_, seen)| since(seen))
            || [
                &self.fetched,
                &self.unchanged,
                &pushes.accepted,
                &pushes.ended,
            ]
            .into_iter()
            .flatten()
            .any(since)
    }
}

/// What is known about the pushes of the last change.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pushes {
    pub(crate) pending: Pending,
    /// The accepted pushes of the newest version that has any. The count is the number of devices.
    pub(crate) accepted: Option<Seen>,
    /// The failed pushes, each with the newest version that failed in this way.
    pub(crate) failed: Vec<(PushFailure, Seen)>,
    /// The newest version whose pushes ended, and when they ended.
    pub(crate) ended: Option<Seen>,
    /// Whether all deferred pushes of the type were read.
    pub(crate) knows_deferred: bool,
}

/// Whether pushes of the pass are waiting to be sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Pending {
    #[default]
    No,
    /// The pushes are pending. Some of them may already be sent.
    Yes { begun: bool },
    /// The pass was not found among the first pending changes, but there are more.
    Unknown,
}

/// What is known about a phone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Phone {
    /// A short digest of the device identifier.
    pub(crate) name: String,
    /// When it last registered for a pass of the type.
    pub(crate) registered: Option<Time>,
    /// When it last asked which passes changed.
    pub(crate) asked: Option<Time>,
    /// When it was last told that passes of the type changed.
    pub(crate) told: Option<Time>,
    pub(crate) knows: Knows,
    /// The last push to this phone that failed.
    pub(crate) failure: Option<(PushFailure, Seen)>,
    /// A push that will be tried again.
    pub(crate) deferred: Option<Deferred>,
}

impl Phone {
    /// Returns a time since which the phone has had an older version. Returns `None` if the phone
    /// was told of the newest version, or if that is unknown.
    pub(crate) fn behind_since(&self, pass: &PassFacts) -> Option<Time> {
        match self.knows {
            Knows::Older => pass.changed_at(),
            Knows::Newest { .. } | Knows::Unknown => None,
        }
    }
}

/// What a phone was told about the pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Knows {
    /// It was told of the newest version, at this time if that is known.
    Newest { told_at: Option<Time> },
    /// It was told of an older version, or of none.
    Older,
    /// No request of the phone is recorded.
    Unknown,
}

/// A push that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Deferred {
    /// When it is tried again. `None` if it waits for the next change.
    pub(crate) due: Option<Time>,
    pub(crate) attempts: u32,
}

/// Returns a name for a device that does not reveal its identifier, which is a secret. The name is
/// the same in every run, and differs for each type.
pub(crate) fn name_of(type_id: &TypeIdentifier, device: &DeviceIdentifier) -> String {
    let mut hash = Sha256::new();
    hash.update(b"passkit device\0");
    hash.update(type_id.as_str());
    hash.update(b"\0");
    hash.update(device.as_str());
    let digest = hash.finalize();
    digest[..4]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_for_people() {
        assert_eq!(
            Time(1_795_858_861_999_999).to_string(),
            "2026-11-28 09:41:01 UTC"
        );
        assert_eq!(Time(u64::MAX).to_string(), "an impossible time");
    }

    #[test]
    fn the_name_of_a_device_is_short_and_stable_and_hides_it() {
        let type_id = TypeIdentifier::new("pass.com.example.named").unwrap();
        let other = TypeIdentifier::new("pass.com.example.other").unwrap();
        let device = |text| DeviceIdentifier::new(text).unwrap();
        let name = name_of(&type_id, &device("5ec2e7"));
        assert_eq!(name, name_of(&type_id, &device("5ec2e7")));
        assert_eq!(name.len(), 8);
        assert_ne!(name, name_of(&type_id, &device("5ec2e8")));
        assert_ne!(name, name_of(&other, &device("5ec2e7")));
        assert!(!name.contains("5ec2e7"));
    }
}
