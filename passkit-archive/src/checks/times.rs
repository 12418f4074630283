//! The times at which a pass is shown, and the time after which it is no longer valid.

use serde_json::{Map, Value};

use super::text;
use crate::{dates, rules, walk::Walk};

pub(crate) fn check<'a>(json: &'a Map<String, Value>, walk: &mut Walk<'a, '_>) {
    let expires = text(json, "expirationDate").and_then(dates::parse);
    if expires.is_some_and(|expires| expires < dates::now().as_secs().cast_signed()) {
        walk.report_key(
            "expirationDate",
            &rules::EXPIRED,
            "is past; set a later date if the pass is still good",
        );
    }
    if json.get("voided") == Some(&Value::Bool(true)) {
        walk.report_key(
            "voided",
            &rules::VOIDED,
            "is true; remove it if the pass is still good",
        );
    }
    walk.each(json, "relevantDates", |walk, entry| {
        let has = |key| entry.contains_key(key);
        let date = |key| text(entry, key).and_then(dates::parse);
        let problem = match (has("date"), has("startDate"), has("endDate")) {
            (true, false, false) => return,
            (false, true, true) => match (date("startDate"), date("endDate")) {
                (Some(start), Some(end)) if end < start => "ends before it starts",
                _ => return,
            },
            (false, false, false) => "has no date",
            (false, _, _) => "has only one end of an interval",
            (true, _, _) => "has both a date and an interval",
        };
        walk.report(
            &rules::RELEVANT_DATES,
            format_args!("{problem}; write date alone, or startDate and a later endDate"),
        );
    });
}
