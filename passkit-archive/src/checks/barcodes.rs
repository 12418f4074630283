//! Barcodes: formats, encodings, and the messages that a format allows.

use serde_json::{Map, Value};

use super::text;
use crate::{
    json::Step,
    rules,
    walk::{Walk, excerpt},
};

/// The formats that phones before iOS 27 show.
const OLDER: [&str; 4] = [
    "PKBarcodeFormatQR",
    "PKBarcodeFormatPDF417",
    "PKBarcodeFormatAztec",
    "PKBarcodeFormatCode128",
];

/// The formats that are new in iOS 27.
const NEWER: [&str; 4] = [
    "PKBarcodeFormatCode39",
    "PKBarcodeFormatCodabar",
    "PKBarcodeFormatEAN13",
    "PKBarcodeFormatI2of5",
];

pub(crate) fn check<'a>(json: &'a Map<String, Value>, walk: &mut Walk<'a, '_>) {
    walk.each(json, "barcodes", check_one);
    if let Some(barcode) = json.get("barcode").and_then(Value::as_object) {
        walk.within(Step::Key("barcode"), |walk| check_one(walk, barcode));
    }
    let all: Vec<&str> = json
        .get("barcodes")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .chain(json.get("barcode"))
        .filter_map(|barcode| barcode.get("format")?.as_str())
        .collect();
    if !all.is_empty() && all.iter().all(|format| NEWER.contains(format)) {
        let key = if json.contains_key("barcodes") {
            "barcodes"
        } else {
            "barcode"
        };
        walk.report_key(
            key,
            &rules::BARCODE_NEW,
            "has only formats that are new in iOS 27; add one in PKBarcodeFormatQR, PDF417, Aztec or \
             Code128 after them",
        );
    }
}

fn check_one<'a>(walk: &mut Walk<'a, '_>, barcode: &'a Map<String, Value>) {
    let format = text(barcode, "format");
    if let Some(format) = format
        && !OLDER.contains(&format)
        && !NEWER.contains(&format)
    {
        let format = excerpt(format);
        walk.report_key(
            "format",
            &rules::BARCODE_FORMAT,
            format_args!("is {format}; phones know PKBarcodeFormatQR, PDF417, Aztec and Code128"),
        );
    }
    let Some(message) = text(barcode, "message") else {
        return;
    };
    if let Some(name) = text(barcode, "messageEncoding") {
        match Encoding::named(name) {
            None => walk.report_key(
                "messageEncoding",
                &rules::BARCODE_ENCODING,
                format_args!(
                    "is {}, which this program does not know; use iso-8859-1 or utf-8",
                    excerpt(name)
                ),
            ),
            Some(encoding) => {
                if let Some(wrong) = message.chars().find(|c| !encoding.has(*c)) {
                    let wrong = excerpt(wrong.encode_utf8(&mut [0; 4]));
                    walk.report_key(
                        "message",
                        &rules::BARCODE_MESSAGE,
                        format_args!(
                            "has the character {wrong}, which {} lacks; set messageEncoding to utf-8",
                            excerpt(name)
                        ),
                    );
                }
            }
        }
    }
    if let Some(problem) = format.and_then(|format| content_problem(format, message)) {
        walk.report_key("message", &rules::BARCODE_CONTENT, problem);
    }
}

/// An encoding of barcode messages.
#[derive(Clone, Copy)]
enum Encoding {
    Ascii,
    Latin1,
    Latin9,
    Windows1252,
    /// An encoding that can write every character, or whose characters this program does not know.
    Any,
}

impl Encoding {
    /// The names of other encodings that are in use, in lower case.
    const OTHERS: [&'static str; 28] = [
        "utf-8",
        "utf8",
        "utf-16",
        "utf-16be",
        "utf-16le",
        "utf-32",
        "utf-32be",
        "utf-32le",
        "iso-8859-2",
        "iso-8859-3",
        "iso-8859-4",
        "iso-8859-5",
        "iso-8859-6",
        "iso-8859-7",
        "iso-8859-8",
        "iso-8859-9",
        "windows-1250",
        "windows-1251",
        "windows-1253",
        "windows-1254",
        "shift_jis",
        "euc-jp",
        "iso-2022-jp",
        "euc-kr",
        "gb2312",
        "gbk",
        "gb18030",
        "big5",
    ];

    fn named(name: &str) -> Option<Self> {
        let is = |names: &[&str]| names.iter().any(|other| name.eq_ignore_ascii_case(other));
        if is(&["us-ascii", "ascii", "iso646-us"]) {
            Some(Self::Ascii)
        } else if is(&[
            "iso-8859-1",
            "iso_8859-1",
            "iso8859-1",
            "iso88591",
            "latin1",
            "l1",
        ]) {
            Some(Self::Latin1)
        } else if is(&["iso-8859-15", "iso_8859-15", "latin-9"]) {
            Some(Self::Latin9)
        } else if is(&["windows-1252", "cp1252"]) {
            Some(Self::Windows1252)
        } else {
            is(&Self::OTHERS).then_some(Self::Any)
        }
    }

    /// Returns whether the encoding has this character.
    fn has(self, c: char) -> bool {
        match self {
            Self::Ascii => c.is_ascii(),
            Self::Latin1 => u32::from(c) < 0x100,
            Self::Latin9 => {
                "€ŠšŽžŒœŸ".contains(c) || u32::from(c) < 0x100 && !"¤¦¨´¸¼½¾".contains(c)
            }
            Self::Windows1252 => {
                "€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ".contains(c)
                    || u32::from(c) < 0x100 && !('\u{80}'..'\u{a0}').contains(&c)
            }
            Self::Any => true,
        }
    }
}

/// Returns why a barcode of this format can't have this message, or `None` if it can.
fn content_problem(format: &str, message: &str) -> Option<&'static str> {
    let all = |is_good: fn(char) -> bool| message.chars().all(is_good);
    let digits = all(|c| c.is_ascii_digit());
    match format {
        "PKBarcodeFormatEAN13" => {
            if !digits || !matches!(message.len(), 12 | 13) {
                Some("is not an EAN13 number; write 12 digits, or 13 with the check digit")
            } else if message.len() == 13 && !is_checked(message) {
                Some("has a wrong check digit; write the first 12 digits alone")
            } else {
                None
            }
        }
        "PKBarcodeFormatI2of5"
            if !digits || !message.len().is_multiple_of(2) || message.is_empty() =>
        {
            Some("must be an even number of digits; put a 0 in front")
        }
        "PKBarcodeFormatCodabar" if !is_codabar(message) => {
            Some("has characters that Codabar lacks; write digits and -$:/.+, between A, B, C or D")
        }
        "PKBarcodeFormatCode39"
            if message.is_empty()
                || !all(|c| {
                    c.is_ascii_digit() || c.is_ascii_uppercase() || " -.$/+%".contains(c)
                }) =>
        {
            Some(
                "has characters that Code 39 lacks; write upper-case letters, digits, blanks and -.$/+%",
            )
        }
        "PKBarcodeFormatCode128" if message.is_empty() || !message.is_ascii() => {
            Some("has characters that Code 128 lacks; write ASCII only")
        }
        _ => None,
    }
}

/// Returns whether the last of 13 digits is the check digit of the first 12.
fn is_checked(digits: &str) -> bool {
    let sum: u32 = digits
        .bytes()
        .zip([1, 3].into_iter().cycle())
        .map(|(digit, weight)| u32::from(digit - b'0') * weight)
        .sum();
    sum.is_multiple_of(10)
}

/// Returns whether a message is Codabar. The letters at the two ends are optional, but must be
/// either at both ends or at neither.
fn is_codabar(message: &str) -> bool {
    let is_end = |c: char| matches!(c.to_ascii_uppercase(), 'A'..='D');
    let inner = match message.strip_prefix(is_end) {
        Some(rest) => rest.strip_suffix(is_end),
        None => Some(message),
    };
    let is_good = |c: char| c.is_ascii_digit() || "-$:/.+".contains(c);
    inner.is_some_and(|inner| !inner.is_empty() && inner.chars().all(is_good))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_belong_to_encodings() {
        let has = |name: &str, c| Encoding::named(name).unwrap().has(c);
        for (name, good, bad) in [
            ("US-ASCII", 'A', 'ä'),
            ("iso-8859-1", 'ÿ', 'Ł'),
            ("ISO-8859-1", 'ä', '€'),
            ("iso-8859-15", '€', '¤'),
            ("windows-1252", '€', '\u{80}'),
        ] {
            assert!(has(name, good) && !has(name, bad), "{name}");
        }
        assert!(has("UTF-8", '漢') && has("shift_jis", '漢'));
        assert!(Encoding::named("iso").is_none());
    }

    #[test]
    fn messages_fit_their_format() {
        for (format, good, bad) in [
            (
                "EAN13",
                &["4006381333931", "400638133393"][..],
                &["4006381333932", "40063813339", "40063813339x", ""][..],
            ),
            ("I2of5", &["1234"], &["123", "12a4", ""]),
            (
                "Codabar",
                &["1234", "A12-3B", "a1.5d"],
                &["A123", "12E", "AB", ""],
            ),
            ("Code39", &["ABC-1 $"], &["abc", "A*", ""]),
            ("Code128", &["abc~1"], &["ä", ""]),
            ("QR", &["漢", ""], &[]),
        ] {
            let format = format!("PKBarcodeFormat{format}");
            for message in good {
                assert_eq!(
                    content_problem(&format, message),
                    None,
                    "{format} {message}"
                );
            }
            for message in bad {
                assert!(
                    content_problem(&format, message).is_some(),
                    "{format} {message}"
                );
            }
        }
    }
}
