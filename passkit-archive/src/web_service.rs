//! Checks the address of the web service. Phones append `/v1/…` to it.

/// Checks that a phone can use `url` as a `webServiceURL`. The error is a reason that fits after
/// that word.
pub(crate) fn check(url: &str, allow_http: bool) -> Result<(), &'static str> {
    let scheme_is = |scheme: &str| {
        url.split_at_checked(scheme.len())
            .filter(|(start, _)| start.eq_ignore_ascii_case(scheme))
    };
    let rest = match (scheme_is("https://"), scheme_is("http://")) {
        (Some((_, rest)), _) => rest,
        (None, Some((_, rest))) if allow_http => rest,
        (None, Some(_)) => return Err("starts with \"http://\"; phones require \"https://\""),
        (None, None) => return Err("must start with \"https://\""),
    };
    if !rest
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte))
    {
        return Err("has a character that no URL may have; write it as %XX, in the host as xn--…");
    }
    if rest.contains(['?', '#']) {
        return Err("has a query or a fragment; remove it, because phones append their path");
    }
    let authority = rest
        .split_once('/')
        .map_or(rest, |(authority, _)| authority);
    if authority.contains('@') {
        return Err("has a user name; remove it");
    }
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port),
        _ => (authority, "443"),
    };
    if host.is_empty() || port.parse::<u16>().is_err() {
        return Err("has no host, or an invalid port");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn urls_that_phones_can_use() {
        for url in [
            "https://example.com",
            "HTTPS://example.com/",
            "https://example.com:8443/wallet/passes/",
            "https://[2001:db8::1]/x",
            "https://[::1]:8443",
            "https://example.com/a%20b~c",
        ] {
            assert_eq!(check(url, false), Ok(()), "{url}");
        }
        assert_eq!(check("http://192.168.1.2:3000", true), Ok(()));
    }

    #[test]
    fn urls_that_phones_cannot_use() {
        for (url, reason) in [
            ("http://example.com", "http://"),
            ("example.com", "must start"),
            ("ftp://example.com", "must start"),
            ("", "must start"),
            ("https://", "no host"),
            ("https:///path", "no host"),
            ("https://:443", "no host"),
            ("https://example.com:port", "port"),
            ("https://example.com:99999/", "port"),
            ("https://example.com/?a=b", "query"),
            ("https://example.com/#a", "fragment"),
            ("https://me@example.com/", "user name"),
            ("https://example.com/a b", "character"),
            ("https://münchen.example/", "character"),
        ] {
            assert!(check(url, false).unwrap_err().contains(reason), "{url}");
        }
    }
}
