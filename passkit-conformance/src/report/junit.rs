//! Reports for continuous integration.

use std::{fmt::Write as _, time::Duration};

use super::{CaseReport, Counts, Report};
use crate::Outcome;

impl Report {
    /// Returns the report as JUnit XML, with a test suite for each endpoint.
    #[must_use]
    pub fn junit(&self) -> String {
        let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
        let _ = writeln!(
            xml,
            "<testsuites name=\"passkit-conformance\" {}>",
            numbers(&self.results)
        );
        let about = [
            ("kit", env!("CARGO_PKG_VERSION").to_owned()),
            ("target", self.target.clone()),
            (
                "level",
                self.level.map_or(String::new(), |level| level.to_string()),
            ),
            (
                "seed",
                self.seed.map_or(String::new(), |seed| seed.to_string()),
            ),
        ];
        let about = properties("    ", &about);
        for (endpoint, results) in self.endpoints() {
            let _ = writeln!(
                xml,
                "  <testsuite name=\"{}\" {}>",
                escaped(endpoint),
                numbers(results.iter().copied())
            );
            xml.push_str(&about);
            results
                .into_iter()
                .for_each(|result| test_case(&mut xml, result));
            xml.push_str("  </testsuite>\n");
        }
        xml.push_str("</testsuites>\n");
        xml
    }
}

/// Returns the properties that are not empty, as XML.
fn properties(indent: &str, properties: &[(&str, String)]) -> String {
    let mut xml = format!("{indent}<properties>\n");
    for (name, value) in properties.iter().filter(|(_, value)| !value.is_empty()) {
        let value = escaped(value);
        let _ = writeln!(
            xml,
            "{indent}  <property name=\"{name}\" value=\"{value}\"/>"
        );
    }
    xml + indent + "</properties>\n"
}

fn numbers<'a>(results: impl IntoIterator<Item = &'a CaseReport>) -> String {
    let (mut counts, mut time) = (Counts::default(), Duration::ZERO);
    for result in results {
        counts.add(&result.outcome);
        time += result.elapsed;
    }
    let Counts { fail, error, .. } = counts;
    format!(
        "tests=\"{}\" failures=\"{fail}\" errors=\"{error}\" skipped=\"{}\" time=\"{:.3}\"",
        counts.total(),
        counts.skip + counts.blocked,
        time.as_secs_f64()
    )
}

fn test_case(xml: &mut String, result: &CaseReport) {
    let (class, id) = (escaped(result.case.endpoint()), escaped(result.case.id));
    let time = result.elapsed.as_secs_f64();
    let _ = write!(
        xml,
        "    <testcase classname=\"{class}\" name=\"{id}\" time=\"{time:.3}\""
    );
    let message = escaped(&result.message());
    let _ = match &result.outcome {
        Outcome::Pass => writeln!(xml, "/>"),
        Outcome::Fail(violation) => {
            let rule = violation.rule();
            let about = [
                ("rule", rule.id().to_owned()),
                ("level", result.case.level.to_string()),
                ("expected", violation.expected().to_owned()),
                ("got", violation.actual().to_owned()),
                ("consequence", result.consequence().to_owned()),
                ("fix", rule.fix().to_owned()),
                ("link", rule.link().to_owned()),
            ];
            writeln!(
                xml,
                ">\n{}      <failure message=\"{message}\" type=\"{rule}\">{}</failure>\n    </testcase>",
                properties("      ", &about),
                escaped(&result.to_string())
            )
        }
        Outcome::Skip(_) | Outcome::Blocked(_) => {
            writeln!(xml, "><skipped message=\"{message}\"/></testcase>")
        }
        Outcome::Error(_) => writeln!(xml, "><error message=\"{message}\"/></testcase>"),
    };
}

/// Escapes a text for XML. Removes characters that XML does not allow, and preserves line breaks in
/// attributes.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\n' => escaped.push_str("&#10;"),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => {}
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use crate::report::samples::report;

    #[test]
    fn the_xml_is_well_formed() {
        let xml = report().junit();
        for expected in [
            r#"<testsuites name="passkit-conformance" tests="6" failures="1" errors="2" skipped="2""#,
            r#"<testsuite name="list" tests="3" failures="1" errors="0" skipped="2""#,
            r#"<property name="target" value="http://127.0.0.1/{{table}}?&lt;x&gt;"/>"#,
            r#"<property name="seed" value="7"/>"#,
            r#"<property name="rule" value="LIST-4"/>"#,
            r#"<skipped message="blocked by LIST-4: "#,
            r#"<testcase classname="register" name="register/new-pass-is-201" time="0.012"/>"#,
            r#"type="LIST-4""#,
            r#"<skipped message="needs a way to change a pass"/>"#,
            r#"<error message="it rains"/>"#,
            "forever &amp; ever",
        ] {
            assert!(xml.contains(expected), "{expected} is not in\n{xml}");
        }
        assert!(!xml.contains("<script>") && !xml.contains("]]>"), "{xml}");
        assert!(!xml.chars().any(|c| c.is_control() && c != '\n'), "{xml}");
    }
}
