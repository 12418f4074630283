//! Good passes of every style cause no findings.

use serde_json::json;

use crate::samples::{Draft, STYLES, codes};

#[test]
fn a_good_pass_of_each_style_is_silent() {
    for style in STYLES {
        assert_eq!(codes(&Draft::of(style).sign()), [""; 0], "{style}");
    }
    assert_eq!(codes(&Draft::order().sign()), [""; 0]);
}

#[test]
fn passes_that_use_everything_are_silent() {
    let mut poster = Draft::of("generic");
    poster.json["posterGeneric"] = json!({
        "headerFields": [{"key": "tier", "label": "Tier", "value": "Gold"}],
        "primaryFields": [{"key": "name", "label": "Name", "value": "Maria"}],
        "footerFields": [{"key": "since", "label": "Since", "value": 2020}],
    });
    poster.json["featuredActions"] =
        json!([{"identifier": "a", "type": "shop", "url": "https://example.com"}]);
    poster.image("artwork", 358, 448);
    poster.image("thumbnail", 90, 90);

    let mut full = Draft::of("storeCard");
    for (key, value) in [
        ("associatedStoreIdentifiers", json!([123_456])),
        ("appLaunchURL", json!("example://card")),
        ("userInfo", json!({"anything": [null, {"_id": 1}]})),
        ("expirationDate", json!("9999-12-31T23:59:59Z")),
        (
            "relevantDates",
            json!([{"date": "2027-01-31T12:00Z"}, {
                "startDate": "2027-01-31T12:00+01:00", "endDate": "2027-01-31T12:00Z",
            }]),
        ),
        ("relevantDate", json!("2027-01-31T12:00Z")),
        (
            "locations",
            json!([{"latitude": -90, "longitude": 180.0, "relevantText": "Near"}]),
        ),
        (
            "beacons",
            json!([{
                "proximityUUID": "E2C56DB5-DFFB-48D2-B060-D0F5A71096E0", "major": 65535, "minor": 0,
            }]),
        ),
        ("logoText", json!("Example")),
        ("sharingProhibited", json!(true)),
        (
            "semantics",
            json!({"balance": {"amount": "3.50", "currencyCode": "EUR"}}),
        ),
    ] {
        full.json[key] = value;
    }
    full.json["storeCard"]["auxiliaryFields"] = json!([
        {"key": "balance", "label": "Balance", "value": 3.5, "currencyCode": "EUR"},
        {"key": "points", "value": 7, "numberStyle": "PKNumberStyleSpellOut"},
        {"key": "until", "value": "2027-01-31T12:00Z", "dateStyle": "PKDateStyleShort",
         "timeStyle": "PKDateStyleNone", "textAlignment": "PKTextAlignmentRight"},
    ]);
    full.json["storeCard"]["backFields"] = json!([
        {"key": "site", "value": "Site", "attributedValue": "<a href='https://example.com'>Site</a>",
         "dataDetectorTypes": []},
    ]);
    full.json["barcodes"] = json!([
        {"format": "PKBarcodeFormatEAN13", "message": "4006381333931", "messageEncoding": "us-ascii"},
        {"format": "PKBarcodeFormatCode128", "message": "A-1", "messageEncoding": "utf-8",
         "altText": "A-1"},
    ]);
    full.image("strip", 375, 144);
    full.image("logo", 160, 50);

    for (name, draft) in [
        ("poster ticket", Draft::poster_ticket()),
        ("semantic boarding pass", Draft::semantic_boarding_pass()),
        ("poster generic", poster),
        ("rewards", Draft::rewards()),
        ("translated", Draft::translated()),
        ("full", full),
    ] {
        assert_eq!(codes(&draft.sign()), [""; 0], "{name}");
    }
}

#[test]
fn odd_sizes_of_images_are_rounded_in_any_way() {
    let mut draft = Draft::ticket();
    draft.file("icon.png", crate::samples::png(29, 29));
    draft.file("icon@2x.png", crate::samples::png(57, 58));
    draft.file("icon@3x.png", crate::samples::png(87, 88));
    assert_eq!(codes(&draft.sign()), [""; 0]);
}
