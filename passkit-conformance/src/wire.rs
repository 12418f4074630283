//! The shape of answers, whatever they are about.

use http::{HeaderMap, header};
use passkit_server::identifiers::{Kind, SerialNumber};
use serde_json::Value;

/// A list answer that could be read.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ListAnswer {
    /// What changed, in the order of the answer.
    pub serials: Vec<SerialNumber>,
    /// The new update tag, if there is one.
    pub tag: Option<String>,
    /// Oddities that a phone tolerates.
    pub remarks: Vec<String>,
}

impl ListAnswer {
    /// `None` if the body is not what phones read: an object with a list of strings, and a string
    /// for the tag.
    #[must_use]
    pub fn read(kind: Kind, body: &[u8]) -> Option<Self> {
        let Ok(Value::Object(mut body)) = serde_json::from_slice(body) else {
            return None;
        };
        let Some(Value::Array(listed)) = body.remove(kind.serials_key()) else {
            return None;
        };
        let tag = match body.remove(kind.tag_key()) {
            Some(Value::String(tag)) => Some(tag),
            Some(_) => return None,
            None => None,
        };
        let mut serials = Vec::new();
        let mut remarks = Vec::new();
        if listed.is_empty() {
            remarks.push("the list names nothing; that is said with status 204".to_owned());
        }
        for text in listed {
            let Value::String(text) = text else {
                return None;
            };
            match SerialNumber::new(&text) {
                Ok(serial) if serials.contains(&serial) => {
                    remarks.push(format!("the list names '{serial}' more than once"));
                }
                Ok(serial) => serials.push(serial),
                Err(error) => remarks.push(format!("the list names something odd: {error}")),
            }
        }
        Some(Self {
            serials,
            tag,
            remarks,
        })
    }
}

/// A remark if the answer has none of the media types `expected`.
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
        // The second is in use too.
        Kind::Order => &[
            "application/vnd.apple.finance.order",
            "application/vnd.apple.order",
        ],
    }
}

/// Whether a text is a date in the only form that servers may send.
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
