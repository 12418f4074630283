//! Values of fields, as a phone writes them: dates, numbers and amounts of money.

use jiff::civil::{Date, Time};
use passkit_archive::read_date;
use serde_json::{Map, Value};

use crate::language::{Language, Length};

/// Returns the value of a field as text. Returns `None` for other kinds of values.
pub(crate) fn shown(field: &Map<String, Value>, language: &Language) -> Option<String> {
    let style = |key: &str| field.get(key).and_then(Value::as_str);
    match field.get("value")? {
        Value::String(value) => {
            let (date, time) = (style("dateStyle"), style("timeStyle"));
            let dated = (date.is_some() || time.is_some())
                .then(|| moment(value, date, time, language))
                .flatten();
            Some(dated.unwrap_or_else(|| language.translate(value).to_owned()))
        }
        Value::Number(number) => {
            let value = number.as_f64()?;
            Some(match (style("currencyCode"), style("numberStyle")) {
                (Some(currency), _) => money(value, currency, language),
                (_, Some("PKNumberStyleDecimal")) => decimal(value, 0, 3, language),
                (_, Some("PKNumberStylePercent")) => percent(value, language),
                (_, Some("PKNumberStyleScientific")) => format!("{value:E}"),
                // A phone spells out some numbers. The picture has digits instead.
                _ => number.to_string(),
            })
        }
        _ => None,
    }
}

/// Formats a W3C date with its own offset, because the time zone of the phone is unknown. Returns
/// `None` if the text is not such a date.
pub(crate) fn moment(
    text: &str,
    date_style: Option<&str>,
    time_style: Option<&str>,
    language: &Language,
) -> Option<String> {
    let (date, time) = read(text)?;
    let date = length(date_style).map(|length| language.date(date, length));
    let time = length(time_style).map(|length| clock(time, length, language));
    let parts: Vec<String> = date.into_iter().chain(time).collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// Reads the date and the time of day that a text has, without its offset.
pub(crate) fn read(text: &str) -> Option<(Date, Time)> {
    read_date(text)?;
    let part = |range: std::ops::Range<usize>| text.get(range)?.parse::<i16>().ok();
    let small = |range| part(range).and_then(|number| i8::try_from(number).ok());
    let date = Date::new(part(0..4)?, small(5..7)?, small(8..10)?).ok()?;
    // Seconds may be missing.
    let second = small(17..19).filter(|_| text.get(16..17) == Some(":"));
    let second = second.unwrap_or_default().min(59);
    let time = Time::new(small(11..13)?, small(14..16)?, second, 0).ok()?;
    Some((date, time))
}

fn length(style: Option<&str>) -> Option<Length> {
    match style? {
        "PKDateStyleShort" => Some(Length::Short),
        "PKDateStyleMedium" => Some(Length::Medium),
        "PKDateStyleLong" => Some(Length::Long),
        "PKDateStyleFull" => Some(Length::Full),
        _ => None,
    }
}

pub(crate) fn clock(time: Time, length: Length, language: &Language) -> String {
    let (hour, minute, second) = (time.hour(), time.minute(), time.second());
    let seconds = match length {
        Length::Short => String::new(),
        _ => format!(":{second:02}"),
    };
    if !language.has_twelve_hours() {
        return format!("{hour:02}:{minute:02}{seconds}");
    }
    let half = if hour < 12 { "AM" } else { "PM" };
    let hour = (hour + 11) % 12 + 1;
    format!("{hour}:{minute:02}{seconds} {half}")
}

/// Writes an amount of money.
pub(crate) fn money(value: f64, currency: &str, language: &Language) -> String {
    let currency = currency.to_ascii_uppercase();
    let digits = match &*currency {
        "CLP" | "HUF" | "ISK" | "JPY" | "KRW" | "PYG" | "VND" | "XAF" | "XOF" => 0,
        "BHD" | "IQD" | "JOD" | "KWD" | "OMR" | "TND" => 3,
        _ => 2,
    };
    let sign = match &*currency {
        "EUR" => "€",
        "GBP" => "£",
        "INR" => "₹",
        "JPY" => "¥",
        "KRW" => "₩",
        "USD" => "$",
        code => code,
    };
    let amount = decimal(value.abs(), digits, digits, language);
    let minus = if value < 0.0 { "-" } else { "" };
    let is_letters = sign.chars().all(|c| c.is_ascii_alphabetic());
    match (language.sign_is_first(), is_letters) {
        (true, false) => format!("{minus}{sign}{amount}"),
        (true, true) => format!("{minus}{sign}\u{a0}{amount}"),
        (false, _) => format!("{minus}{amount}\u{a0}{sign}"),
    }
}

fn percent(value: f64, language: &Language) -> String {
    let space = if language.sign_is_first() {
        ""
    } else {
        "\u{a0}"
    };
    format!("{}{space}%", decimal(value * 100.0, 0, 0, language))
}

/// Writes a number with groups of three digits, and with `least` to `most` digits after the point.
fn decimal(value: f64, least: usize, most: usize, language: &Language) -> String {
    let (group, point) = language.separators();
    // A huge number would have hundreds of digits.
    if value.abs() >= 1e18 {
        return format!("{value:E}");
    }
    let plain = format!("{:.most$}", value.abs());
    let (whole, fraction) = plain.split_once('.').unwrap_or((&plain, ""));
    let mut fraction = fraction.to_owned();
    while fraction.len() > least && fraction.ends_with('0') {
        fraction.pop();
    }
    let mut grouped = String::new();
    if value < 0.0 {
        grouped.push('-');
    }
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) {
            grouped.push(group);
        }
        grouped.push(digit);
    }
    if !fraction.is_empty() {
        grouped.push(point);
        grouped.push_str(&fraction);
    }
    grouped
}
