//! Locations and beacons near which a pass is shown.

use serde_json::{Map, Value};

use super::text;
use crate::{json::Step, rules, walk::Walk};

/// How many locations phones use.
const MAX_LOCATIONS: usize = 10;

pub(crate) fn check<'a>(json: &'a Map<String, Value>, walk: &mut Walk<'a, '_>) {
    let locations = json.get("locations").and_then(Value::as_array);
    if let Some(count) = locations
        .map(Vec::len)
        .filter(|count| *count > MAX_LOCATIONS)
    {
        walk.report_key(
            "locations",
            &rules::LOCATIONS_MANY,
            format_args!("has {count} entries, and phones use {MAX_LOCATIONS}; remove some"),
        );
    }
    walk.each(json, "locations", |walk, location| {
        for (key, max) in [("latitude", 90.0), ("longitude", 180.0)] {
            let degrees = location.get(key).and_then(Value::as_f64);
            if let Some(degrees) = degrees.filter(|degrees| degrees.abs() > max) {
                walk.report_key(
                    key,
                    &rules::LOCATION,
                    format_args!("is {degrees}; it must be from -{max} to {max} degrees"),
                );
            }
        }
    });
    walk.each(json, "beacons", |walk, beacon| {
        if text(beacon, "proximityUUID").is_some_and(|uuid| !is_uuid(uuid)) {
            walk.report_key(
                "proximityUUID",
                &rules::BEACON,
                "is not a UUID; write it as 01234567-89AB-CDEF-0123-456789ABCDEF",
            );
        }
        for key in ["major", "minor"] {
            let is_wrong = |number: &Value| {
                number.is_number() && number.as_u64().is_none_or(|n| n > u16::MAX.into())
            };
            if beacon.get(key).is_some_and(is_wrong) {
                walk.within(Step::Key(key), |walk| {
                    walk.report(&rules::BEACON, "must be a whole number from 0 to 65535");
                });
            }
        }
    });
}

fn is_uuid(text: &str) -> bool {
    let lengths = text.split('-').map(str::len);
    lengths.eq([8, 4, 4, 4, 12]) && text.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::is_uuid;

    #[test]
    fn uuids_have_five_parts() {
        assert!(is_uuid("E2C56DB5-dffb-48D2-B060-D0F5A71096E0"));
        for text in [
            "",
            "E2C56DB5DFFB48D2B060D0F5A71096E0",
            "G2C56DB5-DFFB-48D2-B060-D0F5A71096E0",
        ] {
            assert!(!is_uuid(text), "{text}");
        }
    }
}
