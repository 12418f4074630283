//! Pictures of passes: their texts, places, barcodes and limits.

#![allow(clippy::expect_used, clippy::unwrap_used)]

use passkit_archive::{ArchiveBuilder, PassFiles, placeholder_icon};
use passkit_picture::{DrawError, Drawing, MAX_SVG_BYTES, Picture, Side};
use passkit_server::identifiers::Kind;
use roxmltree::{Document, Node};
use rxing::BarcodeFormat;
use serde_json::{Value, json};

const STYLES: [&str; 5] = [
    "boardingPass",
    "coupon",
    "eventTicket",
    "generic",
    "storeCard",
];

fn files_with(json: &Value, files: &[(&str, Vec<u8>)]) -> PassFiles {
    let builder = ArchiveBuilder::new(Kind::Pass, json.to_string());
    let builder = files.iter().fold(builder, |builder, (name, content)| {
        builder.file(*name, content.clone())
    });
    PassFiles::of_archive(&builder.build_unsigned().unwrap()).unwrap()
}

fn draw_with(json: &Value, files: &[(&str, Vec<u8>)], drawing: &Drawing) -> Picture {
    let picture = drawing.draw(&files_with(json, files)).unwrap();
    check(&picture.svg);
    picture
}

fn draw(json: &Value) -> Picture {
    draw_with(json, &[], &Drawing::new(Side::Both))
}

/// Checks everything that must be true of every picture.
fn check(svg: &str) {
    assert!(svg.len() <= MAX_SVG_BYTES, "{} bytes", svg.len());
    let document = Document::parse(svg).unwrap();
    const ELEMENTS: [&str; 15] = [
        "svg",
        "title",
        "desc",
        "g",
        "rect",
        "path",
        "text",
        "image",
        "clipPath",
        "filter",
        "feGaussianBlur",
        "linearGradient",
        "stop",
        "circle",
        "line",
    ];
    for node in document.descendants().filter(Node::is_element) {
        let name = node.tag_name().name();
        assert!(ELEMENTS.contains(&name), "{name}");
        assert_eq!(
            node.tag_name().namespace(),
            Some("http://www.w3.org/2000/svg")
        );
        for attribute in node.attributes() {
            let (name, value) = (attribute.name(), attribute.value());
            assert!(!name.starts_with("on") && name != "style", "{name}");
            // Nothing outside of the picture is read.
            match name {
                "href" => assert!(value.starts_with("data:image/png;base64,"), "{value}"),
                _ if value.contains("url(") => assert!(value.starts_with("url(#"), "{value}"),
                _ => {}
            }
        }
    }
}

/// A text of a picture, with its place.
#[derive(Debug, PartialEq)]
struct Text {
    text: String,
    x: f64,
    y: f64,
    anchor: String,
    size: f64,
}

fn texts(svg: &str) -> Vec<Text> {
    let document = Document::parse(svg).unwrap();
    let nodes = document
        .descendants()
        .filter(|node| node.has_tag_name("text"));
    nodes
        .map(|node| {
            let number = |name: &str| node.attribute(name).unwrap().parse().unwrap();
            Text {
                text: node.text().unwrap_or_default().to_owned(),
                x: number("x"),
                y: number("y"),
                anchor: node.attribute("text-anchor").unwrap().to_owned(),
                size: number("font-size"),
            }
        })
        .collect()
}

#[track_caller]
fn find<'a>(texts: &'a [Text], text: &str) -> &'a Text {
    let found = texts.iter().find(|one| one.text == text);
    found.unwrap_or_else(|| panic!("{text} is missing in {texts:#?}"))
}

fn field(key: &str, value: &str) -> Value {
    json!({ "key": key, "label": format!("label {key}"), "value": value })
}

fn full(style: &str) -> Value {
    json!({
        "description": "A pass",
        "organizationName": "Example",
        "logoText": "The logo",
        "backgroundColor": "#102030",
        "foregroundColor": "rgb(255, 255, 255)",
        "labelColor": "rgb(200, 200, 10)",
        "barcodes": [{ "format": "PKBarcodeFormatQR", "message": "M", "messageEncoding": "utf-8", "altText": "below it" }],
        style: {
            "transitType": "PKTransitTypeTrain",
            "headerFields": [field("h1", "H1"), field("h2", "H2")],
            "primaryFields": [field("p1", "P1"), field("p2", "P2")],
            "secondaryFields": [field("s1", "S1"), field("s2", "S2")],
            "auxiliaryFields": [field("a1", "A1")],
            "backFields": [field("b1", "B1")],
        },
    })
}

#[test]
fn each_classic_style_has_its_fields_at_their_places() {
    for style in STYLES {
        let picture = draw(&full(style));
        assert_eq!(picture.notes, [""; 0], "{style}");
        let texts = texts(&picture.svg);
        let at = |text: &str| find(&texts, text);
        // The header is at the right, in its order.
        assert!(at("H1").x < at("H2").x && at("H2").x > 340.0, "{style}");
        assert_eq!(at("H2").anchor, "end", "{style}");
        assert!(
            at("H1").y < at("P1").y && at("P1").y < at("S1").y,
            "{style}"
        );
        // The label of a primary field is below its value only on a strip.
        let label_is_below = ["coupon", "storeCard"].contains(&style);
        let label = if label_is_below {
            "label p1"
        } else {
            "LABEL P1"
        };
        assert_eq!(at(label).y > at("P1").y, label_is_below, "{style}");
        assert!(at("P1").size > at("S1").size, "{style}");
        assert!(
            at("S1").x < at("S2").x && at("S1").y == at("S2").y,
            "{style}"
        );
        assert!(at("LABEL S1").y < at("S1").y, "{style}");
        let second_row = match style {
            "boardingPass" => at("A1").y < at("S1").y,
            "eventTicket" => at("A1").y > at("S1").y,
            _ => at("A1").y == at("S1").y,
        };
        assert!(second_row, "{style}");
        let has_two = texts.iter().any(|text| text.text == "P2");
        assert_eq!(has_two, style == "boardingPass", "{style}");
        assert!(at("below it").y > at("A1").y, "{style}");
        // The back is to the right of the front.
        assert_eq!(at("B1").y, at("label b1").y + 22.0, "{style}");
        at("Approximate picture of the pass");
    }
}

#[test]
fn colours_are_those_of_the_pass() {
    let picture = draw(&full("storeCard")).svg;
    assert!(picture.contains("fill=\"#102030\""), "{picture}");
    assert!(picture.contains("fill=\"#ffffff\">H1<"), "{picture}");
    assert!(picture.contains("fill=\"#c8c80a\">LABEL H1<"), "{picture}");
    // Without colours, the text can be read on the background.
    let plain = |background: &str| {
        draw(&json!({ "backgroundColor": background, "generic": { "primaryFields": [field("p", "P")] } })).svg
    };
    assert!(plain("#ffffff").contains("fill=\"#000000\">P<"));
    assert!(plain("#000080").contains("fill=\"#ffffff\">P<"));
}

#[test]
fn alignment_moves_a_text_within_its_column() {
    let aligned = |align: &str| {
        let pass = json!({ "coupon": { "secondaryFields": [
            field("a", "A"), { "key": "b", "value": "B", "textAlignment": align },
        ] } });
        let texts = texts(&draw(&pass).svg);
        let text = find(&texts, "B");
        (text.x, text.anchor.clone())
    };
    assert_eq!(aligned("PKTextAlignmentRight"), (359.0, "end".into()));
    assert_eq!(aligned("PKTextAlignmentCenter").1, "middle");
    assert_eq!(aligned("PKTextAlignmentLeft").1, "start");
    assert_eq!(
        aligned("PKTextAlignmentLeft"),
        aligned("PKTextAlignmentNatural")
    );
}

#[test]
fn values_are_written_as_in_the_language() {
    let fields = json!([
        { "key": "a", "value": 1234.5, "currencyCode": "EUR" },
        { "key": "b", "value": -3, "currencyCode": "CHF" },
        { "key": "c", "value": 1234567.25, "numberStyle": "PKNumberStyleDecimal" },
        { "key": "d", "value": 0.25, "numberStyle": "PKNumberStylePercent" },
        { "key": "e", "value": "2036-03-14T09:05:00+01:00", "dateStyle": "PKDateStyleFull", "timeStyle": "PKDateStyleShort" },
        { "key": "f", "value": "2036-03-14T21:05Z", "dateStyle": "PKDateStyleNone", "timeStyle": "PKDateStyleMedium" },
        { "key": "g", "value": "2036-03-14T21:05Z", "dateStyle": "PKDateStyleMedium" },
        { "key": "h", "value": "not a date", "dateStyle": "PKDateStyleMedium" },
        { "key": "i", "value": "GREETING" },
        { "key": "j", "value": 5000, "currencyCode": "JPY" },
        { "key": "k", "value": "x", "attributedValue": "<a href='https://example.org'>A &amp; B</a>" },
    ]);
    let pass = json!({ "generic": { "backFields": fields } });
    let strings = |text: &str| format!("\"GREETING\" = \"{text}\";").into_bytes();
    let files = [
        ("de.lproj/pass.strings", strings("Hallo")),
        ("en.lproj/pass.strings", strings("Hello")),
    ];
    for (language, expected) in [
        (
            "en",
            [
                "€1,234.50",
                "-CHF\u{a0}3.00",
                "1,234,567.25",
                "25%",
                "Friday, March 14, 2036, 9:05 AM",
                "9:05:00 PM",
                "Mar 14, 2036",
                "not a date",
                "Hello",
                "¥5,000",
                "A & B",
            ],
        ),
        (
            "de-AT",
            [
                "1.234,50\u{a0}€",
                "-3,00\u{a0}CHF",
                "1.234.567,25",
                "25\u{a0}%",
                "Freitag, 14. März 2036, 09:05",
                "21:05:00",
                "14.03.2036",
                "not a date",
                "Hallo",
                "5.000\u{a0}¥",
                "A & B",
            ],
        ),
        // A phone takes English if the pass does not have its language.
        (
            "ja",
            [
                "€1,234.50",
                "-CHF\u{a0}3.00",
                "1,234,567.25",
                "25%",
                "2036-03-14, 09:05",
                "21:05:00",
                "2036-03-14",
                "not a date",
                "Hello",
                "¥5,000",
                "A & B",
            ],
        ),
    ] {
        let drawing = Drawing::new(Side::Back).language(language);
        let texts = texts(&draw_with(&pass, &files, &drawing).svg);
        for expected in expected {
            find(&texts, expected);
        }
    }
}

#[test]
fn a_damaged_translation_is_noted() {
    let pass = json!({ "generic": { "primaryFields": [field("a", "A")] } });
    let files = [("en.lproj/pass.strings", b"\"a\" = ".to_vec())];
    let picture = draw_with(&pass, &files, &Drawing::new(Side::Front));
    assert!(
        picture.notes[0].contains("en.lproj/pass.strings"),
        "{:?}",
        picture.notes
    );
}

/// The black modules of the barcode of a picture, as an image with a white border.
fn modules(svg: &str) -> (Vec<u8>, u32, u32) {
    let document = Document::parse(svg).unwrap();
    let code = document
        .descendants()
        .find(|node| node.attribute("class") == Some("barcode"));
    let code = code.expect("a barcode");
    let size: Vec<u32> = code
        .attribute("viewBox")
        .unwrap()
        .split(' ')
        .map(|part| part.parse().unwrap())
        .collect();
    let path = code.first_element_child().unwrap().attribute("d").unwrap();
    // A module is several pixels wide, and a code with bars is high.
    let (wide, high) = (4, if size[3] == 1 { 100 } else { 4 });
    let border = 40;
    let (width, height) = (size[2] * wide + 2 * border, size[3] * high + 2 * border);
    let mut luma = vec![255; (width * height) as usize];
    for run in path.split('M').skip(1) {
        let numbers: Vec<u32> = run
            .split(|c: char| !c.is_ascii_digit())
            .filter_map(|number| number.parse().ok())
            .collect();
        let [x, y, run_width, run_height, _] = numbers[..] else {
            panic!("{run}")
        };
        for row in y * high..(y + run_height) * high {
            for column in x * wide..(x + run_width) * wide {
                luma[((row + border) * width + column + border) as usize] = 0;
            }
        }
    }
    (luma, width, height)
}

fn barcode(format: &str, message: &str, encoding: &str) -> Value {
    json!({
        "barcodes": [{ "format": format, "message": message, "messageEncoding": encoding }],
        "storeCard": {},
    })
}

#[test]
fn a_reader_reads_every_kind_of_barcode() {
    for (format, kind, message) in [
        (
            "PKBarcodeFormatQR",
            BarcodeFormat::QR_CODE,
            "https://example.org/?a=1&b=<2>",
        ),
        (
            "PKBarcodeFormatPDF417",
            BarcodeFormat::PDF_417,
            "M1LOVELACE/ADA       EABC123 BERLHREX 0417 074Y014C0025 100",
        ),
        ("PKBarcodeFormatAztec", BarcodeFormat::AZTEC, "5001"),
        (
            "PKBarcodeFormatCode128",
            BarcodeFormat::CODE_128,
            "AB-1234567890",
        ),
        ("PKBarcodeFormatCode39", BarcodeFormat::CODE_39, "CODE-39"),
        ("PKBarcodeFormatCodabar", BarcodeFormat::CODABAR, "A12345B"),
        (
            "PKBarcodeFormatEAN13",
            BarcodeFormat::EAN_13,
            "4006381333931",
        ),
        ("PKBarcodeFormatI2of5", BarcodeFormat::ITF, "12345678901231"),
    ] {
        let picture = draw(&barcode(format, message, "iso-8859-1"));
        assert_eq!(picture.notes, [""; 0]);
        let (luma, width, height) = modules(&picture.svg);
        let read = rxing::helpers::detect_in_luma(luma, width, height, Some(kind));
        let read = read.unwrap_or_else(|error| panic!("{format}: {error}"));
        // Readers of Codabar leave out the letters at the ends.
        let read = read.getText();
        assert!(
            message == read || message == format!("A{read}B"),
            "{format}: {read}"
        );
    }
}

#[test]
fn characters_beyond_ascii_survive_in_their_encoding() {
    for (message, encoding) in [
        ("Łódź", "utf-8"),
        ("Zürich", "iso-8859-1"),
        ("Zürich", "UTF-8"),
    ] {
        for (format, kind) in [
            ("PKBarcodeFormatQR", BarcodeFormat::QR_CODE),
            ("PKBarcodeFormatAztec", BarcodeFormat::AZTEC),
            ("PKBarcodeFormatPDF417", BarcodeFormat::PDF_417),
        ] {
            let (luma, width, height) = modules(&draw(&barcode(format, message, encoding)).svg);
            let read = rxing::helpers::detect_in_luma(luma, width, height, Some(kind)).unwrap();
            assert_eq!(read.getText(), message, "{format} {encoding}");
        }
    }
}

#[test]
fn a_barcode_that_is_impossible_is_noted_and_the_next_one_is_drawn() {
    let mut pass = barcode("PKBarcodeFormatEAN13", "no digits", "utf-8");
    let next =
        json!({ "format": "PKBarcodeFormatQR", "message": "next", "messageEncoding": "utf-8" });
    pass["barcodes"].as_array_mut().unwrap().push(next);
    let picture = draw(&pass);
    assert!(
        picture.notes[0].contains("PKBarcodeFormatEAN13"),
        "{:?}",
        picture.notes
    );
    let (luma, width, height) = modules(&picture.svg);
    let read = rxing::helpers::detect_in_luma(luma, width, height, None).unwrap();
    assert_eq!(read.getText(), "next");
    // The encoder of Codabar panics on other characters, and others take long for long messages.
    for (format, message) in [
        ("PKBarcodeFormatCodabar", "ä".to_owned()),
        ("PKBarcodeFormatAztec", "x".repeat(1_000_000)),
        ("PKBarcodeFormatQR", String::new()),
        ("PKBarcodeFormatFuture", "x".to_owned()),
    ] {
        let picture = draw(&barcode(format, &message, "utf-8"));
        assert_eq!(picture.notes.len(), 1, "{format}");
        assert!(!picture.svg.contains("class=\"barcode\""), "{format}");
    }
}

#[test]
fn posters_are_drawn_from_their_tags_and_older_phones_see_the_classic_style() {
    let pass = json!({
        "preferredStyleSchemes": ["semanticBoardingPass", "boardingPass"],
        "semantics": {
            "airlineCode": "EX", "flightNumber": 417,
            "passengerName": { "givenName": "Ada", "familyName": "Lovelace" },
            "departureAirportCode": "BER", "departureCityName": "Berlin",
            "departureLocationTimeZone": "Europe/Berlin", "departureGate": "B12",
            "destinationAirportCode": "LHR", "destinationCityName": "London",
            "destinationLocationTimeZone": "Europe/London",
            "originalBoardingDate": "2036-03-14T09:05:00+01:00",
            "originalDepartureDate": "2036-03-14T09:40:00+01:00",
            "originalArrivalDate": "2036-03-14T10:40:00+00:00",
            "seats": [{ "seatRow": "14", "seatNumber": "C" }],
        },
        "boardingPass": { "transitType": "PKTransitTypeAir", "primaryFields": [field("p", "old")] },
    });
    let drawing = Drawing::new(Side::Front);
    let texts_of = |drawing: &Drawing, pass: &Value| texts(&draw_with(pass, &[], drawing).svg);
    let poster = texts_of(&drawing, &pass);
    for text in [
        "EX 417",
        "BER",
        "LHR",
        "Berlin",
        "9:40 AM",
        "10:40 AM",
        "B12",
        "14C",
        "Ada Lovelace",
    ] {
        find(&poster, text);
    }
    assert!(poster.iter().all(|text| text.text != "old"));
    find(&texts_of(&drawing.clone().classic(true), &pass), "old");
    // A phone falls back if a tag is missing.
    let mut incomplete = pass.clone();
    incomplete["semantics"]
        .as_object_mut()
        .unwrap()
        .remove("flightNumber");
    find(&texts_of(&drawing, &incomplete), "old");

    let ticket = json!({
        "preferredStyleSchemes": ["posterEventTicket"],
        "nfc": {},
        "semantics": {
            "eventName": "Night of Strings", "venueName": "Arena", "venueRegionName": "Berlin", "venueRoom": "Hall",
            "eventStartDate": "2036-05-09T19:30:00+02:00", "seats": [{ "seatRow": "7", "seatNumber": "12" }],
        },
        "eventTicket": {},
    });
    let ticket = texts_of(&drawing, &ticket);
    for text in [
        "Night of Strings",
        "Arena · Hall · Berlin",
        "MAY 9, 2036",
        "7:30 PM",
        "ROW",
        "12",
    ] {
        find(&ticket, text);
    }

    let generic = json!({
        "posterGeneric": { "headerFields": [field("h", "H")], "primaryFields": [field("p", "P")], "footerFields": [field("f", "F")] },
        "generic": { "primaryFields": [field("p", "old")] },
    });
    let poster = texts_of(&drawing, &generic);
    for text in ["H", "P", "F"] {
        find(&poster, text);
    }
    find(&texts_of(&drawing.classic(true), &generic), "old");
}

fn images(svg: &str) -> usize {
    svg.matches("<image ").count()
}

#[test]
fn images_are_embedded_and_broken_ones_are_noted() {
    let pass = json!({ "generic": {} });
    let front = Drawing::new(Side::Front);
    let good = placeholder_icon(100);
    let picture = draw_with(&pass, &[("logo@2x.png", good.clone())], &front);
    assert_eq!((images(&picture.svg), picture.notes.len()), (1, 0));
    // 100 pixels are 50 points at @2x.
    assert!(
        picture.svg.contains("width=\"50\" height=\"50\""),
        "{}",
        picture.svg
    );

    let mut broken = good.clone();
    broken[60] ^= 1;
    let files = [
        ("logo@2x.png", broken),
        ("logo.png", good.clone()),
        ("thumbnail.png", b"GIF89a".to_vec()),
    ];
    let picture = draw_with(&pass, &files, &front);
    assert_eq!(images(&picture.svg), 1);
    let notes = picture.notes.join("\n");
    assert!(
        notes.contains("logo@2x.png") && notes.contains("thumbnail.png"),
        "{notes}"
    );

    // Too large.
    let files = [
        ("logo.png", placeholder_icon(2_900)),
        ("thumbnail.png", [good, vec![0; 1 << 20]].concat()),
    ];
    let picture = draw_with(&pass, &files, &front);
    assert_eq!(
        (images(&picture.svg), picture.notes.len()),
        (0, 2),
        "{:?}",
        picture.notes
    );
}

#[test]
fn an_image_of_the_language_is_taken_if_there_is_no_other() {
    let pass = json!({ "generic": {} });
    let files = [("de.lproj/logo.png", placeholder_icon(40))];
    let drawn = |language: &str| {
        images(&draw_with(&pass, &files, &Drawing::new(Side::Front).language(language)).svg)
    };
    assert_eq!(drawn("de"), 1);
}

#[test]
fn hostile_texts_stay_texts() {
    let hostile =
        "</text><script>alert(1)</script>&\"'<!--]]>\0\u{1b}[31m\u{202e}evil\u{2067}\u{fffe}";
    for style in STYLES {
        let mut pass = full(style);
        for key in ["description", "organizationName", "logoText"] {
            pass[key] = hostile.into();
        }
        let one =
            json!({ "key": "k", "label": hostile, "value": hostile, "attributedValue": hostile });
        for group in [
            "headerFields",
            "primaryFields",
            "secondaryFields",
            "auxiliaryFields",
            "backFields",
        ] {
            pass[style][group] = json!([one, one]);
        }
        pass["barcodes"][0]["altText"] = hostile.into();
        pass["backgroundColor"] = "rgb(0,0,0)\"/><script/>".into();
        let svg = draw(&pass).svg;
        assert!(svg.contains("&lt;script&gt;"), "{style}");
        assert!(
            !svg.contains(['\u{202e}', '\u{2067}', '\u{1b}', '\0', '\u{fffe}']),
            "{style}"
        );
    }
}

#[test]
fn wrong_types_and_missing_keys_are_drawn_without_them() {
    for style in ["storeCard", "boardingPass", "posterGeneric"] {
        for value in [
            json!(null),
            json!(7),
            json!([]),
            json!({}),
            json!("x"),
            json!([[], 1, null, "x", {}]),
        ] {
            let pass = json!({
                style: { "headerFields": value, "primaryFields": value, "secondaryFields": value, "backFields": [{ "value": value }] },
                "barcodes": value, "barcode": value, "description": value, "logoText": value, "semantics": value,
                "backgroundColor": value, "preferredStyleSchemes": value,
            });
            draw(&pass);
        }
    }
    let files = files_with(&json!({ "description": "no style" }), &[]);
    assert!(matches!(
        Drawing::new(Side::Both).draw(&files),
        Err(DrawError::NoStyle)
    ));
    let order = ArchiveBuilder::new(Kind::Order, "{}")
        .build_unsigned()
        .unwrap();
    let order = PassFiles::of_archive(&order).unwrap();
    assert!(matches!(
        Drawing::new(Side::Both).draw(&order),
        Err(DrawError::Order)
    ));
}

/// Counts what is drawn, because a slow picture would keep a page waiting.
#[test]
fn a_pass_with_thousands_of_fields_has_a_small_picture() {
    // The limit of values of pass.json allows no more.
    let fields: Vec<Value> = (0..4_900)
        .map(|number| field(&number.to_string(), "value"))
        .collect();
    let pass =
        json!({ "generic": { "headerFields": fields, "backFields": [], "secondaryFields": [] } });
    assert!(texts(&draw(&pass).svg).len() < 20);
    let pass = json!({ "generic": { "backFields": fields } });
    let picture = draw(&pass);
    assert!(
        picture.notes[0].contains("more fields"),
        "{:?}",
        picture.notes
    );
    assert!(texts(&picture.svg).len() < 400);
    let long = "word ".repeat(80_000);
    let pass = json!({ "generic": { "primaryFields": [field("p", &long)], "backFields": [field("b", &long)] } });
    let picture = draw(&pass);
    assert!(picture.svg.len() < 20_000, "{}", picture.svg.len());
}

#[test]
fn a_voided_pass_has_a_pale_barcode() {
    let mut pass = barcode("PKBarcodeFormatQR", "x", "utf-8");
    assert!(draw(&pass).svg.contains("fill-opacity=\"1\"/></svg>"));
    pass["voided"] = true.into();
    assert!(draw(&pass).svg.contains("fill-opacity=\"0.25\"/></svg>"));
}
