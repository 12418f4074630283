//! Reads the JSON files of an archive, and finds the positions of problems.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::{Map, Value};

use crate::problem::{Position, Problem};

/// Parses `bytes`, the content of `file`, which must be an object. A duplicate key is a problem,
/// because readers differ in which of the two they take.
pub(crate) fn parse_object(file: &str, bytes: &[u8]) -> Result<Map<String, Value>, Problem> {
    let text = utf8(file, bytes)?;
    match serde_json::from_str::<Object>(text) {
        Ok(Object(object)) => Ok(object),
        Err(error) => {
            let message = error.to_string();
            let place = format!(" at line {} column {}", error.line(), error.column());
            let message = match message.strip_suffix(&place).unwrap_or(&message) {
                "trailing comma" => {
                    "trailing comma; remove the comma before this position".to_owned()
                }
                message if error.is_data() => message.to_owned(),
                message => format!("is not valid JSON: {message}"),
            };
            let position = Position {
                line: error.line().max(1),
                column: error.column().max(1),
            };
            Err(Problem::at(file, Some(position), message))
        }
    }
}

/// Returns the position of `key` in the outermost object of `text`. The text must be valid JSON.
pub(crate) fn position_of_key(text: &[u8], key: &str) -> Option<Position> {
    let mut depth = 0_u32;
    let mut before = 0;
    let mut bytes = text.iter().enumerate();
    while let Some((start, &byte)) = bytes.next() {
        match byte {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => {
                let mut escaped = false;
                let (end, _) = bytes.find(|&(_, &byte)| {
                    byte == b'"' && !escaped || {
                        escaped = byte == b'\\' && !escaped;
                        false
                    }
                })?;
                if depth == 1
                    && matches!(before, b'{' | b',')
                    && text.get(start + 1..end) == Some(key.as_bytes())
                {
                    return Some(Position::of(text, start));
                }
            }
            _ => {}
        }
        if !byte.is_ascii_whitespace() {
            before = byte;
        }
    }
    None
}

fn utf8<'a>(file: &str, bytes: &'a [u8]) -> Result<&'a str, Problem> {
    match bytes {
        [0xef, 0xbb, 0xbf, ..] => {
            return Err(Problem::in_file(
                file,
                "starts with a byte order mark; write UTF-8 without one",
            ));
        }
        [0xfe, 0xff, ..] | [0xff, 0xfe, ..] | [0, _, ..] | [_, 0, ..] => {
            return Err(Problem::in_file(
                file,
                "is UTF-16 or UTF-32; write it in UTF-8",
            ));
        }
        _ => {}
    }
    std::str::from_utf8(bytes).map_err(|error| {
        let position = Position::of(bytes, error.valid_up_to());
        Problem::at(
            file,
            Some(position),
            "is not UTF-8 from here on; write it in UTF-8",
        )
    })
}

struct Object(Map<String, Value>);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor;

        impl<'de> Visitor<'de> for ObjectVisitor {
            type Value = Object;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Object, A::Error> {
                let mut object = Map::new();
                while let Some(key) = entries.next_key::<String>()? {
                    if object.contains_key(&key) {
                        return Err(A::Error::custom(format_args!(
                            "{key} occurs twice; remove one of them"
                        )));
                    }
                    let value = entries.next_value()?;
                    object.insert(key, value);
                }
                Ok(Object(object))
            }
        }

        deserializer.deserialize_map(ObjectVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(bytes: &[u8]) -> String {
        parse_object("pass.json", bytes).unwrap_err().to_string()
    }

    #[test]
    fn the_position_of_a_mistake_is_reported() {
        assert_eq!(
            refusal(b"{\n  \"a\": 1,\n}"),
            "pass.json:3:1: trailing comma; remove the comma before this position"
        );
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
        assert_eq!(
            refusal(b"{\"a\":1,\n\"a\":2}"),
            "pass.json:2:3: a occurs twice; remove one of them"
        );
    }

    #[test]
    fn encodings_other_than_utf8_are_reported() {
        assert!(refusal(b"\xef\xbb\xbf{}").contains("byte order mark"));
        assert!(refusal(b"\xff\xfe{\0}\0").contains("UTF-16"));
        assert!(refusal(b"\0{\0}").contains("UTF-16"));
        assert_eq!(
            refusal(b"{\n\"a\": \"\xe4\"}"),
            "pass.json:2:7: is not UTF-8 from here on; write it in UTF-8"
        );
    }

    #[test]
    fn keys_are_found_in_the_outermost_object_only() {
        let text = br#"{ "x": {"b": 1}, "a\"": ["b", "\\"], "c": "b",
            "b": 2 }"#;
        assert_eq!(
            position_of_key(text, "b"),
            Some(Position {
                line: 2,
                column: 13
            })
        );
        assert_eq!(
            position_of_key(text, "x"),
            Some(Position { line: 1, column: 3 })
        );
        assert_eq!(position_of_key(text, "z"), None);
    }
}
