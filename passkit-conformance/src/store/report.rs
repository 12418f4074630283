use std::{fmt, time::Duration};

use super::{Check, Kept};

/// What came of running some checks. `Display` gives one line for each, breaches in full.
#[derive(Debug, Default)]
pub struct Report {
    results: Vec<CheckResult>,
}

/// What came of one check.
#[derive(Debug)]
#[non_exhaustive]
pub struct CheckResult {
    /// The check.
    pub check: Check,
    /// How long it took.
    pub elapsed: Duration,
    /// Whether the store kept the rules.
    pub kept: Kept,
}

impl Report {
    pub(crate) fn push(&mut self, check: Check, elapsed: Duration, kept: Kept) {
        self.results.push(CheckResult { check, elapsed, kept });
    }

    /// All results, in the order in which the checks ran.
    #[must_use]
    pub fn results(&self) -> &[CheckResult] {
        &self.results
    }

    /// Whether no check found a breach.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.results.iter().all(|result| result.kept.is_ok())
    }

    /// Does nothing if no check found a breach: the last line of a test.
    ///
    /// # Panics
    /// With the whole report if one did.
    pub fn assert_kept(&self) {
        assert!(self.is_kept(), "the store breaks its contract\n{self}");
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for CheckResult { check, elapsed, kept } in &self.results {
            match kept {
                Ok(()) => writeln!(f, "ok      {:>7.1?}  {}", elapsed, check.id())?,
                Err(breach) => writeln!(f, "FAILED  {:>7.1?}  {}\n        {breach}", elapsed, check.id())?,
            }
        }
        let broken = self.results.iter().filter(|result| result.kept.is_err()).count();
        write!(f, "{} checks, {broken} failed", self.results.len())
    }
}
