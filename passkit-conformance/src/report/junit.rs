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
        for (endpoint, results) in self.endpoints() {
            let _ = writeln!(
                xml,
                "  <testsuite name=\"{}\" {}>",
                escaped(endpoint),
                numbers(results.iter().copied())
            );
            results
                .into_iter()
                .for_each(|result| test_case(&mut xml, result));
            xml.push_str("  </testsuite>\n");
        }
        xml.push_str("</testsuites>\n");
        xml
    }
}

fn numbers<'a>(results: impl IntoIterator<Item = &'a CaseReport>) -> String {
    let (mut counts, mut time) = (Counts::default(), Duration::ZERO);
    for result in results {
        counts.add(&result.outcome);
        time += result.elapsed;
    }
    let Counts {
        fail, skip, error, ..
    } = counts;
    format!(
        "tests=\"{}\" failures=\"{fail}\" errors=\"{error}\" skipped=\"{skip}\" time=\"{:.3}\"",
        counts.total(),
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
        Outcome::Fail(violation) => writeln!(
            xml,
            ">\n      <failure message=\"{message}\" type=\"{}\">{}</failure>\n    </testcase>",
            violation.rule(),
            escaped(&result.to_string())
        ),
        Outcome::Skip(_) => writeln!(xml, "><skipped message=\"{message}\"/></testcase>"),
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
            r#"<testsuites name="passkit-conformance" tests="5" failures="1" errors="2" skipped="1""#,
            r#"<testsuite name="list" tests="2" failures="1" errors="0" skipped="1""#,
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
