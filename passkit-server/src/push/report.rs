use std::{collections::BTreeMap, fmt};

/// The results of pushes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PushReport {
    /// How many pushes were accepted.
    pub sent: u64,
    /// How many registrations needed no push, because another push to the same token covers them.
    pub coalesced: u64,
    /// How many devices were removed because their push tokens went out of use.
    pub forgotten: u64,
    /// How many pushes were deferred.
    pub deferred: u64,
    /// How many devices have a push token that the sender does not support.
    pub unsupported: u64,
    /// How many pushes failed for this change, by reason.
    pub failed: BTreeMap<String, u64>,
    /// Why the remaining pushes wait, if any do.
    pub stopped: Option<Stopped>,
}

/// Why pending pushes were not sent now.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stopped {
    /// Another publisher sends them.
    Elsewhere,
    /// The [sender](crate::push::PushSender) has no credentials for a type.
    NoCredentials,
    /// The push service refused the pushes, or could not be reached. The text is the reason that
    /// the service gave, or a short description.
    Refused(String),
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Elsewhere => f.write_str("another publisher sends them"),
            Self::NoCredentials => f.write_str("there are no credentials for the type"),
            Self::Refused(reason) => f.write_str(reason),
        }
    }
}

impl PushReport {
    pub(super) fn fail(&mut self, reason: &str) {
        *self.failed.entry(reason.to_owned()).or_default() += 1;
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.sent += other.sent;
        self.coalesced += other.coalesced;
        self.forgotten += other.forgotten;
        self.deferred += other.deferred;
        self.unsupported += other.unsupported;
        for (reason, count) in &other.failed {
            *self.failed.entry(reason.clone()).or_default() += count;
        }
        if other.stopped.is_some() {
            self.stopped.clone_from(&other.stopped);
        }
    }
}

/// One line, such as `3 sent, 1 coalesced, 2 failed (BadDeviceToken)`.
impl fmt::Display for PushReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} sent", self.sent)?;
        let counts = [
            (self.coalesced, "coalesced"),
            (self.forgotten, "devices forgotten"),
            (self.deferred, "deferred"),
            (self.unsupported, "not reachable by APNs"),
        ];
        for (count, what) in counts.into_iter().filter(|(count, _)| *count > 0) {
            write!(f, ", {count} {what}")?;
        }
        let failed: u64 = self.failed.values().sum();
        if failed > 0 {
            let reasons: Vec<&str> = self.failed.keys().map(String::as_str).collect();
            write!(f, ", {failed} failed ({})", reasons.join(", "))?;
        }
        if let Some(reason) = &self.stopped {
            write!(f, ", the rest waits ({reason})")?;
        }
        Ok(())
    }
}
