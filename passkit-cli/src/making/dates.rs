//! Dates as people write them in tables, and as phones read them.

use jiff::{
    civil::{DateTime, Time},
    fmt::temporal::Pieces,
    tz::{AmbiguousOffset, Offset, TimeZone},
};

/// Finds a time zone by its name, such as `Europe/Berlin`.
pub(super) fn zone(name: &str) -> Result<TimeZone, String> {
    TimeZone::get(name).map_err(|_| {
        format!("{name:?} is not a time zone; use a name such as Europe/Berlin or UTC")
    })
}

/// Writes a date in the W3C format: `2026-11-27T10:00:00+01:00`.
///
/// The text is a date, or a date with a time and perhaps an offset. A date alone means midnight. If the
/// text has no offset, its time is local time in `zone`. If the text has an offset, the result is the
/// same moment, written in `zone`. When clocks are set back, some times occur twice. Such a text means
/// the first occurrence.
pub(super) fn to_w3c(text: &str, zone: Option<&TimeZone>) -> Result<String, String> {
    let text = text.trim();
    let pieces = Pieces::parse(text)
        .ok()
        .filter(|pieces| pieces.time_zone_annotation().is_none());
    let Some(pieces) = pieces else {
        return Err(
            "is not a date; write it as 2026-11-27, 2026-11-27 10:00 or 2026-11-27T10:00:00+01:00"
                .into(),
        );
    };
    let time = DateTime::from_parts(pieces.date(), pieces.time().unwrap_or(Time::midnight()));
    if !(1..=9999).contains(&time.year()) {
        return Err("is too long ago".into());
    }
    let is_utc = text.ends_with(['Z', 'z']);
    let (time, offset) = match (pieces.to_numeric_offset(), zone) {
        (Some(offset), None) => (time, offset),
        (Some(offset), Some(zone)) => {
            let moment = offset
                .to_timestamp(time)
                .map_err(|error| error.to_string())?;
            let offset = zone.to_offset(moment);
            (offset.to_datetime(moment), offset)
        }
        (None, Some(zone)) => (time, offset_in(zone, time)?),
        (None, None) => {
            return Err(
                "has no time zone; write an offset such as +01:00 after it, or add zone = \"Europe/Berlin\" to passkit.toml"
                    .into(),
            );
        }
    };
    let mut written = time.strftime("%Y-%m-%dT%H:%M:%S").to_string();
    if is_utc && zone.is_none() {
        written.push('Z');
    } else {
        // Phones read hours and minutes only. Offsets with seconds ended a century ago.
        let seconds = offset.seconds();
        let sign = if seconds < 0 { '-' } else { '+' };
        let minutes = seconds.abs() / 60;
        written.push_str(&format!("{sign}{:02}:{:02}", minutes / 60, minutes % 60));
    }
    Ok(written)
}

fn offset_in(zone: &TimeZone, time: DateTime) -> Result<Offset, String> {
    match zone.to_ambiguous_timestamp(time).offset() {
        AmbiguousOffset::Unambiguous { offset } => Ok(offset),
        AmbiguousOffset::Fold { before, .. } => Ok(before),
        AmbiguousOffset::Gap { .. } => {
            let name = zone.iana_name().unwrap_or("this time zone");
            Err(format!(
                "does not exist in {name}, where clocks are set forward at that time; write another time"
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_as_phones_read_them() {
        let berlin = zone("Europe/Berlin").unwrap();
        let kolkata = zone("Asia/Kolkata").unwrap();
        for (text, zone, written) in [
            ("2026-11-27", Some(&berlin), "2026-11-27T00:00:00+01:00"),
            ("2026-06-01", Some(&berlin), "2026-06-01T00:00:00+02:00"),
            (
                " 2026-11-27 10:00 ",
                Some(&berlin),
                "2026-11-27T10:00:00+01:00",
            ),
            (
                "2026-11-27T10:00:30.5",
                Some(&kolkata),
                "2026-11-27T10:00:30+05:30",
            ),
            (
                "2026-11-27T10:00Z",
                Some(&berlin),
                "2026-11-27T11:00:00+01:00",
            ),
            (
                "2026-11-27T10:00:00-07:00",
                Some(&berlin),
                "2026-11-27T18:00:00+01:00",
            ),
            ("2026-11-27T10:00:00Z", None, "2026-11-27T10:00:00Z"),
            (
                "2026-11-27T10:00:00-0330",
                None,
                "2026-11-27T10:00:00-03:30",
            ),
            // Clocks are set back, so this time occurs twice. The text means the first occurrence.
            (
                "2026-10-25T02:30",
                Some(&berlin),
                "2026-10-25T02:30:00+02:00",
            ),
        ] {
            assert_eq!(to_w3c(text, zone).as_deref(), Ok(written), "{text}");
        }
    }

    #[test]
    fn a_text_that_names_no_moment_is_refused() {
        let berlin = zone("Europe/Berlin").unwrap();
        for (text, zone, reason) in [
            ("27.11.2026", Some(&berlin), "is not a date"),
            ("", Some(&berlin), "is not a date"),
            ("2026-02-30", Some(&berlin), "is not a date"),
            ("2026-11-27T25:00", Some(&berlin), "is not a date"),
            (
                "2026-11-27T10:00[Europe/Berlin]",
                Some(&berlin),
                "is not a date",
            ),
            ("-000001-01-01", Some(&berlin), "too long ago"),
            ("2026-11-27", None, "has no time zone"),
            ("2026-11-27T10:00", None, "has no time zone"),
            (
                "2026-03-29T02:30",
                Some(&berlin),
                "does not exist in Europe/Berlin",
            ),
        ] {
            let error = to_w3c(text, zone).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
        assert!(
            super::zone("Europe/Berlim")
                .unwrap_err()
                .contains("is not a time zone")
        );
    }
}
