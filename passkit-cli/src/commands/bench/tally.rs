//! Counts results, and records times in histograms.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hdrhistogram::Histogram;
use passkit_conformance::load::NoAnswer;

/// A call that phones make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Call {
    Register,
    Unregister,
    List,
    Get,
}

impl Call {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Register => "register",
            Self::Unregister => "unregister",
            Self::List => "list",
            Self::Get => "get",
        }
    }
}

/// The reason why a call failed. Calls that failed in the same way have the same text.
#[derive(Debug)]
pub(super) struct Problem(String);

impl Problem {
    pub(super) fn new(words: &str) -> Self {
        Self(words.to_owned())
    }

    /// Makes the problem for a status that is wrong for this call, or wrong in this situation.
    pub(super) fn status(call: Call, status: u16, when: &str) -> Self {
        Self(format!("status {status} on {}{when}", call.name()))
    }

    pub(super) fn no_answer(call: Call, reason: &NoAnswer) -> Self {
        Self(match reason {
            // If no connection could be made, the problem does not depend on the call.
            NoAnswer::Refused | NoAnswer::Unreachable(_) => reason.to_string(),
            NoAnswer::TooSlow => format!("timeout on {}", call.name()),
            NoAnswer::Closed => format!("connection closed on {}", call.name()),
            NoAnswer::TooLong => format!("answer too long on {}", call.name()),
            _ => format!("malformed answer on {}", call.name()),
        })
    }
}

/// Times, recorded with three digits.
#[derive(Default)]
pub(super) struct Times(Option<Histogram<u64>>);

impl Times {
    pub(super) fn add(&mut self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        // A time longer than an hour counts as an hour. With these limits, neither making the
        // histogram nor recording a time can fail.
        if self.0.is_none() {
            self.0 = Histogram::new_with_bounds(1, 3_600_000_000, 3).ok();
        }
        if let Some(histogram) = &mut self.0 {
            histogram.saturating_record(micros);
        }
    }

    pub(super) fn count(&self) -> u64 {
        self.0.as_ref().map_or(0, Histogram::len)
    }

    /// Returns a quantile in milliseconds. Returns `None` if there are no times.
    pub(super) fn quantile(&self, quantile: f64) -> Option<f64> {
        let histogram = self.0.as_ref()?;
        Some(histogram.value_at_quantile(quantile) as f64 / 1000.0)
    }
}

/// The results of a part of the run.
#[derive(Default)]
pub(super) struct Counts {
    /// The times of correct answers, by call and status. Each time is measured from sending the
    /// request to the end of the answer.
    pub(super) calls: BTreeMap<(Call, u16), Times>,
    /// The times of successful visits, measured from when they were due. Visits that never started
    /// count with their waiting time.
    pub(super) visits: Times,
    pub(super) done: u64,
    pub(super) failed: u64,
    pub(super) errors: BTreeMap<String, u64>,
    /// The size in bytes of the bodies of correct answers.
    pub(super) bytes: u64,
}

/// Counts that many callers share.
#[derive(Default)]
pub(super) struct Tally(Mutex<Counts>);

impl Tally {
    pub(super) fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn call(&self, call: Call, status: u16, took: Duration, bytes: usize) {
        let mut counts = self.lock();
        counts.calls.entry((call, status)).or_default().add(took);
        counts.bytes += bytes as u64;
    }

    /// Counts the result of a visit, or of another sequence of calls by a phone.
    pub(super) fn outcome(&self, result: Result<(), Problem>, took: Duration) {
        let mut counts = self.lock();
        match result {
            Ok(()) => {
                counts.done += 1;
                counts.visits.add(took);
            }
            Err(Problem(words)) => {
                counts.failed += 1;
                *counts.errors.entry(words).or_default() += 1;
            }
        }
    }
}
