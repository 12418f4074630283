use std::fs;

use crate::{
    archives::{pass, signed, unsigned},
    program::{passkit, run},
};

const TYPE: &str = "pass.com.example.check";

#[test]
fn good_bad_and_missing_files_each_get_a_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let good = pass(TYPE, "A", "one");
    fs::write(path("good.pkpass"), &good).unwrap();
    fs::write(path("half.pkpass"), &good[..good.len() / 2]).unwrap();
    fs::write(path("unsigned.pkpass"), unsigned(TYPE, "A", "one")).unwrap();
    let check = |names: &[&str]| {
        run(passkit()
            .arg("check")
            .args(names.iter().map(|name| path(name))))
    };

    let (code, stdout, stderr) = check(&["good.pkpass"]);
    assert_eq!((code, &*stderr), (Some(0), ""));
    let name = path("good.pkpass");
    let (first, rest) = stdout.split_once('\n').unwrap();
    assert_eq!(first, format!("{name}: good: pass {TYPE} A, signed"));
    assert!(
        rest.starts_with(&format!("{name}: warning: signature: ")) && rest.ends_with(" [root]\n"),
        "{rest}"
    );

    let (code, stdout, _) = check(&["half.pkpass", "good.pkpass"]);
    assert_eq!(code, Some(1));
    assert_eq!(stdout.lines().count(), 3, "{stdout}");
    assert!(
        stdout.starts_with(&format!(
            "{}: refused: the archive: is a zip archive whose end is missing",
            path("half.pkpass")
        )),
        "{stdout}"
    );

    let (code, stdout, stderr) = check(&["good.pkpass", "none.pkpass"]);
    assert_eq!(
        (code, stdout.lines().count(), stderr.lines().count()),
        (Some(2), 2, 1)
    );
    assert!(stderr.contains(&path("none.pkpass")), "{stderr}");

    let (code, stdout, _) = check(&["unsigned.pkpass"]);
    assert_eq!(code, Some(1));
    assert!(stdout.contains("signature"), "{stdout}");
    let lenient = run(passkit().args(["check", "--allow-unsigned", &path("unsigned.pkpass")]));
    assert_eq!(lenient.0, Some(0), "{lenient:?}");
}

#[test]
fn each_line_has_its_level_and_its_code() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a\n\u{202e}b.pkpass");
    let check = |content: &[u8]| {
        fs::write(&file, content).unwrap();
        let (code, stdout, stderr) = run(passkit().arg("check").arg(&file));
        assert_eq!(stderr, "");
        // The name tries to forge lines.
        let start = format!(r"{}/a\n\u{{202e}}b.pkpass", folder.path().display());
        for line in stdout.lines() {
            assert!(line.starts_with(&start), "{line}");
        }
        (code, stdout.replace(&start, "FILE"))
    };
    let (code, stdout) = check(b"{\"message\":\"could not make the pass\"}");
    assert_eq!(code, Some(1));
    assert!(
        stdout.starts_with("FILE: refused: the archive: is JSON, not a zip archive"),
        "{stdout}"
    );
    assert!(stdout.ends_with(" [not-zip]\n"), "{stdout}");

    let pass = |files: &[(&str, Vec<u8>)]| signed(TYPE, "A", "one", files);
    let (code, stdout) = check(&pass(&[(".DS_Store", Vec::new())]));
    assert_eq!(code, Some(0));
    assert!(
        stdout.contains("\nFILE: warning: .DS_Store: was added by macOS"),
        "{stdout}"
    );
    let (code, stdout) = check(&pass(&[("._icon.png", Vec::new())]));
    assert_eq!(code, Some(1));
    assert!(
        stdout.starts_with("FILE: refused: ._icon.png: was added by macOS"),
        "{stdout}"
    );
}

#[test]
fn every_pass_of_a_bundle_is_checked() {
    let file = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../passkit-archive/tests/fixtures/field/c1-bundle.pkpasses"
    );
    let (code, stdout, _) = run(passkit().args(["check", file]));
    assert_eq!(code, Some(0));
    let lines: Vec<_> = stdout.lines().collect();
    assert!(
        lines[0].starts_with(&format!("{file}: is a bundle of passes (.pkpasses)")),
        "{stdout}"
    );
    assert!(
        lines[1].starts_with(&format!("{file}/a.pkpass: good: pass ")),
        "{stdout}"
    );
}
