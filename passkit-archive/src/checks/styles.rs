//! The styles of a pass, and the schemes that it prefers.

use serde_json::{Map, Value};

use crate::{
    json::Step,
    keys::{self, Styles},
    rules,
    walk::Walk,
};

/// Returns the styles that a pass has, with the schemes that it prefers.
pub(crate) fn of(json: &Map<String, Value>) -> Styles {
    let styles = keys::STYLES
        .iter()
        .filter(|style| json.contains_key(style.name))
        .filter_map(|style| Styles::named(style.name));
    schemes(json)
        .filter_map(scheme)
        .map(|(scheme, _)| scheme)
        .chain(styles)
        .fold(Styles::NONE, Styles::and)
}

/// Returns the styles that decide whether a key is used. A plain style is left out if the pass
/// prefers only its scheme.
pub(crate) fn used(json: &Map<String, Value>) -> Styles {
    let styles = of(json);
    if styles == Styles::NONE {
        return Styles::ALL;
    }
    let plain = schemes(json).filter_map(Styles::named);
    let plain = plain.fold(Styles::NONE, Styles::and);
    let replaced = schemes(json)
        .filter_map(scheme)
        .map(|(_, style)| style)
        .filter(|style| !plain.contains(*style))
        .fold(Styles::NONE, Styles::and);
    styles.without(replaced)
}

/// Returns a scheme, and the style that it needs.
pub(crate) fn scheme(name: &str) -> Option<(Styles, Styles)> {
    match name {
        "posterEventTicket" => Some((Styles::POSTER_TICKET, Styles::EVENT_TICKET)),
        "semanticBoardingPass" => Some((Styles::SEMANTIC_BOARDING_PASS, Styles::BOARDING_PASS)),
        _ => None,
    }
}

/// Returns the schemes that a pass prefers, with the names of plain styles among them.
pub(crate) fn schemes(json: &Map<String, Value>) -> impl Iterator<Item = &str> {
    let schemes = json.get("preferredStyleSchemes").and_then(Value::as_array);
    schemes.into_iter().flatten().filter_map(Value::as_str)
}

/// Checks that a pass has exactly one style.
pub(crate) fn check<'a>(json: &'a Map<String, Value>, walk: &mut Walk<'a, '_>) {
    let known: Vec<&str> = keys::STYLES
        .iter()
        .map(|style| style.name)
        .filter(|style| json.contains_key(*style))
        .collect();
    let classic: Vec<&str> = known
        .iter()
        .copied()
        .filter(|style| *style != keys::POSTER_GENERIC)
        .collect();
    let unknown = json.keys().find(|key| is_unknown(json, key));
    if let Some(style) = unknown {
        let advice = if known.is_empty() {
            "; add another one for older phones"
        } else {
            ""
        };
        let message = format!("is a style that this program does not know{advice}");
        walk.report_key(style, &rules::STYLE_UNKNOWN, message);
    }
    match (&*known, &*classic) {
        ([], _) if unknown.is_none() => {
            let names: Vec<&str> = keys::STYLES.iter().map(|style| style.name).collect();
            walk.report_whole(
                &rules::STYLE_MISSING,
                format!("has no style; add one of the objects {}", names.join(", ")),
            );
        }
        ([style], []) => walk.report_key(
            style,
            &rules::STYLE_NEW,
            "is shown by iOS 27 and later only; add generic for older phones",
        ),
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
}

/// Returns whether the key is probably a style that is newer than this program: an unknown key
/// whose value is an object with groups of fields. If the pass has no known style, an empty object
/// counts too.
pub(crate) fn is_unknown(json: &Map<String, Value>, key: &str) -> bool {
    let tables = || keys::PASS.iter().chain(keys::STYLES);
    let Some(object) = json.get(key).and_then(Value::as_object) else {
        return false;
    };
    let is_empty = || {
        object.is_empty()
            && keys::STYLES
                .iter()
                .all(|style| !json.contains_key(style.name))
    };
    (object.keys().any(|key| key.ends_with("Fields")) || is_empty())
        && tables().all(|known| known.name != key)
}
