use std::{fmt, ops::Deref};

use passkit_server::text::OneLine;

use crate::rules::{self, Level, Rule};

/// A problem that was found in an archive: where it is, what is wrong, and how to fix it.
///
/// `Display` writes one line without control characters, such as `pass.json:12:5: expirationDate is
/// …`. The line may contain text of the archive, but never its authentication token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Finding {
    rule: &'static Rule,
    file: Option<Box<str>>,
    /// The path of keys in the file, without indices.
    key: Option<Box<str>>,
    position: Option<Position>,
    message: Box<str>,
}

/// A position in a text file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Position {
    /// The line, counted from 1.
    pub line: usize,
    /// The byte in the line, counted from 1.
    pub column: usize,
}

impl Position {
    /// Returns the position of the byte at `offset` in `text`.
    pub(crate) fn of(text: &[u8], offset: usize) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let line = before.iter().filter(|&&byte| byte == b'\n').count() + 1;
        let column = before
            .iter()
            .rev()
            .take_while(|&&byte| byte != b'\n')
            .count()
            + 1;
        Self { line, column }
    }
}

impl Finding {
    /// Makes a finding about the archive itself.
    pub(crate) fn of_archive(rule: &'static Rule, message: impl Into<String>) -> Self {
        Self {
            rule,
            file: None,
            key: None,
            position: None,
            message: message.into().into(),
        }
    }

    /// Makes a finding about one file of the archive.
    pub(crate) fn in_file(rule: &'static Rule, file: &str, message: impl Into<String>) -> Self {
        Self {
            file: Some(file.into()),
            ..Self::of_archive(rule, message)
        }
    }

    /// Adds the position in the file.
    pub(crate) fn at(self, position: Option<Position>) -> Self {
        Self { position, ..self }
    }

    /// Adds the keys that lead to the value.
    pub(crate) fn of_key(self, key: &str) -> Self {
        Self {
            key: Some(key.into()),
            ..self
        }
    }

    /// Replaces the rule.
    pub(crate) fn under(self, rule: &'static Rule) -> Self {
        Self { rule, ..self }
    }

    /// Makes a finding about the web service of a pass.
    #[must_use]
    pub fn of_service(rule: &'static Rule, message: impl Into<String>) -> Self {
        Self::of_archive(rule, message).of_key("webServiceURL")
    }

    /// Returns the rule that the archive breaks.
    #[must_use]
    pub fn rule(&self) -> &'static Rule {
        self.rule
    }

    /// Returns how much the finding matters.
    #[must_use]
    pub fn level(&self) -> Level {
        self.rule.level
    }

    /// Returns the name of the file, unchanged. Returns `None` if the finding is about the archive
    /// itself.
    #[must_use]
    pub fn file(&self) -> Option<&str> {
        self.file.as_deref()
    }

    /// Returns the position in that file, if it is known.
    #[must_use]
    pub fn position(&self) -> Option<Position> {
        self.position
    }

    /// Returns what is wrong and how to fix it, without the position.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Returns whether both findings report the same mistake in the same place. Their positions and
    /// values may differ.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        self.rule == other.rule && self.file == other.file && self.key == other.key
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.file {
            Some(file) => write!(f, "{}", OneLine::of(file))?,
            None => f.write_str("the archive")?,
        }
        if let Some(Position { line, column }) = self.position {
            write!(f, ":{line}:{column}")?;
        }
        f.write_str(": ")?;
        write!(f, "{}", OneLine::of(&self.message))
    }
}

/// The findings about an archive, the worst first.
///
/// `Display` writes one line for each finding.
#[derive(Clone, Debug, Default, PartialEq, Eq, thiserror::Error)]
pub struct Findings(Vec<Finding>);

impl Findings {
    /// The greatest number of findings that are listed. If there are more, the last finding gives
    /// their number.
    const MAX: usize = 100;

    pub(crate) fn new(mut findings: Vec<Finding>) -> Self {
        // The sort is stable, so that findings of the same level stay in the order of reading.
        findings.sort_by_key(|finding| std::cmp::Reverse(finding.level()));
        if findings.len() > Self::MAX {
            let more = findings.len() - Self::MAX;
            findings.truncate(Self::MAX);
            let message = format!("there are {more} more findings");
            findings.push(Finding::of_archive(&rules::MORE, message));
        }
        Self(findings)
    }

    /// Returns the worst level, or `None` if nothing was found.
    #[must_use]
    pub fn worst(&self) -> Option<Level> {
        self.0.first().map(Finding::level)
    }

    /// Keeps the findings of this level and of worse levels.
    #[must_use]
    pub fn at_least(mut self, level: Level) -> Self {
        self.0.retain(|finding| finding.level() >= level);
        self
    }

    /// Returns whether these findings contain a finding of this level or a worse level that is not
    /// in `before`.
    #[must_use]
    pub fn has_new(&self, level: Level, before: &Self) -> bool {
        self.0
            .iter()
            .filter(|finding| finding.level() >= level)
            .any(|finding| !before.0.iter().any(|one| one.is_like(finding)))
    }
}

impl Deref for Findings {
    type Target = [Finding];

    fn deref(&self) -> &[Finding] {
        &self.0
    }
}

impl IntoIterator for Findings {
    type Item = Finding;
    type IntoIter = std::vec::IntoIter<Finding>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a> IntoIterator for &'a Findings {
    type Item = &'a Finding;
    type IntoIter = std::slice::Iter<'a, Finding>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, finding) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            finding.fmt(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_one_line_whatever_it_repeats() {
        let finding = Finding::in_file(
            &rules::NAME,
            "a\nb\u{1b}[2J.png",
            "is \"odd\"\u{202e}, bäh\0",
        );
        assert_eq!(
            finding.to_string(),
            r#"a\nb\u{1b}[2J.png: is "odd"\u{202e}, bäh\0"#
        );
        assert_eq!(finding.file(), Some("a\nb\u{1b}[2J.png"));
        assert_eq!(
            Finding::of_archive(&rules::NAME, "ä".repeat(9_999))
                .to_string()
                .chars()
                .count(),
            13 + 501
        );
    }

    #[test]
    fn many_findings_are_counted() {
        let findings = Findings::new(vec![Finding::of_archive(&rules::NAME, "is wrong"); 250]);
        assert_eq!(findings.len(), 101);
        assert!(
            findings
                .to_string()
                .ends_with("\nthe archive: there are 150 more findings")
        );
    }

    #[test]
    fn positions_count_from_one() {
        let at = |offset| Position::of(b"ab\ncd", offset);
        assert_eq!(at(0), Position { line: 1, column: 1 });
        assert_eq!(at(3), Position { line: 2, column: 1 });
        assert_eq!(at(99), Position { line: 2, column: 3 });
    }
}
