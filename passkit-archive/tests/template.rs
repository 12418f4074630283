//! Templates, from the folder to the signed pass.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{collections::BTreeMap, fs, path::Path};

use passkit_archive::{
    Archive, ArchiveBuilder, ArchiveFile, Report, Rules, Signer, placeholder_icon,
    template::{Draft, Style, Template, TemplateError},
};
use passkit_server::identifiers::{Kind, TypeIdentifier};
use serde_json::{Value, json};

const TYPE: &str = "pass.com.example.card";
const TEAM: &str = "ABCDE12345";

/// A template in the form that Pass Designer saves, but written by hand.
const DESIGNED: &str = r##"{
  "formatVersion": 1,
  "passTypeIdentifier": "pass.com.example.sample",
  "teamIdentifier": "SAMPLE0000",
  "serialNumber": "SAMPLE",
  "organizationName": "Example",
  "description": "A membership card",
  "backgroundColor": "#fA0",
  "zzz-unknown": [1.50, 12345678901234567890123],
  "preferredStyleSchemes": ["posterEventTicket", "eventTicket"],
  "semantics": { "eventName": "Sample event", "venueName": "Sample venue" },
  "locations": [{ "latitude": 1, "longitude": 2 }],
  "barcodes": [{ "format": "PKBarcodeFormatQR", "message": "SAMPLE", "altText": "SAMPLE", "messageEncoding": "iso-8859-1" }],
  "posterGeneric": { "primaryFields": [{ "_id": "7C3F", "key": "name", "label": "Name", "value": "Sample" }] },
  "generic": {
    "primaryFields": [{ "_id": "7C40", "key": "name", "value": "Sample", "attributedValue": "<a href='x'>Sample</a>", "semantics": { "eventName": "S" } }],
    "auxiliaryFields": [{ "key": "seat", "value": "1A" }]
  },
  "userInfo": { "_id": "mine" }
}"##;

fn designed(folder: &Path) -> Template {
    for (name, content) in [
        ("pass.json", DESIGNED.as_bytes().to_vec()),
        ("icon@2x.png", placeholder_icon(76)),
        ("thumbnail@2x.png", placeholder_icon(90)),
        ("tooling.json", b"{}".to_vec()),
        ("passkit.toml", b"".to_vec()),
        (".DS_Store", b"x".to_vec()),
        ("de.lproj/pass.strings", b"\"Name\" = \"Name\";".to_vec()),
    ] {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    Template::open(folder).unwrap()
}

fn issued(draft: Draft<'_>) -> Draft<'_> {
    draft
        .set("/passTypeIdentifier", TYPE)
        .set("/teamIdentifier", TEAM)
        .serial("A-1")
}

/// The text of `pass.json` in an archive, and the manifest.
fn description(builder: &ArchiveBuilder) -> (String, BTreeMap<String, Value>) {
    let bytes = builder.build_unsigned().unwrap();
    let mut zip = zip::ZipArchive::new(std::io::Cursor::new(bytes)).unwrap();
    let mut text = String::new();
    std::io::Read::read_to_string(&mut zip.by_name("pass.json").unwrap(), &mut text).unwrap();
    let manifest = serde_json::from_slice(&builder.manifest()).unwrap();
    (text, manifest)
}

#[test]
fn what_pass_designer_adds_stays_out_and_everything_else_stays() {
    let folder = tempfile::tempdir().unwrap();
    let template = designed(folder.path());
    let pass = issued(template.fill())
        .field("name", "Ada \"L\"")
        .barcode("M-1")
        .set("/semantics/eventName", "Opening")
        .image("thumbnail", placeholder_icon(30))
        .string("de", "Name", "Mitglied")
        .finish()
        .unwrap();
    let (text, manifest) = description(&pass);
    assert_eq!(
        text,
        r#"{"formatVersion":1,"passTypeIdentifier":"pass.com.example.card","teamIdentifier":"ABCDE12345","serialNumber":"A-1","organizationName":"Example","description":"A membership card","backgroundColor":"rgb(255, 170, 0)","zzz-unknown":[1.50,12345678901234567890123],"preferredStyleSchemes":["posterEventTicket","eventTicket"],"barcodes":[{"format":"PKBarcodeFormatQR","message":"M-1","altText":"M-1","messageEncoding":"iso-8859-1"}],"posterGeneric":{"primaryFields":[{"key":"name","label":"Name","value":"Ada \"L\""}]},"generic":{"primaryFields":[{"key":"name","value":"Ada \"L\""}],"auxiliaryFields":[{"key":"seat","value":"1A"}]},"userInfo":{"_id":"mine"},"semantics":{"eventName":"Opening"}}"#
    );
    let names: Vec<&str> = manifest.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "de.lproj/pass.strings",
            "icon.png",
            "icon@2x.png",
            "pass.json",
            "thumbnail.png"
        ]
    );
    assert_eq!(
        template.samples(),
        [
            "/semantics/eventName",
            "/semantics/venueName",
            "/locations",
            "/generic/primaryFields/0/semantics"
        ]
    );
    let signer = Signer::throwaway(&TypeIdentifier::new(TYPE).unwrap(), TEAM).unwrap();
    let report = Report::of(&pass.build_signed(&signer).unwrap(), Rules::strict());
    assert_eq!(
        report.archive.unwrap().id.to_string(),
        format!("{TYPE} A-1")
    );
}

#[test]
fn a_finished_pass_keeps_everything_when_a_value_changes() {
    let folder = tempfile::tempdir().unwrap();
    let template = designed(folder.path());
    assert_eq!(template.recipe(), Some(&b""[..]));
    let draft = issued(template.fill()).set("/semantics/eventName", "Opening");
    let mut same = draft.clone();
    let manifest = same.manifest().unwrap();
    let pass = draft.finish().unwrap();
    assert_eq!(manifest, pass.manifest());
    assert_eq!(same.finish().unwrap().manifest(), manifest);
    let bytes = pass.build_unsigned().unwrap();
    let finished = Template::read_finished(&bytes).unwrap();
    assert_eq!((finished.samples().len(), finished.recipe()), (0, None));
    let again = finished.fill().finish().unwrap();
    assert_eq!(again.manifest(), manifest, "nothing changed");
    let voided = finished.fill().set("/voided", true).finish().unwrap();
    let (text, _) = description(&voided);
    let expected = description(&pass).0.replace(
        r#""semantics":{"eventName":"Opening"}}"#,
        r#""semantics":{"eventName":"Opening"},"voided":true}"#,
    );
    assert_eq!(text, expected);

    // An image is removed in all sizes and languages.
    let removed = issued(template.fill())
        .remove_image("thumbnail")
        .finish()
        .unwrap();
    let (_, names) = description(&removed);
    assert!(!names.contains_key("thumbnail@2x.png") && names.contains_key("icon@2x.png"));

    // A file is read without the others.
    let path = folder.path().join("a.pkpass");
    let signer = Signer::throwaway(&TypeIdentifier::new(TYPE).unwrap(), TEAM).unwrap();
    let with_token = issued(template.fill())
        .set("/webServiceURL", "https://example.com")
        .set("/authenticationToken", "0123456789abcdef");
    let signed = with_token.finish().unwrap().build_signed(&signer).unwrap();
    for (content, is_signed) in [(&bytes, false), (&signed, true)] {
        fs::write(&path, content).unwrap();
        let mut file = ArchiveFile::open(&path).unwrap().unwrap();
        assert_eq!(file.is_signed(), is_signed);
        assert_eq!(file.manifest().unwrap() == manifest, !is_signed);
        let found = file.identify().unwrap();
        assert_eq!(
            (found.id.to_string(), found.voided),
            (format!("{TYPE} A-1"), false)
        );
        assert_eq!(found.auth_token.is_some(), is_signed);
    }
    fs::write(&path, &signed[..signed.len() - 1]).unwrap();
    assert!(ArchiveFile::open(&path).unwrap().is_none());
    assert!(ArchiveFile::open(folder.path().join("none")).is_err());
}

#[test]
fn a_signed_pass_is_a_template_too() {
    let folder = tempfile::tempdir().unwrap();
    let signer = Signer::throwaway(&TypeIdentifier::new(TYPE).unwrap(), TEAM).unwrap();
    let first = issued(designed(folder.path()).fill()).finish().unwrap();
    let file = folder.path().join("first.pkpass");
    fs::write(&file, first.build_signed(&signer).unwrap()).unwrap();
    let template = Template::open(&file).unwrap();
    let second = template
        .fill()
        .serial("A-2")
        .remove_field("seat")
        .finish()
        .unwrap();
    let bytes = second.build_signed(&signer).unwrap();
    assert_eq!(
        Archive::check(&bytes, Rules::strict())
            .unwrap()
            .id
            .serial
            .as_str(),
        "A-2"
    );
    assert!(!description(&second).0.contains("seat"));
    // If the same pass is made again, its bytes are the same.
    let again = template
        .fill()
        .serial("A-2")
        .remove_field("seat")
        .finish()
        .unwrap();
    assert_eq!(
        second.build_unsigned().unwrap(),
        again.build_unsigned().unwrap()
    );
}

#[test]
fn errors_name_the_json_pointer() {
    let folder = tempfile::tempdir().unwrap();
    let template = designed(folder.path());
    let draft = || issued(template.fill());
    let broken = |draft: Draft<'_>| draft.finish().unwrap_err().to_string();
    for (draft, line) in [
        (
            draft().set("/generic/x/y/0", 1).set("/generic/x/y/5", 1),
            "/generic/x/y/5: leads nowhere",
        ),
        (draft().field("naem", 1), "naem: is not the key of a field"),
        (
            draft().image("thumbnail", b"GIF89a".to_vec()),
            "thumbnail: is not a PNG file",
        ),
        (
            draft().image("../x", placeholder_icon(3)),
            "../x: is not the name of an image",
        ),
        (
            draft().string("../de", "a", "b"),
            "../de: is not a language",
        ),
        (draft().set("/expirationDate", "tomorrow"), "pass.json:1:"),
        (draft().set("/serialNumber", 5), "serialNumber"),
    ] {
        let message = broken(draft);
        assert!(message.contains(line), "{message}");
    }
    let png = placeholder_icon(9);
    let fault = |png: &[u8]| broken(draft().image("strip", png));
    assert!(fault(&png[..png.len() - 3]).contains("is cut off"));
    let mut changed = png.clone();
    changed[30] ^= 1;
    assert!(fault(&changed).contains("is a damaged PNG file"));
    let mut huge = png;
    huge[8] = 0xff;
    assert!(fault(&huge).contains("is cut off"));
}

#[test]
fn both_spellings_of_a_tag_are_written() {
    let template = Template::new(Style::BoardingPass);
    let pass = issued(template.fill())
        .set("/organizationName", "Example")
        .set("/description", "A flight")
        .set("/semantics/departureLocationTimeZone", "Europe/Berlin")
        .set("/semantics/destinationAirportTimeZone", "Europe/Paris")
        .set("/semantics/loungePlaceIDs", json!(["L1"]))
        .finish()
        .unwrap();
    let written: Value = serde_json::from_str(&description(&pass).0).unwrap();
    assert_eq!(
        written["semantics"],
        json!({
            "departureLocationTimeZone": "Europe/Berlin", "departureAirportTimeZone": "Europe/Berlin",
            "destinationLocationTimeZone": "Europe/Paris", "destinationAirportTimeZone": "Europe/Paris",
            "loungePlaceIDs": ["L1"], "airlineLoungePlaceID": "L1",
        })
    );
}

#[test]
fn every_style_is_a_start() {
    for style in [
        Style::BoardingPass,
        Style::Coupon,
        Style::EventTicket,
        Style::Generic,
        Style::PosterGeneric,
        Style::StoreCard,
    ] {
        let template = Template::new(style);
        let draft = issued(template.fill())
            .set("/organizationName", "Example")
            .set("/description", "A pass");
        let _ = draft
            .finish()
            .unwrap_or_else(|error| panic!("{style:?}: {error}"));
    }
    assert_eq!(Template::new(Style::Order).kind(), Kind::Order);
}

#[test]
fn hostile_templates_are_refused() {
    let refused = |template: Result<Template, TemplateError>| {
        let error = template.unwrap_err();
        let source = std::error::Error::source(&error).map(ToString::to_string);
        format!("{error}: {}", source.unwrap_or_default())
    };
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    assert!(refused(Template::open(folder.path())).contains("neither pass.json nor order.json"));
    fs::write(at("pass.json"), "{\"a\":1").unwrap();
    assert!(refused(Template::open(folder.path())).contains("pass.json:1:6: is not valid JSON"));
    fs::write(at("pass.json"), "\u{feff}{\"a\":1,}").unwrap();
    Template::open(folder.path()).unwrap();
    fs::write(at("pass.json"), "[".repeat(100)).unwrap();
    assert!(refused(Template::open(folder.path())).contains("nests deeper"));
    fs::write(at("pass.json"), "{}").unwrap();
    fs::create_dir_all(at("a/b/c/d/e/f/g/h/i/j")).unwrap();
    assert!(refused(Template::open(folder.path())).contains("nested too deep"));
    fs::remove_dir_all(at("a")).unwrap();
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("/etc/passwd", at("logo.png")).unwrap();
        assert!(refused(Template::open(folder.path())).contains("is a link"));
        fs::remove_file(at("logo.png")).unwrap();
    }
    fs::File::create(at("large.png"))
        .unwrap()
        .set_len(65 << 20)
        .unwrap();
    assert!(refused(Template::open(folder.path())).contains("is too large"));

    let zip = |names: &[&str]| {
        names
            .iter()
            .fold(ArchiveBuilder::new(Kind::Pass, "{}"), |zip, name| {
                zip.file(*name, "x")
            })
            .build_unsigned()
            .unwrap()
    };
    assert!(refused(Template::read(&zip(&["../x.png"]))).contains("\"..\""));
    assert!(refused(Template::read(&zip(&["a.png", "A.png"]))).contains("twice"));
    let bomb = ArchiveBuilder::new(Kind::Pass, "{}").file("a.txt", vec![0; 65 << 20]);
    let bomb = bomb.build_unsigned().unwrap();
    assert!(bomb.len() < 1 << 20);
    assert!(refused(Template::read(&bomb)).contains("larger than"));
}
