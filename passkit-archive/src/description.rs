//! Checks `pass.json` and `order.json`.

use std::{fmt::Display, str::FromStr};

use passkit_server::{
    AuthToken, PassId,
    identifiers::{InvalidIdentifier, Kind, SerialNumber, TypeIdentifier},
};
use serde_json::{Map, Value};

use crate::{Rules, json, layout::Layout, problem::Problem, web_service};

/// The keys of which a pass has exactly one.
const STYLES: [&str; 5] = [
    "boardingPass",
    "coupon",
    "eventTicket",
    "generic",
    "storeCard",
];

/// The parts of the description. A part is `None` if it has a problem. The team identifier is also
/// `None` if an order does not have it.
#[derive(Default)]
pub(crate) struct Description {
    pub(crate) type_id: Option<TypeIdentifier>,
    pub(crate) serial: Option<SerialNumber>,
    pub(crate) team_identifier: Option<String>,
    pub(crate) organization_name: Option<String>,
    pub(crate) auth_token: Option<AuthToken>,
    pub(crate) web_service_url: Option<String>,
    pub(crate) voided: bool,
    pub(crate) json: Map<String, Value>,
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

/// Reads `bytes`, the content of the description file. Only a signature needs the team, so the team
/// is optional without one.
pub(crate) fn read(
    kind: Kind,
    bytes: &[u8],
    rules: Rules,
    needs_team: bool,
    problems: &mut Vec<Problem>,
) -> Description {
    let layout = Layout::of(kind);
    let json = match json::parse_object(layout.description_file, bytes) {
        Ok(json) => json,
        Err(problem) => {
            problems.push(problem);
            return Description::default();
        }
    };
    let mut keys = Keys {
        file: layout.description_file,
        text: bytes,
        object: &json,
        problems,
    };

    keys.number_one(layout.version_key);
    let type_id = keys
        .identifier::<TypeIdentifier>(layout.type_key)
        .filter(|type_id| {
            let right = type_id.kind() == kind;
            if !right {
                keys.fault(
                    layout.type_key,
                    format_args!("must start with \"{}\"", kind.type_prefix()),
                );
            }
            right
        });
    let serial = keys.identifier(layout.serial_key);
    let (team_identifier, organization_name, voided) = match kind {
        Kind::Pass => pass(&mut keys, needs_team),
        Kind::Order => order(&mut keys),
    };
    let (web_service_url, auth_token) = updates(&mut keys, rules);

    Description {
        type_id,
        serial,
        team_identifier: team_identifier.map(str::to_owned),
        organization_name: organization_name.map(str::to_owned),
        auth_token,
        web_service_url: web_service_url.map(str::to_owned),
        voided,
        json,
    }
}

type Common<'a> = (Option<&'a str>, Option<&'a str>, bool);

/// The keys that only passes have.
fn pass<'a>(keys: &mut Keys<'a, '_>, needs_team: bool) -> Common<'a> {
    keys.text("description");
    let styles: Vec<&str> = STYLES
        .into_iter()
        .filter(|style| keys.object.contains_key(*style))
        .collect();
    match *styles {
        [] => keys.problem(
            None,
            format_args!("has no style; add one of the objects {}", STYLES.join(", ")),
        ),
        [style] => drop(keys.object(style)),
        [_, second, ..] => keys.fault(
            second,
            format_args!(
                "is one style too many, because there are {}; keep one of them",
                styles.join(", ")
            ),
        ),
    }
    let voided = match keys.object.get("voided") {
        None => false,
        Some(Value::Bool(voided)) => *voided,
        Some(other) => {
            keys.wrong_type("voided", other, "true or false");
            false
        }
    };
    (
        team(keys, needs_team),
        keys.text("organizationName"),
        voided,
    )
}

/// The keys that only orders have.
fn order<'a>(keys: &mut Keys<'a, '_>) -> Common<'a> {
    keys.one_of("orderType", &["ecommerce"]);
    keys.text("orderManagementURL");
    keys.one_of("status", &["open", "completed", "cancelled"]);
    keys.date("createdAt");
    keys.date("updatedAt");
    let mut organization_name = None;
    if let Some(merchant) = keys.object("merchant") {
        for key in ["displayName", "merchantIdentifier", "url"] {
            match merchant.get(key) {
                Some(Value::String(text)) if key == "displayName" => {
                    organization_name = Some(text.as_str())
                }
                Some(Value::String(_)) => {}
                Some(other) => keys.fault(
                    "merchant",
                    format_args!("has {} for {key}; it must be a string", type_of(other)),
                ),
                None => keys.fault("merchant", format_args!("lacks {key}; add this string")),
            }
        }
    }
    (team(keys, false), organization_name, false)
}

fn team<'a>(keys: &mut Keys<'a, '_>, needed: bool) -> Option<&'a str> {
    const TEAM: &str = "teamIdentifier";
    if needed || keys.object.contains_key(TEAM) {
        keys.text(TEAM)
    } else {
        None
    }
}

/// The two keys by which phones fetch updates.
fn updates<'a>(keys: &mut Keys<'a, '_>, rules: Rules) -> (Option<&'a str>, Option<AuthToken>) {
    const URL: &str = "webServiceURL";
    const TOKEN: &str = "authenticationToken";
    match (
        keys.object.contains_key(URL),
        keys.object.contains_key(TOKEN),
    ) {
        (false, false) => {
            keys.problem(
                None,
                format_args!(
                    "has neither {URL} nor {TOKEN}, so phones can never update it; add both before you publish it"
                ),
            );
            (None, None)
        }
        (true, false) => {
            keys.fault(
                URL,
                format_args!(
                    "has no {TOKEN} beside it; add one, because phones need both to update this"
                ),
            );
            (None, None)
        }
        (false, true) => {
            keys.fault(
                TOKEN,
                format_args!(
                    "has no {URL} beside it; add one, because phones need both to update this"
                ),
            );
            (None, None)
        }
        (true, true) => {
            let url = keys.text(URL).filter(|url| {
                let checked = web_service::check(url, rules.allow_http);
                if let Err(reason) = checked {
                    keys.fault(URL, reason);
                }
                checked.is_ok()
            });
            (url, keys.identifier(TOKEN))
        }
    }
}

/// The outermost object of a description, with the list of its problems.
struct Keys<'a, 'p> {
    file: &'static str,
    text: &'a [u8],
    object: &'a Map<String, Value>,
    problems: &'p mut Vec<Problem>,
}

impl<'a> Keys<'a, '_> {
    fn problem(&mut self, key: Option<&str>, message: impl Display) {
        let position = key.and_then(|key| json::position_of_key(self.text, key));
        self.problems
            .push(Problem::at(self.file, position, message.to_string()));
    }

    fn fault(&mut self, key: &str, message: impl Display) {
        self.problem(Some(key), format_args!("{key} {message}"));
    }

    fn wrong_type(&mut self, key: &str, found: &Value, expected: &str) {
        self.fault(
            key,
            format_args!("is {}; it must be {expected}", type_of(found)),
        );
    }

    /// Returns the value of a required key.
    fn value(&mut self, key: &str, expected: &str) -> Option<&'a Value> {
        let value = self.object.get(key);
        if value.is_none() {
            self.problem(None, format_args!("lacks {key}; add it, {expected}"));
        }
        value
    }

    fn text(&mut self, key: &str) -> Option<&'a str> {
        const EXPECTED: &str = "a string";
        match self.value(key, EXPECTED)? {
            Value::String(text) => Some(text),
            other => {
                self.wrong_type(key, other, EXPECTED);
                None
            }
        }
    }

    fn object(&mut self, key: &str) -> Option<&'a Map<String, Value>> {
        const EXPECTED: &str = "an object";
        match self.value(key, EXPECTED)? {
            Value::Object(object) => Some(object),
            other => {
                self.wrong_type(key, other, EXPECTED);
                None
            }
        }
    }

    fn number_one(&mut self, key: &str) {
        const EXPECTED: &str = "the number 1";
        match self.value(key, EXPECTED) {
            Some(Value::Number(number)) if number.as_f64() == Some(1.0) => {}
            Some(Value::Number(number)) => {
                self.fault(key, format_args!("is {number}; it must be {EXPECTED}"));
            }
            Some(other) => self.wrong_type(key, other, EXPECTED),
            None => {}
        }
    }

    fn one_of(&mut self, key: &str, allowed: &[&str]) {
        if let Some(text) = self.text(key)
            && !allowed.contains(&text)
        {
            self.fault(
                key,
                format_args!("is {}; it must be {}", excerpt(text), allowed.join(" or ")),
            );
        }
    }

    fn date(&mut self, key: &str) {
        if let Some(text) = self.text(key)
            && !is_rfc3339(text)
        {
            self.fault(
                key,
                format_args!(
                    "is {}; write it as 2026-01-31T12:00:00Z (RFC 3339)",
                    excerpt(text)
                ),
            );
        }
    }

    fn identifier<T: FromStr<Err = InvalidIdentifier>>(&mut self, key: &str) -> Option<T> {
        match self.text(key)?.parse() {
            Ok(identifier) => Some(identifier),
            Err(error) => {
                // The message does not repeat the value, which may be the token.
                self.fault(key, format_args!("cannot be used: {error}"));
                None
            }
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

/// Quotes a value for a message, and cuts it if it is long.
fn excerpt(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("\"{}…\"", text.get(..end).unwrap_or_default()),
        None => format!("\"{text}\""),
    }
}

/// Returns whether a text has the form of an RFC 3339 date and time. It does not check the lengths
/// of the months.
fn is_rfc3339(text: &str) -> bool {
    /// Removes a number with this many digits, in this range, from the text.
    fn number(text: &mut &str, digits: usize, range: std::ops::RangeInclusive<u32>) -> bool {
        let Some((number, rest)) = text.split_at_checked(digits) else {
            return false;
        };
        *text = rest;
        number.bytes().all(|byte| byte.is_ascii_digit())
            && number.parse().is_ok_and(|number| range.contains(&number))
    }
    fn separator(text: &mut &str, separators: &[char]) -> bool {
        let rest = text.strip_prefix(separators);
        *text = rest.unwrap_or(text);
        rest.is_some()
    }

    let mut rest = text;
    let rest = &mut rest;
    let date_time = number(rest, 4, 0..=9999)
        && separator(rest, &['-'])
        && number(rest, 2, 1..=12)
        && separator(rest, &['-'])
        && number(rest, 2, 1..=31)
        && separator(rest, &['T', 't'])
        && number(rest, 2, 0..=23)
        && separator(rest, &[':'])
        && number(rest, 2, 0..=59)
        && separator(rest, &[':'])
        && number(rest, 2, 0..=60);
    let fraction = !separator(rest, &['.']) || {
        let digits = rest.len();
        *rest = rest.trim_start_matches(|c: char| c.is_ascii_digit());
        rest.len() < digits
    };
    let offset = separator(rest, &['Z', 'z'])
        || separator(rest, &['+', '-'])
            && number(rest, 2, 0..=23)
            && separator(rest, &[':'])
            && number(rest, 2, 0..=59);
    date_time && fraction && offset && rest.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_have_the_form_of_rfc_3339() {
        for text in [
            "2022-12-31T23:59:60Z",
            "2022-01-01t00:00:00.123456789z",
            "2022-01-01T00:00:00+05:45",
            "2022-01-01T00:00:00.5-08:00",
        ] {
            assert!(is_rfc3339(text), "{text}");
        }
        for text in [
            "",
            "2022-01-01",
            "2022-01-01T00:00Z",
            "2022-01-01T00:00:00",
            "2022-01-01 00:00:00Z",
            "2022-13-01T00:00:00Z",
            "2022-01-01T24:00:00Z",
            "2022-01-01T00:00:00.Z",
            "2022-01-01T00:00:00+0100",
            "2022-01-01T00:00:00Z ",
            "+022-01-01T00:00:00Z",
            "2022-ä-01T00:00:00Z",
        ] {
            assert!(!is_rfc3339(text), "{text}");
        }
    }

    #[test]
    fn long_values_are_cut() {
        assert_eq!(excerpt(&"ä".repeat(60)), format!("\"{}\"", "ä".repeat(60)));
        assert_eq!(excerpt(&"ä".repeat(61)), format!("\"{}…\"", "ä".repeat(60)));
    }
}
