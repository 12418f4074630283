//! Reports as an HTML page that needs no other file.

use std::{fmt::Write as _, time::Duration, time::SystemTime};

use super::{CaseReport, Counts, Report, blocked_by, verdicts::Verdict};
use crate::{Outcome, Rule, Violation};

const PAGE: &str = include_str!("page.html");

impl Report {
    /// Returns the report as a complete HTML page.
    #[must_use]
    pub fn html(&self) -> String {
        filled(PAGE, |name| match name {
            "title" => escaped(&format!("{}: {}", self.headline(), self.target)),
            "headline" => escaped(&self.headline()),
            "tested" => escaped(&self.target),
            "level" => self
                .level
                .map_or_else(String::new, |level| format!(" · level {level}")),
            "seed" => self
                .seed
                .map_or_else(String::new, |seed| format!(" · seed {seed}")),
            "date" => httpdate::fmt_http_date(SystemTime::now()),
            "time" => seconds(self.results.iter().map(|result| result.elapsed).sum()),
            "summary" => self.counts().to_string(),
            "bar" => bar(self.counts()),
            "counts" => numbers(self.counts()),
            "stopped" => self.stopped().map(stopped).unwrap_or_default(),
            "failures" => self.failures(),
            "blocked" => self.reasons("Blocked by a broken rule", |outcome| match outcome {
                Outcome::Blocked(violation) => Some(blocked_by(violation.rule())),
                _ => None,
            }),
            "errors" => self.reasons("Could not be tried", |outcome| match outcome {
                Outcome::Error(reason) => Some(reason.clone()),
                _ => None,
            }),
            "skips" => self.reasons("Skipped", |outcome| match outcome {
                Outcome::Skip(reason) => Some(reason.clone()),
                _ => None,
            }),
            "rules" => self.verdict_table(),
            "table" => self.table(),
            "version" => env!("CARGO_PKG_VERSION").to_owned(),
            _ => String::new(),
        })
    }

    fn headline(&self) -> String {
        let Counts {
            pass, fail, error, ..
        } = self.counts();
        let cases = |count: usize| {
            if count == 1 {
                "1 case".to_owned()
            } else {
                format!("{count} cases")
            }
        };
        match (fail, error, pass) {
            (0, 0, 0) => "Nothing was tested".to_owned(),
            (0, 0, _) => "Conforms".to_owned(),
            (0, _, 0) => "Could not be tested".to_owned(),
            (0, _, _) => format!("Not all could be tested: {} left open", cases(error)),
            _ => format!("Does not conform: {} failed", cases(fail)),
        }
    }

    fn failures(&self) -> String {
        let mut failed: Vec<_> = self
            .results
            .iter()
            .filter_map(|result| Some((result, result.violation()?)))
            .collect();
        failed.sort_by_key(|(result, _)| result.case.level);
        let cards: String = failed
            .into_iter()
            .map(|(result, violation)| card(result, violation))
            .collect();
        if cards.is_empty() {
            cards
        } else {
            format!("{}<h2>Failures</h2>\n{cards}", self.broken_rules())
        }
    }

    /// Lists each broken rule with the cases that found it. The rule with the most cases comes
    /// first.
    fn broken_rules(&self) -> String {
        let mut broken = self.rules();
        broken.retain(|one| one.verdict == Verdict::Broken);
        broken.sort_by_key(|one| std::cmp::Reverse(one.results.len()));
        let mut entries = String::new();
        for one in &broken {
            let links: Vec<_> = one.results.iter().map(|result| link(result)).collect();
            let _ = writeln!(
                entries,
                "<li><p><b>{}</b> {}</p><p>How to fix it: {}.</p><span class=\"quiet\">{}</span></li>",
                page_of(one.rule),
                escaped(&capitalised(one.rule.sentence())),
                escaped(one.rule.fix()),
                links.join(", ")
            );
        }
        format!(
            "<h2>Broken rules</h2>\n<div class=\"sheet\"><ul class=\"reasons\">\n{entries}</ul></div>\n"
        )
    }

    /// Lists the cases for which `reason_of` returns a reason, grouped by reason.
    fn reasons(&self, heading: &str, reason_of: impl Fn(&Outcome) -> Option<String>) -> String {
        let mut reasons: Vec<(String, Vec<String>)> = Vec::new();
        for result in &self.results {
            let Some(reason) = reason_of(&result.outcome) else {
                continue;
            };
            let id = format!("<code>{}</code>", escaped(result.case.id));
            match reasons.iter_mut().find(|(known, _)| *known == reason) {
                Some((_, ids)) => ids.push(id),
                None => reasons.push((reason, vec![id])),
            }
        }
        if reasons.is_empty() {
            return String::new();
        }
        let mut html = format!("<h2>{heading}</h2>\n<div class=\"sheet\"><ul class=\"reasons\">\n");
        for (reason, ids) in reasons {
            let _ = writeln!(
                html,
                "<li><p>{}</p><span class=\"quiet\">{}</span></li>",
                escaped(&reason),
                ids.join(", ")
            );
        }
        html + "</ul></div>\n"
    }

    /// Returns the rows of the table of rules, each with its verdict.
    fn verdict_table(&self) -> String {
        let mut html = String::new();
        for one in self.rules() {
            let class = match one.verdict {
                Verdict::Kept => "pass",
                Verdict::Broken => "fail",
                Verdict::Untried => "skip",
            };
            let _ = writeln!(
                html,
                "<tr><td><span class=\"mark {class}\">{}</span></td><td>{}</td><td>{}</td></tr>",
                one.verdict.as_str(),
                page_of(one.rule),
                escaped(&capitalised(one.rule.sentence())),
            );
        }
        html
    }

    fn table(&self) -> String {
        let mut html = String::new();
        for (endpoint, results) in self.endpoints() {
            let passed = results
                .iter()
                .filter(|result| matches!(result.outcome, Outcome::Pass))
                .count();
            let _ = writeln!(
                html,
                "<tbody><tr><th colspan=\"5\" scope=\"rowgroup\">{}<span class=\"quiet\">{passed} of {} passed</span></th></tr>",
                escaped(endpoint),
                results.len()
            );
            results
                .into_iter()
                .for_each(|result| html.push_str(&row(result)));
            html.push_str("</tbody>\n");
        }
        html
    }
}

/// Returns the name of a rule as a link to its source.
fn page_of(rule: Rule) -> String {
    format!(
        "<a href=\"{}\" title=\"{}\">{}</a>",
        escaped(rule.link()),
        escaped(rule.source()),
        escaped(rule.id())
    )
}

fn link(result: &CaseReport) -> String {
    let id = escaped(result.case.id);
    format!("<a href=\"#{id}\"><code>{id}</code></a>")
}

fn row(result: &CaseReport) -> String {
    let case = &result.case;
    let id = match result.violation() {
        Some(_) => link(result),
        None => format!("<code>{}</code>", escaped(case.id)),
    };
    let rules: Vec<_> = case
        .rules
        .iter()
        .map(|rule| {
            format!(
                "<span title=\"{}\">{}</span>",
                escaped(rule.sentence()),
                escaped(rule.id())
            )
        })
        .collect();
    format!(
        "<tr title=\"{}\"><td>{}</td><td>{id}</td><td>{}</td><td>{}</td><td>{}</td></tr>\n",
        escaped(case.steps),
        mark(result.outcome.as_str()),
        case.level,
        rules.join(", "),
        seconds(result.elapsed)
    )
}

fn card(result: &CaseReport, violation: &Violation) -> String {
    let (case, rule) = (&result.case, violation.rule());
    let mut html = format!(
        "<section class=\"card fail\" id=\"{id}\">\n<h3>{id}<span class=\"quiet\">{level}</span></h3>\n\
         <p>{sentence} <span class=\"quiet\">({rule}; {source})</span></p>\n\
         <div class=\"sides\"><div><span>expected</span>{expected}</div>\
         <div class=\"got\"><span>got</span>{actual}</div></div>\n<dl>",
        id = escaped(case.id),
        level = case.level,
        sentence = escaped(&capitalised(rule.sentence())),
        rule = escaped(rule.id()),
        source = escaped(rule.source()),
        expected = escaped(violation.expected()),
        actual = escaped(violation.actual()),
    );
    let fix = format!("{}.", capitalised(rule.fix()));
    for (name, text) in [
        ("How to fix it", &*fix),
        ("On a phone", result.consequence()),
        ("Steps", case.steps),
    ] {
        if !text.is_empty() {
            let _ = write!(html, "<dt>{name}</dt><dd>{}</dd>", escaped(text));
        }
    }
    html.push_str("</dl>\n");
    if !result.transcript.is_empty() {
        let said: Vec<_> = result
            .transcript
            .iter()
            .map(|exchange| escaped(&exchange.to_string()))
            .collect();
        let requests = if said.len() == 1 {
            "request"
        } else {
            "requests"
        };
        let _ = writeln!(
            html,
            "<details><summary>Requests and answers: {} {requests}</summary>\n<pre>{}</pre></details>",
            said.len(),
            said.join("\n\n")
        );
    }
    html + "</section>\n"
}

fn stopped(reason: &str) -> String {
    format!(
        "<p><strong>The run ended early:</strong> {}</p>\n",
        escaped(reason)
    )
}

fn bar(counts: Counts) -> String {
    let part = |(name, count): (&str, usize)| match count {
        0 => String::new(),
        _ => format!("<i class=\"{name}\" style=\"flex-grow:{count}\"></i>"),
    };
    parts(counts).into_iter().map(part).collect()
}

fn numbers(counts: Counts) -> String {
    let words = ["passed", "failed", "blocked", "errors", "skipped"];
    let number = |((name, count), word)| {
        let class = if count == 0 { "none" } else { name };
        format!("<li class=\"{class}\"><b>{count}</b>{word}</li>")
    };
    parts(counts).into_iter().zip(words).map(number).collect()
}

fn parts(
    Counts {
        pass,
        fail,
        blocked,
        skip,
        error,
    }: Counts,
) -> [(&'static str, usize); 5] {
    [
        ("pass", pass),
        ("fail", fail),
        ("blocked", blocked),
        ("error", error),
        ("skip", skip),
    ]
}

fn mark(outcome: &str) -> String {
    format!("<span class=\"mark {outcome}\">{outcome}</span>")
}

fn seconds(time: Duration) -> String {
    match time.as_secs_f64() {
        time if time >= 1.0 => format!("{time:.1} s"),
        time => format!("{:.0} ms", time * 1e3),
    }
}

fn capitalised(sentence: &str) -> String {
    let mut chars = sentence.chars();
    chars
        .next()
        .map(|first| first.to_uppercase().chain(chars).collect())
        .unwrap_or_default()
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c if c.is_control() && c != '\n' => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

/// Replaces each `{{name}}` in a template. A `{{name}}` within a value is not replaced.
fn filled(template: &str, value: impl Fn(&str) -> String) -> String {
    let mut parts = template.split("{{");
    let mut page = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (name, rest) = part.split_once("}}").unwrap_or(("", part));
        page.push_str(&value(name));
        page.push_str(rest);
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples::report;

    #[test]
    fn the_page_is_complete_and_needs_no_other_file() {
        let page = report().html();
        for expected in [
            "Does not conform: 1 case failed",
            "<code>http://127.0.0.1/{{table}}?&lt;x&gt;</code>",
            "id=\"list/shape\"",
            "The answer is an object with serialNumbers",
            "got</span>&lt;script&gt;",
            "The phone asks forever &amp; ever.",
            "2 requests</summary>",
            "<li><p>needs a way to change a pass</p>",
            "it rains",
            "The run ended early:</strong> three cases got no answer",
            "1 of 1 passed",
            "Blocked by a broken rule",
            "<li><p>blocked by LIST-4: the answer is an object",
            "How to fix it: send an object",
            "level should",
            "seed 7",
            "<a href=\"https://developer.apple.com/documentation/walletpasses/",
        ] {
            assert!(page.contains(expected), "{expected} is not in\n{page}");
        }
        for bad in [
            "<script", "src=", "@import", "url(", "{{title", "{{bar", "{{rules",
        ] {
            assert!(!page.contains(bad), "{bad} is in\n{page}");
        }
        assert!(!page.chars().any(|c| c.is_control() && c != '\n'));
    }

    #[test]
    fn the_headline_says_how_it_went() {
        assert_eq!(Report::default().headline(), "Nothing was tested");
        let only = |wanted: fn(&Outcome) -> bool| {
            let mut report = report();
            report.results.retain(|result| wanted(&result.outcome));
            report.headline()
        };
        assert_eq!(only(|outcome| matches!(outcome, Outcome::Pass)), "Conforms");
        assert_eq!(
            only(|outcome| matches!(outcome, Outcome::Skip(_))),
            "Nothing was tested"
        );
        assert_eq!(
            only(|outcome| matches!(outcome, Outcome::Error(_))),
            "Could not be tested"
        );
        let part = only(|outcome| matches!(outcome, Outcome::Error(_) | Outcome::Pass));
        assert_eq!(part, "Not all could be tested: 2 cases left open");
    }
}
