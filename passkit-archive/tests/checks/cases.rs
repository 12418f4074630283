//! For each rule, archives that break this rule and no other.

use std::collections::BTreeSet;

use passkit_archive::{
    Area,
    Level::{self, Error, Note, Refused, Warning},
    MAX_ARCHIVE_BYTES, Purpose, RULES, Report, Rules,
};
use serde_json::{Value, json};

use crate::{
    authority::Authority,
    openssl::{Chain, EXPIRED},
    samples::{Draft, KEY, codes, png, strings},
    zips::{unzip, zip},
};

/// An archive, and the only rules that it breaks. The level is the level of the first rule.
struct Case(Level, &'static [&'static str], Vec<u8>);

/// Changes a good event ticket before it is signed.
fn ticket(level: Level, code: &'static [&'static str], change: impl FnOnce(&mut Draft)) -> Case {
    draft(level, code, Draft::ticket(), change)
}

fn draft(
    level: Level,
    code: &'static [&'static str],
    mut draft: Draft,
    change: impl FnOnce(&mut Draft),
) -> Case {
    change(&mut draft);
    Case(level, code, draft.sign())
}

/// Changes `pass.json` of a good event ticket.
fn json(level: Level, code: &'static [&'static str], change: impl FnOnce(&mut Value)) -> Case {
    ticket(level, code, |draft| change(&mut draft.json))
}

/// Sets one key in `pass.json` of a good event ticket.
fn set(level: Level, code: &'static [&'static str], key: &str, value: Value) -> Case {
    json(level, code, |json| json[key] = value)
}

/// Changes the files of a good event ticket after it was signed.
fn unsealed(
    level: Level,
    code: &'static [&'static str],
    change: impl FnOnce(&mut Vec<(String, Vec<u8>)>),
) -> Case {
    let mut files = unzip(&Draft::ticket().sign());
    change(&mut files);
    Case(level, code, zip(&files))
}

/// Adds a field to the front of a good event ticket.
fn field(level: Level, code: &'static [&'static str], field: Value) -> Case {
    json(level, code, |json| {
        json["eventTicket"]["secondaryFields"] = json!([field]);
    })
}

/// Replaces the barcode of a good event ticket.
fn barcode(level: Level, code: &'static [&'static str], format: &str, message: &str) -> Case {
    let encoding = "iso-8859-1";
    json(level, code, |json| {
        let format = format!("PKBarcodeFormat{format}");
        json["barcodes"] =
            json!([{"format": format, "message": message, "messageEncoding": encoding}]);
        if !["QR", "Unknown", "Code128"]
            .iter()
            .any(|older| format.ends_with(older))
        {
            let older = "PKBarcodeFormatQR";
            json["barcodes"]
                .as_array_mut()
                .unwrap()
                .push(json!({"format": older, "message": "A-1", "messageEncoding": encoding}));
        }
    })
}

fn fixture(level: Level, code: &'static [&'static str], bytes: &[u8]) -> Case {
    Case(level, code, bytes.to_vec())
}

/// Replaces the manifest of a good event ticket, and signs it.
fn manifest(level: Level, code: &'static [&'static str], change: impl FnOnce(&mut Value)) -> Case {
    let mut files = unzip(&Draft::ticket().sign());
    let place = |files: &[(String, Vec<u8>)], name: &str| {
        files.iter().position(|file| file.0 == name).unwrap()
    };
    let (listed, signed) = (place(&files, "manifest.json"), place(&files, "signature"));
    let mut value = serde_json::from_slice(&files[listed].1).unwrap();
    change(&mut value);
    files[listed].1 = value.to_string().into_bytes();
    let type_id = crate::samples::TYPE.parse().unwrap();
    let signer = passkit_archive::Signer::throwaway(&type_id, crate::samples::TEAM).unwrap();
    files[signed].1 = signer.sign(Purpose::Manifest, &files[listed].1).unwrap();
    Case(level, code, zip(&files))
}

fn zip_cases() -> Vec<Case> {
    let good = Draft::ticket().sign();
    let in_folder = |files: &mut Vec<(String, Vec<u8>)>| {
        files
            .iter_mut()
            .for_each(|file| file.0.insert_str(0, "Ticket/"));
    };
    let replaced = |from: &[u8], to: &[u8]| {
        let mut files = unzip(&good);
        files.push((String::from_utf8(from.to_vec()).unwrap(), Vec::new()));
        let mut archive = zip(&files);
        while let Some(at) = archive
            .windows(from.len())
            .position(|window| window == from)
        {
            archive[at..at + to.len()].copy_from_slice(to);
        }
        archive
    };
    let mut links = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default();
    for (name, content) in unzip(&good) {
        use std::io::Write as _;
        if name == "icon@3x.png" {
            links.add_symlink(name, "icon.png", options).unwrap();
        } else {
            links.start_file(name, options).unwrap();
            links.write_all(&content).unwrap();
        }
    }
    let links = links.finish().unwrap().into_inner();
    let mut encrypted = good.clone();
    for (mark, at) in [(&b"PK\x03\x04"[..], 6), (b"PK\x01\x02", 8)] {
        let name = b"icon@3x.png";
        let places: Vec<usize> = (0..encrypted.len() - 60)
            .filter(|at| encrypted[*at..].starts_with(mark))
            .filter(|at| {
                encrypted[at + 30..at + 30 + 11] == *name
                    || encrypted[at + 46..at + 46 + 11] == *name
            })
            .collect();
        places
            .into_iter()
            .for_each(|place| encrypted[place + at] |= 1);
    }
    vec![
        fixture(Refused, &["not-zip"], b"{}"),
        fixture(
            Refused,
            &["bundle"],
            include_bytes!("../fixtures/field/c1-bundle.pkpasses"),
        ),
        Case(Refused, &["zip-structure"], [b"junk", &good[..]].concat()),
        Case(Warning, &["zip-tail"], [&good[..], b"\n"].concat()),
        Case(Refused, &["too-large"], vec![0; MAX_ARCHIVE_BYTES + 1]),
        unsealed(Refused, &["no-description"], in_folder),
        Case(Refused, &["file-name"], replaced(b"##/a", b"../a")),
        Case(Refused, &["file-name"], replaced(b"#abs", b"/abs")),
        // The link is not read, so the pass also lacks the icon of one scale.
        Case(Refused, &["file-name", "icon-scale"], links),
        Case(
            Refused,
            &["file-name-twice"],
            replaced(b"1con.png", b"icon.png"),
        ),
        ticket(Refused, &["file-name-twice"], |draft| {
            draft.file("Pass.json", "{}")
        }),
        Case(Refused, &["file-unreadable", "icon-scale"], encrypted),
        ticket(Warning, &["macos-file"], |draft| {
            draft.file(".DS_Store", "a")
        }),
        unsealed(Warning, &["macos-file"], |files| {
            files.push(("__MACOSX/._icon.png".into(), b"a".to_vec()));
        }),
        ticket(Refused, &["apple-double"], |draft| {
            draft.file("._icon.png", "a")
        }),
    ]
}

fn json_cases() -> Vec<Case> {
    let text = serde_json::to_string_pretty(&Draft::ticket().json).unwrap();
    let of = |level, code, text: String| {
        ticket(level, code, |draft| draft.text = Some(text.into_bytes()))
    };
    let utf16 = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    vec![
        of(Refused, &["json"], text.replace(':', "")),
        of(Refused, &["json-limit"], "[".repeat(100)),
        of(Warning, &["json-comma"], text.replacen("\n}", ",\n}", 1)),
        of(
            Warning,
            &["json-byte-order-mark"],
            format!("\u{feff}{text}"),
        ),
        ticket(Warning, &["json-encoding"], |draft| {
            draft.text = Some(utf16)
        }),
        of(
            Error,
            &["json-key-twice"],
            text.replacen('{', "{\"description\": \"\",", 1),
        ),
    ]
}

#[test]
fn an_image_that_is_too_large_has_one_finding_about_its_size() {
    let mut draft = Draft::ticket();
    draft.file("icon@2x.png", png(100, 100));
    let findings = Report::of(&draft.sign(), Rules::strict()).findings;
    let about_size = |finding: &&passkit_archive::Finding| finding.rule().code == "image-size";
    assert_eq!(findings.iter().filter(about_size).count(), 1, "{findings}");
}

#[test]
fn only_misspelled_keys_of_an_order_are_unknown() {
    let said = |key: &str| {
        let mut draft = Draft::order();
        draft.json[key] = json!([]);
        let findings = Report::of(&draft.sign(), Rules::strict()).findings;
        let unknown = findings.iter().find(|one| one.rule().code == "key-unknown");
        unknown.map(ToString::to_string)
    };
    for (wrong, right) in [("lineItem", "lineItems"), ("fullfilments", "fulfillments")] {
        let said = said(wrong).unwrap();
        assert!(said.contains(&format!("did you mean {right}?")), "{said}");
    }
    // The table does not have all keys of orders.
    for other in ["orderNumber", "customer", "returnInfo", "pay", "a"] {
        assert_eq!(said(other), None);
    }
}

fn seal_cases() -> Vec<Case> {
    let digest = || Value::from("0".repeat(40));
    let without = |name: &'static str| {
        move |files: &mut Vec<(String, Vec<u8>)>| files.retain(|file| file.0 != name)
    };
    let upper = |manifest: &mut Value| {
        let listed = manifest["icon.png"].as_str().unwrap().to_uppercase();
        manifest["icon.png"] = listed.into();
    };
    let authority = Authority::new();
    let chain = |level, code, chain: Chain| Case(level, code, chain.sign(&authority));
    vec![
        unsealed(Refused, &["manifest-missing"], without("manifest.json")),
        manifest(Refused, &["manifest-value"], |manifest| {
            manifest["icon.png"] = 1.into()
        }),
        manifest(Warning, &["manifest-case"], upper),
        manifest(Refused, &["digest"], |manifest| {
            manifest["icon.png"] = digest()
        }),
        unsealed(Refused, &["file-not-listed"], |files| {
            files.push(("a".into(), Vec::new()))
        }),
        manifest(Refused, &["file-missing"], |manifest| {
            manifest["a"] = digest()
        }),
        unsealed(Refused, &["signature-missing"], without("signature")),
        unsealed(Refused, &["signature"], |files| {
            let signature = files.iter_mut().find(|file| file.0 == "signature").unwrap();
            *signature.1.last_mut().unwrap() ^= 1;
        }),
        chain(
            Note,
            &["certificate-plain"],
            Chain {
                has_extension: false,
                ..Chain::default()
            },
        ),
        chain(
            Warning,
            &["root"],
            Chain {
                root_name: "Somebody",
                ..Chain::default()
            },
        ),
        chain(
            Warning,
            &["intermediate-other"],
            Chain {
                options: &["-certfile", "G3.pem"],
                ..Chain::default()
            },
        ),
        chain(
            Warning,
            &["intermediate-ends"],
            Chain {
                intermediate_days: &["-days", "80"],
                ..Chain::default()
            },
        ),
        chain(
            Warning,
            &["certificate-ends"],
            Chain {
                leaf_days: &["-days", "80"],
                ..Chain::default()
            },
        ),
        chain(
            Refused,
            &["certificate-days", "certificate-expired"],
            Chain {
                leaf_days: EXPIRED,
                ..Chain::default()
            },
        ),
        chain(
            Refused,
            &["certificate"],
            Chain {
                is_forged: true,
                ..Chain::default()
            },
        ),
        chain(
            Warning,
            &["intermediate-expired"],
            Chain {
                intermediate_days: EXPIRED,
                ..Chain::default()
            },
        ),
        chain(
            Refused,
            &["intermediate-missing"],
            Chain {
                options: &[],
                ..Chain::default()
            },
        ),
        chain(
            Refused,
            &["signing-time"],
            Chain {
                options: &["-certfile", "intermediate.pem", "-noattr"],
                ..Chain::default()
            },
        ),
        set(
            Refused,
            &["certificate-type"],
            "passTypeIdentifier",
            json!("pass.com.example.other"),
        ),
        set(
            Refused,
            &["certificate-team"],
            "teamIdentifier",
            json!("ZZZZZ99999"),
        ),
        draft(
            Refused,
            &["certificate-nfc"],
            Draft::ticket().with_nfc(),
            |draft| draft.allows_nfc = false,
        ),
        draft(Refused, &["certificate-nfc"], Draft::rewards(), |draft| {
            draft.allows_nfc = false
        }),
    ]
}

fn key_cases() -> Vec<Case> {
    let mut cases: Vec<Case> = [
        "formatVersion",
        "teamIdentifier",
        "organizationName",
        "description",
        "passTypeIdentifier",
        "serialNumber",
    ]
    .into_iter()
    .map(|key| ticket(Refused, &["key-missing"], |draft| draft.remove(key)))
    .collect();
    cases.extend([
        set(Refused, &["value"], "formatVersion", json!(2)),
        set(Refused, &["type"], "logoText", json!(1)),
        set(
            Refused,
            &["type"],
            "locations",
            json!([{"latitude": "1", "longitude": 2}]),
        ),
        set(
            Refused,
            &["type"],
            "associatedStoreIdentifiers",
            json!(["1"]),
        ),
        json(Refused, &["type"], |json| {
            json["barcodes"][0]["message"] = 1.into()
        }),
        field(Refused, &["type"], json!({"key": "a", "value": null})),
        field(
            Refused,
            &["type"],
            json!({"key": "a", "value": "b", "label": 1}),
        ),
        set(
            Refused,
            &["type"],
            "semantics",
            json!({"eventStartDateInfo": "soon"}),
        ),
        field(Error, &["type-ignored"], json!({"key": "a", "value": true})),
        json(Error, &["type-ignored"], |json| {
            json["barcodes"] = json["barcodes"][0].clone()
        }),
        set(
            Warning,
            &["key-unknown"],
            "forgroundColor",
            json!("rgb(1, 2, 3)"),
        ),
        field(
            Warning,
            &["key-unknown"],
            json!({"key": "a", "value": "b", "lable": "c"}),
        ),
        set(
            Warning,
            &["key-unknown"],
            "semantics",
            json!({"seats": [{"number": "1"}]}),
        ),
        set(
            Warning,
            &["key-ignored"],
            "transferURL",
            json!("https://example.com"),
        ),
        draft(Warning, &["key-ignored"], Draft::of("coupon"), |draft| {
            draft.json["coupon"]["transitType"] = "PKTransitTypeAir".into();
        }),
        draft(Warning, &["key-ignored"], Draft::poster_ticket(), |draft| {
            draft.json["preferredStyleSchemes"] = json!(["posterEventTicket"]);
            draft.json["logoText"] = "Example".into();
        }),
        draft(Warning, &["key-ignored"], Draft::of("generic"), |draft| {
            draft.json["generic"]["footerFields"] = json!([{"key": "a", "value": "b"}]);
        }),
        json(Note, &["key-deprecated"], |json| {
            json["barcode"] = json["barcodes"][0].clone();
            json.as_object_mut().unwrap().remove("barcodes");
        }),
        set(
            Note,
            &["key-deprecated"],
            "relevantDate",
            json!("2027-01-31T12:00Z"),
        ),
        draft(Refused, &["logo-missing"], Draft::order(), |draft| {
            draft.files.clear()
        }),
        draft(Error, &["date-ignored"], Draft::order(), |draft| {
            draft.json["createdAt"] = "soon".into()
        }),
        draft(Error, &["value-ignored"], Draft::order(), |draft| {
            draft.json["payment"] = json!({"total": {"amount": 1, "currency": "euro"}});
        }),
        field(
            Warning,
            &["designer-id"],
            json!({"key": "a", "value": "b", "_id": "c"}),
        ),
        ticket(Warning, &["tooling-file"], |draft| {
            draft.file("tooling.json", "{}")
        }),
        field(
            Warning,
            &["sample-text"],
            json!({"key": "a", "value": "Placeholder"}),
        ),
    ]);
    cases
}

fn field_cases() -> Vec<Case> {
    let value = |more: Value, value: Value| {
        let mut field = json!({"key": "a", "value": value});
        for (key, value) in more.as_object().unwrap() {
            field[key] = value.clone();
        }
        field
    };
    let fields = |count: usize| -> Value {
        (0..count)
            .map(|number| json!({"key": format!("k{number}"), "value": "a"}))
            .collect()
    };
    let many = |style: &str, group: &'static str, count: usize| {
        draft(Warning, &["fields-many"], Draft::of(style), |draft| {
            draft.json[style][group] = fields(count);
            // The group that was replaced may have contained the only change message, so a back
            // field gets one.
            draft.json[style]["backFields"] =
                json!([{"key": "b", "value": "c", "changeMessage": "%@"}]);
        })
    };
    let rename = |draft: &mut Draft, name: &str| {
        let style = draft.json["eventTicket"].take();
        draft.remove("eventTicket");
        draft.json[name] = style;
    };
    vec![
        ticket(Refused, &["no-change-message", "style-missing"], |draft| {
            draft.remove("eventTicket")
        }),
        ticket(Warning, &["no-change-message", "style-unknown"], |draft| {
            rename(draft, "posterOfNextYear")
        }),
        ticket(Warning, &["style-unknown"], |draft| {
            draft.json["posterOfNextYear"] = json!({"heroFields": []})
        }),
        ticket(Warning, &["style-new"], |draft| {
            rename(draft, "posterGeneric")
        }),
        set(Warning, &["style-twice"], "coupon", json!({})),
        draft(
            Refused,
            &["transit-type"],
            Draft::of("boardingPass"),
            |draft| {
                draft.json["boardingPass"]["transitType"] = "Air".into();
            },
        ),
        draft(
            Refused,
            &["transit-type"],
            Draft::of("boardingPass"),
            |draft| {
                draft.json["boardingPass"]
                    .as_object_mut()
                    .unwrap()
                    .remove("transitType");
            },
        ),
        field(Refused, &["field"], json!({"key": "a"})),
        field(Refused, &["field"], json!({"value": "a"})),
        field(
            Refused,
            &["field-twice"],
            json!({"key": "name", "value": "a"}),
        ),
        field(
            Error,
            &["field-format"],
            value(json!({"dateStyle": "PKDateStyleShort"}), json!(1)),
        ),
        field(
            Error,
            &["field-format"],
            value(json!({"numberStyle": "PKNumberStyleDecimal"}), json!("1")),
        ),
        field(
            Error,
            &["field-format"],
            value(json!({"currencyCode": "EUR"}), json!("1")),
        ),
        field(
            Error,
            &["field-format"],
            value(
                json!({"currencyCode": "EUR", "timeStyle": "PKDateStyleShort"}),
                json!(1),
            ),
        ),
        field(
            Error,
            &["value-ignored"],
            value(json!({"numberStyle": "PKNumberStyleRoman"}), json!(1)),
        ),
        field(
            Error,
            &["value-ignored"],
            value(json!({"currencyCode": "euro"}), json!(1)),
        ),
        field(
            Error,
            &["date-ignored"],
            value(json!({"dateStyle": "PKDateStyleShort"}), json!("today")),
        ),
        field(
            Warning,
            &["change-message"],
            value(json!({"changeMessage": "changed"}), json!("b")),
        ),
        field(
            Warning,
            &["change-message"],
            value(json!({"changeMessage": "%@ %@"}), json!("b")),
        ),
        draft(Warning, &["change-message"], Draft::translated(), |draft| {
            draft.file(
                "de.lproj/pass.strings",
                strings("").replace("%@\";", "neu\";"),
            );
        }),
        ticket(Note, &["no-change-message"], |draft| {
            draft.json["eventTicket"]["primaryFields"] = json!([]);
        }),
        json(Warning, &["text-alignment"], |json| {
            json["eventTicket"]["primaryFields"][0]["textAlignment"] = "PKTextAlignmentLeft".into();
        }),
        json(Warning, &["text-alignment"], |json| {
            json["eventTicket"]["backFields"][0]["textAlignment"] = "PKTextAlignmentLeft".into();
        }),
        field(
            Warning,
            &["attributed-value"],
            value(json!({"attributedValue": "<b>c</b>"}), json!("b")),
        ),
        many("boardingPass", "primaryFields", 3),
        many("boardingPass", "auxiliaryFields", 6),
        many("coupon", "secondaryFields", 5),
        many("eventTicket", "headerFields", 4),
        many("eventTicket", "auxiliaryFields", 5),
        // This pass has a square barcode, so there is room for fewer fields.
        many("generic", "auxiliaryFields", 5),
        many("storeCard", "primaryFields", 2),
    ]
}

fn barcode_cases() -> Vec<Case> {
    vec![
        json(Error, &["barcode"], |json| {
            json["barcodes"][0]
                .as_object_mut()
                .unwrap()
                .remove("messageEncoding");
        }),
        barcode(Warning, &["barcode-format"], "Unknown", "1"),
        json(Warning, &["barcode-new"], |json| {
            json["barcodes"][0]["format"] = "PKBarcodeFormatCode39".into();
        }),
        barcode(Error, &["barcode-message"], "QR", "Łódź"),
        json(Warning, &["barcode-encoding"], |json| {
            json["barcodes"][0]["messageEncoding"] = "iso-latin".into();
        }),
        barcode(Warning, &["barcode-content"], "EAN13", "4006381333932"),
        barcode(Warning, &["barcode-content"], "EAN13", "40063813339"),
        barcode(Warning, &["barcode-content"], "I2of5", "123"),
        barcode(Warning, &["barcode-content"], "Codabar", "12E"),
        barcode(Warning, &["barcode-content"], "Code39", "abc"),
        barcode(Warning, &["barcode-content"], "Code128", "ä"),
    ]
}

fn appearance_cases() -> Vec<Case> {
    let file = |code, name: &'static str, content: Vec<u8>| {
        ticket(Warning, code, |draft| draft.file(name, content))
    };
    let large = [png(38, 38), vec![0; 1_000_001]].concat();
    vec![
        ticket(Refused, &["icon-missing"], |draft| draft.files.clear()),
        ticket(Warning, &["icon-scale"], |draft| {
            draft.files.retain(|file| file.0 != "icon@3x.png")
        }),
        file(&["image-format"], "logo.png", b"a".to_vec()),
        file(&["image-format"], "logo.jpg", b"a".to_vec()),
        file(&["image-size"], "logo.png", png(161, 50)),
        file(&["image-size"], "icon@2x.png", png(38, 38)),
        file(&["image-large"], "icon.png", large),
        file(&["image-unused"], "footer.png", png(10, 10)),
        file(&["image-unused"], "banner.png", png(10, 10)),
        ticket(Warning, &["image-conflict"], |draft| {
            draft.file("strip.png", png(10, 10));
            draft.file("thumbnail.png", png(10, 10));
        }),
        file(&["image-twice"], "en.lproj/icon.png", png(38, 38)),
        set(Refused, &["color"], "stripColor", json!("red")),
        set(Refused, &["color"], "backgroundColor", json!("rgb(1, 2)")),
        set(
            Warning,
            &["contrast"],
            "labelColor",
            json!("rgb(30, 40, 70)"),
        ),
        set(
            Warning,
            &["contrast"],
            "foregroundColor",
            json!("rgb(30, 40, 70)"),
        ),
    ]
}

fn translation_cases() -> Vec<Case> {
    let file = |code, name: &'static str, content: Vec<u8>| {
        draft(Warning, code, Draft::translated(), |draft| {
            draft.file(name, content)
        })
    };
    let more = || strings("") + "\"Gate\" = \"Gate\";";
    vec![
        file(
            &["language-name"],
            "English.lproj/pass.strings",
            strings("").into(),
        ),
        file(
            &["strings-unreadable"],
            "fr.lproj/pass.strings",
            b"\"a\" = b\xff".to_vec(),
        ),
        file(
            &["strings-unreadable"],
            "fr.lproj/pass.strings",
            b"\"a\" \"b\";".to_vec(),
        ),
        draft(Warning, &["strings-differ"], Draft::translated(), |draft| {
            draft.json["eventTicket"]["backFields"][0]["label"] = "Gate".into();
            draft.file("en.lproj/pass.strings", more().replace("Terms", "Gate"));
            draft.file(
                "de.lproj/pass.strings",
                strings("").replace("\"Terms\" = \"Terms\";\n", ""),
            );
        }),
        draft(Warning, &["strings-unused"], Draft::translated(), |draft| {
            draft.file("en.lproj/pass.strings", more());
            draft.file("de.lproj/pass.strings", more());
        }),
        draft(
            Warning,
            &["strings-missing"],
            Draft::translated(),
            |draft| {
                draft.json["eventTicket"]["secondaryFields"] =
                    json!([{"key": "gate", "label": "Gate", "value": "7"}]);
            },
        ),
    ]
}

fn use_cases() -> Vec<Case> {
    let mut cases: Vec<Case> = [
        "2026-01-31T12:00:00+0000",
        "2026-01-31T12:00:00-7:00",
        "2026-01-31T12:00:00ZZ",
        "2026-01-31T12:00:00",
    ]
    .into_iter()
    .map(|date| set(Refused, &["date"], "expirationDate", json!(date)))
    .collect();
    let nfc = |change: fn(&mut Value)| {
        draft(Error, &["nfc"], Draft::ticket().with_nfc(), |draft| {
            change(&mut draft.json["nfc"])
        })
    };
    let rewards =
        |change: fn(&mut Draft)| draft(Error, &["personalization"], Draft::rewards(), change);
    let sign_up = |text: &str| {
        let text = text.to_owned();
        draft(Error, &["personalization"], Draft::rewards(), |draft| {
            draft.file("personalization.json", text)
        })
    };
    let places =
        |count: usize| -> Value { vec![json!({"latitude": 1, "longitude": 2}); count].into() };
    let beacon = |beacon: Value| set(Warning, &["beacon"], "beacons", json!([beacon]));
    let uuid = "E2C56DB5-DFFB-48D2-B060-D0F5A71096E0";
    let dates = |dates: Value| set(Error, &["relevant-dates"], "relevantDates", json!([dates]));
    let action =
        |kind: &str| json!({"identifier": kind, "type": kind, "url": "https://example.com"});
    let scheme = |draft: Draft, change: fn(&mut Draft)| {
        self::draft(Warning, &["style-scheme"], draft, change)
    };
    cases.extend([
        set(
            Refused,
            &["date"],
            "relevantDates",
            json!([{"date": "2026-01-31"}]),
        ),
        set(
            Error,
            &["date-ignored"],
            "semantics",
            json!({"eventStartDate": "2026-01-31"}),
        ),
        set(
            Warning,
            &["pass-expired"],
            "expirationDate",
            json!("2020-01-31T12:00Z"),
        ),
        set(Warning, &["pass-voided"], "voided", json!(true)),
        dates(json!({})),
        dates(json!({"startDate": "2027-01-31T12:00Z"})),
        dates(json!({"startDate": "2027-01-31T12:00Z", "endDate": "2027-01-31T12:00+00:01"})),
        dates(json!({"date": "2027-01-31T12:00Z", "endDate": "2027-01-31T12:00Z"})),
        set(Warning, &["locations-many"], "locations", places(11)),
        set(
            Warning,
            &["location"],
            "locations",
            json!([{"latitude": 91, "longitude": 2}]),
        ),
        set(
            Warning,
            &["location"],
            "locations",
            json!([{"latitude": 1}]),
        ),
        beacon(json!({"proximityUUID": "E2C56DB5"})),
        beacon(json!({"proximityUUID": uuid, "major": 65536})),
        beacon(json!({"proximityUUID": uuid, "minor": -1})),
        nfc(|nfc| nfc["message"] = "ä".repeat(33).into()),
        nfc(|nfc| nfc["encryptionPublicKey"] = KEY.replace('A', "B").into()),
        nfc(|nfc| *nfc = json!({"encryptionPublicKey": KEY})),
        scheme(Draft::poster_ticket(), |draft| {
            drop(
                draft.json["semantics"]
                    .as_object_mut()
                    .unwrap()
                    .remove("venueRoom"),
            )
        }),
        scheme(Draft::poster_ticket(), |draft| draft.remove("nfc")),
        scheme(Draft::poster_ticket(), |draft| {
            draft.json["semantics"]["eventType"] = "PKEventTypeSports".into()
        }),
        scheme(Draft::semantic_boarding_pass(), |draft| {
            drop(
                draft.json["semantics"]
                    .as_object_mut()
                    .unwrap()
                    .remove("passengerName"),
            )
        }),
        scheme(Draft::ticket(), |draft| {
            draft.json["preferredStyleSchemes"] = json!(["posterOfNextYear"])
        }),
        set(
            Warning,
            &["semantics-type"],
            "semantics",
            json!({"flightNumber": "12"}),
        ),
        set(
            Warning,
            &["semantics-type"],
            "semantics",
            json!({"passengerName": "Maria"}),
        ),
        set(
            Warning,
            &["semantics-value"],
            "semantics",
            json!({"eventType": "Concert"}),
        ),
        set(
            Warning,
            &["semantics-value"],
            "semantics",
            json!({"venueLocation": {"latitude": 1}}),
        ),
        set(
            Warning,
            &["featured-actions"],
            "featuredActions",
            json!([action("call"), action("shop"), action("order")]),
        ),
        set(
            Warning,
            &["featured-actions"],
            "featuredActions",
            json!([action("dance")]),
        ),
        draft(
            Warning,
            &["featured-actions"],
            Draft::poster_ticket(),
            |draft| {
                draft.json["featuredActions"] = json!([action("call")]);
            },
        ),
        set(
            Warning,
            &["app-launch-url"],
            "appLaunchURL",
            json!("example://a"),
        ),
        rewards(|draft| draft.remove("nfc")),
        rewards(|draft| {
            draft
                .files
                .retain(|file| !file.0.starts_with("personalizationLogo"))
        }),
        sign_up("{\"requiredPersonalizationFields\": [\"Name\"], \"description\": \"a\"}"),
        sign_up("{\"requiredPersonalizationFields\": [], \"description\": \"a\"}"),
        sign_up("{\"requiredPersonalizationFields\": [\"PKPassPersonalizationFieldName\"]}"),
        sign_up("{"),
    ]);
    cases
}

fn update_cases() -> Vec<Case> {
    let url = |level, code, url: &str| set(level, code, "webServiceURL", json!(url));
    let token = |level, code, token: &str| set(level, code, "authenticationToken", json!(token));
    let mut many = Draft::ticket();
    for number in 0..200 {
        many.json[format!("unknown{number}")] = 1.into();
    }
    vec![
        token(Refused, &["token"], "0123456789abcde"),
        ticket(Refused, &["token"], |draft| {
            draft.remove("authenticationToken")
        }),
        token(Error, &["token-unusable"], " 0123456789abcdef "),
        ticket(Warning, &["no-url"], |draft| draft.remove("webServiceURL")),
        ticket(Warning, &["no-web-service"], |draft| {
            draft.remove("webServiceURL");
            draft.remove("authenticationToken");
        }),
        url(Error, &["url"], "wallet.example.com"),
        url(Warning, &["url-http"], "http://wallet.example.com"),
        url(Warning, &["url-user"], "https://me@wallet.example.com"),
        url(Warning, &["url-query"], "https://wallet.example.com/?a"),
        url(Warning, &["url-query"], "https://wallet.example.com/#a"),
        url(Warning, &["url-script"], "https://wallet.example.com/a.php"),
        url(Error, &["url-version"], "https://wallet.example.com/v1"),
        url(Error, &["url-file"], "https://wallet.example.com/a.pkpass"),
        Case(Warning, &["key-unknown", "more"], many.sign()),
    ]
}

fn all() -> Vec<Case> {
    [
        zip_cases(),
        json_cases(),
        seal_cases(),
        key_cases(),
        field_cases(),
        barcode_cases(),
        appearance_cases(),
        translation_cases(),
        use_cases(),
        update_cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[test]
fn every_rule_has_an_archive_that_breaks_it_alone() {
    let mut broken: BTreeSet<&str> = BTreeSet::new();
    let mut wrong = Vec::new();
    for Case(level, expected, archive) in all() {
        let found = codes(&archive);
        let findings = Report::of(&archive, Rules::strict()).findings;
        // The certificates of all these archives are for tests, and that is a finding too.
        let expected_without_root: Vec<&str> = expected
            .iter()
            .copied()
            .filter(|code| *code != "root")
            .collect();
        let worst = findings
            .iter()
            .filter(|one| expected.contains(&one.rule().code));
        let worst = worst.map(passkit_archive::Finding::level).max();
        if found != expected_without_root || worst != Some(level) {
            wrong.push(format!(
                "expected {level} {expected:?}, found {found:?}:\n{findings}"
            ));
        }
        broken.extend(expected);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    // The tests of the program break the rules of a running web service.
    let untested: Vec<&str> = RULES
        .iter()
        .filter(|rule| rule.area != Area::Online && !broken.contains(&rule.code))
        .map(|rule| rule.code)
        .collect();
    assert_eq!(untested, [""; 0], "no archive breaks these rules");
}
