//! The tables of keys in `pass.json`, `order.json` and `personalization.json`.
//!
//! A [`Key`] says which JSON type it has, which styles use it, since when phones know it, and which
//! key replaced it. The checks walk along these tables. Use [`PASS`], [`STYLES`] and [`FIELD`] to
//! make passes or to document them.
//!
//! ```
//! use passkit_archive::keys;
//!
//! let upgrade = keys::PASS.iter().find(|key| key.name == "upgradeURL").unwrap();
//! assert_eq!(upgrade.since, Some("iOS 26"));
//! assert!(upgrade.styles.contains(keys::Styles::BOARDING_PASS));
//! assert!(!upgrade.styles.contains(keys::Styles::COUPON));
//! ```

use crate::rules::{self, Rule};

/// The form that a value must have.
#[derive(Debug)]
#[non_exhaustive]
pub enum Shape {
    /// Any JSON value.
    Any,
    /// A string.
    Text,
    /// A number.
    Number,
    /// `true` or `false`.
    Bool,
    /// The number 1.
    One,
    /// A string or a number, like the value of a field.
    Value,
    /// A date such as `2026-01-31T12:00:00Z`.
    Date,
    /// A colour such as `rgb(255, 0, 10)`.
    Color,
    /// One of these strings.
    Choice(&'static [&'static str]),
    /// An ISO 4217 currency, such as `EUR`.
    Currency,
    /// An object with these keys.
    Object(&'static [Key]),
    /// An array of values of this shape.
    List(&'static Shape),
}

/// A set of styles of passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Styles(u8);

impl Styles {
    /// No style.
    pub const NONE: Self = Self(0);
    /// `boardingPass`.
    pub const BOARDING_PASS: Self = Self(1);
    /// `coupon`.
    pub const COUPON: Self = Self(1 << 1);
    /// `eventTicket`.
    pub const EVENT_TICKET: Self = Self(1 << 2);
    /// `generic`.
    pub const GENERIC: Self = Self(1 << 3);
    /// `storeCard`.
    pub const STORE_CARD: Self = Self(1 << 4);
    /// `posterGeneric`.
    pub const POSTER_GENERIC: Self = Self(1 << 5);
    /// The scheme `posterEventTicket` of `eventTicket`.
    pub const POSTER_TICKET: Self = Self(1 << 6);
    /// The scheme `semanticBoardingPass` of `boardingPass`.
    pub const SEMANTIC_BOARDING_PASS: Self = Self(1 << 7);
    /// Every style.
    pub const ALL: Self = Self(u8::MAX);

    const NAMES: [(Self, &'static str); 8] = [
        (Self::BOARDING_PASS, "boardingPass"),
        (Self::COUPON, "coupon"),
        (Self::EVENT_TICKET, "eventTicket"),
        (Self::GENERIC, "generic"),
        (Self::STORE_CARD, "storeCard"),
        (Self::POSTER_GENERIC, "posterGeneric"),
        (Self::POSTER_TICKET, "posterEventTicket"),
        (Self::SEMANTIC_BOARDING_PASS, "semanticBoardingPass"),
    ];

    /// Returns the style or scheme with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let named = Self::NAMES.iter().find(|(_, other)| *other == name);
        named.map(|(style, _)| *style)
    }

    /// Returns the names of the styles and schemes.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        let named = Self::NAMES.iter();
        named
            .filter(move |(style, _)| self.contains(*style))
            .map(|(_, name)| *name)
    }

    /// Returns the styles that are in at least one of the two sets.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Returns the styles that are not in `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Returns this style. If `all` has the scheme of the style, adds the scheme.
    pub(crate) const fn with_scheme(self, all: Self) -> Self {
        let scheme = match self {
            Self::EVENT_TICKET => Self::POSTER_TICKET,
            Self::BOARDING_PASS => Self::SEMANTIC_BOARDING_PASS,
            _ => Self::NONE,
        };
        Self(self.0 | scheme.0 & all.0)
    }

    /// Returns whether the sets have a style in common.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// A key of an object.
#[derive(Debug)]
#[non_exhaustive]
pub struct Key {
    /// The name, as written in JSON.
    pub name: &'static str,
    /// The type and form of its value.
    pub shape: Shape,
    /// The styles that use the key.
    pub styles: Styles,
    /// The system that introduced the key, such as `iOS 26`. `None` if the key is old or its origin
    /// is unknown.
    pub since: Option<&'static str>,
    /// The key that replaced this key.
    pub deprecated: Option<&'static str>,
    /// The rule that a missing key breaks.
    pub(crate) required: Option<&'static Rule>,
    /// The rule that a wrong JSON type breaks.
    pub(crate) wrong_type: &'static Rule,
    /// The rule that a wrong value of the right type breaks.
    pub(crate) wrong_value: &'static Rule,
}

impl Key {
    /// A key that may be missing. If it has another type or value, phones refuse the archive.
    const fn new(name: &'static str, shape: Shape) -> Self {
        let wrong_value = match shape {
            Shape::Date => &rules::DATE,
            Shape::Color => &rules::COLOR,
            _ => &rules::VALUE,
        };
        Self {
            name,
            shape,
            styles: Styles::ALL,
            since: None,
            deprecated: None,
            required: None,
            wrong_type: &rules::TYPE,
            wrong_value,
        }
    }

    /// A key that may be missing. If it has another type or value, phones ignore it.
    const fn minor(name: &'static str, shape: Shape) -> Self {
        Self::new(name, shape).judged(&rules::TYPE_MINOR, &rules::VALUE_MINOR)
    }

    /// A semantic tag.
    const fn tag(name: &'static str, shape: Shape) -> Self {
        Self::new(name, shape).judged(&rules::SEMANTICS_TYPE, &rules::SEMANTICS_VALUE)
    }

    const fn judged(self, wrong_type: &'static Rule, wrong_value: &'static Rule) -> Self {
        let wrong_value = match self.shape {
            Shape::Date => &rules::DATE_MINOR,
            _ => wrong_value,
        };
        Self {
            wrong_type,
            wrong_value,
            ..self
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

    const fn of(self, styles: Styles) -> Self {
        Self { styles, ..self }
    }

    const fn since(self, system: &'static str) -> Self {
        Self {
            since: Some(system),
            ..self
        }
    }

    const fn replaced_by(self, key: &'static str) -> Self {
        Self {
            deprecated: Some(key),
            ..self
        }
    }

    /// Returns whether an object without this key is incomplete.
    #[must_use]
    pub const fn is_required(&self) -> bool {
        self.required.is_some()
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

const fn text_tag(name: &'static str) -> Key {
    Key::tag(name, Shape::Text)
}

const fn date_tag(name: &'static str) -> Key {
    Key::tag(name, Shape::Date)
}

/// A link of a poster event ticket.
const fn ticket_link(name: &'static str) -> Key {
    text(name).of(POSTER_TICKET).since("iOS 18")
}

/// A link of a boarding pass.
const fn boarding_link(name: &'static str) -> Key {
    text(name).of(BOARDING).since("iOS 26")
}

/// A group of fields.
const fn group(name: &'static str) -> Key {
    Key::minor(name, FIELDS)
}

const FIELDS: Shape = Shape::List(&Shape::Object(FIELD));
const TEXTS: Shape = Shape::List(&Shape::Text);
const NUMBERS: Shape = Shape::List(&Shape::Number);

const BOARDING: Styles = Styles::BOARDING_PASS.and(Styles::SEMANTIC_BOARDING_PASS);
const TICKET: Styles = Styles::EVENT_TICKET.and(Styles::POSTER_TICKET);
const POSTER_TICKET: Styles = Styles::POSTER_TICKET;
const POSTERS: Styles = Styles::POSTER_TICKET.and(Styles::POSTER_GENERIC);

/// The keys of `pass.json`, without the styles.
pub static PASS: &[Key] = &[
    Key::new("formatVersion", Shape::One).required(),
    text("passTypeIdentifier").required(),
    text("serialNumber").required(),
    // This key is also required, but only if there is a signature.
    text("teamIdentifier"),
    text("organizationName").required(),
    text("description").required(),
    Key::new("preferredStyleSchemes", TEXTS)
        .of(BOARDING.and(TICKET))
        .since("iOS 18"),
    text("webServiceURL"),
    text("authenticationToken"),
    Key::new("associatedStoreIdentifiers", NUMBERS),
    Key::new("auxiliaryStoreIdentifiers", NUMBERS)
        .of(POSTER_TICKET)
        .since("iOS 18"),
    text("appLaunchURL"),
    Key::new("userInfo", Shape::Any),
    Key::new("expirationDate", Shape::Date),
    Key::new("voided", Shape::Bool),
    Key::new("relevantDates", Shape::List(&Shape::Object(RELEVANT_DATE))).since("iOS 18"),
    Key::new("relevantDate", Shape::Date).replaced_by("relevantDates"),
    Key::new("locations", Shape::List(&Shape::Object(LOCATION))),
    Key::new("maxDistance", Shape::Number),
    Key::new("beacons", Shape::List(&Shape::Object(BEACON))),
    text("groupingIdentifier").of(BOARDING.and(TICKET)),
    // An example in Apple's pages has an object here instead of a list.
    Key::minor("barcodes", Shape::List(&Shape::Object(BARCODE))).since("iOS 9"),
    Key::new("barcode", Shape::Object(BARCODE)).replaced_by("barcodes"),
    Key::new("nfc", Shape::Object(NFC)),
    Key::new("backgroundColor", Shape::Color),
    Key::new("foregroundColor", Shape::Color),
    Key::new("labelColor", Shape::Color),
    Key::new("stripColor", Shape::Color),
    Key::new("footerBackgroundColor", Shape::Color)
        .of(POSTER_TICKET)
        .since("iOS 18"),
    text("logoText").of(Styles::ALL.without(POSTERS)),
    text("logoSymbolName"),
    text("eventLogoText").of(POSTER_TICKET).since("iOS 18"),
    Key::new("suppressStripShine", Shape::Bool),
    Key::new("suppressHeaderDarkening", Shape::Bool)
        .of(POSTER_TICKET)
        .since("iOS 18"),
    Key::new("useAutomaticColors", Shape::Bool)
        .of(POSTER_TICKET)
        .since("iOS 18"),
    Key::new("sharingProhibited", Shape::Bool).since("iOS 11"),
    Key::new("semantics", Shape::Object(SEMANTICS)).since("iOS 12"),
    Key::new(
        "featuredActions",
        Shape::List(&Shape::Object(FEATURED_ACTION)),
    )
    .since("iOS 27"),
    Key::new(
        "upcomingPassInformation",
        Shape::List(&Shape::Object(UPCOMING)),
    )
    .of(TICKET)
    .since("iOS 26"),
    ticket_link("accessibilityURL"),
    ticket_link("addOnURL"),
    ticket_link("bagPolicyURL"),
    ticket_link("contactVenueWebsite"),
    ticket_link("directionsInformationURL"),
    ticket_link("merchandiseURL"),
    ticket_link("orderFoodURL"),
    ticket_link("parkingInformationURL"),
    ticket_link("purchaseParkingURL"),
    ticket_link("sellURL"),
    ticket_link("transferURL"),
    ticket_link("transitInformationURL"),
    ticket_link("contactVenueEmail"),
    ticket_link("contactVenuePhoneNumber"),
    boarding_link("changeSeatURL"),
    boarding_link("entertainmentURL"),
    boarding_link("managementURL"),
    boarding_link("purchaseAdditionalBaggageURL"),
    boarding_link("purchaseLoungeAccessURL"),
    boarding_link("purchaseWifiURL"),
    boarding_link("registerServiceAnimalURL"),
    boarding_link("reportLostBagURL"),
    boarding_link("requestWheelchairURL"),
    boarding_link("trackBagsURL"),
    boarding_link("transitProviderWebsiteURL"),
    boarding_link("upgradeURL"),
    boarding_link("transitProviderEmail"),
    boarding_link("transitProviderPhoneNumber"),
];

/// The styles of a pass. A pass has exactly one of them.
pub static STYLES: &[Key] = &[
    Key::new("boardingPass", Shape::Object(STYLE)),
    Key::new("coupon", Shape::Object(STYLE)),
    Key::new("eventTicket", Shape::Object(STYLE)),
    Key::new("generic", Shape::Object(STYLE)),
    Key::new("storeCard", Shape::Object(STYLE)),
    Key::new(POSTER_GENERIC, Shape::Object(STYLE)).since("iOS 27"),
];

/// The style that is new in iOS 27. A pass may have it together with another style, for older
/// phones.
pub(crate) const POSTER_GENERIC: &str = "posterGeneric";

/// The keys of a style.
pub static STYLE: &[Key] = &[
    Key::new(
        "transitType",
        Shape::Choice(&[
            "PKTransitTypeAir",
            "PKTransitTypeBoat",
            "PKTransitTypeBus",
            "PKTransitTypeGeneric",
            "PKTransitTypeTrain",
        ]),
    )
    .judged(&rules::TRANSIT_TYPE, &rules::TRANSIT_TYPE)
    .required_by(&rules::TRANSIT_TYPE)
    .of(BOARDING),
    group("headerFields"),
    group("primaryFields"),
    group("secondaryFields").of(Styles::ALL.without(Styles::POSTER_GENERIC)),
    group("auxiliaryFields").of(Styles::ALL.without(Styles::POSTER_GENERIC)),
    group("backFields"),
    group("additionalInfoFields")
        .of(BOARDING.and(TICKET).and(Styles::POSTER_GENERIC))
        .since("iOS 26"),
    group("footerFields")
        .of(Styles::POSTER_GENERIC)
        .since("iOS 27"),
];

const DATE_STYLES: Shape = Shape::Choice(&[
    "PKDateStyleNone",
    "PKDateStyleShort",
    "PKDateStyleMedium",
    "PKDateStyleLong",
    "PKDateStyleFull",
]);

/// The keys of a field.
pub static FIELD: &[Key] = &[
    text("key").required_by(&rules::FIELD),
    Key::minor("value", Shape::Value).required_by(&rules::FIELD),
    text("label"),
    Key::minor("attributedValue", Shape::Value),
    minor_text("changeMessage"),
    Key::minor("currencyCode", Shape::Currency),
    Key::minor(
        "numberStyle",
        Shape::Choice(&[
            "PKNumberStyleDecimal",
            "PKNumberStylePercent",
            "PKNumberStyleScientific",
            "PKNumberStyleSpellOut",
        ]),
    ),
    Key::minor("dateStyle", DATE_STYLES),
    Key::minor("timeStyle", DATE_STYLES),
    Key::minor("ignoresTimeZone", Shape::Bool),
    Key::minor("isRelative", Shape::Bool),
    Key::minor(
        "dataDetectorTypes",
        Shape::List(&Shape::Choice(&[
            "PKDataDetectorTypePhoneNumber",
            "PKDataDetectorTypeLink",
            "PKDataDetectorTypeAddress",
            "PKDataDetectorTypeCalendarEvent",
        ])),
    ),
    Key::minor(
        "textAlignment",
        Shape::Choice(&[
            "PKTextAlignmentLeft",
            "PKTextAlignmentCenter",
            "PKTextAlignmentRight",
            "PKTextAlignmentNatural",
        ]),
    ),
    Key::minor("row", Shape::Number).of(TICKET),
    Key::minor("semantics", Shape::Object(SEMANTICS)).since("iOS 12"),
];

/// The keys of a barcode.
pub static BARCODE: &[Key] = &[
    minor_text("format").required_by(&rules::BARCODE),
    text("message").required_by(&rules::BARCODE),
    minor_text("messageEncoding").required_by(&rules::BARCODE),
    minor_text("altText"),
];

/// The keys of an entry of `relevantDates`.
pub static RELEVANT_DATE: &[Key] = &[
    Key::new("date", Shape::Date),
    Key::new("startDate", Shape::Date),
    Key::new("endDate", Shape::Date),
];

/// The keys of an entry of `locations`.
pub static LOCATION: &[Key] = &[
    Key::new("latitude", Shape::Number).required_by(&rules::LOCATION),
    Key::new("longitude", Shape::Number).required_by(&rules::LOCATION),
    Key::new("altitude", Shape::Number),
    minor_text("relevantText"),
];

/// The keys of an entry of `beacons`.
pub static BEACON: &[Key] = &[
    minor_text("proximityUUID").required_by(&rules::BEACON),
    Key::minor("major", Shape::Number),
    Key::minor("minor", Shape::Number),
    minor_text("relevantText"),
];

/// The keys of `nfc`.
pub static NFC: &[Key] = &[
    minor_text("message").required_by(&rules::NFC),
    minor_text("encryptionPublicKey").required_by(&rules::NFC),
    Key::minor("requiresAuthentication", Shape::Bool),
];

/// The keys of an entry of `featuredActions`.
pub static FEATURED_ACTION: &[Key] = &[
    minor_text("identifier"),
    minor_text("type"),
    minor_text("url"),
];

/// The keys of an entry of `upcomingPassInformation`.
pub static UPCOMING: &[Key] = &[
    minor_text("identifier"),
    minor_text("name"),
    minor_text("type"),
    Key::minor("isActive", Shape::Bool),
    Key::minor("dateInformation", Shape::Object(DATE_INFORMATION)),
    Key::minor("semantics", Shape::Object(SEMANTICS)),
    group("additionalInfoFields"),
    group("backFields"),
    Key::minor("auxiliaryStoreIdentifiers", NUMBERS),
    Key::minor("images", Shape::Object(UPCOMING_IMAGES)),
    Key::minor("URLs", Shape::Object(UPCOMING_LINKS)),
];

static DATE_INFORMATION: &[Key] = &[
    minor_date("date"),
    Key::minor("ignoreTimeComponents", Shape::Bool),
    Key::minor("isAllDay", Shape::Bool),
    Key::minor("isUnannounced", Shape::Bool),
    Key::minor("isUndetermined", Shape::Bool),
    minor_text("timeZone"),
];

static UPCOMING_IMAGES: &[Key] = &[
    Key::minor("headerImage", Shape::Object(REMOTE_IMAGE)),
    Key::minor("venueMap", Shape::Object(REMOTE_IMAGE)),
];

static REMOTE_IMAGE: &[Key] = &[
    Key::minor("URLs", Shape::List(&Shape::Object(REMOTE_FILE))),
    Key::minor("reuseExisting", Shape::Bool),
];

static REMOTE_FILE: &[Key] = &[
    minor_text("URL"),
    minor_text("SHA256"),
    Key::minor("scale", Shape::Number),
    Key::minor("size", Shape::Number),
];

static UPCOMING_LINKS: &[Key] = &[
    minor_text("accessibilityURL"),
    minor_text("addOnURL"),
    minor_text("bagPolicyURL"),
    minor_text("contactVenueWebsite"),
    minor_text("directionsInformationURL"),
    minor_text("merchandiseURL"),
    minor_text("orderFoodURL"),
    minor_text("parkingInformationURL"),
    minor_text("purchaseParkingURL"),
    minor_text("sellURL"),
    minor_text("transferURL"),
    minor_text("transitInformationURL"),
];

const SECURITY_PROGRAMS: Shape = Shape::List(&Shape::Choice(&[
    "PKTransitSecurityProgramTSAPreCheck",
    "PKTransitSecurityProgramTSAPreCheckTouchlessID",
    "PKTransitSecurityProgramOSS",
    "PKTransitSecurityProgramITI",
    "PKTransitSecurityProgramITD",
    "PKTransitSecurityProgramGlobalEntry",
    "PKTransitSecurityProgramCLEAR",
]));

/// The semantic tags of a pass or a field.
pub static SEMANTICS: &[Key] = &[
    // Any pass.
    Key::tag("totalPrice", Shape::Object(CURRENCY)),
    Key::tag("wifiAccess", Shape::List(&Shape::Object(WIFI))),
    Key::tag("balance", Shape::Object(CURRENCY)),
    // Boarding passes and event tickets.
    Key::tag("duration", Shape::Number),
    Key::tag("seats", Shape::List(&Shape::Object(SEAT))),
    Key::tag("silenceRequested", Shape::Bool),
    // Boarding passes.
    text_tag("boardingGroup"),
    text_tag("boardingSequenceNumber"),
    text_tag("boardingZone"),
    text_tag("confirmationNumber"),
    date_tag("currentArrivalDate"),
    date_tag("currentBoardingDate"),
    date_tag("currentDepartureDate"),
    date_tag("originalArrivalDate"),
    date_tag("originalBoardingDate"),
    date_tag("originalDepartureDate"),
    Key::tag("departureLocation", Shape::Object(PLACE)),
    Key::tag("destinationLocation", Shape::Object(PLACE)),
    text_tag("departureLocationDescription"),
    text_tag("destinationLocationDescription"),
    text_tag("membershipProgramName"),
    text_tag("membershipProgramNumber"),
    text_tag("membershipProgramStatus"),
    Key::tag("passengerName", Shape::Object(PERSON)),
    text_tag("priorityStatus"),
    text_tag("securityScreening"),
    text_tag("ticketFareClass"),
    text_tag("transitProvider"),
    text_tag("transitStatus"),
    text_tag("transitStatusReason"),
    text_tag("vehicleName"),
    text_tag("vehicleNumber"),
    text_tag("vehicleType"),
    // Airlines.
    text_tag("airlineCode"),
    text_tag("flightCode"),
    Key::tag("flightNumber", Shape::Number),
    text_tag("departureAirportCode"),
    text_tag("departureAirportName"),
    text_tag("departureCityName"),
    text_tag("departureGate"),
    text_tag("departureTerminal"),
    text_tag("destinationAirportCode"),
    text_tag("destinationAirportName"),
    text_tag("destinationCityName"),
    text_tag("destinationGate"),
    text_tag("destinationTerminal"),
    // Apple's pages and Apple's tools spell these keys differently.
    text_tag("departureLocationTimeZone"),
    text_tag("departureAirportTimeZone"),
    Key::tag("departureLocationSecurityPrograms", SECURITY_PROGRAMS),
    Key::tag("departureAirportSecurityPrograms", SECURITY_PROGRAMS),
    text_tag("destinationLocationTimeZone"),
    text_tag("destinationAirportTimeZone"),
    Key::tag("destinationLocationSecurityPrograms", SECURITY_PROGRAMS),
    Key::tag("destinationAirportSecurityPrograms", SECURITY_PROGRAMS),
    Key::tag("passengerEligibleSecurityPrograms", SECURITY_PROGRAMS),
    Key::tag("internationalDocumentsAreVerified", Shape::Bool),
    text_tag("internationalDocumentsVerifiedDeclarationName"),
    Key::tag("loungePlaceIDs", TEXTS),
    Key::tag("airlineLoungePlaceID", Shape::Any),
    Key::tag("passengerAirlineSSRs", TEXTS),
    Key::tag("passengerInformationSSRs", TEXTS),
    Key::tag("passengerServiceSSRs", TEXTS),
    Key::tag(
        "passengerCapabilities",
        Shape::List(&Shape::Choice(&[
            "PKPassengerCapabilityPreboarding",
            "PKPassengerCapabilityPriorityBoarding",
            "PKPassengerCapabilityCarryon",
            "PKPassengerCapabilityPersonalItem",
            "PKPassengerCapabilityLapInfant",
        ])),
    ),
    // Trains.
    text_tag("carNumber"),
    text_tag("departurePlatform"),
    text_tag("departureStationName"),
    text_tag("destinationPlatform"),
    text_tag("destinationStationName"),
    // Events.
    text_tag("additionalTicketAttributes"),
    text_tag("admissionLevel"),
    text_tag("admissionLevelAbbreviation"),
    text_tag("attendeeName"),
    text_tag("entranceDescription"),
    text_tag("eventName"),
    text_tag("genre"),
    Key::tag("albumIDs", TEXTS),
    Key::tag("artistIDs", TEXTS),
    Key::tag("playlistIDs", TEXTS),
    Key::tag("performerNames", TEXTS),
    date_tag("eventStartDate"),
    date_tag("eventEndDate"),
    // Some phones refuse passes in which this value is a string.
    Key {
        wrong_type: &rules::TYPE,
        ..Key::tag("eventStartDateInfo", Shape::Object(EVENT_DATE))
    },
    // This key occurs in real passes, but not in Apple's pages.
    Key::tag("eventEndDateInfo", Shape::Object(EVENT_DATE)),
    text_tag("eventLiveMessage"),
    Key::tag(
        "eventType",
        Shape::Choice(&[
            "PKEventTypeGeneric",
            "PKEventTypeLivePerformance",
            "PKEventTypeMovie",
            "PKEventTypeSports",
            "PKEventTypeConference",
            "PKEventTypeConvention",
            "PKEventTypeWorkshop",
            "PKEventTypeSocialGathering",
        ]),
    ),
    Key::tag("tailgatingAllowed", Shape::Bool),
    text_tag("venueName"),
    text_tag("venueRegionName"),
    text_tag("venueRoom"),
    text_tag("venueEntrance"),
    text_tag("venueEntranceDoor"),
    text_tag("venueEntranceGate"),
    text_tag("venueEntrancePortal"),
    text_tag("venuePhoneNumber"),
    Key::tag("venueLocation", Shape::Object(PLACE)),
    date_tag("venueOpenDate"),
    date_tag("venueCloseDate"),
    date_tag("venueDoorsOpenDate"),
    date_tag("venueGatesOpenDate"),
    date_tag("venueBoxOfficeOpenDate"),
    date_tag("venueFanZoneOpenDate"),
    date_tag("venueParkingLotsOpenDate"),
    // Sports.
    text_tag("homeTeamAbbreviation"),
    text_tag("homeTeamLocation"),
    text_tag("homeTeamName"),
    text_tag("awayTeamAbbreviation"),
    text_tag("awayTeamLocation"),
    text_tag("awayTeamName"),
    text_tag("leagueAbbreviation"),
    text_tag("leagueName"),
    text_tag("sportName"),
];

static CURRENCY: &[Key] = &[
    text_tag("amount"),
    Key::tag("currencyCode", Shape::Currency),
];

static PLACE: &[Key] = &[
    Key::tag("latitude", Shape::Number).required_by(&rules::SEMANTICS_VALUE),
    Key::tag("longitude", Shape::Number).required_by(&rules::SEMANTICS_VALUE),
];

static PERSON: &[Key] = &[
    text_tag("namePrefix"),
    text_tag("givenName"),
    text_tag("middleName"),
    text_tag("familyName"),
    text_tag("nameSuffix"),
    text_tag("nickname"),
    text_tag("phoneticRepresentation"),
];

static SEAT: &[Key] = &[
    text_tag("seatAisle"),
    text_tag("seatDescription"),
    text_tag("seatIdentifier"),
    text_tag("seatLevel"),
    text_tag("seatNumber"),
    text_tag("seatRow"),
    text_tag("seatSection"),
    Key::tag("seatSectionColor", Shape::Color),
    text_tag("seatType"),
];

static EVENT_DATE: &[Key] = &[
    date_tag("date"),
    Key::tag("ignoreTimeComponents", Shape::Bool),
    text_tag("timeZone"),
    Key::tag("unannounced", Shape::Bool),
    Key::tag("undetermined", Shape::Bool),
];

static WIFI: &[Key] = &[
    text_tag("ssid").required_by(&rules::SEMANTICS_VALUE),
    text_tag("password").required_by(&rules::SEMANTICS_VALUE),
    text_tag("captiveToken"),
    text_tag("captiveTokenAuthURL"),
];

/// The keys of `personalization.json`.
pub static PERSONALIZATION: &[Key] = &[
    Key::new(
        "requiredPersonalizationFields",
        Shape::List(&Shape::Choice(&[
            "PKPassPersonalizationFieldName",
            "PKPassPersonalizationFieldPostalCode",
            "PKPassPersonalizationFieldEmailAddress",
            "PKPassPersonalizationFieldPhoneNumber",
        ])),
    )
    .judged(&rules::PERSONALIZATION, &rules::PERSONALIZATION)
    .required_by(&rules::PERSONALIZATION),
    text("description")
        .judged(&rules::PERSONALIZATION, &rules::PERSONALIZATION)
        .required_by(&rules::PERSONALIZATION),
    text("termsAndConditions").judged(&rules::PERSONALIZATION, &rules::PERSONALIZATION),
];

/// The keys of `order.json` that are checked. An order may have many more.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_table_has_a_key_twice() {
        // A pass is one object with the keys of both tables.
        let pass: Vec<&Key> = PASS.iter().chain(STYLES).collect();
        let mut tables = vec![
            pass,
            ORDER.iter().collect(),
            PERSONALIZATION.iter().collect(),
        ];
        while let Some(table) = tables.pop() {
            let mut names: Vec<_> = table.iter().map(|key| key.name).collect();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), table.len());
            for key in table {
                if let Shape::Object(inner) | Shape::List(&Shape::Object(inner)) = key.shape {
                    tables.push(inner.iter().collect());
                }
            }
        }
    }

    #[test]
    fn styles_have_the_names_of_their_keys() {
        for style in STYLES {
            let named = Styles::named(style.name).unwrap();
            assert_eq!(named.names().collect::<Vec<_>>(), [style.name]);
        }
        assert_eq!(Styles::ALL.names().count(), 8);
        assert_eq!(Styles::named("userInfo"), None);
    }

    #[test]
    fn what_replaced_a_key_is_a_key() {
        for key in PASS {
            if let Some(newer) = key.deprecated {
                assert!(PASS.iter().any(|other| other.name == newer), "{newer}");
            }
        }
    }
}
