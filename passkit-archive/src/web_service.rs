//! Checks the address of the web service. Phones append `/v1/…` to it.

use crate::rules::{self, Rule};

/// The endings of files that a web server sends without running them. Nothing can be appended to
/// their address.
const FILES: [&str; 14] = [
    "css", "gif", "htm", "html", "jpeg", "jpg", "js", "json", "order", "pkpass", "pkpasses", "png",
    "txt", "zip",
];

/// The endings of programs that a web server runs. Some servers accept a path after such a name.
const SCRIPTS: [&str; 9] = [
    "asp", "ashx", "aspx", "cfm", "cgi", "jsp", "php", "pl", "py",
];

/// Checks that a phone can use `url` as a `webServiceURL`. Each message follows the word
/// `webServiceURL`.
pub(crate) fn check(url: &str) -> Vec<(&'static Rule, &'static str)> {
    match parts(url) {
        Err(reason) => vec![(&rules::URL, reason)],
        Ok(parts) => parts.remarks(),
    }
}

struct Parts<'a> {
    is_http: bool,
    has_user: bool,
    path: &'a str,
    has_query: bool,
}

/// Splits a URL into its parts. Fails if no phone can call it.
fn parts(url: &str) -> Result<Parts<'_>, &'static str> {
    let scheme_is = |scheme: &str| {
        url.split_at_checked(scheme.len())
            .filter(|(start, _)| start.eq_ignore_ascii_case(scheme))
            .map(|(_, rest)| rest)
    };
    let (is_http, rest) = match (scheme_is("https://"), scheme_is("http://")) {
        (Some(rest), _) => (false, rest),
        (None, Some(rest)) => (true, rest),
        (None, None) => return Err("must start with \"https://\""),
    };
    if !rest
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte))
    {
        return Err("has a character that no URL may have; write it as %XX, in the host as xn--…");
    }
    let before_query = rest.split(['?', '#']).next().unwrap_or_default();
    let (authority, path) = match before_query.find('/') {
        Some(slash) => before_query.split_at(slash),
        None => (before_query, ""),
    };
    let (user, address) = match authority.rsplit_once('@') {
        Some((user, address)) => (Some(user), address),
        None => (None, authority),
    };
    let (host, port) = match address.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port),
        _ => (address, "443"),
    };
    if host.is_empty() || port.parse::<u16>().is_err() {
        return Err("has no host, or an invalid port");
    }
    Ok(Parts {
        is_http,
        has_user: user.is_some(),
        path,
        has_query: before_query.len() < rest.len(),
    })
}

impl Parts<'_> {
    fn remarks(&self) -> Vec<(&'static Rule, &'static str)> {
        let mut remarks = Vec::new();
        if self.is_http {
            remarks.push((
                &rules::URL_HTTP,
                "starts with \"http://\"; phones need \"https://\", except for development",
            ));
        }
        if self.has_user {
            remarks.push((
                &rules::URL_USER,
                "has a user name; remove it, because everyone who has the pass can read it",
            ));
        }
        if self.has_query {
            remarks.push((
                &rules::URL_QUERY,
                "has a query or a fragment; remove it, because phones append a path",
            ));
        }
        let last = self.path.trim_end_matches('/').rsplit('/').next();
        let last = last.unwrap_or_default();
        let extension = last.rsplit_once('.').map(|(_, extension)| extension);
        let is_one_of = |extensions: &[&str]| {
            extension.is_some_and(|one| {
                extensions
                    .iter()
                    .any(|other| one.eq_ignore_ascii_case(other))
            })
        };
        if last == "v1" {
            remarks.push((
                &rules::URL_VERSION,
                "ends in /v1; remove /v1, because phones append it themselves",
            ));
        } else if is_one_of(&FILES) {
            remarks.push((
                &rules::URL_FILE,
                "names a file; name the folder to which phones append /v1/…",
            ));
        } else if is_one_of(&SCRIPTS) {
            remarks.push((
                &rules::URL_SCRIPT,
                "names a script, to which phones append /v1/…; make sure that your web server passes this path on",
            ));
        }
        remarks
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Level;

    #[test]
    fn urls_that_phones_can_use() {
        for url in [
            "https://example.com",
            "HTTPS://example.com/",
            "https://example.com:8443/wallet/passes/",
            "https://[2001:db8::1]/x",
            "https://[::1]:8443",
            "https://example.com/a%20b~c",
            "https://example.com/v1.2",
            "https://example.com/v1/passes",
            "https://example.com/api.example",
        ] {
            assert_eq!(check(url), [], "{url}");
        }
    }

    #[test]
    fn urls_that_phones_call_or_call_in_vain() {
        use Level::{Error, Warning};
        for (url, level, reason) in [
            ("http://192.168.1.2:3000", Warning, "http://"),
            ("https://example.com/?a=b", Warning, "query"),
            ("https://example.com/wallet?", Warning, "query"),
            ("https://example.com/#a", Warning, "fragment"),
            ("https://example.com/a/index.php", Warning, "script"),
            ("https://example.com/v1", Error, "/v1"),
            ("https://example.com/apple/v1/", Error, "/v1"),
            ("https://example.com/a/ticket.pkpass", Error, "a file"),
            ("https://example.com/pass.JSON/", Error, "a file"),
            ("example.com", Error, "must start"),
            ("ftp://example.com", Error, "must start"),
            ("", Error, "must start"),
            ("https://", Error, "no host"),
            ("https:///path", Error, "no host"),
            ("https://:443", Error, "no host"),
            ("https://?a", Error, "no host"),
            ("https://example.com:port", Error, "port"),
            ("https://example.com:99999/", Error, "port"),
            ("https://me@example.com/", Warning, "user name"),
            ("https://me:secret@example.com:8443/x", Warning, "user name"),
            ("https://me:secret@/x", Error, "no host"),
            ("https://example.com/a b", Error, "character"),
            ("https://münchen.example/", Error, "character"),
        ] {
            let found = check(url);
            let [(rule, message)] = &found[..] else {
                panic!("{url}: {found:?}")
            };
            assert!(
                rule.level == level && message.contains(reason),
                "{url}: {message}"
            );
        }
    }
}
