//! The tables of keys in `pass.json` and `order.json`, and the walk through a description along
//! them.
//!
//! A table says which JSON type a key has, whether it is required, and which rule a wrong value
//! breaks. Checks that need more than one value, such as two fields with one key, are in
//! [`description`](crate::description).

use std::fmt::Display;

use serde_json::{Map, Value};

use crate::{
    dates,
    finding::Finding,
    json::{self, Step},
    rules::{self, Rule},
};

/// What a value must look like.
pub(crate) enum Shape {
    Any,
    Text,
    Number,
    Bool,
    /// The number 1.
    One,
    /// A text or a number, like the value of a field.
    Value,
    Date,
    Color,
    /// One of these texts.
    Choice(&'static [&'static str]),
    /// A currency of ISO 4217, such as `EUR`.
    Currency,
    Object(&'static [Key]),
    List(&'static Shape),
}

/// A key of an object.
pub(crate) struct Key {
    pub(crate) name: &'static str,
    shape: Shape,
    /// The rule that a missing key breaks.
    required: Option<&'static Rule>,
    /// The rule that a wrong JSON type breaks.
    wrong_type: &'static Rule,
    /// The rule that a wrong value of the right type breaks.
    wrong_value: &'static Rule,
}

impl Key {
    /// A key that may be missing. If it has another type or value, phones refuse the archive.
    pub(crate) const fn new(name: &'static str, shape: Shape) -> Self {
        let wrong_value = match shape {
            Shape::Date => &rules::DATE,
            Shape::Color => &rules::COLOR,
            _ => &rules::VALUE,
        };
        Self {
            name,
            shape,
            required: None,
            wrong_type: &rules::TYPE,
            wrong_value,
        }
    }

    /// A key that may be missing. If it has another type or value, phones ignore it.
    const fn minor(name: &'static str, shape: Shape) -> Self {
        let wrong_value = match shape {
            Shape::Date => &rules::DATE_MINOR,
            _ => &rules::VALUE_MINOR,
        };
        Self {
            wrong_type: &rules::TYPE_MINOR,
            wrong_value,
            ..Self::new(name, shape)
        }
    }

    const fn required(self) -> Self {
        self.required_by(&rules::KEY_MISSING)
    }

    const fn required_by(self, rule: &'static Rule) -> Self {
        Self {
            required: Some(rule),
            ..self
        }
    }
}

const fn text(name: &'static str) -> Key {
    Key::new(name, Shape::Text)
}

const fn minor_text(name: &'static str) -> Key {
    Key::minor(name, Shape::Text)
}

const fn minor_date(name: &'static str) -> Key {
    Key::minor(name, Shape::Date)
}

const TEXTS: Shape = Shape::List(&Shape::Text);
const NUMBERS: Shape = Shape::List(&Shape::Number);

/// The keys of a pass, without the styles.
pub(crate) static PASS: &[Key] = &[
    Key::new("formatVersion", Shape::One).required(),
    text("passTypeIdentifier").required(),
    text("serialNumber").required(),
    // This key is required too, but only with a signature.
    text("teamIdentifier"),
    text("organizationName").required(),
    text("description").required(),
    text("webServiceURL"),
    text("authenticationToken"),
    Key::new("associatedStoreIdentifiers", NUMBERS),
    Key::new("auxiliaryStoreIdentifiers", NUMBERS),
    text("appLaunchURL"),
    Key::new("userInfo", Shape::Any),
    Key::new("expirationDate", Shape::Date),
    Key::new("voided", Shape::Bool),
    Key::new("relevantDates", Shape::List(&Shape::Object(RELEVANT_DATE))),
    Key::new("relevantDate", Shape::Date),
    Key::new("locations", Shape::List(&Shape::Object(LOCATION))),
    Key::new("maxDistance", Shape::Number),
    Key::new("beacons", Shape::List(&Shape::Object(BEACON))),
    text("groupingIdentifier"),
    // Apple's own pages have an example with an object.
    Key::minor("barcodes", Shape::List(&Shape::Object(BARCODE))),
    Key::new("barcode", Shape::Object(BARCODE)),
    Key::new("nfc", Shape::Object(NFC)),
    Key::new("backgroundColor", Shape::Color),
    Key::new("foregroundColor", Shape::Color),
    Key::new("labelColor", Shape::Color),
    Key::new("stripColor", Shape::Color),
    Key::new("footerBackgroundColor", Shape::Color),
    text("logoText"),
    text("logoSymbolName"),
    text("eventLogoText"),
    Key::new("suppressStripShine", Shape::Bool),
    Key::new("suppressHeaderDarkening", Shape::Bool),
    Key::new("useAutomaticColors", Shape::Bool),
    Key::new("sharingProhibited", Shape::Bool),
    Key::new("semantics", Shape::Object(SEMANTICS)),
    Key::new("preferredStyleSchemes", TEXTS),
    Key::new("featuredActions", Shape::List(&Shape::Any)),
    Key::new("upcomingPassInformation", Shape::List(&Shape::Any)),
    text("accessibilityURL"),
    text("addOnURL"),
    text("bagPolicyURL"),
    text("contactVenueWebsite"),
    text("directionsInformationURL"),
    text("merchandiseURL"),
    text("orderFoodURL"),
    text("parkingInformationURL"),
    text("purchaseParkingURL"),
    text("sellURL"),
    text("transferURL"),
    text("transitInformationURL"),
    text("contactVenueEmail"),
    text("contactVenuePhoneNumber"),
    text("changeSeatURL"),
    text("entertainmentURL"),
    text("managementURL"),
    text("purchaseAdditionalBaggageURL"),
    text("purchaseLoungeAccessURL"),
    text("purchaseWifiURL"),
    text("registerServiceAnimalURL"),
    text("reportLostBagURL"),
    text("requestWheelchairURL"),
    text("trackBagsURL"),
    text("transitProviderWebsiteURL"),
    text("upgradeURL"),
    text("transitProviderEmail"),
    text("transitProviderPhoneNumber"),
];

/// The styles of a pass. A pass has exactly one of them.
pub(crate) static STYLES: &[Key] = &[
    Key::new("boardingPass", Shape::Object(BOARDING_PASS)),
    Key::new("coupon", Shape::Object(STYLE)),
    Key::new("eventTicket", Shape::Object(STYLE)),
    Key::new("generic", Shape::Object(STYLE)),
    Key::new("storeCard", Shape::Object(STYLE)),
    Key::new(POSTER_GENERIC, Shape::Object(STYLE)),
];

/// The style of iOS 27. It may be present together with another style, for older phones.
pub(crate) const POSTER_GENERIC: &str = "posterGeneric";

const FIELDS: Shape = Shape::List(&Shape::Object(FIELD));

static STYLE: &[Key] = &[
    Key::minor("headerFields", FIELDS),
    Key::minor("primaryFields", FIELDS),
    Key::minor("secondaryFields", FIELDS),
    Key::minor("auxiliaryFields", FIELDS),
    Key::minor("backFields", FIELDS),
    Key::minor("additionalInfoFields", FIELDS),
    Key::minor("footerFields", FIELDS),
];

static BOARDING_PASS: &[Key] = &[
    Key {
        wrong_type: &rules::TRANSIT_TYPE,
        wrong_value: &rules::TRANSIT_TYPE,
        ..Key::new(
            "transitType",
            Shape::Choice(&[
                "PKTransitTypeAir",
                "PKTransitTypeBoat",
                "PKTransitTypeBus",
                "PKTransitTypeGeneric",
                "PKTransitTypeTrain",
            ]),
        )
        .required_by(&rules::TRANSIT_TYPE)
    },
    Key::minor("headerFields", FIELDS),
    Key::minor("primaryFields", FIELDS),
    Key::minor("secondaryFields", FIELDS),
    Key::minor("auxiliaryFields", FIELDS),
    Key::minor("backFields", FIELDS),
    Key::minor("additionalInfoFields", FIELDS),
    Key::minor("footerFields", FIELDS),
];

static FIELD: &[Key] = &[
    text("key").required_by(&rules::FIELD),
    Key::minor("value", Shape::Value).required_by(&rules::FIELD),
    text("label"),
    Key::minor("attributedValue", Shape::Value),
    minor_text("changeMessage"),
    minor_text("currencyCode"),
    minor_text("numberStyle"),
    minor_text("dateStyle"),
    minor_text("timeStyle"),
    Key::minor("ignoresTimeZone", Shape::Bool),
    Key::minor("isRelative", Shape::Bool),
    Key::minor("dataDetectorTypes", TEXTS),
    minor_text("textAlignment"),
    Key::minor("row", Shape::Number),
    Key::minor("semantics", Shape::Object(SEMANTICS)),
];

static BARCODE: &[Key] = &[
    minor_text("format").required_by(&rules::BARCODE),
    text("message").required_by(&rules::BARCODE),
    minor_text("messageEncoding").required_by(&rules::BARCODE),
    minor_text("altText"),
];

static RELEVANT_DATE: &[Key] = &[
    Key::new("date", Shape::Date),
    Key::new("startDate", Shape::Date),
    Key::new("endDate", Shape::Date),
];

static LOCATION: &[Key] = &[
    Key::new("latitude", Shape::Number),
    Key::new("longitude", Shape::Number),
    Key::new("altitude", Shape::Number),
    minor_text("relevantText"),
];

static BEACON: &[Key] = &[
    minor_text("proximityUUID"),
    Key::minor("major", Shape::Number),
    Key::minor("minor", Shape::Number),
    minor_text("relevantText"),
];

static NFC: &[Key] = &[
    minor_text("message"),
    minor_text("encryptionPublicKey"),
    Key::minor("requiresAuthentication", Shape::Bool),
];

static SEMANTICS: &[Key] = &[
    // Phones were seen to refuse passes in which this key is a text.
    Key::new("eventStartDateInfo", Shape::Object(EVENT_DATE)),
    minor_date("currentArrivalDate"),
    minor_date("currentBoardingDate"),
    minor_date("currentDepartureDate"),
    minor_date("originalArrivalDate"),
    minor_date("originalBoardingDate"),
    minor_date("originalDepartureDate"),
    minor_date("eventStartDate"),
    minor_date("eventEndDate"),
    minor_date("venueOpenDate"),
    minor_date("venueCloseDate"),
    minor_date("venueDoorsOpenDate"),
    minor_date("venueGatesOpenDate"),
    minor_date("venueBoxOfficeOpenDate"),
    minor_date("venueFanZoneOpenDate"),
    minor_date("venueParkingLotsOpenDate"),
];

static EVENT_DATE: &[Key] = &[minor_date("date")];

/// The keys of an order.
pub(crate) static ORDER: &[Key] = &[
    Key::new("schemaVersion", Shape::One).required(),
    text("orderTypeIdentifier").required(),
    text("orderIdentifier").required(),
    Key::minor("orderType", Shape::Choice(&["ecommerce"])).required(),
    text("orderManagementURL").required(),
    Key::minor("status", Shape::Choice(&["open", "completed", "cancelled"])).required(),
    minor_date("createdAt").required(),
    minor_date("updatedAt").required(),
    Key::new("merchant", Shape::Object(MERCHANT)).required(),
    text("teamIdentifier"),
    text("webServiceURL"),
    text("authenticationToken"),
    Key::minor("payment", Shape::Object(PAYMENT)),
    Key::minor("lineItems", Shape::List(&Shape::Object(LINE_ITEM))),
    Key::minor("fulfillments", Shape::List(&Shape::Object(FULFILLMENT))),
];

static PAYMENT: &[Key] = &[
    Key::minor("total", Shape::Object(AMOUNT)),
    Key::minor("summaryItems", Shape::List(&Shape::Object(SUMMARY_ITEM))),
];

static SUMMARY_ITEM: &[Key] = &[Key::minor("value", Shape::Object(AMOUNT))];

static LINE_ITEM: &[Key] = &[Key::minor("price", Shape::Object(AMOUNT))];

static AMOUNT: &[Key] = &[
    Key::minor("amount", Shape::Number),
    Key::minor("currency", Shape::Currency),
];

static FULFILLMENT: &[Key] = &[
    minor_date("shippedAt"),
    minor_date("deliveredAt"),
    minor_date("estimatedDeliveryAt"),
    minor_date("pickupAt"),
    minor_date("pickedUpAt"),
];

static MERCHANT: &[Key] = &[
    text("displayName").required(),
    text("merchantIdentifier").required(),
    text("url").required(),
    text("logo"),
];

/// A walk through one JSON text along the tables.
pub(crate) struct Walk<'a, 'f> {
    file: &'static str,
    text: &'a [u8],
    path: Vec<Step<'a>>,
    findings: &'f mut Vec<Finding>,
}

impl<'a, 'f> Walk<'a, 'f> {
    /// How many findings get a position at most. Each position needs a pass over the whole text.
    const MAX_POSITIONS: usize = 100;

    pub(crate) fn new(file: &'static str, text: &'a [u8], findings: &'f mut Vec<Finding>) -> Self {
        Self {
            file,
            text,
            path: Vec::new(),
            findings,
        }
    }

    /// Checks all keys of an object.
    pub(crate) fn object(&mut self, object: &'a Map<String, Value>, keys: &'static [Key]) {
        for key in keys {
            match (object.get(key.name), key.required) {
                (Some(value), _) => self.within(Step::Key(key.name), |walk| {
                    walk.value(value, &key.shape, key);
                }),
                (None, Some(rule)) => self.missing(rule, key.name, key.shape.expected()),
                (None, None) => {}
            }
        }
    }

    /// Reports a key that the current object lacks.
    pub(crate) fn missing(&mut self, rule: &'static Rule, key: &str, expected: impl Display) {
        let message = match self.place() {
            place if place.is_empty() => format!("lacks {key}; add it, {expected}"),
            place => format!("{place} lacks {key}; add it, {expected}"),
        };
        let position = (!self.path.is_empty()).then(|| self.position()).flatten();
        self.push(rule, position, message, Some(key));
    }

    /// Reports the current value. The message follows the name of the value in the same line.
    pub(crate) fn report(&mut self, rule: &'static Rule, message: impl Display) {
        let message = format!("{} {message}", self.place());
        let position = self.position();
        self.push(rule, position, message, None);
    }

    /// Adds a finding about the whole file. The message follows the file name in the same line.
    pub(crate) fn report_whole(&mut self, rule: &'static Rule, message: impl Into<String>) {
        self.findings
            .push(Finding::in_file(rule, self.file, message));
    }

    /// Calls `look` with the path one step deeper.
    pub(crate) fn within<T>(&mut self, step: Step<'a>, look: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(step);
        let result = look(self);
        self.path.pop();
        result
    }

    fn value(&mut self, value: &'a Value, shape: &'static Shape, key: &Key) {
        match (shape, value) {
            (Shape::Any, _)
            | (Shape::Text, Value::String(_))
            | (Shape::Number, Value::Number(_))
            | (Shape::Bool, Value::Bool(_))
            | (Shape::Value, Value::String(_) | Value::Number(_)) => {}
            // Phones refuse null, and ignore the other types.
            (Shape::Value, Value::Null) => self.report(
                &rules::TYPE,
                format_args!("is null; it must be {}", shape.expected()),
            ),
            (Shape::One, Value::Number(number)) => {
                if number.as_f64() != Some(1.0) {
                    let message = format_args!("is {number}; it must be {}", shape.expected());
                    self.report(key.wrong_value, message);
                }
            }
            (Shape::Date, Value::String(text)) => {
                if !dates::is_date(text) {
                    let text = excerpt(text);
                    let message =
                        format_args!("is {text}; write it as 2026-01-31T12:00:00Z or …+01:00");
                    self.report(key.wrong_value, message);
                }
            }
            (Shape::Color, Value::String(text)) => {
                if !is_color(text) {
                    let text = excerpt(text);
                    self.report(
                        key.wrong_value,
                        format_args!("is {text}; write it as rgb(255, 0, 10)"),
                    );
                }
            }
            (Shape::Choice(choices), Value::String(text)) => {
                if !choices.contains(&text.as_str()) {
                    let message =
                        format_args!("is {}; it must be {}", excerpt(text), choices.join(" or "));
                    self.report(key.wrong_value, message);
                }
            }
            (Shape::Currency, Value::String(text)) => {
                if text.len() != 3 || !text.bytes().all(|b| b.is_ascii_uppercase()) {
                    let message =
                        format_args!("is {}; write it in three letters as EUR", excerpt(text));
                    self.report(key.wrong_value, message);
                }
            }
            (Shape::Object(keys), Value::Object(object)) => self.object(object, keys),
            (Shape::List(shape), Value::Array(values)) => {
                for (index, value) in values.iter().enumerate() {
                    self.within(Step::Index(index), |walk| walk.value(value, shape, key));
                }
            }
            (shape, value) => self.report(
                key.wrong_type,
                format_args!("is {}; it must be {}", type_of(value), shape.expected()),
            ),
        }
    }

    /// Returns the current path with its indices, such as `generic.primaryFields[0].value`.
    fn place(&self) -> String {
        let mut place = String::new();
        for step in &self.path {
            match step {
                Step::Key(key) if place.is_empty() => place.push_str(key),
                Step::Key(key) => place.extend([".", key]),
                Step::Index(index) => place.push_str(&format!("[{index}]")),
            }
        }
        place
    }

    fn position(&self) -> Option<crate::Position> {
        (self.findings.len() < Self::MAX_POSITIONS)
            .then(|| json::position_of(self.text, &self.path))
            .flatten()
    }

    fn push(
        &mut self,
        rule: &'static Rule,
        position: Option<crate::Position>,
        message: String,
        last: Option<&str>,
    ) {
        let keys = self.path.iter().filter_map(|step| match step {
            Step::Key(key) => Some(*key),
            Step::Index(_) => None,
        });
        let key = keys.chain(last).collect::<Vec<_>>().join(".");
        self.findings.push(
            Finding::in_file(rule, self.file, message)
                .at(position)
                .of_key(&key),
        );
    }
}

impl Shape {
    fn expected(&self) -> &'static str {
        match self {
            Self::Any => "any value",
            Self::Text | Self::Color | Self::Choice(_) | Self::Currency => "a string",
            Self::Number => "a number",
            Self::Bool => "true or false",
            Self::One => "the number 1",
            Self::Value => "a string or a number",
            Self::Date => "a date as 2026-01-31T12:00:00Z",
            Self::Object(_) => "an object",
            Self::List(_) => "an array",
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

/// Quotes a value for a message. Shortens it if it is long.
pub(crate) fn excerpt(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("\"{}…\"", text.get(..end).unwrap_or_default()),
        None => format!("\"{text}\""),
    }
}

/// Returns whether a text is `rgb(r, g, b)`, `rgba(r, g, b, a)`, or `#RGB`, `#RRGGBB` or
/// `#RRGGBBAA`.
fn is_color(text: &str) -> bool {
    let text = text.trim().to_ascii_lowercase();
    if let Some(digits) = text.strip_prefix('#') {
        return matches!(digits.len(), 3 | 6 | 8) && digits.bytes().all(|b| b.is_ascii_hexdigit());
    }
    let numbers = |name: &str| {
        let rest = text.strip_prefix(name)?.trim_start().strip_prefix('(')?;
        Some(
            rest.strip_suffix(')')?
                .split(',')
                .map(str::trim)
                .collect::<Vec<_>>(),
        )
    };
    let is_byte = |number: &&str| number.parse::<u8>().is_ok();
    let is_share = |number: &str| {
        number
            .parse::<f32>()
            .is_ok_and(|n| (0.0..=255.0).contains(&n))
    };
    match (numbers("rgba"), numbers("rgb")) {
        (Some(parts), _) => match *parts {
            [r, g, b, alpha] => [r, g, b].iter().all(is_byte) && is_share(alpha),
            _ => false,
        },
        (None, Some(parts)) => parts.len() == 3 && parts.iter().all(is_byte),
        (None, None) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_values_are_cut() {
        assert_eq!(excerpt(&"ä".repeat(60)), format!("\"{}\"", "ä".repeat(60)));
        assert_eq!(excerpt(&"ä".repeat(61)), format!("\"{}…\"", "ä".repeat(60)));
    }

    #[test]
    fn colours_have_one_of_three_forms() {
        for text in [
            "rgb(1,2,3)",
            "rgb( 255 , 0, 10 )",
            "RGB(1, 2, 3)",
            "rgba(1, 2, 3, 0.5)",
            "#abc",
            "#A0B1C2",
        ] {
            assert!(is_color(text), "{text}");
        }
        for text in [
            "",
            "red",
            "rgb(1,2)",
            "rgb(1,2,256)",
            "rgb(1,2,3",
            "#12345",
            "#ggg",
            "#äb",
        ] {
            assert!(!is_color(text), "{text}");
        }
    }

    #[test]
    fn no_table_has_a_key_twice() {
        let mut tables = vec![PASS, STYLES, ORDER];
        while let Some(table) = tables.pop() {
            let mut names: Vec<_> = table.iter().map(|key| key.name).collect();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), table.len());
            for key in table {
                if let Shape::Object(inner) | Shape::List(&Shape::Object(inner)) = key.shape {
                    tables.push(inner);
                }
            }
        }
    }
}
