//! Finds the endpoint of a path.
//!
//! This module parses the raw path, because a serial number may contain slashes, raw or encoded. A
//! router would split such a path differently.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use crate::identifiers::{Kind, SerialNumber};

/// An endpoint with the identifiers of the path, still encoded.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Route<'a> {
    /// `/v1/devices/{device}/registrations/{type}/{serial}`
    Registration {
        device: &'a str,
        type_id: &'a str,
        serial: &'a str,
    },
    /// `/v1/devices/{device}/registrations/{type}`
    Updatable { device: &'a str, type_id: &'a str },
    /// `/v1/passes/{type}/{serial}` and `/v1/orders/{type}/{serial}`
    Latest {
        kind: Kind,
        type_id: &'a str,
        serial: &'a str,
    },
    /// `/v1/log`
    Log,
}

impl<'a> Route<'a> {
    /// Finds the endpoint of a path. Accepts one trailing slash. Accepts any number of leading
    /// slashes, because clients join `https://host/` and `/v1`.
    pub(crate) fn of(path: &'a str) -> Option<Self> {
        let path = path.trim_start_matches('/').strip_prefix("v1/")?;
        if matches!(path, "log" | "log/") {
            return Some(Self::Log);
        }
        let (collection, path) = path.split_once('/')?;
        if collection == "devices" {
            let (device, path) = path.split_once('/')?;
            let path = path.strip_prefix("registrations/")?;
            let (type_id, serial) = path.split_once('/').unwrap_or((path, ""));
            if device.is_empty() || type_id.is_empty() {
                return None;
            }
            return Some(if serial.is_empty() {
                Self::Updatable { device, type_id }
            } else {
                Self::Registration {
                    device,
                    type_id,
                    serial,
                }
            });
        }
        let kind = Kind::ALL
            .into_iter()
            .find(|kind| kind.collection() == collection)?;
        let (type_id, serial) = path.split_once('/')?;
        (!type_id.is_empty() && !serial.is_empty()).then_some(Self::Latest {
            kind,
            type_id,
            serial,
        })
    }

    /// Returns whether a path would be the path of an endpoint if its first parts were removed.
    pub(crate) fn is_below_a_prefix(path: &str) -> bool {
        path.match_indices("/v1/")
            .take(8)
            .any(|(at, _)| Route::of(path.get(at..).unwrap_or_default()).is_some())
    }

    /// Returns the methods of the endpoint, for the `Allow` header.
    pub(crate) fn allowed_methods(&self) -> &'static str {
        match self {
            Self::Registration { .. } => "POST, DELETE",
            // The end of the path may also be the end of a serial number with slashes.
            Self::Latest {
                kind: Kind::Pass,
                serial,
                ..
            } if enrolled_serial(serial).is_some() => "GET, HEAD, POST",
            Self::Updatable { .. } | Self::Latest { .. } => "GET, HEAD",
            Self::Log => "POST",
        }
    }
}

/// Returns the serial number of `{serial}/personalize`, still encoded.
pub(crate) fn enrolled_serial(serial: &str) -> Option<&str> {
    let serial = serial.strip_suffix('/').unwrap_or(serial);
    serial
        .strip_suffix("/personalize")
        .filter(|serial| !serial.is_empty())
}

/// The error for a `%` that starts no escape, or for escapes that are not UTF-8.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct MalformedEscape;

/// Decodes a path segment or query value once. A `+` remains a `+`.
pub(crate) fn decode(text: &str) -> Result<Cow<'_, str>, MalformedEscape> {
    let mut rest = text.as_bytes();
    if !rest.iter().fold(false, |so_far, b| so_far | (*b == b'%')) {
        return Ok(text.into());
    }
    while let Some(at) = rest.iter().position(|b| *b == b'%') {
        match &rest[at + 1..] {
            [high, low, tail @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                rest = tail
            }
            _ => return Err(MalformedEscape),
        }
    }
    percent_decode_str(text)
        .decode_utf8()
        .map_err(|_| MalformedEscape)
}

/// The serial numbers that the encoded end of a path may mean.
pub(crate) struct SerialCandidates {
    /// The likeliest comes first. This is an array, because an array needs no allocation.
    serials: [Option<SerialNumber>; 5],
    /// Whether the text has a malformed escape. If so, either the escape is part of the serial
    /// number, or the request is wrong.
    pub(crate) is_malformed: bool,
}

impl SerialCandidates {
    pub(crate) fn serials(self) -> impl Iterator<Item = SerialNumber> {
        self.serials.into_iter().flatten()
    }
}

/// Returns the serial numbers that the encoded end of a path may mean.
///
/// A trailing slash usually comes from the client, but may belong to the serial number. Some
/// clients encode twice, and some not at all. The token of the request decides which serial number
/// is meant.
pub(crate) fn serial_candidates(raw: &str) -> SerialCandidates {
    let trimmed = raw.strip_suffix('/').unwrap_or(raw);
    let has_slash = trimmed.len() < raw.len();
    let once = decode(trimmed);
    let is_malformed = once.is_err();
    let valid = |text: &str| SerialNumber::new(text).ok();
    let mut serials = [None, None, None, None, None];
    if let Ok(once) = once {
        serials[0] = valid(&once);
        if has_slash {
            serials[1] = valid(&format!("{once}/"));
        }
        if once.contains('%')
            && let Ok(twice) = decode(&once)
        {
            serials[2] = valid(&twice);
        }
    }
    if trimmed.contains('%') {
        serials[3] = valid(trimmed);
        if has_slash {
            serials[4] = valid(raw);
        }
    }
    for i in 1..serials.len() {
        if serials[..i].contains(&serials[i]) {
            serials[i] = None;
        }
    }
    SerialCandidates {
        serials,
        is_malformed,
    }
}

/// Returns the value of the first parameter `name` of a raw query, still encoded.
pub(crate) fn query_value<'a>(query: Option<&'a str>, name: &str) -> Option<&'a str> {
    query?
        .split('&')
        .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the path of an endpoint in the document of the HTTP interface.
    fn template(route: &Route<'_>) -> &'static str {
        match route {
            Route::Registration { .. } => "/v1/devices/{device}/registrations/{type}/{serial}",
            Route::Updatable { .. } => "/v1/devices/{device}/registrations/{type}",
            Route::Latest { kind, .. } => match kind {
                Kind::Pass => "/v1/passes/{type}/{serial}",
                Kind::Order => "/v1/orders/{type}/{serial}",
            },
            Route::Log => "/v1/log",
        }
    }

    #[test]
    fn every_endpoint_is_documented() {
        let document = include_str!("../../docs/openapi.yaml");
        for path in [
            "/v1/devices/D/registrations/pass.a/S",
            "/v1/devices/D/registrations/pass.a",
            "/v1/passes/pass.a/S",
            "/v1/orders/order.a/S",
            "/v1/log",
        ] {
            let template = template(&Route::of(path).unwrap());
            assert!(
                document.contains(&format!("\n  {template}:\n")),
                "{template}"
            );
        }
    }

    #[test]
    fn paths_name_endpoints() {
        let registration = |serial| {
            Some(Route::Registration {
                device: "D",
                type_id: "pass.a",
                serial,
            })
        };
        assert_eq!(
            Route::of("/v1/devices/D/registrations/pass.a/S"),
            registration("S")
        );
        assert_eq!(
            Route::of("//v1/devices/D/registrations/pass.a/a/b//c/"),
            registration("a/b//c/")
        );
        assert_eq!(
            Route::of("/v1/devices/D/registrations/pass.a/%2F"),
            registration("%2F")
        );
        let updatable = Some(Route::Updatable {
            device: "D",
            type_id: "pass.a",
        });
        assert_eq!(Route::of("/v1/devices/D/registrations/pass.a"), updatable);
        assert_eq!(Route::of("/v1/devices/D/registrations/pass.a/"), updatable);
        for kind in Kind::ALL {
            let path = format!("/v1/{}/T/S/1", kind.collection());
            assert_eq!(
                Route::of(&path),
                Some(Route::Latest {
                    kind,
                    type_id: "T",
                    serial: "S/1"
                })
            );
        }
        assert_eq!(Route::of("/v1/log"), Some(Route::Log));
        assert_eq!(Route::of("/v1/log/"), Some(Route::Log));
        for path in [
            "",
            "/",
            "/v1",
            "/v1/",
            "/v2/log",
            "/x/v1/log",
            "/v1/log/x",
            "/v1/devices/D",
            "/v1/devices//registrations/T",
            "/v1/devices/D/registrations/",
            "/v1/devices/D/registrations//S",
            "/v1/passes/T",
            "/v1/passes/T/",
            "/v1/passes//S",
            "/v1/coupons/T/S",
        ] {
            assert_eq!(Route::of(path), None, "{path:?}");
        }
    }

    #[test]
    fn serials_are_read_every_way_a_client_may_have_meant() {
        let read = |raw| {
            let candidates = serial_candidates(raw);
            let is_malformed = candidates.is_malformed;
            let serials: Vec<_> = candidates
                .serials()
                .map(|serial| serial.to_string())
                .collect();
            (serials.join(" "), is_malformed)
        };
        for (raw, serials) in [
            ("a", "a"),
            ("a/b%2Fc", "a/b/c a/b%2Fc"),
            ("a/", "a a/"),
            ("a%2F", "a/ a%2F"),
            ("a%2520b", "a%20b a b a%2520b"),
            ("100%25", "100% 100%25"),
            ("a+b", "a+b"),
            ("AN%2bg8", "AN+g8 AN%2bg8"),
            ("AN%2bg8/", "AN+g8 AN+g8/ AN%2bg8 AN%2bg8/"),
            ("%00", "%00"),
        ] {
            assert_eq!(read(raw), (serials.to_owned(), false), "{raw:?}");
        }
        for raw in ["%", "%4", "%zz", "%ff", "a%C3", "100%", "5%/x"] {
            assert_eq!(read(raw), (raw.to_owned(), true), "{raw:?}");
        }
    }

    #[test]
    fn the_first_parameter_wins() {
        assert_eq!(
            query_value(Some("x=1&since=a=b&since=c"), "since"),
            Some("a=b")
        );
        assert_eq!(query_value(Some("since="), "since"), Some(""));
        assert_eq!(query_value(Some("sincere=1&since"), "since"), None);
        assert_eq!(query_value(None, "since"), None);
    }
}
