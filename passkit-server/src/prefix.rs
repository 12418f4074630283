use std::fmt;

/// The path of a `webServiceURL`, such as `/api/wallet`. Phones append `/v1/…` to it.
///
/// Slashes at the end make no difference.
///
/// ```
/// use passkit_server::service::Prefix;
///
/// let prefix = Prefix::new("/api/wallet/")?;
/// assert_eq!(Prefix::of_url("https://example.com/api/wallet"), Some(prefix));
/// assert_eq!(Prefix::of_url("https://example.com/"), Some(Prefix::ROOT));
/// # Ok::<(), passkit_server::service::InvalidPrefix>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix(String);

/// The error for a text that can't be a [`Prefix`]. A caller can show the error right after the
/// text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidPrefix(&'static str);

impl Prefix {
    /// No path: phones ask for `/v1/…`.
    pub const ROOT: Self = Self(String::new());

    /// Reads a path as it stands in a URL: percent-encoded, with or without slashes at its ends.
    ///
    /// # Errors
    /// Fails if the text can't be the path of a URL, or is a whole URL.
    pub fn new(path: &str) -> Result<Self, InvalidPrefix> {
        if path.contains("://") {
            return Err(InvalidPrefix(
                "is a URL; write its path only, such as /api/wallet",
            ));
        }
        let is_allowed = |byte: u8| byte.is_ascii_graphic() && !b"\"#<>?\\^`{|}".contains(&byte);
        if !path.bytes().all(is_allowed) {
            return Err(InvalidPrefix(
                "has a character that no path of a URL may have; write it as %XX",
            ));
        }
        if path.split('/').any(|part| matches!(part, "." | "..")) {
            return Err(InvalidPrefix(
                "has a part \".\" or \"..\"; write the path without them",
            ));
        }
        Ok(Self(path.trim_matches('/').to_owned()))
    }

    /// Returns the path of a `webServiceURL`, without its query. `None` if the text is not a URL.
    #[must_use]
    pub fn of_url(url: &str) -> Option<Self> {
        let (_, rest) = url.split_once("://")?;
        let rest = rest.split(['?', '#']).next().unwrap_or_default();
        let path = rest.split_once('/').map_or("", |(_, path)| path);
        Some(Self(path.trim_matches('/').to_owned()))
    }

    /// Removes this prefix from `path`. Returns the rest, which starts with a slash, or `None` if
    /// `path` is not below this prefix.
    pub(crate) fn strip<'a>(&self, path: &'a str) -> Option<&'a str> {
        let rest = path.trim_start_matches('/').strip_prefix(&self.0)?;
        rest.starts_with('/').then_some(rest)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_the_path_of_a_url() {
        for (url, path) in [
            ("https://example.com", "/"),
            ("https://example.com///", "/"),
            ("https://example.com/api/wallet", "/api/wallet"),
            (
                "https://example.com:8443/api/wallet//?a=/b#/c",
                "/api/wallet",
            ),
            ("https://me:secret@example.com/x", "/x"),
            ("HTTP://[::1]:80/a%20b/", "/a%20b"),
            ("https://example.com?a=/b", "/"),
        ] {
            assert_eq!(Prefix::of_url(url).unwrap().to_string(), path, "{url}");
        }
        assert_eq!(Prefix::of_url("example.com/x"), None);
        for path in ["/", "", "/a/b", "a/b/", "//a/b//", "/a%2Fb~c", "/v1"] {
            let prefix = Prefix::new(path).unwrap();
            let url = format!("https://example.com/{path}");
            assert_eq!(Prefix::of_url(&url), Some(prefix), "{path}");
        }
        for wrong in [
            "https://example.com/a",
            "/a b",
            "/ä",
            "/a?b",
            "/a#b",
            "/a/../b",
            "/.",
        ] {
            assert!(Prefix::new(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn only_whole_parts_of_a_path_are_stripped() {
        let prefix = Prefix::new("/api/wallet").unwrap();
        assert_eq!(prefix.strip("/api/wallet/v1/log"), Some("/v1/log"));
        assert_eq!(prefix.strip("//api/wallet//v1/log"), Some("//v1/log"));
        for path in [
            "/api/walletv1/log",
            "/api/wallet",
            "/v1/log",
            "/API/wallet/v1/log",
        ] {
            assert_eq!(prefix.strip(path), None, "{path}");
        }
        assert_eq!(Prefix::ROOT.strip("/v1/log"), None);
    }
}
