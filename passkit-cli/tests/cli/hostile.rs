//! Small archives that need much time or memory.

use std::fs;

use passkit_archive::{ArchiveBuilder, placeholder_icon};
use passkit_server::identifiers::Kind;

use crate::program::{Service, eventually};

/// Returns the largest memory of the process so far, in KiB.
fn peak(service: &Service) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", service.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let number = line.unwrap().split_whitespace().nth(1).unwrap();
    number.parse().unwrap()
}

fn builder(text: String) -> ArchiveBuilder {
    ArchiveBuilder::new(Kind::Pass, text).file("icon.png", placeholder_icon(29))
}

fn pass(serial: usize, more: &str) -> String {
    format!(
        r#"{{"formatVersion":1,"passTypeIdentifier":"pass.com.example.hostile","serialNumber":"{serial}",
        "organizationName":"a","description":"b","generic":{{}},"webServiceURL":"https://example.com/",
        "authenticationToken":"0123456789abcdef"{more}}}"#
    )
}

/// Makes small archives that become large: with much JSON, with much content when unpacked, or with
/// many findings.
fn hostile(serial: usize) -> Vec<u8> {
    let objects =
        |count: usize| format!(",\"userInfo\":[{}]", vec![r#"{"a":{}}"#; count].join(","));
    let builder = match serial % 6 {
        // 4 MB of small objects, compressed to a few kilobytes.
        0 => builder(pass(serial, &objects(450_000))),
        // This has the maximum number of values.
        1 => builder(pass(serial, &objects(6_000))),
        2 => builder(pass(
            serial,
            &format!(",\"userInfo\":\"{}\"", "a".repeat(1_000_000)),
        )),
        3 => builder(pass(serial, "")).file("strip.png", vec![0; 60 << 20]),
        4 => builder(pass(serial, "")).file("manifest.json", vec![b'['; 1 << 20]),
        _ => builder(pass(
            serial,
            &format!(",\"barcodes\":[{}]", vec!["{}"; 6_000].join(",")),
        )),
    };
    builder.build_unsigned().unwrap()
}

#[test]
fn a_folder_of_them_takes_little_memory() {
    const ARCHIVES: usize = 18;
    const MIB: u64 = 1024;

    let start = |archives: &[Vec<u8>]| {
        let mut service = Service::with_arguments(&["--allow-unsigned"]);
        for (number, archive) in archives.iter().enumerate() {
            fs::write(service.passes().join(format!("{number}.pkpass")), archive).unwrap();
        }
        service.start();
        service
    };
    let plain = peak(&start(&[]));
    let archives: Vec<_> = (0..ARCHIVES).map(hostile).collect();
    let service = start(&archives);
    // The service listens when it has checked all of them once. Then all of them change.
    for (number, archive) in archives.iter().enumerate() {
        let archive = archives.get(number + 6).unwrap_or(archive);
        fs::write(service.passes().join(format!("{number}.pkpass")), archive).unwrap();
    }
    fs::write(service.passes().join("z.pkpass"), "{}").unwrap();
    eventually("the changes are read", || {
        service.said().contains("z.pkpass: refused")
    });
    let more = peak(&service).saturating_sub(plain) / MIB;
    println!("{more} MiB more than {} MiB", plain / MIB);
    assert!(more < 100, "{more} MiB more than without archives");
}

#[test]
fn names_of_files_and_folders_forge_no_line_of_the_log() {
    let mut service = Service::with_arguments(&["--allow-unsigned"]);
    let folder = service.passes().join("a\n2026-01-01 ERROR forged");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("b\u{1b}[2J\u{202e}.pkpass"), "{}").unwrap();
    service.start();
    eventually("it is refused", || service.said().contains("refused"));
    let said = service.said();
    assert!(
        said.contains(r"/a\n2026-01-01 ERROR forged/b\u{1b}[2J\u{202e}.pkpass: refused"),
        "{said}"
    );
    assert!(
        !said.contains("\n2026-01-01 ERROR") && !said.contains('\u{1b}'),
        "{said}"
    );
}
