//! What differs between two versions of a pass, as far as phones show it.

use std::{collections::BTreeMap, fmt, io::Cursor, str::FromStr};

use passkit_server::text::OneLine;
use serde_json::{Map, Value};

use crate::{
    archive_file::Entries,
    keys::Styles,
    layout::{Layout, MANIFEST, SIGNATURE},
};

/// The top-level keys whose values are not shown on a pass or an order.
const HIDDEN: [&str; 16] = [
    "appLaunchURL",
    "authenticationToken",
    "beacons",
    "formatVersion",
    "locations",
    "maxDistance",
    "nfc",
    "passTypeIdentifier",
    "relevantDate",
    "schemaVersion",
    "serialNumber",
    "sharingProhibited",
    "teamIdentifier",
    "updatedAt",
    "userInfo",
    "webServiceURL",
];
/// The names of arrays of fields end with this.
const FIELDS: &str = "Fields";
/// A summary names about this many bytes of names.
const MAX_NAMES: usize = 120;

/// What differs between two versions of a pass or an order.
///
/// The names are keys of fields, other keys, and names of files. They contain no values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Changes {
    /// What phones show, or may show.
    pub visible: Vec<String>,
    /// What phones don't show on the pass, such as `userInfo`.
    pub hidden: Vec<String>,
    /// The fields with a `changeMessage` whose value changed. For each of them, phones show a
    /// notification. Always empty for orders.
    pub messages: Vec<String>,
}

/// The numbers and the first names of [`Changes`], as a short text.
///
/// ```
/// use passkit_archive::ChangeSummary;
///
/// let text = "visible=1 messages=1 hidden=0: balance";
/// let summary: ChangeSummary = text.parse().unwrap();
/// assert_eq!(summary.visible, 1);
/// assert_eq!(summary.names, "balance");
/// assert_eq!(summary.to_string(), text);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChangeSummary {
    /// How many changes phones show, or may show.
    pub visible: usize,
    /// How many fields with a `changeMessage` changed.
    pub messages: usize,
    /// How many changes phones don't show.
    pub hidden: usize,
    /// The first names, separated by commas. The fields with a `changeMessage` come first, and then
    /// other visible changes. The text has no control characters.
    pub names: String,
}

impl Changes {
    /// Compares two archives. Reads their descriptions, and the checksums of the other files. Returns
    /// `None` if one of them is damaged, or if they are not of the same kind.
    #[must_use]
    pub fn between(before: &[u8], after: &[u8]) -> Option<Self> {
        let [mut before, mut after] = [
            Entries::open(Cursor::new(before))?,
            Entries::open(Cursor::new(after))?,
        ];
        if before.kind != after.kind {
            return None;
        }
        let layout = Layout::of(after.kind);
        let mut changes = Self::of_descriptions(&before.description()?, &after.description()?);
        let (old, new) = (before.checksums()?, after.checksums()?);
        let compared = [layout.description_file, MANIFEST, SIGNATURE];
        let names: Vec<&String> = old
            .keys()
            .chain(new.keys().filter(|name| !old.contains_key(*name)))
            .collect();
        let changed = names
            .into_iter()
            .filter(|name| !compared.contains(&name.as_str()) && old.get(*name) != new.get(*name));
        changes.visible.extend(changed.cloned());
        Some(changes)
    }

    fn of_descriptions(before: &Map<String, Value>, after: &Map<String, Value>) -> Self {
        let mut changes = Self::default();
        for key in differing(before, after) {
            if HIDDEN.contains(&key) {
                changes.hidden.push(key.to_owned());
            } else if !is_style(key) {
                changes.visible.push(key.to_owned());
            }
        }
        changes.compare_styles(before, after);
        changes
    }

    /// Compares the fields one by one, and the other keys of the styles.
    fn compare_styles(&mut self, before: &Map<String, Value>, after: &Map<String, Value>) {
        let (old, new) = (fields(before), fields(after));
        for (name @ (_, key), field) in &new {
            let previous = old.get(name);
            if previous == Some(field) {
                continue;
            }
            if previous.is_some_and(|previous| is_shown_alike(previous, field)) {
                self.hidden.push(format!("changeMessage of {key}"));
                continue;
            }
            self.visible.push((*key).to_owned());
            let value = |field: &Value| field.get("value").cloned();
            if has_message(field) && previous.is_none_or(|old| value(old) != value(field)) {
                self.messages.push((*key).to_owned());
            }
        }
        let removed = old.keys().filter(|field| !new.contains_key(*field));
        self.visible
            .extend(removed.map(|(_, key)| (*key).to_owned()));
        let styles = before
            .keys()
            .chain(after.keys())
            .filter(|key| is_style(key));
        let empty = Map::new();
        for style in styles.collect::<std::collections::BTreeSet<_>>() {
            let [old, new] = [before, after].map(|description| {
                let style = description.get(style).and_then(Value::as_object);
                style.unwrap_or(&empty)
            });
            let other = differing(old, new).filter(|key| !key.ends_with(FIELDS));
            self.visible.extend(other.map(str::to_owned));
        }
    }

    /// Returns the numbers and the first names.
    #[must_use]
    pub fn summary(&self) -> ChangeSummary {
        let without_message = self
            .visible
            .iter()
            .filter(|name| !self.messages.contains(name));
        let all = self
            .messages
            .iter()
            .chain(without_message)
            .chain(&self.hidden);
        let mut names = String::new();
        for name in all {
            let name = OneLine::of(name).to_string();
            if names.len() + name.len() > MAX_NAMES {
                names.push_str(if names.is_empty() { "…" } else { ", …" });
                break;
            }
            if !names.is_empty() {
                names.push_str(", ");
            }
            names.push_str(&name);
        }
        ChangeSummary {
            visible: self.visible.len(),
            messages: self.messages.len(),
            hidden: self.hidden.len(),
            names,
        }
    }
}

impl fmt::Display for ChangeSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            visible,
            messages,
            hidden,
            names,
        } = self;
        write!(
            f,
            "visible={visible} messages={messages} hidden={hidden}: {names}"
        )
    }
}

/// The text is not one that [`Display`](fmt::Display) writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a summary of changes")]
pub struct InvalidSummary;

impl FromStr for ChangeSummary {
    type Err = InvalidSummary;

    fn from_str(text: &str) -> Result<Self, InvalidSummary> {
        let (numbers, names) = text.split_once(": ").ok_or(InvalidSummary)?;
        let mut numbers = numbers.split(' ');
        let mut number = |name: &str| {
            let (found, number) = numbers.next()?.split_once('=')?;
            (found == name).then(|| number.parse().ok())?
        };
        Ok(Self {
            visible: number("visible").ok_or(InvalidSummary)?,
            messages: number("messages").ok_or(InvalidSummary)?,
            hidden: number("hidden").ok_or(InvalidSummary)?,
            names: names.to_owned(),
        })
    }
}

fn is_style(key: &str) -> bool {
    Styles::named(key).is_some()
}

/// Returns the keys whose values differ.
fn differing<'a>(
    one: &'a Map<String, Value>,
    other: &'a Map<String, Value>,
) -> impl Iterator<Item = &'a str> {
    let gone = one.keys().filter(|key| !other.contains_key(*key));
    let changed = other
        .iter()
        .filter(|(key, value)| one.get(*key) != Some(*value));
    gone.chain(changed.map(|(key, _)| key)).map(String::as_str)
}

/// Returns the fields of all styles, by the names of their arrays and their keys.
fn fields(description: &Map<String, Value>) -> BTreeMap<(&str, &str), &Value> {
    let styles = description
        .iter()
        .filter(|(key, _)| is_style(key))
        .filter_map(|(_, style)| style.as_object());
    let arrays = styles
        .flatten()
        .filter(|(name, _)| name.ends_with(FIELDS))
        .filter_map(|(name, fields)| Some((name.as_str(), fields.as_array()?)));
    arrays
        .flat_map(|(name, fields)| {
            let key = |field| Value::as_str(Value::get(field, "key")?);
            let keyed = move |field| Some(((name, key(field)?), field));
            fields.iter().filter_map(keyed)
        })
        .collect()
}

/// Returns whether two versions of a field differ at most in their `changeMessage`.
fn is_shown_alike(one: &Value, other: &Value) -> bool {
    let shown = |field: &Value| {
        let mut shown = field.clone();
        if let Some(shown) = shown.as_object_mut() {
            shown.remove("changeMessage");
        }
        shown
    };
    shown(one) == shown(other)
}

fn has_message(field: &Value) -> bool {
    let message = field.get("changeMessage").and_then(Value::as_str);
    message.is_some_and(|message| !message.is_empty())
}

/// Returns the keys of the fields of a pass that have a `changeMessage`. Returns `None` if the archive
/// is damaged.
#[must_use]
pub fn fields_with_messages(archive: &[u8]) -> Option<Vec<String>> {
    let description = Entries::open(Cursor::new(archive))?.description()?;
    Some(messages(&description))
}

fn messages(description: &Map<String, Value>) -> Vec<String> {
    let fields = fields(description).into_iter();
    let with_message = fields.filter(|(_, field)| has_message(field));
    with_message.map(|((_, key), _)| key.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use passkit_server::identifiers::Kind;
    use serde_json::json;

    use super::*;
    use crate::ArchiveBuilder;

    fn base() -> Value {
        json!({
            "userInfo": { "a": 1 },
            "logoText": "Shop",
            "storeCard": {
                "primaryFields": [
                    { "key": "balance", "value": "1", "changeMessage": "now %@" },
                    { "key": "name", "value": "Anna" },
                ],
            },
        })
    }

    fn of(before: &Value, after: &Value) -> Changes {
        let object = |value: &Value| value.as_object().unwrap().clone();
        Changes::of_descriptions(&object(before), &object(after))
    }

    #[test]
    fn each_change_is_visible_or_not_and_has_a_message_or_not() {
        let field = |index: usize, key: &str, value: Value| {
            let mut changed = base();
            changed["storeCard"]["primaryFields"][index][key] = value;
            changed
        };
        let with = |key: &str, value: Value| {
            let mut changed = base();
            changed[key] = value;
            changed
        };
        for (after, visible, hidden, messages) in [
            (base(), &[][..], &[][..], &[][..]),
            (with("userInfo", json!(2)), &[], &["userInfo"], &[]),
            (
                with("relevantDate", json!("x")),
                &[],
                &["relevantDate"],
                &[],
            ),
            (with("logoText", json!("New")), &["logoText"], &[], &[]),
            (with("voided", json!(true)), &["voided"], &[], &[]),
            (
                field(0, "value", json!("2")),
                &["balance"],
                &[],
                &["balance"],
            ),
            (field(0, "label", json!("L")), &["balance"], &[], &[]),
            (field(1, "value", json!("Bob")), &["name"], &[], &[]),
            (
                field(1, "changeMessage", json!("%@")),
                &[],
                &["changeMessage of name"],
                &[],
            ),
            (
                with("coupon", json!({ "transitType": "x" })),
                &["transitType"],
                &[],
                &[],
            ),
        ] {
            let changes = of(&base(), &after);
            assert_eq!(changes.visible, visible);
            assert_eq!(changes.hidden, hidden);
            assert_eq!(changes.messages, messages);
        }
        let mut fewer = base();
        fewer["storeCard"]["primaryFields"]
            .as_array_mut()
            .unwrap()
            .pop();
        assert_eq!(of(&base(), &fewer).visible, ["name"]);
        let mut none = base();
        none.as_object_mut().unwrap().remove("storeCard");
        assert_eq!(of(&base(), &none).visible, ["balance", "name"]);
        assert_eq!(messages(base().as_object().unwrap()), ["balance"]);
    }

    fn archive(description: &Value, files: &[(&str, &str)]) -> Vec<u8> {
        let builder = ArchiveBuilder::new(Kind::Pass, description.to_string());
        let builder = files.iter().fold(builder, |builder, (name, content)| {
            builder.file(*name, *content)
        });
        builder.build_unsigned().unwrap()
    }

    #[test]
    fn files_are_compared_by_their_checksums() {
        let before = archive(
            &base(),
            &[("icon.png", "1"), ("logo.png", "1"), ("strip.png", "1")],
        );
        let mut newer = base();
        newer["userInfo"] = json!(2);
        let after = archive(
            &newer,
            &[
                ("icon.png", "2"),
                ("strip.png", "1"),
                ("de.lproj/pass.strings", "1"),
            ],
        );
        let changes = Changes::between(&before, &after).unwrap();
        assert_eq!(
            changes.visible,
            ["icon.png", "logo.png", "de.lproj/pass.strings"]
        );
        assert_eq!(changes.hidden, ["userInfo"]);
        assert_eq!(fields_with_messages(&before), Some(vec!["balance".into()]));
        assert_eq!(fields_with_messages(b"PK"), None);
        assert_eq!(Changes::between(&after, &after), Some(Changes::default()));
        assert_eq!(Changes::between(&before, b"PK"), None);
        assert_eq!(Changes::between(&before[..100], &after), None);
    }

    #[test]
    fn a_summary_is_short_and_can_be_read_again() {
        let names = |prefix: &str, count| (0..count).map(|n| format!("{prefix}{n}")).collect();
        let changes = Changes {
            visible: names("visible", 100),
            hidden: vec!["user\nInfo".into()],
            messages: vec!["visible1".into()],
        };
        let summary = changes.summary();
        assert!(
            summary.names.starts_with("visible1, visible0, visible2"),
            "{summary}"
        );
        assert!(
            summary.names.ends_with(", …") && summary.names.len() < 130,
            "{summary}"
        );
        assert_eq!(
            (summary.visible, summary.messages, summary.hidden),
            (100, 1, 1)
        );
        assert!(summary.to_string().len() < 170);
        for changes in [
            changes,
            Changes::default(),
            Changes {
                hidden: vec!["a: b\n".into()],
                ..Changes::default()
            },
            Changes {
                visible: vec!["x".repeat(200)],
                ..Changes::default()
            },
        ] {
            let summary = changes.summary();
            assert_eq!(summary.to_string().parse(), Ok(summary.clone()));
            assert!(!summary.names.contains(char::is_control));
        }
        for wrong in [
            "",
            ": a",
            "visible=1: a",
            "visible=1 messages=x hidden=0: a",
            "messages=1 visible=1 hidden=1: ",
        ] {
            assert_eq!(
                wrong.parse::<ChangeSummary>(),
                Err(InvalidSummary),
                "{wrong}"
            );
        }
    }
}
