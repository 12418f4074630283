//! Arithmetic of versions and dates, for implementations of
//! [`RegistrationStore`](crate::store::RegistrationStore).

use std::time::{SystemTime, UNIX_EPOCH};

/// Returns the wall clock in microseconds since the Unix epoch.
#[must_use]
pub fn now_micros() -> u64 {
    micros(SystemTime::now())
}

/// Converts a time to microseconds since the Unix epoch. An earlier time gives 0.
#[must_use]
pub fn micros(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |d| u64::try_from(d.as_micros()).unwrap_or(u64::MAX))
}

/// Returns the version that follows `last` at the time `now`, both in microseconds. It is always
/// greater than `last`, even if the wall clock was set back.
#[must_use]
pub fn next_version(last: u64, now: u64) -> u64 {
    now.max(last.saturating_add(1))
}

/// Returns the `last_modified` of a pass that changes at `now_micros`. `previous` and the result
/// are in whole seconds. The result is always greater than `previous`, so that no two versions of a
/// pass share a date.
#[must_use]
pub fn next_last_modified(previous: u64, now_micros: u64) -> u64 {
    (now_micros / 1_000_000).max(previous.saturating_add(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_and_dates_always_increase() {
        assert_eq!(next_version(10, 20), 20);
        assert_eq!(next_version(20, 20), 21);
        assert_eq!(next_version(30, 20), 31);
        assert_eq!(next_last_modified(10, 20_999_999), 20);
        assert_eq!(next_last_modified(20, 20_999_999), 21);
        assert_eq!(next_last_modified(30, 20_999_999), 31);
    }

    #[test]
    fn a_time_before_the_epoch_is_zero() {
        assert_eq!(micros(UNIX_EPOCH - std::time::Duration::from_secs(1)), 0);
    }
}
