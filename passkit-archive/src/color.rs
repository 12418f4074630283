//! Reads colours.

/// Red, green and blue.
pub(crate) type Color = [u8; 3];

/// Reads a colour as phones read `backgroundColor`: `rgb(r, g, b)`, `rgba(r, g, b, a)`, or `#RGB`,
/// `#RRGGBB` or `#RRGGBBAA`. Returns red, green and blue.
#[must_use]
pub fn parse(text: &str) -> Option<Color> {
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
}
