//! Colours, and the contrast between text and background.

use serde_json::{Map, Value};

use super::text;
use crate::{
    color::{self, Color},
    rules,
    walk::Walk,
};

/// The least contrast of text. This is the WCAG limit for large text.
const MIN_CONTRAST: f64 = 3.0;

/// Checks that people can read the texts on the background.
pub(crate) fn check<'a>(json: &'a Map<String, Value>, walk: &mut Walk<'a, '_>) {
    let color_of = |key| text(json, key).and_then(color::parse);
    // With this key, phones choose the colours of the texts themselves.
    if json.get("useAutomaticColors") == Some(&Value::Bool(true)) {
        return;
    }
    let Some(background) = color_of("backgroundColor") else {
        return;
    };
    for key in ["foregroundColor", "labelColor"] {
        let Some(contrast) = color_of(key).map(|color| contrast(color, background)) else {
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
    fn contrast_is_that_of_wcag() {
        let of = |one, other| format!("{:.2}", contrast(one, other));
        assert_eq!(of([0; 3], [255; 3]), "21.00");
        assert_eq!(of([255; 3], [255; 3]), "1.00");
        // WCAG's calculators accept no lighter grey for normal text on white.
        assert_eq!(of([0x76; 3], [255; 3]), "4.54");
        assert_eq!(of([255; 3], [0x95; 3]), of([0x95; 3], [255; 3]));
    }
}
