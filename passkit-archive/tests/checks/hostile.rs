//! Descriptions that are made to cost as much as possible. The tests count findings and their
//! bytes, and measure no time.

use passkit_archive::{
    Findings, MAX_JSON_BYTES, MAX_JSON_VALUES, MAX_STRINGS, MAX_TEXTS_BYTES, Report, Rules,
};
use serde_json::{Value, json};

use crate::samples::{Draft, png};

/// No archive has more findings than this.
const MAX_FINDINGS: usize = 101;

/// The limit for the bytes of all messages of an archive together.
const MAX_SHOWN: usize = MAX_FINDINGS * 1_000;

fn findings(draft: &Draft) -> Findings {
    let archive = draft.builder().build_unsigned().unwrap();
    let findings = Report::of(&archive, Rules::development()).findings;
    assert!(findings.len() <= MAX_FINDINGS);
    let shown = findings.to_string();
    assert!(shown.len() <= MAX_SHOWN, "{} bytes", shown.len());
    assert_eq!(shown.lines().count(), findings.len());
    findings
}

fn has(findings: &Findings, code: &str) -> bool {
    findings.iter().any(|one| one.rule().code == code)
}

#[test]
fn many_fields_and_values_are_bounded() {
    let mut draft = Draft::ticket();
    let field = |number: usize| json!({"key": number.to_string(), "value": ""});
    draft.json["eventTicket"]["backFields"] = (0..6_000).map(field).collect();
    assert!(findings(&draft).is_empty());
    // Each of these values has a fault.
    let wrong = |_| json!({"a": 1, "key": "a", "value": null});
    draft.json["eventTicket"]["backFields"] = (0..4_500).map(wrong).collect();
    assert!(has(&findings(&draft), "more"));
    draft.json["eventTicket"]["backFields"] = vec![json!({}); 9_000].into();
    assert!(has(&findings(&draft), "more"));
    draft.json["userInfo"] = vec![0; MAX_JSON_VALUES].into();
    assert!(has(&findings(&draft), "json-limit"));
}

#[test]
fn many_and_long_unknown_keys_are_bounded() {
    let mut draft = Draft::ticket();
    for number in 0..15_000 {
        draft.json[format!("backgroundColour{number}")] = Value::Null;
    }
    assert!(has(&findings(&draft), "key-unknown"));
    let mut draft = Draft::ticket();
    let long = "webServiceURLs".repeat(MAX_JSON_BYTES / 20);
    draft.json[&long] = json!({ "a": 1 });
    draft.json["eventTicket"][&long] = Value::Null;
    let text = draft.json.to_string();
    assert!(text.len() > MAX_JSON_BYTES);
    draft.json["eventTicket"]
        .as_object_mut()
        .unwrap()
        .remove(&long);
    assert!(has(&findings(&draft), "key-unknown"));
}

#[test]
fn long_texts_are_bounded() {
    let long = "<b>%@{{".repeat(MAX_JSON_BYTES / 50);
    for (key, value) in [
        ("backgroundColor", json!(long)),
        ("expirationDate", json!(long)),
        ("preferredStyleSchemes", json!([long])),
        ("nfc", json!({"message": long, "encryptionPublicKey": long})),
        ("webServiceURL", json!(long)),
        (
            "barcodes",
            json!([{"format": long, "message": long, "messageEncoding": long}]),
        ),
        ("featuredActions", json!([{"type": long}])),
        ("beacons", json!([{"proximityUUID": long}])),
        (
            "generic",
            json!({"backFields": [{
                "key": long, "value": long, "label": long, "changeMessage": long,
                "attributedValue": long, "dateStyle": long,
            }]}),
        ),
    ] {
        let mut draft = Draft::ticket();
        draft.json[key] = value;
        assert!(!findings(&draft).is_empty(), "{key}");
    }
}

#[test]
fn many_translations_are_bounded() {
    let mut draft = Draft::ticket();
    // Together, the files have more bytes and more texts than the checks read.
    let line = |number: usize| format!("\"{number}\"=\"{}\";\n", "x".repeat(20));
    let text: String = (0..6_000).map(line).collect();
    assert!(text.len() * 10 > MAX_TEXTS_BYTES && 6_000 * 10 > MAX_STRINGS);
    for number in 0..10 {
        draft.file(&format!("a{number}-x.lproj/pass.strings"), text.clone());
        draft.file(&format!("en-{number}.lproj/pass.strings"), text.clone());
    }
    let found = findings(&draft);
    assert!(has(&found, "strings-unreadable") && has(&found, "strings-unused"));
    let mut draft = Draft::ticket();
    for number in 0..900 {
        draft.file(&format!("x{number}.lproj/icon.png"), png(1, 1));
    }
    assert!(has(&findings(&draft), "more"));
}

#[test]
fn many_languages_of_many_fields_are_bounded() {
    let mut draft = Draft::ticket();
    // One language has nearly all texts, and each other language has a single long text.
    let text: String = (0..19_000).map(|number| format!("t{number};")).collect();
    draft.file("aa.lproj/pass.strings", text);
    let long = "x".repeat(900);
    for number in 0..900 {
        draft.file(
            &format!("en-{number}.lproj/pass.strings"),
            format!("m=\"{long}%@\";"),
        );
    }
    let field = |number: usize| {
        let key = number.to_string();
        json!({"key": key, "value": "", "label": "t1", "changeMessage": "m"})
    };
    draft.json["eventTicket"]["backFields"] = (0..3_900).map(field).collect();
    let found = findings(&draft);
    assert!(has(&found, "strings-differ") && !has(&found, "change-message"));
}

#[test]
fn nested_values_are_bounded() {
    let mut value = json!({});
    for _ in 0..60 {
        value = json!({"semantics": value, "backFields": [{"key": "a", "value": "b"}]});
    }
    let mut draft = Draft::ticket();
    draft.json["semantics"] = value.clone();
    draft.json["upcomingPassInformation"] = json!([value.clone()]);
    draft.json["posterOfNextYear"] = value;
    assert!(!findings(&draft).is_empty());
}
