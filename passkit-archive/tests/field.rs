//! Archives that resemble real passes and orders. The tests check which of them phones accept, and
//! which finding each of them gets.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::path::PathBuf;

use passkit_archive::{Archive, Bundle, Level, Report, Rules};

fn file(name: &str) -> Vec<u8> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/field");
    std::fs::read(folder.join(name)).unwrap()
}

/// Returns the findings as (level, code), without the findings that all these archives have.
fn found(bytes: &[u8]) -> Vec<(Level, &'static str)> {
    let findings = Report::of(bytes, Rules::strict()).findings;
    let usual = [
        "root",
        "certificate-plain",
        "certificate-expired",
        "intermediate-expired",
        "icon-scale",
        "no-change-message",
        "key-deprecated",
    ];
    findings
        .iter()
        .map(|finding| (finding.level(), finding.rule().code))
        .filter(|(_, code)| !usual.contains(code))
        .collect()
}

#[test]
fn each_archive_has_its_one_finding() {
    for (name, level, code) in [
        ("a1-dsstore-listed.pkpass", Level::Warning, "macos-file"),
        (
            "a2-comma-after-last-member.pkpass",
            Level::Warning,
            "json-comma",
        ),
        (
            "a4-poster-generic-alone.pkpass",
            Level::Warning,
            "style-new",
        ),
        (
            "a5-macosx-folder-unlisted.pkpass",
            Level::Warning,
            "macos-file",
        ),
        (
            "b01-no-intermediate.pkpass",
            Level::Refused,
            "intermediate-missing",
        ),
        (
            "b03-certificate-extension-names-another-type.pkpass",
            Level::Refused,
            "certificate-type",
        ),
        ("b04-no-signing-time.pkpass", Level::Refused, "signing-time"),
        ("b05-no-icon.pkpass", Level::Refused, "icon-missing"),
        (
            "b06-date-without-colon-in-offset.pkpass",
            Level::Refused,
            "date",
        ),
        ("b09-field-value-null.pkpass", Level::Refused, "type"),
        (
            "b10-barcode-message-is-a-number.pkpass",
            Level::Refused,
            "type",
        ),
        (
            "b12-boarding-pass-without-transit-type.pkpass",
            Level::Refused,
            "transit-type",
        ),
        ("b14-url-ends-with-v1.pkpass", Level::Error, "url-version"),
        (
            "b16-appledouble-listed.pkpass",
            Level::Refused,
            "apple-double",
        ),
        (
            "b17-order-logo-missing.order",
            Level::Refused,
            "logo-missing",
        ),
        ("b20-date-with-zz.pkpass", Level::Refused, "date"),
        ("c1-bundle.pkpasses", Level::Refused, "bundle"),
        ("c2-error-page.pkpass", Level::Refused, "not-zip"),
    ] {
        let bytes = file(name);
        assert_eq!(found(&bytes), [(level, code)], "{name}");
        let taken = Archive::check(&bytes, Rules::strict()).is_ok();
        assert_eq!(taken, level < Level::Refused, "{name}");
    }
}

#[test]
fn a_bundle_is_named_and_opened() {
    let bytes = file("c1-bundle.pkpasses");
    let findings = Report::of(&bytes, Rules::strict()).findings;
    assert!(
        findings
            .to_string()
            .contains("is a bundle of passes (.pkpasses); unzip it")
    );
    let mut bundle = Bundle::open(&bytes).unwrap();
    let passes: Vec<_> = bundle.passes().collect();
    let [(name, pass)] = &passes[..] else {
        panic!("{passes:?}")
    };
    assert_eq!((&**name, found(pass)), ("a.pkpass", Vec::new()));
    assert!(Bundle::open(pass).is_none(), "a pass is not a bundle");
    assert!(Bundle::open(b"{}").is_none());
}
