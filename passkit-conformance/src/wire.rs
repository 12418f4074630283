//! Reads and checks answers: lists, media types and dates.

use std::{
    collections::HashSet,
    fmt::{self, Display, Write as _},
};

use http::{HeaderMap, header};
use passkit_server::identifiers::{Kind, SerialNumber};
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};

/// The maximum number of names or faults of one answer that are shown. A service may send any
/// number.
pub(crate) const SHOWN: usize = 10;

/// The content of a list answer.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ListAnswer {
    /// The listed serial numbers, in the order of the answer.
    pub serials: Vec<SerialNumber>,
    /// The new update tag, if there is one.
    pub tag: Option<String>,
    /// Faults that a phone tolerates: the first ten, then one line with the number of the others.
    pub remarks: Vec<String>,
}

impl ListAnswer {
    /// Reads a list answer as phones do. Returns `None` if the body is not an object with a list of
    /// strings, or if the tag is not a string. Time and memory grow linearly with the body.
    #[must_use]
    pub fn read(kind: Kind, body: &[u8]) -> Option<Self> {
        // The JSON reader would not check the encoding of values that it skips.
        let body = std::str::from_utf8(body).ok()?;
        let mut reader = serde_json::Deserializer::from_str(body);
        let read = reader.deserialize_map(AnswerVisitor(kind)).ok()?;
        reader.end().ok()?;
        let (Listed { serials, remarks }, tag) = read;
        Some(Self {
            serials,
            tag,
            remarks,
        })
    }
}

/// Reads an answer without building a tree of its values. A tree would take much more memory than
/// the body.
struct AnswerVisitor(Kind);

impl<'de> Visitor<'de> for AnswerVisitor {
    type Value = (Listed, Option<String>);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object with {}", self.0.serials_key())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut listed, mut tag) = (None, None);
        while let Some(key) = map.next_key::<String>()? {
            if key == self.0.serials_key() {
                listed = Some(map.next_value()?);
            } else if key == self.0.tag_key() {
                tag = Some(map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        let listed = listed.ok_or_else(|| serde::de::Error::missing_field("the list"))?;
        Ok((listed, tag))
    }
}

/// The serial numbers of an answer.
struct Listed {
    serials: Vec<SerialNumber>,
    remarks: Vec<String>,
}

impl<'de> Deserialize<'de> for Listed {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_seq(ListedVisitor)
    }
}

struct ListedVisitor;

impl<'de> Visitor<'de> for ListedVisitor {
    type Value = Listed;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of strings")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Listed, A::Error> {
        let (mut serials, mut seen) = (Vec::new(), HashSet::new());
        let (mut remarks, mut left_out, mut is_empty) = (Vec::new(), 0_usize, true);
        while let Some(text) = list.next_element::<String>()? {
            is_empty = false;
            let remark = match SerialNumber::new(&text) {
                Ok(serial) if seen.contains(&serial) => {
                    format!("the list names '{serial}' more than once")
                }
                Ok(serial) => {
                    seen.insert(serial.clone());
                    serials.push(serial);
                    continue;
                }
                Err(error) => format!("the list names an invalid serial number: {error}"),
            };
            if remarks.len() < SHOWN {
                remarks.push(remark);
            } else {
                left_out += 1;
            }
        }
        if is_empty {
            remarks.push("the list is empty; the answer should be status 204".to_owned());
        }
        if left_out > 0 {
            remarks.push(format!(
                "the list has {left_out} more faults of these kinds"
            ));
        }
        Ok(Listed { serials, remarks })
    }
}

/// Returns the first names of a list, and the number of the others.
pub(crate) fn first_few<T: Display>(names: &[T]) -> String {
    let mut shown = String::new();
    for (index, name) in names.iter().take(SHOWN).enumerate() {
        let comma = if index == 0 { "" } else { ", " };
        // Writing to a string can't fail.
        let _ = write!(shown, "{comma}{name}");
    }
    match names.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// Cuts a text to 2,000 characters, because a tag or a header may have any length.
pub(crate) fn shortened(mut text: String) -> String {
    const LONGEST: usize = 2_000;
    if let Some((end, _)) = text.char_indices().nth(LONGEST) {
        text.truncate(end);
        text.push('…');
    }
    text
}

/// Returns a remark if the answer's media type is not one of `expected`.
pub(crate) fn media_type_remark(headers: &HeaderMap, expected: &[&str]) -> Option<String> {
    let value = headers
        .get(header::CONTENT_TYPE)
        .map(|value| String::from_utf8_lossy(value.as_bytes()));
    let essence = value
        .as_deref()
        .and_then(|value| value.split(';').next())
        .map(str::trim);
    if essence.is_some_and(|essence| expected.iter().any(|one| one.eq_ignore_ascii_case(essence))) {
        return None;
    }
    let found = value.as_deref().unwrap_or("missing");
    Some(format!(
        "the content-type is {found}, not {}",
        expected.first().unwrap_or(&"")
    ))
}

/// The media types for an archive of `kind`.
pub(crate) fn archive_types(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Pass => &["application/vnd.apple.pkpass"],
        // Apple does not document the second media type, but it is in use.
        Kind::Order => &[
            "application/vnd.apple.finance.order",
            "application/vnd.apple.order",
        ],
    }
}

/// Returns whether a text is an IMF-fixdate, the only form of a date that servers may send.
pub(crate) fn is_imf_fixdate(text: &str) -> bool {
    httpdate::parse_http_date(text).is_ok_and(|date| httpdate::fmt_http_date(date) == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_answers_are_read_as_phones_read_them() {
        let read = |body: &str| ListAnswer::read(Kind::Pass, body.as_bytes());
        let good = read(r#"{"serialNumbers":["A/1","B"],"lastUpdated":"t 1","more":0}"#).unwrap();
        assert_eq!(good.tag.as_deref(), Some("t 1"));
        assert_eq!(good.serials.len(), 2);
        assert!(good.remarks.is_empty());
        for malformed in [
            "",
            "[]",
            "{}",
            r#"{"serialNumbers":["A"],"lastUpdated":1}"#,
            r#"{"serialNumbers":["A"],"lastUpdated":null}"#,
            r#"{"serialNumbers":[1],"lastUpdated":"1"}"#,
            r#"{"serialNumbers":"A","lastUpdated":"1"}"#,
            r#"{"orderIdentifiers":["A"],"lastModified":"1"}"#,
            r#"{"serialNumbers":["A"],"lastUpdated":"1"} x"#,
        ] {
            assert!(read(malformed).is_none(), "{malformed}");
        }
        let odd = read(r#"{"serialNumbers":["A","A",""]}"#).unwrap();
        assert_eq!(
            (odd.serials.len(), odd.remarks.len(), odd.tag),
            (1, 2, None)
        );
        assert_eq!(
            read(r#"{"serialNumbers":[],"lastUpdated":"1"}"#)
                .unwrap()
                .remarks
                .len(),
            1
        );
        let order = br#"{"orderIdentifiers":["A"],"lastModified":"1"}"#;
        assert_eq!(
            ListAnswer::read(Kind::Order, order).unwrap().serials.len(),
            1
        );
    }

    #[test]
    fn a_long_list_is_read_in_linear_time_and_its_faults_are_counted() {
        let body = |names: &mut dyn Iterator<Item = String>| {
            let names: Vec<String> = names.collect();
            serde_json::json!({"lastUpdated": "1", "serialNumbers": names}).to_string()
        };
        let read = |body: String| ListAnswer::read(Kind::Pass, body.as_bytes()).unwrap();
        let long = read(body(&mut (0..500_000).map(|n| format!("S{n}"))));
        assert_eq!((long.serials.len(), long.remarks.len()), (500_000, 0));
        assert_eq!(long.serials[499_999].as_str(), "S499999");
        for faults in [SHOWN, SHOWN + 1, 500_000] {
            let names = &mut (0..=faults).map(|_| "A".to_owned());
            let twice = read(body(names));
            assert_eq!(twice.serials.len(), 1);
            assert_eq!(twice.remarks.len(), faults.min(SHOWN + 1));
        }
        let odd = read(body(&mut (0..500_000).map(|_| String::new())));
        assert_eq!((odd.serials.len(), odd.remarks.len()), (0, SHOWN + 1));
        assert_eq!(
            odd.remarks[SHOWN],
            "the list has 499990 more faults of these kinds"
        );
    }

    #[test]
    fn long_texts_are_shown_by_their_beginning() {
        assert_eq!(first_few::<u8>(&[]), "");
        assert_eq!(first_few(&[1, 2]), "1, 2");
        assert_eq!(
            first_few(&(0..12).collect::<Vec<_>>()),
            "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more"
        );
        assert_eq!(shortened("ü".repeat(2_000)), "ü".repeat(2_000));
        assert_eq!(
            shortened("ü".repeat(2_001)),
            format!("{}…", "ü".repeat(2_000))
        );
    }

    #[test]
    fn dates_have_one_form() {
        assert!(is_imf_fixdate("Fri, 18 Sep 2026 08:00:41 GMT"));
        for text in [
            "",
            "Friday, 18-Sep-26 08:00:41 GMT",
            "Fri Sep 18 08:00:41 2026",
            "Thu, 18 Sep 2026 08:00:41 GMT",
            "1790000000",
            "2026-09-18T08:00:41Z",
        ] {
            assert!(!is_imf_fixdate(text), "{text}");
        }
    }
}
