//! Good archives. A test changes one thing in them.

use passkit_archive::{ArchiveBuilder, Report, Rules, Signer};
use passkit_server::identifiers::{Kind, TypeIdentifier};
use serde_json::{Value, json};

pub(crate) const TYPE: &str = "pass.com.example.ticket";
pub(crate) const ORDER_TYPE: &str = "order.com.example.shop";
pub(crate) const TEAM: &str = "ABCDE12345";
pub(crate) const KEY: &str = include_str!("../fixtures/p256.base64");

/// The older styles, which every phone knows.
pub(crate) const STYLES: [&str; 5] = [
    "boardingPass",
    "coupon",
    "eventTicket",
    "generic",
    "storeCard",
];

/// A pass or an order before it is signed.
#[derive(Clone)]
pub(crate) struct Draft {
    pub(crate) json: Value,
    /// If this is set, it replaces `json`.
    pub(crate) text: Option<Vec<u8>>,
    pub(crate) files: Vec<(String, Vec<u8>)>,
    pub(crate) allows_nfc: bool,
}

/// The header of a PNG image.
pub(crate) fn png(width: u32, height: u32) -> Vec<u8> {
    let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR".to_vec();
    png.extend(width.to_be_bytes());
    png.extend(height.to_be_bytes());
    png.extend([8, 6, 0, 0, 0]);
    png
}

impl Draft {
    /// A good pass of a style.
    pub(crate) fn of(style: &str) -> Self {
        let mut json = json!({
            "formatVersion": 1,
            "passTypeIdentifier": TYPE,
            "serialNumber": "A-1",
            "teamIdentifier": TEAM,
            "organizationName": "Example",
            "description": "A pass of Example",
            "webServiceURL": "https://wallet.example.com/",
            "authenticationToken": "0123456789abcdef",
            "backgroundColor": "rgb(20, 30, 60)",
            "foregroundColor": "rgb(255, 255, 255)",
            "labelColor": "#dddddd",
            "barcodes": [{
                "format": "PKBarcodeFormatQR",
                "message": "A-1",
                "messageEncoding": "iso-8859-1",
            }],
        });
        json[style] = json!({
            "primaryFields": [
                {"key": "name", "label": "Name", "value": "Maria", "changeMessage": "Now %@"},
            ],
            "backFields": [{"key": "terms", "label": "Terms", "value": "None"}],
        });
        if style == "boardingPass" {
            json[style]["transitType"] = "PKTransitTypeAir".into();
        }
        let mut draft = Self {
            json,
            text: None,
            files: Vec::new(),
            allows_nfc: false,
        };
        draft.image("icon", 38, 38);
        draft
    }

    pub(crate) fn ticket() -> Self {
        Self::of("eventTicket")
    }

    pub(crate) fn order() -> Self {
        Self {
            json: json!({
                "schemaVersion": 1,
                "orderTypeIdentifier": ORDER_TYPE,
                "orderIdentifier": "1042",
                "orderType": "ecommerce",
                "orderManagementURL": "https://example.com/orders/1042",
                "merchant": {
                    "displayName": "Example Shop",
                    "merchantIdentifier": "com.example.shop",
                    "url": "https://example.com",
                    "logo": "logo.png",
                },
                "status": "open",
                "createdAt": "2026-01-31T12:00:00Z",
                "updatedAt": "2026-01-31T12:00:00+01:00",
                "webServiceURL": "https://example.com/wallet",
                "authenticationToken": "0123456789abcdef",
            }),
            text: None,
            files: vec![("logo.png".into(), png(64, 64))],
            allows_nfc: false,
        }
    }

    /// Adds a file. Replaces a file of the same name.
    pub(crate) fn file(&mut self, name: &str, content: impl Into<Vec<u8>>) {
        self.files.retain(|file| file.0 != name);
        self.files.push((name.into(), content.into()));
    }

    /// Adds an image in all scales.
    pub(crate) fn image(&mut self, stem: &str, width: u32, height: u32) {
        for (scale, suffix) in [(1, ""), (2, "@2x"), (3, "@3x")] {
            let name = format!("{stem}{suffix}.png");
            self.file(&name, png(width * scale, height * scale));
        }
    }

    pub(crate) fn remove(&mut self, key: &str) {
        self.json.as_object_mut().unwrap().remove(key).unwrap();
    }

    pub(crate) fn builder(&self) -> ArchiveBuilder {
        let is_pass = self.json.get("schemaVersion").is_none();
        let kind = if is_pass { Kind::Pass } else { Kind::Order };
        let text = serde_json::to_vec_pretty(&self.json).unwrap();
        let text = self.text.clone().unwrap_or(text);
        let builder = ArchiveBuilder::new(kind, text);
        self.files.iter().fold(builder, |builder, (name, content)| {
            builder.file(name, content.clone())
        })
    }

    pub(crate) fn sign(&self) -> Vec<u8> {
        let type_id = match self.json.get("schemaVersion") {
            None => TYPE,
            Some(_) => ORDER_TYPE,
        };
        let type_id = TypeIdentifier::new(type_id).unwrap();
        let signer = if self.allows_nfc {
            Signer::throwaway_with_nfc(&type_id, TEAM)
        } else {
            Signer::throwaway(&type_id, TEAM)
        };
        self.builder().build_signed(&signer.unwrap()).unwrap()
    }

    pub(crate) fn with_nfc(mut self) -> Self {
        self.json["nfc"] = json!({
            "message": "A-1", "encryptionPublicKey": KEY, "requiresAuthentication": false,
        });
        self.allows_nfc = true;
        self
    }

    /// A poster event ticket with everything that its scheme requires.
    pub(crate) fn poster_ticket() -> Self {
        let mut draft = Self::ticket().with_nfc();
        draft.json["preferredStyleSchemes"] = json!(["posterEventTicket", "eventTicket"]);
        draft.json["semantics"] = json!({
            "eventName": "A concert",
            "eventType": "PKEventTypeLivePerformance",
            "performerNames": ["The Examples"],
            "venueName": "Hall",
            "venueRegionName": "Town",
            "venueRoom": "1",
            "eventStartDateInfo": {"date": "2027-01-31T20:00:00Z", "timeZone": "Europe/Vienna"},
            "seats": [{"seatRow": "5", "seatNumber": "7", "seatSectionColor": "rgb(1, 2, 3)"}],
            "venueLocation": {"latitude": 48.2, "longitude": 16.4},
        });
        draft.json["bagPolicyURL"] = "https://example.com/bags".into();
        draft.image("artwork", 358, 448);
        draft
    }

    /// A semantic boarding pass with everything that its scheme requires.
    pub(crate) fn semantic_boarding_pass() -> Self {
        let mut draft = Self::of("boardingPass");
        draft.json["preferredStyleSchemes"] = json!(["semanticBoardingPass", "boardingPass"]);
        draft.json["semantics"] = json!({
            "airlineCode": "EX",
            "flightNumber": 123,
            "departureAirportCode": "VIE",
            "departureCityName": "Vienna",
            "departureLocationTimeZone": "Europe/Vienna",
            "destinationAirportCode": "LHR",
            "destinationCityName": "London",
            "destinationAirportTimeZone": "Europe/London",
            "originalArrivalDate": "2027-01-31T14:00:00Z",
            "originalBoardingDate": "2027-01-31T11:30:00Z",
            "originalDepartureDate": "2027-01-31T12:00:00Z",
            "passengerName": {"givenName": "Maria", "familyName": "Muster"},
            "passengerCapabilities": ["PKPassengerCapabilityCarryon"],
        });
        draft.json["changeSeatURL"] = "https://example.com/seat".into();
        draft.image("primaryLogo", 126, 30);
        draft
    }

    /// A pass that lets people sign up for rewards.
    pub(crate) fn rewards() -> Self {
        let mut draft = Self::of("storeCard").with_nfc();
        let sign_up = json!({
            "requiredPersonalizationFields": ["PKPassPersonalizationFieldName"],
            "description": "Sign up for rewards",
        });
        draft.file("personalization.json", sign_up.to_string());
        draft.image("personalizationLogo", 150, 40);
        draft
    }

    /// A translated pass.
    pub(crate) fn translated() -> Self {
        let mut draft = Self::ticket();
        draft.file("en.lproj/pass.strings", strings(""));
        let utf16: Vec<u8> = format!("\u{feff}{}", strings("de "))
            .encode_utf16()
            .flat_map(u16::to_le_bytes)
            .collect();
        draft.file("de.lproj/pass.strings", utf16);
        draft
    }
}

/// Returns a `pass.strings` for the texts of a ticket.
pub(crate) fn strings(prefix: &str) -> String {
    ["A pass of Example", "Name", "Terms", "Now %@"]
        .map(|text| format!("\"{text}\" = \"{prefix}{text}\";\n"))
        .concat()
}

/// Returns the codes of all findings, except the finding that the certificates are for tests.
pub(crate) fn codes(archive: &[u8]) -> Vec<&'static str> {
    let findings = Report::of(archive, Rules::strict()).findings;
    let mut codes: Vec<&str> = findings.iter().map(|one| one.rule().code).collect();
    codes.retain(|code| *code != "root");
    codes.sort_unstable();
    codes.dedup();
    codes
}
