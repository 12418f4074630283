//! Decides whether a device already has the newest version.

use std::{
    fmt::Arguments,
    io::Write as _,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use http::{
    HeaderMap, HeaderValue,
    header::{IF_MODIFIED_SINCE, IF_NONE_MATCH},
};

use crate::PassState;

/// Returns the `ETag` of a version. It is strong, and differs after each mark.
pub(crate) fn etag(state: PassState) -> HeaderValue {
    header(format_args!(
        "\"{:x}-{:x}\"",
        state.version, state.last_modified
    ))
}

/// Returns the `Last-Modified` of a version that is sent at `now` (whole seconds since the Unix
/// epoch). It is never later than the `Date` of the answer.
pub(crate) fn last_modified(state: PassState, now: u64) -> HeaderValue {
    let date = UNIX_EPOCH
        .checked_add(Duration::from_secs(state.last_modified.min(now)))
        .unwrap_or(UNIX_EPOCH);
    header(format_args!("{}", httpdate::HttpDate::from(date)))
}

/// Makes a header value from printable ASCII of at most 64 bytes. An `ETag` and a date fit.
fn header(text: Arguments<'_>) -> HeaderValue {
    let mut buffer = [0; 64];
    let mut left = &mut buffer[..];
    let written = left.write_fmt(text);
    let length = 64 - left.len();
    debug_assert!(written.is_ok());
    HeaderValue::from_bytes(&buffer[..length]).unwrap_or(HeaderValue::from_static(""))
}

/// Returns whether the request shows that the device has the version of `state`.
///
/// If `If-None-Match` is present, it alone decides. Text that is not an HTTP date counts as no
/// date.
pub(crate) fn is_unchanged(state: PassState, headers: &HeaderMap) -> bool {
    if headers.contains_key(IF_NONE_MATCH) {
        let etag = etag(state);
        return headers
            .get_all(IF_NONE_MATCH)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .map(|tag| tag.trim())
            .any(|tag| tag == "*" || etag == tag.strip_prefix("W/").unwrap_or(tag));
    }
    headers
        .get(IF_MODIFIED_SINCE)
        .and_then(|value| httpdate::parse_http_date(value.to_str().ok()?).ok())
        .and_then(|date: SystemTime| date.duration_since(UNIX_EPOCH).ok())
        .is_some_and(|date| state.last_modified <= date.as_secs())
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    const STATE: PassState = PassState {
        version: 0xabc,
        last_modified: 1_789_718_441,
        published: None,
    };

    fn unchanged(headers: &[(HeaderName, &'static str)]) -> bool {
        let headers = headers
            .iter()
            .map(|(name, value)| (name.clone(), HeaderValue::from_static(value)))
            .collect();
        is_unchanged(STATE, &headers)
    }

    #[test]
    fn only_the_three_http_date_forms_are_read() {
        for same in [
            "Fri, 18 Sep 2026 08:00:41 GMT",
            "Friday, 18-Sep-26 08:00:41 GMT",
            "Fri Sep 18 08:00:41 2026",
        ] {
            assert!(unchanged(&[(IF_MODIFIED_SINCE, same)]), "{same}");
        }
        for other in [
            "Fri, 18 Sep 2026 08:00:40 GMT",
            "1789718441",
            "garbage",
            "",
            "2026-09-18T08:00:41Z",
        ] {
            assert!(!unchanged(&[(IF_MODIFIED_SINCE, other)]), "{other}");
        }
        assert!(!unchanged(&[]));
    }

    #[test]
    fn etags_take_precedence() {
        let date = (IF_MODIFIED_SINCE, "Fri, 18 Sep 2026 08:00:41 GMT");
        assert!(!unchanged(&[(IF_NONE_MATCH, "\"other\""), date.clone()]));
        for same in ["\"abc-6aacefa9\"", "\"x\", W/\"abc-6aacefa9\"", "*"] {
            assert!(
                unchanged(&[(IF_NONE_MATCH, same)]),
                "{same} is not {:?}",
                etag(STATE)
            );
        }
    }

    #[test]
    fn a_date_is_never_later_than_now() {
        assert_eq!(
            last_modified(STATE, STATE.last_modified + 9),
            "Fri, 18 Sep 2026 08:00:41 GMT"
        );
        assert_eq!(
            last_modified(STATE, STATE.last_modified - 1),
            "Fri, 18 Sep 2026 08:00:40 GMT"
        );
        assert_eq!(
            last_modified(
                PassState {
                    version: 0,
                    last_modified: u64::MAX,
                    published: None
                },
                0
            ),
            "Thu, 01 Jan 1970 00:00:00 GMT"
        );
    }
}
