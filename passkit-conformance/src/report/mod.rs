//! The results of running cases, for people and for programs.

mod badge;
mod html;
mod json;
mod junit;
mod text;
mod verdicts;

use std::time::Duration;

use crate::{Case, Exchange, Level, Outcome, Rule, Violation};

/// The results of some cases. `Display` gives a line for each, failures in full, and a summary.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Report {
    /// All results, in the order in which the cases ran.
    pub results: Vec<CaseReport>,
    /// What was tested: the URL of a web service, or a name.
    pub target: String,
    /// The level below which cases were left out, if one was chosen.
    pub level: Option<Level>,
    /// The seed of a store's random cases, if `PASSKIT_CONFORMANCE_SEED` set it. A failure that
    /// depends on one names it.
    pub seed: Option<u64>,
    /// The index of the first case that was not run, and the reason, if the run ended early.
    stopped: Option<(usize, String)>,
}

/// The result of one case. `Display` gives a line, and more if the case did not pass.
#[derive(Debug)]
#[non_exhaustive]
pub struct CaseReport {
    /// The case.
    pub case: Case,
    /// The result.
    pub outcome: Outcome,
    /// How long it took.
    pub elapsed: Duration,
    /// The requests to a web service and its answers, without secrets. Empty for a store.
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
    /// All of them.
    #[must_use]
    pub const fn total(self) -> usize {
        self.pass + self.fail + self.blocked + self.skip + self.error
    }

    /// Adds one.
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
    /// A report of cases that could not be run, for this reason.
    #[must_use]
    pub fn not_run(cases: impl IntoIterator<Item = Case>, reason: &str) -> Self {
        let mut report = Self::default();
        report.stop(cases, reason);
        report
    }

    /// Adds cases that are not run, for this reason.
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

    /// Why the last cases were not run, if the run ended early. Each of them is an error with this
    /// reason.
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

    /// Whether every case passed or was skipped.
    #[must_use]
    pub fn is_passed(&self) -> bool {
        let counts = self.counts();
        counts.fail + counts.blocked + counts.error == 0
    }

    /// Does nothing if every case passed or was skipped. Use it as the last line of a test.
    ///
    /// # Panics
    ///
    /// With the full report if a case failed or could not be completed.
    pub fn assert_passed(&self) {
        assert!(self.is_passed(), "not all cases pass\n{self}");
    }

    /// The results grouped by the part of their id before the slash, in order of first appearance.
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
    /// The result in one or a few lines, for a program to keep. Empty if the case passed.
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

    /// What a phone suffers. Empty if the case did not fail, or stumbled over a rule that it does
    /// not check.
    fn consequence(&self) -> &'static str {
        match self.violation() {
            Some(violation) if self.case.rules.contains(&violation.rule()) => self.case.consequence,
            _ => "",
        }
    }

    /// How the case failed, if it did.
    fn violation(&self) -> Option<&Violation> {
        match &self.outcome {
            Outcome::Fail(violation) => Some(violation),
            _ => None,
        }
    }
}

/// Why a case was not tried.
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
    /// What the case is about: the part of the id before the slash.
    #[must_use]
    pub fn endpoint(&self) -> &'static str {
        self.id
            .split_once('/')
            .map_or(self.id, |(endpoint, _)| endpoint)
    }
}

#[cfg(test)]
pub(crate) mod samples {
    //! A report full of texts that could break its format, because a service may send any text.

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
