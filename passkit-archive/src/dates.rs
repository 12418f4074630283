/// Returns whether a text is a date that phones can read: `YYYY-MM-DDThh:mm`, then optional seconds
/// with optional fractions, then `Z` or an offset such as `+hh:mm`. The lengths of months are not
/// checked.
pub(crate) fn is_date(text: &str) -> bool {
    /// Removes a number from the start of the text. Returns whether it has this many digits and is
    /// in this range.
    fn number(text: &mut &str, digits: usize, range: std::ops::RangeInclusive<u32>) -> bool {
        let Some((number, rest)) = text.split_at_checked(digits) else {
            return false;
        };
        *text = rest;
        number.bytes().all(|byte| byte.is_ascii_digit())
            && number.parse().is_ok_and(|number| range.contains(&number))
    }
    fn separator(text: &mut &str, separators: &[char]) -> bool {
        let rest = text.strip_prefix(separators);
        *text = rest.unwrap_or(text);
        rest.is_some()
    }

    fn fraction(text: &mut &str) -> bool {
        !separator(text, &['.']) || {
            let digits = text.len();
            *text = text.trim_start_matches(|c: char| c.is_ascii_digit());
            text.len() < digits
        }
    }

    let mut rest = text;
    let rest = &mut rest;
    let date_time = number(rest, 4, 0..=9999)
        && separator(rest, &['-'])
        && number(rest, 2, 1..=12)
        && separator(rest, &['-'])
        && number(rest, 2, 1..=31)
        && separator(rest, &['T', 't'])
        && number(rest, 2, 0..=23)
        && separator(rest, &[':'])
        && number(rest, 2, 0..=59)
        && (!separator(rest, &[':']) || number(rest, 2, 0..=60) && fraction(rest));

    let offset = separator(rest, &['Z', 'z'])
        || separator(rest, &['+', '-'])
            && number(rest, 2, 0..=23)
            && separator(rest, &[':'])
            && number(rest, 2, 0..=59);
    date_time && offset && rest.is_empty()
}

#[cfg(test)]
mod tests {
    use super::is_date;

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
