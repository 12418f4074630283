//! The fields of each style: their keys, formats and change messages, and how many of them the
//! front shows.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::{Pass, text};
use crate::{
    dates,
    json::Step,
    keys, rules,
    walk::{Walk, excerpt},
};

pub(crate) fn check<'a>(pass: &Pass<'a>, walk: &mut Walk<'a, '_>) {
    let mut messages = Messages::new();
    let mut has_change_message = false;
    for style in keys::STYLES {
        let Some(groups) = pass.json.get(style.name).and_then(Value::as_object) else {
            continue;
        };
        walk.within(Step::Key(style.name), |walk| {
            has_change_message |= check_style(pass, groups, &mut messages, walk);
            count(pass.json, style.name, groups, walk);
        });
    }
    if pass.json.contains_key("webServiceURL") && !has_change_message {
        walk.report_whole(
            &rules::NO_CHANGE_MESSAGE,
            "has no field with a changeMessage, so nobody is notified of an update; add one",
        );
    }
}

/// Checks the fields of a style. Returns whether a field has a change message.
fn check_style<'a>(
    pass: &Pass<'a>,
    groups: &'a Map<String, Value>,
    messages: &mut Messages<'a>,
    walk: &mut Walk<'a, '_>,
) -> bool {
    let mut keys = BTreeSet::new();
    let mut has_change_message = false;
    for name in groups.keys() {
        walk.each(groups, name, |walk, field| {
            if let Some(key) = text(field, "key")
                && !keys.insert(key)
            {
                let key = excerpt(key);
                walk.report(
                    &rules::FIELD_TWICE,
                    format_args!("has the same key {key} as another field; give it another key"),
                );
            }
            format(field, walk);
            has_change_message |= change_message(pass, field, messages, walk);
            if matches!(name.as_str(), "primaryFields" | "backFields")
                && field.contains_key("textAlignment")
            {
                walk.report_key(
                    "textAlignment",
                    &rules::TEXT_ALIGNMENT,
                    "is ignored in primary and back fields; remove it",
                );
            }
            if text(field, "attributedValue").is_some_and(has_other_markup) {
                walk.report_key(
                    "attributedValue",
                    &rules::ATTRIBUTED_VALUE,
                    "has markup that phones do not show; keep only <a href=\"…\"> and </a>",
                );
            }
        });
    }
    has_change_message
}

/// Checks that the value fits the format of the field.
fn format<'a>(field: &'a Map<String, Value>, walk: &mut Walk<'a, '_>) {
    let first_of = |keys: [&'static str; 2]| keys.into_iter().find(|key| field.contains_key(*key));
    let as_date = first_of(["dateStyle", "timeStyle"]);
    let as_number = first_of(["numberStyle", "currencyCode"]);
    match (as_date, as_number, field.get("value")) {
        (Some(date), Some(number), _) => {
            let message = format_args!("can't be combined with {date}; keep one of the two");
            walk.report_key(number, &rules::FIELD_FORMAT, message);
        }
        (Some(_), None, Some(Value::String(value))) if !dates::is_date(value) => {
            let value = excerpt(value);
            walk.report_key(
                "value",
                &rules::DATE_MINOR,
                format_args!(
                    "is {value}, but is shown as a date; write it as 2026-01-31T12:00:00Z"
                ),
            );
        }
        (Some(date), None, Some(Value::Number(_))) => {
            let message = "is for dates, but the value is a number; remove it";
            walk.report_key(date, &rules::FIELD_FORMAT, message);
        }
        (None, Some(number), Some(Value::String(_))) => walk.report_key(
            number,
            &rules::FIELD_FORMAT,
            "is for numbers, but the value is a string; write it as a JSON number, without quotes",
        ),
        _ => {}
    }
}

/// The change messages that were checked, each with its problem. They are remembered, because many
/// fields may have the same message, and a message may have many long translations.
type Messages<'a> = BTreeMap<&'a str, Option<String>>;

/// Checks the change message in every language. Returns whether the field has a change message.
fn change_message<'a>(
    pass: &Pass<'a>,
    field: &'a Map<String, Value>,
    messages: &mut Messages<'a>,
    walk: &mut Walk<'a, '_>,
) -> bool {
    let Some(message) = text(field, "changeMessage") else {
        return false;
    };
    let problem = messages.entry(message).or_insert_with(|| {
        let mut shown = pass.translations.of(message);
        shown.find_map(|shown| {
            let problem = match shown.matches("%@").count() {
                0 => "lacks",
                1 => return None,
                _ => "repeats",
            };
            let shown = excerpt(shown);
            Some(format!(
                "is {shown}, which {problem} %@; write %@ once, for the new value"
            ))
        })
    });
    if let Some(problem) = problem {
        walk.report_key("changeMessage", &rules::CHANGE_MESSAGE, problem);
    }
    true
}

/// Returns whether a text has tags that are not links. A `<` without a name is not a tag.
fn has_other_markup(text: &str) -> bool {
    text.split('<').skip(1).any(|rest| {
        let name = rest.strip_prefix('/').unwrap_or(rest);
        let end = name
            .find(|c: char| !c.is_ascii_alphanumeric())
            .unwrap_or(name.len());
        let (name, rest) = name.split_at(end);
        !name.is_empty() && rest.contains('>') && !name.eq_ignore_ascii_case("a")
    })
}

/// How many fields the front shows in some groups together.
struct Room {
    groups: &'static [&'static str],
    fields: usize,
}

const fn room(groups: &'static [&'static str], fields: usize) -> Room {
    Room { groups, fields }
}

const BOTH: &[&str] = &["secondaryFields", "auxiliaryFields"];

/// Returns how many fields the front of a style shows. Event tickets have two rows of auxiliary
/// fields.
fn rooms(style: &str, has_square_barcode: bool) -> Vec<Room> {
    let header = room(&["headerFields"], 3);
    let primary = |fields| room(&["primaryFields"], fields);
    let secondary = room(&["secondaryFields"], 4);
    let auxiliary = |fields| room(&["auxiliaryFields"], fields);
    match style {
        "boardingPass" => vec![header, primary(2), secondary, auxiliary(5)],
        "coupon" | "storeCard" => vec![header, primary(1), room(BOTH, 4)],
        "generic" if has_square_barcode => vec![header, primary(1), room(BOTH, 4)],
        "eventTicket" => vec![header, primary(1), secondary, auxiliary(8)],
        "posterGeneric" => vec![
            room(&["headerFields"], 1),
            primary(4),
            room(&["footerFields"], 2),
        ],
        _ => vec![header, primary(1), secondary, auxiliary(4)],
    }
}

/// Checks that the front has room for all fields.
fn count<'a>(
    json: &'a Map<String, Value>,
    style: &str,
    groups: &'a Map<String, Value>,
    walk: &mut Walk<'a, '_>,
) {
    let fields_of = |group: &str| {
        let fields = groups.get(group).and_then(Value::as_array);
        fields.map_or(&[][..], Vec::as_slice)
    };
    for Room {
        groups: names,
        fields: shown,
    } in rooms(style, has_square_barcode(json))
    {
        let count: usize = names.iter().map(|name| fields_of(name).len()).sum();
        let last = names.iter().rfind(|name| !fields_of(name).is_empty());
        if let (true, Some(last)) = (count > shown, last) {
            let names = names.join(" and ");
            walk.report_key(
                last,
                &rules::FIELDS_MANY,
                format_args!(
                    "is too long: {names} have {count} fields, and the front shows {shown}; move some to the back"
                ),
            );
        }
    }
    // Each row of an event ticket shows four fields.
    if style == "eventTicket" {
        let auxiliary = fields_of("auxiliaryFields");
        let in_row = |row: f64| {
            let row_of = |field: &Value| field.get("row").and_then(Value::as_f64).unwrap_or(0.0);
            auxiliary
                .iter()
                .filter(|field| row_of(field) == row)
                .count()
        };
        if auxiliary.len() <= 8 && (in_row(0.0) > 4 || in_row(1.0) > 4) {
            walk.report_key(
                "auxiliaryFields",
                &rules::FIELDS_MANY,
                "has more than the 4 fields that a row shows; give some of them the row 1",
            );
        }
    }
}

fn has_square_barcode(json: &Map<String, Value>) -> bool {
    let first = json.get("barcodes").and_then(|list| list.get(0));
    let format = first.or_else(|| json.get("barcode"));
    let format = format.and_then(|barcode| barcode.get("format")?.as_str());
    matches!(format, Some("PKBarcodeFormatQR" | "PKBarcodeFormatAztec"))
}

#[cfg(test)]
mod tests {
    use super::has_other_markup;

    #[test]
    fn only_links_are_markup_that_phones_show() {
        for text in [
            "plain",
            "1 < 2 > 0",
            "a <b",
            "<a href='https://example.com'>link</a>",
            "<A HREF=\"tel:1\">call</A> or <a href=''>x</a >",
            "",
            "<",
            "</>",
        ] {
            assert!(!has_other_markup(text), "{text}");
        }
        for text in ["<b>bold</b>", "a<br/>b", "</p>", "<abbr title=''>x</abbr>"] {
            assert!(has_other_markup(text), "{text}");
        }
    }
}
