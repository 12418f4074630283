use std::{fmt, ops::Deref};

/// A problem of an archive: where it is, what is wrong, and how to fix it.
///
/// `Display` is one line without control characters, such as `pass.json:12:5: trailing comma; …`.
/// It may repeat text of the archive, but never its authentication token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Problem {
    file: Option<Box<str>>,
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

impl Problem {
    /// Makes a problem of the archive itself.
    pub(crate) fn of_archive(message: impl Into<String>) -> Self {
        Self {
            file: None,
            position: None,
            message: message.into().into(),
        }
    }

    /// Makes a problem of one file of the archive.
    pub(crate) fn in_file(file: &str, message: impl Into<String>) -> Self {
        Self {
            file: Some(file.into()),
            position: None,
            message: message.into().into(),
        }
    }

    /// Makes a problem of a position in a file of the archive.
    pub(crate) fn at(file: &str, position: Option<Position>, message: impl Into<String>) -> Self {
        Self {
            position,
            ..Self::in_file(file, message)
        }
    }

    /// Returns the name of the file with the problem, unchanged. `None` if the problem is in the
    /// archive itself.
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
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.file {
            Some(file) => one_line(file, f)?,
            None => f.write_str("the archive")?,
        }
        if let Some(Position { line, column }) = self.position {
            write!(f, ":{line}:{column}")?;
        }
        f.write_str(": ")?;
        one_line(&self.message, f)
    }
}

/// Names and values of a hostile archive may have any text of any length: line feeds, escape
/// sequences, and marks that change the text direction.
fn one_line(text: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    use fmt::Write as _;
    const MAX_CHARS: usize = 500;

    let mut chars = text.chars();
    chars.by_ref().take(MAX_CHARS).try_for_each(|c| match c {
        '"' | '\'' | '\\' => f.write_char(c),
        _ => write!(f, "{}", c.escape_debug()),
    })?;
    if chars.next().is_some() {
        f.write_char('…')
    } else {
        Ok(())
    }
}

/// All problems of an archive, at least one [`Problem`], in the order of reading.
///
/// `Display` writes one line for each.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// The most problems that are listed. If there are more, a last problem gives their number.
    const MAX: usize = 100;

    pub(crate) fn new(mut problems: Vec<Problem>) -> Self {
        if problems.len() > Self::MAX {
            let more = problems.len() - Self::MAX;
            problems.truncate(Self::MAX);
            problems.push(Problem::of_archive(format!("has {more} more problems")));
        }
        Self(problems)
    }
}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Self(vec![problem])
    }
}

impl Deref for Problems {
    type Target = [Problem];

    fn deref(&self) -> &[Problem] {
        &self.0
    }
}

impl IntoIterator for Problems {
    type Item = Problem;
    type IntoIter = std::vec::IntoIter<Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a> IntoIterator for &'a Problems {
    type Item = &'a Problem;
    type IntoIter = std::slice::Iter<'a, Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_one_line_whatever_it_repeats() {
        let problem = Problem::in_file("a\nb\u{1b}[2J.png", "is \"odd\"\u{202e}, bäh\0");
        assert_eq!(
            problem.to_string(),
            r#"a\nb\u{1b}[2J.png: is "odd"\u{202e}, bäh\0"#
        );
        assert_eq!(problem.file(), Some("a\nb\u{1b}[2J.png"));
        assert_eq!(
            Problem::of_archive("ä".repeat(9_999))
                .to_string()
                .chars()
                .count(),
            13 + 501
        );
    }

    #[test]
    fn many_problems_are_counted() {
        let problems = Problems::new(vec![Problem::of_archive("is wrong"); 250]);
        assert_eq!(problems.len(), 101);
        assert!(
            problems
                .to_string()
                .ends_with("\nthe archive: has 150 more problems")
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
