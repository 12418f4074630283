//! What an archive says about updates, and what changed since another version of it.

use std::{collections::BTreeMap, fmt, path::Path};

use passkit_archive::{ArchiveFile, PassFiles, Report, Rules, keys::Styles};
use passkit_server::{PassId, text::OneLine};
use serde_json::{Map, Value};

/// The top-level keys whose values are not shown on a pass.
const HIDDEN: [&str; 14] = [
    "appLaunchURL",
    "authenticationToken",
    "beacons",
    "formatVersion",
    "locations",
    "maxDistance",
    "nfc",
    "passTypeIdentifier",
    "relevantDate",
    "serialNumber",
    "sharingProhibited",
    "teamIdentifier",
    "userInfo",
    "webServiceURL",
];
/// The files that are compared key by key.
const DESCRIPTIONS: [&str; 2] = ["pass.json", "order.json"];
/// The names of arrays of fields end with this.
const FIELDS: &str = "Fields";
const DAMAGED: &str = "is not a pass or an order, or is damaged";
/// How many changes are named.
const NAMED: usize = 5;

/// What the archive of a pass says about updates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) digest: [u8; 32],
    pub(crate) web_service_url: Option<String>,
    pub(crate) has_token: bool,
    /// Whether the archive has fields, as a pass does and an order does not.
    pub(crate) has_fields: bool,
    /// The keys of the fields that have a `changeMessage`.
    pub(crate) messages: Vec<String>,
    /// What changed since the previous version, if that version is known.
    pub(crate) changes: Option<Changes>,
}

/// What differs between two versions of a pass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// What phones show: the keys of fields, other keys, and files.
    pub(crate) visible: Vec<String>,
    pub(crate) hidden: Vec<String>,
    /// The fields that changed and have a `changeMessage`.
    pub(crate) messages: Vec<String>,
}

/// A version of a pass, in a file.
pub(crate) struct Version {
    pub(crate) id: PassId,
    digest: [u8; 32],
    web_service_url: Option<String>,
    has_token: bool,
    description: Map<String, Value>,
    /// The digests of the files, by their names.
    files: Map<String, Value>,
}

impl Version {
    /// Reads an archive file, whether or not it is signed.
    pub(crate) fn open(path: &Path) -> Result<Self, String> {
        let cannot_read = |error: std::io::Error| format!("can't be read: {error}");
        // The file is not read if it is too large.
        ArchiveFile::open(path)
            .map_err(cannot_read)?
            .ok_or(DAMAGED)?;
        Self::read(&std::fs::read(path).map_err(cannot_read)?)
    }

    /// Reads an archive, whether or not it is signed.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, String> {
        let archive = Report::of(bytes, Rules::development()).archive;
        let archive = archive.ok_or(DAMAGED)?;
        let files = PassFiles::of_archive(bytes).map_err(|finding| finding.to_string())?;
        let description = files.description().map_err(|finding| finding.to_string())?;
        let manifest = files.into_builder().manifest();
        Ok(Self {
            id: archive.id,
            digest: archive.content_digest,
            web_service_url: archive.web_service_url,
            has_token: archive.auth_token.is_some(),
            description,
            files: serde_json::from_slice(&manifest).map_err(|_| DAMAGED)?,
        })
    }
}

impl Content {
    /// Reads what a version says. If the previous version is known, compares the two.
    pub(crate) fn of(version: &Version, previous: Option<&Version>) -> Self {
        let fields = fields(&version.description);
        let messages = fields
            .iter()
            .filter(|(_, field)| has_message(field))
            .map(|((_, key), _)| (*key).to_owned())
            .collect();
        Self {
            digest: version.digest,
            web_service_url: version.web_service_url.clone(),
            has_token: version.has_token,
            has_fields: !fields.is_empty(),
            messages,
            changes: previous.map(|previous| Changes::between(previous, version)),
        }
    }

    /// Returns whether phones that have the archive register at a web service.
    pub(crate) fn has_service(&self) -> bool {
        self.web_service_url.is_some() && self.has_token
    }
}

impl Changes {
    fn between(before: &Version, after: &Version) -> Self {
        let mut changes = Self::default();
        let is_style = |key: &str| Styles::named(key).is_some();
        for key in differing(&before.description, &after.description) {
            if HIDDEN.contains(&key) {
                changes.hidden.push(key.to_owned());
            } else if !is_style(key) {
                changes.visible.push(key.to_owned());
            }
        }
        changes.compare_styles(&before.description, &after.description);
        let files = differing(&before.files, &after.files);
        let files = files.filter(|name| !DESCRIPTIONS.contains(name));
        changes.visible.extend(files.map(str::to_owned));
        changes
    }

    /// Compares the fields one by one, and the other keys of the style.
    fn compare_styles(&mut self, before: &Map<String, Value>, after: &Map<String, Value>) {
        let (old, new) = (fields(before), fields(after));
        for ((group, key), field) in &new {
            let previous = old.get(&(group, key));
            if previous == Some(field) {
                continue;
            }
            let shown = |field: &Value| {
                let mut shown = field.clone();
                if let Some(shown) = shown.as_object_mut() {
                    shown.remove("changeMessage");
                }
                shown
            };
            if previous.is_some_and(|previous| shown(previous) == shown(field)) {
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
        for (name, style) in after.iter().filter(|(key, _)| Styles::named(key).is_some()) {
            let empty = Map::new();
            let old = before
                .get(name)
                .and_then(Value::as_object)
                .unwrap_or(&empty);
            let new = style.as_object().unwrap_or(&empty);
            let other = differing(old, new).filter(|key| !key.ends_with(FIELDS));
            self.visible.extend(other.map(str::to_owned));
        }
    }

    /// Returns whether phones show any of the changes.
    pub(crate) fn is_visible(&self) -> bool {
        !self.visible.is_empty()
    }

    /// Returns whether phones show a notification.
    pub(crate) fn has_message(&self) -> bool {
        !self.messages.is_empty()
    }
}

/// Names the first changes, the visible ones first.
impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = || self.visible.iter().chain(&self.hidden);
        let count = all().count();
        if count == 0 {
            return f.write_str("nothing changed");
        }
        for (number, name) in all().take(NAMED).enumerate() {
            let comma = if number > 0 { ", " } else { "" };
            write!(f, "{comma}{}", OneLine::of(name))?;
        }
        match count.saturating_sub(NAMED) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
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
        .filter(|(key, _)| Styles::named(key).is_some())
        .filter_map(|(_, style)| style.as_object());
    let arrays = styles
        .flatten()
        .filter(|(name, _)| name.ends_with(FIELDS))
        .filter_map(|(name, fields)| Some((name, fields.as_array()?)));
    arrays
        .flat_map(|(name, fields)| {
            let keyed = |field| {
                Some((
                    (name.as_str(), Value::as_str(Value::get(field, "key")?)?),
                    field,
                ))
            };
            fields.iter().filter_map(keyed)
        })
        .collect()
}

fn has_message(field: &Value) -> bool {
    let message = field.get("changeMessage").and_then(Value::as_str);
    message.is_some_and(|message| !message.is_empty())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn version(description: Value, files: Value) -> Version {
        let object = |value: Value| value.as_object().unwrap().clone();
        Version {
            id: PassId::new("pass.com.example.compared", "A").unwrap(),
            digest: [0; 32],
            web_service_url: Some("https://wallet.example.com/".into()),
            has_token: true,
            description: object(description),
            files: object(files),
        }
    }

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
            let (one, other) = (version(base(), json!({})), version(after, json!({})));
            let changes = Changes::between(&one, &other);
            assert_eq!(changes.visible, visible);
            assert_eq!(changes.hidden, hidden);
            assert_eq!(changes.messages, messages);
        }
        let mut fewer = base();
        fewer["storeCard"]["primaryFields"]
            .as_array_mut()
            .unwrap()
            .pop();
        let changes = Changes::between(&version(base(), json!({})), &version(fewer, json!({})));
        assert_eq!(changes.visible, ["name"]);
    }

    #[test]
    fn a_changed_file_is_visible() {
        let files = json!({ "pass.json": "1", "icon.png": "1", "logo.png": "1" });
        let newer = json!({ "pass.json": "2", "icon.png": "2", "de.lproj/pass.strings": "1" });
        let changes = Changes::between(&version(base(), files), &version(base(), newer));
        assert_eq!(
            changes.visible,
            ["logo.png", "de.lproj/pass.strings", "icon.png"]
        );
        assert_eq!(
            changes.to_string(),
            "logo.png, de.lproj/pass.strings, icon.png"
        );
    }

    #[test]
    fn many_changes_are_counted() {
        let names: Vec<String> = (0..8).map(|number| format!("key{number}")).collect();
        let changes = Changes {
            visible: names,
            ..Changes::default()
        };
        assert_eq!(
            changes.to_string(),
            "key0, key1, key2, key3, key4 and 3 more"
        );
        assert_eq!(Changes::default().to_string(), "nothing changed");
    }

    #[test]
    fn the_content_names_the_fields_with_messages() {
        let content = Content::of(&version(base(), json!({})), None);
        assert_eq!(content.messages, ["balance"]);
        assert!(content.has_fields && content.has_service() && content.changes.is_none());
        let order = Content::of(&version(json!({ "status": "open" }), json!({})), None);
        assert!(!order.has_fields && order.messages.is_empty());
    }
}
