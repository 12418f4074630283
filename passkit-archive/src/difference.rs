//! What changes on a phone when a newer version of a pass replaces an older one.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use passkit_server::{identifiers::Kind, text::OneLine};
use serde_json::{Map, Value};

use crate::{Finding, PassFiles, keys, layout::Layout};

/// At most this many changes are listed.
const MAX_CHANGES: usize = 1_000;

/// Keys that a phone shows nowhere. Their values may be secrets.
const SECRET: [&str; 3] = ["authenticationToken", "userInfo", "nfc"];

/// The changes between two versions of a pass or an order.
///
/// ```
/// use passkit_archive::{ArchiveBuilder, Difference, PassFiles};
/// use passkit_server::identifiers::Kind;
///
/// let version = |seat: &str| {
///     let pass = serde_json::json!({ "eventTicket": { "primaryFields": [
///         { "key": "seat", "label": "Seat", "value": seat, "changeMessage": "Your seat is now %@." },
///     ] } });
///     PassFiles::of_archive(&ArchiveBuilder::new(Kind::Pass, pass.to_string()).build_unsigned().unwrap())
/// };
/// let difference = Difference::of(&version("7")?, &version("12")?)?;
/// let messages: Vec<&str> = difference.notifications().collect();
/// assert_eq!(messages, ["Your seat is now 12."]);
/// # Ok::<(), passkit_archive::Finding>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Difference {
    /// The changes: first the fields, then other values, then files. At most 1,000.
    pub changes: Vec<Change>,
    /// Whether there are more changes than are listed.
    pub is_cut: bool,
}

/// A change between two versions.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Change {
    /// What changed.
    pub place: Place,
    /// The value in the older version. `None` if there was none. It is empty if it may be a secret.
    pub old: Option<String>,
    /// The value in the newer version, like `old`.
    pub new: Option<String>,
    /// The message that the user sees, if the change causes one.
    pub notification: Option<String>,
}

/// The part of a pass that changed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Place {
    /// The value of the field with this key and label.
    Field(String, String),
    /// The value at this JSON Pointer.
    Value(String),
    /// The file of this name. Its content is not part of the change.
    File(String),
}

impl Difference {
    /// Compares two versions.
    ///
    /// A user sees a message when the value of a field with a `changeMessage` changes. Two fields are the same field if they
    /// have the same key. Other changes are shown without a message. If both versions are equal, a phone that fetches the
    /// newer one shows nothing.
    ///
    /// Values are compared as they are in `pass.json`, not in the language of a phone.
    ///
    /// # Errors
    /// Fails if `pass.json` or `order.json` is not a JSON object. The error is the finding that says why.
    ///
    /// Source: Apple's *Wallet Passes: Pass Field Content*, `changeMessage`.
    pub fn of(old: &PassFiles, new: &PassFiles) -> Result<Self, Finding> {
        let (before, after) = (old.description()?, new.description()?);
        let mut difference = Self::default();
        if new.kind() == Kind::Pass {
            difference.compare_fields(&fields(&before), &fields(&after));
        }
        difference.compare_members("", &before, &after);
        difference.compare_files(old, new);
        Ok(difference)
    }

    /// Returns the messages that the user sees.
    pub fn notifications(&self) -> impl Iterator<Item = &str> {
        let messages = self.changes.iter().map(|change| &change.notification);
        messages.filter_map(Option::as_deref)
    }

    fn push(&mut self, change: Change) {
        if self.changes.len() < MAX_CHANGES {
            self.changes.push(change);
        } else {
            self.is_cut = true;
        }
    }

    fn compare_fields(&mut self, before: &Fields<'_>, after: &Fields<'_>) {
        let keys: BTreeSet<&str> = before.keys().chain(after.keys()).copied().collect();
        for key in keys {
            let (old, new) = (before.get(key), after.get(key));
            let text = |name| Some(new.or(old)?.members.get(name)?.as_str()?.to_owned());
            let value = |field: Option<&Field<'_>>| Some(shown(field?.members.get(VALUE)?));
            let change = |old, new, notification| Change {
                place: Place::Field(key.to_owned(), text("label").unwrap_or_default()),
                old,
                new,
                notification,
            };
            let (Some(old), Some(new)) = (old, new) else {
                // There is nothing to compare, so there is no message.
                self.push(change(value(old), value(new), None));
                continue;
            };
            let (old_value, new_value) = (value(Some(old)), value(Some(new)));
            if old_value != new_value {
                let message = text("changeMessage").zip(new_value.as_deref());
                let message = message.map(|(message, value)| message.replace("%@", value));
                self.push(change(old_value, new_value, message));
            }
            if old.group != new.group {
                let place = |field: &Field<'_>| Some(format!("in {}", field.group));
                self.push(change(place(old), place(new), None));
            }
            self.compare_members(&new.path, old.members, new.members);
        }
    }

    /// Compares the members of two objects at the JSON Pointer `path`. Leaves out what
    /// `compare_fields` compares.
    fn compare_members(
        &mut self,
        path: &str,
        before: &Map<String, Value>,
        after: &Map<String, Value>,
    ) {
        let parts: Vec<&str> = path.split('/').skip(1).collect();
        let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
        for name in names {
            let is_done = match parts[..] {
                [style] => is_style(style) && is_fields(name),
                [style, group, _] => is_style(style) && is_fields(group) && name == VALUE,
                _ => false,
            };
            if !is_done {
                let path = format!("{path}/{}", name.replace('~', "~0").replace('/', "~1"));
                self.compare(&path, before.get(name), after.get(name));
            }
        }
    }

    fn compare(&mut self, path: &str, old: Option<&Value>, new: Option<&Value>) {
        match (old, new) {
            _ if old == new => {}
            (Some(Value::Object(old)), Some(Value::Object(new))) => {
                self.compare_members(path, old, new);
            }
            (Some(Value::Array(old)), Some(Value::Array(new))) => {
                for index in 0..old.len().max(new.len()) {
                    self.compare(&format!("{path}/{index}"), old.get(index), new.get(index));
                }
            }
            _ => {
                let is_secret = path
                    .split('/')
                    .nth(1)
                    .is_some_and(|key| SECRET.contains(&key));
                let text = |value: &Value| match is_secret {
                    true => String::new(),
                    false => shown(value),
                };
                self.push(Change {
                    place: Place::Value(path.to_owned()),
                    old: old.map(text),
                    new: new.map(text),
                    notification: None,
                });
            }
        }
    }

    fn compare_files(&mut self, old: &PassFiles, new: &PassFiles) {
        let description = Layout::of(new.kind()).description_file;
        let names: BTreeSet<&str> = old.names().chain(new.names()).collect();
        for name in names.into_iter().filter(|name| *name != description) {
            let (old, new) = (old.get(name), new.get(name));
            if old != new {
                let size = |content: &[u8]| format!("{} bytes", content.len());
                self.push(Change {
                    place: Place::File(name.to_owned()),
                    old: old.map(size),
                    new: new.map(size),
                    notification: None,
                });
            }
        }
    }
}

/// The field of a pass.
struct Field<'a> {
    /// The group of fields that it is in, such as `backFields`.
    group: &'a str,
    /// Its JSON Pointer.
    path: String,
    members: &'a Map<String, Value>,
}

type Fields<'a> = BTreeMap<&'a str, Field<'a>>;

/// The member of a field with its value.
const VALUE: &str = "value";

fn is_style(name: &str) -> bool {
    keys::STYLES.iter().any(|style| style.name == name)
}

fn is_fields(name: &str) -> bool {
    name.ends_with("Fields")
}

/// Returns all fields by their keys. If two fields have the same key, the last one counts.
fn fields(pass: &Map<String, Value>) -> Fields<'_> {
    let mut fields = BTreeMap::new();
    for (style, groups) in pass.iter().filter(|(style, _)| is_style(style)) {
        let groups = groups.as_object().into_iter().flatten();
        for (group, items) in groups.filter(|(group, _)| is_fields(group)) {
            let items = items.as_array().into_iter().flatten();
            for (index, members) in items.enumerate() {
                let Some(members) = members.as_object() else {
                    continue;
                };
                if let Some(key) = members.get("key").and_then(Value::as_str) {
                    let path = format!("/{style}/{group}/{index}");
                    fields.insert(
                        key,
                        Field {
                            group,
                            path,
                            members,
                        },
                    );
                }
            }
        }
    }
    fields
}

/// Writes a value as a phone shows it in a message: a text without quotes.
fn shown(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

impl fmt::Display for Change {
    /// Writes one line, such as `field seat ("Seat"): "7" is now "12"`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Field(key, label) if label.is_empty() => {
                write!(f, "field {}", OneLine::of(key))?
            }
            Place::Field(key, label) => {
                write!(f, "field {} (\"{}\")", OneLine::of(key), OneLine::of(label))?;
            }
            Place::Value(path) => write!(f, "{}", OneLine::of(path))?,
            Place::File(name) => write!(f, "file {}", OneLine::of(name))?,
        }
        let text = |text: &String| match &self.place {
            Place::File(_) => text.clone(),
            _ => format!("\"{}\"", OneLine::of(text)),
        };
        match (&self.old, &self.new) {
            (Some(old), Some(new)) if old.is_empty() && new.is_empty() => f.write_str(": changed"),
            (Some(old), Some(new)) => write!(f, ": {} is now {}", text(old), text(new)),
            (None, Some(new)) if new.is_empty() => f.write_str(": new"),
            (None, Some(new)) => write!(f, ": new, {}", text(new)),
            (Some(_), None) => f.write_str(": removed"),
            (None, None) => f.write_str(": has no value"),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::ArchiveBuilder;

    fn files(pass: &Value, strip: Option<&str>) -> PassFiles {
        let builder = ArchiveBuilder::new(Kind::Pass, pass.to_string());
        let builder = strip.into_iter().fold(builder, |builder, content| {
            builder.file("strip.png", content)
        });
        PassFiles::of_archive(&builder.build_unsigned().unwrap()).unwrap()
    }

    fn lines(old: &PassFiles, new: &PassFiles) -> Vec<String> {
        let difference = Difference::of(old, new).unwrap();
        let lines = difference.changes.iter().map(|change| {
            let message = change.notification.iter().map(|text| format!(" -> {text}"));
            change.to_string() + &message.collect::<String>()
        });
        lines.collect()
    }

    #[test]
    fn changes_are_listed_with_their_messages() {
        let old = json!({
            "authenticationToken": "one", "voided": false, "foregroundColor": "rgb(0, 0, 0)",
            "locations": [{ "latitude": 1 }, { "latitude": 2 }],
            "userInfo": { "myFields": [{ "value": 1 }] },
            "eventTicket": {
                "primaryFields": [{ "key": "seat", "label": "Seat", "value": 7, "changeMessage": "Now %@!" }],
                "backFields": [
                    { "key": "gone", "value": "x", "changeMessage": "%@" },
                    { "key": "moved", "value": "x", "changeMessage": "%@" },
                    { "key": "silent", "value": "a" },
                    { "key": "same", "value": "a", "changeMessage": "%@", "label": "A" },
                ],
            },
        });
        let new = json!({
            "authenticationToken": "two", "foregroundColor": "rgb(0, 0, 0)",
            "locations": [{ "latitude": 1 }, { "latitude": 3 }],
            "userInfo": { "myFields": [{ "value": 2 }] },
            "eventTicket": {
                "primaryFields": [{ "key": "seat", "label": "Seat", "value": 12, "changeMessage": "Now %@!" }],
                "auxiliaryFields": [{ "key": "moved", "value": "x", "changeMessage": "%@" }],
                "backFields": [
                    { "key": "same", "value": "a", "changeMessage": "%@", "label": "B" },
                    { "key": "new", "value": "x\n", "changeMessage": "%@" },
                    { "key": "silent", "value": "b" },
                ],
            },
            "a/b": null,
        });
        assert_eq!(
            lines(&files(&old, Some("12")), &files(&new, Some("345"))),
            [
                r#"field gone: removed"#,
                r#"field moved: "in backFields" is now "in auxiliaryFields""#,
                r#"field new: new, "x\n""#,
                r#"/eventTicket/backFields/0/label: "A" is now "B""#,
                r#"field seat ("Seat"): "7" is now "12" -> Now 12!"#,
                r#"field silent: "a" is now "b""#,
                r#"/a~1b: new, "null""#,
                r#"/authenticationToken: changed"#,
                r#"/locations/1/latitude: "2" is now "3""#,
                r#"/userInfo/myFields/0/value: changed"#,
                r#"/voided: removed"#,
                r#"file strip.png: 2 bytes is now 3 bytes"#,
            ]
        );
        let same = files(&old, None);
        assert_eq!(Difference::of(&same, &same).unwrap(), Difference::default());
    }

    #[test]
    fn many_changes_are_cut() {
        let of = |last: usize| {
            let many: Vec<usize> = (0..last).collect();
            files(&json!({ "userInfo": null, "many": many }), None)
        };
        let difference = Difference::of(&of(0), &of(MAX_CHANGES)).unwrap();
        assert!(difference.changes.len() == MAX_CHANGES && !difference.is_cut);
        let difference = Difference::of(&of(0), &of(MAX_CHANGES + 1)).unwrap();
        assert!(difference.changes.len() == MAX_CHANGES && difference.is_cut);
    }
}
