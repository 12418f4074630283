//! Colours, and the contrast between text and background.

use serde_json::{Map, Value};

use super::text;
use crate::{rules, walk::Walk};

/// The least contrast of text, by the definition of WCAG. It is that of large text.
const MIN_CONTRAST: f64 = 3.0;

/// Red, green and blue.
pub(crate) type Color = [u8; 3];

/// Reads `rgb(r, g, b)`, `rgba(r, g, b, a)`, or `#RGB`, `#RRGGBB` or `#RRGGBBAA`.
pub(crate) fn parse(text: &str) -> Option<Color> {
    let text = text.trim();
    if let Some(digits) = text.strip_prefix('#') {
        return from_digits(digits);
    }
    let (name, rest) = text.split_once('(')?;
    let name = name.trim_end();
    let has_alpha = name.eq_ignore_ascii_case("rgba");
    if !has_alpha && !name.eq_ignore_ascii_case("rgb") {
        return None;
    }
    let mut parts = rest.strip_suffix(')')?.split(',').map(str::trim);
    let mut byte = || parts.next()?.parse().ok();
    let color = [byte()?, byte()?, byte()?];
    if has_alpha {
        let alpha: f32 = parts.next()?.parse().ok()?;
        if !(0.0..=255.0).contains(&alpha) {
            return None;
        }
    }
    parts.next().is_none().then_some(color)
}

fn from_digits(digits: &str) -> Option<Color> {
    if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let number = u32::from_str_radix(digits, 16).ok()?;
    let [a, r, g, b] = number.to_be_bytes();
    match digits.len() {
        3 => Some([g & 15, b >> 4, b & 15].map(|nibble| nibble * 17)),
        6 => Some([r, g, b]),
        8 => Some([a, r, g]),
        _ => None,
    }
}

/// Checks that people can read the texts on the background.
pub(crate) fn check<'a>(json: &'a Map<String, Value>, walk: &mut Walk<'a, '_>) {
    let color = |key| text(json, key).and_then(parse);
    // With this key, phones choose the colours of texts.
    if json.get("useAutomaticColors") == Some(&Value::Bool(true)) {
        return;
    }
    let Some(background) = color("backgroundColor") else {
        return;
    };
    for key in ["foregroundColor", "labelColor"] {
        let Some(contrast) = color(key).map(|color| contrast(color, background)) else {
            continue;
        };
        if contrast < MIN_CONTRAST {
            walk.report_key(
                key,
                &rules::CONTRAST,
                format_args!(
                    "has a contrast of {contrast:.1}:1 to backgroundColor; choose colours with 3:1 or more"
                ),
            );
        }
    }
}

/// Returns the contrast ratio of two colours by WCAG 2.1, from 1 to 21.
fn contrast(one: Color, other: Color) -> f64 {
    let (one, other) = (luminance(one), luminance(other));
    (one.max(other) + 0.05) / (one.min(other) + 0.05)
}

/// Returns the relative luminance of a colour by WCAG 2.1.
fn luminance(color: Color) -> f64 {
    let [r, g, b] = color.map(|byte| {
        let share = f64::from(byte) / 255.0;
        if share <= 0.04045 {
            share / 12.92
        } else {
            ((share + 0.055) / 1.055).powf(2.4)
        }
    });
    0.2126 * r + 0.7152 * g + 0.0722 * b
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_have_one_of_three_forms() {
        for (text, color) in [
            ("rgb(1,2,3)", [1, 2, 3]),
            ("rgb( 255 , 0, 10 )", [255, 0, 10]),
            ("RGB (1, 2, 3)", [1, 2, 3]),
            ("rgba(1, 2, 3, 0.5)", [1, 2, 3]),
            ("#abc", [0xaa, 0xbb, 0xcc]),
            ("#A0B1C2", [0xa0, 0xb1, 0xc2]),
            ("#A0B1C2ff", [0xa0, 0xb1, 0xc2]),
        ] {
            assert_eq!(parse(text), Some(color), "{text}");
        }
        for text in [
            "",
            "red",
            "rgb(1,2)",
            "rgb(1,2,3,4)",
            "rgba(1,2,3)",
            "rgba(1,2,3,256)",
            "rgb(1,2,256)",
            "rgb(1,2,3",
            "#12345",
            "#ggg",
            "#+12",
            "#äb",
            "#",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn contrast_is_that_of_wcag() {
        let of = |one, other| format!("{:.2}", contrast(one, other));
        assert_eq!(of([0; 3], [255; 3]), "21.00");
        assert_eq!(of([255; 3], [255; 3]), "1.00");
        // The darkest grey that WCAG's own calculators call readable on white.
        assert_eq!(of([0x76; 3], [255; 3]), "4.54");
        assert_eq!(of([255; 3], [0x95; 3]), of([0x95; 3], [255; 3]));
    }
}
