//! What a run says about each rule.

use super::{CaseReport, Report};
use crate::{Outcome, Rule};

/// The result of a run for one rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// A case that checks the rule passed, and no case found it broken.
    Kept,
    /// A case found the rule broken.
    Broken,
    /// No case that checks the rule passed, and no case found it broken.
    Untried,
}

impl Verdict {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Broken => "broken",
            Self::Untried => "not tried",
        }
    }
}

/// A rule, its verdict, and the results that led to the verdict. For a broken rule, these are the
/// failures. For any other rule, these are the results of all cases that check the rule.
pub(super) struct RuleReport<'a> {
    pub(super) rule: Rule,
    pub(super) verdict: Verdict,
    pub(super) results: Vec<&'a CaseReport>,
}

impl Report {
    /// Returns all rules that the cases check, in the order of [`Rule::ALL`].
    pub(super) fn rules(&self) -> Vec<RuleReport<'_>> {
        Rule::ALL
            .iter()
            .filter_map(|rule| self.rule(*rule))
            .collect()
    }

    /// Returns `None` if no case checks the rule.
    fn rule(&self, rule: Rule) -> Option<RuleReport<'_>> {
        let with = |is: &dyn Fn(&CaseReport) -> bool| -> Vec<&CaseReport> {
            self.results.iter().filter(|result| is(result)).collect()
        };
        let broken = with(&|result| {
            result
                .violation()
                .is_some_and(|violation| violation.rule() == rule)
        });
        if !broken.is_empty() {
            return Some(RuleReport {
                rule,
                verdict: Verdict::Broken,
                results: broken,
            });
        }
        let results = with(&|result| result.case.rules.contains(&rule));
        let is_kept = results
            .iter()
            .any(|result| matches!(result.outcome, Outcome::Pass));
        let verdict = if is_kept {
            Verdict::Kept
        } else {
            Verdict::Untried
        };
        (!results.is_empty()).then_some(RuleReport {
            rule,
            verdict,
            results,
        })
    }

    /// Decides which cases failed and which are blocked.
    ///
    /// If a case found a violation of a rule that the case is not about, the rule blocks the case.
    /// The cases that are about the rule show the fault better. Each broken rule fails at least one
    /// case. If the rule only blocked cases, the first of them becomes a failure.
    pub(crate) fn conclude(&mut self) {
        self.results.iter_mut().for_each(CaseReport::attribute);
        for at in 0..self.results.len() {
            let Outcome::Blocked(violation) = &self.results[at].outcome else {
                continue;
            };
            let rule = violation.rule();
            let fails = |result: &CaseReport| {
                result
                    .violation()
                    .is_some_and(|violation| violation.rule() == rule)
            };
            if self.results.iter().any(fails) {
                continue;
            }
            let outcome = &mut self.results[at].outcome;
            if let Outcome::Blocked(violation) = std::mem::replace(outcome, Outcome::Pass) {
                *outcome = Outcome::Fail(violation);
            }
        }
    }
}

impl CaseReport {
    /// Makes a failed case blocked if it is not about the broken rule.
    pub(crate) fn attribute(&mut self) {
        let outcome = std::mem::replace(&mut self.outcome, Outcome::Pass);
        self.outcome = match outcome {
            Outcome::Fail(violation) if !self.case.is_about(violation.rule()) => {
                Outcome::Blocked(violation)
            }
            outcome => outcome,
        };
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{Case, Level, Violation};

    fn result(id: &'static str, rules: &'static [Rule], outcome: Outcome) -> CaseReport {
        CaseReport {
            case: Case {
                id,
                level: Level::Must,
                rules,
                steps: "",
                consequence: "",
            },
            outcome,
            elapsed: Duration::ZERO,
            transcript: Vec::new(),
        }
    }

    fn broken(rule: Rule) -> Outcome {
        Outcome::Fail(Violation::new(rule, "this", "that"))
    }

    fn concluded(results: Vec<CaseReport>) -> Report {
        let mut report = Report {
            results,
            ..Report::default()
        };
        report.conclude();
        report
    }

    fn outcomes(report: &Report) -> Vec<&str> {
        let outcomes = report.results.iter().map(|one| one.outcome.as_str());
        outcomes.collect()
    }

    #[test]
    fn a_case_is_blocked_by_a_rule_that_it_is_not_about() {
        let report = concluded(vec![
            result("list/a", &[Rule::LIST_3], broken(Rule::REG_1)),
            result("register/a", &[Rule::REG_1], broken(Rule::REG_1)),
            result("trace/a", &[Rule::REG_1], broken(Rule::REG_1)),
            result("list/b", &[Rule::LIST_1], Outcome::Pass),
        ]);
        assert_eq!(outcomes(&report), ["blocked", "fail", "blocked", "pass"]);
        let verdicts: Vec<_> = report
            .rules()
            .iter()
            .map(|one| (one.rule.id(), one.verdict.as_str(), one.results.len()))
            .collect();
        assert_eq!(
            verdicts,
            [
                ("REG-1", "broken", 1),
                ("LIST-1", "kept", 1),
                ("LIST-3", "not tried", 1)
            ]
        );
    }

    #[test]
    fn a_broken_rule_fails_at_least_one_case() {
        let violation = || Violation::new(Rule::REG_1, "this", "that");
        let report = concluded(vec![
            result("list/a", &[Rule::LIST_3], Outcome::Blocked(violation())),
            result("list/b", &[Rule::LIST_1], broken(Rule::REG_1)),
        ]);
        assert_eq!(outcomes(&report), ["fail", "blocked"]);
    }
}
