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
/// epoch). The result is never later than the `Date` of the answer. [`is_unchanged`] recognises the
/// result when a device sends it back.
pub(crate) fn last_modified(state: PassState, now: u64) -> HeaderValue {
    let seconds = if state.last_modified <= now {
        state.last_modified
    } else {
        stand_in(state).min(now)
    };
    let date = UNIX_EPOCH
        .checked_add(Duration::from_secs(seconds))
        .unwrap_or(UNIX_EPOCH);
    header(format_args!("{}", httpdate::HttpDate::from(date)))
}

/// Returns the date to send for a version whose own date is in the future. A version has such a
/// date if the clock was set back, or if the pass changes more than once a second.
///
/// The current time is no substitute, because the version after the next change could get the same
/// date. The result is the version's own date minus 34 years. Own dates never repeat, so the
/// results never repeat either. No pass has such an early date as its own.
fn stand_in(state: PassState) -> u64 {
    state.last_modified.saturating_sub(1 << 30)
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
/// date. A date later than `now` also counts as no date, because this service can't have sent it.
/// The device got such a date from another service, or while this service's clock was wrong.
pub(crate) fn is_unchanged(state: PassState, headers: &HeaderMap, now: u64) -> bool {
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
        .map(|date| date.as_secs())
        .is_some_and(|date| {
            date == state.last_modified
                || (state.last_modified..=now).contains(&date)
                || (date > 0 && date == stand_in(state))
        })
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
        is_unchanged(STATE, &headers, STATE.last_modified + 100)
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
            "Tue, 08 Sep 1992 18:23:37 GMT"
        );
        let far = PassState {
            last_modified: u64::MAX,
            ..STATE
        };
        assert_eq!(last_modified(far, 0), "Thu, 01 Jan 1970 00:00:00 GMT");
    }

    fn since(state: PassState, date: HeaderValue, now: u64) -> bool {
        is_unchanged(
            state,
            &[(IF_MODIFIED_SINCE, date)].into_iter().collect(),
            now,
        )
    }

    #[test]
    fn the_date_of_an_answer_is_known_again_wherever_the_clock_is() {
        let own = STATE.last_modified;
        let day = 86_400;
        for sent_at in [own, own + day, own - 1, own - day, own - 300 * day] {
            let date = last_modified(STATE, sent_at);
            for asked_at in [own + day, own, own - 1, own - 300 * day] {
                assert!(
                    since(STATE, date.clone(), asked_at),
                    "{date:?} at {asked_at}"
                );
            }
            for changed in 1..100 {
                let next = PassState {
                    version: STATE.version + changed,
                    last_modified: own + changed,
                    published: None,
                };
                assert!(
                    !since(next, date.clone(), own - day),
                    "{date:?}, then {changed}"
                );
                assert!(
                    !since(next, date.clone(), own + day),
                    "{date:?}, then {changed}"
                );
            }
        }
    }

    #[test]
    fn a_date_ahead_of_the_clock_is_no_date() {
        let date = |seconds| {
            HeaderValue::from_str(&httpdate::fmt_http_date(
                UNIX_EPOCH + Duration::from_secs(seconds),
            ))
            .unwrap()
        };
        let own = STATE.last_modified;
        for (ahead, now) in [
            (7_200, own),
            (1, own),
            (7_200, own + 7_199),
            (7_200, own - 5),
        ] {
            assert!(!since(STATE, date(own + ahead), now), "{ahead} at {now}");
        }
        assert!(since(STATE, date(own + 7_200), own + 7_200));
    }
}
