//! Reads the JSON files of an archive, and looks up the positions of findings.
//!
//! Phones accept a byte order mark, and a comma after the last member. Both are therefore only
//! warnings.

use std::{borrow::Cow, fmt};

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::{Map, Value};

use crate::{
    finding::{Finding, Position},
    rules::{self, Rule},
};

/// How many values a JSON file may have. A parsed value takes up to 80 times the bytes of its text,
/// so a limit on bytes is not enough.
pub const MAX_JSON_VALUES: usize = 20_000;

/// How deep the values of a JSON file may be nested.
pub const MAX_JSON_DEPTH: usize = 64;

/// Parses `bytes`, the content of `file`, as an object. Returns `None` if that fails.
pub(crate) fn parse_object(
    file: &str,
    bytes: &[u8],
    key_twice: &'static Rule,
    findings: &mut Vec<Finding>,
) -> Option<Map<String, Value>> {
    match parse(file, bytes, key_twice, findings) {
        Ok(object) => Some(object),
        Err(finding) => {
            findings.push(finding);
            None
        }
    }
}

fn parse(
    file: &str,
    bytes: &[u8],
    key_twice: &'static Rule,
    findings: &mut Vec<Finding>,
) -> Result<Map<String, Value>, Finding> {
    let decoded = to_utf8(file, bytes, findings)?;
    let bytes = &*decoded;
    let json = repaired(file, bytes, findings)?;
    match serde_json::from_str::<Object>(&json) {
        Ok(Object { members, twice }) => {
            for key in twice {
                let message = format!("{key} occurs twice; remove one of them");
                findings.push(
                    Finding::in_file(key_twice, file, message)
                        .at(position_of(bytes, &[Step::Key(&key)]))
                        .of_key(&key),
                );
            }
            Ok(members)
        }
        Err(error) => {
            let message = error.to_string();
            let place = format!(" at line {} column {}", error.line(), error.column());
            let message = match message.strip_suffix(&place).unwrap_or(&message) {
                message if error.is_data() => message.to_owned(),
                message => format!("is not valid JSON: {message}"),
            };
            let position = Position {
                line: error.line().max(1),
                column: error.column().max(1),
            };
            Err(Finding::in_file(&rules::JSON, file, message).at(Some(position)))
        }
    }
}

/// Checks the limits of a text in UTF-8. Returns the text without two things that JSON does not
/// allow but phones accept: a byte order mark, and a comma after the last member.
fn repaired<'a>(
    file: &str,
    bytes: &'a [u8],
    findings: &mut Vec<Finding>,
) -> Result<Cow<'a, str>, Finding> {
    let text = utf8(file, bytes)?;
    if text.len() < bytes.len() {
        findings.push(Finding::in_file(
            &rules::JSON_MARK,
            file,
            "starts with a byte order mark; write UTF-8 without one",
        ));
    }
    let commas = scan(text.as_bytes())
        .map_err(|message| Finding::in_file(&rules::JSON_LIMIT, file, message))?;
    let mut json = Cow::Borrowed(text);
    for &comma in &commas {
        let message = "has a comma after the last member; remove it";
        findings.push(
            Finding::in_file(&rules::JSON_COMMA, file, message)
                .at(Some(Position::of(text.as_bytes(), comma))),
        );
        json.to_mut().replace_range(comma..=comma, " ");
    }
    Ok(json)
}

/// Returns the text of an object as strict JSON. Fails if the text is not a JSON object, or exceeds
/// the limits.
pub(crate) fn strict(file: &str, bytes: &[u8]) -> Result<String, Finding> {
    let findings = &mut Vec::new();
    parse(file, bytes, &rules::JSON_TWICE, findings)?;
    let decoded = to_utf8(file, bytes, findings)?;
    Ok(repaired(file, &decoded, findings)?.into_owned())
}

/// Counts values and depth before the text is parsed. Returns the positions of commas that follow
/// the last member of an object or an array.
fn scan(text: &[u8]) -> Result<Vec<usize>, String> {
    let (mut values, mut depth) = (0, 0_usize);
    let mut commas = Vec::new();
    // The position and value of the last byte that is not white space. `before` is the byte before
    // it that is not white space.
    let mut last = (0, b' ');
    let mut before = b' ';
    let mut in_string = false;
    let mut escaped = false;
    for (at, &byte) in text.iter().enumerate() {
        if in_string {
            in_string = escaped || byte != b'"';
            escaped = byte == b'\\' && !escaped;
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => {
                depth += 1;
                values += 1;
            }
            b',' => values += 1,
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                if last.1 == b',' && !matches!(before, b'{' | b'[' | b',' | b':') {
                    commas.push(last.0);
                }
            }
            b' ' | b'\t' | b'\n' | b'\r' => continue,
            _ => {}
        }
        if depth > MAX_JSON_DEPTH {
            return Err(format!("nests deeper than {MAX_JSON_DEPTH} levels"));
        }
        if values > MAX_JSON_VALUES {
            return Err(format!("has more than {MAX_JSON_VALUES} values"));
        }
        before = last.1;
        last = (at, byte);
    }
    Ok(commas)
}

/// A step on the way to a value.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step<'a> {
    Key(&'a str),
    Index(usize),
}

/// Returns the position of a value in a JSON text, or of its key. Returns `None` if the value is
/// not found.
pub(crate) fn position_of(text: &[u8], path: &[Step<'_>]) -> Option<Position> {
    let mut at = skip_space(text, text.iter().position(|&byte| byte == b'{')?);
    for (depth, step) in path.iter().enumerate() {
        let is_last = depth + 1 == path.len();
        let open = *text.get(at)?;
        at = skip_space(text, at + 1);
        match step {
            Step::Index(index) if open == b'[' => {
                for _ in 0..*index {
                    at = skip_space(text, skip_value(text, at)?);
                    at = skip_space(text, at + usize::from(*text.get(at)? == b','));
                }
            }
            Step::Key(key) if open == b'{' => loop {
                let start = at;
                at = skip_space(text, skip_value(text, at)?);
                let found = text.get(start + 1..)?.strip_prefix(key.as_bytes());
                let found = found.is_some_and(|rest| rest.starts_with(b"\""));
                at = skip_space(text, at + usize::from(*text.get(at)? == b':'));
                if found {
                    at = if is_last { start } else { at };
                    break;
                }
                at = skip_space(text, skip_value(text, at)?);
                at = skip_space(text, at + usize::from(*text.get(at)? == b','));
            },
            _ => return None,
        }
    }
    Some(Position::of(text, at))
}

fn skip_space(text: &[u8], at: usize) -> usize {
    let space = |byte: &&u8| byte.is_ascii_whitespace();
    at + text
        .get(at..)
        .unwrap_or_default()
        .iter()
        .take_while(space)
        .count()
}

/// Returns the end of the value that starts here. The end is always after the start.
fn skip_value(text: &[u8], start: usize) -> Option<usize> {
    let mut depth = 0_usize;
    let mut at = start;
    loop {
        match *text.get(at)? {
            b'"' => {
                at += 1;
                while *text.get(at)? != b'"' {
                    at += 1 + usize::from(*text.get(at)? == b'\\');
                }
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth == 0 => return None,
            b'}' | b']' => depth -= 1,
            _ => {}
        }
        at += 1;
        // A number or a literal ends before the next delimiter.
        let ends = matches!(text.get(at), None | Some(b',' | b':' | b'}' | b']'))
            || matches!(text.get(at - 1), Some(b'"' | b'}' | b']'))
            || text.get(at).is_some_and(u8::is_ascii_whitespace);
        if depth == 0 && ends {
            return Some(at);
        }
    }
}

/// Returns the text in UTF-8. A text that is already UTF-8 keeps its byte order mark.
fn to_utf8<'a>(
    file: &str,
    bytes: &'a [u8],
    findings: &mut Vec<Finding>,
) -> Result<Cow<'a, [u8]>, Finding> {
    match wide::decode(bytes) {
        None => Ok(bytes.into()),
        Some(Ok(text)) => {
            let message = "is UTF-16 or UTF-32; write it in UTF-8";
            findings.push(Finding::in_file(&rules::JSON_ENCODING, file, message));
            Ok(text.into_bytes().into())
        }
        Some(Err(_)) => Err(Finding::in_file(
            &rules::JSON,
            file,
            "is damaged UTF-16 or UTF-32; write it in UTF-8",
        )),
    }
}

/// Returns the text in UTF-8, for finding positions. Reports nothing.
pub(crate) fn readable(bytes: &[u8]) -> Cow<'_, [u8]> {
    match wide::decode(bytes) {
        Some(Ok(text)) => text.into_bytes().into(),
        _ => bytes.into(),
    }
}

/// UTF-16 and UTF-32.
mod wide {
    /// The text is damaged.
    pub(super) struct Damaged;

    /// Decodes a JSON text. Returns `None` if the text has neither encoding. The first characters
    /// of JSON are ASCII, so the positions of zero bytes show the encoding.
    pub(super) fn decode(bytes: &[u8]) -> Option<Result<String, Damaged>> {
        let (text, width, is_big_endian) = match bytes {
            [0, 0, 0xfe, 0xff, text @ ..] => (text, 4, true),
            [0xff, 0xfe, 0, 0, text @ ..] => (text, 4, false),
            [0xfe, 0xff, text @ ..] => (text, 2, true),
            [0xff, 0xfe, text @ ..] => (text, 2, false),
            [0, 0, 0, _, ..] => (bytes, 4, true),
            [_, 0, 0, 0, ..] => (bytes, 4, false),
            [0, _, ..] => (bytes, 2, true),
            [_, 0, ..] => (bytes, 2, false),
            _ => return None,
        };
        let number = |unit: &[u8]| {
            let shift = |number: u32, byte: &u8| number << 8 | u32::from(*byte);
            if is_big_endian {
                unit.iter().fold(0, shift)
            } else {
                unit.iter().rev().fold(0, shift)
            }
        };
        let units = text.chunks_exact(width);
        let decoded: Option<String> = if !units.remainder().is_empty() {
            None
        } else if width == 4 {
            units.map(|unit| char::from_u32(number(unit))).collect()
        } else {
            let units = units.map(|unit| u16::try_from(number(unit)).unwrap_or_default());
            char::decode_utf16(units).map(Result::ok).collect()
        };
        Some(decoded.ok_or(Damaged))
    }
}

/// Returns the text without its byte order mark.
fn utf8<'a>(file: &str, bytes: &'a [u8]) -> Result<&'a str, Finding> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    std::str::from_utf8(bytes).map_err(|error| {
        Finding::in_file(
            &rules::JSON,
            file,
            "is not UTF-8 from here on; write it in UTF-8",
        )
        .at(Some(Position::of(bytes, error.valid_up_to())))
    })
}

struct Object {
    members: Map<String, Value>,
    /// The keys that occur more than once. Their last value counts.
    twice: Vec<String>,
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor;

        impl<'de> Visitor<'de> for ObjectVisitor {
            type Value = Object;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Object, A::Error> {
                let mut members = Map::new();
                let mut twice = Vec::new();
                while let Some((key, value)) = entries.next_entry::<String, Value>()? {
                    if members.insert(key.clone(), value).is_some() {
                        twice.push(key);
                    }
                }
                Ok(Object { members, twice })
            }
        }

        deserializer.deserialize_map(ObjectVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(bytes: &[u8]) -> (Option<Map<String, Value>>, Vec<String>) {
        let mut findings = Vec::new();
        let object = parse_object("pass.json", bytes, &rules::JSON_TWICE, &mut findings);
        let findings = findings.iter().map(ToString::to_string).collect();
        (object, findings)
    }

    fn refusal(bytes: &[u8]) -> String {
        match findings(bytes) {
            (None, findings) => findings.concat(),
            (Some(object), _) => panic!("{object:?}"),
        }
    }

    #[test]
    fn the_position_of_a_mistake_is_reported() {
        assert_eq!(
            refusal(b"{\"a\":1"),
            "pass.json:1:6: is not valid JSON: EOF while parsing an object"
        );
        assert_eq!(
            refusal(b"{\n\"a\" 1}"),
            "pass.json:2:5: is not valid JSON: expected `:`"
        );
        assert!(
            refusal(b"{} {}").starts_with("pass.json:1:4: is not valid JSON: trailing characters")
        );
        assert!(
            refusal(b"[1]")
                .contains("pass.json:1:1: invalid type: sequence, expected a JSON object")
        );
        assert!(refusal(b"").contains("EOF"));
    }

    #[test]
    fn what_phones_accept_is_read_and_reported() {
        let (object, found) = findings(b"\xef\xbb\xbf{\"a\":[1,2 ,\n],\n\"b\":\",]\",}");
        assert_eq!(
            Value::from(object),
            serde_json::json!({"a": [1, 2], "b": ",]"})
        );
        assert_eq!(
            found,
            [
                "pass.json: starts with a byte order mark; write UTF-8 without one",
                "pass.json:1:11: has a comma after the last member; remove it",
                "pass.json:3:9: has a comma after the last member; remove it",
            ]
        );
        let (object, found) = findings(b"{\"a\":1,\n\"a\":2}");
        assert_eq!(Value::from(object), serde_json::json!({"a": 2}));
        assert_eq!(found, ["pass.json:1:2: a occurs twice; remove one of them"]);
        for not_json in ["{,}", "{\"a\":[,]}", "{\"a\":1,,}", "{\"a\":,}"] {
            refusal(not_json.as_bytes());
        }
    }

    #[test]
    fn values_and_depth_are_limited() {
        let nested = |depth| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(findings(nested(MAX_JSON_DEPTH - 1).as_bytes()).1, [""; 0]);
        assert!(refusal(nested(MAX_JSON_DEPTH).as_bytes()).contains("nests deeper than 64"));
        let wide = |values| format!("{{\"a\":[{}]}}", vec!["0"; values].join(","));
        assert_eq!(findings(wide(MAX_JSON_VALUES - 1).as_bytes()).1, [""; 0]);
        assert!(refusal(wide(MAX_JSON_VALUES).as_bytes()).contains("more than 20000 values"));
    }

    #[test]
    fn encodings_other_than_utf8_are_reported() {
        let text = "{\"a\":\"\u{e4}\u{1f600}\"}";
        let utf16 = |mark: &str, to_bytes: fn(u16) -> [u8; 2]| -> Vec<u8> {
            let text = format!("{mark}{text}");
            text.encode_utf16().flat_map(to_bytes).collect()
        };
        let utf32 = |mark: &str, to_bytes: fn(u32) -> [u8; 4]| -> Vec<u8> {
            let text = format!("{mark}{text}");
            text.chars().flat_map(|c| to_bytes(c.into())).collect()
        };
        for mark in ["", "\u{feff}"] {
            for bytes in [
                utf16(mark, u16::to_be_bytes),
                utf16(mark, u16::to_le_bytes),
                utf32(mark, u32::to_be_bytes),
                utf32(mark, u32::to_le_bytes),
            ] {
                let (object, found) = findings(&bytes);
                assert_eq!(
                    Value::from(object),
                    serde_json::json!({"a": "\u{e4}\u{1f600}"})
                );
                assert_eq!(found, ["pass.json: is UTF-16 or UTF-32; write it in UTF-8"]);
            }
        }
        for damaged in [&b"\xff\xfe{\0}"[..], b"\0{\xd8\0\0}", b"\0\0\0{\0\x11\0\0"] {
            assert!(refusal(damaged).contains("damaged UTF-16"));
        }
        assert_eq!(
            refusal(b"{\n\"a\": \"\xe4\"}"),
            "pass.json:2:7: is not UTF-8 from here on; write it in UTF-8"
        );
    }

    #[test]
    fn values_are_found_by_their_path() {
        let text = br#"{ "x": {"b": [1, {"c" : 5}, "]"]}, "a\"": ["b", "\\"], "c": "b",
            "b": 2 }"#;
        let at = |path: &[Step<'_>]| position_of(text, path).map(|at| (at.line, at.column));
        assert_eq!(at(&[Step::Key("b")]), Some((2, 13)));
        assert_eq!(at(&[Step::Key("x")]), Some((1, 3)));
        let inner = [
            Step::Key("x"),
            Step::Key("b"),
            Step::Index(1),
            Step::Key("c"),
        ];
        assert_eq!(at(&inner), Some((1, 19)));
        assert_eq!(at(&inner[..3]), Some((1, 18)));
        assert_eq!(
            at(&[Step::Key("x"), Step::Key("b"), Step::Index(2)]),
            Some((1, 29))
        );
        assert_eq!(at(&[Step::Key("z")]), None);
        assert_eq!(at(&[Step::Key("c"), Step::Key("z")]), None);
    }
}
