//! The results of running cases, for people and for programs.

mod badge;
mod html;
mod json;
mod junit;
mod text;
mod verdicts;

use std::time::Duration;

use crate::{Case, Exchange, Level, Outcome, Rule, Violation};

/// The results of some cases. `Display` writes each failure in full, one line for each other case,
/// and a summary.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Report {
    /// All results, in the order in which the cases ran.
    pub results: Vec<CaseReport>,
    /// What was tested: the URL of a web service, or a name.
    pub target: String,
    /// The lowest level of the cases that were run, if one was chosen.
    pub level: Option<Level>,
    /// The seed of the random cases, if `PASSKIT_CONFORMANCE_SEED` or the target sets one. Otherwise,
    /// each failure that depends on a seed names its seed.
    pub seed: Option<u64>,
    /// If the run ended early, the index of the first case that was not run, and the reason.
    stopped: Option<(usize, String)>,
}

/// The result of one case. `Display` writes a failure in full, and any other result in one line.
#[derive(Debug)]
#[non_exhaustive]
pub struct CaseReport {
    /// The case.
    pub case: Case,
    /// The result.
    pub outcome: Outcome,
    /// How long the case took.
    pub elapsed: Duration,
    /// The requests to a web service and its answers, without secrets. Empty for the case of a
    /// store.
    pub transcript: Vec<Exchange>,
}

/// The number of cases by result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Counts {
    /// Passed.
    pub pass: usize,
    /// Broke a rule.
    pub fail: usize,
    /// Could not be tried, because another rule is broken.
    pub blocked: usize,
    /// Did not apply.
    pub skip: usize,
    /// Could not be completed.
    pub error: usize,
}

impl Counts {
    /// The number of all cases.
    #[must_use]
    pub const fn total(self) -> usize {
        self.pass + self.fail + self.blocked + self.skip + self.error
    }

    /// Counts one more case.
    pub fn add(&mut self, outcome: &Outcome) {
        *match outcome {
            Outcome::Pass => &mut self.pass,
            Outcome::Fail(_) => &mut self.fail,
            Outcome::Blocked(_) => &mut self.blocked,
            Outcome::Skip(_) => &mut self.skip,
            Outcome::Error(_) => &mut self.error,
        } += 1;
    }
}

impl Report {
    /// Makes a report of cases that could not be run. `reason` says why.
    #[must_use]
    pub fn not_run(cases: impl IntoIterator<Item = Case>, reason: &str) -> Self {
        let mut report = Self::default();
        report.stop(cases, reason);
        report
    }

    /// Adds cases that were not run. `reason` says why.
    pub(crate) fn stop(&mut self, cases: impl IntoIterator<Item = Case>, reason: &str) {
        self.stopped = Some((self.results.len(), reason.to_owned()));
        self.results
            .extend(cases.into_iter().map(|case| CaseReport {
                case,
                outcome: Outcome::Error(format!("not tried: {reason}")),
                elapsed: Duration::ZERO,
                transcript: Vec::new(),
            }));
    }

    /// Why the run ended early, or `None` if it did not. Each case that was not run is an error
    /// with this reason.
    #[must_use]
    pub fn stopped(&self) -> Option<&str> {
        self.stopped.as_ref().map(|(_, reason)| reason.as_str())
    }

    /// The number of cases by result.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        self.results
            .iter()
            .for_each(|result| counts.add(&result.outcome));
        counts
    }

    /// Returns whether every case passed or was skipped.
    #[must_use]
    pub fn is_passed(&self) -> bool {
        let counts = self.counts();
        counts.fail + counts.blocked + counts.error == 0
    }

    /// Panics unless every case passed or was skipped. Use this method in the last line of a test.
    ///
    /// # Panics
    ///
    /// Panics with the full report if a case failed or could not be completed.
    pub fn assert_passed(&self) {
        assert!(self.is_passed(), "not all cases pass\n{self}");
    }

    /// Groups the results by the part of their id before the slash, in the order of first
    /// appearance.
    fn endpoints(&self) -> Vec<(&'static str, Vec<&CaseReport>)> {
        let mut endpoints: Vec<(&str, Vec<&CaseReport>)> = Vec::new();
        for result in &self.results {
            let endpoint = result.case.endpoint();
            match endpoints.iter_mut().find(|(name, _)| *name == endpoint) {
                Some((_, results)) => results.push(result),
                None => endpoints.push((endpoint, vec![result])),
            }
        }
        endpoints
    }
}

impl CaseReport {
    /// The result in a few lines, for JSON and JUnit. Empty if the case passed.
    fn message(&self) -> String {
        match &self.outcome {
            Outcome::Pass => String::new(),
            Outcome::Fail(violation) => match self.consequence() {
                "" => violation.to_string(),
                consequence => format!("{violation}. On a phone: {consequence}"),
            },
            Outcome::Blocked(violation) => blocked_by(violation.rule()),
            Outcome::Skip(reason) | Outcome::Error(reason) => reason.clone(),
        }
    }

    /// Returns what goes wrong on a phone. Returns an empty text if the case did not fail, or if
    /// the case does not check the broken rule.
    fn consequence(&self) -> &'static str {
        match self.violation() {
            Some(violation) if self.case.rules.contains(&violation.rule()) => self.case.consequence,
            _ => "",
        }
    }

    /// Returns the violation, if the case failed.
    fn violation(&self) -> Option<&Violation> {
        match &self.outcome {
            Outcome::Fail(violation) => Some(violation),
            _ => None,
        }
    }
}

/// Returns the reason of a blocked case.
fn blocked_by(rule: Rule) -> String {
    format!("blocked by {rule}: {}", rule.sentence())
}

impl Outcome {
    /// `pass`, `fail`, `blocked`, `skip` or `error`.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail(_) => "fail",
            Self::Blocked(_) => "blocked",
            Self::Skip(_) => "skip",
            Self::Error(_) => "error",
        }
    }
}

impl Case {
    /// The group of the case: the part of the id before the slash, such as `register` or `queue`.
    #[must_use]
    pub fn endpoint(&self) -> &'static str {
        self.id
            .split_once('/')
            .map_or(self.id, |(endpoint, _)| endpoint)
    }
}

#[cfg(test)]
pub(crate) mod samples {
    //! A report with texts that could break its format, because a service may send any text.

    use std::time::Duration;

    use http::Method;

    use super::{CaseReport, Report};
    use crate::{Case, Exchange, Level, Outcome, Rule, Violation};

    const fn case(id: &'static str, level: Level, rules: &'static [Rule]) -> Case {
        Case {
            id,
            level,
            rules,
            steps: "A device asks.",
            consequence: "The phone asks forever & ever.",
        }
    }

    pub(crate) fn report() -> Report {
        let exchange = Exchange {
            method: Method::GET,
            origin: "http://127.0.0.1:8080".into(),
            path: "/v1/devices/<device 1>/registrations/pass.com.example.a?passesUpdatedSince=5"
                .into(),
            request_headers: vec![("authorization".into(), "ApplePass <token>".into())],
            request_body: None,
            status: Ok(200),
            response_headers: vec![("content-type".into(), "text/html".into())],
            response_body: "<script>alert(1)</script>\u{1b}[31m ]]> \u{0}".into(),
            elapsed: Duration::from_micros(1_250),
        };
        let silent = Exchange {
            status: Err("no complete answer within 1s".into()),
            ..exchange.clone()
        };
        let violation = Violation::new(
            Rule::LIST_4,
            "an object with \"serialNumbers\"",
            "<script>alert(1)</script>\u{1b}[31m ]]> \u{0}\nand more",
        );
        let result = |case, outcome, transcript| CaseReport {
            case,
            outcome,
            elapsed: Duration::from_millis(12),
            transcript,
        };
        let mut report = Report {
            results: vec![
                result(
                    case("register/new-pass-is-201", Level::Must, &[Rule::REG_1]),
                    Outcome::Pass,
                    vec![],
                ),
                result(
                    case("list/shape", Level::Must, &[Rule::LIST_4, Rule::LIST_1]),
                    Outcome::Fail(violation),
                    vec![exchange, silent],
                ),
                result(
                    case("list/quiet", Level::Should, &[Rule::LIST_2]),
                    Outcome::Skip("needs a way to change a pass".into()),
                    vec![],
                ),
                result(
                    case("get/date", Level::Advisory, &[Rule::GET_1]),
                    Outcome::Error("it rains".into()),
                    vec![],
                ),
                result(
                    case("list/later", Level::Must, &[Rule::LIST_10]),
                    Outcome::Blocked(Violation::new(Rule::LIST_4, "this", "<that>")),
                    vec![],
                ),
            ],
            target: "http://127.0.0.1/{{table}}?<x>".into(),
            level: Some(Level::Should),
            seed: Some(7),
            stopped: None,
        };
        report.stop(
            [case("log/odd", Level::Should, &[Rule::LOG_2])],
            "three cases got no answer",
        );
        report
    }
}
