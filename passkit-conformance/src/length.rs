//! Reads how long the long cases take.

use std::time::Duration;

/// The environment variable with the time that the long case takes.
pub(crate) const VARIABLE: &str = "PASSKIT_CONFORMANCE_FOR";

/// Returns the time that the long case takes. The default is one second. It also applies if the
/// variable can't be read.
pub(crate) fn time() -> Duration {
    given().ok().flatten().unwrap_or(Duration::from_secs(1))
}

/// Returns the time in the variable, or its text if the text is not a time.
pub(crate) fn given() -> Result<Option<Duration>, String> {
    match std::env::var(VARIABLE) {
        Ok(text) => read(&text).map(Some).ok_or(text),
        Err(_) => Ok(None),
    }
}

/// Reads a time such as `90s`, `10m` or `2h`.
pub(crate) fn read(text: &str) -> Option<Duration> {
    let text = text.trim();
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        _ => return None,
    };
    let number: u64 = number.parse().ok()?;
    Some(Duration::from_secs(number.checked_mul(seconds)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_a_unit() {
        let seconds = |text| read(text).map(|time| time.as_secs());
        assert_eq!(seconds("90s"), Some(90));
        assert_eq!(seconds("10m"), Some(600));
        assert_eq!(seconds("2h"), Some(7_200));
        for text in [
            "",
            "s",
            "10",
            "1.5m",
            "-1s",
            "10d",
            "\u{661}s",
            "99999999999999999999h",
        ] {
            assert_eq!(seconds(text), None, "{text:?}");
        }
    }
}
