//! Checks `pass.json` and `order.json`.

use std::{str::FromStr, time::SystemTime};

use passkit_server::{
    AuthToken, PassId,
    identifiers::{InvalidIdentifier, Kind, SerialNumber, TypeIdentifier},
};
use serde_json::{Map, Value};

use crate::{
    checks::{self, Pass, strings::Translations, styles},
    contents::Contents,
    dates,
    finding::Finding,
    json::{self, Step},
    keys,
    layout::Layout,
    rules,
    walk::Walk,
    web_service,
};

const URL: &str = "webServiceURL";
const TOKEN: &str = "authenticationToken";
const TEAM: &str = "teamIdentifier";
const EXPIRATION: &str = "expirationDate";

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
    pub(crate) expiration: Option<SystemTime>,
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

/// Reads `text`, the content of the description file, and checks it together with the files that
/// belong to it. The team is needed only to check a signature. It is therefore optional in an
/// unsigned archive.
pub(crate) fn read(
    contents: &Contents,
    text: &[u8],
    needs_team: bool,
    findings: &mut Vec<Finding>,
) -> Description {
    let kind = contents.kind;
    let layout = Layout::of(kind);
    let file = layout.description_file;
    let Some(json) = json::parse_object(file, text, &rules::JSON_TWICE, findings) else {
        return Description::default();
    };
    let text = json::readable(text);
    let translations = match kind {
        Kind::Pass => {
            checks::personalization::check(&json, contents, findings);
            Translations::read(contents, findings)
        }
        Kind::Order => Translations::default(),
    };
    let mut walk = match kind {
        Kind::Pass => Walk::complete(file, &text, styles::used(&json), findings),
        Kind::Order => Walk::new(file, &text, findings),
    };
    match kind {
        Kind::Pass => {
            walk_pass(&json, &mut walk);
            if needs_team && !json.contains_key(TEAM) {
                walk.missing(&rules::KEY_MISSING, TEAM, "a string");
            }
            let pass = Pass {
                json: &json,
                contents,
                translations: &translations,
                styles: styles::of(&json),
            };
            checks::run(&pass, &mut walk);
        }
        Kind::Order => {
            walk.object(&json, keys::ORDER);
            walk.misspelled(&json, keys::ORDER);
        }
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
        expiration: text_of(&json, EXPIRATION).as_deref().and_then(dates::time),
        logo,
        uses_nfc: json.contains_key("nfc"),
    }
}

/// Walks through a pass along the tables of keys. The keys of a style depend on the style.
fn walk_pass<'a>(json: &'a Map<String, Value>, walk: &mut Walk<'a, '_>) {
    let count = walk.known(json, keys::PASS) + walk.known(json, keys::STYLES);
    // No table has a key twice.
    if count == json.len() {
        return;
    }
    let is_known = |key: &str| {
        keys::PASS.iter().any(|known| known.name == key)
            || keys::STYLES.iter().any(|known| known.name == key)
            || styles::is_unknown(json, key)
    };
    walk.unknown(json, is_known, &[keys::PASS, keys::STYLES]);
}

fn text_of(object: &Map<String, Value>, key: &str) -> Option<String> {
    object.get(key)?.as_str().map(str::to_owned)
}

/// Reads an identifier. Reports nothing if it is missing or not a string, because the walk along
/// the tables reports that.
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

/// Checks the two keys that phones need to fetch updates, and returns their values.
fn updates<'a>(
    json: &'a Map<String, Value>,
    walk: &mut Walk<'a, '_>,
) -> (Option<String>, Option<AuthToken>) {
    match (json.contains_key(URL), json.contains_key(TOKEN)) {
        (false, false) => walk.report_whole(
            &rules::NO_WEB_SERVICE,
            format!(
                "has neither {URL} nor {TOKEN}, so phones never update it; add both if you want to update \
                 the pass"
            ),
        ),
        (true, false) => walk.within(Step::Key(URL), |walk| {
            walk.report(
                &rules::TOKEN,
                format_args!("needs {TOKEN} too; add a token of 16 characters or more"),
            );
        }),
        (false, true) => walk.within(Step::Key(TOKEN), |walk| {
            walk.report(
                &rules::NO_URL,
                format_args!(
                    "needs {URL} too; add it, because phones need both keys for updates"
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
            // The limit is in characters, because phones count characters. Phones also send tokens
            // with characters that are not ASCII.
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
