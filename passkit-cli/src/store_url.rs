//! Reads the URL in `--store`, and shows it without secrets.
//!
//! A URL is checked before any part of it is used or shown. A URL that can't be parsed is not shown at all. The login of a
//! server (up to the last `@`) and the parameters (from the first `?`) are never shown. In a path, everything up to the last
//! `@` is hidden.

use std::{fmt, path::PathBuf, str::FromStr};

use percent_encoding::percent_decode_str;

/// A store, as written on the command line. Neither `Display` nor `Debug` shows a secret.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum StoreUrl {
    /// `sqlite:FILE`
    Sqlite(PathBuf),
    /// `sled:FOLDER`
    Sled(PathBuf),
    /// `postgres://…`
    Postgres(String),
    /// `redis://…`, and the other schemes for Redis.
    Redis(String),
}

const FORMS: &str = "sqlite:FILE, as in sqlite:./passkit.db, sled:FOLDER, postgres://USER:PASSWORD@HOST/DATABASE, \
                     redis://HOST:PORT, redis+cluster://HOST:PORT,HOST:PORT or redis+sentinel://HOST:PORT/MASTER";

/// The parameters that the driver knows. The driver logs other parameters with their values.
const POSTGRES_PARAMETERS: [&str; 18] = [
    "application_name",
    "dbname",
    "host",
    "hostaddr",
    "options",
    "password",
    "port",
    "ssl-ca",
    "ssl-cert",
    "ssl-key",
    "ssl-mode",
    "ssl-root-cert",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "statement-cache-capacity",
    "user",
];

/// The URL of a server, in its parts.
struct Parts<'a> {
    scheme: &'a str,
    login: Option<&'a str>,
    hosts: &'a str,
    /// The path with its first slash, or empty.
    path: &'a str,
    query: Option<&'a str>,
}

impl<'a> Parts<'a> {
    /// Splits a URL into its parts. No error repeats any part of the URL, because the part may be a secret.
    fn of(url: &'a str) -> Result<Self, String> {
        let Some((scheme, rest)) = url.split_once("://") else {
            return Err(format!("// is missing after the scheme; write {FORMS}"));
        };
        let (login, rest) = match rest.rsplit_once('@') {
            Some((login, rest)) => (Some(login), rest),
            None => (None, rest),
        };
        if login.is_some_and(|login| login.contains(ends_login) || !is_escaped_well(login)) {
            return Err(
                "a character before the last @ must be escaped: write %2F for /, %3F for ?, %23 for #, %40 for @, \
                 %25 for %, %20 for a blank"
                    .into(),
            );
        }
        let (rest, query) = match rest.split_once('?') {
            Some((rest, query)) => (rest, Some(query)),
            None => (rest, None),
        };
        let (hosts, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if !hosts.split(',').all(is_host) {
            return Err(
                "the URL has no valid host: write HOST or HOST:PORT, and an @ between the password and the host"
                    .into(),
            );
        }
        if path.contains(|c| ends_login(c) && c != '/') || !is_escaped_well(path) {
            return Err(
                "a character after the host must be escaped: write %23 for #, %25 for %, %20 for a blank"
                    .into(),
            );
        }
        Ok(Self {
            scheme,
            login,
            hosts,
            path,
            query,
        })
    }
}

/// Returns whether a login can't contain this character, because the character ends the login or is not allowed in a URL.
fn ends_login(c: char) -> bool {
    matches!(c, '/' | '?' | '#' | '@' | '\\') || c.is_whitespace() || c.is_control()
}

/// Returns whether two hexadecimal digits follow each `%`.
fn is_escaped_well(text: &str) -> bool {
    text.split('%').skip(1).all(|rest| {
        let digits = rest.as_bytes().get(..2);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    })
}

/// Returns whether this is `host`, `host:port` or `[address]:port`. An empty text means the default host.
fn is_host(text: &str) -> bool {
    let (name, port) = match text.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, port),
        _ => (text, ""),
    };
    let is_name = |name: &str| {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._%".contains(&byte);
        name.bytes().all(is_plain)
    };
    let address = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'));
    let is_name = match address {
        Some(address) => address.split(':').all(is_name),
        None => is_name(name) && is_escaped_well(name),
    };
    is_name && port.bytes().all(|byte| byte.is_ascii_digit())
}

impl FromStr for StoreUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text.split_once(':').unwrap_or_default();
        match scheme {
            "sqlite" if rest.is_empty() => {
                Err("sqlite: needs a file, as in sqlite:./passkit.db".into())
            }
            "sled" if rest.is_empty() => {
                Err("sled: needs a folder, as in sled:./passkit-data".into())
            }
            "sqlite" | "sled" => {
                if let Some((login, _)) = rest.rsplit_once('@')
                    && (login.starts_with("//") || login.contains(':'))
                {
                    return Err(format!(
                        "this looks like the URL of a server, but {scheme}: is followed by a path; write {FORMS}"
                    ));
                }
                Ok(if scheme == "sqlite" {
                    Self::Sqlite(rest.into())
                } else {
                    Self::Sled(rest.into())
                })
            }
            "postgres" | "postgresql" => {
                let parts = Parts::of(text)?;
                let parameters = parts.query.unwrap_or_default().split('&');
                let is_known = |parameter: &str| {
                    let name = parameter.split('=').next().unwrap_or_default();
                    name.is_empty()
                        || name.starts_with("options[")
                        || POSTGRES_PARAMETERS.contains(&name)
                };
                if parameters.into_iter().all(is_known) {
                    Ok(Self::Postgres(text.into()))
                } else {
                    Err(format!(
                        "a parameter after the ? is unknown; the known ones are {}",
                        POSTGRES_PARAMETERS.join(", ")
                    ))
                }
            }
            "redis" | "rediss" | "redis+cluster" | "rediss+cluster" | "redis+sentinel"
            | "rediss+sentinel" => Parts::of(text).map(|_| Self::Redis(text.into())),
            _ => Err(format!("this program knows no such store; write {FORMS}")),
        }
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = |f: &mut fmt::Formatter<'_>, scheme, path: &PathBuf| {
            let path = path.to_string_lossy();
            match path.rsplit_once('@') {
                Some((_, end)) => write!(f, "{scheme}:…@{end}"),
                None => write!(f, "{scheme}:{path}"),
            }
        };
        match self {
            Self::Sqlite(file) => path(f, "sqlite", file),
            Self::Sled(folder) => path(f, "sled", folder),
            Self::Postgres(url) | Self::Redis(url) => match Parts::of(url) {
                Ok(parts) => write!(f, "{}://{}{}", parts.scheme, parts.hosts, parts.path),
                Err(_) => f.write_str("…"),
            },
        }
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl StoreUrl {
    /// Hides the user and the password in a text from the server, such as an error. Servers repeat both in quotes. The user
    /// is hidden too, because someone may have written the password in its place.
    pub(crate) fn hide_login(&self, text: &str) -> String {
        let url = match self {
            Self::Postgres(url) | Self::Redis(url) => url,
            Self::Sqlite(_) | Self::Sled(_) => return text.to_owned(),
        };
        let Ok(parts) = Parts::of(url) else {
            return text.to_owned();
        };
        let parameters = parts.query.unwrap_or_default().split('&');
        let parameters = parameters.filter_map(|parameter| match parameter.split_once('=') {
            Some(("user" | "password", secret)) => Some(secret),
            _ => None,
        });
        parts
            .login
            .into_iter()
            .flat_map(|login| login.splitn(2, ':'))
            .chain(parameters)
            .filter(|secret| !secret.is_empty())
            .fold(text.to_owned(), |text, secret| {
                let decoded = percent_decode_str(secret).decode_utf8_lossy();
                text.replace(&format!("\"{decoded}\""), "\"…\"")
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::DEFAULT;

    fn shown(url: &str) -> String {
        url.parse::<StoreUrl>().unwrap().to_string()
    }

    #[test]
    fn neither_the_login_nor_the_parameters_are_shown() {
        for (url, expected) in [
            (
                "postgres://u:secret@h:5432/d?password=secret",
                "postgres://h:5432/d",
            ),
            ("postgres://secret@h/d", "postgres://h/d"),
            ("postgres://h/d", "postgres://h/d"),
            ("redis://:secret@[::1]:6379/0", "redis://[::1]:6379/0"),
            (
                "redis+sentinel://u:sec%40ret@h:1,[fe80::1]:2/m",
                "redis+sentinel://h:1,[fe80::1]:2/m",
            ),
            ("sqlite:/home/secret@b/p.db", "sqlite:…@b/p.db"),
        ] {
            assert_eq!(shown(url), expected);
        }
    }

    #[test]
    fn a_server_may_repeat_the_login() {
        let store: StoreUrl = "postgres://se%63ret@h/d".parse().unwrap();
        assert_eq!(
            store.hide_login("role \"secret\" does not exist, secretly"),
            "role \"…\" does not exist, secretly"
        );
    }

    #[test]
    fn store_urls_are_read_or_explained() {
        assert_eq!("sled:./a b".parse(), Ok(StoreUrl::Sled("./a b".into())));
        assert_eq!(DEFAULT.parse(), Ok(StoreUrl::Sqlite("./passkit.db".into())));
        for url in [
            "postgresql://h/d",
            "postgres://%2Fvar%2Frun/d",
            "postgres:///d?host=/run&sslmode=require&options[a]=b",
            "redis://h",
            "redis+cluster://h:1,h:2",
            "rediss+sentinel://h:1/m",
        ] {
            let without_query = url.split('?').next().unwrap();
            assert_eq!(shown(url), without_query);
        }
        for wrong in ["sqlite:", "", "mysql://localhost", "./passkit-data"] {
            assert!(
                wrong
                    .parse::<StoreUrl>()
                    .unwrap_err()
                    .contains("sqlite:./passkit.db"),
                "{wrong}"
            );
        }
    }
}
