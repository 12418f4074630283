use std::{fmt, time::Duration};

use crate::{Case, Exchange, Outcome};

/// What came of running some cases. `Display` gives a line for each, what is not well in full.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Report {
    /// All results, in the order in which the cases ran.
    pub results: Vec<CaseResult>,
}

/// What came of one case.
#[derive(Debug)]
#[non_exhaustive]
pub struct CaseResult {
    /// The case.
    pub case: Case,
    /// What came of it.
    pub outcome: Outcome,
    /// How long it took.
    pub elapsed: Duration,
    /// What was sent to a web service and came back, without secrets. Empty for a store.
    pub transcript: Vec<Exchange>,
}

impl Report {
    /// Whether every case passed or was skipped.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.results.iter().all(|result| matches!(result.outcome, Outcome::Pass | Outcome::Skip(_)))
    }

    /// Does nothing if every case passed or was skipped: the last line of a test.
    ///
    /// # Panics
    /// With the whole report if one did not.
    pub fn assert_kept(&self) {
        assert!(self.is_kept(), "not all cases pass\n{self}");
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for CaseResult { case, outcome, elapsed, transcript } in &self.results {
            let word = match outcome {
                Outcome::Pass => "pass",
                Outcome::Fail(_) => "FAIL",
                Outcome::Skip(_) => "skip",
                Outcome::Error(_) => "ERROR",
            };
            writeln!(f, "{word:5}  {:>7.1?}  {}", elapsed, case.id)?;
            match outcome {
                Outcome::Pass => {}
                Outcome::Fail(breach) => {
                    writeln!(f, "       {breach}")?;
                    for exchange in transcript {
                        writeln!(f, "       {}", exchange.to_string().replace('\n', "\n       "))?;
                    }
                }
                Outcome::Skip(reason) | Outcome::Error(reason) => writeln!(f, "       {reason}")?,
            }
        }
        Ok(())
    }
}
