use std::time::{Duration, SystemTime};

pub(crate) const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A certificate should be renewed this long before it expires.
pub(crate) const RENEWAL: Duration = DAY.saturating_mul(90);

/// Returns whether a text is a date that phones can read.
pub(crate) fn is_date(text: &str) -> bool {
    parse(text).is_some()
}

/// Returns the seconds since 1970.
pub(crate) fn now() -> Duration {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or(Duration::ZERO)
}

/// Writes the day of a time since 1970.
pub(crate) fn date(time: Duration) -> String {
    match der::DateTime::from_unix_duration(time) {
        Ok(time) => format!("{}-{:02}-{:02}", time.year(), time.month(), time.day()),
        Err(_) => "a day after 9999".into(),
    }
}

/// Reads a date as phones read `expirationDate`: `YYYY-MM-DDThh:mm`, then optional seconds, then `Z`
/// or an offset such as `+01:00`. Fractions of a second are left out.
#[must_use]
pub fn time(text: &str) -> Option<SystemTime> {
    let seconds = parse(text)?;
    let distance = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(distance)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(distance)
    }
}

/// Reads a date that phones can read: `YYYY-MM-DDThh:mm`, then optional seconds with optional
/// fractions, then `Z` or an offset such as `+hh:mm`. The lengths of months are not checked.
///
/// Returns the seconds since 1970, rounded down.
pub(crate) fn parse(text: &str) -> Option<i64> {
    let mut rest = text;
    let rest = &mut rest;
    let year = number(rest, 4, 9999)?;
    separator(rest, &['-'])?;
    let month = number(rest, 2, 12).filter(|month| *month > 0)?;
    separator(rest, &['-'])?;
    let day = number(rest, 2, 31).filter(|day| *day > 0)?;
    separator(rest, &['T', 't'])?;
    let hour = number(rest, 2, 23)?;
    separator(rest, &[':'])?;
    let minute = number(rest, 2, 59)?;
    let mut second = 0;
    if separator(rest, &[':']).is_some() {
        second = number(rest, 2, 60)?;
        if separator(rest, &['.']).is_some() {
            let digits = rest.len();
            *rest = rest.trim_start_matches(|c: char| c.is_ascii_digit());
            if rest.len() == digits {
                return None;
            }
        }
    }
    let offset = if separator(rest, &['Z', 'z']).is_some() {
        0
    } else {
        let sign = if separator(rest, &['+']).is_some() {
            1
        } else {
            separator(rest, &['-'])?;
            -1
        };
        let hours = number(rest, 2, 23)?;
        separator(rest, &[':'])?;
        sign * (hours * 60 + number(rest, 2, 59)?)
    };
    let minutes = (days(year, month, day) * 24 + hour) * 60 + minute - offset;
    rest.is_empty().then_some(minutes * 60 + second)
}

/// Removes a number from the start of the text, if it has this many digits and is not above `max`.
fn number(text: &mut &str, digits: usize, max: i64) -> Option<i64> {
    let (number, rest) = text.split_at_checked(digits)?;
    *text = rest;
    let is_plain = number.bytes().all(|byte| byte.is_ascii_digit());
    let number = number.parse().ok()?;
    (is_plain && number <= max).then_some(number)
}

/// Removes one of these characters from the start of the text.
fn separator(text: &mut &str, separators: &[char]) -> Option<()> {
    *text = text.strip_prefix(separators)?;
    Some(())
}

/// Returns the days from 1970 to a day of the Gregorian calendar.
fn days(year: i64, month: i64, day: i64) -> i64 {
    // The year starts in March, so that the leap day is its last day.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    // 719468 is the number of days from 1 March of the year 0 to 1 January 1970.
    year * 365 + leap_days + (153 * month + 2) / 5 + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::{is_date, parse, time};

    #[test]
    fn a_date_is_a_time_before_or_after_1970() {
        let second = Duration::from_secs(1);
        let epoch = SystemTime::UNIX_EPOCH;
        assert_eq!(time("1970-01-01T00:00:01.9Z"), Some(epoch + second));
        assert_eq!(time("1969-12-31T23:59:59Z"), Some(epoch - second));
        assert_eq!(time("tomorrow"), None);
    }

    #[test]
    fn dates_are_counted_from_1970() {
        for (text, seconds) in [
            ("1970-01-01T00:00Z", 0),
            ("1969-12-31T23:59:59Z", -1),
            ("2000-02-29T12:00:00.9Z", 951_825_600),
            ("2000-03-01T00:00+01:00", 951_865_200),
            ("2026-11-28T01:34:25-08:00", 1_795_858_465),
            ("0000-01-01T00:00Z", -62_167_219_200),
        ] {
            assert_eq!(parse(text), Some(seconds), "{text}");
        }
    }

    #[test]
    fn dates_have_an_offset_with_a_colon() {
        for text in [
            "2022-12-31T23:59:60Z",
            "2022-01-01T00:00Z",
            "2022-01-01t00:00:00.123456789z",
            "2022-01-01T00:00:00+05:45",
            "2022-01-01T00:00:00.5-08:00",
        ] {
            assert!(is_date(text), "{text}");
        }
        for text in [
            "",
            "2022-01-01",
            "2022-01-01T00:00:00",
            "2022-01-01T00:00",
            "2022-01-01T00:00.5Z",
            "2022-01-01 00:00:00Z",
            "2022-13-01T00:00:00Z",
            "2022-01-01T24:00:00Z",
            "2022-01-01T00:00:00.Z",
            "2022-01-01T00:00:00+0100",
            "2022-01-01T00:00:00-7:00",
            "2022-01-01T00:00:00+01",
            "2022-01-01T00:00:00ZZ",
            "2022-01-01T00:00:00Z ",
            "+022-01-01T00:00:00Z",
            "2022-ä-01T00:00:00Z",
        ] {
            assert!(!is_date(text), "{text}");
        }
    }
}
