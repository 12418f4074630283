use std::{borrow::Cow, fmt};

/// Shows a text from outside, such as a path or an identifier, so that the text can't forge a line
/// in a log or on a terminal.
///
/// Line feeds, escape sequences, and marks that change the direction of writing are written as
/// `\n`, `\u{1b}` and `\u{202e}`. All other text stays as it is. Everything after 500 characters is
/// cut off.
///
/// ```
/// use passkit_server::text::OneLine;
///
/// assert_eq!(OneLine::of("a\nb\u{1b}[2J").to_string(), r"a\nb\u{1b}[2J");
/// ```
#[derive(Clone, Debug)]
pub struct OneLine<'a> {
    text: Cow<'a, str>,
    max_chars: usize,
}

impl<'a> OneLine<'a> {
    const MAX_CHARS: usize = 500;

    /// Shows any text. Cuts it off after 500 characters.
    #[must_use]
    pub fn of(text: &'a str) -> Self {
        Self::new(text.into(), Self::MAX_CHARS)
    }

    /// Shows any text, however long.
    #[must_use]
    pub fn whole(text: &'a str) -> Self {
        Self::new(text.into(), usize::MAX)
    }

    fn new(text: Cow<'a, str>, max_chars: usize) -> Self {
        Self { text, max_chars }
    }

    /// Shows a URL, which may be mistyped. Leaves out what may be a secret: everything between the
    /// scheme and the last `@`, the query, and the fragment.
    ///
    /// ```
    /// use passkit_server::text::OneLine;
    ///
    /// let url = OneLine::url("postgres://me:secret@host/database?password=secret");
    /// assert_eq!(url.to_string(), "postgres://host/database");
    /// ```
    #[must_use]
    pub fn url(url: &'a str) -> Self {
        let (scheme, rest) = url.split_at(url.find("://").map_or(0, |at| at + 3));
        // A password may have any of these characters, although it should be encoded.
        let rest = rest.rsplit('@').next().unwrap_or_default();
        let rest = rest.split(['?', '#']).next().unwrap_or_default();
        Self::new(format!("{scheme}{rest}").into(), Self::MAX_CHARS)
    }

    /// Shows a path. Parts that are not UTF-8 are shown as `\u{fffd}`.
    #[must_use]
    pub fn path(path: &'a std::path::Path) -> Self {
        Self::new(path.to_string_lossy(), Self::MAX_CHARS)
    }
}

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write as _;

        let mut chars = self.text.chars();
        for c in chars.by_ref().take(self.max_chars) {
            match c {
                '"' | '\'' | '\\' => f.write_char(c)?,
                _ => write!(f, "{}", c.escape_debug())?,
            }
        }
        match chars.next() {
            Some(_) => f.write_char('…'),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_stays_and_the_rest_is_escaped() {
        assert_eq!(
            OneLine::of("O'Brien \"1\" \\ größe 東").to_string(),
            "O'Brien \"1\" \\ größe 東"
        );
        assert_eq!(
            OneLine::of("a\r\nb\t\u{202e}\u{2028}\u{7f}\0").to_string(),
            r"a\r\nb\t\u{202e}\u{2028}\u{7f}\0"
        );
    }

    #[test]
    fn a_url_is_shown_without_secrets() {
        for (url, shown) in [
            ("https://example.com/a", "https://example.com/a"),
            ("redis://:s/e?c#r@et@host:1", "redis://host:1"),
            ("me:secret@host/a", "host/a"),
            ("https://host/a?token=secret", "https://host/a"),
            ("https://host#secret", "https://host"),
            ("secret@", ""),
            ("host", "host"),
        ] {
            assert_eq!(OneLine::url(url).to_string(), shown, "{url}");
        }
    }

    #[test]
    fn long_text_is_cut() {
        let text = "ä".repeat(9_999);
        assert_eq!(OneLine::of(&text).to_string().chars().count(), 501);
        assert_eq!(OneLine::whole(&text).to_string(), text);
    }
}
