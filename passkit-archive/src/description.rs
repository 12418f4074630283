//! Checks `pass.json` and `order.json`.

use std::{collections::BTreeSet, str::FromStr};

use passkit_server::{
    AuthToken, PassId,
    identifiers::{InvalidIdentifier, Kind, SerialNumber, TypeIdentifier},
};
use serde_json::{Map, Value};

use crate::{
    dates,
    finding::Finding,
    json::{self, Step},
    layout::Layout,
    rules,
    schema::{self, Walk},
    web_service,
};

const URL: &str = "webServiceURL";
const TOKEN: &str = "authenticationToken";
const TEAM: &str = "teamIdentifier";

/// The parts of the description. A part is `None` if it is missing or can't be used.
#[derive(Default)]
pub(crate) struct Description {
    pub(crate) type_id: Option<TypeIdentifier>,
    pub(crate) serial: Option<SerialNumber>,
    pub(crate) team_identifier: Option<String>,
    pub(crate) organization_name: Option<String>,
    pub(crate) auth_token: Option<AuthToken>,
    pub(crate) web_service_url: Option<String>,
    pub(crate) voided: bool,
    /// The file that an order names as its logo.
    pub(crate) logo: Option<String>,
    /// Whether the pass has an `nfc` dictionary.
    pub(crate) uses_nfc: bool,
}

impl Description {
    /// The type identifier and serial number together.
    pub(crate) fn id(&self) -> Option<PassId> {
        Some(PassId {
            type_id: self.type_id.clone()?,
            serial: self.serial.clone()?,
        })
    }
}

/// Reads `text`, the content of the description file. The team is needed only to check a signature,
/// so it is optional in an unsigned archive.
pub(crate) fn read(
    kind: Kind,
    text: &[u8],
    needs_team: bool,
    findings: &mut Vec<Finding>,
) -> Description {
    let layout = Layout::of(kind);
    let file = layout.description_file;
    let Some(json) = json::parse_object(file, text, &rules::JSON_TWICE, findings) else {
        return Description::default();
    };
    let text = json::readable(text);
    let mut walk = Walk::new(file, &text, findings);
    match kind {
        Kind::Pass => {
            walk.object(&json, schema::PASS);
            walk.object(&json, schema::STYLES);
            if needs_team && !json.contains_key(TEAM) {
                walk.missing(&rules::KEY_MISSING, TEAM, "a string");
            }
            styles(&json, &mut walk);
        }
        Kind::Order => walk.object(&json, schema::ORDER),
    }
    let type_id = identifier::<TypeIdentifier>(&json, layout.type_key, &mut walk);
    let type_id = type_id.filter(|type_id| {
        let right = type_id.kind() == kind;
        if !right {
            let prefix = kind.type_prefix();
            walk.within(Step::Key(layout.type_key), |walk| {
                walk.report(&rules::VALUE, format_args!("must start with \"{prefix}\""));
            });
        }
        right
    });
    let merchant = json.get("merchant").and_then(Value::as_object);
    let (organization_name, logo) = match kind {
        Kind::Pass => (text_of(&json, "organizationName"), None),
        Kind::Order => (
            merchant.and_then(|merchant| text_of(merchant, "displayName")),
            merchant.and_then(|merchant| text_of(merchant, "logo")),
        ),
    };
    let (web_service_url, auth_token) = updates(&json, &mut walk);
    Description {
        type_id,
        serial: identifier(&json, layout.serial_key, &mut walk),
        team_identifier: text_of(&json, TEAM),
        organization_name,
        auth_token,
        web_service_url,
        voided: json.get("voided") == Some(&Value::Bool(true)),
        logo,
        uses_nfc: json.contains_key("nfc"),
    }
}

fn text_of(object: &Map<String, Value>, key: &str) -> Option<String> {
    object.get(key)?.as_str().map(str::to_owned)
}

/// Reads an identifier. If it is missing or not a text, the walk along the tables reports it.
fn identifier<'a, T: FromStr<Err = InvalidIdentifier>>(
    json: &'a Map<String, Value>,
    key: &'a str,
    walk: &mut Walk<'a, '_>,
) -> Option<T> {
    match json.get(key)?.as_str()?.parse() {
        Ok(identifier) => Some(identifier),
        Err(error) => {
            walk.within(Step::Key(key), |walk| {
                walk.report(&rules::VALUE, format_args!("cannot be used: {error}"));
            });
            None
        }
    }
}

/// Checks that a pass has exactly one style, and checks the fields of each style.
fn styles<'a>(json: &'a Map<String, Value>, walk: &mut Walk<'a, '_>) {
    let known: Vec<&str> = schema::STYLES
        .iter()
        .map(|style| style.name)
        .filter(|style| json.contains_key(*style))
        .collect();
    let classic: Vec<&str> = known
        .iter()
        .copied()
        .filter(|style| *style != schema::POSTER_GENERIC)
        .collect();
    match (&*known, &*classic) {
        ([], _) => match unknown_style(json) {
            Some(style) => walk.within(Step::Key(style), |walk| {
                walk.report(
                    &rules::STYLE_UNKNOWN,
                    "is a style that this program does not know; add another one for older phones",
                );
            }),
            None => {
                let names: Vec<&str> = schema::STYLES.iter().map(|style| style.name).collect();
                walk.report_whole(
                    &rules::STYLE_MISSING,
                    format!("has no style; add one of the objects {}", names.join(", ")),
                );
            }
        },
        ([style], []) => walk.within(Step::Key(style), |walk| {
            walk.report(
                &rules::STYLE_NEW,
                "is shown by iOS 27 and later only; add generic for older phones",
            );
        }),
        (_, [_, second, ..]) => walk.within(Step::Key(second), |walk| {
            walk.report(
                &rules::STYLE_TWICE,
                format_args!(
                    "is one style too many, because there are {}; keep one of them",
                    classic.join(", ")
                ),
            );
        }),
        _ => {}
    }
    for style in known {
        if let Some(groups) = json.get(style).and_then(Value::as_object) {
            walk.within(Step::Key(style), |walk| fields(groups, walk));
        }
    }
}

/// Returns the key of an object that is probably a style newer than this program. Such an object
/// has groups of fields, or is empty.
fn unknown_style(json: &Map<String, Value>) -> Option<&str> {
    let is_style = |value: &Value| {
        value.as_object().is_some_and(|object| {
            object.is_empty() || object.keys().any(|key| key.ends_with("Fields"))
        })
    };
    json.iter()
        .filter(|(key, _)| schema::PASS.iter().all(|known| known.name != *key))
        .find(|(_, value)| is_style(value))
        .map(|(key, _)| key.as_str())
}

/// Checks the rules for fields that the tables can't express.
fn fields<'a>(groups: &'a Map<String, Value>, walk: &mut Walk<'a, '_>) {
    let mut keys = BTreeSet::new();
    let groups = groups
        .iter()
        .filter_map(|(name, group)| Some((name, group.as_array()?)));
    for (name, group) in groups {
        for (index, field) in group.iter().enumerate() {
            let Some(field) = field.as_object() else {
                continue;
            };
            walk.within(Step::Key(name), |walk| {
                walk.within(Step::Index(index), |walk| {
                    if let Some(key) = field.get("key").and_then(Value::as_str)
                        && !keys.insert(key)
                    {
                        let key = schema::excerpt(key);
                        walk.report(
                            &rules::FIELD_TWICE,
                            format_args!("has the key {key} of another field; give it its own"),
                        );
                    }
                    dated(field, walk);
                });
            });
        }
    }
}

/// Checks that the value is a date if the field is shown as one.
fn dated<'a>(field: &'a Map<String, Value>, walk: &mut Walk<'a, '_>) {
    let has_style = ["dateStyle", "timeStyle"]
        .into_iter()
        .any(|style| field.contains_key(style));
    if let (true, Some(Value::String(value))) = (has_style, field.get("value"))
        && !dates::is_date(value)
    {
        let value = schema::excerpt(value);
        walk.within(Step::Key("value"), |walk| {
            walk.report(
                &rules::DATE_MINOR,
                format_args!(
                    "is {value}, but is shown as a date; write it as 2026-01-31T12:00:00Z"
                ),
            );
        });
    }
}

/// Checks the two keys that phones need to fetch updates, and returns their values.
fn updates<'a>(
    json: &'a Map<String, Value>,
    walk: &mut Walk<'a, '_>,
) -> (Option<String>, Option<AuthToken>) {
    match (json.contains_key(URL), json.contains_key(TOKEN)) {
        (false, false) => walk.report_whole(
            &rules::NO_WEB_SERVICE,
            format!(
                "has neither {URL} nor {TOKEN}, so phones never update it; add both if it is to be updated"
            ),
        ),
        (true, false) => walk.within(Step::Key(URL), |walk| {
            walk.report(
                &rules::TOKEN,
                format_args!("needs {TOKEN} too; add one of 16 characters or more"),
            );
        }),
        (false, true) => walk.within(Step::Key(TOKEN), |walk| {
            walk.report(
                &rules::NO_URL,
                format_args!(
                    "needs {URL} too; add it, because phones need both to update this"
                ),
            );
        }),
        (true, true) => {}
    }
    let url = text_of(json, URL);
    if let Some(url) = &url {
        for (rule, message) in web_service::check(url) {
            walk.within(Step::Key(URL), |walk| walk.report(rule, message));
        }
    }
    let token = json.get(TOKEN).and_then(Value::as_str).and_then(|token| {
        let parsed = AuthToken::new(token);
        if let Err(error) = &parsed {
            // Phones count characters, and send tokens with any characters.
            let rule = match token.chars().count() {
                0..16 => &rules::TOKEN,
                _ => &rules::TOKEN_MINOR,
            };
            // The message does not repeat the token.
            let message = format!("cannot be used: {error}");
            walk.within(Step::Key(TOKEN), |walk| walk.report(rule, message));
        }
        parsed.ok()
    });
    (url, token)
}
