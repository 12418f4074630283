//! Import and export of registrations.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use crate::program::{passkit, run};

fn store(folder: &Path, name: &str) -> String {
    format!("sled:{}", folder.join(name).display())
}

fn import(store: &str, file: &Path, more: &[&str]) -> (Option<i32>, String, String) {
    run(passkit()
        .args(["import", "--store", store, "--from"])
        .arg(file)
        .args(more))
}

fn export(store: &str) -> String {
    let (code, out, said) = run(passkit().args(["export", "--store", store]));
    assert_eq!(code, Some(0), "{said}");
    out
}

/// A file with this many registrations, three for each device.
pub(crate) fn registrations(path: PathBuf, count: usize) -> PathBuf {
    let mut text = String::new();
    for n in 0..count {
        let device = n / 3;
        writeln!(
            text,
            "device-{device:08},{device:064x},pass.com.example.moved,M-{n:08}"
        )
        .unwrap();
    }
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn imported_registrations_are_exported() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (store(folder.path(), "one"), store(folder.path(), "two"));
    let file = registrations(folder.path().join("a.csv"), 12_001);
    let (code, out, said) = import(&one, &file, &[]);
    assert_eq!(code, Some(0), "{said}");
    assert!(
        out.starts_with("12001 registrations imported, 12001 of them new; 0 lines left out"),
        "{out}"
    );
    let (code, out, _) = import(&one, &file, &[]);
    assert_eq!(code, Some(0));
    assert!(
        out.starts_with("12001 registrations imported, 0 of them new"),
        "{out}"
    );

    let exported = export(&one);
    assert_eq!(exported.lines().count(), 12_002);
    let copy = folder.path().join("copy.csv");
    let (code, _, said) = run(passkit()
        .args(["export", "--store", &one, "--to"])
        .arg(&copy));
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(fs::read_to_string(&copy).unwrap(), exported);
    assert_eq!(import(&two, &copy, &[]).0, Some(0));
    let sorted = |text: &str| {
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&export(&two)), sorted(&exported));

    let (code, out, _) = run(passkit().args(["stats", "--json", "--store", &two]));
    assert_eq!(code, Some(0));
    let stats: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(stats["devices"], 4001);
    assert_eq!(stats["registrations"], 12_001);
    assert_eq!(stats["types"][0]["passes"], 12_001);
    let (code, out, _) = run(passkit().args(["stats", "--store", &two]));
    assert_eq!(code, Some(0));
    assert!(out.contains("pass.com.example.moved"), "{out}");
}

#[test]
fn odd_serial_numbers_survive() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (store(folder.path(), "one"), store(folder.path(), "two"));
    let file = folder.path().join("a.csv");
    let text = "type,serial,device,token\n\
        pass.a,\"a,\"\"b\"\" / c\",d1,c0ffee\n\
        pass.a,\" \u{fc}ber \",d1,c0ffee\n\
        order.b,R2D2/09/25,d2,c0ffee\n";
    fs::write(&file, text).unwrap();
    let (code, _, said) = import(&one, &file, &[]);
    assert_eq!(code, Some(0), "{said}");
    let exported = export(&one);
    assert!(
        exported.contains("d1,c0ffee,pass.a,\"a,\"\"b\"\" / c\"\n"),
        "{exported}"
    );
    fs::write(&file, &exported).unwrap();
    assert_eq!(import(&two, &file, &[]).0, Some(0));
    assert_eq!(export(&two), exported);
}

#[test]
fn bad_lines_are_named_and_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path(), "one");
    let file = folder.path().join("bad.csv");
    fs::write(
        &file,
        "device,push_token,type,serial\nd1,c0ffee,pass.a,1\nd1,no hex,pass.a,2\n\"d1,c0ffee,pass.a,3\nd2,c0ffee\n\
         d2,c0ffee,coupon.a,4\nd2,c0ffee,pass.a,5\n",
    )
    .unwrap();
    let rejects = folder.path().join("rejects.csv");
    let (code, out, said) = import(&store, &file, &["--rejects", rejects.to_str().unwrap()]);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        out.starts_with("2 registrations imported, 2 of them new; 4 lines left out"),
        "{out}"
    );
    for number in [3, 4, 5, 6] {
        assert!(said.contains(&format!("bad.csv:{number}: ")), "{said}");
    }
    assert_eq!(fs::read_to_string(&rejects).unwrap().lines().count(), 4);
    assert_eq!(export(&store).lines().count(), 3);
}

#[test]
fn an_import_goes_on_where_it_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("a.csv.passkit-import");
    let mut count = 30_000;
    // Grows until there are too many for an import to end before it is killed.
    let (one, file) = loop {
        count *= 2;
        let one = store(folder.path(), &format!("one-{count}"));
        let file = registrations(folder.path().join("a.csv"), count);
        let mut child = passkit()
            .args(["import", "--store", &one, "--from"])
            .arg(&file)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        while !place.exists() && child.try_wait().unwrap().is_none() {
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        if place.exists() {
            break (one, file);
        }
        assert!(count < 4_000_000, "every import was too fast to be stopped");
    };
    let (code, out, said) = import(&one, &file, &[]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("continues after line "), "{said}");
    assert!(
        out.starts_with(&format!("{count} registrations imported")),
        "{out}"
    );
    assert!(!place.exists());
    assert_eq!(export(&one).lines().count(), count + 1);
}

#[test]
fn a_failed_import_or_export_is_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let one = store(folder.path(), "one");
    let nowhere = folder.path().join("nowhere/a.csv");
    let (code, _, said) = import(&one, &nowhere, &[]);
    assert_eq!((code, said.lines().count()), (Some(2), 1), "{said}");
    let (code, _, said) = run(passkit()
        .args(["export", "--store", &one, "--to"])
        .arg(&nowhere));
    assert_eq!((code, said.lines().count()), (Some(2), 1), "{said}");
    let (code, out, _) = run(passkit().args(["migrate", "--store", &one]));
    assert_eq!(code, Some(0));
    assert!(out.starts_with("nothing to do"), "{out}");
}
