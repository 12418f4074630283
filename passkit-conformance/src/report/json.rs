//! Reports for programs.

use serde::Serialize;

use super::{CaseReport, Counts, Report, verdicts::RuleReport};
use crate::{Exchange, Outcome, Violation};

#[derive(Serialize)]
struct Document<'a> {
    kit: &'a str,
    target: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    level: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<u64>,
    summary: Counts,
    rules: Vec<RuleLine<'a>>,
    cases: Vec<Line<'a>>,
}

#[derive(Serialize)]
struct RuleLine<'a> {
    id: &'a str,
    verdict: &'a str,
    sentence: &'a str,
    source: &'a str,
    link: &'a str,
    fix: &'a str,
    cases: Vec<&'a str>,
}

#[derive(Serialize)]
struct Line<'a> {
    id: &'a str,
    level: &'a str,
    outcome: &'a str,
    rules: Vec<&'a str>,
    message: String,
    steps: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    broken_rule: Option<&'a str>,
    #[serde(flatten)]
    failure: Option<Failure<'a>>,
    seconds: f64,
}

#[derive(Serialize)]
struct Failure<'a> {
    expected: &'a str,
    got: &'a str,
    consequence: &'a str,
    exchange: Vec<Exchanged<'a>>,
}

#[derive(Serialize)]
struct Exchanged<'a> {
    method: &'a str,
    url: String,
    request_headers: &'a [(String, String)],
    request_body: Option<&'a str>,
    status: Option<u16>,
    /// Why there is no complete answer.
    problem: Option<&'a str>,
    response_headers: &'a [(String, String)],
    response_body: &'a str,
    seconds: f64,
}

impl<'a> Exchanged<'a> {
    fn new(exchange: &'a Exchange) -> Self {
        Self {
            method: exchange.method.as_str(),
            url: format!("{}{}", exchange.origin, exchange.path),
            request_headers: &exchange.request_headers,
            request_body: exchange.request_body.as_deref(),
            status: exchange.status.as_ref().ok().copied(),
            problem: exchange.status.as_ref().err().map(String::as_str),
            response_headers: &exchange.response_headers,
            response_body: &exchange.response_body,
            seconds: exchange.elapsed.as_secs_f64(),
        }
    }
}

impl<'a> Line<'a> {
    fn new(result: &'a CaseReport) -> Self {
        Self {
            id: result.case.id,
            level: result.case.level.as_str(),
            outcome: result.outcome.as_str(),
            rules: result.case.rules.iter().map(|rule| rule.id()).collect(),
            message: result.message(),
            steps: result.case.steps,
            broken_rule: match &result.outcome {
                Outcome::Fail(violation) | Outcome::Blocked(violation) => {
                    Some(violation.rule().id())
                }
                _ => None,
            },
            failure: result
                .violation()
                .map(|violation| failure(result, violation)),
            seconds: (result.elapsed.as_secs_f64() * 1e6).round() / 1e6,
        }
    }
}

impl<'a> RuleLine<'a> {
    fn new(one: &RuleReport<'a>) -> Self {
        Self {
            id: one.rule.id(),
            verdict: one.verdict.as_str(),
            sentence: one.rule.sentence(),
            source: one.rule.source(),
            link: one.rule.link(),
            fix: one.rule.fix(),
            cases: one.results.iter().map(|result| result.case.id).collect(),
        }
    }
}

fn failure<'a>(result: &'a CaseReport, violation: &'a Violation) -> Failure<'a> {
    Failure {
        expected: violation.expected(),
        got: violation.actual(),
        consequence: result.consequence(),
        exchange: result.transcript.iter().map(Exchanged::new).collect(),
    }
}

impl Report {
    /// Returns the report as JSON: `{"kit", "target", "level", "seed", "summary": {"pass", "fail",
    /// "blocked", "skip", "error"}, "rules": [{"id", "verdict", "sentence", "source", "link",
    /// "fix", "cases"}], "cases": [{"id", "level", "outcome", "rules", "message", "steps",
    /// "seconds"}]}`.
    ///
    /// `outcome` is `pass`, `fail`, `blocked`, `skip` or `error`. A failed or blocked case has
    /// `broken_rule`. A failed case also has `expected`, `got`, `consequence` and `exchange`, which
    /// shows no secrets.
    #[must_use]
    pub fn json(&self) -> String {
        let rules = self.rules();
        let document = Document {
            kit: env!("CARGO_PKG_VERSION"),
            target: &self.target,
            level: self.level.map(crate::Level::as_str),
            seed: self.seed,
            rules: rules.iter().map(RuleLine::new).collect(),
            summary: self.counts(),
            cases: self.results.iter().map(Line::new).collect(),
        };
        // This can't fail, because all keys are strings and all values are plain.
        serde_json::to_string_pretty(&document).unwrap_or_default() + "\n"
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::report::samples::report;

    #[test]
    fn the_json_has_the_documented_fields() {
        let read: Value = serde_json::from_str(&report().json()).unwrap();
        assert_eq!(
            read["summary"],
            json!({ "pass": 1, "fail": 1, "blocked": 1, "skip": 1, "error": 2 })
        );
        let cases = read["cases"].as_array().unwrap();
        let outcomes: Vec<_> = cases
            .iter()
            .map(|case| case["outcome"].as_str().unwrap())
            .collect();
        assert_eq!(
            outcomes,
            ["pass", "fail", "skip", "error", "blocked", "error"]
        );
        assert_eq!(read["target"], "http://127.0.0.1/{{table}}?<x>");
        assert_eq!(
            (&read["level"], &read["seed"]),
            (&json!("should"), &json!(7))
        );
        assert_eq!(read["kit"], env!("CARGO_PKG_VERSION"));
        let broken: Vec<_> = read["rules"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|rule| rule["verdict"] == "broken")
            .collect();
        assert_eq!(broken.len(), 1);
        assert_eq!(broken[0]["cases"], json!(["list/shape"]));
        assert!(broken[0]["link"].as_str().unwrap().starts_with("https://"));
        assert_eq!(cases[4]["broken_rule"], "LIST-4");
        let failed = &cases[1];
        assert_eq!(failed["id"], "list/shape");
        assert_eq!(failed["level"], "must");
        assert_eq!(failed["rules"], json!(["LIST-4", "LIST-1"]));
        assert_eq!(failed["broken_rule"], "LIST-4");
        assert_eq!(failed["expected"], "an object with \"serialNumbers\"");
        assert_eq!(failed["steps"], "A device asks.");
        assert_eq!(failed["consequence"], "The phone asks forever & ever.");
        assert_eq!(failed["exchange"][0]["status"], 200);
        assert_eq!(
            failed["exchange"][1]["problem"],
            "no complete answer within 1s"
        );
        let message = failed["message"].as_str().unwrap();
        assert!(
            message.starts_with("breaks LIST-4 (the answer is") && message.contains("On a phone: "),
            "{message}"
        );
        assert_eq!(
            (&cases[0]["message"], &cases[3]["message"]),
            (&json!(""), &json!("it rains"))
        );
    }
}
