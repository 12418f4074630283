//! The walk through a JSON file along the tables of keys. It also finds the places of findings.

use std::{borrow::Cow, fmt::Display};

use passkit_server::text::closest;
use serde_json::{Map, Value};

use crate::{
    color, dates,
    finding::Finding,
    json::{self, Step},
    keys::{Key, Shape, Styles},
    rules::{self, Rule},
};

/// A walk through one JSON text along the tables.
pub(crate) struct Walk<'a, 'f> {
    file: &'static str,
    text: &'a [u8],
    path: Vec<Step<'a>>,
    /// The styles that decide which keys are used.
    styles: Styles,
    /// Whether the tables have all keys, so that any other key is unknown.
    is_complete: bool,
    findings: &'f mut Vec<Finding>,
}

impl<'a, 'f> Walk<'a, 'f> {
    /// The greatest number of findings that get a position. Each position needs a pass over the
    /// whole text.
    const MAX_POSITIONS: usize = 100;

    /// Starts a walk along tables that have only some of the keys.
    pub(crate) fn new(file: &'static str, text: &'a [u8], findings: &'f mut Vec<Finding>) -> Self {
        Self {
            file,
            text,
            path: Vec::new(),
            styles: Styles::ALL,
            is_complete: false,
            findings,
        }
    }

    /// Starts a walk along tables that have all keys. `styles` decides which keys are used.
    pub(crate) fn complete(
        file: &'static str,
        text: &'a [u8],
        styles: Styles,
        findings: &'f mut Vec<Finding>,
    ) -> Self {
        Self {
            styles,
            is_complete: true,
            ..Self::new(file, text, findings)
        }
    }

    /// Checks all keys of an object.
    pub(crate) fn object(&mut self, object: &'a Map<String, Value>, keys: &'static [Key]) {
        let count = self.known(object, keys);
        if self.is_complete && count < object.len() {
            let is_known = |key: &str| keys.iter().any(|known| known.name == key);
            self.unknown(object, is_known, &[keys]);
        }
    }

    /// Checks the keys that are in a table. Returns how many the object has.
    pub(crate) fn known(&mut self, object: &'a Map<String, Value>, keys: &'static [Key]) -> usize {
        let mut count = 0;
        for key in keys {
            let is_used = key.styles.contains(self.styles);
            match (object.get(key.name), key.required) {
                (Some(value), _) => self.within(Step::Key(key.name), |walk| {
                    count += 1;
                    if !is_used {
                        walk.report_ignored(key);
                    }
                    // Phones check the types at the top level even if they ignore the key.
                    if is_used || walk.path.len() == 1 {
                        let all = walk.styles;
                        // The object of a style has the keys of that style.
                        walk.styles =
                            Styles::named(key.name).map_or(all, |style| style.with_scheme(all));
                        walk.value(value, &key.shape, key);
                        walk.styles = all;
                    }
                    if let Some(newer) = key.deprecated
                        && !object.contains_key(newer)
                    {
                        walk.report(
                            &rules::KEY_DEPRECATED,
                            format_args!("is deprecated; add {newer}"),
                        );
                    }
                }),
                (None, Some(rule)) if is_used => {
                    self.missing(rule, key.name, key.shape.expected());
                }
                (None, _) => {}
            }
        }
        count
    }

    /// Reports the unknown keys. Suggests similar keys of `candidates`.
    pub(crate) fn unknown(
        &mut self,
        object: &'a Map<String, Value>,
        is_known: impl Fn(&str) -> bool,
        candidates: &[&'static [Key]],
    ) {
        for key in object.keys().filter(|key| !is_known(key)) {
            self.within(Step::Key(key), |walk| {
                if key == "_id" {
                    let message = "is a key for Pass Designer, and not for passes; remove it";
                    return walk.report(&rules::DESIGNER_ID, message);
                }
                let known = candidates.iter().copied().flatten();
                let message = match walk.near(key, known.map(|known| known.name)) {
                    Some(near) => format!("is unknown to phones; did you mean {near}?"),
                    None => "is unknown to phones; remove it, or put it into userInfo".to_owned(),
                };
                walk.report(&rules::KEY_UNKNOWN, message);
            });
        }
    }

    /// Reports unknown keys that are probably misspelled, if the table has only some of the keys. A
    /// key counts as misspelled only if the object lacks the similar key.
    pub(crate) fn misspelled(&mut self, object: &'a Map<String, Value>, keys: &'static [Key]) {
        let is_known = |key: &str| keys.iter().any(|known| known.name == key);
        for key in object.keys().filter(|key| !is_known(key)) {
            let missing = keys.iter().map(|known| known.name);
            let missing = missing.filter(|name| !object.contains_key(*name));
            if let Some(near) = self.near(key, missing)
                // A key that is a part of a much longer key is not a misspelling.
                && near.len().abs_diff(key.len()) <= 2
            {
                let message = format_args!("is unknown to this program; did you mean {near}?");
                self.report_key(key, &rules::KEY_UNKNOWN, message);
            }
        }
    }

    /// Returns the candidate that is most similar to a key, if one is similar.
    fn near<'c>(&self, key: &str, candidates: impl Iterator<Item = &'c str>) -> Option<&'c str> {
        /// The longest key that is compared, in bytes.
        const MAX_COMPARED: usize = 40;

        if !self.has_room() || key.len() > MAX_COMPARED {
            return None;
        }
        closest(key, candidates).into_iter().next()
    }

    fn report_ignored(&mut self, key: &Key) {
        let users: Vec<&str> = key.styles.names().collect();
        let message = match users.len() {
            0..=4 => format!("is used by {} only; remove it", users.join(" and ")),
            _ => "is not used by this style; remove it".to_owned(),
        };
        self.report(&rules::KEY_IGNORED, message);
    }

    /// Calls `look` for each object in a list of this name, with the path to it.
    pub(crate) fn each(
        &mut self,
        parent: &'a Map<String, Value>,
        name: &'a str,
        mut look: impl FnMut(&mut Self, &'a Map<String, Value>),
    ) {
        let list = parent.get(name).and_then(Value::as_array);
        for (index, value) in list.into_iter().flatten().enumerate() {
            if let Some(object) = value.as_object() {
                self.within(Step::Key(name), |walk| {
                    walk.within(Step::Index(index), |walk| look(walk, object));
                });
            }
        }
    }

    /// Reports the value of this key in the current object.
    pub(crate) fn report_key(&mut self, key: &'a str, rule: &'static Rule, message: impl Display) {
        self.within(Step::Key(key), |walk| walk.report(rule, message));
    }

    /// Adds a finding about another file.
    pub(crate) fn add(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    /// Returns whether the next finding may still get a position, which takes some time.
    fn has_room(&self) -> bool {
        self.findings.len() < Self::MAX_POSITIONS
    }

    /// Reports a key that the current object lacks.
    pub(crate) fn missing(&mut self, rule: &'static Rule, key: &str, expected: impl Display) {
        let message = match self.place() {
            place if place.is_empty() => format!("lacks {key}; add it, {expected}"),
            place => format!("{place} lacks {key}; add it, {expected}"),
        };
        let position = (!self.path.is_empty()).then(|| self.position()).flatten();
        self.push(rule, position, message, Some(key));
    }

    /// Reports the current value. The message follows the name of the value on the same line.
    pub(crate) fn report(&mut self, rule: &'static Rule, message: impl Display) {
        let message = format!("{} {message}", self.place());
        let position = self.position();
        self.push(rule, position, message, None);
    }

    /// Adds a finding about the whole file. The message follows the file name on the same line.
    pub(crate) fn report_whole(&mut self, rule: &'static Rule, message: impl Into<String>) {
        self.findings
            .push(Finding::in_file(rule, self.file, message));
    }

    /// Calls `look` with the path one step deeper.
    pub(crate) fn within<T>(&mut self, step: Step<'a>, look: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(step);
        let result = look(self);
        self.path.pop();
        result
    }

    fn value(&mut self, value: &'a Value, shape: &'static Shape, key: &Key) {
        match (shape, value) {
            (Shape::Any, _)
            | (Shape::Text, Value::String(_))
            | (Shape::Number, Value::Number(_))
            | (Shape::Bool, Value::Bool(_))
            | (Shape::Value, Value::String(_) | Value::Number(_)) => {}
            // Phones refuse null, and ignore the other types.
            (Shape::Value, Value::Null) => self.report(
                &rules::TYPE,
                format_args!("is null; it must be {}", shape.expected()),
            ),
            (Shape::One, Value::Number(number)) => {
                if number.as_f64() != Some(1.0) {
                    let message = format_args!("is {number}; it must be {}", shape.expected());
                    self.report(key.wrong_value, message);
                }
            }
            (Shape::Date, Value::String(text)) => {
                if !dates::is_date(text) {
                    let text = excerpt(text);
                    let message =
                        format_args!("is {text}; write it as 2026-01-31T12:00:00Z or …+01:00");
                    self.report(key.wrong_value, message);
                }
            }
            (Shape::Color, Value::String(text)) => {
                if color::parse(text).is_none() {
                    let text = excerpt(text);
                    self.report(
                        key.wrong_value,
                        format_args!("is {text}; write it as rgb(255, 0, 10)"),
                    );
                }
            }
            (Shape::Choice(choices), Value::String(text)) => {
                if !choices.contains(&text.as_str()) {
                    let message =
                        format_args!("is {}; it must be {}", excerpt(text), choices.join(" or "));
                    self.report(key.wrong_value, message);
                }
            }
            (Shape::Currency, Value::String(text)) => {
                if text.len() != 3 || !text.bytes().all(|b| b.is_ascii_uppercase()) {
                    let message = format_args!(
                        "is {}; write it in three letters, such as EUR",
                        excerpt(text)
                    );
                    self.report(key.wrong_value, message);
                }
            }
            (Shape::Object(keys), Value::Object(object)) => self.object(object, keys),
            (Shape::List(shape), Value::Array(values)) => {
                for (index, value) in values.iter().enumerate() {
                    self.within(Step::Index(index), |walk| walk.value(value, shape, key));
                }
            }
            (shape, value) => self.report(
                key.wrong_type,
                format_args!("is {}; it must be {}", type_of(value), shape.expected()),
            ),
        }
    }

    /// Returns the current path with its indices, such as `generic.primaryFields[0].value`.
    fn place(&self) -> String {
        let mut place = String::new();
        for step in &self.path {
            match step {
                Step::Key(key) if place.is_empty() => place.push_str(&shortened(key)),
                Step::Key(key) => place.extend([".", &shortened(key)]),
                Step::Index(index) => place.push_str(&format!("[{index}]")),
            }
        }
        place
    }

    fn position(&self) -> Option<crate::Position> {
        self.has_room()
            .then(|| json::position_of(self.text, &self.path))
            .flatten()
    }

    fn push(
        &mut self,
        rule: &'static Rule,
        position: Option<crate::Position>,
        message: String,
        last: Option<&str>,
    ) {
        let keys = self.path.iter().filter_map(|step| match step {
            Step::Key(key) => Some(*key),
            Step::Index(_) => None,
        });
        let key = keys.chain(last).collect::<Vec<_>>().join(".");
        self.findings.push(
            Finding::in_file(rule, self.file, message)
                .at(position)
                .of_key(&key),
        );
    }
}

impl Shape {
    fn expected(&self) -> &'static str {
        match self {
            Self::Any => "any value",
            Self::Text | Self::Color | Self::Choice(_) | Self::Currency => "a string",
            Self::Number => "a number",
            Self::Bool => "true or false",
            Self::One => "the number 1",
            Self::Value => "a string or a number",
            Self::Date => "a date as 2026-01-31T12:00:00Z",
            Self::Object(_) => "an object",
            Self::List(_) => "an array",
        }
    }
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// Quotes a value for a message. Shortens it if it is long.
pub(crate) fn excerpt(text: &str) -> String {
    format!("\"{}\"", shortened(text))
}

/// Returns the first 60 characters, and an ellipsis if there are more.
fn shortened(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()).into(),
        None => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_values_are_cut() {
        assert_eq!(excerpt(&"ä".repeat(60)), format!("\"{}\"", "ä".repeat(60)));
        assert_eq!(excerpt(&"ä".repeat(61)), format!("\"{}…\"", "ä".repeat(60)));
    }
}
