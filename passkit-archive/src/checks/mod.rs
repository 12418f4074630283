//! The checks of a pass that the tables of keys can't express. Each subject has its own file.

pub(crate) mod barcodes;
pub(crate) mod colors;
pub(crate) mod fields;
pub(crate) mod images;
pub(crate) mod nfc;
pub(crate) mod personalization;
pub(crate) mod places;
pub(crate) mod samples;
pub(crate) mod schemes;
pub(crate) mod strings;
pub(crate) mod styles;
pub(crate) mod times;

use serde_json::{Map, Value};

use self::strings::Translations;
use crate::{contents::Contents, keys::Styles, rules, walk::Walk};

/// The parts of a pass that the checks need.
pub(crate) struct Pass<'a> {
    pub(crate) json: &'a Map<String, Value>,
    pub(crate) contents: &'a Contents,
    pub(crate) translations: &'a Translations<'a>,
    /// The styles and schemes that the pass has.
    pub(crate) styles: Styles,
}

/// Runs all checks of a pass that need more than one value.
pub(crate) fn run<'a>(pass: &Pass<'a>, walk: &mut Walk<'a, '_>) {
    styles::check(pass.json, walk);
    fields::check(pass, walk);
    barcodes::check(pass.json, walk);
    colors::check(pass.json, walk);
    times::check(pass.json, walk);
    places::check(pass.json, walk);
    nfc::check(pass.json, walk);
    schemes::check(pass, walk);
    app_launch_url(pass.json, walk);
    samples::check(pass, walk);
    strings::check(pass, walk);
    images::check(pass, walk);
}

fn app_launch_url<'a>(json: &'a Map<String, Value>, walk: &mut Walk<'a, '_>) {
    let apps = json
        .get("associatedStoreIdentifiers")
        .and_then(Value::as_array);
    if json.contains_key("appLaunchURL") && apps.is_none_or(Vec::is_empty) {
        walk.report_key(
            "appLaunchURL",
            &rules::APP_LAUNCH_URL,
            "names no app to launch; add associatedStoreIdentifiers",
        );
    }
}

/// Returns the value of a key, if the value is a string.
fn text<'a>(object: &'a Map<String, Value>, key: &str) -> Option<&'a str> {
    object.get(key)?.as_str()
}
