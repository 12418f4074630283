//! A JSON text. It keeps the order of its keys and the digits of its numbers.

use std::{collections::HashMap, fmt, fmt::Write as _};

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::{Value, value::RawValue};

/// A JSON value. Templates don't use `serde_json::Value`, because it sorts keys and rounds numbers.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Json {
    Null,
    Bool(bool),
    /// A number, with its original digits.
    Number(Box<str>),
    Text(String),
    List(Vec<Self>),
    Object(Vec<(String, Self)>),
}

impl Json {
    /// Parses a text. The caller has checked its depth and its number of values.
    pub(super) fn parse(text: &str) -> serde_json::Result<Self> {
        Self::of_raw(serde_json::from_str::<&RawValue>(text)?)
    }

    fn of_raw(raw: &RawValue) -> serde_json::Result<Self> {
        let text = raw.get();
        Ok(match text.as_bytes().first() {
            Some(b'{') => {
                let Members(members) = serde_json::from_str(text)?;
                let mut object: Vec<(String, Self)> = Vec::with_capacity(members.len());
                let mut places = HashMap::with_capacity(members.len());
                for (key, raw) in members {
                    let value = Self::of_raw(raw)?;
                    // If two members have the same key, the last one counts.
                    match places
                        .get(&key)
                        .and_then(|&place: &usize| object.get_mut(place))
                    {
                        Some((_, before)) => *before = value,
                        None => {
                            places.insert(key.clone(), object.len());
                            object.push((key, value));
                        }
                    }
                }
                Self::Object(object)
            }
            Some(b'[') => {
                let items: Vec<&RawValue> = serde_json::from_str(text)?;
                Self::List(
                    items
                        .into_iter()
                        .map(Self::of_raw)
                        .collect::<Result<_, _>>()?,
                )
            }
            Some(b'"') => Self::Text(serde_json::from_str(text)?),
            Some(b't') => Self::Bool(true),
            Some(b'f') => Self::Bool(false),
            Some(b'n') => Self::Null,
            _ => Self::Number(text.into()),
        })
    }

    pub(super) fn members(&self) -> &[(String, Self)] {
        match self {
            Self::Object(members) => members,
            _ => &[],
        }
    }

    pub(super) fn items(&self) -> &[Self] {
        match self {
            Self::List(items) => items,
            _ => &[],
        }
    }

    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Returns whether this value is the text, or contains it as a value.
    pub(super) fn has_text(&self, text: &str) -> bool {
        match self {
            Self::Text(own) => own == text,
            Self::List(items) => items.iter().any(|item| item.has_text(text)),
            Self::Object(members) => members.iter().any(|(_, value)| value.has_text(text)),
            Self::Null | Self::Bool(_) | Self::Number(_) => false,
        }
    }

    pub(super) fn member(&self, key: &str) -> Option<&Self> {
        let mut members = self.members().iter();
        members
            .find(|(name, _)| name == key)
            .map(|(_, value)| value)
    }

    pub(super) fn member_mut(&mut self, key: &str) -> Option<&mut Self> {
        let Self::Object(members) = self else {
            return None;
        };
        let mut members = members.iter_mut();
        members
            .find(|(name, _)| name == key)
            .map(|(_, value)| value)
    }

    /// Sets a member of an object. Does nothing if this value is not an object.
    pub(super) fn insert(&mut self, key: &str, value: Self) {
        if let Some(before) = self.member_mut(key) {
            *before = value;
        } else if let Self::Object(members) = self {
            members.push((key.to_owned(), value));
        }
    }

    /// Removes a member of an object, and returns it.
    pub(super) fn remove_member(&mut self, key: &str) -> Option<Self> {
        let Self::Object(members) = self else {
            return None;
        };
        let place = members.iter().position(|(name, _)| name == key)?;
        Some(members.remove(place).1)
    }

    /// Sets the value at a JSON Pointer. Makes the missing objects and lists that lead to it.
    pub(super) fn set(&mut self, pointer: &str, value: Self) -> Result<(), String> {
        let steps = steps(pointer)?;
        let mut at = self;
        for (index, step) in steps.iter().enumerate() {
            let missing = || match steps.get(index + 1).map(|next| Place::of(next)) {
                None => Self::Null,
                Some(Some(_)) => Self::List(Vec::new()),
                Some(None) => Self::Object(Vec::new()),
            };
            let before = parent(&steps, index);
            at = match at {
                Self::Object(members) => {
                    let place = members.iter().position(|(name, _)| name == step);
                    let place = place.unwrap_or(members.len());
                    if place == members.len() {
                        members.push((step.clone(), missing()));
                    }
                    // The place exists, because it was found or added.
                    &mut members.get_mut(place).ok_or("is out of range")?.1
                }
                Self::List(items) => {
                    let length = items.len();
                    let place = match Place::of(step) {
                        Some(Place::At(place)) if place <= length => place,
                        Some(Place::End) => length,
                        _ => {
                            return Err(format!(
                                "leads nowhere, because {before} is a list of {length}; use an index up to {length}"
                            ));
                        }
                    };
                    if place == length {
                        items.push(missing());
                    }
                    items.get_mut(place).ok_or("is out of range")?
                }
                _ => {
                    return Err(format!(
                        "leads nowhere, because {before} is neither an object nor a list"
                    ));
                }
            };
        }
        *at = value;
        Ok(())
    }

    /// Removes the value at a JSON Pointer, if there is one.
    pub(super) fn remove(&mut self, pointer: &str) -> Result<(), String> {
        let steps = steps(pointer)?;
        let Some((last, way)) = steps.split_last() else {
            return Ok(());
        };
        let mut at = self;
        for step in way {
            let next = match at {
                Self::List(items) => match Place::of(step) {
                    Some(Place::At(place)) => items.get_mut(place),
                    _ => None,
                },
                at => at.member_mut(step),
            };
            match next {
                Some(next) => at = next,
                None => return Ok(()),
            }
        }
        match at {
            Self::List(items) => {
                if let Some(Place::At(place)) = Place::of(last)
                    && place < items.len()
                {
                    items.remove(place);
                }
            }
            at => drop(at.remove_member(last)),
        }
        Ok(())
    }
}

/// The steps of a JSON Pointer (RFC 6901).
fn steps(pointer: &str) -> Result<Vec<String>, String> {
    let Some(rest) = pointer.strip_prefix('/') else {
        return Err("is not a JSON Pointer; write it as \"/semantics/eventName\"".into());
    };
    let steps: Vec<String> = rest
        .split('/')
        .map(|step| step.replace("~1", "/").replace("~0", "~"))
        .collect();
    if steps.len() > crate::MAX_JSON_DEPTH {
        return Err(format!("has more than {} steps", crate::MAX_JSON_DEPTH));
    }
    Ok(steps)
}

/// Returns the pointer without this step and the steps after it, for a message.
fn parent(steps: &[String], index: usize) -> String {
    let way = steps.get(..index).unwrap_or_default();
    match way {
        [] => "the top".into(),
        way => way
            .iter()
            .map(|step| format!("/{}", escape(step)))
            .collect(),
    }
}

/// Escapes a key for a JSON Pointer.
pub(super) fn escape(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

/// The meaning of a step in a list.
#[derive(Clone, Copy)]
enum Place {
    At(usize),
    /// After the last item.
    End,
}

impl Place {
    /// Returns `None` if the step is not an index.
    fn of(step: &str) -> Option<Self> {
        match step {
            "-" => Some(Self::End),
            "0" => Some(Self::At(0)),
            step if step.starts_with('0') || !step.bytes().all(|byte| byte.is_ascii_digit()) => {
                None
            }
            step => step.parse().ok().map(Self::At),
        }
    }
}

impl From<Value> for Json {
    fn from(value: Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(bool) => Self::Bool(bool),
            Value::Number(number) => Self::Number(number.to_string().into()),
            Value::String(text) => Self::Text(text),
            Value::Array(items) => Self::List(items.into_iter().map(Self::from).collect()),
            Value::Object(members) => {
                let members = members.into_iter();
                Self::Object(members.map(|(key, value)| (key, value.into())).collect())
            }
        }
    }
}

/// Writes JSON without white space.
impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(bool) => write!(f, "{bool}"),
            Self::Number(number) => f.write_str(number),
            Self::Text(text) => write_text(text, f),
            Self::List(items) => {
                f.write_char('[')?;
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        f.write_char(',')?;
                    }
                    item.fmt(f)?;
                }
                f.write_char(']')
            }
            Self::Object(members) => {
                f.write_char('{')?;
                for (index, (key, value)) in members.iter().enumerate() {
                    if index > 0 {
                        f.write_char(',')?;
                    }
                    write_text(key, f)?;
                    f.write_char(':')?;
                    value.fmt(f)?;
                }
                f.write_char('}')
            }
        }
    }
}

fn write_text(text: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_char('"')?;
    let mut rest = text;
    while let Some(at) = rest.find(|c: char| c < ' ' || matches!(c, '"' | '\\')) {
        let (plain, special) = rest.split_at(at);
        f.write_str(plain)?;
        let mut chars = special.chars();
        match chars.next() {
            Some('\n') => f.write_str("\\n")?,
            Some(c @ ('"' | '\\')) => write!(f, "\\{c}")?,
            Some(c) => write!(f, "\\u{:04x}", u32::from(c))?,
            None => {}
        }
        rest = chars.as_str();
    }
    f.write_str(rest)?;
    f.write_char('"')
}

/// The members of an object, in the order of the text.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MembersVisitor;

        impl<'de> Visitor<'de> for MembersVisitor {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(
                self,
                mut entries: A,
            ) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(entry) = entries.next_entry()? {
                    members.push(entry);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(MembersVisitor)
    }
}

/// Returns the groups of fields in all styles, each with its pointer.
pub(super) fn groups_mut(json: &mut Json) -> impl Iterator<Item = (String, &mut Json)> {
    let styles = match json {
        Json::Object(members) => &mut members[..],
        _ => &mut [],
    };
    styles.iter_mut().flat_map(|(style, value)| {
        let groups = match value {
            // `userInfo` belongs to the issuer's app.
            Json::Object(groups) if style != "userInfo" => &mut groups[..],
            _ => &mut [],
        };
        let style = escape(style);
        groups
            .iter_mut()
            .filter(|(group, _)| group.ends_with("Fields"))
            .map(move |(group, fields)| (format!("/{style}/{}", escape(group)), fields))
    })
}

/// Returns the fields in all styles, each with its pointer.
pub(super) fn fields_mut(json: &mut Json) -> impl Iterator<Item = (String, &mut Json)> {
    groups_mut(json).flat_map(|(group, fields)| {
        let fields = match fields {
            Json::List(fields) => &mut fields[..],
            _ => &mut [],
        };
        let fields = fields.iter_mut().enumerate();
        fields.map(move |(index, field)| (format!("{group}/{index}"), field))
    })
}

/// Returns the fields in all styles.
pub(super) fn fields(json: &Json) -> impl Iterator<Item = &Json> {
    json.members()
        .iter()
        .filter(|(style, _)| style != "userInfo")
        .flat_map(|(_, style)| style.members())
        .filter(|(group, _)| group.ends_with("Fields"))
        .flat_map(|(_, fields)| fields.items())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_keep_their_order_and_numbers_their_digits() {
        let text = r#"{"z":1.50,"a":[12345678901234567890123,-0,1E+2],"ä\n\"\\":{"b":null,"a":true},"":"\u0001"}"#;
        assert_eq!(Json::parse(text).unwrap().to_string(), text);
        let twice = Json::parse(r#" { "a" : 1 , "b" : 2 , "a" : 3 } "#).unwrap();
        assert_eq!(twice.to_string(), r#"{"a":3,"b":2}"#);
    }

    #[test]
    fn what_is_written_is_read_back() {
        let text: String = (0..0x250).filter_map(char::from_u32).collect();
        let written = Json::Text(text.clone()).to_string();
        assert_eq!(serde_json::from_str::<String>(&written).unwrap(), text);
    }

    #[test]
    fn pointers_set_and_remove_values() {
        let mut json = Json::parse(r#"{"a":{"b/c":1},"list":[1,2]}"#).unwrap();
        let text = |text: &str| Json::Text(text.into());
        json.set("/a/b~1c", text("x")).unwrap();
        json.set("/list/1", text("y")).unwrap();
        json.set("/list/-", text("z")).unwrap();
        json.set("/semantics/seats/0/seatRow", text("9")).unwrap();
        json.set("/a/~01", text("tilde")).unwrap();
        assert_eq!(
            json.to_string(),
            r#"{"a":{"b/c":"x","~1":"tilde"},"list":[1,"y","z"],"semantics":{"seats":[{"seatRow":"9"}]}}"#
        );
        for (pointer, reason) in [
            ("a", "is not a JSON Pointer"),
            ("", "is not a JSON Pointer"),
            (
                "/list/4",
                "because /list is a list of 3; use an index up to 3",
            ),
            ("/list/01", "because /list is a list"),
            ("/a/b~1c/d", "because /a/b~1c is neither"),
        ] {
            let error = json.set(pointer, Json::Null).unwrap_err();
            assert!(error.contains(reason), "{pointer}: {error}");
        }
        for pointer in [
            "/a/b~1c",
            "/list/0",
            "/list/7",
            "/semantics/seats/0/seatRow",
            "/no/way",
        ] {
            json.remove(pointer).unwrap();
        }
        assert_eq!(
            json.to_string(),
            r#"{"a":{"~1":"tilde"},"list":["y","z"],"semantics":{"seats":[{}]}}"#
        );
    }
}
