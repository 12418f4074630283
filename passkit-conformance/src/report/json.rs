//! Reports for programs.

use serde::Serialize;

use super::{Counts, Report};

#[derive(Serialize)]
struct Document<'a> {
    summary: Counts,
    cases: Vec<Line<'a>>,
}

#[derive(Serialize)]
struct Line<'a> {
    id: &'a str,
    level: &'a str,
    outcome: &'a str,
    rules: Vec<&'a str>,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    broken_rule: Option<&'a str>,
    seconds: f64,
}

impl Report {
    /// Returns the report as JSON: `{"summary": {"pass", "fail", "skip", "error"}, "cases": [{"id",
    /// "level", "outcome", "rules", "message", "seconds"}]}`. A failed case also has `broken_rule`.
    #[must_use]
    pub fn json(&self) -> String {
        let line = |result: &'_ super::CaseReport| Line {
            id: result.case.id,
            level: result.case.level.as_str(),
            outcome: result.outcome.as_str(),
            rules: result.case.rules.iter().map(|rule| rule.id()).collect(),
            message: result.message(),
            broken_rule: result.violation().map(|violation| violation.rule().id()),
            seconds: (result.elapsed.as_secs_f64() * 1e6).round() / 1e6,
        };
        let document = Document {
            summary: self.counts(),
            cases: self.results.iter().map(line).collect(),
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
            json!({ "pass": 1, "fail": 1, "skip": 1, "error": 2 })
        );
        let cases = read["cases"].as_array().unwrap();
        let outcomes: Vec<_> = cases
            .iter()
            .map(|case| case["outcome"].as_str().unwrap())
            .collect();
        assert_eq!(outcomes, ["pass", "fail", "skip", "error", "error"]);
        let failed = &cases[1];
        assert_eq!(failed["id"], "list/shape");
        assert_eq!(failed["level"], "must");
        assert_eq!(failed["rules"], json!(["LIST-4", "LIST-1"]));
        assert_eq!(failed["broken_rule"], "LIST-4");
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
