//! Reports for a terminal.

use std::fmt::{self, Write as _};

use super::{CaseReport, Counts, Report, verdicts::Verdict};
use crate::{Outcome, Violation};

/// The width of a terminal line without the labels on its left.
const WIDTH: usize = 96;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tried = self
            .stopped
            .as_ref()
            .map_or(self.results.len(), |(tried, _)| *tried);
        self.results
            .iter()
            .take(tried)
            .try_for_each(|result| write!(f, "{result}"))?;
        if let Some((_, reason)) = &self.stopped {
            writeln!(
                f,
                "ERROR  {} not tried: {}",
                self.results.len() - tried,
                printable(reason)
            )?;
        }
        write!(f, "{}", self.verdicts())?;
        writeln!(f, "{}", self.counts())
    }
}

impl Report {
    /// Returns the broken rules with advice, and the rules that were not tried.
    pub(crate) fn verdicts(&self) -> String {
        let rules = self.rules();
        let of = |verdict| rules.iter().filter(move |one| one.verdict == verdict);
        let counts = [Verdict::Kept, Verdict::Broken, Verdict::Untried]
            .map(|verdict| format!("{} {}", of(verdict).count(), verdict.as_str()));
        let mut text = format!("\nrules: {}\n", counts.join(", "));
        let mut part = |name: &str, content: &str| {
            let _ = writeln!(text, "  {name:10}  {}", wrapped(content));
        };
        for one in of(Verdict::Broken) {
            let found: Vec<_> = one.results.iter().map(|result| result.case.id).collect();
            part("broken", &format!("{}: {}", one.rule, one.rule.sentence()));
            part("fix", one.rule.fix());
            part("see", one.rule.link());
            part("found by", &found.join(", "));
        }
        let untried: Vec<_> = of(Verdict::Untried).map(|one| one.rule.id()).collect();
        if !untried.is_empty() {
            part("not tried", &untried.join(", "));
        }
        text.push('\n');
        text
    }
}

impl CaseReport {
    /// The line of the case. If the case was skipped or not completed, the line says why.
    pub(crate) fn line(&self) -> String {
        let word = match self.outcome {
            Outcome::Pass => "pass",
            Outcome::Fail(_) => "FAIL",
            Outcome::Blocked(_) => "blocked",
            Outcome::Skip(_) => "skip",
            Outcome::Error(_) => "ERROR",
        };
        let mut line = format!(
            "{word:7}  {:>8}  {}",
            format!("{:.1?}", self.elapsed),
            self.case.id
        );
        match &self.outcome {
            Outcome::Pass => {}
            Outcome::Fail(violation) => {
                let _ = write!(line, ": breaks {}", violation.rule());
            }
            Outcome::Blocked(violation) => {
                let _ = write!(line, ": by {}", violation.rule());
            }
            Outcome::Skip(reason) | Outcome::Error(reason) => {
                let _ = write!(line, ": {}", printable(reason));
            }
        }
        line
    }

    /// All details of a failure, or `None` if the case did not fail.
    pub(crate) fn failure(&self) -> Option<String> {
        self.violation().map(|violation| self.explained(violation))
    }

    fn explained(&self, violation: &Violation) -> String {
        let rule = violation.rule();
        let mut text = format!("FAIL  {} ({})\n", self.case.id, self.case.level);
        let mut part = |name: &str, content: &str| {
            if !content.is_empty() {
                let _ = writeln!(text, "  {name:10}  {}", wrapped(&printable(content)));
            }
        };
        part("rule", &format!("{rule}: {}", rule.sentence()));
        part("source", rule.source());
        part("see", rule.link());
        part("fix", rule.fix());
        part("expected", violation.expected());
        part("got", violation.actual());
        part("steps", self.case.steps);
        part("on a phone", self.consequence());
        if !self.transcript.is_empty() {
            text.push_str("  sent and got\n");
        }
        for exchange in &self.transcript {
            for line in exchange.to_string().lines() {
                let _ = writeln!(text, "    {}", printable(line));
            }
        }
        text
    }
}

impl fmt::Display for CaseReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.failure() {
            Some(failure) => write!(f, "{failure}"),
            None => writeln!(f, "{}", self.line()),
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            pass,
            fail,
            blocked,
            skip,
            error,
        } = *self;
        let total = self.total();
        let cases = if total == 1 { "case" } else { "cases" };
        write!(
            f,
            "{total} {cases}: {pass} passed, {fail} failed, {blocked} blocked, {skip} skipped, {error} errors"
        )?;
        if skip == total {
            f.write_str("; nothing was tested, all were skipped")?;
        }
        Ok(())
    }
}

/// Replaces characters that could move a terminal's cursor.
pub(super) fn printable(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c.is_control() && c != '\n' {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect()
}

/// Wraps a text. All lines but the first are indented to the right of the labels.
fn wrapped(text: &str) -> String {
    let mut lines = Vec::new();
    for paragraph in text.lines() {
        let mut line = String::new();
        for word in paragraph.split(' ') {
            if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > WIDTH {
                lines.push(std::mem::take(&mut line));
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        lines.push(line);
    }
    lines.join("\n              ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples::report;

    #[test]
    fn a_failure_shows_everything_that_helps() {
        let text = report().to_string();
        for expected in [
            "FAIL  list/shape (must)",
            "LIST-4: the answer is an object",
            "Apple, Get the List of Updatable Passes",
            "expected    an object with \"serialNumbers\"",
            "got         <script>",
            "steps       A device asks.",
            "on a phone  The phone asks forever & ever.",
            "GET http://127.0.0.1:8080/v1/devices/<device 1>",
            "< 200 in 1.2",
            "< no answer in",
            "list/quiet: needs a way to change a pass",
            "get/date: it rains",
            "blocked    12.0ms  list/later: by LIST-4",
            "ERROR  1 not tried: three cases got no answer",
            "rules: 1 kept, 1 broken, 5 not tried",
            "  broken      LIST-4: the answer is an object",
            "  fix         send an object with serialNumbers",
            "  see         https://developer.apple.com/documentation/walletpasses/get-the-list-of-updatable-passes",
            "  found by    list/shape\n",
            "6 cases: 1 passed, 1 failed, 1 blocked, 1 skipped, 2 errors\n",
        ] {
            assert!(text.contains(expected), "{expected:?} is not in\n{text}");
        }
        assert!(
            !text.chars().any(|c| c.is_control() && c != '\n'),
            "{text:?}"
        );
    }

    #[test]
    fn a_run_that_tested_nothing_says_so() {
        let mut report = report();
        report
            .results
            .retain(|result| matches!(result.outcome, Outcome::Skip(_)));
        assert!(
            report
                .counts()
                .to_string()
                .ends_with("nothing was tested, all were skipped")
        );
        assert!(report.is_passed());
    }

    #[test]
    fn long_texts_are_wrapped() {
        assert!(
            wrapped(&"many words ".repeat(40))
                .lines()
                .all(|line| line.len() < WIDTH + 15)
        );
    }
}
