//! Tests with complete archives: a good archive of each form, and broken archives with one mistake
//! each.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::io::{Cursor, Write as _};

#[allow(unreachable_pub, reason = "other tests use it too")]
mod zips;

use passkit_archive::{
    Archive, ArchiveBuilder, Findings, Level, MAX_ARCHIVE_BYTES, MAX_ENTRIES, MAX_SIGNATURE_BYTES,
    MAX_UNPACKED_BYTES, Purpose, Report, Rules, Signer, check_token_signature, placeholder_icon,
};
use passkit_server::identifiers::{Kind, TypeIdentifier};
use serde_json::{Value, json};
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};
use zips::{unzip, zip};

const TEAM: &str = "ABCDE12345";

fn pass() -> Value {
    json!({
        "formatVersion": 1,
        "passTypeIdentifier": "pass.com.example.ticket",
        "serialNumber": "A/1 ö",
        "teamIdentifier": TEAM,
        "organizationName": "Example",
        "description": "A ticket",
        "webServiceURL": "https://example.com/wallet/",
        "authenticationToken": "0123456789abcdef",
        "eventTicket": {},
    })
}

fn order() -> Value {
    json!({
        "schemaVersion": 1,
        "orderTypeIdentifier": "order.com.example.shop",
        "orderIdentifier": "1042",
        "orderType": "ecommerce",
        "orderManagementURL": "https://example.com/orders/1042",
        "merchant": {
            "displayName": "Example Shop",
            "merchantIdentifier": "com.example.shop",
            "url": "https://example.com",
        },
        "status": "open",
        "createdAt": "2026-01-31T12:00:00Z",
        "updatedAt": "2026-01-31T12:00:00+01:00",
        "webServiceURL": "https://example.com/wallet",
        "authenticationToken": "0123456789abcdef",
    })
}

fn signer(type_id: &str) -> Signer {
    Signer::throwaway(&TypeIdentifier::new(type_id).unwrap(), TEAM).unwrap()
}

fn builder(description: &Value) -> ArchiveBuilder {
    let kind = if description.get("schemaVersion").is_some() {
        Kind::Order
    } else {
        Kind::Pass
    };
    // The JSON is indented, so that each key has its own line.
    let description = serde_json::to_string_pretty(description).unwrap();
    ArchiveBuilder::new(kind, description)
        .file("icon.png", placeholder_icon(29))
        .file("en.lproj/pass.strings", "")
}

fn sign(builder: &ArchiveBuilder, type_id: &str) -> Vec<u8> {
    builder.build_signed(&signer(type_id)).unwrap()
}

fn signed_pass() -> Vec<u8> {
    sign(&builder(&pass()), "pass.com.example.ticket")
}

/// Makes a good archive, and then changes its files.
fn zip_with(change: impl FnOnce(&mut Vec<(String, Vec<u8>)>)) -> Vec<u8> {
    let mut files = unzip(&signed_pass());
    change(&mut files);
    zip(&files)
}

/// Returns the findings, without the warning that the certificates don't lead to Apple.
fn findings(archive: &[u8], rules: Rules) -> Findings {
    let findings = Report::of(archive, rules).findings;
    assert_eq!(findings.to_string().lines().count(), findings.len());
    findings
}

fn is_usual(code: &str) -> bool {
    matches!(
        code,
        "root" | "certificate-plain" | "no-change-message" | "icon-scale"
    )
}

/// Returns the errors of an archive, each as "level code: message".
fn problems(archive: &[u8], rules: Rules) -> Vec<String> {
    let findings = findings(archive, rules).at_least(Level::Error);
    findings.iter().map(ToString::to_string).collect()
}

/// Asserts that there is exactly one finding of this level or a worse level, and that it has this
/// code. Returns its message.
#[track_caller]
fn the_finding(archive: &[u8], level: Level, code: &str) -> String {
    let findings = findings(archive, Rules::strict());
    let found: Vec<_> = findings
        .iter()
        .filter(|finding| !is_usual(finding.rule().code) && finding.level() >= level)
        .collect();
    let [finding] = &found[..] else {
        panic!("one finding expected: {found:#?}")
    };
    assert_eq!(
        (finding.rule().code, finding.level()),
        (code, level),
        "{finding}"
    );
    let refused = Archive::check(archive, Rules::strict()).is_err();
    assert_eq!(refused, level == Level::Refused, "{finding}");
    finding.to_string()
}

/// Asserts that there is one error, whose message starts with `start` and contains `part`.
#[track_caller]
fn assert_problem(archive: &[u8], start: &str, part: &str) {
    let problems = problems(archive, Rules::strict());
    let [problem] = &problems[..] else {
        panic!("one problem expected: {problems:#?}")
    };
    assert!(
        problem.starts_with(start) && problem.contains(part),
        "{problem}"
    );
}

#[track_caller]
fn assert_pass_problem(change: impl FnOnce(&mut Value), start: &str, part: &str) {
    let mut pass = pass();
    change(&mut pass);
    assert_problem(
        &sign(&builder(&pass), "pass.com.example.ticket"),
        start,
        part,
    );
}

#[track_caller]
fn assert_order_problem(change: impl FnOnce(&mut Value), start: &str, part: &str) {
    let mut order = order();
    change(&mut order);
    assert_problem(
        &sign(&builder(&order), "order.com.example.shop"),
        start,
        part,
    );
}

fn remove(object: &mut Value, key: &str) {
    object.as_object_mut().unwrap().remove(key).unwrap();
}

mod good {
    use super::*;

    #[test]
    fn a_pass_is_read() {
        let archive = Archive::check(&signed_pass(), Rules::strict()).unwrap();
        assert_eq!(archive.kind(), Kind::Pass);
        assert_eq!(archive.id.type_id.as_str(), "pass.com.example.ticket");
        assert_eq!(archive.id.serial.as_str(), "A/1 ö");
        assert_eq!(archive.team_identifier.as_deref(), Some(TEAM));
        assert_eq!(archive.organization_name.as_deref(), Some("Example"));
        assert_eq!(
            archive.auth_token.as_ref().unwrap().as_str(),
            "0123456789abcdef"
        );
        assert_eq!(
            archive.web_service_url.as_deref(),
            Some("https://example.com/wallet/")
        );
        assert!(archive.signed && !archive.voided);
        assert!(!format!("{archive:?} {:?}", builder(&pass())).contains("0123456789abcdef"));
    }

    #[test]
    fn an_order_is_read() {
        let archive = Archive::check(
            &sign(&builder(&order()), "order.com.example.shop"),
            Rules::strict(),
        )
        .unwrap();
        assert_eq!(archive.kind(), Kind::Order);
        assert_eq!(archive.id.to_string(), "order.com.example.shop 1042");
        assert_eq!(
            (
                archive.team_identifier,
                archive.organization_name.as_deref()
            ),
            (None, Some("Example Shop"))
        );
    }

    #[test]
    fn a_voided_pass_is_voided() {
        let mut pass = pass();
        pass["voided"] = true.into();
        assert!(
            Archive::check(
                &sign(&builder(&pass), "pass.com.example.ticket"),
                Rules::strict()
            )
            .unwrap()
            .voided
        );
    }

    #[test]
    fn directory_entries_are_tolerated() {
        let archive = zip_with(|files| files.push(("en.lproj/".into(), Vec::new())));
        Archive::check(&archive, Rules::strict()).unwrap();
    }

    #[test]
    fn signatures_by_openssl_verify_in_all_forms() {
        for archive in [
            &include_bytes!("fixtures/rsa-sha1.pkpass")[..],
            include_bytes!("fixtures/rsa-sha1-indefinite.pkpass"),
            include_bytes!("fixtures/rsa-sha512-key-identifier.pkpass"),
            include_bytes!("fixtures/p384-sha384.order"),
        ] {
            let archive = Archive::check(archive, Rules::strict()).unwrap();
            assert!(archive.signed && archive.id.serial.as_str() == "fixture-1");
        }
        // Phones refuse a signature that does not contain the signing time.
        let without = include_bytes!("fixtures/rsa-sha256-no-attributes.pkpass");
        the_finding(without, Level::Refused, "signing-time");
    }

    #[test]
    fn the_digest_is_of_the_content_alone() {
        let digest = |archive: &[u8]| {
            Archive::check(archive, Rules::development())
                .unwrap()
                .content_digest
        };
        let first = signed_pass();
        assert_eq!(digest(&first), digest(&signed_pass()), "signed again");
        assert_eq!(
            digest(&first),
            digest(&zip_with(|files| files.reverse())),
            "zipped again"
        );
        assert_eq!(
            digest(&first),
            digest(&builder(&pass()).build_unsigned().unwrap()),
            "not signed"
        );
        let other = |name: &str, content: &str| {
            digest(
                &builder(&pass())
                    .file(name, content)
                    .build_unsigned()
                    .unwrap(),
            )
        };
        assert_ne!(digest(&first), other("a", ""), "with one more file");
        assert_ne!(other("a", "b"), other("b", "b"), "with another name");
        assert_ne!(other("a", "b"), other("a", "c"), "with other content");
    }
}

mod unsigned {
    use super::*;

    #[test]
    fn is_good_for_development_only() {
        let archive = builder(&pass()).build_unsigned().unwrap();
        assert!(
            !Archive::check(&archive, Rules::development())
                .unwrap()
                .signed
        );
        assert_problem(
            &archive,
            "the archive: has no signature",
            "sign manifest.json",
        );
    }

    #[test]
    fn may_lack_the_manifest_too() {
        let archive = zip(&[
            ("pass.json", pass().to_string().as_bytes()),
            ("icon.png", b""),
        ]);
        assert!(
            !Archive::check(&archive, Rules::development())
                .unwrap()
                .signed
        );
        let strict = problems(&archive, Rules::strict());
        assert!(
            strict[0].contains("has no manifest.json") && strict[1].contains("has no signature")
        );
    }

    #[test]
    fn may_lack_the_team_while_there_is_no_signature() {
        let mut pass = pass();
        remove(&mut pass, "teamIdentifier");
        let archive = builder(&pass).build_unsigned().unwrap();
        assert_eq!(
            Archive::check(&archive, Rules::development())
                .unwrap()
                .team_identifier,
            None
        );
        assert!(
            problems(&archive, Rules::strict())[0]
                .starts_with("pass.json: lacks teamIdentifier; add it")
        );
    }

    #[test]
    fn must_still_be_right_in_its_parts() {
        let changed = |change: fn(&mut Vec<(String, Vec<u8>)>)| {
            problems(&zip_with(change), Rules::development())
        };
        let [problem] = &changed(|files| find(files, "icon.png").push(0))[..] else {
            panic!()
        };
        assert!(
            problem.starts_with("icon.png: its content does not match"),
            "{problem}"
        );
        let [problem] = &changed(|files| find(files, "signature").push(0))[..] else {
            panic!()
        };
        assert!(problem.starts_with("signature: "), "{problem}");
        let [problem] = &changed(|files| files.retain(|(name, _)| name != "manifest.json"))[..]
        else {
            panic!()
        };
        assert!(
            problem.starts_with("the archive: has no manifest.json"),
            "{problem}"
        );
    }
}

fn find<'a>(files: &'a mut [(String, Vec<u8>)], name: &str) -> &'a mut Vec<u8> {
    &mut files.iter_mut().find(|file| file.0 == name).unwrap().1
}

mod zip_archive {
    use super::*;

    #[test]
    fn is_cut_off() {
        let archive = signed_pass();
        for length in [0, 10, archive.len() / 2, archive.len() - 1] {
            assert_problem(
                &archive[..length],
                "the archive: is ",
                if length < 4 { "empty" } else { "cut off" },
            );
        }
    }

    #[test]
    fn is_damaged() {
        // The files are stored uncompressed, because decompression would notice a changed bit.
        let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
        let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
        for (name, content) in unzip(&signed_pass()) {
            archive.start_file(name, stored).unwrap();
            archive.write_all(&content).unwrap();
        }
        let mut archive = archive.finish().unwrap().into_inner();
        let at = archive
            .windows(4)
            .position(|window| window == b"IDAT")
            .unwrap();
        archive[at] ^= 1;
        assert_problem(&archive, "icon.png: is damaged", "zip it again");
    }

    #[test]
    fn is_too_large() {
        assert_problem(
            &vec![0; MAX_ARCHIVE_BYTES + 1],
            "the archive: has 15728641 bytes",
            "smaller images",
        );
    }

    #[test]
    fn has_too_many_entries() {
        let archive = zip_with(|files| {
            files.extend((0..MAX_ENTRIES).map(|number| (format!("{number}"), Vec::new())));
        });
        assert_problem(&archive, "the archive: has 1005 entries", "1000");
    }

    #[test]
    fn is_a_bomb() {
        let mut bomb = ZipWriter::new(Cursor::new(Vec::new()));
        bomb.start_file("pass.json", SimpleFileOptions::default())
            .unwrap();
        bomb.write_all(pass().to_string().as_bytes()).unwrap();
        bomb.start_file("0", SimpleFileOptions::default()).unwrap();
        bomb.write_all(&vec![0; MAX_UNPACKED_BYTES / 8]).unwrap();
        for copy in 1..9 {
            bomb.deep_copy_file("0", &copy.to_string()).unwrap();
        }
        let archive = bomb.finish().unwrap().into_inner();
        assert!(archive.len() < 1 << 20);
        assert_problem(&archive, "the archive: unpacks to more than", "67108864");
    }

    #[test]
    fn declares_less_than_it_holds() {
        let archive = zip_with(|files| find(files, "icon.png").extend([0; 10_000]));
        let size = u32::try_from(placeholder_icon(29).len() + 10_000)
            .unwrap()
            .to_le_bytes();
        let mut lying = archive.clone();
        for at in archive
            .windows(4)
            .enumerate()
            .filter(|(_, window)| *window == size)
            .map(|(at, _)| at)
        {
            lying[at..at + 4].copy_from_slice(&10_u32.to_le_bytes());
        }
        assert_ne!(archive, lying);
        assert_problem(&lying, "icon.png: is damaged", "zip it again");
    }

    #[test]
    fn has_a_large_signature() {
        let archive =
            zip_with(|files| *find(files, "signature") = vec![0; MAX_SIGNATURE_BYTES + 1]);
        assert_problem(&archive, "signature: is larger than the 65536 bytes", "");
    }

    #[test]
    fn has_odd_names() {
        for (name, start, part) in [
            ("/icon.png", "/icon.png: has an absolute name", "relative"),
            ("../icon.png", "../icon.png: ", "\"..\""),
            ("en.lproj\\a", r"en.lproj\a: has a backslash", "/"),
            ("a\nb", r"a\nb: has a control character", "rename"),
        ] {
            // No zip writer accepts some of these names. The test therefore writes another name of
            // the same length, and replaces it afterwards.
            let stand_in = "#".repeat(name.len());
            let mut archive = zip_with(|files| files.push((stand_in.clone(), Vec::new())));
            while let Some(at) = archive
                .windows(name.len())
                .position(|window| window == stand_in.as_bytes())
            {
                archive[at..at + name.len()].copy_from_slice(name.as_bytes());
            }
            assert_problem(&archive, start, part);
        }
    }

    #[test]
    fn has_a_name_twice() {
        let mut archive = zip_with(|files| files.push(("1con.png".into(), b"another".to_vec())));
        while let Some(at) = archive.windows(8).position(|window| window == b"1con.png") {
            archive[at] = b'i';
        }
        assert_problem(&archive, "icon.png: is in the archive twice", "remove one");
    }

    #[test]
    fn has_a_link() {
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        zip.start_file("pass.json", SimpleFileOptions::default())
            .unwrap();
        zip.write_all(pass().to_string().as_bytes()).unwrap();
        zip.add_symlink("icon.png", "/etc/passwd", SimpleFileOptions::default())
            .unwrap();
        let archive = zip.finish().unwrap().into_inner();
        let [problem] = &problems(&archive, Rules::development())[..] else {
            panic!()
        };
        assert!(
            problem.starts_with("icon.png: is a symbolic link"),
            "{problem}"
        );
    }

    #[test]
    fn is_encrypted_or_compressed_in_an_odd_way() {
        let text = pass().to_string();
        let good = zip(&[("pass.json", text.as_bytes()), ("icon.png", b"")]);
        let first_in_directory = good
            .windows(4)
            .position(|window| window == b"PK\x01\x02")
            .unwrap();
        let changed = |(local, listed): (usize, usize), byte: u8| {
            let mut archive = good.clone();
            archive[local] |= byte;
            archive[first_in_directory + listed] |= byte;
            match &problems(&archive, Rules::development())[..] {
                [problem] => problem.clone(),
                problems => panic!("{problems:#?}"),
            }
        };
        let encrypted = changed((6, 8), 1);
        assert!(
            encrypted.starts_with("pass.json: is encrypted"),
            "{encrypted}"
        );
        let odd = changed((8, 10), 12);
        assert!(
            odd.starts_with("pass.json: is compressed in a way"),
            "{odd}"
        );
    }

    #[test]
    fn has_its_files_in_a_folder() {
        let archive = zip_with(|files| {
            files
                .iter_mut()
                .for_each(|(name, _)| name.insert_str(0, "Ticket.pass/"))
        });
        assert_problem(
            &archive,
            "the archive: has pass.json in the folder Ticket.pass",
            "zip the files",
        );
    }

    #[test]
    fn is_neither_pass_nor_order_or_both() {
        assert_problem(
            &zip(&[("a.txt", b"a")]),
            "the archive: has neither pass.json nor order.json",
            "",
        );
        assert_problem(
            &zip(&[("pass.json", b"{}"), ("order.json", b"{}")]),
            "the archive: has both pass.json and order.json",
            "remove one",
        );
    }
}

mod description {
    use super::*;

    #[track_caller]
    fn assert_text_problem(text: &[u8], start: &str, part: &str) {
        assert_problem(
            &sign(&of_text(text), "pass.com.example.ticket"),
            start,
            part,
        );
    }

    fn of_text(text: &[u8]) -> ArchiveBuilder {
        ArchiveBuilder::new(Kind::Pass, text).file("icon.png", placeholder_icon(29))
    }

    #[test]
    fn is_not_json() {
        let text = serde_json::to_string_pretty(&pass()).unwrap();
        assert_text_problem(b"\xff\xfe{\0}", "pass.json: is damaged UTF-16", "UTF-8");
        assert_text_problem(b"{\n\xff}", "pass.json:2:1: is not UTF-8", "UTF-8");
        assert_text_problem(b"[]", "pass.json:1:1: ", "expected a JSON object");
        let twice = text.replacen('{', "{\"description\": \"\",", 1);
        assert_text_problem(twice.as_bytes(), "pass.json:", "description occurs twice");
    }

    #[test]
    fn of_a_pass_lacks_a_key() {
        for key in [
            "formatVersion",
            "passTypeIdentifier",
            "serialNumber",
            "teamIdentifier",
            "organizationName",
            "description",
        ] {
            assert_pass_problem(
                |pass| remove(pass, key),
                &format!("pass.json: lacks {key}; add it"),
                "",
            );
        }
        assert_pass_problem(
            |pass| remove(pass, "eventTicket"),
            "pass.json: has no style",
            "storeCard",
        );
    }

    #[test]
    fn of_a_pass_has_a_wrong_value() {
        type Change = fn(&mut Value);
        let cases: [(Change, &str, &str); 9] = [
            (
                |pass| pass["formatVersion"] = 2.into(),
                "pass.json:5:3: formatVersion is 2",
                "the number 1",
            ),
            (
                |pass| pass["formatVersion"] = "1".into(),
                "pass.json:5:3: formatVersion is a string",
                "number 1",
            ),
            (
                |pass| pass["serialNumber"] = 7.into(),
                "pass.json:8:3: serialNumber is a number",
                "a string",
            ),
            (
                |pass| pass["serialNumber"] = "".into(),
                "pass.json:8:3: serialNumber cannot be used",
                "empty",
            ),
            (
                |pass| pass["organizationName"] = Value::Null,
                "pass.json:6:3: organizationName is null",
                "string",
            ),
            (
                |pass| pass["passTypeIdentifier"] = "com.example".into(),
                "pass.json:7:3: passTypeIdentifier cannot be used",
                "starts with neither",
            ),
            (
                |pass| pass["passTypeIdentifier"] = "order.com.example".into(),
                "pass.json:7:3: passTypeIdentifier must start with \"pass.\"",
                "",
            ),
            (
                |pass| pass["eventTicket"] = json!([]),
                "pass.json:4:3: eventTicket is an array",
                "an object",
            ),
            (
                |pass| pass["voided"] = "no".into(),
                "pass.json:10:3: voided is a string",
                "true or false",
            ),
        ];
        for (change, start, part) in cases {
            assert_pass_problem(change, start, part);
        }
    }

    #[test]
    fn does_not_give_away_its_token() {
        let mut pass = pass();
        pass["authenticationToken"] = "0123456789abcde".into();
        let problems = problems(
            &builder(&pass).build_unsigned().unwrap(),
            Rules::development(),
        );
        let [problem] = &problems[..] else {
            panic!("{problems:?}")
        };
        assert!(
            problem.contains("shorter than 16") && !problem.contains("0123"),
            "{problem}"
        );
    }

    #[test]
    fn of_an_order_lacks_a_key() {
        for key in [
            "schemaVersion",
            "orderTypeIdentifier",
            "orderIdentifier",
            "orderType",
            "orderManagementURL",
            "merchant",
            "status",
            "createdAt",
            "updatedAt",
        ] {
            let mut order = order();
            remove(&mut order, key);
            let builder = ArchiveBuilder::new(Kind::Order, order.to_string());
            assert_problem(
                &sign(&builder, "order.com.example.shop"),
                &format!("order.json: lacks {key}; add it"),
                "",
            );
        }
        for key in ["displayName", "merchantIdentifier", "url"] {
            assert_order_problem(
                |order| remove(&mut order["merchant"], key),
                "order.json:4:3: merchant lacks",
                key,
            );
        }
    }

    #[test]
    fn of_an_order_has_a_wrong_value() {
        type Change = fn(&mut Value);
        let cases: [(Change, &str, &str); 8] = [
            (
                |order| order["schemaVersion"] = 2.into(),
                "order.json:",
                "schemaVersion is 2",
            ),
            (
                |order| order["orderType"] = "b2b".into(),
                "order.json:",
                "orderType is \"b2b\"; it must be ecommerce",
            ),
            (
                |order| order["status"] = "lost".into(),
                "order.json:",
                "open or completed or cancelled",
            ),
            (
                |order| order["createdAt"] = "yesterday".into(),
                "order.json:3:3: createdAt is \"yesterday\"",
                "write it as",
            ),
            (
                |order| order["payment"] = json!({"total": {"amount": 1, "currency": "euro"}}),
                "order.json:16:7: payment.total.currency is \"euro\"",
                "three letters",
            ),
            (
                |order| order["fulfillments"] = json!([{"shippedAt": "2026-01-31"}]),
                "order.json:",
                "fulfillments[0].shippedAt is \"2026-01-31\"",
            ),
            (
                |order| order["merchant"]["url"] = 1.into(),
                "order.json:7:5: merchant.url is a number",
                "",
            ),
            (
                |order| order["orderTypeIdentifier"] = "pass.a".into(),
                "order.json:",
                "must start with \"order.\"",
            ),
        ];
        for (change, start, part) in cases {
            assert_order_problem(change, start, part);
        }
    }

    #[test]
    fn has_all_its_problems_reported_at_once() {
        let archive = ArchiveBuilder::new(Kind::Pass, "{}")
            .build_unsigned()
            .unwrap();
        let problems = problems(&archive, Rules::strict());
        assert_eq!(problems.len(), 9, "{problems:#?}");
    }
}

mod manifest {
    use super::*;

    fn with_manifest(change: impl FnOnce(&mut Value)) -> Vec<u8> {
        let builder = builder(&pass());
        let mut manifest = serde_json::from_slice(&builder.manifest()).unwrap();
        change(&mut manifest);
        let manifest = manifest.to_string().into_bytes();
        let signature = signer("pass.com.example.ticket")
            .sign(Purpose::Manifest, &manifest)
            .unwrap();
        zip_with(|files| {
            *find(files, "manifest.json") = manifest;
            *find(files, "signature") = signature;
        })
    }

    #[test]
    fn is_missing() {
        let problems = problems(
            &zip_with(|files| files.retain(|(name, _)| name != "manifest.json")),
            Rules::strict(),
        );
        assert_eq!(
            problems,
            [
                "the archive: has no manifest.json; add a manifest that lists the SHA-1 of every file"
            ]
        );
    }

    #[test]
    fn does_not_match_the_files() {
        for (archive, start, part) in [
            (
                with_manifest(|manifest| manifest["icon.png"] = "0".repeat(40).into()),
                "icon.png: its content does not match manifest.json (the SHA-1 is ",
                "write the manifest again",
            ),
            (
                with_manifest(|manifest| manifest["icon.png"] = "0".repeat(64).into()),
                "icon.png: manifest.json lists a value that is not a SHA-1",
                "40 hexadecimal digits",
            ),
            (
                with_manifest(|manifest| manifest["icon.png"] = 1.into()),
                "icon.png: manifest.json lists it with a value that is not a string",
                "",
            ),
            (
                with_manifest(|manifest| remove(manifest, "icon.png")),
                "icon.png: manifest.json does not list it",
                "leave it out",
            ),
            (
                with_manifest(|manifest| manifest["ghost.png"] = "0".repeat(40).into()),
                "manifest.json: lists a file that is not in the archive",
                "\"ghost.png\"",
            ),
            (
                with_manifest(|manifest| manifest["signature"] = "0".repeat(40).into()),
                "manifest.json: lists itself or the signature",
                "",
            ),
            (
                with_manifest(|manifest| *manifest = json!([])),
                "manifest.json:1:1: ",
                "expected a JSON object",
            ),
        ] {
            assert_problem(&archive, start, part);
        }
    }

    #[test]
    fn has_a_digest_in_upper_case() {
        let archive = with_manifest(|manifest| {
            let digest = manifest["icon.png"].as_str().unwrap().to_uppercase();
            manifest["icon.png"] = digest.into();
        });
        the_finding(&archive, Level::Warning, "manifest-case");
    }

    #[test]
    fn of_an_order_has_sha_256() {
        let archive = sign(&builder(&order()), "order.com.example.shop");
        let mut files = unzip(&archive);
        find(&mut files, "icon.png").push(0);
        assert_problem(
            &zip(&files),
            "icon.png: its content does not match",
            "SHA-256",
        );
    }
}

mod signature {
    use super::*;

    #[test]
    fn is_missing_or_something_else() {
        assert_problem(
            &zip_with(|files| files.retain(|(name, _)| name != "signature")),
            "the archive: has no signature; sign manifest.json",
            "",
        );
        assert_problem(
            &zip_with(|files| *find(files, "signature") = b"-----BEGIN CMS-----".to_vec()),
            "signature: is text",
            "DER",
        );
        assert_problem(
            &zip_with(|files| find(files, "signature").truncate(100)),
            "signature: is not a CMS signature: it ends in the middle",
            "",
        );
    }

    #[test]
    fn is_for_another_manifest() {
        let other = signer("pass.com.example.ticket")
            .sign(Purpose::Manifest, b"{}")
            .unwrap();
        assert_problem(
            &zip_with(|files| *find(files, "signature") = other),
            "signature: was made for another manifest.json",
            "sign after",
        );
    }

    #[test]
    fn over_a_token_is_checked_like_on_a_phone() {
        let [own, other] = ["pass.com.example.ticket", "pass.com.example.other"]
            .map(|id| TypeIdentifier::new(id).unwrap());
        let signature = signer("pass.com.example.ticket")
            .sign(Purpose::PersonalizationToken, b"abc")
            .unwrap();
        let worst = |type_id, token, signature: &[u8]| {
            let findings = check_token_signature(type_id, token, signature);
            (findings.worst().unwrap(), findings[0].to_string())
        };
        // The certificates do not lead to Apple.
        assert_eq!(worst(&own, "abc", &signature).0, Level::Warning);
        for (type_id, token, signature, problem) in [
            (
                &own,
                "abd",
                &signature[..],
                "was made for other bytes than the token",
            ),
            (
                &other,
                "abc",
                &signature,
                "with a certificate for \"pass.com.example.ticket\"",
            ),
            (&own, "abc", b"", "is empty"),
        ] {
            let (level, text) = worst(type_id, token, signature);
            assert!(level == Level::Refused && text.contains(problem), "{text}");
        }
    }

    #[test]
    fn is_by_another_key() {
        let archive = zip_with(|files| {
            let signature = find(files, "signature");
            // The last byte belongs to the ECDSA signature.
            *signature.last_mut().unwrap() ^= 1;
        });
        assert_problem(&archive, "signature: does not verify", "key");
    }

    #[test]
    fn is_by_the_certificate_of_another_type_or_team() {
        assert_problem(
            &sign(&builder(&pass()), "pass.com.example.other"),
            "signature: was made with a certificate for \"pass.com.example.other\" (its UID)",
            "passTypeIdentifier in pass.json is \"pass.com.example.ticket\"",
        );
        assert_problem(
            &sign(&builder(&order()), "order.com.example.other"),
            "signature: was made with a certificate for \"order.com.example.other\" (its UID)",
            "orderTypeIdentifier in order.json",
        );
        for (description, type_id) in [
            (pass(), "pass.com.example.ticket"),
            (order(), "order.com.example.shop"),
        ] {
            let mut description = description;
            description["teamIdentifier"] = "ZZZZZ99999".into();
            assert_problem(
                &sign(&builder(&description), type_id),
                "signature: was made with a certificate of the team \"ABCDE12345\" (its OU)",
                "is \"ZZZZZ99999\"",
            );
        }
    }

    #[test]
    fn is_not_detached_or_without_certificate() {
        assert_problem(
            include_bytes!("fixtures/not-detached.pkpass"),
            "signature: contains a copy of the manifest",
            "detached",
        );
        assert_problem(
            include_bytes!("fixtures/no-certificate.pkpass"),
            "signature: does not contain the certificate of its signer",
            "",
        );
    }
}

mod hostile {
    use super::*;

    /// A small random generator (xorshift). It gives the same sequence in each run.
    pub(super) struct Random(pub(super) u64);

    impl Random {
        pub(super) fn below(&mut self, end: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 % end as u64) as usize
        }
    }

    #[test]
    fn changed_archives_never_panic() {
        let mut random = Random(1);
        let seeds = [
            signed_pass(),
            include_bytes!("fixtures/rsa-sha1-indefinite.pkpass").to_vec(),
            include_bytes!("fixtures/p384-sha384.order").to_vec(),
        ];
        for _ in 0..5_000 {
            let mut archive = seeds[random.below(seeds.len())].clone();
            for _ in 0..=random.below(8) {
                let at = random.below(archive.len());
                match random.below(4) {
                    0 => drop(archive.remove(at)),
                    1 => archive.insert(at, random.below(256) as u8),
                    2 => archive[at] = [0, 0x7f, 0x80, 0xff][random.below(4)],
                    _ => archive[at] ^= 1 << random.below(8),
                }
            }
            if let Err(findings) = Archive::check(&archive, Rules::development()) {
                assert!(!findings.is_empty());
            }
        }
    }

    #[test]
    fn changed_files_never_panic() {
        let mut random = Random(2);
        let good = unzip(&signed_pass());
        for _ in 0..1_000 {
            let mut files = good.clone();
            let index = random.below(files.len());
            let content = &mut files[index].1;
            for _ in 0..=random.below(4) {
                let at = random.below(content.len() + 1);
                content.insert(at, b"\"\\{}[],:0\x80"[random.below(10)]);
            }
            assert!(Archive::check(&zip(&files), Rules::strict()).is_err());
        }
    }

    #[test]
    fn every_bit_of_what_is_signed_counts() {
        let files = unzip(&signed_pass());
        for name in ["pass.json", "manifest.json", "icon.png"] {
            let length = files.iter().find(|file| file.0 == name).unwrap().1.len();
            for at in 0..length {
                let mut changed = files.clone();
                find(&mut changed, name)[at] ^= 1 << (at % 8);
                let checked = Archive::check(&zip(&changed), Rules::development());
                assert!(checked.is_err(), "byte {at} of {name}");
            }
        }
    }
}

mod levels {
    use super::*;

    #[test]
    fn each_value_of_a_pass_has_its_level() {
        use Level::{Error, Refused, Warning};
        type Change = fn(&mut Value);
        let cases: &[(Change, Level, &str)] = &[
            // Dates.
            (
                |p| p["expirationDate"] = "2026-01-31T12:00:00+0000".into(),
                Refused,
                "date",
            ),
            (
                |p| p["expirationDate"] = "2026-01-31T12:00:00".into(),
                Refused,
                "date",
            ),
            (
                |p| p["relevantDate"] = "2026-01-31T12:00:00ZZ".into(),
                Refused,
                "date",
            ),
            (
                |p| p["relevantDates"] = json!([{"date": "2026-01-31"}]),
                Refused,
                "date",
            ),
            (
                |p| p["semantics"] = json!({"eventStartDate": "2026-01-31"}),
                Error,
                "date-ignored",
            ),
            (
                |p| add_field(p, json!({"dateStyle": "PKDateStyleShort"})),
                Error,
                "date-ignored",
            ),
            // JSON types.
            (|p| p["expirationDate"] = Value::Null, Refused, "type"),
            (|p| p["logoText"] = 1.into(), Refused, "type"),
            (|p| p["voided"] = "no".into(), Refused, "type"),
            (|p| p["maxDistance"] = "100".into(), Refused, "type"),
            (
                |p| p["associatedStoreIdentifiers"] = json!(["1"]),
                Refused,
                "type",
            ),
            (
                |p| p["locations"] = json!([{"latitude": "1", "longitude": 2}]),
                Refused,
                "type",
            ),
            (
                |p| p["barcode"] = barcode(json!({"message": 1})),
                Refused,
                "type",
            ),
            (
                |p| p["barcodes"] = json!([barcode(json!({"message": null}))]),
                Refused,
                "type",
            ),
            (
                |p| p["barcodes"] = barcode(json!({})),
                Error,
                "type-ignored",
            ),
            (
                |p| p["barcode"] = json!({"message": "1", "format": "QR"}),
                Error,
                "barcode",
            ),
            (|p| add_field(p, json!({"label": 1})), Refused, "type"),
            (|p| add_field(p, json!({"value": null})), Refused, "type"),
            (
                |p| add_field(p, json!({"value": true})),
                Error,
                "type-ignored",
            ),
            (
                |p| add_field(p, json!({"changeMessage": 1})),
                Error,
                "type-ignored",
            ),
            (
                |p| p["semantics"] = json!({"eventStartDateInfo": "soon"}),
                Refused,
                "type",
            ),
            (
                |p| add_field(p, json!({"semantics": {"eventStartDateInfo": "soon"}})),
                Refused,
                "type",
            ),
            (
                |p| p["eventTicket"]["backFields"] = json!({}),
                Error,
                "type-ignored",
            ),
            // Fields.
            (
                |p| p["eventTicket"]["backFields"] = json!([{"key": "a"}]),
                Refused,
                "field",
            ),
            (
                |p| p["eventTicket"]["backFields"] = json!([{"value": "a"}]),
                Refused,
                "field",
            ),
            (
                |p| {
                    add_field(p, json!({}));
                    p["eventTicket"]["backFields"] = p["eventTicket"]["primaryFields"].clone();
                },
                Refused,
                "field-twice",
            ),
            // Colours.
            (|p| p["backgroundColor"] = "red".into(), Refused, "color"),
            (|p| p["labelColor"] = "rgb(1, 2)".into(), Refused, "color"),
            // Styles.
            (
                |p| style(p, "boardingPass", json!({})),
                Refused,
                "transit-type",
            ),
            (
                |p| style(p, "boardingPass", json!({"transitType": "Air"})),
                Refused,
                "transit-type",
            ),
            (
                |p| style(p, "boardingPass", json!({"transitType": 1})),
                Refused,
                "transit-type",
            ),
            (
                |p| style(p, "posterGeneric", json!({})),
                Warning,
                "style-new",
            ),
            (
                |p| style(p, "posterOfNextYear", json!({"heroFields": []})),
                Warning,
                "style-unknown",
            ),
            (
                |p| style(p, "posterOfNextYear", json!({})),
                Warning,
                "style-unknown",
            ),
            (
                |p| style(p, "userInfo", json!({})),
                Refused,
                "style-missing",
            ),
            (
                |p| style(p, "userInfo", json!({"headerFields": []})),
                Refused,
                "style-missing",
            ),
            (
                |p| style(p, "loyalty", json!({"points": 3})),
                Refused,
                "style-missing",
            ),
            (|p| p["coupon"] = json!({}), Warning, "style-twice"),
            // Updates.
            (|p| remove(p, "webServiceURL"), Warning, "no-url"),
            (|p| remove(p, "authenticationToken"), Refused, "token"),
            (
                |p| p["authenticationToken"] = "too short".into(),
                Refused,
                "token",
            ),
            (
                |p| p["authenticationToken"] = " 0123456789abcdef ".into(),
                Error,
                "token-unusable",
            ),
            (
                |p| {
                    remove(p, "webServiceURL");
                    remove(p, "authenticationToken");
                },
                Warning,
                "no-web-service",
            ),
            (
                |p| url(p, "https://example.com/wallet?"),
                Warning,
                "url-query",
            ),
            (|p| url(p, "http://example.com/wallet"), Warning, "url-http"),
            (
                |p| url(p, "https://example.com/wallet/v1"),
                Error,
                "url-version",
            ),
            (
                |p| url(p, "https://example.com/a.pkpass"),
                Error,
                "url-file",
            ),
            (|p| url(p, "example.com"), Error, "url"),
            (|p| p["webServiceURL"] = 1.into(), Refused, "type"),
            (
                |p| p["nfc"] = json!({"message": "1"}),
                Refused,
                "certificate-nfc",
            ),
        ];
        for (change, level, code) in cases {
            let mut pass = pass();
            change(&mut pass);
            let archive = sign(&builder(&pass), "pass.com.example.ticket");
            let message = the_finding(&archive, *level, code);
            assert!(
                message.starts_with("pass.json:") || message.starts_with("signature: "),
                "{message}"
            );
        }
    }

    fn add_field(pass: &mut Value, change: Value) {
        let mut field = json!({"key": "a", "value": "b"});
        for (key, value) in change.as_object().unwrap() {
            field[key] = value.clone();
        }
        pass["eventTicket"]["primaryFields"] = json!([field]);
    }

    fn barcode(change: Value) -> Value {
        let mut barcode = json!({
            "format": "PKBarcodeFormatQR", "message": "1", "messageEncoding": "iso-8859-1",
        });
        for (key, value) in change.as_object().unwrap() {
            barcode[key] = value.clone();
        }
        barcode
    }

    fn style(pass: &mut Value, name: &str, style: Value) {
        remove(pass, "eventTicket");
        pass[name] = style;
    }

    fn url(pass: &mut Value, url: &str) {
        pass["webServiceURL"] = url.into();
    }

    #[test]
    fn good_values_are_good() {
        let mut pass = pass();
        remove(&mut pass, "eventTicket");
        for (key, value) in [
            (
                "boardingPass",
                json!({"transitType": "PKTransitTypeAir", "primaryFields": [
                    {"key": "a", "value": 1, "label": ""}, {"key": "b", "value": "2026-01-31T12:00Z", "dateStyle": "PKDateStyleShort"},
                ]}),
            ),
            (
                "posterGeneric",
                json!({"primaryFields": [{"key": "a", "value": "also in another style"}]}),
            ),
            ("expirationDate", json!("9999-01-31T12:00-08:00")),
            (
                "relevantDates",
                json!([{"startDate": "2026-01-31T12:00:00.5Z", "endDate": "2026-01-31T13:00:00Z"}]),
            ),
            ("backgroundColor", json!("rgb(1,2,3)")),
            ("labelColor", json!("#fff")),
            ("barcodes", json!([barcode(json!({}))])),
            ("locations", json!([{"latitude": 1.5, "longitude": -2}])),
            ("userInfo", json!({"unknownKey": null})),
        ] {
            pass[key] = value;
        }
        let archive = sign(&builder(&pass), "pass.com.example.ticket");
        let found = findings(&archive, Rules::strict());
        assert!(found.iter().all(|one| is_usual(one.rule().code)), "{found}");
    }

    #[test]
    fn a_pass_without_web_service_is_read() {
        let mut pass = pass();
        remove(&mut pass, "webServiceURL");
        remove(&mut pass, "authenticationToken");
        let archive = sign(&builder(&pass), "pass.com.example.ticket");
        let archive = Archive::check(&archive, Rules::strict()).unwrap();
        assert!(archive.auth_token.is_none() && archive.web_service_url.is_none());
    }

    #[test]
    fn files_of_macos_are_told_apart() {
        let with = |name: &str, listed: bool| {
            let builder = builder(&pass());
            let all = builder.clone().file(name, "a");
            let signer = signer("pass.com.example.ticket");
            if listed {
                return all.build_signed(&signer).unwrap();
            }
            let mut files = unzip(&builder.build_signed(&signer).unwrap());
            files.push((name.into(), b"a".to_vec()));
            zip(&files)
        };
        for (name, listed, level, code) in [
            (".DS_Store", true, Level::Warning, "macos-file"),
            ("en.lproj/.DS_Store", true, Level::Warning, "macos-file"),
            (".DS_Store", false, Level::Warning, "macos-file"),
            ("__MACOSX/._icon.png", false, Level::Warning, "macos-file"),
            ("._icon.png", false, Level::Warning, "macos-file"),
            ("__MACOSX/._icon.png", true, Level::Refused, "apple-double"),
            (
                "en.lproj/._pass.strings",
                true,
                Level::Refused,
                "apple-double",
            ),
            ("other", false, Level::Refused, "file-not-listed"),
        ] {
            let message = the_finding(&with(name, listed), level, code);
            assert!(message.starts_with(&format!("{name}: ")), "{message}");
        }
        let mut files = unzip(&with(".DS_Store", true));
        find(&mut files, ".DS_Store").push(0);
        the_finding(&zip(&files), Level::Refused, "digest");
    }

    #[test]
    fn what_macos_adds_is_no_content() {
        let digest = |archive: &[u8]| {
            Archive::check(archive, Rules::strict())
                .unwrap()
                .content_digest
        };
        let with = builder(&pass()).file(".DS_Store", "a");
        assert_eq!(
            digest(&signed_pass()),
            digest(&sign(&with, "pass.com.example.ticket"))
        );
    }

    #[test]
    fn what_json_does_not_allow_is_a_warning() {
        let text = serde_json::to_string_pretty(&pass()).unwrap();
        let of = |text: &str| {
            let builder =
                ArchiveBuilder::new(Kind::Pass, text).file("icon.png", placeholder_icon(29));
            sign(&builder, "pass.com.example.ticket")
        };
        let comma = of(&text.replace("wallet/\"", "wallet/\","));
        let message = the_finding(&comma, Level::Warning, "json-comma");
        assert!(
            message.starts_with("pass.json:10:49: has a comma"),
            "{message}"
        );
        the_finding(
            &of(&format!("\u{feff}{text}")),
            Level::Warning,
            "json-byte-order-mark",
        );
        let twice = text.replacen('{', "{\"description\": \"\",", 1);
        the_finding(&of(&twice), Level::Error, "json-key-twice");
    }

    #[test]
    fn a_pass_in_utf16_is_read_and_its_findings_have_positions() {
        let mut pass = pass();
        pass["expirationDate"] = "2026-01-31".into();
        let text = serde_json::to_string_pretty(&pass).unwrap();
        let of = |bytes: Vec<u8>| {
            let mut files = unzip(&sign(&builder(&pass), "pass.com.example.ticket"));
            *find(&mut files, "pass.json") = bytes;
            findings(&zip(&files), Rules::strict())
        };
        let utf8 = of(text.clone().into_bytes());
        let utf16 = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let dates = |found: &Findings| {
            let dates = found.iter().filter(|one| one.rule().code == "date");
            dates.map(ToString::to_string).collect::<Vec<_>>()
        };
        let utf16 = of(utf16);
        assert_eq!(dates(&utf8).len(), 1);
        assert_eq!(dates(&utf8), dates(&utf16));
        assert!(utf16.iter().any(|one| one.rule().code == "json-encoding"));
    }

    #[test]
    fn an_image_may_have_any_resolution_and_language() {
        for name in [
            "icon.png",
            "icon@2x.png",
            "icon@3x.png",
            "en.lproj/icon.png",
        ] {
            let builder = ArchiveBuilder::new(Kind::Pass, pass().to_string()).file(name, "a");
            Archive::check(&sign(&builder, "pass.com.example.ticket"), Rules::strict()).unwrap();
        }
        for name in ["logo.png", "icons.png", "icon.jpg", "icon@4x.png"] {
            let builder = ArchiveBuilder::new(Kind::Pass, pass().to_string()).file(name, "a");
            let archive = sign(&builder, "pass.com.example.ticket");
            the_finding(&archive, Level::Refused, "icon-missing");
        }
        let mut order = order();
        order["merchant"]["logo"] = "shop.png".into();
        let archive = |builder: ArchiveBuilder| sign(&builder, "order.com.example.shop");
        the_finding(&archive(builder(&order)), Level::Refused, "logo-missing");
        let with = builder(&order).file("shop@2x.png", "a");
        Archive::check(&archive(with), Rules::strict()).unwrap();
    }

    #[test]
    fn names_that_only_case_tells_apart_are_refused() {
        let archive = sign(
            &builder(&pass()).file("Icon.png", "a"),
            "pass.com.example.ticket",
        );
        the_finding(&archive, Level::Refused, "file-name-twice");
    }

    #[test]
    fn nfc_takes_a_certificate_that_allows_it() {
        let mut pass = pass();
        pass["nfc"] = json!({
            "message": "1",
            "encryptionPublicKey": include_str!("fixtures/p256.base64"),
        });
        let type_id = TypeIdentifier::new("pass.com.example.ticket").unwrap();
        let plain = Signer::throwaway(&type_id, TEAM).unwrap();
        let signer = Signer::throwaway_with_nfc(&type_id, TEAM).unwrap();
        let with = |builder: ArchiveBuilder, signer| builder.build_signed(signer).unwrap();
        Archive::check(&with(builder(&pass), &signer), Rules::strict()).unwrap();
        let rewards = builder(&self::pass()).file("personalization.json", "{}");
        the_finding(
            &with(rewards.clone(), &plain),
            Level::Refused,
            "certificate-nfc",
        );
        Archive::check(&with(rewards, &signer), Rules::strict()).unwrap();
    }

    #[test]
    fn findings_are_compared_by_rule_and_place() {
        let of = |change: fn(&mut Value)| {
            let mut pass = pass();
            change(&mut pass);
            Report::of(
                &sign(&builder(&pass), "pass.com.example.ticket"),
                Rules::strict(),
            )
            .findings
        };
        let good = of(|_| {});
        let date = of(|pass| pass["expirationDate"] = "tomorrow".into());
        let later = of(|pass| pass["expirationDate"] = "later".into());
        let other = of(|pass| pass["relevantDate"] = "later".into());
        assert!(date.has_new(Level::Refused, &good));
        assert!(!date.has_new(Level::Refused, &later));
        assert!(date.has_new(Level::Refused, &other));
        assert!(!good.has_new(Level::Refused, &date));
    }
}

/// Archives that other readers refuse, or in which they find other files.
mod readers {
    use super::*;

    /// Returns the positions of a mark in an archive.
    fn places(archive: &[u8], mark: &[u8]) -> Vec<usize> {
        let windows = archive.windows(mark.len()).enumerate();
        windows
            .filter(|(_, window)| *window == mark)
            .map(|(at, _)| at)
            .collect()
    }

    fn end(archive: &[u8]) -> usize {
        *places(archive, b"PK\x05\x06").last().unwrap()
    }

    fn number(archive: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(archive[at..at + 4].try_into().unwrap())
    }

    fn set_number(archive: &mut [u8], at: usize, number: u32) {
        archive[at..at + 4].copy_from_slice(&number.to_le_bytes());
    }

    #[track_caller]
    fn assert_structure(archive: &[u8], part: &str) {
        let message = the_finding(archive, Level::Refused, "zip-structure");
        assert!(message.contains(part), "{message}");
    }

    #[test]
    fn find_another_name_at_the_file() {
        let mut archive = signed_pass();
        let local = places(&archive, b"icon.png")[0];
        archive[local] = b'x';
        assert_structure(
            &archive,
            "lists \"icon.png\", but the file there is named \"xcon.png\"",
        );
    }

    #[test]
    fn find_another_compression_at_the_file() {
        let mut archive = signed_pass();
        archive[8] ^= 8;
        assert_structure(&archive, "a compression that the file does not have");
    }

    #[test]
    fn find_something_before_the_archive() {
        let good = signed_pass();
        let mut junk = [b"junk", &good[..]].concat();
        assert_structure(&junk, "has 4 other bytes before it");
        // The offsets now count from the start of the file.
        let at = end(&junk) + 16;
        let start = number(&junk, at) + 4;
        set_number(&mut junk, at, start);
        for entry in places(&junk, b"PK\x01\x02") {
            let place = number(&junk, entry + 42) + 4;
            set_number(&mut junk, entry + 42, place);
        }
        assert_structure(&junk, "has 4 other bytes before it");
    }

    #[test]
    fn look_for_the_directory_elsewhere() {
        let mut archive = signed_pass();
        let at = end(&archive) + 16;
        let start = number(&archive, at);
        set_number(&mut archive, at, start + 1);
        assert_structure(&archive, "its end gives a wrong position");
    }

    #[test]
    fn count_other_files() {
        let good = signed_pass();
        for said in [4_u8, 6] {
            let mut archive = good.clone();
            let at = end(&archive);
            archive[at + 8] = said;
            archive[at + 10] = said;
            assert_structure(
                &archive,
                &format!("says that it has {said} files, but lists 5"),
            );
        }
    }

    #[test]
    fn find_files_that_overlap() {
        let mut archive = signed_pass();
        let entries = places(&archive, b"PK\x01\x02");
        let size = number(&archive, entries[0] + 20);
        set_number(&mut archive, entries[0] + 20, size + 1);
        assert_structure(&archive, "overlap");
    }

    #[test]
    fn take_another_end() {
        let mut archive = signed_pass();
        let at = end(&archive);
        // The comment is a valid end record itself.
        let record = archive[at..].to_vec();
        archive[at + 20] = u8::try_from(record.len()).unwrap();
        archive.extend(record);
        assert_structure(&archive, "several ends");
    }

    #[test]
    fn ignore_what_follows() {
        let archive = [&signed_pass()[..], b"\n"].concat();
        the_finding(&archive, Level::Warning, "zip-tail");
        let mut archive = signed_pass();
        let at = end(&archive);
        archive[at + 20] = 3;
        archive.extend(b"abc");
        Archive::check(&archive, Rules::strict()).expect("a comment is fine");
    }

    #[test]
    fn need_zip64() {
        let mut archive = signed_pass();
        let at = end(&archive);
        archive[at + 8..at + 12].fill(0xff);
        assert_structure(&archive, "zip64");
    }

    #[test]
    fn miss_the_digest_of_the_signer() {
        let sha_256 = [6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1];
        let archive = zip_with(|files| {
            let signature = find(files, "signature");
            let first = places(signature, &sha_256)[0];
            signature[first + sha_256.len() - 1] = 2;
        });
        let message = the_finding(&archive, Level::Refused, "signature");
        assert!(
            message.contains("does not list the digest of its signer"),
            "{message}"
        );
    }

    #[test]
    fn do_not_trust_a_certificate_that_was_changed() {
        let archive = zip_with(|files| {
            let signature = find(files, "signature");
            let organization = places(signature, b"Throw-away certificate")[0];
            signature[organization] = b't';
        });
        // The name of the issuer also contains this text. The change may therefore be in either of
        // the two certificates.
        let findings = findings(&archive, Rules::strict()).at_least(Level::Refused);
        assert!(!findings.is_empty(), "{findings}");
    }

    /// How many changed signatures are compared.
    const ROUNDS: usize = 400;

    /// OpenSSL verifies every signature that this crate accepts.
    #[test]
    fn such_as_openssl_agree_about_signatures() {
        use std::process::Command;

        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let archive = include_bytes!("fixtures/rsa-sha1.pkpass");
        let files = unzip(archive);
        let content = |name: &str| files.iter().find(|file| file.0 == name).unwrap().1.clone();
        std::fs::write(path("manifest"), content("manifest.json")).unwrap();
        let good = content("signature");
        let mut random = super::hostile::Random(7);
        let mut agreed = 0;
        let mut differ = Vec::new();
        for round in 0..ROUNDS {
            let mut changed = good.clone();
            if round > 0 {
                let at = random.below(changed.len());
                changed[at] ^= 1 << random.below(8);
            }
            let mut files = files.clone();
            *find(&mut files, "signature") = changed.clone();
            if Archive::check(&zip(&files), Rules::strict()).is_err() {
                continue;
            }
            std::fs::write(path("signature"), &changed).unwrap();
            let openssl = Command::new("openssl")
                .args(["cms", "-verify", "-binary", "-noverify", "-inform", "DER"])
                .args(["-in", &path("signature"), "-content", &path("manifest")])
                .args(["-out", &path("out")])
                .output()
                .unwrap();
            if openssl.status.success() {
                agreed += 1;
            } else {
                let said = String::from_utf8_lossy(&openssl.stderr).into_owned();
                differ.push(format!("round {round}: {said}"));
            }
        }
        assert!(differ.is_empty() && agreed > 0, "{}", differ.join("\n"));
    }
}
