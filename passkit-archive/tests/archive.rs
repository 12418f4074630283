//! Tests with complete archives: good ones of each form, and broken ones with one mistake each.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::io::{Cursor, Write as _};

use passkit_archive::{
    Archive, ArchiveBuilder, MAX_ARCHIVE_BYTES, MAX_ENTRIES, MAX_SIGNATURE_BYTES,
    MAX_UNPACKED_BYTES, Rules, Signer, placeholder_icon,
};
use passkit_server::identifiers::{Kind, TypeIdentifier};
use serde_json::{Value, json};
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

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
    // Indented, so that each key has its own line.
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

/// Makes a zip archive of any files.
fn zip(files: &[(&str, &[u8])]) -> Vec<u8> {
    // Fast compression, because the tests do it a few thousand times.
    let options = SimpleFileOptions::default().compression_level(Some(1));
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in files {
        zip.start_file(name, options).unwrap();
        zip.write_all(content).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// Makes a good archive, and then changes its files.
fn zip_with(change: impl FnOnce(&mut Vec<(String, Vec<u8>)>)) -> Vec<u8> {
    let mut files = unzip(&signed_pass());
    change(&mut files);
    zip_all(&files)
}

fn zip_all(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let files: Vec<_> = files
        .iter()
        .map(|(name, content)| (name.as_str(), content.as_slice()))
        .collect();
    zip(&files)
}

fn unzip(archive: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut zip = zip::ZipArchive::new(Cursor::new(archive)).unwrap();
    (0..zip.len())
        .map(|index| {
            let mut file = zip.by_index(index).unwrap();
            let mut content = Vec::new();
            std::io::copy(&mut file, &mut content).unwrap();
            (file.name().unwrap().into_owned(), content)
        })
        .collect()
}

fn problems(archive: &[u8], rules: Rules) -> Vec<String> {
    let problems = Archive::check(archive, rules).expect_err("the archive is bad");
    assert_eq!(problems.to_string().lines().count(), problems.len());
    problems.iter().map(ToString::to_string).collect()
}

/// Asserts that there is one problem, whose message starts with `start` and contains `part`.
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
        assert_eq!(archive.organization_name, "Example");
        assert_eq!(archive.auth_token.as_str(), "0123456789abcdef");
        assert_eq!(archive.web_service_url, "https://example.com/wallet/");
        assert_eq!(archive.description, pass());
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
            (archive.team_identifier, archive.organization_name.as_str()),
            (None, "Example Shop")
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
            include_bytes!("fixtures/rsa-sha256-no-attributes.pkpass"),
            include_bytes!("fixtures/rsa-sha512-key-identifier.pkpass"),
            include_bytes!("fixtures/p384-sha384.order"),
        ] {
            let archive = Archive::check(archive, Rules::strict()).unwrap();
            assert!(archive.signed && archive.id.serial.as_str() == "fixture-1");
        }
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
        assert_ne!(digest(&first), other("a", ""), "one file more");
        assert_ne!(other("a", "b"), other("b", "b"), "another name");
        assert_ne!(other("a", "b"), other("a", "c"), "another content");
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
        let archive = zip(&[("pass.json", pass().to_string().as_bytes())]);
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
    fn may_use_http() {
        let mut pass = pass();
        pass["webServiceURL"] = "http://localhost:3000".into();
        let archive = builder(&pass).build_unsigned().unwrap();
        Archive::check(&archive, Rules::development()).unwrap();
        let mut rules = Rules::strict();
        rules.allow_unsigned = true;
        let [problem] = &problems(&archive, rules)[..] else {
            panic!()
        };
        assert!(
            problem.starts_with("pass.json:10:3: webServiceURL starts with \"http://\""),
            "{problem}"
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
                "the archive: is not a complete zip archive: ",
                "",
            );
        }
    }

    #[test]
    fn is_damaged() {
        // Stored, because compression would notice a changed bit.
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
        assert_problem(&lying, "icon.png: is damaged", "larger than its declared");
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
            (".DS_Store", ".DS_Store: was added by macOS", "leave it out"),
            (
                "__MACOSX/._icon.png",
                "__MACOSX/._icon.png: was added by macOS",
                "",
            ),
        ] {
            // No zip writer accepts some of these names, so another name of the same length is
            // replaced afterwards.
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
        let mut archive = zip(&[("pass.json", pass().to_string().as_bytes())]);
        let central = archive
            .windows(4)
            .rposition(|window| window == b"PK\x01\x02")
            .unwrap();
        archive[central + 8] |= 1;
        let [problem] = &problems(&archive, Rules::development())[..] else {
            panic!()
        };
        assert!(problem.starts_with("pass.json: is encrypted"), "{problem}");
        archive[central + 8] &= !1;
        archive[central + 10] = 12;
        let [problem] = &problems(&archive, Rules::development())[..] else {
            panic!()
        };
        assert!(
            problem.starts_with("pass.json: is compressed in a way"),
            "{problem}"
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
            &sign(
                &ArchiveBuilder::new(Kind::Pass, text),
                "pass.com.example.ticket",
            ),
            start,
            part,
        );
    }

    #[test]
    fn is_not_json() {
        let text = serde_json::to_string_pretty(&pass()).unwrap();
        let trailing = text.replace("{}", "{\n  \"a\": [1,]\n}");
        assert_text_problem(
            trailing.as_bytes(),
            "pass.json:5:11: trailing comma",
            "remove",
        );
        assert_text_problem(
            b"\xef\xbb\xbf{}",
            "pass.json: starts with a byte order mark",
            "UTF-8",
        );
        assert_text_problem(b"\xff\xfe{\0}\0", "pass.json: is UTF-16", "UTF-8");
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
        let cases: [(Change, &str, &str); 11] = [
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
                |pass| pass["coupon"] = json!({}),
                "pass.json:",
                "one style too many, because there are coupon, eventTicket",
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
            (
                |pass| pass["webServiceURL"] = "https://example.com/?a".into(),
                "pass.json:10:3: webServiceURL has a query",
                "remove it",
            ),
        ];
        for (change, start, part) in cases {
            assert_pass_problem(change, start, part);
        }
    }

    #[test]
    fn cannot_be_updated() {
        assert_pass_problem(
            |pass| {
                remove(pass, "webServiceURL");
                remove(pass, "authenticationToken");
            },
            "pass.json: has neither webServiceURL nor authenticationToken",
            "phones can never update it",
        );
        assert_pass_problem(
            |pass| remove(pass, "webServiceURL"),
            "pass.json:2:3: authenticationToken has no webServiceURL beside it",
            "add one",
        );
        assert_pass_problem(
            |pass| remove(pass, "authenticationToken"),
            "pass.json:9:3: webServiceURL has no authenticationToken beside it",
            "add one",
        );
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
        let cases: [(Change, &str, &str); 6] = [
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
                "RFC 3339",
            ),
            (
                |order| order["merchant"]["url"] = 1.into(),
                "order.json:4:3: merchant has a number for url",
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
            .file(".DS_Store", "")
            .build_unsigned()
            .unwrap();
        let problems = problems(&archive, Rules::strict());
        assert_eq!(problems.len(), 10, "{problems:#?}");
    }
}

mod manifest {
    use super::*;

    fn with_manifest(change: impl FnOnce(&mut Value)) -> Vec<u8> {
        let builder = builder(&pass());
        let mut manifest = serde_json::from_slice(&builder.manifest()).unwrap();
        change(&mut manifest);
        let manifest = manifest.to_string().into_bytes();
        let signature = signer("pass.com.example.ticket").sign(&manifest).unwrap();
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
            ["the archive: has no manifest.json; add one that lists the SHA-1 of every file"]
        );
    }

    #[test]
    fn does_not_match_the_files() {
        let upper = |manifest: &mut Value| {
            let digest = manifest["icon.png"].as_str().unwrap().to_uppercase();
            manifest["icon.png"] = digest.into();
        };
        for (archive, start, part) in [
            (
                with_manifest(|manifest| manifest["icon.png"] = "0".repeat(40).into()),
                "icon.png: its content does not match manifest.json (SHA-1 is ",
                "write the manifest again",
            ),
            (
                with_manifest(upper),
                "icon.png: manifest.json lists its SHA-1 in upper case",
                "lower-case",
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
    fn of_an_order_has_sha_256() {
        let archive = sign(&builder(&order()), "order.com.example.shop");
        let mut files = unzip(&archive);
        find(&mut files, "icon.png").push(0);
        assert_problem(
            &zip_all(&files),
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
        let other = signer("pass.com.example.ticket").sign(b"{}").unwrap();
        assert_problem(
            &zip_with(|files| *find(files, "signature") = other),
            "signature: was made for another manifest.json",
            "sign after",
        );
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
            "signature: is by a certificate for \"pass.com.example.other\" (its UID)",
            "passTypeIdentifier in pass.json is \"pass.com.example.ticket\"",
        );
        assert_problem(
            &sign(&builder(&order()), "order.com.example.other"),
            "signature: is by a certificate for \"order.com.example.other\" (its UID)",
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
                "signature: is by a certificate of the team \"ABCDE12345\" (its OU)",
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
    struct Random(u64);

    impl Random {
        fn below(&mut self, end: usize) -> usize {
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
            if let Err(problems) = Archive::check(&archive, Rules::development()) {
                assert!(!problems.is_empty());
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
            assert!(Archive::check(&zip_all(&files), Rules::strict()).is_err());
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
                let checked = Archive::check(&zip_all(&changed), Rules::development());
                assert!(checked.is_err(), "byte {at} of {name}");
            }
        }
    }
}
