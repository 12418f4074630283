//! The style schemes that a pass prefers, and what each scheme requires. Also checks the featured
//! actions, because some schemes do not show them.

use serde_json::{Map, Value};

use super::{Pass, styles, text};
use crate::{
    json::Step,
    keys::{self, Styles},
    rules,
    walk::{Walk, excerpt},
};

const TICKET: [&str; 4] = ["eventName", "venueName", "venueRegionName", "venueRoom"];
const SPORTS: [&str; 2] = ["homeTeamAbbreviation", "awayTeamAbbreviation"];
const FLIGHT: [&str; 11] = [
    "airlineCode",
    "flightNumber",
    "departureAirportCode",
    "departureCityName",
    "departureLocationTimeZone",
    "destinationAirportCode",
    "destinationCityName",
    "destinationLocationTimeZone",
    "originalArrivalDate",
    "originalBoardingDate",
    "originalDepartureDate",
];

/// The types of featured actions.
const ACTIONS: [&str; 14] = [
    "viewSchedule",
    "watchTrailer",
    "listenToMusic",
    "call",
    "place",
    "addToBalance",
    "order",
    "shop",
    "membershipBenefits",
    "bookAppointment",
    "bookCar",
    "bookFlight",
    "bookStay",
    "viewOffersRewards",
];

/// How many featured actions phones show.
const MAX_ACTIONS: usize = 2;

pub(crate) fn check<'a>(pass: &Pass<'a>, walk: &mut Walk<'a, '_>) {
    let schemes = pass.json.get("preferredStyleSchemes");
    let schemes = schemes.and_then(Value::as_array).into_iter().flatten();
    for (index, name) in schemes.enumerate() {
        let Some(name) = name.as_str() else { continue };
        if let Some(problem) = problem(pass.json, name) {
            walk.within(Step::Key("preferredStyleSchemes"), |walk| {
                walk.within(Step::Index(index), |walk| {
                    walk.report(&rules::SCHEME, problem);
                });
            });
        }
    }
    featured_actions(pass, walk);
}

/// Returns why phones do not use a scheme, or `None` if they use it.
fn problem(json: &Map<String, Value>, name: &str) -> Option<String> {
    let has = |style: Styles| {
        style
            .names()
            .all(|name| json.get(name).is_some_and(Value::is_object))
    };
    let Some((_, style)) = styles::scheme(name) else {
        return match keys::STYLES.iter().any(|style| style.name == name) {
            true if json.contains_key(name) => None,
            true => Some(format!(
                "is {name}, but the pass does not have this style; remove it"
            )),
            false => Some(format!(
                "is {}; phones know posterEventTicket and semanticBoardingPass",
                excerpt(name)
            )),
        };
    };
    if !has(style) {
        let style: Vec<&str> = style.names().collect();
        let style = style.join(", ");
        return Some(format!(
            "is {name}, which needs the style {style}; remove it"
        ));
    }
    let missing = missing(json, name);
    (!missing.is_empty()).then(|| {
        let missing = missing.join(", ");
        format!("is {name}, but the pass lacks {missing}, so phones fall back to the plain style; add them")
    })
}

/// Returns the style or scheme in which the newest phones show a pass, by its name. Returns `None`
/// if the pass has no style that this crate knows.
///
/// ```
/// let pass = serde_json::json!({ "generic": {}, "posterGeneric": {} });
/// let shown = passkit_archive::shown_style(pass.as_object().unwrap());
/// assert_eq!(shown, Some("posterGeneric"));
/// ```
#[must_use]
pub fn shown_style(json: &Map<String, Value>) -> Option<&'static str> {
    if json.contains_key(keys::POSTER_GENERIC) {
        return Some(keys::POSTER_GENERIC);
    }
    let preferred = styles::schemes(json).find(|name| problem(json, name).is_none());
    let preferred = preferred.and_then(Styles::named);
    let first = preferred.and_then(|style| style.names().next());
    let plain = || {
        keys::STYLES
            .iter()
            .find(|style| json.contains_key(style.name))
    };
    first.or_else(|| plain().map(|style| style.name))
}

/// Returns the keys that a scheme requires and the pass lacks.
fn missing(json: &Map<String, Value>, scheme: &str) -> Vec<&'static str> {
    let tags = json.get("semantics").and_then(Value::as_object);
    let tag = |name: &str| tags.and_then(|tags| tags.get(name));
    let has = |name: &str| tag(name).is_some_and(|value| !value.is_null());
    let mut required: Vec<&'static str> = Vec::new();
    if scheme == "posterEventTicket" {
        required.extend(TICKET);
        let kind = tag("eventType").and_then(Value::as_str);
        match kind {
            Some("PKEventTypeSports") => required.extend(SPORTS),
            Some("PKEventTypeLivePerformance") => required.push("performerNames"),
            _ => {}
        }
    } else if json
        .get("boardingPass")
        .and_then(|style| style.get("transitType")?.as_str())
        .is_none_or(|kind| kind == "PKTransitTypeAir")
    {
        required.extend(FLIGHT);
        required.push("passengerName");
    }
    // Apple's tools and Apple's pages use different names for the time zones.
    let is_missing = |name: &&'static str| {
        let other = name.replace("LocationTimeZone", "AirportTimeZone");
        !has(name) && !has(&other)
    };
    required.retain(is_missing);
    if scheme == "posterEventTicket" && !json.contains_key("nfc") {
        required.push("nfc");
    }
    required
}

fn featured_actions<'a>(pass: &Pass<'a>, walk: &mut Walk<'a, '_>) {
    const KEY: &str = "featuredActions";

    let Some(actions) = pass.json.get(KEY).and_then(Value::as_array) else {
        return;
    };
    let rule = &rules::FEATURED_ACTIONS;
    if actions.len() > MAX_ACTIONS {
        let count = actions.len();
        let message =
            format_args!("has {count} entries, and phones show {MAX_ACTIONS}; remove some");
        walk.report_key(KEY, rule, message);
    }
    let without = Styles::POSTER_TICKET.and(Styles::SEMANTIC_BOARDING_PASS);
    if pass.styles.contains(without) {
        let message =
            "is not shown on poster event tickets and semantic boarding passes; remove it";
        walk.report_key(KEY, rule, message);
    }
    walk.each(pass.json, KEY, |walk, action| {
        if let Some(kind) = text(action, "type").filter(|kind| !ACTIONS.contains(kind)) {
            let kind = excerpt(kind);
            let known = ACTIONS.join(", ");
            walk.report_key("type", rule, format_args!("is {kind}; phones know {known}"));
        }
    });
}
